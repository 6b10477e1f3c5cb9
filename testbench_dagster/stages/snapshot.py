"""Daily snapshots: what was known of each supplier on a day, kept for good once taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from testbench_dagster.core.records.rankings import (
    SnapshotOfSupplier,
    SummaryOfDay,
    SupplierSnapshotRecord,
    TaxonomySummaryRecord,
)
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import SAID_ONCE_IN_SNAPSHOTS, Window
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed

_TOGETHER = 50  # suppliers whose windows are in memory at once


def take_snapshots(workspace: Workspace, day: date, suppliers: Sequence[str] | None = None) -> int:
    """Append one document per supplier for a day: its primary windows and taxonomy summaries as of now.

    A supplier's snapshot of a day, once taken, stays as it is. Suppliers that left have none.

    Args:
        workspace: the installation.
        day: the day (UTC) the snapshots stand for.
        suppliers: keys; None for all that are active.

    Returns:
        How many were taken by this call.
    """
    wanted = None if suppliers is None else set(suppliers)
    where = {"day": day.isoformat()}
    taken = {row.supplier for row in typed.find(workspace.documents, SnapshotOfSupplier, where)}
    left = [
        s for s in active_suppliers(workspace) if s.key not in taken and (wanted is None or s.key in wanted)
    ]
    return sum(
        typed.put_new(
            workspace.documents,
            SupplierSnapshotRecord,
            _snapshots(workspace, day, left[start : start + _TOGETHER]),
        )
        for start in range(0, len(left), _TOGETHER)
    )


def _snapshots(
    workspace: Workspace, day: date, suppliers: Sequence[Supplier]
) -> Iterator[SupplierSnapshotRecord]:
    now = datetime.now(UTC)
    keys = [s.key for s in suppliers]
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    for key, own in primary_windows(workspace, suppliers, now):
        rows[key] = [_window(row) for row in own]
    summaries: dict[str, list[SummaryOfDay]] = {key: [] for key in keys}
    for summary in typed.find(workspace.documents, TaxonomySummaryRecord, {"supplier": {"in": keys}}):
        kept = {field.attribute: getattr(summary, field.attribute) for field in SummaryOfDay.fields}
        summaries[summary.supplier].append(SummaryOfDay(**kept, extra=summary.extra))
    for key in keys:
        yield SupplierSnapshotRecord(
            id=document_id("snapshot", key, day.isoformat()),
            supplier=key,
            day=day.isoformat(),
            taken_at=now,
            windows=rows[key],
            summaries=tuple(sorted(summaries[key], key=lambda summary: summary.taxonomy)),
        )


def _window(row: Window) -> dict[str, Any]:
    """A window's fields as the store keeps them, without those that every window of a supplier shares."""
    return {name: value for name, value in vars(row).items() if name not in SAID_ONCE_IN_SNAPSHOTS}
