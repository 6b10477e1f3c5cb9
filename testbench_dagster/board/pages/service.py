"""``/supplier/K/service``: speed and uptime of a supplier day by day, and what its own page tells of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from testbench_dagster.board.charts import (
    DayValue,
    HistoryChart,
    IntervalMark,
    Scale,
    Strip,
    history_chart,
    interval,
    log_scale,
    strip,
)
from testbench_dagster.board.site import Asked, Page, Site
from testbench_dagster.board.tables import DRAWN
from testbench_dagster.core.service_quality import (
    ALL_WORKLOADS,
    HOUR_FAILED,
    HOUR_LIMITED,
    HOUR_NOT_ASKED,
    HOUR_OK,
    HOUR_OTHER,
    HOUR_PARTLY,
    ServiceQuality,
)
from testbench_dagster.stages.read.service import daily_service, probes_to_a_median, recent_service

_PERIODS = {"30d": 30, "90d": 90, "1y": 365}
#: Days that the page of a supplier draws.
_DRAWN_DAYS = 30
#: How the states of hours are drawn; see the stylesheet.
_KINDS: Mapping[str, str | None] = {
    HOUR_OK: "answered",
    HOUR_PARTLY: "partly",
    HOUR_FAILED: "supplier",
    HOUR_LIMITED: "network",
    HOUR_OTHER: "ours",
    HOUR_NOT_ASKED: None,
}


@dataclass(frozen=True)
class WorkloadRow:
    """A workload, how many probes its medians lack, and where they are drawn: first token, request, speed."""

    row: ServiceQuality
    missing: int
    first_token: IntervalMark | None
    latency: IntervalMark | None
    speed: IntervalMark | None


@dataclass(frozen=True)
class ServiceChart:
    """A drawing over days, and what it is of."""

    title: str
    chart: HistoryChart


@dataclass(frozen=True)
class ShownService:
    """What a page draws of a supplier's service; ``whole`` rests on all workloads."""

    whole: ServiceQuality | None
    workloads: Sequence[WorkloadRow]
    times: Scale
    speeds: Scale
    hours: Strip
    charts: Sequence[ServiceChart]


def shown_service(site: Site, key: str, now: datetime) -> ShownService | None:
    """What the page of a supplier tells of its service; None where no probe says anything."""
    days = daily_service(site.workspace, [key], since=(now - timedelta(days=_DRAWN_DAYS)).date())
    rows = recent_service(site.workspace, now, [key])
    if not rows and not days:
        return None
    whole = next((row for row in rows if row.workload == ALL_WORKLOADS), None)
    measured = [row for row in rows if row.workload != ALL_WORKLOADS]
    times = log_scale([v for row in measured for v in (*_ends(row.ttft_ms), *_ends(row.latency_ms))], *DRAWN)
    speeds = log_scale([v for row in measured for v in _ends(row.tokens_per_s)], *DRAWN)
    return ShownService(
        whole,
        [
            WorkloadRow(
                row,
                probes_to_a_median(row),
                interval(times, *_ends(row.ttft_ms)),
                interval(times, *_ends(row.latency_ms)),
                interval(speeds, *_ends(row.tokens_per_s)),
            )
            for row in measured
        ],
        times,
        speeds,
        strip([_KINDS.get(state) for state in (whole.hours if whole else "")]),
        _charts(days),
    )


def service(site: Site, asked: Asked, key: str) -> Page:
    """The service of a supplier: drawings over days, and every day as a row."""
    one = site.supplier(key)
    period = asked.choice("since", _PERIODS) or "30d"
    days = daily_service(site.workspace, [key], since=asked.now.date() - timedelta(days=_PERIODS[period]))
    return Page(
        "service.html.jinja",
        {
            "supplier": one,
            "period": period,
            "periods": list(_PERIODS),
            "charts": _charts(days),
            "days": [
                (row, strip([_KINDS.get(state) for state in row.hours], width=96))
                for row in sorted(days, key=lambda row: row.since, reverse=True)
            ],
        },
    )


def _ends(values: Mapping[str, float | None]) -> tuple[float | None, float | None, float | None]:
    """A median with the ends of its interval."""
    return values["p50"], values["p50_low"], values["p50_high"]


def _charts(days: Sequence[ServiceQuality]) -> list[ServiceChart]:
    """Medians over days by workload: of the first token, with the band up to its p90, and of the speed."""

    def first_token(row: ServiceQuality) -> DayValue:
        return _day(row, row.ttft_ms["p50"], row.ttft_ms["p50"], row.ttft_ms["p90"])

    def speed(row: ServiceQuality) -> DayValue:
        return _day(row, row.tokens_per_s["p50"], row.tokens_per_s["p10"], row.tokens_per_s["p50"])

    kinds: Sequence[tuple[str, Callable[[ServiceQuality], DayValue]]] = (
        ("first token, ms", first_token),
        ("tokens per second", speed),
    )
    made = []
    workloads = dict.fromkeys(row.workload for row in days if row.workload != ALL_WORKLOADS)
    for workload in workloads:
        own = [row for row in days if row.workload == workload]
        for title, value in kinds:
            chart = history_chart([value(row) for row in own])
            if chart is not None:
                made.append(ServiceChart(f"{workload}: {title}", chart))
    return made


def _day(row: ServiceQuality, value: float | None, low: float | None, high: float | None) -> DayValue:
    return DayValue(date.fromisoformat(row.period), value, low, high)
