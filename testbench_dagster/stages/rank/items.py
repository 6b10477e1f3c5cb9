"""The item matrix: the value of every supplier on every doc of its windows, for analysts.

Long form, one row per supplier × task × doc, unique in these three; so it pivots to the wide form without
aggregation: ``frame.pivot(index=["task", "doc_id"], columns="supplier", values="value")``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.period import ALWAYS, Period
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.windows import window_docs
from testbench_dagster.stages.workspace import Workspace

_SUPPLIERS = 50  # whose cached windows are in memory at once
#: How an answered doc ended, by whether the answer was cut.
_ANSWERED = {fault.row.cut_short: fault.value for fault in Fault if fault.answered}
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
    workspace: Workspace,
    now: datetime | None = None,
    suppliers: Sequence[Supplier] | None = None,
    tasks: Sequence[str] | None = None,
    period: Period = ALWAYS,
) -> Iterator[dict[str, Any]]:
    """Yield the rows task by task and supplier by supplier as of ``now``; holds one window at a time.

    By default of all active suppliers and all tasks. ``value`` is the primary metric's, None for docs that
    were not scored and for values that are no number; ``outcome`` names the fault, ``ok`` or ``truncated``.
    Signatures have no values and are left out, as are tasks that a supplier is not asked. ``period``: only
    docs that were answered, or last asked, in it.
    """
    now = now or datetime.now(UTC)
    chosen = active_suppliers(workspace) if suppliers is None else suppliers
    for spec in workspace.chosen_specs(tasks):
        registration = workspace.datasets.current(spec.name)
        if registration is None or spec.signs:
            continue
        metric, filter_ = primary_pair(spec, registration)
        asked = list(filter(spec.asked_of, chosen))
        for start in range(0, len(asked), _SUPPLIERS):
            batch = asked[start : start + _SUPPLIERS]
            for supplier, docs in window_docs(workspace, batch, spec, registration, now):
                for doc in docs if period == ALWAYS else (one for one in docs if period.holds(one.at)):
                    yield {
                        "supplier": supplier.key,
                        "task": spec.name,
                        "doc_id": doc.doc_id,
                        "metric": metric,
                        "filter": filter_,
                        "value": doc.value if isinstance(doc.value, float) else None,
                        "outcome": _ANSWERED[doc.truncated] if doc.fault is None else doc.fault.value,
                        "epoch": doc.epoch,
                        "round": doc.round,
                        "at": doc.at,
                    }
