"""What is due for one supplier and task: a pure function of the sequence, the outcomes and the clock.

Rules (design section 5):

* A *call* is one request of a prompt (``idx``) and repeat. It is settled when its last attempt was answered
  or failed by the supplier's fault; any other failure leaves it due.
* A *prompt* is scored when all its calls are answered, an error when one failed by the supplier's fault, and
  due otherwise. An error is not asked again in the same round unless ``retry_errors``.
* Prompts are asked in the order of the sequence. When all of the round are settled and some of them are
  older than ``max_age``, the next round asks the sequence again from its start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import NormalDist

from testbench_dagster.config import SampleRule
from testbench_dagster.relays.faults import Fault


@dataclass(frozen=True, slots=True)
class PromptRef:
    """A prompt of the sequence: enough to plan with, without its requests."""

    id: str
    position: int
    doc_id: int
    requests: int
    repeats: int


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The last attempt of one call in a round."""

    prompt_id: str
    idx: int
    repeat: int
    attempt: int
    fault: Fault
    finished_at: datetime
    round: int = 1


@dataclass(frozen=True, slots=True)
class DueCall:
    """A call to make and the number its next attempt will have."""

    idx: int
    repeat: int
    attempt: int


@dataclass(frozen=True, slots=True)
class DuePrompt:
    """A prompt with the calls still to make."""

    prompt: PromptRef
    calls: tuple[DueCall, ...]


@dataclass(frozen=True)
class TaskPlan:
    """What to relay now, in order; ``reason`` says why nothing is due, or what the calls are for."""

    round: int
    due: list[DuePrompt] = field(default_factory=list)
    reason: str = ""
    target: int = 0

    @property
    def n_calls(self) -> int:
        """Number of relays the plan needs, retries aside."""
        return sum(len(prompt.calls) for prompt in self.due)


@dataclass(frozen=True)
class Measured:
    """What the current window says: scored docs and the mean of the primary metric (None: no 0-1 metric)."""

    n: int = 0
    mean: float | None = None


def target_docs(rule: SampleRule | None, available: int, measured: Measured) -> int:
    """How many docs the supplier should have settled: all, or as many as the rule's interval width needs.

    The number for a width solves Wilson's half width for n at the measured mean, at 95 %; it is bounded by
    ``min`` and ``max``.
    """
    if rule is None:
        return available
    top = min(rule.max, available)
    if rule.half_width is None or (measured.n >= rule.min and measured.mean is None):
        return top
    if measured.n < rule.min or measured.mean is None:
        return min(rule.min, top)
    z = NormalDist().inv_cdf(0.975)
    needed = measured.n
    while needed < top and _wilson_half_width(measured.mean, needed, z) > rule.half_width:
        needed += 1
    return max(min(rule.min, top), needed) if needed <= top else top


def _wilson_half_width(mean: float, n: int, z: float) -> float:
    return z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))


def plan_task(
    prompts: Sequence[PromptRef],
    outcomes: Iterable[CallOutcome],
    *,
    rule: SampleRule | None,
    measured: Measured,
    now: datetime,
    max_age: timedelta,
    retry_errors: bool = False,
) -> TaskPlan:
    """Decide which prompts a supplier is asked now.

    Args:
        prompts: the sequence, ascending by position.
        outcomes: last attempts of this supplier on these prompts, of every round.
        rule: how many docs; None for all.
        measured: the current window, for rules with a target width.
        now: the present, timezone-aware.
        max_age: after which a settled prompt no longer counts.
        retry_errors: ask prompts again that ended in the supplier's fault.
    """
    by_round: dict[int, dict[str, dict[tuple[int, int], CallOutcome]]] = {}
    for outcome in outcomes:
        calls = by_round.setdefault(outcome.round, {}).setdefault(outcome.prompt_id, {})
        known = calls.get((outcome.idx, outcome.repeat))
        if known is None or known.attempt < outcome.attempt:
            calls[(outcome.idx, outcome.repeat)] = outcome
    current = max(by_round, default=1)
    states = by_round.get(current, {})
    target = target_docs(rule, len(prompts), measured)

    open_prompts: list[DuePrompt] = []
    retries: list[DuePrompt] = []
    stale: list[PromptRef] = []
    scored = failed = 0  # fresh ones
    for prompt in prompts:
        calls = states.get(prompt.id, {})
        verdict = _verdict(prompt, calls)
        if verdict == "due":
            open_prompts.append(DuePrompt(prompt, _calls(prompt, calls)))
        elif verdict == "error" and retry_errors:
            retries.append(DuePrompt(prompt, _calls(prompt, calls)))
        elif max(c.finished_at for c in calls.values()) <= now - max_age:
            stale.append(prompt)
        elif verdict == "scored":
            scored += 1
        else:
            failed += 1

    # a failed doc is made up for by the next of the sequence, but a supplier that only fails meets the top
    top = len(prompts) if rule is None else min(rule.max, len(prompts))
    missing = max(0, min(target - scored, top - scored - failed))
    due = [*retries, *open_prompts[: max(0, missing - len(retries))]]
    if due:
        return TaskPlan(current, due, f"{scored} of {target} wanted docs are scored and fresh", target)
    if missing == 0:
        return TaskPlan(current, [], f"{scored} of {target} wanted docs are fresh, {failed} failed", target)
    if stale and not open_prompts:
        again = [DuePrompt(p, _calls(p, {})) for p in prompts[:missing]]
        return TaskPlan(
            current + 1, again, f"round {current} is used up and {len(stale)} docs are stale", target
        )
    return TaskPlan(current, [], "the sequence has no further prompts", target)


def _verdict(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> str:
    if any(c.fault.settled and not c.fault.answered for c in calls.values()):
        return "error"
    answered = sum(c.fault.answered for c in calls.values())
    return "scored" if answered == prompt.requests * prompt.repeats else "due"


def _calls(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> tuple[DueCall, ...]:
    wanted = []
    for idx in range(prompt.requests):
        for repeat in range(prompt.repeats):
            known = calls.get((idx, repeat))
            if known is None or not known.fault.answered:
                wanted.append(DueCall(idx, repeat, 1 if known is None else known.attempt + 1))
    return tuple(wanted)
