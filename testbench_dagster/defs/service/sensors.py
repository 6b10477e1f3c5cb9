"""Sensor ``service_probes``: asks which probes are due, and requests one run for all of them."""

from datetime import UTC, datetime

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import repeatable_requests, run_key, sensor_status, unfinished_runs
from testbench_dagster.defs.hosts import refused_runs
from testbench_dagster.defs.partitions import SUPPLIER, range_tags
from testbench_dagster.stages.service.due import due_probes
from testbench_dagster.stages.statements import server_problem
from testbench_dagster.stages.workspace import Workspace

_JOB = "probe_service"


def service_probes_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor, off unless probes are on.

    What is due of a minute is scattered over all suppliers, for their instants are drawn: a run for each
    contiguous batch would take seconds for a probe or two. One run spans them all, and materializes the
    partitions of those alone that it probed.
    """
    automation = settings.automation.service_probes
    status = sensor_status(automation) if settings.service_probes.enabled else dg.DefaultSensorStatus.STOPPED
    retry_s = settings.planning.retry_minutes * 60

    @dg.sensor(
        name="service_probes",
        job_name=_JOB,
        minimum_interval_seconds=automation.every_s,
        default_status=status,
        description="Requests the service probes that are due, within their own budget, of suppliers that "
        "nobody relays to now.",
    )
    def service_probes(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult:
        if not workspace.config.settings.service_probes.enabled:
            return dg.SensorResult(skip_reason="service_probes.enabled is false")
        if (problem := server_problem(workspace)) is not None:
            return dg.SensorResult(skip_reason=problem)
        if refused_runs(context.instance, retry_s, _JOB):
            return dg.SensorResult(
                skip_reason=f"a run was refused less than {retry_s:g} s ago; `testbench check` says why"
            )
        if unfinished_runs(context.instance, _JOB):
            return dg.SensorResult(skip_reason="the last run is not done yet")
        order = list(context.instance.get_dynamic_partitions(SUPPLIER))
        place = {key: i for i, key in enumerate(order)}
        due = [one for one in due_probes(workspace, None, datetime.now(UTC)) if one.supplier in place]
        if not due:
            return dg.SensorResult(skip_reason="nothing is due")
        first = min(due, key=lambda one: place[one.supplier]).supplier
        last = max(due, key=lambda one: place[one.supplier]).supplier
        key = run_key("probes", *(f"{one.supplier} {one.workload}" for one in due))
        tags = {**range_tags(first, last), "dagster/priority": "-1"}
        requests = repeatable_requests(context.instance, {key: tags}, retry_s)
        if not requests:
            return dg.SensorResult(
                skip_reason=f"{counted(len(due), 'probe')} due; the last run for them ended less than "
                f"{retry_s:g} s ago"
            )
        return dg.SensorResult(run_requests=requests)

    return service_probes
