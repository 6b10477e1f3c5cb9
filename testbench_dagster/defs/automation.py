"""What the packages' sensors and schedules share: whether they run, and idempotent keys of their requests."""

from __future__ import annotations

import time
from hashlib import sha256

import dagster as dg

from testbench_dagster.config.settings import ScheduleSettings, SensorSettings
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.dagster_internals import is_valid_cron_schedule
from testbench_dagster.defs.partitions import UNFINISHED


def sensor_status(settings: SensorSettings) -> dg.DefaultSensorStatus:
    """Running unless the configuration switches the sensor off; the UI may say otherwise at any time."""
    return dg.DefaultSensorStatus.RUNNING if settings.enabled else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: ScheduleSettings) -> dg.DefaultScheduleStatus:
    """Running unless the configuration switches the schedule off."""
    return dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED


def checked_cron(name: str, settings: ScheduleSettings) -> str:
    """The cron expression of a schedule.

    Raises:
        ConfigError: it is none.
    """
    if not is_valid_cron_schedule(settings.cron):
        raise ConfigError(
            f"automation.{name}.cron: {settings.cron!r} is no cron expression; write it like '0 2 * * *'"
        )
    return settings.cron


def run_key(kind: str, *parts: str, retry_s: float | None = None) -> str:
    """A key that makes a request idempotent: equal parts ask once.

    With ``retry_s`` a request that came to nothing may be made again after that many seconds (the key
    contains the present, cut to such a period).
    """
    period = [] if retry_s is None else [str(int(time.time() // retry_s))]
    return f"{kind}:{sha256(chr(0).join([*period, *parts]).encode()).hexdigest()[:32]}"


def unfinished_runs(instance: dg.DagsterInstance, job_name: str) -> int:
    """How many runs of a job are queued or running."""
    return instance.get_runs_count(dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED)))
