"""What the suppliers of an identity group scored together: they serve one model, so their answers pool.

Only scores pool. Faults, latencies and coverage stay each supplier's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.network.roster import Supplier, known_suppliers
from testbench_dagster.scoring.kept import Kept, fingerprints
from testbench_dagster.scoring.samples import Sample, Task, newest_docs, scored_by_task
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, WINDOWS
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.workspace import Workspace


@dataclass(frozen=True)
class PooledGroup:
    """An identity group of several suppliers, by key, ascending."""

    id: str
    members: tuple[str, ...]


class GroupPools:
    """The pooled samples of the identity groups of some suppliers, of one group in memory at a time.

    ``numbers`` is where a caller keeps what it computed per group, task and (metric, filter).
    """

    def __init__(
        self,
        workspace: Workspace,
        suppliers: Sequence[str],
        tasks: Sequence[Task],
        now: datetime,
        *,
        from_facts: bool = False,
    ) -> None:
        self._workspace, self._tasks, self._now = workspace, tasks, now
        self._from_facts = from_facts
        self._fingerprints = fingerprints(workspace, tasks)
        self._groups = identity_groups(workspace, suppliers)
        self._members: dict[str, Supplier] = {}
        if self._groups:
            self._members = {s.key: s for s in known_suppliers(workspace)}
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
        newest: dict[str, dict[int, Sample]] = {spec.name: {} for spec, _ in self._tasks}
        for member in (self._members[key] for key in group.members if key in self._members):
            for task, samples in self._scored(member).items():
                for sample in samples:
                    known = newest[task].get(sample.doc_id)
                    if known is None or known.rank < sample.rank:
                        newest[task][sample.doc_id] = sample
        return {
            spec.name: sorted(
                newest_docs(self._workspace, spec, newest[spec.name].values()), key=lambda s: s.doc_id
            )
            for spec, _ in self._tasks
        }

    def _scored(self, member: Supplier) -> dict[str, list[Sample]]:
        """By task what a member's answers scored: as kept where that holds, else from the facts."""
        document = None if self._from_facts else self._workspace.documents.get(WINDOWS, member.key)
        kept = Kept(document, member, self._now)
        found, rest = {}, []
        for spec, registration in self._tasks:
            samples = kept.scored(self._workspace, spec, self._fingerprints[spec.name])
            if samples is None:
                rest.append((spec, registration))
            else:
                found[spec.name] = samples
        return found | (scored_by_task(self._workspace, member, rest, self._now) if rest else {})


def identity_groups(workspace: Workspace, suppliers: Sequence[str]) -> dict[str, PooledGroup]:
    """By supplier the identity group it is in with others; who stands alone is left out."""
    found = {}
    for row in workspace.documents.find(IDENTITY_GROUPS, {"_id": {"in": sorted(suppliers)}}):
        members = tuple(sorted(row.get("members") or ()))
        if len(members) > 1:
            found[row["_id"]] = PooledGroup(row["group"], members)
    return found
