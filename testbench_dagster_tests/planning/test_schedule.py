"""Schedule limits by clock and by height, and how long an unreachable supplier rests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.rules import PlanningSettings, ScheduleLimit
from testbench_dagster.planning.schedule import ScheduleVerdict, retry_delay, schedule_verdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAILY = ScheduleLimit(every=24, unit="hours")
SESSION = ScheduleLimit(every=2, unit="session")


def test_without_a_limit_or_a_sample_nothing_rests() -> None:
    assert schedule_verdict(None, NOW, 5, NOW, None, 10).ready
    for limit in (DAILY, SESSION):
        assert schedule_verdict(limit, None, None, NOW, None, 10).ready


@pytest.mark.parametrize(
    ("unit", "length"), [("hours", timedelta(hours=1)), ("minutes", timedelta(minutes=1))]
)
def test_time_counts_from_the_last_sample(unit: str, length: timedelta) -> None:
    limit = ScheduleLimit.model_validate({"every": 1.5, "unit": unit})
    due_at = NOW + 1.5 * length
    early = schedule_verdict(limit, NOW, None, due_at - timedelta(microseconds=1), None, 10)
    assert (early.ready, early.due_at, early.due_height) == (False, due_at, None)
    assert early.reason == f"rests until {due_at:%Y-%m-%d %H:%M}"
    assert schedule_verdict(limit, NOW, None, due_at, None, 10).ready


@pytest.mark.parametrize(("limit", "blocks"), [(SESSION, 20), (ScheduleLimit(every=3, unit="block"), 3)])
def test_blocks_count_from_the_height_of_the_last_sample(limit: ScheduleLimit, blocks: int) -> None:
    early = schedule_verdict(limit, NOW, 100, NOW, 100 + blocks - 1, 10)
    assert early == ScheduleVerdict(
        False, f"rests until block {100 + blocks}, it is {100 + blocks - 1}", None, 100 + blocks
    )
    assert schedule_verdict(limit, NOW, 100, NOW, 100 + blocks, 10).ready


def test_an_unknown_height_allows_nothing_and_says_so() -> None:
    verdict = schedule_verdict(SESSION, NOW, 100, NOW, None, 10)
    assert (verdict.ready, verdict.due_height) == (False, 120)
    assert "height is not known" in verdict.reason


def test_a_sample_without_a_height_does_not_block_for_ever() -> None:
    assert schedule_verdict(SESSION, NOW, None, NOW, 100, 10).ready


def test_retries_become_rarer_up_to_a_bound() -> None:
    settings = PlanningSettings(retry_minutes=5, retry_max_hours=1)
    minutes = [retry_delay(n, settings) / timedelta(minutes=1) for n in (0, 1, 2, 3, 4, 5, 6, 10**6)]
    assert minutes == [0, 5, 10, 20, 40, 60, 60, 60]


@given(st.integers(0, 10**9), st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_retries_never_become_more_frequent(failures: int, first: float, longest: float) -> None:
    settings = PlanningSettings(retry_minutes=first, retry_max_hours=longest)
    delay = retry_delay(failures, settings)
    assert timedelta(0) <= delay <= retry_delay(failures + 1, settings) <= timedelta(hours=longest)


@pytest.mark.parametrize("limit", [DAILY, SESSION])
def test_a_sample_dated_ahead_keeps_nothing_waiting(limit: ScheduleLimit) -> None:
    ahead = NOW + timedelta(days=3)
    assert schedule_verdict(limit, ahead, 5, NOW, 5, 10).ready
    assert not schedule_verdict(limit, NOW + timedelta(seconds=30), 5, NOW, 5, 10).ready
