"""What the packages' sensors and schedules share: whether they run, and idempotent keys of their requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256

import dagster as dg

from testbench_dagster.config.schedules import ScheduledBackfill, no_cron
from testbench_dagster.config.settings import ScheduleSettings, SensorSettings
from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.partitions import UNFINISHED

REQUEST = "testbench/request"
"""Tag of runs that a sensor may ask for again: what was asked for."""


def sensor_status(settings: SensorSettings) -> dg.DefaultSensorStatus:
    """Running unless the configuration switches the sensor off; the UI may say otherwise at any time."""
    return dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: ScheduleSettings | ScheduledBackfill) -> dg.DefaultScheduleStatus:
    """Running unless the configuration switches the schedule off."""
    return dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED


def checked_cron(name: str, settings: ScheduleSettings) -> str:
    """The cron expression of a schedule.

    Raises:
        ConfigError: it is none.
    """
    try:
        dg.ScheduleDefinition(name=name, cron_schedule=settings.cron, job_name=name)
    except dg.DagsterInvalidDefinitionError as error:
        raise ConfigError(f"automation.{name}.cron: {no_cron(settings.cron)}") from error
    return settings.cron


def at_times(cron: str, news: dg.AssetSelection) -> dg.AutomationCondition[dg.AssetKey]:
    """Refresh after each time of a cron expression, once one of these assets changed; the first time at once.

    Not ``on_cron``: that waits for a change after each time. What was measured before it would be shown after
    the next evaluation only, which on a quiet installation is the one of the night.
    """
    condition = dg.AutomationCondition
    # The bare condition, for Dagster knows when it came true. A request is seen one look later: without the
    # instants it would undo what arrived in between.
    changed = condition.any_deps_match(condition.newly_updated()).allow(news)
    requested = condition.newly_requested()
    is_time = condition.cron_tick_passed(cron).since(requested)
    at_first = condition.missing() & ~condition.in_progress()
    return changed.since(requested) & (is_time | at_first)


def run_key(kind: str, *parts: str) -> str:
    """A key that makes a request idempotent: equal parts ask once."""
    return f"{kind}:{sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


def repeatable_requests(
    instance: dg.DagsterInstance, wanted: Mapping[str, Mapping[str, str]], retry_s: float
) -> list[dg.RunRequest]:
    """Requests that may be made again ``retry_s`` seconds after their last run ended, still to be done.

    ``wanted`` are the tags of each by its key (see :func:`run_key`); those whose time has not come are left
    out. A request after a run is named after that run, so it is made once, too.
    """
    newest: dict[str, dg.RunRecord] = {}
    one = 1 if len(wanted) == 1 else None  # a catalog that stays broken has a run each five minutes
    for record in instance.get_run_records(dg.RunsFilter(tags={REQUEST: list(wanted)}), limit=one):
        newest.setdefault(record.dagster_run.tags[REQUEST], record)
    requests = []
    for key, tags in wanted.items():
        last = newest.get(key)
        if last is None:
            name = key
        else:
            ended = last.end_time or last.update_timestamp.timestamp()
            # one that ended in the future did so by a clock that was set back since
            rests = time.time() < ended + retry_s and ended <= time.time() + SKEW.total_seconds()
            if last.dagster_run.status in UNFINISHED or rests:
                continue
            name = f"{key}:{last.dagster_run.run_id}"
        requests.append(dg.RunRequest(run_key=name, tags={**tags, REQUEST: key}))
    return requests


def unfinished_runs(instance: dg.DagsterInstance, job_name: str) -> int:
    """How many runs of a job are queued or running."""
    return instance.get_runs_count(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED)))
