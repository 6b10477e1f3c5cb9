"""Daily snapshots: what was known of each supplier on a day, kept for good.

Until its day is over a snapshot is replaced by every newer one, then it stays as it is: so a day shows how it
ended, whoever looked at it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from testbench_dagster.core.records.rankings import (
    Ability,
    SnapshotDay,
    SnapshotOfSupplier,
    SnapshotsOfSupplier,
    SupplierAbilities,
    SupplierSnapshotRecord,
)
from testbench_dagster.core.snapshot_rows import SnapshotRow, pack_rows
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import NOT_APPLICABLE, Window
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.score.windows import measured_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed

_TOGETHER = 50  # suppliers whose windows are in memory at once


def take_snapshots(
    workspace: Workspace, day: date, suppliers: Sequence[str] | None = None, *, now: datetime | None = None
) -> int:
    """Keep one document per supplier for a day: its primary scores, of groups too, and abilities as of now.

    Tasks that it is not asked, and those without a score, are left out. A snapshot that was taken
    when its day was over stays as it is. Suppliers that left have none.

    Args:
        workspace: the installation.
        day: the day (UTC) the snapshots stand for.
        suppliers: keys; None for all that are active.
        now: the present.

    Returns:
        How many were taken by this call.
    """
    now = now or datetime.now(UTC)
    where: dict[str, Any] = {"day": day.isoformat()}
    if suppliers is not None:
        where["supplier"] = {"in": sorted(suppliers)}
    taken = {
        row.supplier
        for row in typed.find(workspace.documents, SnapshotOfSupplier, where)
        if row.taken_at >= _end_of(day)
    }
    left = [s for s in named_suppliers(workspace, suppliers) if s.left_at is None and s.key not in taken]
    for start in range(0, len(left), _TOGETHER):
        batch = left[start : start + _TOGETHER]
        typed.upsert(workspace.documents, SupplierSnapshotRecord, _snapshots(workspace, day, batch, now))
    return len(left)


def begin_history(workspace: Workspace, suppliers: Sequence[str], *, now: datetime | None = None) -> int:
    """Take today's snapshot of the suppliers that have none of any day; return how many."""
    now = now or datetime.now(UTC)
    where = {"supplier": {"in": sorted(suppliers)}}
    known = {row.supplier for row in typed.group(workspace.documents, SnapshotsOfSupplier, where)}
    new = [key for key in suppliers if key not in known]
    return take_snapshots(workspace, now.date(), new, now=now) if new else 0


def history_began(workspace: Workspace) -> date | None:
    """The first day of which there is a snapshot; None before that. Creates nothing in the stores."""
    if not workspace.documents.size(SupplierSnapshotRecord.collection.name):
        return None
    for first in typed.find(workspace.documents, SnapshotDay, sort=[("day", 1)], limit=1):
        return date.fromisoformat(first.day)
    return None


def _end_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def _snapshots(
    workspace: Workspace, day: date, suppliers: Sequence[Supplier], now: datetime
) -> Iterator[SupplierSnapshotRecord]:
    rows: dict[str, list[SnapshotRow]] = {s.key: [] for s in suppliers}
    for own in measured_suppliers(workspace, suppliers, now, groups=workspace.groups):
        rows[own.supplier] = [
            _of_window(row)
            for row in (*own.rows, *own.groups)
            if row.status != NOT_APPLICABLE and row.score is not None
        ]
    where = {"supplier": {"in": sorted(rows)}}
    for summary in typed.find(
        workspace.documents, SupplierAbilities, where, sort=[("taxonomy", 1), ("supplier", 1)]
    ):
        rows[summary.supplier] += node_rows(summary.taxonomy, summary.nodes)
    for supplier in suppliers:
        yield SupplierSnapshotRecord(
            id=document_id("snapshot", supplier.key, day.isoformat()),
            supplier=supplier.key,
            day=day.isoformat(),
            taken_at=now,
            cut_at=supplier.cut_at,
            rows=pack_rows(rows[supplier.key]),
        )


def _of_window(row: Window) -> SnapshotRow:
    return SnapshotRow(
        task=row.task,
        taxonomy=None,
        node=None,
        metric=row.metric,
        filter=row.filter,
        score=row.score,
        ci_low=row.ci_low,
        ci_high=row.ci_high,
        n=row.n,
        n_failed=row.n_failed,
        p50_ms=row.latency_ms.get("p50"),
        p95_ms=row.latency_ms.get("p95"),
    )


def node_rows(taxonomy: str, nodes: Mapping[str, Ability]) -> Iterator[SnapshotRow]:
    """Yield the rows of the abilities of a taxonomy that have a score."""
    for name, node in nodes.items():
        if node.score is not None:
            yield SnapshotRow(
                task=None,
                taxonomy=taxonomy,
                node=name,
                metric=None,
                filter=None,
                score=node.score,
                ci_low=node.ci_low,
                ci_high=node.ci_high,
                n=node.n,
                n_failed=node.errors,
                p50_ms=None,
                p95_ms=None,
            )
