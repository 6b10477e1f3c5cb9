"""Scores of groups: what a lacking task takes away, how tasks weigh, how often intervals hold the truth."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import pytest

from testbench_dagster.core.task_group import GroupMetric, TaskGroup
from testbench_dagster.core.window import NO_DATA, OK, PARTIAL, UNSUPPORTED, Window
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster.statistics.intervals import wilson


def window(task: str, right: int, n: int, **changes: Any) -> Window:
    """The row of a task with so many right answers."""
    low, high = wilson(right, n)
    share = right / n
    values = {
        "supplier": "a@x",
        "task": task,
        "task_hash": "h",
        "framework": "lm_eval",
        "metric": "acc",
        "filter": "none",
        "primary": True,
        "status": OK,
        "n": n,
        "n_planned": n,
        "score": share,
        "score_answered": share,
        "ci_low": min(low, share),
        "ci_high": max(high, share),
        "se": (share * (1 - share) / n) ** 0.5,
        "errors": {},
        "tokens": {},
        "higher_is_better": True,
        **dict.fromkeys(
            ("n_failed", "n_open", "n_void", "n_late", "n_released", "n_unmetered", "truncated"), 0
        ),
    }
    return Window(**{**{f.name: None for f in fields(Window)}, **values, **changes})


def group_of(*tasks: str, by_size: bool = True) -> TaskGroup:
    return TaskGroup("g", "g", tasks, (GroupMetric("acc", weight_by_size=by_size),))


def unknown(task: str, status: str = NO_DATA) -> Window:
    lacking = dict.fromkeys(("score", "score_answered", "ci_low", "ci_high", "se"))
    return replace(window(task, 0, 1), status=status, n=0, **lacking)


def test_a_lacking_task_is_named_and_takes_the_score_away() -> None:
    (row,) = group_windows([group_of("t", "u", "v")], [
        window("t", 3, 4), unknown("u"), unknown("v", UNSUPPORTED),
    ])  # fmt: skip
    assert row.missing == {"u": NO_DATA, "v": UNSUPPORTED}
    assert (row.status, row.score, row.ci_low, row.ci_high, row.se) == (UNSUPPORTED, None, None, None, None)
    assert row.to_json()["missing"] == {"u": NO_DATA, "v": UNSUPPORTED}
    unprepared = replace(unknown("u"), task_hash=None, metric=None, filter=None)
    (row,) = group_windows([group_of("t", "u")], [window("t", 3, 4), unprepared])
    assert (row.missing, row.status, row.score) == ({"u": NO_DATA}, NO_DATA, None)
    (row,) = group_windows([group_of("t", "u")], [window("t", 3, 4), window("u", 0, 2)])
    assert (row.missing, row.status, row.score) == (None, OK, 3 / 6)


def test_a_task_without_the_metric_is_no_part_of_it_as_in_lm_eval() -> None:
    rows = [window("t", 3, 4), window("u", 9, 10, metric="f1")]
    (row,) = group_windows([group_of("t", "u")], rows)
    assert (row.score, row.missing) == (3 / 4, None)


@pytest.mark.parametrize("by_size", [True, False])
def test_the_error_is_that_of_a_stratified_mean(by_size: bool) -> None:
    rows = [window("t", 30, 40), window("u", 5, 100)]
    (row,) = group_windows([group_of("t", "u", by_size=by_size)], rows)
    weights = (40 / 140, 100 / 140) if by_size else (0.5, 0.5)
    assert row.score == pytest.approx(weights[0] * 0.75 + weights[1] * 0.05)
    assert row.se == pytest.approx(sum((w * r.se) ** 2 for w, r in zip(weights, rows, strict=True)) ** 0.5)


def test_open_docs_reach_to_both_ends() -> None:
    """Of a task with open docs the interval is lopsided: the group's is too, and holds both outcomes."""
    closed = window("t", 30, 40)
    open_ = replace(closed, task="u", status=PARTIAL, ci_low=0.4, ci_high=0.95, n=30, n_open=10)
    (row,) = group_windows([group_of("t", "u")], [closed, open_])
    assert row.status == PARTIAL and row.score == 0.75
    assert row.ci_low == pytest.approx(0.75 - (((0.75 - closed.ci_low) / 2) ** 2 + (0.35 / 2) ** 2) ** 0.5)
    assert row.ci_high == pytest.approx(0.75 + (((closed.ci_high - 0.75) / 2) ** 2 + (0.2 / 2) ** 2) ** 0.5)


#: True shares and docs of a group's tasks: alike, as uneven as MMLU's subjects, easy, hard, mixed, many.
GROUPS = {
    "alike": [(0.6, 50)] * 4,
    "uneven": [(0.8, 100), (0.3, 12), (0.55, 31), (0.7, 300), (0.25, 20)],
    "easy": [(0.97, 40), (0.99, 25), (0.95, 60)],
    "hard": [(0.03, 40), (0.01, 100), (0.06, 25)],
    "opposites": [(0.98, 30), (0.04, 30), (0.5, 30)],
    "many": [(0.2 + 0.03 * i, 8 + i) for i in range(20)],
}
_DRAWS = 500


@pytest.mark.parametrize("by_size", [True, False], ids=["by size", "alike"])
def test_intervals_hold_the_true_score_as_often_as_they_say(by_size: bool) -> None:
    """500 draws of each: 95 % over all groups, and in no group less than four standard errors below that.

    The seed is committed, so the numbers are the same everywhere; what is true is the score that endless docs
    would give at the same weights.
    """
    draws = random.Random("groups of tasks")
    covered = {}
    for name, tasks in GROUPS.items():
        names = [f"t{i}" for i in range(len(tasks))]
        group = group_of(*names, by_size=by_size)
        sizes = [n if by_size else 1 for _, n in tasks]
        truth = sum(p * w for (p, _), w in zip(tasks, sizes, strict=True)) / sum(sizes)
        held = 0
        for _ in range(_DRAWS):
            rows = [
                window(task, sum(draws.random() < p for _ in range(n)), n)
                for task, (p, n) in zip(names, tasks, strict=True)
            ]
            (row,) = group_windows([group], rows)
            assert row.ci_low is not None and row.ci_high is not None
            held += row.ci_low <= truth <= row.ci_high
        covered[name] = held / _DRAWS
    assert all(share >= 0.95 - 4 * (0.95 * 0.05 / _DRAWS) ** 0.5 for share in covered.values()), covered
    assert 0.94 <= sum(covered.values()) / len(covered) <= 0.985, covered
