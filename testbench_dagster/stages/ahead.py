"""What is stored with dates that lie ahead: a clock was ahead when it was written, and has been set back."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.records.attempts import AttemptEnd, AttemptRecord
from testbench_dagster.core.records.plans import DuePlan
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


def dated_ahead(workspace: Workspace, now: datetime) -> str | None:
    """Tell in a line how much lies ahead of ``now``, how far, and what is done about it; None where nothing.

    Cheap: attempts are looked up by their date; plans are one per supplier, and only those ahead are read.
    """
    documents, limit = workspace.documents, now + SKEW
    plans = [plan.planned_at for plan in typed.find(documents, DuePlan, {"planned_at": {"gt": limit}})]
    where = {"finished_at": {"gt": limit}}
    last = next(typed.find(documents, AttemptEnd, where, sort=[("finished_at", -1)], limit=1), None)
    if last is None and not plans:
        return None
    newest = max([*plans, *([] if last is None else [last.finished_at])])
    n_attempts = 0 if last is None else typed.count(documents, AttemptRecord, where)
    return (
        f"{counted(n_attempts, 'attempt')} and {counted(len(plans), 'plan')} are dated ahead of this "
        f"machine's clock, up to {newest:%Y-%m-%d %H:%M} UTC: it is behind, or another was ahead; nothing "
        "waits for those dates, and what was answered then is asked again; keep the clocks right by NTP"
    )
