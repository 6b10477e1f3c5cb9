"""Service quality: what the service probes of a supplier come to, by workload and period."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from testbench_dagster.core.records.declaring import (
    VIEW,
    Record,
    content,
    counted,
    key,
    queryable,
    record,
    view,
)


@record(
    "service_quality",
    one_per="supplier, workload and period",
    kind=VIEW,
    indexes=(("supplier", "period"), ("period", "workload")),
)
class ServiceQualityRecord(Record):
    """Percentiles of speed, and uptime, of a UTC day or of the last 72 hours.

    Days stay when the probes they were made of are gone.
    """

    id: str = key("follows from supplier, workload and period")
    supplier: str = queryable("key of the supplier")
    workload: str = queryable("name of the workload; `all` for what rests on all of them together")
    period: str = queryable("the day, in UTC, as YYYY-MM-DD; `72h` for the hours up to `until`")
    until: datetime = queryable("end of the period, not in it")
    made_at: datetime = queryable("when it was made")
    final: bool = queryable("whether it was made after its day was over, and stays as it is")
    row: Mapping[str, Any] = content("its columns, as `testbench service --format json` has them")


@view(ServiceQualityRecord)
class ServiceMade(NamedTuple):
    """When a row was made last."""

    id: str
    made_at: datetime


@view(ServiceQualityRecord)
class RollingRow(NamedTuple):
    """That there is a row of the last hours of a supplier."""

    id: str
    supplier: str
    workload: str


@counted(ServiceQualityRecord)
class LastFinalDay(NamedTuple):
    """The last day of a supplier, of those that are counted."""

    supplier: str
    max_period: str | None
