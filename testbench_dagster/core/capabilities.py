"""Which tasks can never be relayed to which suppliers."""

from __future__ import annotations

from testbench_dagster.core.prompt import ANY_API
from testbench_dagster.core.registration import Registration


def is_unsupported(api: str, registration: Registration, echo_logprobs: bool | None) -> bool:
    """Whether a task cannot be relayed to a supplier, as far as is known.

    Loglikelihood needs completions with ``echo`` and ``logprobs`` (``echo_logprobs`` is what the capability
    probe found); rolling loglikelihood would need the supplier's own prefix token as well.
    """
    output_type = registration.flags.output_type
    if output_type in ANY_API:
        return False
    return output_type == "loglikelihood_rolling" or api == "chat" or echo_logprobs is False
