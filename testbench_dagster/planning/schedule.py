"""When a task may be sampled again after its last sample, and a supplier tried again after a failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.rules import PlanningSettings, ScheduleLimit
from testbench_dagster.core.wording import counted


@dataclass(frozen=True)
class ScheduleVerdict:
    """Whether the limit allows a sample now; else when it will, by the clock or by block height."""

    ready: bool
    reason: str
    due_at: datetime | None = None
    due_height: int | None = None


def schedule_verdict(
    limit: ScheduleLimit | None,
    last_at: datetime | None,
    last_height: int | None,
    now: datetime,
    height: int | None,
    blocks_per_session: int,
) -> ScheduleVerdict:
    """Apply a schedule limit.

    Args:
        limit: the limit; None allows always.
        last_at: when the last sample was taken; None if there is none, which is always allowed.
        last_height: block height of the last sample, None where it was not known: then nothing can be
            counted from it, and a sample is allowed.
        now: the present, timezone-aware.
        height: the present block height, None while unknown: limits that count blocks then allow nothing.
        blocks_per_session: blocks of a session.
    """
    if limit is None:
        return ScheduleVerdict(True, "no schedule")
    if last_at is None:
        return ScheduleVerdict(True, "never sampled")
    if is_ahead(last_at, now):
        return ScheduleVerdict(True, "the last sample is dated ahead of now")
    if not limit.needs_height:
        due_at = last_at + timedelta(**{limit.unit: limit.every})
        if now >= due_at:
            return ScheduleVerdict(True, f"last sampled {limit.every:g} {limit.unit} ago or longer")
        return ScheduleVerdict(False, f"rests until {due_at:%Y-%m-%d %H:%M}", due_at)
    if last_height is None:
        return ScheduleVerdict(True, "the last sample has no block height")
    blocks = int(limit.every) * (blocks_per_session if limit.unit == "session" else 1)
    due_height = last_height + blocks
    if height is None:
        reason = f"the block height is not known; rests until block {due_height}"
        return ScheduleVerdict(False, reason, None, due_height)
    if height >= due_height:
        return ScheduleVerdict(True, f"last sampled {counted(height - last_height, 'block')} ago")
    return ScheduleVerdict(False, f"rests until block {due_height}, it is {height}", None, due_height)


def retry_delay(failures: int, settings: PlanningSettings) -> timedelta:
    """How long a supplier rests after ``failures`` evaluations in a row that got nowhere.

    ``retry_minutes`` after the first, doubling with every further one up to ``retry_max_hours``; none without
    failures.
    """
    if failures <= 0:
        return timedelta(0)
    longest = timedelta(hours=settings.retry_max_hours)
    doublings = min(failures - 1, 64)  # more would exceed any number of hours, and what a timedelta holds
    minutes = min(settings.retry_minutes * 2**doublings, longest / timedelta(minutes=1))
    return timedelta(minutes=minutes)
