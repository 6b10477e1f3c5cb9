"""What is due for one supplier and task: a pure function of the sequence, the outcomes and the clock.

Rules (design section 5):

* A *call* is one request of a prompt (``idx``) and repeat. It is settled when its last attempt was answered
  or failed by the supplier's fault; any other failure leaves it due.
* A *prompt* is scored when all its calls are answered, an error when one failed by the supplier's fault, and
  due otherwise. An error is not asked again in the same round unless ``retry_errors``.
* A settled prompt is *fresh* until ``max_age`` after its last call, in whatever round that was.
* Prompts are asked in the order of the sequence. When none of the round is left and too few are fresh, the
  next round asks those that are not.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import NormalDist

from testbench_dagster.config import SampleRule
from testbench_dagster.relays.faults import Fault

SCORED, ERROR, DUE = "scored", "error", "due"


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
    """What the current window says.

    ``n`` scored docs with the ``mean`` of their primary metric (None where it is no mean of values in
    [0, 1]), and ``failed`` docs that ended in the supplier's fault.
    """

    n: int = 0
    mean: float | None = None
    failed: int = 0


def target_docs(rule: SampleRule | None, available: int, measured: Measured) -> int:
    """How many docs the supplier should have settled: all, or as many as the rule's interval width needs.

    The number for a width solves Wilson's half width for n at the measured mean, at 95 %. Failed docs say
    nothing about the mean, so they come on top. The result is bounded by ``min`` and ``max``.
    """
    if rule is None:
        return available
    top = min(rule.max, available)
    low = min(rule.min, top)
    if rule.half_width is None:
        return top
    if measured.n == 0 or measured.n + measured.failed < rule.min:
        return low
    mean, wanted = measured.mean, rule.half_width
    if mean is None:
        return top
    z = NormalDist().inv_cdf(0.975)
    sizes = range(measured.n, max(measured.n, top - measured.failed))  # beyond them the bound decides
    needed = measured.n + bisect_left(sizes, True, key=lambda n: _wilson_half_width(mean, n, z) <= wanted)
    return max(low, min(top, needed + measured.failed))


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
    by_id = {prompt.id: prompt for prompt in prompts}
    by_round: dict[int, dict[str, dict[tuple[int, int], CallOutcome]]] = {}
    for outcome in outcomes:
        if outcome.prompt_id not in by_id:
            continue  # of the other request form, or beyond a shortened sequence
        calls = by_round.setdefault(outcome.round, {}).setdefault(outcome.prompt_id, {})
        known = calls.get((outcome.idx, outcome.repeat))
        if known is None or known.attempt < outcome.attempt:
            calls[(outcome.idx, outcome.repeat)] = outcome
    current = max(by_round, default=1)
    states = by_round.get(current, {})
    fresh_ids = {
        id_
        for asked in by_round.values()
        for id_, calls in asked.items()
        if _verdict(by_id[id_], calls) != DUE and max(c.finished_at for c in calls.values()) > now - max_age
    }
    target = target_docs(rule, len(prompts), measured)

    wanted: list[DuePrompt] = []
    stale: list[PromptRef] = []
    fresh = 0
    for prompt in prompts:
        calls = states.get(prompt.id, {})
        verdict = _verdict(prompt, calls)
        if verdict == ERROR and retry_errors:
            wanted.append(DuePrompt(prompt, _calls(prompt, calls)))
        elif prompt.id in fresh_ids:
            fresh += 1
        elif verdict == DUE:
            wanted.append(DuePrompt(prompt, _calls(prompt, calls)))
        else:
            stale.append(prompt)

    room = max(0, target - fresh)
    if not prompts:
        return TaskPlan(current, [], "the sequence has no prompts", 0)
    if not room:
        return TaskPlan(current, [], f"all {target} wanted docs are fresh", target)
    if wanted:
        return TaskPlan(current, wanted[:room], f"{fresh} of {target} docs are fresh", target)
    again = [DuePrompt(prompt, _calls(prompt, {})) for prompt in stale[:room]]
    reason = f"round {current} is used up and {len(stale)} docs are stale"
    return TaskPlan(current + 1, again, reason, target)


def _verdict(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> str:
    if any(c.fault.settled and not c.fault.answered for c in calls.values()):
        return ERROR
    answered = sum(c.fault.answered for c in calls.values())
    return SCORED if answered == prompt.requests * prompt.repeats else DUE


def _calls(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> tuple[DueCall, ...]:
    wanted = []
    for idx in range(prompt.requests):
        for repeat in range(prompt.repeats):
            known = calls.get((idx, repeat))
            if known is None or not known.fault.answered:
                wanted.append(DueCall(idx, repeat, 1 if known is None else known.attempt + 1))
    return tuple(wanted)
