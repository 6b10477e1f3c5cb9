"""What is due for one supplier and task: a pure function of the sequence, the outcomes and the clock.

Rules (design section 5):

* A *call* is one request of a prompt (``idx``) and repeat. It is final when its last attempt was answered
  or failed by the supplier's fault; any other failure leaves it due.
* A *prompt* is scored when all its calls are answered, an error when one failed by the supplier's fault, and
  due otherwise. An error is not asked again in the same round unless ``retry_errors``.
* A final prompt is *fresh* until ``max_age`` after its last call, in whatever round that was.
* Prompts are asked in the order of the sequence. When none of the round is left and too few are fresh, the
  next round asks those that are not.
* A doc that an earlier epoch final counts while it is fresh: a new sequence does not ask all anew.
* What was answered before a change of the supplier's model (``cut_at``), or before a forced renewal began
  (``force_since``), is void: such a doc is neither counted nor completed, but asked whole in the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import Measured, SampleRule, target_docs

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
    """What to relay now, in order; ``reason`` says why nothing is due, or what the calls are for.

    ``target`` docs are wanted and ``fresh`` are there, over all epochs. ``due_at`` is the present when docs
    are due, else when too few will be fresh by ageing alone; None when nothing will ever be due.
    """

    round: int
    due: list[DuePrompt] = field(default_factory=list)
    reason: str = ""
    target: int = 0
    fresh: int = 0
    due_at: datetime | None = None

    @property
    def n_calls(self) -> int:
        """Number of relays the plan needs, retries aside."""
        return sum(len(prompt.calls) for prompt in self.due)


_Asked = dict[int, dict[str, dict[tuple[int, int], CallOutcome]]]  # round → prompt id → call → outcome


def plan_task(
    prompts: Sequence[PromptRef],
    outcomes: Iterable[CallOutcome],
    *,
    rule: SampleRule | None,
    measured: Measured,
    now: datetime,
    max_age: timedelta,
    cut_at: datetime | None = None,
    final_elsewhere: Mapping[int, datetime] | None = None,
    at_least: int = 0,
    at_most: int | None = None,
    undecided: bool = False,
    force_since: datetime | None = None,
    retry_errors: bool = False,
) -> TaskPlan:
    """Decide which prompts a supplier is asked now.

    Args:
        prompts: the sequence, ascending by position, each doc once.
        outcomes: last attempts of this supplier on these prompts, of every round.
        rule: how many docs; None for all.
        measured: the current window, for rules with a target width.
        now: the present, timezone-aware.
        max_age: after which a final prompt no longer counts.
        cut_at: when the supplier's model changed; what finished at or before it is void.
        final_elsewhere: doc id → when its newest final outcome of earlier epochs finished.
        at_least: docs to ask even if fewer are wanted: those the round has not asked yet, then, in the next
            round, the others, longest final first.
        at_most: docs to ask at most.
        undecided: a sequential gate waits for this task: as many docs as the rule allows are wanted.
        force_since: ask again what finished before it: the docs of the sequence that count now, and at
            least as many as the rule wants. A later call with the same instant continues.
        retry_errors: ask prompts again that ended in the supplier's fault.
    """
    if not prompts:
        return TaskPlan(1, [], "the sequence has no prompts")
    asked = _by_round(prompts, outcomes)
    current = max(asked, default=1)
    states = asked.get(current, {})

    def after_cut(at: datetime) -> bool:
        return cut_at is None or at > cut_at

    def valid(at: datetime) -> bool:
        return after_cut(at) and (force_since is None or at >= force_since)

    def fresh_docs(counts: Callable[[datetime], bool]) -> dict[int, datetime]:
        final = _final(prompts, asked, final_elsewhere or {}, counts)
        return {doc: at for doc, at in final.items() if at > now - max_age}

    fresh = fresh_docs(valid)
    target = target_docs(rule, len(prompts), measured)
    if undecided and rule is not None:
        target = min(rule.max, len(prompts))
    renewed: set[int] = set()  # by force; they come first, so that the target stays what it is
    if force_since is not None:
        renewed = fresh_docs(after_cut).keys() & {prompt.doc_id for prompt in prompts}
        target = max(target, len(renewed))

    wanted: list[PromptRef] = []  # can be asked, or completed, in the current round
    stale: list[PromptRef] = []  # only in the next
    for prompt in prompts:
        calls = states.get(prompt.id, {})
        void = not all(valid(call.finished_at) for call in calls.values())
        verdict = _verdict(prompt, calls)
        if verdict == ERROR and retry_errors and not void:
            fresh.pop(prompt.doc_id, None)
            wanted.append(prompt)
        elif prompt.doc_id not in fresh:
            (stale if void or verdict != DUE else wanted).append(prompt)

    missing = max(0, target - len(fresh))
    final = [prompt for prompt in prompts if prompt.doc_id in fresh]
    final.sort(key=lambda prompt: (fresh[prompt.doc_id], prompt.position))
    untouched = [prompt for prompt in final if prompt.id not in states]
    roll = bool(missing) and (not wanted or any(prompt.doc_id in renewed for prompt in stale))
    if min(missing, len(wanted)) < at_least:
        roll = roll or len(wanted) + len(untouched) < min(at_least, len(prompts))

    pool = [*wanted, *stale] if roll else wanted
    pool = sorted(pool, key=lambda prompt: prompt.doc_id not in renewed)
    chosen = pool[:missing]
    if len(chosen) < at_least:
        chosen = [*pool, *(final if roll else untouched)][:at_least]
    chosen = chosen[:at_most]
    due = [DuePrompt(prompt, _calls(prompt, {} if roll else states.get(prompt.id, {}))) for prompt in chosen]

    if not missing:
        reason = f"all {target} wanted docs are fresh" + (f"; {len(due)} are renewed" if due else "")
    elif force_since is not None:
        reason = f"{len(fresh)} of {target} docs are renewed by force"
    elif roll and not wanted:
        reason = f"round {current} is used up and {len(stale)} docs are stale"
    else:
        reason = f"{len(fresh)} of {target} docs are fresh"
    due_at = None
    if due:
        due_at = now
    elif not missing:
        due_at = sorted(fresh.values())[len(fresh) - target] + max_age
    return TaskPlan(current + 1 if roll and due else current, due, reason, target, len(fresh), due_at)


def _by_round(prompts: Sequence[PromptRef], outcomes: Iterable[CallOutcome]) -> _Asked:
    """The last attempt of each call."""
    ids = {prompt.id for prompt in prompts}
    asked: _Asked = {}
    for outcome in outcomes:
        if outcome.prompt_id not in ids:
            continue  # of the other request form, or beyond a shortened sequence
        calls = asked.setdefault(outcome.round, {}).setdefault(outcome.prompt_id, {})
        known = calls.get((outcome.idx, outcome.repeat))
        if known is None or known.attempt < outcome.attempt:
            calls[(outcome.idx, outcome.repeat)] = outcome
    return asked


def _final(
    prompts: Sequence[PromptRef],
    asked: _Asked,
    elsewhere: Mapping[int, datetime],
    counts: Callable[[datetime], bool],
) -> dict[int, datetime]:
    """When each doc was last final with all its calls in time, in whatever round or epoch."""
    found = {doc_id: at for doc_id, at in elsewhere.items() if counts(at)}
    by_id = {prompt.id: prompt for prompt in prompts}
    for states in asked.values():
        for prompt_id, calls in states.items():
            prompt = by_id[prompt_id]
            if _verdict(prompt, calls) != DUE and all(counts(call.finished_at) for call in calls.values()):
                at = max(call.finished_at for call in calls.values())
                found[prompt.doc_id] = max(at, found.get(prompt.doc_id, at))
    return found


def _verdict(prompt: PromptRef, calls: Mapping[tuple[int, int], CallOutcome]) -> str:
    if any(c.fault.final and not c.fault.answered for c in calls.values()):
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
