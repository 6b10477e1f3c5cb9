"""Where things are drawn: scales, histories, columns."""

from __future__ import annotations

import math
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.board.charts import (
    DayValue,
    columns,
    history_chart,
    interval,
    log_scale,
    scale,
    strip,
)

DAY = date(2026, 3, 1)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(NUMBERS | st.none(), max_size=20))
def test_a_scale_holds_all_values_between_round_ticks(values: list[float | None]) -> None:
    on = scale(values, 10, 110)
    known = [v for v in values if v is not None]
    assert on.low < on.high and len(on.ticks) >= 2
    slack = 1e-6 * max(1.0, abs(on.low), abs(on.high))
    assert all(on.low - slack <= v <= on.high + slack for v in known)
    assert all(10 <= on.at(v) <= 110 for v in known)
    steps = {
        round((b - a) / (on.ticks[1] - on.ticks[0]), 6) for a, b in zip(on.ticks, on.ticks[1:], strict=False)
    }
    assert steps == {1.0}
    texts = [on.text(tick) for tick in on.ticks]
    assert len(set(texts)) == len(texts), "every tick is told from the others"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.61, 0.93], ["0.6", "0.7", "0.8", "0.9", "1.0"]),
        ([0.5], ["0.490", "0.495", "0.500", "0.505", "0.510"]),
        ([0.0, 1.0], ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        ([12.0, 48.0], ["10", "20", "30", "40", "50"]),
    ],
)
def test_ticks_are_as_people_write_them(values: list[float], ticks: list[str]) -> None:
    on = scale(values, 0, 100)
    assert [on.text(tick) for tick in on.ticks] == ticks


def test_an_interval_is_drawn_around_its_score() -> None:
    on = scale([0.0, 1.0], 0, 100)
    mark = interval(on, 0.5, 0.25, 0.75)
    assert mark is not None and (mark.low, mark.dot, mark.high) == (25, 50, 75)
    assert interval(on, None, 0.1, 0.2) is None
    alone = interval(on, 0.5, None, None)
    assert alone is not None and alone.low is None


def test_days_without_a_value_interrupt_the_line() -> None:
    days = [DayValue(DAY + timedelta(days=d), 0.5, 0.4, 0.6) for d in (0, 1, 2, 6, 7)]
    chart = history_chart(days)
    assert chart is not None and len(chart.lines) == len(chart.areas) == 2
    alone = history_chart(days[:1])
    assert alone is not None and len(alone.dots) == 1 and not alone.lines


def test_daily_means_are_drawn_apart_and_unknown_days_not_at_all() -> None:
    days = [
        DayValue(DAY, 0.5, 0.4, 0.6),
        DayValue(DAY + timedelta(days=1), 0.5, None, None, filled=True),
        DayValue(DAY + timedelta(days=2), None, None, None),
    ]
    chart = history_chart(days, [(DAY, "then"), (DAY - timedelta(days=9), "before all of it")])
    assert chart is not None and len(chart.filled) == 1
    assert [text for _, text in chart.marks] == ["then"]
    assert history_chart(days[2:]) is None and history_chart([]) is None


def test_a_long_history_is_thinned_and_ends_today() -> None:
    days = [DayValue(DAY + timedelta(days=d), 0.5, 0.4, 0.6) for d in range(900)]
    chart = history_chart(days, most=100)
    assert chart is not None
    [line] = chart.lines
    points = line.split(" ")
    assert len(points) <= 101
    assert float(points[-1].split(",")[0]) == chart.width - 8


@given(st.lists(st.lists(st.integers(0, 10_000), min_size=3, max_size=3), max_size=50))
def test_columns_stand_on_the_ground_side_by_side(counts: list[list[int]]) -> None:
    bars, most = columns([list(zip("abc", column, strict=True)) for column in counts], width=600, height=100)
    assert most == max((sum(column) for column in counts), default=0)
    assert len(bars) == sum(n > 0 for column in counts for n in column)
    assert all(bar.height >= 1 and bar.y >= -2 and bar.y + bar.height <= 100.2 for bar in bars)
    assert all(math.isfinite(bar.x) and 0 <= bar.x <= 600 for bar in bars)


# ------------------------------------------------------------------------------------------ ratios, states


@given(st.lists(st.floats(1e-3, 1e9), max_size=20))
def test_a_logarithmic_scale_holds_all_values_between_round_ends(values: list[float]) -> None:
    on = log_scale(values, 14, 146)
    assert len(on.ticks) <= 4 and on.ticks[0] == on.low
    assert all(on.low * (1 - 1e-9) <= value <= on.high * (1 + 1e-9) for value in values)
    assert 14 <= on.at(on.low) < on.at(on.high) <= 146
    places = [on.at(value) for value in sorted(values)]
    assert places == sorted(places)
    middle = math.sqrt(on.low * on.high)
    assert on.at(middle) == pytest.approx(80, abs=0.1), "equal ratios are equally far apart"


def test_ticks_of_a_logarithmic_scale_are_short() -> None:
    on = log_scale([90, 7_000], 0, 100, ticks=8)
    assert [on.text(tick) for tick in on.ticks] == ["50", "100", "200", "500", "1k", "2k", "5k", "10k"]
    assert log_scale([None, 0.0, -4.0, math.inf], 0, 100).low == 1.0, "what has no logarithm is left out"


def test_a_strip_draws_runs_and_leaves_gaps_free() -> None:
    made = strip(["a", "a", None, "b"], width=40)
    assert made.cells == [("a", 0.0, 19.5), ("b", 30.0, 9.5)]
    assert strip([]).cells == []
