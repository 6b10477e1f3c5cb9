"""How one supplier wants to be asked for a text, where that differs from the request of the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

#: Where the token limit stands in a request; ``omit`` sends none.
TokenField = Literal["max_tokens", "max_completion_tokens", "omit"]

#: What ``extra_body`` may not say: the question, whom it is put to, and how the answer comes.
NOT_EXTRA = frozenset({"messages", "prompt", "model", "stream", "stream_options", "echo", "logprobs"})
#: Most tokens that ``budget`` may add.
MAX_BUDGET = 1_000_000
#: Name of these settings in the evidence of attempts.
EVIDENCE = "generation"


@dataclass(frozen=True, slots=True)
class SupplierGeneration:
    """What a supplier's requests for texts carry otherwise than the task says (its ``generation:``).

    The default changes nothing. ``budget`` tokens are added to the task's limit, for what a reasoning model
    thinks before it answers. ``effort`` is sent as ``reasoning_effort``. ``temperature`` and ``seed`` replace
    the task's, or are left out (``omit``). ``stop``: ``client`` sends no stop strings and cuts the answer
    here, once its reasoning is taken away; a number sends at most so many of them and cuts at the others
    here. ``extra_body`` is merged into the body last, and can neither replace the prompt nor the model.

    Raises:
        ValueError: a value is none of these.
    """

    token_field: TokenField = "max_tokens"  # noqa: S105  no secret
    budget: int = 0
    effort: str | None = None
    temperature: float | Literal["omit"] | None = None
    seed: int | Literal["omit"] | None = None
    stop: int | Literal["client"] | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.token_field not in get_args(TokenField):
            raise ValueError(f"token_field must be one of {', '.join(get_args(TokenField))}")
        if not _is_whole(self.budget) or not 0 <= self.budget <= MAX_BUDGET:
            raise ValueError(f"budget must be a whole number from 0 to {MAX_BUDGET}")
        if self.effort is not None and not isinstance(self.effort, str):
            raise ValueError("effort must be a text, such as low")
        number = isinstance(self.temperature, (int, float)) and not isinstance(self.temperature, bool)
        if self.temperature not in (None, "omit") and not (number and 0 <= float(self.temperature) <= 10):
            raise ValueError("temperature must be a number from 0 to 10, or omit")
        if self.seed not in (None, "omit") and not _is_whole(self.seed):
            raise ValueError("seed must be a whole number, or omit")
        if self.stop not in (None, "client") and not (_is_whole(self.stop) and int(self.stop) >= 0):
            raise ValueError("stop must be a number of stop strings from 0 on, or client")
        if not isinstance(self.extra_body, Mapping):
            raise ValueError("extra_body must be a mapping")
        taken = sorted(NOT_EXTRA.intersection(self.extra_body))
        if taken:
            raise ValueError(f"extra_body may not hold {', '.join(taken)}, which the task decides")

    def settings(self) -> dict[str, Any]:
        """What differs from the default, by name: how it is configured, published and kept as evidence."""
        return {
            f.name: dict(value) if isinstance(value, Mapping) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) != getattr(AS_THE_TASK_SAYS, f.name)
        }


def generation_of(evidence: Mapping[str, Any]) -> SupplierGeneration:
    """With which settings an attempt with this evidence was asked.

    Raises:
        ValueError: the evidence names settings that there are not.
    """
    said = evidence.get(EVIDENCE)
    if said is None:
        return AS_THE_TASK_SAYS
    if not isinstance(said, Mapping):
        raise ValueError(f"{EVIDENCE} must be a mapping")
    known = {f.name for f in fields(SupplierGeneration)}
    if unknown := sorted(str(name) for name in said if name not in known):
        raise ValueError(f"{EVIDENCE} names {unknown[0][:40]!r}, which is no setting")
    return SupplierGeneration(**said)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


#: A supplier that is asked just as the task says.
AS_THE_TASK_SAYS = SupplierGeneration()
