"""Windows: what is known now about a supplier on a task, one row per metric and filter.

A pure view of scores and attempts. The stage that scores caches it (:func:`refresh_window_cache`); readers
take what is cached where that still holds, compute the rest from the facts, and write nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeGuard

from testbench_dagster.coordination.writing import living_writers, new_token, void_document
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord, WritingProcess
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Slots
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.text import escaped
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.costs import with_cost
from testbench_dagster.scoring.delivered import DeliveredDoc, delivered_docs
from testbench_dagster.scoring.failures import FailuresAs
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster.scoring.reliability import NO_CALLS, Minutes, calls_of
from testbench_dagster.scoring.rows import Aggregation, status_if_not_asked, task_windows
from testbench_dagster.stages.discover.roster import active_suppliers, cuts_of, named_suppliers
from testbench_dagster.stages.sample.epochs import wanted_slots
from testbench_dagster.stages.score.clusters import Clusters
from testbench_dagster.stages.score.deadlines import deadline_s
from testbench_dagster.stages.score.empty import EmptyScores
from testbench_dagster.stages.score.groups import identity_groups
from testbench_dagster.stages.score.samples import Task, samples_by_task
from testbench_dagster.stages.score.states import Others, Peers
from testbench_dagster.stages.score.window_answers import (
    IndexedDoc,
    TaskDocs,
    answers_id,
    answers_record,
    indexed_docs,
    unpack,
)
from testbench_dagster.stages.score.window_cache import (
    Computed,
    Tally,
    WindowCache,
    entry,
    fingerprints,
    microseconds,
    subject,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import WorkerTimeout

_SUPPLIERS = 100  # whose cached rows are in memory at once
_TASKS = 50  # whose packed docs of one supplier are in memory at once
_TRIES = 5  # of caching rows of a supplier that others change too; then they are left to the next


@dataclass(frozen=True)
class MeasuredSupplier:
    """The rows of a supplier, and by task what is counted of its attempts, where it was asked any.

    ``docs``: by task the docs behind the primary row, where they were asked for; ``groups``: the primary rows
    of the groups that were.
    """

    supplier: str
    rows: list[Window]
    tallies: Mapping[str, Tally]
    docs: Mapping[str, Sequence[DeliveredDoc]] = field(default_factory=dict)
    groups: list[Window] = field(default_factory=list)


def windows(
    workspace: Workspace,
    *,
    suppliers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    now: datetime | None = None,
    from_facts: bool = False,
    others: Others | None = None,
) -> list[Window]:
    """Return the windows of the active suppliers and all tasks, or of the given keys and tasks (or groups).

    Of suppliers named by key those that left are shown too. With ``from_facts`` nothing that was cached is
    looked at. ``others`` says what else rows depend on; by default the stores do.
    """
    reader = _Reader(workspace, tasks, now, others)
    found = reader.read(named_suppliers(workspace, suppliers), primary_only=False, from_facts=from_facts)
    return [row for measured in found for row in measured.rows]


def windows_as_of(
    workspace: Workspace,
    at: datetime,
    *,
    suppliers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> list[Window]:
    """Return the windows as they were at an instant: of the facts dated up to then, and the changes known.

    Tasks and suppliers are those of now, and answers are scored as they are now, whenever that was done.
    """
    chosen = [
        replace(
            supplier, cut_at=max((cut for cut in cuts_of(workspace, supplier.key) if cut <= at), default=None)
        )
        for supplier in named_suppliers(workspace, suppliers)
    ]
    found = _Reader(workspace.as_of(at), tasks, at).read(chosen, primary_only=False, from_facts=True)
    return [row for measured in found for row in measured.rows]


def primary_windows(
    workspace: Workspace,
    suppliers: Sequence[Supplier] | None = None,
    now: datetime | None = None,
    tasks: Sequence[str] | None = None,
) -> Iterator[tuple[str, list[Window]]]:
    """Yield supplier by supplier the primary rows of :func:`windows`, few at a time.

    ``suppliers`` are read here where they are not given; ``tasks`` are all by default.
    """
    for measured in measured_suppliers(workspace, suppliers, now, tasks):
        yield measured.supplier, measured.rows


def measured_suppliers(
    workspace: Workspace,
    suppliers: Sequence[Supplier] | None = None,
    now: datetime | None = None,
    tasks: Sequence[str] | None = None,
    *,
    with_docs: Collection[str] = (),
    groups: Sequence[TaskGroup] = (),
) -> Iterator[MeasuredSupplier]:
    """Yield what :func:`primary_windows` does, each supplier's with the tallies behind its reliability.

    ``with_docs``: keys of suppliers of which the docs behind the rows are wanted too. ``groups``: those whose
    rows are wanted too; all their tasks have to be among ``tasks``.
    """
    chosen = active_suppliers(workspace) if suppliers is None else suppliers
    reader = _Reader(workspace, tasks, now)
    yield from reader.read(chosen, primary_only=True, with_docs=with_docs, groups=groups)


def refresh_window_cache(
    workspace: Workspace,
    suppliers: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    now: datetime | None = None,
) -> int:
    """Compute and cache what is missing of the suppliers' windows; return how many tasks' rows were written.

    Tasks of which a living process writes facts now are left to it. Call it after scoring.
    """
    return _Reader(workspace, tasks, now).refresh(named_suppliers(workspace, suppliers))


def window_docs(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    spec: TaskSpec,
    registration: Registration,
    now: datetime | None = None,
) -> Iterator[tuple[Supplier, Sequence[IndexedDoc]]]:
    """Yield what became of each doc of suppliers' windows, ascending by doc id; as cached if that holds."""
    yield from _Reader(workspace, None, now, chosen=[(spec, registration)]).docs(
        suppliers, spec, registration
    )


