"""What the suppliers of an identity group scored together: they serve one model, so their answers pool.

Only scores pool. Faults, latencies and coverage stay each supplier's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.records.identity import GroupMembers
from testbench_dagster.core.records.windows import WindowRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.slots import newest_docs
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.sample.epochs import wanted_docs
from testbench_dagster.stages.score.samples import Task, most_docs, scored_by_task
from testbench_dagster.stages.score.window_cache import Answers, WindowCache, fingerprints, microseconds
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed

_Rank = tuple[int, int, int]  # when it was answered, epoch, round


@dataclass(frozen=True)
class PooledGroup:
    """An identity group of several suppliers, by key, ascending, and who stands for it."""

    id: str
    members: tuple[str, ...]
    proxy: str


class GroupPools:
    """The pooled samples of the identity groups of some suppliers, of one group in memory at a time.

    ``numbers`` is where a caller keeps what it computed per group, task and (metric, filter).
    """

    def __init__(
        self,
        workspace: Workspace,
        suppliers: Sequence[Supplier],
        groups: Mapping[str, PooledGroup],
        tasks: Sequence[Task],
        now: datetime,
        *,
        from_facts: bool = False,
    ) -> None:
        self._workspace, self._tasks, self._now = workspace, tasks, now
        self._from_facts = from_facts
        self._fingerprints = fingerprints(workspace, tasks, wanted_docs(workspace.documents, tasks))
        self._groups = groups
        self._members = {s.key: s for s in suppliers}
        if not all(key in self._members for group in groups.values() for key in group.members):
            self._members = {s.key: s for s in known_suppliers(workspace)} | self._members
        self._last: tuple[str, dict[str, list[Sample]]] = ("", {})  # of all groups they would fill the memory
        self.numbers: dict[tuple[str, str, tuple[str, str]], dict[str, Any]] = {}

    def group_of(self, supplier: str) -> PooledGroup | None:
        """The group a supplier is in with others, None if it stands alone."""
        return self._groups.get(supplier)

    def samples(self, group: PooledGroup, spec: TaskSpec) -> list[Sample]:
        """Newest scored answer per doc over all members, of these the newest docs, ascending by doc id.

        Each member's answers count by its own last change (``cut_at``).
        """
        if self._last[0] != group.id:
            self._last = (group.id, self._read(group))
        return self._last[1].get(spec.name, [])

    def _read(self, group: PooledGroup) -> dict[str, list[Sample]]:
        newest: dict[str, dict[int, tuple[_Rank, Sample | tuple[Answers, list[Any]]]]] = {
            spec.name: {} for spec, _ in self._tasks
        }
        for member in (self._members[key] for key in group.members if key in self._members):
            for task, answers in self._scored(member).items():
                of_task = newest[task]
                for doc_id, rank, answer in _ranked(answers):
                    known = of_task.get(doc_id)
                    if known is None or known[0] < rank:
                        of_task[doc_id] = (rank, answer)
        found = {}
        for spec, _ in self._tasks:
            samples = [
                answer if isinstance(answer, Sample) else answer[0].sample(answer[1])
                for _, answer in newest[spec.name].values()
            ]
            found[spec.name] = sorted(
                newest_docs(samples, most_docs(self._workspace, spec)), key=lambda s: s.doc_id
            )
        return found

    def _scored(self, member: Supplier) -> dict[str, Answers | list[Sample]]:
        """By task what a member's answers scored: as cached where that holds, else from the facts."""
        documents = self._workspace.documents
        document = None if self._from_facts else typed.get(documents, WindowRecord, member.key)
        cache = WindowCache(document, member, self._now)
        found: dict[str, Answers | list[Sample]] = {}
        rest = []
        for spec, registration in self._tasks:
            samples = cache.scored(self._workspace, spec, self._fingerprints[spec.name])
            if samples is None:
                rest.append((spec, registration))
            else:
                found[spec.name] = samples
        if rest:
            found.update(scored_by_task(self._workspace, member, rest, self._now))
        return found


def _ranked(
    answers: Answers | list[Sample],
) -> Iterator[tuple[int, _Rank, Sample | tuple[Answers, list[Any]]]]:
    """Doc id and rank of answers, with what makes a sample of them."""
    if isinstance(answers, Answers):
        for row in answers.rows:
            yield row[0], (row[1], row[2], row[3]), (answers, row)
    else:
        for sample in answers:
            yield sample.doc_id, (microseconds(sample.at), sample.epoch, sample.round), sample


def pooled_groups(documents: DocumentStore, suppliers: Iterable[str]) -> dict[str, PooledGroup]:
    """By supplier the identity group it is in with others; who stands alone is left out."""
    found = {}
    for placed in typed.find(documents, GroupMembers, {"_id": {"in": sorted(suppliers)}}):
        members = tuple(sorted(placed.members))
        if len(members) > 1:
            found[placed.id] = PooledGroup(placed.group, members, placed.proxy)
    return found
