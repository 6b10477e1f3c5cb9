"""Keeps what service probes come to: a row per supplier, workload and UTC day, and one of the last 72 hours.

Nothing that a score rests on reads or writes these rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import PlainAnswer
from testbench_dagster.core.records.service_probes import ProbesOfSupplier, ProbeTimes, ServiceProbeRecord
from testbench_dagster.core.records.service_quality import LastFinalDay, RollingRow, ServiceQualityRecord
from testbench_dagster.core.service_quality import (
    ALL_WORKLOADS,
    ROLLING,
    ROLLING_SPAN,
    ServiceQuality,
    in_order,
)
from testbench_dagster.stages.service.measures import Span, plain_estimate, service_quality
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed

_DAY = timedelta(days=1)
#: A probe that ended before midnight may be stored behind it: a day is final so long after its end.
FINAL_AFTER = timedelta(hours=1)
#: Answers of the evaluation that the estimate of the speed rests on at most, the newest ones.
_PLAIN_ANSWERS = 600
_TOGETHER = 200  # suppliers whose final days are read with one query
_ANSWERED = [fault.value for fault in Fault if fault.answered]


class Refreshed(NamedTuple):
    """What was made anew: how many rows were written, and of them those of the last 72 hours, in order."""

    n_written: int
    recent: Sequence[ServiceQuality]


def refresh_service_quality(workspace: Workspace, suppliers: Sequence[str], now: datetime) -> Refreshed:
    """Make the rows of suppliers anew of what is stored.

    A day that is over is made once, at the first call an hour or more after its end, and stays when its
    probes are gone; that of ``now`` and the last 72 hours are replaced by every call. Of each supplier the
    probes behind its last final day are read, and those of 72 hours. Idempotent.

    Args:
        workspace: the installation.
        suppliers: keys.
        now: the present, timezone-aware.
    """
    written: list[ServiceQuality] = []
    keys = list(dict.fromkeys(suppliers))
    for start in range(0, len(keys), _TOGETHER):
        some = keys[start : start + _TOGETHER]
        final = _last_final_days(workspace, some, now)
        for key in some:
            written += _refresh(workspace, key, final.get(key), now)
    return Refreshed(len(written), in_order(row for row in written if row.period == ROLLING))


def _refresh(workspace: Workspace, supplier: str, final: date | None, now: datetime) -> list[ServiceQuality]:
    """Make the rows of one supplier whose days up to ``final`` stay as they are, and return them."""
    rolling = Span(ROLLING, now - ROLLING_SPAN, now)
    first_open = None if final is None else _midnight(final) + _DAY
    where: dict[str, object] = {"supplier": supplier}
    if first_open is not None:
        where["finished_at"] = {"gte": min(first_open, rolling.since)}
    days: defaultdict[date, list[ProbeTimes]] = defaultdict(list)
    recent: list[ProbeTimes] = []
    for probe in typed.find(workspace.documents, ProbeTimes, where):
        if probe.finished_at > now:
            continue  # of another machine's clock: it is counted when its time has come
        if first_open is None or probe.finished_at >= first_open:
            days[probe.finished_at.astimezone(UTC).date()].append(probe)
        if probe.finished_at >= rolling.since:
            recent.append(probe)
    rows: list[ServiceQuality] = []
    for day, probes in days.items():
        span = Span(day.isoformat(), _midnight(day), _midnight(day) + _DAY)
        rows += _rows(supplier, span, probes, now)
    estimate = plain_estimate(_plain_answers(workspace, supplier, rolling.since))
    rows += _rows(supplier, rolling, recent, now, estimate)
    records = [_record(row, now) for row in rows]
    typed.upsert(workspace.documents, ServiceQualityRecord, records)
    _forget_rolling(workspace, supplier, {one.id for one in records})
    return rows


def _rows(
    supplier: str,
    span: Span,
    probes: Sequence[ProbeTimes],
    now: datetime,
    estimate: Mapping[str, float | None] | None = None,
) -> Iterator[ServiceQuality]:
    """The rows of a period: one per workload, and one of all where there is anything to tell."""
    service = supplier.rpartition("@")[2]
    workloads: defaultdict[str, list[ProbeTimes]] = defaultdict(list)
    for probe in probes:
        workloads[probe.workload].append(probe)
    for name, some in sorted(workloads.items()):
        yield service_quality(supplier, service, name, span, some, now)
    if probes or estimate:
        yield service_quality(supplier, service, ALL_WORKLOADS, span, probes, now, estimate)


def _record(row: ServiceQuality, now: datetime) -> ServiceQualityRecord:
    return ServiceQualityRecord(
        id=document_id("service quality", row.supplier, row.workload, row.period),
        supplier=row.supplier,
        workload=row.workload,
        period=row.period,
        until=row.until,
        made_at=now,
        final=row.period != ROLLING and now >= row.until + FINAL_AFTER,
        row=row.to_json(),
    )


def _last_final_days(workspace: Workspace, suppliers: Sequence[str], now: datetime) -> dict[str, date]:
    """By supplier the last day whose rows stay as they are.

    What was made by a clock that was ahead, and has been set back, is not: the days up to then would be left
    out, and that one had not ended.
    """
    where = {
        "supplier": {"in": sorted(suppliers)},
        "workload": ALL_WORKLOADS,
        "final": True,
        "made_at": {"lte": now + SKEW},
    }
    return {
        row.supplier: date.fromisoformat(row.max_period)
        for row in typed.group(workspace.documents, LastFinalDay, where)
        if row.max_period is not None
    }


def _plain_answers(workspace: Workspace, supplier: str, since: datetime) -> Iterator[PlainAnswer]:
    """The newest answers of the evaluation of which time, tokens and company are known."""
    where = {
        "supplier": supplier,
        "finished_at": {"gte": since},
        "fault": {"in": _ANSWERED},
        "completion_tokens": {"gte": 1},
        "own_in_flight": {"gte": 1},
    }
    newest = [("finished_at", -1)]
    return typed.find(workspace.documents, PlainAnswer, where, sort=newest, limit=_PLAIN_ANSWERS)


def _forget_rolling(workspace: Workspace, supplier: str, made: set[str]) -> None:
    """Remove rows of the last hours that nothing stands behind any more."""
    where = {"supplier": supplier, "period": ROLLING}
    old = {row.id for row in typed.find(workspace.documents, RollingRow, where)} - made
    if old:
        typed.purge(workspace.documents, ServiceQualityRecord, {"_id": {"in": sorted(old)}})


def purge_probes(workspace: Workspace, oldest: datetime, now: datetime) -> int:
    """Remove the probes that ended before an instant and return how many; their days are kept first."""
    where = {"finished_at": {"lt": oldest}}
    suppliers = {row.supplier for row in typed.group(workspace.documents, ProbesOfSupplier, where)}
    if suppliers:
        refresh_service_quality(workspace, sorted(suppliers), now)
    return typed.purge(workspace.documents, ServiceProbeRecord, where)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
