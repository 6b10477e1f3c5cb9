"""Whether a task's gates are open for a supplier, and if not, what is missing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.rules import Gate, SequentialGate, TaskGate, TaxonomyGate
from testbench_dagster.core.wording import counted
from testbench_dagster.statistics.sequential import docs_to_decide, sprt


@dataclass(frozen=True)
class TaskState:
    """What gates look at in a task of the supplier.

    ``present``: it has a sample in its window. ``score`` is the mean of its primary metric, ``signature`` the
    newest of a signature task; None where there is none. ``lower``: its metric is a mean of values from 0 to
    1 where lower is better, so that 1 is the worst. ``values`` are those of the docs in the order of the
    sequence, each from 0 to 1 and more is better (where lower is, 1 less the metric's), empty where the
    metric is no mean of such.
    """

    present: bool = False
    score: float | None = None
    signature: str | None = None
    values: tuple[float, ...] = ()
    lower: bool = False

    @property
    def quality(self) -> float | None:
        """The score with more as better."""
        return 1.0 - self.score if self.lower and self.score is not None else self.score


@dataclass(frozen=True)
class Ability:
    """A taxonomy node of the supplier as last summarized.

    ``success`` is the share of its docs that it did not leave unanswered for good, None without docs;
    ``min_samples`` the fewest docs among the tasks behind it.
    """

    score: float | None
    success: float | None
    min_samples: int
    summarized_at: datetime


@dataclass(frozen=True)
class GateFacts:
    """All that gates of a supplier depend on.

    ``abilities`` are keyed by taxonomy and node, None being the root. A summary older than ``max_age`` counts
    for nothing. ``groups`` gives the leaf tasks of each name a gate may use; another name is a task itself.
    ``not_asked`` are the tasks that the configuration does not ask the supplier, ``not_asked_abilities`` the
    abilities of which it asks it no task.
    """

    tasks: Mapping[str, TaskState]
    abilities: Mapping[tuple[str, str | None], Ability]
    now: datetime
    max_age: timedelta
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    not_asked: Collection[str] = ()
    not_asked_abilities: Collection[tuple[str, str | None]] = ()


@dataclass(frozen=True)
class GateVerdict:
    """``reason`` says what every closed gate lacks, empty when all are open.

    ``undecided_tasks`` are those whose sequential test needs more docs.
    """

    open: bool
    reason: str
    undecided_tasks: frozenset[str]


def check_gates(gates: Sequence[Gate], facts: GateFacts) -> GateVerdict:
    """Check gates, all of which must be open; one on a group is open when it is for each of its tasks.

    What the supplier is not asked has no say: a gate on it alone is open, for it could never open otherwise.
    """
    lacking: list[str] = []
    undecided: set[str] = set()
    for gate in gates:
        if isinstance(gate, TaxonomyGate):
            if (gate.taxonomy, gate.node) not in facts.not_asked_abilities:
                lacking += _lacking_in_taxonomy(gate, facts)
            continue
        for task in facts.groups.get(gate.task, (gate.task,)):
            if task in facts.not_asked:
                continue
            state = facts.tasks.get(task, TaskState())
            if isinstance(gate, TaskGate):
                lacking += _lacking_in_task(gate, task, state)
            elif (verdict := _sequential(gate, task, state)) is not None:
                lacking.append(verdict[1])
                if verdict[0] == "undecided":
                    undecided.add(task)
    return GateVerdict(not lacking, "; ".join(lacking), frozenset(undecided))


def _lacking_in_task(gate: TaskGate, task: str, state: TaskState) -> Iterator[str]:
    if gate.condition == "present":
        if not state.present:
            yield f"{task} has no sample yet"
    elif gate.condition == "ok":
        if not state.signature and (state.quality is None or state.quality <= 0):
            yield f"{task} {_scored(state.score)}, {'less than 1' if state.lower else 'more than 0'} wanted"
    elif isinstance(gate.value, str):
        if state.signature != gate.value:
            found = "has no signature yet" if state.signature is None else f"signs {state.signature!r}"
            yield f"{task} {found}, {gate.value!r} wanted"
    elif gate.value is not None and (
        state.score is None or not math.isclose(state.score, gate.value, abs_tol=1e-9)
    ):
        yield f"{task} {_scored(state.score)}, exactly {gate.value:g} wanted"


def _sequential(gate: SequentialGate, task: str, state: TaskState) -> tuple[str, str] | None:
    """The decision and what is lacking; None when passed."""
    rule = (gate.fail_at, gate.pass_at, gate.alpha, gate.beta)
    verdict = sprt(state.values, *rule)
    if verdict.decision == "pass":
        return None
    if verdict.decided_at is not None:
        mean = math.fsum(state.values[: verdict.decided_at]) / verdict.decided_at
        what = "mean of 1 less its values" if state.lower else "mean"
        failed = f"{task} failed its test after {counted(verdict.decided_at, 'doc')}: {what} {mean:.2f}"
        return "fail", f"{failed}, {gate.pass_at:g} wanted"
    if not state.values:
        return "undecided", f"{task} is undecided: no scored docs yet"
    more = docs_to_decide(state.values, *rule)
    about = "" if more is None else f", about {max(1, more)} more needed"
    return "undecided", f"{task} is undecided after {counted(verdict.n, 'doc')}{about}"


def _lacking_in_taxonomy(gate: TaxonomyGate, facts: GateFacts) -> Iterator[str]:
    name = gate.taxonomy if gate.node is None else f"{gate.taxonomy}/{gate.node}"
    ability = facts.abilities.get((gate.taxonomy, gate.node))
    if ability is None:
        yield f"{name} has no summary yet"
        return
    if is_ahead(ability.summarized_at, facts.now):
        yield f"the summary of {name} is dated ahead of now, {ability.summarized_at:%Y-%m-%d %H:%M}"
        return
    age = facts.now - ability.summarized_at
    if age > facts.max_age:
        yield f"the summary of {name} is {_days(age)} old, at most {_days(facts.max_age)} wanted"
        return
    if ability.score is None or ability.score < gate.min_score:
        yield f"{name} {_scored(ability.score)}, {gate.min_score:g} wanted"
    if gate.min_success > 0 and (ability.success is None or ability.success < gate.min_success):
        share = 0.0 if ability.success is None else ability.success
        yield f"{name} answers {_number(share)} of its docs, {gate.min_success:g} wanted"
    if ability.min_samples < gate.min_samples:
        docs = counted(ability.min_samples, "doc")
        yield f"{name} has {docs} in its least sampled task, {gate.min_samples} wanted"


def _scored(score: float | None) -> str:
    return "has no score yet" if score is None else f"scores {_number(score)}"


def _number(value: float) -> str:
    """Two digits, rounded down, so that what is too little does not look like enough."""
    return f"{math.floor(value * 100 + 1e-9) / 100:.2f}"


def _days(age: timedelta) -> str:
    return f"{counted(age / timedelta(days=1), 'day', '.1f')}"
