"""Service quality as it is stored, for whoever shows it: nothing is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from testbench_dagster.core.records.service_quality import ServiceMade, ServiceQualityRecord
from testbench_dagster.core.service_quality import (
    ALL_WORKLOADS,
    PERCENTILES,
    ROLLING,
    ROLLING_SPAN,
    Headline,
    ServiceQuality,
    in_order,
)
from testbench_dagster.core.workloads import WORKLOADS
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.quantiles import least_n
from testbench_dagster.stores.documents import typed


def recent_service(
    workspace: Workspace, now: datetime, suppliers: Sequence[str] | None = None
) -> list[ServiceQuality]:
    """The rows of the last 72 hours, by supplier and workload; `all` stands first.

    One whose probes are all older than that by ``now`` is left out: it says nothing of the present.
    """
    where: dict[str, Any] = {"period": ROLLING, "until": {"gt": now - ROLLING_SPAN}}
    return _read(workspace, where, suppliers)


def daily_service(
    workspace: Workspace,
    suppliers: Sequence[str] | None = None,
    *,
    since: date | None = None,
    workloads: Sequence[str] | None = None,
) -> list[ServiceQuality]:
    """The rows of days, by supplier, day and workload. ``since``: the first day; None for all there are."""
    where: dict[str, Any] = {"period": {"ne": ROLLING}}
    if since is not None:
        where["until"] = {"gt": datetime(since.year, since.month, since.day, tzinfo=UTC)}
    if workloads is not None:
        where["workload"] = {"in": sorted(workloads)}
    return _read(workspace, where, suppliers)


def _read(
    workspace: Workspace, where: dict[str, Any], suppliers: Sequence[str] | None
) -> list[ServiceQuality]:
    if suppliers is not None:
        where = {**where, "supplier": {"in": sorted(suppliers)}}
    records = typed.find(workspace.documents, ServiceQualityRecord, where)
    return in_order(ServiceQuality.from_json(record.row) for record in records)


def headlines(workspace: Workspace, now: datetime) -> Mapping[str, Headline]:
    """By supplier what a ranking shows of its service.

    Speeds are those of one workload, so that they can be compared: of the shortest prompts that anybody was
    asked. Prompts as long as a context are as long as each supplier claims, and not compared.
    """
    rows = recent_service(workspace, now)
    measured = {row.workload for row in rows} - {ALL_WORKLOADS}
    shown = next((name for name, one in WORKLOADS.items() if name in measured and not one.hides), None)
    found: dict[str, Headline] = {}
    by_place = {(row.supplier, row.workload): row for row in rows}
    for key in dict.fromkeys(row.supplier for row in rows):
        whole, one = by_place.get((key, ALL_WORKLOADS)), by_place.get((key, shown or ""))
        found[key] = Headline(
            None if one is None else one.ttft_ms["p50"],
            None if one is None else one.tokens_per_s["p50"],
            None if whole is None else whole.uptime,
            None if whole is None else whole.uptime_low,
        )
    return found


def probes_to_a_median(row: ServiceQuality) -> int:
    """How many more probes of a workload have to be answered until its medians are known.

    0 where they are, and for the row of all workloads, which has none.
    """
    if row.workload == ALL_WORKLOADS:
        return 0
    return max(0, least_n(PERCENTILES["p50"]) - int(row.latency_ms["n"] or 0))


def service_mark(workspace: Workspace) -> list[ServiceMade]:
    """Changes with the rows that :func:`headlines` reads."""
    return sorted(typed.find(workspace.documents, ServiceMade, {"period": ROLLING}))
