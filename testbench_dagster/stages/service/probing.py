"""A round of service probes: who is due, asked within the budget, and what they come to made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.stages.service.budget import probe_quota
from testbench_dagster.stages.service.due import configured_rates, due_probes
from testbench_dagster.stages.service.probe import ServiceProbeProgress, ServiceProbeReport, probe_services
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Relays that one probe takes at most: as wanted, without `stream_options`, without `stream`.
_TRIES = 3


@dataclass(frozen=True)
class Probed:
    """A round: what was ``due``, what came of it, and the ``attempts`` that were stored, oldest first."""

    due: tuple[DueProbe, ...]
    report: ServiceProbeReport
    attempts: tuple[ServiceProbeRecord, ...]


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
        return Probed((), ServiceProbeReport(), ())
    asked = list(dict.fromkeys(one.supplier for one in due))
    quota = probe_quota(workspace)
    quota.limit({key: _TRIES * sum(one.supplier == key for one in due) for key in asked})
    try:
        report = probe_services(workspace, due, quota=quota, on_progress=on_progress)
    finally:
        quota.close()
    where = {"supplier": {"in": sorted(asked)}, "finished_at": {"gte": now}}
    attempts = tuple(
        typed.find(workspace.documents, ServiceProbeRecord, where, sort=[("finished_at", 1), ("_id", 1)])
    )
    probed = dict.fromkeys(one.supplier for one in attempts)
    refresh_service_quality(workspace, list(probed), datetime.now(UTC))
    return Probed(tuple(due), report, attempts)
