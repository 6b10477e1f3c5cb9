"""The score of a task as rollups take it: its ends, what follows from it, and which window it comes from."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from testbench_dagster.core.window import NO_DATA, OK, PARTIAL, Window
from testbench_dagster.statistics.intervals import normal_quantile, wilson
from testbench_dagster.statistics.task_score import TaskScore, left_out, measured_tasks


def test_a_task_score_at_its_ends() -> None:
    assert TaskScore(0.0, 1).error == TaskScore(1.0, 1).error == 0
    assert TaskScore(0.5, 25).error == pytest.approx(0.1)
    assert TaskScore(0.5, 25, 0.0).error == 0.0
    assert TaskScore(0.5, 9, 0.1, 0.5, 0.5).interval == (0.5, 0.5)
    for score in (-1e-9, 1 + 1e-9):
        assert not TaskScore(score, 1, 0.1).in_unit
        with pytest.raises(ValueError, match="give its standard error"):
            TaskScore(score, 1)
    for arguments, said in (
        ((0.5, 0), "n >= 1, got 0"),
        ((0.5, -1), "n >= 1, got -1"),
        ((0.5, 5, -1e-9), "not negative"),
        ((0.5, 5, math.nan), "must be finite"),
        ((math.inf, 5, 0.1), "must be finite"),
        ((0.5, 5, None, None, 0.6), "both ends"),
        ((0.5, 5, None, 0.5 + 1e-9, 0.6), "must lie in its interval"),
        ((0.5, 5, None, 0.4, 0.5 - 1e-9), "must lie in its interval"),
    ):
        with pytest.raises(ValueError, match=said):
            TaskScore(*arguments)


def test_intervals_that_are_not_given() -> None:
    assert TaskScore(0.6, 10).interval == pytest.approx(wilson(6, 10))
    assert TaskScore(0.0, 10).interval[0] == 0 and TaskScore(1.0, 10).interval[1] == 1
    half = normal_quantile(0.975) * 0.5
    assert TaskScore(3.0, 10, 0.5).interval == pytest.approx((3 - half, 3 + half))


def test_the_docs_an_interval_stands_for() -> None:
    assert TaskScore(0.6, 10).docs == 10.0
    low, high = wilson(6, 10)
    assert TaskScore(0.6, 99, None, low, high).docs == pytest.approx(10)
    assert TaskScore(0.5, 99, None, 0.0, 1.0).docs == 1.0  # it says nothing
    assert TaskScore(0.5, 99, None, -0.5, 1.5).docs == 1.0
    wide = TaskScore(0.5, 99, None, -0.5, 0.9)  # what lies outside 0 to 1 counts for nothing
    assert wide.docs == pytest.approx(TaskScore(0.5, 99, None, 0.0, 0.9).docs)


def window(task: str = "t", **changes: Any) -> Window:
    """A window with a score of .5 of ten docs."""
    empty = dict.fromkeys(field.name for field in fields(Window))
    numbers = {"score": 0.5, "n": 10, "se": 0.1, "ci_low": 0.3, "ci_high": 0.7}
    counts = {"n_failed": 0, "n_open": 0, "higher_is_better": True}
    return Window(**empty | counts | {"task": task, "primary": True, "status": OK} | numbers | changes)


def test_the_primary_scores_with_an_interval_are_measured() -> None:
    rows = [
        window("a"),
        window("a", primary=False, score=0.9),
        window("b", status=NO_DATA),
        window("c", score=None),
        window("d", ci_low=None, ci_high=None),
        window("e", score=0.0, ci_low=0.0),
    ]
    assert measured_tasks(rows) == {
        "a": TaskScore(0.5, 10, 0.1, 0.3, 0.7),
        "e": TaskScore(0.0, 10, 0.1, 0.0, 0.7),
    }


def test_where_lower_is_better_who_fails_is_worst() -> None:
    """One answer and 49 failed docs are .98 of such a metric, and no .98 of an ability."""
    failing = window(score=0.98, n=1, n_failed=49, se=0.02, ci_low=0.895, ci_high=0.996)
    assert measured_tasks([failing])["t"].score == 0.98
    turned = measured_tasks([replace(failing, higher_is_better=False)])["t"]
    assert (turned.score, turned.interval) == (pytest.approx(0.02), pytest.approx((0.004, 0.105)))
    assert (turned.n, turned.error) == (50, 0.02)
    good = measured_tasks([window(score=0.1, ci_low=0.05, ci_high=0.2, higher_is_better=False)])["t"]
    assert good.score > turned.score


def test_docs_without_an_answer_stand_behind_a_score_too() -> None:
    row = window(status=PARTIAL, n_failed=2, n_open=3)
    one = measured_tasks([row])["t"]
    assert (one.n, one.partial) == (row.n + 5, True)
    assert not measured_tasks([window()])["t"].partial


@pytest.mark.parametrize(
    ("status", "out"), [("unsupported", True), ("refused", True), ("no_data", False), ("unreachable", False)]
)
def test_only_what_cannot_be_asked_is_left_out(status: str, out: bool) -> None:
    rows = [window(status=status, score=None, ci_low=None, ci_high=None)]
    assert (left_out(rows), measured_tasks(rows)) == ({"t"} if out else set(), {})


def test_a_bound_a_digit_past_its_score_is_put_right() -> None:
    odd = replace(window(), ci_low=math.nextafter(0.5, 1), ci_high=math.nextafter(0.5, 0))
    assert measured_tasks([odd])["t"].interval == (0.5, 0.5)
