"""What is stored with dates that lie ahead: a clock was ahead when it was written, and has been set back."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.records.attempts import AttemptEnd, AttemptRecord
from testbench_dagster.core.records.plans import DuePlan, PlanRecord
from testbench_dagster.core.records.prompts import EpochRecord, EpochStart
from testbench_dagster.core.records.service_probes import ProbeTimes, ServiceProbeRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: What has dates by which something is due, what they are called, and what is read of the newest. By their
#: indexes, or one per supplier: looking for them is cheap.
_DATED = (
    (AttemptRecord, AttemptEnd, "finished_at", "attempt"),
    (PlanRecord, DuePlan, "planned_at", "plan"),
    (EpochRecord, EpochStart, "started_at", "epoch"),
    (ServiceProbeRecord, ProbeTimes, "finished_at", "service probe"),
)


def dated_ahead(workspace: Workspace, now: datetime) -> str | None:
    """Tell in a line how much is dated ahead of ``now``, how far, and what follows; None where nothing is."""
    documents, limit = workspace.documents, now + SKEW
    told: list[str] = []
    dates: list[datetime] = []
    for record, view, date, noun in _DATED:
        where = {date: {"gt": limit}}
        newest = next(typed.find(documents, view, where, sort=[(date, -1)], limit=1), None)
        if newest is not None:
            told.append(counted(typed.count(documents, record, where), noun))
            dates.append(getattr(newest, date))
    if not told:
        return None
    *others, last = told
    first = f"{', '.join(others)} and {last}" if others else last
    verb = "is" if told == [last] and last.startswith("1 ") else "are"
    return (
        f"{first} {verb} dated ahead of this machine's clock, up to {max(dates):%Y-%m-%d %H:%M} UTC: it is "
        "behind, or another was ahead; nothing waits for those dates, and what was answered then is asked "
        "again; keep the clocks right by NTP"
    )
