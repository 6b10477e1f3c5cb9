"""Whether a task's gates are open for a supplier, and if not, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from testbench_dagster.core.rules import Gate, SequentialGate, TaskGate, TaxonomyGate
from testbench_dagster.statistics.sequential import docs_to_decide, sprt


@dataclass(frozen=True)
class TaskState:
    """What gates look at in a task of the supplier.

    ``present``: it has a sample in its window. ``score`` is the mean of its primary metric, ``signature`` the
    newest of a signature task; None where there is none. ``values`` are the scores in the order they were
    answered, each from 0 to 1, empty where the metric is no mean of such.
    """

    present: bool = False
    score: float | None = None
    signature: str | None = None
    values: tuple[float, ...] = ()


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
    """

    tasks: Mapping[str, TaskState]
    abilities: Mapping[tuple[str, str | None], Ability]
    now: datetime
    max_age: timedelta
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class GateVerdict:
    """``reason`` says what every closed gate lacks, empty when all are open.

    ``undecided_tasks`` are those whose sequential test needs more docs.
    """

    open: bool
    reason: str
    undecided_tasks: frozenset[str]


def check_gates(gates: Sequence[Gate], facts: GateFacts) -> GateVerdict:
    """Check gates, all of which must be open; one on a group is open when it is for each of its tasks."""
    lacking: list[str] = []
    undecided: set[str] = set()
    for gate in gates:
        if isinstance(gate, TaxonomyGate):
            lacking += _lacking_in_taxonomy(gate, facts)
            continue
        for task in facts.groups.get(gate.task, (gate.task,)):
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
        if not state.signature and (state.score is None or state.score <= 0):
            yield f"{task} {_scored(state.score)}, more than 0 wanted"
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
        failed = f"{task} failed its test after {verdict.decided_at} docs: mean {mean:.2f}"
        return "fail", f"{failed}, {gate.pass_at:g} wanted"
    if not state.values:
        return "undecided", f"{task} is undecided: no scored docs yet"
    more = docs_to_decide(state.values, *rule)
    about = "" if more is None else f", about {max(1, more)} more needed"
    return "undecided", f"{task} is undecided after {verdict.n} docs{about}"


def _lacking_in_taxonomy(gate: TaxonomyGate, facts: GateFacts) -> Iterator[str]:
    name = gate.taxonomy if gate.node is None else f"{gate.taxonomy}/{gate.node}"
    ability = facts.abilities.get((gate.taxonomy, gate.node))
    if ability is None:
        yield f"{name} has no summary yet"
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
        yield f"{name} has {ability.min_samples} docs in its least sampled task, {gate.min_samples} wanted"


def _scored(score: float | None) -> str:
    return "has no score yet" if score is None else f"scores {_number(score)}"


def _number(value: float) -> str:
    """Two digits, rounded down, so that what is too little does not look like enough."""
    return f"{math.floor(value * 100 + 1e-9) / 100:.2f}"


def _days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):.1f} days"