def window_docs_by_task(
    workspace: Workspace, supplier: Supplier, tasks: Sequence[Task], now: datetime | None = None
) -> Iterator[TaskDocs]:
    """Yield what became of the docs of one supplier's windows, task by task; as cached if that holds."""
    yield from _Reader(workspace, None, now, chosen=tasks).docs_by_task(supplier, tasks)


def aggregated(
    workspace: Workspace, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]
) -> float | None:
    """The values of a metric put together; None, and a note why, where the task's framework fails.

    Rows of other metrics and tasks stand all the same.
    """
    if spec.name in workspace.given_up:
        return None
    try:
        return workspace.framework(spec).aggregate(spec, flags, metric, values)
    except TaskError as error:
        workspace.unaggregated.setdefault(spec.name, escaped(str(error)))
        if isinstance(error, WorkerTimeout):
            workspace.given_up.setdefault(spec.name, escaped(str(error)))
        return None


class _Reader:
    """Reads and caches windows of any number of suppliers as of one instant."""

    def __init__(
        self,
        workspace: Workspace,
        tasks: Sequence[str] | None,
        now: datetime | None,
        others: Others | None = None,
        chosen: Sequence[Task] | None = None,
    ) -> None:
        """``chosen`` are the tasks, where their registrations are at hand."""
        self._workspace = workspace
        self._now = now or datetime.now(UTC)
        self._chosen: Sequence[tuple[TaskSpec, Registration | None]]
        if chosen is not None:
            self._chosen = chosen
        else:
            specs = workspace.chosen_specs(tasks)
            current = {r.task: r for r in workspace.datasets.tasks({spec.name for spec in specs})}
            self._chosen = [(spec, current.get(spec.name)) for spec in specs]
        self._registered = [(s, r) for s, r in self._chosen if r is not None]
        self._wanted_of: dict[Api, Mapping[str, Slots]] = {}
        self._fingerprints_of: dict[Api, Mapping[str, str]] = {}
        self._aggregation = Aggregation(
            partial(aggregated, workspace),
            Clusters(workspace.datasets).of,
            EmptyScores(workspace.documents).of,
        )
        self._peers = others or Peers(workspace, self._now)

    def _wanted(self, supplier: Supplier) -> Mapping[str, Slots]:
        """The slots of each task for a supplier: what nobody is asked depends on the form alone."""
        if supplier.api not in self._wanted_of:
            wanted = wanted_slots(self._workspace.documents, self._registered, supplier.api)
            self._wanted_of[supplier.api] = wanted
            self._fingerprints_of[supplier.api] = fingerprints(self._workspace, self._registered, wanted)
        return self._wanted_of[supplier.api]

    def _fingerprints(self, supplier: Supplier) -> Mapping[str, str]:
        self._wanted(supplier)
        return self._fingerprints_of[supplier.api]

    # -- reading ------------------------------------------------------------------------------------------

    def read(
        self,
        suppliers: Sequence[Supplier],
        *,
        primary_only: bool,
        from_facts: bool = False,
        with_docs: Collection[str] = (),
        groups: Sequence[TaskGroup] = (),
    ) -> Iterator[MeasuredSupplier]:
        """Yield what is known of each supplier, in order."""
        for start in range(0, len(suppliers), _SUPPLIERS):
            batch = suppliers[start : start + _SUPPLIERS]
            documents = {} if from_facts else self._documents(batch)
            for supplier in batch:
                cache = WindowCache(
                    documents.get(supplier.key), supplier, self._now, deadline_s(self._workspace, supplier)
                )
                yield self._measured(supplier, cache, primary_only, supplier.key in with_docs, groups)

    def docs(
        self, suppliers: Sequence[Supplier], spec: TaskSpec, registration: Registration
    ) -> Iterator[tuple[Supplier, Sequence[IndexedDoc]]]:
        """See :func:`window_docs`."""
        ids = [answers_id(supplier.key, spec.name) for supplier in suppliers]
        packed = typed.by_id(self._workspace.documents, WindowAnswersRecord, ids)
        documents = self._documents([s for s, id_ in zip(suppliers, ids, strict=True) if id_ in packed])
        for supplier, id_ in zip(suppliers, ids, strict=True):
            fingerprint = self._fingerprints(supplier)[spec.name]
            deadline = deadline_s(self._workspace, supplier)
            cache = WindowCache(documents.get(supplier.key), supplier, self._now, deadline)
            cached = packed.get(id_)
            if _fits(cached, cache, spec.name, fingerprint):
                yield supplier, unpack(cached.docs)
                continue
            [(_, read)] = samples_by_task(
                self._workspace,
                supplier,
                [(spec, registration)],
                self._now,
                self._peers,
                self._wanted(supplier),
            )
            yield supplier, indexed_docs(spec, registration, read.samples)

    def docs_by_task(self, supplier: Supplier, tasks: Sequence[Task]) -> Iterator[TaskDocs]:
        """See :func:`window_docs_by_task`."""
        documents = self._documents([supplier])
        deadline = deadline_s(self._workspace, supplier)
        cache = WindowCache(documents.get(supplier.key), supplier, self._now, deadline)
        for start in range(0, len(tasks), _TASKS):
            batch = tasks[start : start + _TASKS]
            found = self._cached_docs(supplier, cache, batch)
            missing = [(spec, registration) for spec, registration in batch if spec.name not in found]
            computed = (
                samples_by_task(
                    self._workspace, supplier, missing, self._now, self._peers, self._wanted(supplier)
                )
                if missing
                else ()
            )
            for (spec, registration), (name, read) in zip(missing, computed, strict=True):
                found[name] = TaskDocs.from_samples(spec, registration, read.samples, refused=read.refused)
            yield from (found[spec.name] for spec, _ in batch)

    def _cached_docs(
        self, supplier: Supplier, cache: WindowCache, tasks: Sequence[Task]
    ) -> dict[str, TaskDocs]:
        """By task the docs that were packed with rows that hold."""
        of_task = self._fingerprints(supplier)
        ids = [answers_id(supplier.key, spec.name) for spec, _ in tasks]
        packed = typed.by_id(self._workspace.documents, WindowAnswersRecord, ids)
        found = {}
        for (spec, registration), id_ in zip(tasks, ids, strict=True):
            cached = packed.get(id_)
            if _fits(cached, cache, spec.name, of_task[spec.name]):
                [row] = cache.rows(spec, registration, primary_only=True)
                docs = TaskDocs.from_row(unpack(cached.docs), row)
                if docs is not None:
                    found[spec.name] = docs
        return found

    def _measured(
        self,
        supplier: Supplier,
        cache: WindowCache,
        primary_only: bool,
        with_docs: bool,
        groups: Sequence[TaskGroup],
    ) -> MeasuredSupplier:
        missing = self._missing(supplier, cache, with_docs=with_docs)
        computed = self._compute(supplier, missing) if missing else {}
        found: list[Window] = []
        in_groups = {task for group in groups for task in group.tasks}
        of_groups: list[Window] = []
        tallies: dict[str, Tally] = {}
        docs: dict[str, Sequence[DeliveredDoc]] = {}
        for spec, registration in self._chosen:
            if spec.name in computed:
                rows = list(computed[spec.name].rows)
                tallies[spec.name] = computed[spec.name].tally
                if with_docs:
                    docs[spec.name] = computed[spec.name].docs
            elif registration is None or status_if_not_asked(supplier, spec, registration) is not None:
                rows = list(task_windows(supplier, spec, registration, [], self._aggregation, NO_CALLS))
            else:
                alone = primary_only and spec.name not in in_groups
                rows = cache.rows(spec, registration, primary_only=alone)
                tallies[spec.name] = cache.tally(spec.name)
                if with_docs:
                    docs[spec.name] = cache.docs(spec.name)
            if supplier.price is not None:
                rows = [with_cost(row, supplier.price) for row in rows]
            found += rows[:1] if primary_only else rows
            if spec.name in in_groups:
                of_groups += rows
        made = list(group_windows(groups, of_groups, primary_only=True))
        return MeasuredSupplier(supplier.key, found, tallies, docs, made)

    def _documents(self, suppliers: Sequence[Supplier]) -> dict[str, WindowRecord]:
        """What is cached of suppliers, of the chosen tasks.

        The rows of other tasks go at once: of 50 suppliers and 100 tasks they are 8 MB, to get which anew for
        every page takes longer than to read them.
        """
        chosen = {spec.name for spec, _ in self._chosen}
        return {
            document.id: replace(document, rows=[row for row in document.rows if row["task"] in chosen])
            for document in self._whole_documents(suppliers)
        }

    def _whole_documents(self, suppliers: Sequence[Supplier]) -> Iterator[WindowRecord]:
        where = {"_id": {"in": [s.key for s in suppliers]}}
        return typed.find(self._workspace.documents, WindowRecord, where)

    def _missing(self, supplier: Supplier, cache: WindowCache, *, with_docs: bool = False) -> list[Task]:
        """The tasks whose rows have to be computed from facts."""
        of_task = self._fingerprints(supplier)
        return [
            (spec, registration)
            for spec, registration in self._registered
            if not (
                cache.holds(spec.name, of_task[spec.name]) and not (with_docs and cache.lacks_docs(spec.name))
            )
            and status_if_not_asked(supplier, spec, registration) is None
        ]

    def _compute(self, supplier: Supplier, tasks: Sequence[Task]) -> dict[str, Computed]:
        registrations = {spec.name: (spec, registration) for spec, registration in tasks}
        deadline_ms = deadline_s(self._workspace, supplier) * 1000
        wanted = self._wanted(supplier)
        found = {}
        for name, read in samples_by_task(self._workspace, supplier, tasks, self._now, self._peers, wanted):
            spec, registration = registrations[name]
            calls = calls_of((a for a in read.attempts if not a.canary), deadline_ms)
            rows = list(
                task_windows(
                    supplier,
                    spec,
                    registration,
                    read.samples,
                    self._aggregation,
                    calls,
                    wanted=wanted[name].docs,
                    refused=read.refused,
                    silent=read.silent,
                )
            )
            tally = Tally(Minutes(read.attempts).packed(), calls.asked, calls.at_once)
            # what an empty answer is worth is another task's fact, or not known yet
            as_empty = any(r.failures == FailuresAs.EMPTY and (r.n_failed or r.n_open) for r in rows)
            docs = delivered_docs(spec, registration, read.samples)
            until = self._now if as_empty else read.until
            found[name] = Computed(rows, until, docs, tally, read.samples)
        return found

    # -- caching ------------------------------------------------------------------------------------------

    def refresh(self, suppliers: Sequence[Supplier]) -> int:
        """Cache the rows of suppliers; see :func:`refresh_window_cache`."""
        written = 0
        grouped = identity_groups(self._workspace.documents, [s.key for s in suppliers]).keys()
        for start in range(0, len(suppliers), _SUPPLIERS):
            pending = list(suppliers[start : start + _SUPPLIERS])
            for _ in range(_TRIES):
                documents = self._documents_to_change(pending)
                writers = living_writers(self._workspace.documents, documents.values())
                left = []
                for supplier in pending:
                    document = documents[supplier.key]
                    cached = self._cache(
                        supplier, document, writers[supplier.key], grouped=supplier.key in grouped
                    )
                    if cached is None:
                        left.append(supplier)
                    else:
                        written += cached
                pending = left
                if not pending:
                    break
        return written

    def _documents_to_change(self, suppliers: Sequence[Supplier]) -> dict[str, WindowRecord]:
        found = {document.id: document for document in self._whole_documents(suppliers)}
        absent = [void_document(s.key) for s in suppliers if s.key not in found]
        if absent:
            # one that another process inserts meanwhile is that process's: what counts is read again
            typed.put_new(self._workspace.documents, WindowRecord, absent)
            found = {document.id: document for document in self._whole_documents(suppliers)}
        return found

    def _cache(
        self, supplier: Supplier, document: WindowRecord, writers: Sequence[WritingProcess], *, grouped: bool
    ) -> int | None:
        """Cache what is missing of one supplier, read after its document; None where that changed since."""
        busy = {task for writer in writers for task in writer.tasks}
        cache = WindowCache(document, supplier, self._now, deadline_s(self._workspace, supplier))
        missing = [
            (spec, registration)
            for spec, registration in self._missing(supplier, cache, with_docs=grouped)
            if spec.name not in busy
        ]
        if not missing and len(writers) == len(document.writers):
            return 0
        computed, of_task = self._compute(supplier, missing), self._fingerprints(supplier)
        changes = {
            "token": new_token(),
            "kept_at": datetime.now(UTC),
            "subject": subject(supplier, deadline_s(self._workspace, supplier)),
            "writers": tuple(writers),
            "rows": [
                *self._still_good(supplier, document, set(computed)),
                *(
                    entry(spec.name, of_task[spec.name], computed[spec.name], self._now, grouped=grouped)
                    for spec, _ in missing
                ),
            ],
        }
        # before the rows: what is read beside rows that it was not made with does not count
        typed.upsert(
            self._workspace.documents,
            WindowAnswersRecord,
            [
                self._answers(supplier, spec, registration, computed[spec.name])
                for spec, registration in missing
            ],
        )
        where = {"_id": supplier.key, "token": document.token}
        changed = typed.claim(self._workspace.documents, WindowRecord, where, **changes)
        return None if changed is None else len(computed)

    def _answers(
        self, supplier: Supplier, spec: TaskSpec, registration: Registration, computed: Computed
    ) -> WindowAnswersRecord:
        docs = indexed_docs(spec, registration, computed.samples)
        fingerprint, since = self._fingerprints(supplier)[spec.name], microseconds(self._now)
        return answers_record(supplier, registration, fingerprint, since, docs)

    def _still_good(
        self, supplier: Supplier, document: WindowRecord, replaced: set[str]
    ) -> list[dict[str, Any]]:
        """Of what is cached the rows not replaced, those of tasks that nobody may ask for left out."""
        if document.subject != subject(supplier, deadline_s(self._workspace, supplier)):
            return []
        configured = {spec.name for spec in self._workspace.specs}
        now = microseconds(self._now)
        return [
            row
            for row in document.rows
            if row["task"] not in replaced and (row["task"] in configured or (row["until"] or 0) > now)
        ]


def _fits(
    packed: WindowAnswersRecord | None, cache: WindowCache, task: str, fingerprint: str
) -> TypeGuard[WindowAnswersRecord]:
    """Whether packed docs of a task were cached with its rows, and these hold."""
    return (
        packed is not None
        and cache.holds(task, fingerprint)
        and (packed.fingerprint, packed.since) == (fingerprint, cache.since(task))
    )
