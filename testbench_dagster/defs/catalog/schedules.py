"""Schedule ``weekly_epochs``: new prompt sequences for all tasks, seeds committed before they are used."""

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.defs.automation import checked_cron, run_key, schedule_status
from testbench_dagster.defs.partitions import range_tags


def weekly_epochs_schedule(
    automation: AutomationSettings,
    partitions: dg.StaticPartitionsDefinition,
) -> dg.ScheduleDefinition:
    """The schedule: one run over all tasks, starting epochs where the current one is older than the tick."""
    order = partitions.get_partition_keys()

    @dg.schedule(
        name="weekly_epochs",
        cron_schedule=checked_cron("weekly_epochs", automation.weekly_epochs),
        job_name="refresh_catalog",
        execution_timezone="UTC",
        default_status=schedule_status(automation.weekly_epochs),
        description="Starts the next epoch of every task; the hash of its seed is published in the "
        "metadata of sampled_prompts, the seed of the epoch before is revealed.",
    )
    def weekly_epochs(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time.isoformat()
        return dg.RunRequest(
            run_key=run_key("epoch", tick),
            tags=range_tags(order[0], order[-1]),
            # repeated for whatever reason, the run starts no second epoch: the first began after the tick
            run_config={"ops": {"sampled_prompts": {"config": {"roll_before": tick}}}},
        )

    return weekly_epochs
