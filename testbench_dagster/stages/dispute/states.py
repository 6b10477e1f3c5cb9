"""What became of the docs that were not all answered, as a bundle tells it, and as it is computed again.

A line per doc and round says its state and its occasions, with the ids of the answers that witness them.
Those of tasks outside of the bundle are in it as claims (when, and how long they took), as is what others
say of a refused request: their answers are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AnswerTime, DocAttempt
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.evidence.facts import StatesFacts
from testbench_dagster.evidence.records import iso
from testbench_dagster.stages.score.samples import Task
from testbench_dagster.stages.score.states import (
    DocRound,
    KnownDoc,
    Others,
    Supplied,
    answered_since,
    refused_tasks,
    voided,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed

_ANSWERED = frozenset(fault.value for fault in Fault if fault.answered)


@dataclass
class States:
    """Doc states of some tasks of a supplier.

    ``lines`` by task, prompt and round, as a bundle holds them. ``answers`` are all that they follow from,
    by id. ``void`` are prompts that others refuse as well.
    """

    lines: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, AnswerTime] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    #: By task and task hash the prompts that were refused, of tasks of which nothing was answered.
    refusals: dict[tuple[str, str], set[str]] = field(default_factory=dict)


def doc_states(
    workspace: Workspace, supplier: Supplier, tasks: Sequence[Task], others: Others, now: datetime
) -> States:
    """The states of all docs of some tasks that were not answered at every attempt, as of an instant."""
    found = States()
    supplied = Supplied(workspace, supplier, now)
    for spec, registration in tasks:
        where = {"supplier": supplier.key, "task": spec.name, "task_hash": registration.task_hash}
        by_doc: dict[DocRound, list[DocAttempt]] = {}
        answered = False
        for attempt in typed.find(workspace.documents, DocAttempt, where):
            counts = supplier.cut_at is None or attempt.finished_at > supplier.cut_at
            if counts and not attempt.canary:
                by_doc.setdefault((attempt.prompt_id, attempt.round), []).append(attempt)
                answered = answered or attempt.fault in _ANSWERED
        unclear = {
            key: sorted(own, key=lambda a: (a.finished_at, a.attempt, a.id))
            for key, own in by_doc.items()
            if not all(a.fault in _ANSWERED for a in own)
        }
        known = supplied.known(unclear)
        refused = {
            key[0]
            for key, one in known.items()
            if one.outcome.refused and one.outcome.state is not DocState.SCORED
        }
        void = others.void(supplier.service, refused) if refused else set()
        found.void |= void
        if refused and not answered:
            found.refusals[spec.name, registration.task_hash] = refused
        for key in sorted(known):
            one = voided(known[key]) if key[0] in void and key[0] in refused else known[key]
            found.answers |= {a.id: a for a in supplied.around(unclear[key])}
            found.lines[spec.name, *key] = _line(spec.name, unclear[key], one, supplied)
    return found


def _line(task: str, attempts: Sequence[DocAttempt], known: KnownDoc, supplied: Supplied) -> dict[str, Any]:
    outcome, last = known.outcome, attempts[-1]
    witnesses = supplied.witnesses(attempts, outcome.occasions)
    return {
        "task": task,
        "prompt_id": last.prompt_id,
        "doc_id": last.doc_id,
        "epoch": last.epoch,
        "round": last.round,
        "state": outcome.state.value,
        "fault": None if outcome.fault is None else outcome.fault.value,
        "late": outcome.late,
        "ours": outcome.ours,
        "unreachable": outcome.unreachable,
        "occasions": [
            {
                "started_at": iso(occasion.started_at),
                "ended_at": iso(occasion.ended_at),
                "fault": occasion.fault.value,
                "run": occasion.run,
                "witnesses": sorted(answer.id for answer in seen),
            }
            for occasion, seen in zip(outcome.occasions, witnesses, strict=True)
        ],
    }


def states_facts(workspace: Workspace, supplier: Supplier, states: States, others: Others) -> dict[str, Any]:
    """What the manifest says of the clock and of others (:class:`~..evidence.facts.StatesFacts`)."""
    settings = workspace.config.settings
    return {
        "occasions_minutes": list(settings.planning.occasions_minutes),
        "void": sorted(states.void),
        "refused": sorted(others.refused(supplier, states.refusals)) if states.refusals else [],
        "answered": others.answered(supplier),
    }


class Claims:
    """What a bundle claims of others, in the place of the stores that would show it."""

    def __init__(self, documents: DocumentStore, facts: StatesFacts | None) -> None:
        self._documents, self._facts = documents, facts

    def void(self, service: str, prompts: Iterable[str]) -> set[str]:
        """The prompts that are said to be void."""
        return set() if self._facts is None else set(prompts) & set(self._facts.void)

    def refused(self, supplier: Supplier, refusals: Mapping[tuple[str, str], Iterable[str]]) -> set[str]:
        """The tasks whose form is said to be refused, of those that may be by what is in the bundle."""
        answered = partial(answered_since, self._documents, supplier, None)
        possible = refused_tasks(self._documents, supplier, refusals, answered)
        return set() if self._facts is None else possible & set(self._facts.refused)

    def answered(self, supplier: Supplier) -> bool:
        """Whether it is said that the supplier answered anything."""
        return self._facts is not None and self._facts.answered


def different_states(
    said: Mapping[tuple[str, str, int], Mapping[str, Any]],
    again: Mapping[tuple[str, str, int], Mapping[str, Any]],
    told: Callable[[str], bool],
) -> Iterator[tuple[tuple[str, str, int], str, Any, Any]]:
    """Key, field, what was said and what was found, of states that do not follow from their facts.

    ``told`` says of the id of an answer whether something was found about it already: that it witnesses no
    other doc any more follows from that, and accuses nobody else.
    """
    for key in sorted({*said, *again}):
        one, two = said.get(key), again.get(key)
        if one is None or two is None:
            missing = "no such doc" if two is None else "missing"
            yield (
                key,
                missing,
                None if one is None else one.get("state"),
                None if two is None else two["state"],
            )
            continue
        for name, value in two.items():
            before: Any = one.get(name)
            now: Any = value
            if name == "occasions":
                seen = [_witnesses(occasions or ()) for occasions in (before, now)]
                before, now = (_without_witnesses(occasions or ()) for occasions in (before, now))
                if before == now and (other := {i for i in seen[0] ^ seen[1] if not told(i[1])}):
                    name = "witnesses"
                    before, now = (sorted(i for _, i in ids & other) for ids in seen)
            if before != now:
                yield key, name, before, now
                break


def _witnesses(occasions: Sequence[Mapping[str, Any]]) -> set[tuple[int, str]]:
    """The ids of the witnesses, with the number of their occasion."""
    return {(number, id_) for number, one in enumerate(occasions) for id_ in one["witnesses"]}


def _without_witnesses(occasions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != "witnesses"} for one in occasions]
