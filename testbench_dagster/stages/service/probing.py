"""A round of service probes: who is due, asked within the budget, and what they come to made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.core.wording import counted
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.stages.plan.remaining import money_quota
from testbench_dagster.stages.service.budget import probe_quota
from testbench_dagster.stages.service.due import configured_rates, due_probes
from testbench_dagster.stages.service.measures import speed_after_first, speed_end_to_end
from testbench_dagster.stages.service.probe import ServiceProbeProgress, ServiceProbeReport, probe_services
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Relays that one probe takes at most: as wanted, without `stream_options`, without `stream`.
_TRIES = 3
_SPEEDS = {"tokens_per_s": speed_after_first, "tokens_per_s_end_to_end": speed_end_to_end}


#: Columns of :meth:`Probed.rows`, with their types.
PROBE_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("supplier", "workload", "fault", "owner"), str),
    "streamed": bool,
    **dict.fromkeys(("first_token_ms", "first_answer_ms", "ended_ms"), float),
    **dict.fromkeys(("tokens_per_s", "tokens_per_s_end_to_end"), float),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"), int),
    "tokens_source": str,
    "own_in_flight": int,
    "found": bool,
    "left_out": list,
    "finished_at": datetime,
    "error": str,
}


@dataclass(frozen=True)
class Probed:
    """A round: what was ``due``, what came of it, and the ``attempts`` that were stored, oldest first.

    ``recent``: what is known since of the service of who was probed, a row per workload.
    """

    due: tuple[DueProbe, ...]
    report: ServiceProbeReport
    attempts: tuple[ServiceProbeRecord, ...]
    recent: Sequence[ServiceQuality]

    def rows(self) -> list[dict[str, Any]]:
        """An attempt a row, with the speeds that follow from it; see :data:`PROBE_COLUMNS`."""
        return [
            {name: _SPEEDS[name](one) if name in _SPEEDS else getattr(one, name) for name in PROBE_COLUMNS}
            for one in self.attempts
        ]

    @property
    def words(self) -> str:
        """What came of it, in a line."""
        report = self.report
        told = f"{report.done} of {counted(report.due, 'probe')} done, {report.answered} answered"
        failed = {fault: n for fault, n in report.faults.items() if not Fault(fault).answered}
        if failed:
            told += f", not: {', '.join(f'{fault} {n}' for fault, n in sorted(failed.items()))}"
        left = {**report.held, **report.problems, **report.put_off}
        if left:
            key, why = next(iter(left.items()))
            more = f" and {counted(len(left) - 1, 'other')} likewise" if len(left) > 1 else ""
            told += f"; left out: {key}{more} ({why})"
        return told


def probe(
    workspace: Workspace,
    suppliers: Sequence[str],
    *,
    only_due: bool = True,
    on_progress: Callable[[ServiceProbeProgress], None] | None = None,
) -> Probed:
    """Probe suppliers and make their service quality anew.

    Args:
        workspace: the installation; its heartbeat, if it has one, is what the leases live by, and its
            ``stop`` ends the round.
        suppliers: keys.
        only_due: ask what the schedule has due; else every configured workload once, due or not. The budgets
            hold all the same.
        on_progress: called a few times a second.

    Raises:
        StoreError: the store failed, or this process lost its heartbeat; what was answered is stored.
    """
    now = datetime.now(UTC)
    if only_due:
        due = due_probes(workspace, suppliers, now)
    else:
        workloads = configured_rates(workspace.config.settings)
        due = [DueProbe(key, workload) for key in dict.fromkeys(suppliers) for workload in workloads]
    if not due:
        return Probed((), ServiceProbeReport(), (), ())
    asked = list(dict.fromkeys(one.supplier for one in due))
    quota = probe_quota(workspace)
    quota.limit({key: _TRIES * sum(one.supplier == key for one in due) for key in asked})
    money = money_quota(workspace, asked)
    try:
        report = probe_services(workspace, due, quota=quota, money=money, on_progress=on_progress)
    finally:
        quota.close()
        if money is not None:
            money.close()
    where = {"supplier": {"in": sorted(asked)}, "finished_at": {"gte": now}}
    attempts = tuple(
        typed.find(workspace.documents, ServiceProbeRecord, where, sort=[("finished_at", 1), ("_id", 1)])
    )
    probed = dict.fromkeys(one.supplier for one in attempts)
    refreshed = refresh_service_quality(workspace, list(probed), datetime.now(UTC))
    return Probed(tuple(due), report, attempts, refreshed.recent)
