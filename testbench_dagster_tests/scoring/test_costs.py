"""What windows and groups cost: by tokens and price, unknown where either is, and by what is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbench_dagster.core.price import Price
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.costs import with_cost
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster_tests.scoring.test_groups import group_of, unknown, window

PRICE = Price(prompt=2.0, completion=10.0)


def metered(task: str, right: int, n: int, **changes: Any) -> Window:
    """A window of docs with 1,000 prompt tokens and 50 completion tokens each."""
    tokens = {"prompt": 1000 * n, "completion": 50 * n}
    return window(task, right, n, **{"tokens": tokens, **changes})


def test_a_window_costs_its_tokens_and_the_wrong_answers_are_paid_too() -> None:
    row = with_cost(metered("t", 3, 4), PRICE)
    assert row.cost == pytest.approx(4 * (1000 * 2 + 50 * 10) / 1e6)
    assert row.cost_per_1000_right == pytest.approx(row.cost / 3 * 1000)
    assert replace(row, cost=None, cost_per_1000_right=None) == metered("t", 3, 4), "nothing else changes"


def test_failed_docs_are_neither_right_nor_paid() -> None:
    """They lower the score, and their attempts are no part of the window's tokens."""
    row = with_cost(metered("t", 3, 4, n_failed=4, score=3 / 8, score_answered=3 / 4), PRICE)
    assert row.cost_per_1000_right == pytest.approx(row.cost / 3 * 1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_unmetered": 1},
        {"tokens": {"prompt": None, "completion": 50}},
        {"tokens": {"prompt": 50, "completion": None}},
    ],
)
def test_what_is_not_counted_has_no_cost(changes: dict[str, Any]) -> None:
    row = with_cost(metered("t", 3, 4, **changes), PRICE)
    assert (row.cost, row.cost_per_1000_right) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"score_answered": 0.0, "score": 0.0},
        {"ci_low": None, "ci_high": None},  # no mean of values from 0 to 1
        {"higher_is_better": False},
        {"score_answered": None},
    ],
)
def test_where_nothing_is_right_nothing_right_has_a_cost(changes: dict[str, Any]) -> None:
    row = with_cost(metered("t", 3, 4, **changes), PRICE)
    assert row.cost is not None and row.cost_per_1000_right is None


def test_what_is_free_costs_nothing_and_that_is_known() -> None:
    row = with_cost(metered("t", 3, 4), Price(0, 0))
    assert (row.cost, row.cost_per_1000_right) == (0, 0)


def test_a_group_costs_what_its_tasks_do() -> None:
    rows = [with_cost(row, PRICE) for row in (metered("t", 3, 4), metered("u", 1, 6))]
    (group,) = group_windows([group_of("t", "u")], rows)
    assert group.cost == pytest.approx(sum(row.cost or 0 for row in rows))
    assert group.cost_per_1000_right == pytest.approx(group.cost / 4 * 1000)
    assert group.n_unmetered == 0


@pytest.mark.parametrize("other", [metered("u", 1, 6, n_unmetered=2), unknown("u")])
def test_a_group_of_which_a_task_has_no_cost_has_none(other: Window) -> None:
    (group,) = group_windows([group_of("t", "u")], [with_cost(metered("t", 3, 4), PRICE), other])
    assert (group.cost, group.cost_per_1000_right) == (None, None)
    assert group.n_unmetered == other.n_unmetered


def test_a_group_with_a_task_of_which_nothing_counts_as_right_has_a_cost_alone() -> None:
    rows = [metered("t", 3, 4), metered("u", 1, 6, ci_low=None, ci_high=None)]
    (group,) = group_windows([group_of("t", "u")], [with_cost(row, PRICE) for row in rows])
    assert group.cost is not None and group.cost_per_1000_right is None
