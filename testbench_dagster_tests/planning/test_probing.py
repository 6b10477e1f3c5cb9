"""When suppliers are probed: as often as configured, over the whole day, at instants nobody can know."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.planning.probing import (
    UNREACHED_EVERY,
    due_workloads,
    newest_instant,
    probe_instant,
)

DAY = timedelta(days=1)
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
RATES = st.one_of(st.integers(1, 288).map(float), st.floats(0.01, 24))
NOWS = st.datetimes(datetime(2024, 1, 1), datetime(2060, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


@settings(max_examples=50)
@given(RATES, NOWS, st.sampled_from(["", "a seed", "7:probes"]))
def test_the_newest_instant_has_passed_and_is_not_older_than_two_cells(
    per_day: float, now: datetime, seed: str
) -> None:
    at = newest_instant(seed, "a@x", "short", per_day, now)
    assert at <= now < at + 2 * DAY / per_day
    later = newest_instant(seed, "a@x", "short", per_day, now + 2 * DAY / per_day)
    assert later > at, "each cell has an instant of its own"


@settings(max_examples=50)
@given(st.integers(1, 288), st.integers(0, 10_000))
def test_a_utc_day_has_as_many_instants_as_configured(per_day: int, day: int) -> None:
    """The cells of a whole number a day begin and end with the days."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    first = round((start - datetime(1970, 1, 1, tzinfo=UTC)) / DAY * per_day)
    instants = [probe_instant("s", "a@x", "short", per_day, first + n) for n in range(per_day)]
    assert start <= instants[0] and instants[-1] < start + DAY
    assert instants == sorted(instants)


def probed(per_day: float, start: datetime, days: int, seed: str, asleep: range = range(0)) -> list[datetime]:
    """When a supplier is probed by somebody who looks every minute, but in the minutes ``asleep``."""
    last_at: dict[str, datetime] = {"short": start}
    found = []
    for minute in range(days * 1440):
        now = start + timedelta(minutes=minute)
        if minute not in asleep and due_workloads(seed, "a@x", {"short": per_day}, last_at, now):
            last_at["short"] = now
            found.append(now)
    return found


@pytest.mark.parametrize("per_day", [1, 8, 24])
def test_as_often_as_configured_and_spread_over_the_day(per_day: int) -> None:
    start = datetime(2026, 12, 1, tzinfo=UTC)
    found = probed(per_day, start, 20, "a seed")
    # the first cell's instant, and one more or less at the ends
    assert abs(len(found) - 20 * per_day) <= 1
    of_days = Counter(at.date() for at in found)
    assert max(of_days.values()) <= per_day + 1
    of_cells = Counter(int((at - start) / DAY * per_day) % per_day for at in found)
    assert min(of_cells.values()) >= 18, "no part of the day is left out"


def test_what_was_missed_is_not_made_up_for() -> None:
    """Two days without anybody looking: one probe at the end, then on as before."""
    start = datetime(2026, 12, 1, tzinfo=UTC)
    asleep = range(1440, 3 * 1440)
    found = probed(8, start, 5, "a seed", asleep)
    whole = probed(8, start, 5, "a seed")
    back = start + timedelta(minutes=asleep.stop)
    assert [at for at in found if at < start + DAY] == [at for at in whole if at < start + DAY]
    after = [at for at in found if at >= back]
    assert after[0] == back
    assert after[1:] == [at for at in whole if at > back]


def test_nobody_can_know_the_instants() -> None:
    """Uniform in their cells, and those of other suppliers, workloads and seeds say nothing of them."""
    per_day = 8

    def shares(seed: str, supplier: str, workload: str) -> list[float]:
        cells = range(160_000, 164_000)
        at = [probe_instant(seed, supplier, workload, per_day, cell) for cell in cells]
        return [
            (one - datetime(1970, 1, 1, tzinfo=UTC)) / DAY * per_day - cell
            for one, cell in zip(at, cells, strict=True)
        ]

    mine = shares("secret", "a@x", "short")
    others = [
        shares("secret", "b@x", "short"),
        shares("secret", "a@x", "1k"),
        shares("another", "a@x", "short"),
    ]
    for drawn in (mine, *others):
        bins = Counter(int(10 * share) for share in drawn)
        chi2 = sum((bins[n] - 400) ** 2 / 400 for n in range(10))
        assert chi2 < 27.9  # the 99.9 % quantile of chi-squared with 9 degrees of freedom
    # consecutive cells, and the same cell of others: correlations of 4,000 pairs, within 3.3 standard errors
    pairs = [(mine[:-1], mine[1:]), *((mine, other) for other in others)]
    for one, two in pairs:
        n = len(one)
        a, b = sum(one) / n, sum(two) / n
        covariance = sum((x - a) * (y - b) for x, y in zip(one, two, strict=True)) / n
        assert abs(covariance * 12) < 3.3 / n**0.5


def test_workloads_come_in_their_order_and_the_unknown_at_once() -> None:
    rates = {"short": 8.0, "1k": 8.0, "context": 1 / 7}
    assert due_workloads("s", "a@x", rates, {}, NOON) == ["short", "1k", "context"]
    last_at = dict.fromkeys(rates, NOON)
    assert due_workloads("s", "a@x", rates, last_at, NOON) == []
    later = NOON + 2 * DAY / 8
    assert due_workloads("s", "a@x", rates, last_at, later) == ["short", "1k"]
    assert due_workloads("s", "a@x", rates, last_at, NOON + 15 * DAY) == ["short", "1k", "context"]


def test_who_cannot_be_reached_is_asked_one_workload_an_hour_at_most() -> None:
    rates = {"short": 288.0, "1k": 288.0}
    last_at = {"short": NOON, "1k": NOON - timedelta(minutes=30)}
    found = []
    unreached: datetime | None = NOON
    for minute in range(1, 24 * 60):
        now = NOON + timedelta(minutes=minute)
        due = due_workloads("s", "a@x", rates, last_at, now, unreached)
        assert len(due) <= 1
        if due:
            found.append(now)
            last_at[due[0]] = unreached = now
    assert all(b - a >= UNREACHED_EVERY for a, b in pairwise(found))
    assert len(found) == 23
