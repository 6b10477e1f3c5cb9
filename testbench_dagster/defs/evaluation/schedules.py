"""Schedule ``nightly_evaluation``: looks at every supplier once a night, whatever its cached plan says."""

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.defs.automation import checked_cron, run_key, schedule_status
from testbench_dagster.defs.partitions import SUPPLIER, pack_ranges, range_tags, suppliers_per_run
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.workspace import Workspace


def nightly_evaluation_schedule(automation: AutomationSettings) -> dg.ScheduleDefinition:
    """The schedule: one run request per batch of active suppliers."""

    @dg.schedule(
        name="nightly_evaluation",
        cron_schedule=checked_cron("nightly_evaluation", automation.nightly_evaluation),
        job_name="evaluate_suppliers",
        execution_timezone="UTC",
        default_status=schedule_status(automation.nightly_evaluation),
        description="Evaluates all active suppliers in batches; what is fresh is not asked again.",
    )
    def nightly_evaluation(
        context: dg.ScheduleEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        order = list(context.instance.get_dynamic_partitions(SUPPLIER))
        wanted = {s.key for s in active_suppliers(workspace)} & set(order)
        if not wanted:
            return dg.SkipReason("no supplier has a partition yet")
        night = context.scheduled_execution_time.isoformat()
        return [
            dg.RunRequest(run_key=run_key("nightly", night, first, last), tags=range_tags(first, last))
            for first, last in pack_ranges(order, wanted, suppliers_per_run())
        ]

    return nightly_evaluation
