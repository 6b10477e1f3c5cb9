"""Sensor ``stale_catalog``: datasets and prompts follow configuration, data files and suppliers."""

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.wording import are, counted
from testbench_dagster.defs.automation import (
    repeatable_requests,
    run_key,
    sensor_status,
    unfinished_runs,
)
from testbench_dagster.defs.partitions import pack_ranges, range_tags
from testbench_dagster.stages.sample.catalogue import catalogue_fingerprint, stale_tasks
from testbench_dagster.stages.sample.set_aside import resting_tasks
from testbench_dagster.stages.statements import server_problem
from testbench_dagster.stages.workspace import Workspace

_RETRY_S = 300  # a catalog that failed to load is tried again that often


def stale_catalog_sensor(
    automation: AutomationSettings,
    partitions: dg.StaticPartitionsDefinition,
) -> dg.SensorDefinition:
    """The sensor over the task partitions of this code location."""
    order = partitions.get_partition_keys()

    @dg.sensor(
        name="stale_catalog",
        job_name="refresh_catalog",
        minimum_interval_seconds=automation.stale_catalog.every_s,
        default_status=sensor_status(automation.stale_catalog),
        description="Refreshes the tasks whose configuration or data changed, or whose prompts are not "
        "complete for every request form the suppliers need. What is set aside is tried "
        "again later and later, and at once where its definition or data changed.",
    )
    def stale_catalog(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult:
        if (problem := server_problem(workspace)) is not None:
            return dg.SensorResult(skip_reason=problem)
        if unfinished_runs(context.instance, "refresh_catalog"):
            return dg.SensorResult(skip_reason="a refresh of the catalog is under way")
        resting = resting_tasks(workspace, workspace.specs)
        stale = [spec.name for spec in stale_tasks(workspace, workspace.specs) if spec.name not in resting]
        for name in stale:
            if name not in order:
                context.log.warning(f"task {name} is new: reload the code location to get its partition")
        wanted = [name for name in stale if name in order]
        if not wanted:
            aside = f", {len(resting)} of them set aside" if resting else ""
            n = len(order)
            return dg.SensorResult(skip_reason=f"{counted(n, 'task')} {are(n)} complete{aside}")
        # one run over all of them: a task that is complete in between costs it nothing
        ((first, last),) = pack_ranges(order, wanted, len(order), max_gap=len(order))
        key = run_key("catalog", catalogue_fingerprint(workspace), *sorted(wanted))
        requests = repeatable_requests(context.instance, {key: range_tags(first, last)}, _RETRY_S)
        if not requests:
            return dg.SensorResult(
                skip_reason=f"{', '.join(wanted)} came to nothing; tried again {_RETRY_S} s after that run"
            )
        return dg.SensorResult(run_requests=requests)

    return stale_catalog


def catalog_is_ready(workspace: Workspace) -> bool:
    """Whether there is anything to ask: at least one task has its dataset."""
    return any(workspace.datasets.current(spec.name) is not None for spec in workspace.specs)
