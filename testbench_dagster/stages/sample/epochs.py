"""How many docs of each task everybody is asked in its present epoch, as the epoch's record says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.prompt import form_of
from testbench_dagster.core.records.prompts import EpochSpread, NewestEpoch
from testbench_dagster.core.records.set_aside import VoidDocs
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Slots, common_docs
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stores.documents import DocumentStore, document_id, typed

#: How far back the newest epochs are looked for first: those of every month are among them.
_LATELY = timedelta(days=40)

#: A sequence of prompts: name of the task, what its requests are made of, number of the epoch, form.
PromptSequence = tuple[str, str, int, str]


def sequence_length(spec: TaskSpec, registration: Registration) -> int:
    """Number of positions of a task's sequence: ``samples.max``, or all docs."""
    return registration.n_docs if spec.samples is None else min(spec.samples.max, registration.n_docs)


def void_by_sequence(documents: DocumentStore, tasks: Iterable[str]) -> Mapping[PromptSequence, int]:
    """How many docs of the sequences of some tasks nobody is asked because no store holds their prompts."""
    where = {"task": {"in": sorted(tasks)}}
    return {(r.task, r.task_hash, r.epoch, r.api): r.n for r in typed.group(documents, VoidDocs, where)}


def newest_epochs(documents: DocumentStore, tasks: Iterable[str]) -> dict[str, int]:
    """Number of the newest epoch of each of some tasks that has one.

    Most began lately, and of these the years before are not read. Dates do not tell which is the newest: one
    that was dated by a clock that was ahead may seem to have begun after those that followed it.
    """
    wanted = set(tasks)
    lately = {"started_at": {"gt": datetime.now(UTC) - _LATELY}}
    found = {r.task: r.max_epoch for r in typed.group(documents, NewestEpoch, lately) if r.task in wanted}
    if others := wanted - found.keys():
        rows = typed.group(documents, NewestEpoch, {"task": {"in": sorted(others)}})
        found |= {row.task: row.max_epoch for row in rows}
    followed: dict[str, int] = dict(found)
    while followed:
        ids = [document_id("epoch", task, number + 1) for task, number in followed.items()]
        rows = typed.group(documents, NewestEpoch, {"_id": {"in": sorted(ids)}})
        followed = {row.task: row.max_epoch for row in rows}
        found |= followed
    return found


def epoch_docs(spec: TaskSpec, registration: Registration, variance: float | None, void: int) -> int:
    """How many docs of a task everybody is asked in an epoch, by the ``variance`` stored with it.

    ``void`` docs of its sequence can be asked of nobody: they are not wanted either.
    """
    return common_docs(spec.samples, max(0, sequence_length(spec, registration) - void), variance)


def epoch_slots(docs: int, since: int | None, draw: str | None) -> Slots:
    """The slots of an epoch, whose number of ``docs`` was set by the one ``since``, as its record has it."""
    return Slots(docs) if since is None or draw is None else Slots(docs, since, draw)


def wanted_slots(
    documents: DocumentStore, tasks: Iterable[tuple[TaskSpec, Registration]], api: Api
) -> dict[str, Slots]:
    """By task the slots of everybody who takes requests of ``api``, in its present epoch.

    In few queries; ``start`` where no epoch began yet.
    """
    known = list(tasks)
    newest = newest_epochs(documents, [spec.name for spec, _ in known])
    where = {"task": {"in": sorted(newest)}, "epoch": {"in": sorted(set(newest.values()))}}
    spreads = {
        row.task: row
        for row in typed.find(documents, EpochSpread, where)
        if newest.get(row.task) == row.epoch
    }
    void = void_by_sequence(documents, newest)
    wanted = {}
    for spec, registration in known:
        form = form_of(api, registration.flags)
        lacking = void.get((spec.name, registration.task_hash, newest.get(spec.name, 0), form), 0)
        row = spreads.get(spec.name)
        docs = epoch_docs(spec, registration, None if row is None else row.variance, lacking)
        wanted[spec.name] = (
            Slots(docs) if row is None else epoch_slots(docs, row.spread_epoch, row.spread_draw)
        )
    return wanted
