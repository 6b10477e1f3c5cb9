"""What Dagster keeps of its sensors and schedules, read right where a clock was ahead and has been set back.

Its daemon lets a sensor rest until its interval after the last tick is over, and a schedule until the time
that it was last looked at. Where these were written by a clock that was ahead, nothing would happen until the
old time is reached, and nobody would be told. Here such dates are left out when they are read: the next tick
comes at once, and writes right ones.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from testbench_dagster.core.clock import SKEW
from testbench_dagster.defs.dagster_internals import (
    AssetDaemonCursor,
    DagsterStorage,
    InstigatorState,
    ScheduleInstigatorData,
    SensorInstigatorData,
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)

_log = logging.getLogger("dagster")
#: How long ago a schedule is taken to have been switched on that was in the future.
_BEGAN_S = 60.0
_told: set[str] = set()


def without_dates_ahead(storage: DagsterStorage) -> DagsterStorage:
    """Have a storage tell no date of a sensor or schedule that lies ahead; returns it."""
    schedules: Any = storage.schedule_storage
    every, one, ticks = (
        schedules.all_instigator_state,
        schedules.get_instigator_state,
        schedules.get_ticks,
    )

    @functools.wraps(every)
    def all_instigator_state(*arguments: Any, **named: Any) -> list[InstigatorState]:
        return [corrected(state) for state in every(*arguments, **named)]

    @functools.wraps(one)
    def get_instigator_state(*arguments: Any, **named: Any) -> InstigatorState | None:
        state = one(*arguments, **named)
        return None if state is None else corrected(state)

    schedules.all_instigator_state = all_instigator_state
    schedules.get_instigator_state = get_instigator_state
    schedules.get_ticks = _until_now(ticks)
    return storage


def corrected(state: InstigatorState) -> InstigatorState:
    """A sensor's or schedule's state without the dates that lie ahead; tells of it once in this process."""
    latest = time.time() + SKEW.total_seconds()
    data = state.instigator_data
    if isinstance(data, SensorInstigatorData):
        right: Any = _sensor(data, latest)
    elif isinstance(data, ScheduleInstigatorData):
        right = _schedule(data, latest)
    else:
        return state
    if right is data:
        return state
    if state.instigator_name not in _told:
        _told.add(state.instigator_name)
        _log.warning(
            f"{state.instigator_name} was last looked at by a clock that was ahead of this one: it goes on "
            "now, and does not wait for that time; keep the clocks right by NTP"
        )
    return state.with_data(right)


def _sensor(data: SensorInstigatorData, latest: float) -> SensorInstigatorData:
    names = (
        "last_tick_timestamp",
        "last_tick_start_timestamp",
        "last_sensor_start_timestamp",
        "last_tick_success_timestamp",
    )
    ahead = [name for name in names if (getattr(data, name) or 0) > latest]
    if not ahead:
        return data
    right = data._replace(**dict.fromkeys(ahead))
    if data.sensor_type is not None and data.sensor_type.is_handled_by_asset_daemon and data.cursor:
        # its conditions compare times with those of their last evaluation: they begin anew, counted on
        before = asset_daemon_cursor_from_instigator_serialized_cursor(data.cursor, None)
        anew = AssetDaemonCursor.empty(before.evaluation_id)
        right = right._replace(cursor=asset_daemon_cursor_to_instigator_serialized_cursor(anew))
    return right


def _schedule(data: ScheduleInstigatorData, latest: float) -> ScheduleInstigatorData:
    right = data
    if (data.last_iteration_timestamp or 0) > latest:
        right = right._replace(last_iteration_timestamp=None)
    if (data.start_timestamp or 0) > latest:
        right = right._replace(start_timestamp=time.time() - _BEGAN_S)
    return right


def _until_now(get_ticks: Callable[..., Any]) -> Callable[..., Any]:
    """The ticks of the past: a schedule goes on from its last one."""

    @functools.wraps(get_ticks)
    def past_ticks(
        origin_id: str, selector_id: str, before: float | None = None, *others: Any, **named: Any
    ) -> Any:
        latest = time.time() + SKEW.total_seconds()
        return get_ticks(
            origin_id, selector_id, latest if before is None else min(before, latest), *others, **named
        )

    return past_ticks
