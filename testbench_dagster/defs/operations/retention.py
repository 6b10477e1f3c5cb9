"""Job ``apply_retention`` and its schedule: the only thing that ever deletes, and never what still counts."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.defs.automation import checked_cron, run_key, schedule_status
from testbench_dagster.defs.partitions import SUPPLIER, supplier_partitions
from testbench_dagster.stages.retain import apply_retention as purge
from testbench_dagster.stages.workspace import Workspace


@dg.op(name="purge_old", description="Removes evidence and run logs older than `retention` allows.")
def _apply(context: dg.OpExecutionContext, workspace: dg.ResourceParam[Workspace]) -> None:
    from testbench_dagster.defs.event_log import prune_event_log  # with Dagster's storages: only here
    from testbench_dagster.defs.run_history import prune_runs

    now, retention = datetime.now(UTC), workspace.config.settings.retention
    removed = purge(workspace, now)
    if retention.runs_days is not None:
        oldest = now - timedelta(days=retention.runs_days)
        pruned = prune_runs(context.instance, oldest, {SUPPLIER: _assets_of_suppliers(workspace)})
        removed |= {"runs": pruned.runs, "rows of runs": pruned.rows, "backfills": pruned.backfills}
    removed["events"] = prune_event_log(context.instance, now - timedelta(days=retention.events_days))
    context.log.info(", ".join(f"{name} {count}" for name, count in removed.items()))


def _assets_of_suppliers(workspace: Workspace) -> list[dg.AssetKey]:
    from testbench_dagster.defs.build import build_definitions  # which imports this module

    graph = build_definitions(workspace).resolve_asset_graph()
    return [
        key for key in graph.materializable_asset_keys if graph.get(key).partitions_def == supplier_partitions
    ]


@dg.job(
    name="apply_retention",
    description="Remove old evidence, budgets, runs and run logs; the newest of each partition stays.",
)
def apply_retention() -> None:
    """One op: purge the stores, prune the event log."""
    _apply()


def retention_schedule(automation: AutomationSettings) -> dg.ScheduleDefinition:
    """The daily schedule of the job."""

    @dg.schedule(
        name="retention",
        cron_schedule=checked_cron("retention", automation.retention),
        job=apply_retention,
        execution_timezone="UTC",
        default_status=schedule_status(automation.retention),
        description="Applies the retention settings once a day.",
    )
    def retention(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=run_key("retention", context.scheduled_execution_time.isoformat()))

    return retention
