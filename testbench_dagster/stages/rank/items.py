"""The item matrix: the value of every supplier on every doc of its windows, for analysts.

Long form, one row per supplier × task × doc, unique in these three; so it pivots to the wide form without
aggregation: ``frame.pivot(index=["task", "doc_id"], columns="supplier", values="value")``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.supplier import Supplier
from testbench_dagster.scoring.rows import primary_pair, value_of
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.samples import window_samples
from testbench_dagster.stages.workspace import Workspace

#: Columns and their Python types, documented in docs/reference.md.
ITEM_COLUMNS: dict[str, type] = {
    "supplier": str,
    "task": str,
    "doc_id": int,
    "metric": str,
    "filter": str,
    "value": float,
    "outcome": str,
    "epoch": int,
    "round": int,
    "at": datetime,
}


def items(
    workspace: Workspace, now: datetime | None = None, suppliers: Sequence[Supplier] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows task by task and supplier by supplier as of ``now``; holds one window at a time.

    By default of all active suppliers. ``value`` is the primary metric's, None for docs that were not scored
    and for values that are no number; ``outcome`` names the fault, ``ok`` or ``truncated``. Signatures have
    no values and are left out.
    """
    now = now or datetime.now(UTC)
    chosen = active_suppliers(workspace) if suppliers is None else suppliers
    for spec in workspace.specs:
        registration = workspace.datasets.current(spec.name)
        if registration is None or spec.signs:
            continue
        metric, filter_ = pair = primary_pair(spec, registration)
        for supplier in chosen:
            for sample in window_samples(workspace, supplier, spec, registration, now):
                value = value_of(sample, pair)
                yield {
                    "supplier": supplier.key,
                    "task": spec.name,
                    "doc_id": sample.doc_id,
                    "metric": metric,
                    "filter": filter_,
                    "value": float(value) if isinstance(value, (int, float)) else None,
                    "outcome": sample.fault.value,
                    "epoch": sample.epoch,
                    "round": sample.round,
                    "at": sample.at,
                }
