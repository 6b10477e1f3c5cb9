"""Which tasks can never be relayed to which suppliers."""

from __future__ import annotations

from collections.abc import Collection

from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.registration import Registration

#: What is said of who cannot be asked a choice as lm-eval asks it, where others are asked letters.
LETTERS_ARE_FOR_CHAT = "; by letters (~chat) it is asked where api is chat"


def cannot_answer(api: str, output_type: str, forms: Collection[str], echo_logprobs: bool | None) -> bool:
    """Whether a supplier takes no requests of a task, as far as is known, by their kind and forms.

    Loglikelihood needs completions with ``echo`` and ``logprobs`` (``echo_logprobs`` is what the capability
    probe found), that of whole texts too. These take a token before the first one as well; whether a supplier
    shows it, its answers tell.
    """
    if output_type in TEXT_KINDS:
        return api not in forms
    return api == "chat" or echo_logprobs is False


def why_it_cannot(
    api: str, output_type: str, forms: Collection[str], echo_logprobs: bool | None
) -> str | None:
    """Why a supplier takes no requests of a task, in words; None where :func:`cannot_answer` is False."""
    if not cannot_answer(api, output_type, forms, echo_logprobs):
        return None
    if output_type in TEXT_KINDS:
        return f"it is asked as {' or '.join(sorted(forms))} alone, and the supplier's API is {api}"
    lacks = "which no chat API gives" if api == "chat" else "which the supplier does not echo"
    return f"its requests ({output_type}) want log-probabilities of given texts, {lacks}"


def is_unsupported(api: str, registration: Registration, echo_logprobs: bool | None) -> bool:
    """Whether a task cannot be relayed to a supplier, as far as is known; see :func:`cannot_answer`."""
    return cannot_answer(api, registration.flags.output_type, registration.flags.request_forms, echo_logprobs)
