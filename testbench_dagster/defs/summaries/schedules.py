"""Schedules ``hourly_summaries`` and ``daily_snapshots``."""

from datetime import timedelta

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.defs.automation import checked_cron, run_key, schedule_status
from testbench_dagster.defs.partitions import (
    MAX_GAP,
    RUNS_PER_TICK,
    SUPPLIER,
    pack_ranges,
    range_tags,
    suppliers_in_flight,
    suppliers_per_run,
)
from testbench_dagster.stages.snapshot import history_began
from testbench_dagster.stages.summarize.refresh import outdated_summaries
from testbench_dagster.stages.workspace import Workspace


def hourly_summaries_schedule(automation: AutomationSettings) -> dg.ScheduleDefinition:
    """The schedule that lets samples which grew too old leave the summaries.

    Every evaluation refreshes its suppliers' summaries. Where none is due, samples age all the same: whoever
    was not summarized for a day is summarized again, and the leaderboard follows.
    """

    @dg.schedule(
        name="hourly_summaries",
        cron_schedule=checked_cron("hourly_summaries", automation.hourly_summaries),
        job_name="refresh_abilities",
        execution_timezone="UTC",
        default_status=schedule_status(automation.hourly_summaries),
        description="Refreshes the summaries of suppliers that no evaluation refreshed for a day.",
    )
    def hourly_summaries(
        context: dg.ScheduleEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        order = list(context.instance.get_dynamic_partitions(SUPPLIER))
        busy = suppliers_in_flight(context.instance, order)
        tick = context.scheduled_execution_time
        outdated = set(outdated_summaries(workspace, tick - timedelta(days=1))) & set(order) - busy
        if not outdated:
            return dg.SkipReason("every summary was refreshed within a day")
        ranges = pack_ranges(order, outdated, suppliers_per_run(), MAX_GAP, blocked=busy)
        return [
            dg.RunRequest(
                run_key=run_key("summaries", tick.isoformat(), first, last), tags=range_tags(first, last)
            )
            for first, last in ranges[:RUNS_PER_TICK]
        ]

    return hourly_summaries


def daily_snapshots_schedule(automation: AutomationSettings) -> dg.ScheduleDefinition:
    """The schedule that closes each day's history shortly after its end."""

    @dg.schedule(
        name="daily_snapshots",
        cron_schedule=checked_cron("daily_snapshots", automation.daily_snapshots),
        job_name="take_snapshots",
        execution_timezone="UTC",
        default_status=schedule_status(automation.daily_snapshots),
        description="Appends the windows and summaries of all active suppliers to the history, once a day.",
    )
    def daily_snapshots(
        context: dg.ScheduleEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.RunRequest | dg.SkipReason:
        day = (context.scheduled_execution_time - timedelta(days=1)).date()
        began = history_began(workspace)
        if began is None or day < began:
            return dg.SkipReason(f"nobody was evaluated by {day}: history begins at first use")
        return dg.RunRequest(run_key=run_key("snapshots", str(day)), partition_key=str(day))

    return daily_snapshots
