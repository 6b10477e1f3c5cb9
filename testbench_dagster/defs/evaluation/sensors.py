"""Sensor ``stale_scores``: asks the planner whose scores need samples, requests evaluations in batches."""

from datetime import UTC, datetime

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.core.wording import are, counted
from testbench_dagster.defs.automation import repeatable_requests, run_key, sensor_status
from testbench_dagster.defs.catalog.sensors import catalog_is_ready
from testbench_dagster.defs.hosts import refused_runs
from testbench_dagster.defs.partitions import (
    MAX_GAP,
    RUNS_PER_TICK,
    SUPPLIER,
    pack_ranges,
    range_tags,
    suppliers_in_flight,
    suppliers_of_runs,
    suppliers_per_run,
)
from testbench_dagster.stages.ahead import dated_ahead
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.statements import refused_hosts, server_problem
from testbench_dagster.stages.workspace import Workspace


def stale_scores_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor, looking at the cached plans as often as configured."""
    automation = settings.automation
    retry_s = settings.planning.retry_minutes * 60

    @dg.sensor(
        name="stale_scores",
        job_name="evaluate_suppliers",
        minimum_interval_seconds=automation.stale_scores.every_s,
        default_status=sensor_status(automation.stale_scores),
        description="Requests evaluations of the suppliers whose samples grew old, whose plans changed or "
        "who were never evaluated, in contiguous batches, within the relay budgets.",
    )
    def stale_scores(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult:
        if not catalog_is_ready(workspace):
            return dg.SensorResult(skip_reason="no task has its dataset yet")
        if (told := dated_ahead(workspace, datetime.now(UTC))) is not None:
            context.log.warning(told)
        if (problem := server_problem(workspace)) is not None:
            return dg.SensorResult(skip_reason=problem)
        order = list(context.instance.get_dynamic_partitions(SUPPLIER))
        known = set(order)
        versions = {w.key: w.version for w in due_suppliers(workspace) if w.key in known}
        busy = suppliers_in_flight(context.instance, order)
        # ranges change from tick to tick: those suppliers rest, not the request
        resting = suppliers_of_runs(refused_runs(context.instance, retry_s), order)
        busy |= resting
        due = [key for key in versions if key not in busy]
        if not due and resting & versions.keys():
            return dg.SensorResult(
                skip_reason=f"runs were refused less than {retry_s:g} s ago: {_why(workspace)}"
            )
        if not due:
            return dg.SensorResult(
                skip_reason=f"nothing is due; {counted(len(busy), 'supplier')} {are(len(busy))} being "
                "evaluated"
            )
        ranges = pack_ranges(order, due, suppliers_per_run(), MAX_GAP, blocked=busy)
        place = {key: i for i, key in enumerate(order)}
        wanted = {}
        for first, last in ranges[:RUNS_PER_TICK]:
            covered = order[place[first] : place[last] + 1]
            key = run_key("stale", first, last, *(f"{k} {versions[k]}" for k in covered if k in versions))
            # scheduled work gives way to what people start by hand
            wanted[key] = {**range_tags(first, last), "dagster/priority": "-1"}
        requests = repeatable_requests(context.instance, wanted, retry_s)
        if not requests:
            return dg.SensorResult(
                skip_reason=f"{counted(len(due), 'supplier')} {are(len(due))} due; the last runs came to "
                f"nothing less than {retry_s:g} s ago"
            )
        return dg.SensorResult(run_requests=requests)

    return stale_scores


def _why(workspace: Workspace) -> str:
    """Which machine goes by something else, in the words in which it was refused."""
    return "; ".join(refused_hosts(workspace).values()) or "their machines agree again"
