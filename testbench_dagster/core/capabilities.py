"""Which tasks can never be relayed to which suppliers."""

from __future__ import annotations

from collections.abc import Collection

from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.registration import Registration


def cannot_answer(api: str, output_type: str, forms: Collection[str], echo_logprobs: bool | None) -> bool:
    """Whether a supplier takes no requests of a task, as far as is known, by their kind and forms.

    Loglikelihood needs completions with ``echo`` and ``logprobs`` (``echo_logprobs`` is what the capability
    probe found), that of whole texts too. These take a token before the first one as well; whether a supplier
    shows it, its answers tell.
    """
    if output_type in TEXT_KINDS:
        return api not in forms
    return api == "chat" or echo_logprobs is False


def is_unsupported(api: str, registration: Registration, echo_logprobs: bool | None) -> bool:
    """Whether a task cannot be relayed to a supplier, as far as is known; see :func:`cannot_answer`."""
    return cannot_answer(api, registration.flags.output_type, registration.flags.request_forms, echo_logprobs)
