"""Expectations from first values: the line by hand, groups shrunk as far as chance goes, honest errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.statistics.predictions import LEAST, predict


def groups_of(n: int, groups: int = 1) -> np.ndarray:
    return np.arange(n) % groups


@given(st.integers(0, 2**32 - 1), st.integers(LEAST, 60))
def test_the_line_is_that_of_least_squares(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.random(n), rng.random(n)
    line = predict(y, x, groups_of(n), 1)
    assert line is not None
    slope, level = np.polyfit(x, y, 1)
    at, error = line.at(np.array([0.0, 0.5, 1.0]), np.zeros(3, int))
    assert at == pytest.approx(level + slope * np.array([0.0, 0.5, 1.0]))
    rest = y - level - slope * x
    variance = (rest @ rest - n * rest.mean() ** 2 + 0.25) / (n - 1)
    away = np.array([0.0, 0.5, 1.0]) - x.mean()
    spread = ((x - x.mean()) ** 2).sum()
    assert error == pytest.approx(np.sqrt(variance * (1 / n + away**2 / spread)))


def test_a_covariate_that_never_changes_says_nothing() -> None:
    y = np.tile([0.0, 1.0], 10)
    line = predict(y, np.full(20, 0.3), groups_of(20), 1)
    assert line is not None
    at, error = line.at(np.array([0.0, 0.3, 1.0]), np.zeros(3, int))
    assert at == pytest.approx([0.5] * 3)
    assert error == pytest.approx([np.sqrt((5 + 0.25) / 19 / 20)] * 3)


def test_values_that_are_all_the_same_are_not_sure_to_stay_so() -> None:
    line = predict(np.ones(25), np.zeros(25), groups_of(25), 1)
    assert line is not None
    at, error = line.at(np.zeros(1), np.zeros(1, int))
    assert at[0] == 1.0 and error[0] > 0.02


def test_groups_that_differ_by_chance_are_taken_as_alike() -> None:
    """And those that differ for sure as they are."""
    rng = np.random.default_rng(2)
    groups = groups_of(700, 14)
    coins = (rng.random(700) < 0.6).astype(float)
    line = predict(coins, np.zeros(700), groups, 14)
    assert line is not None
    means = np.bincount(groups, coins) / 50 - coins.mean()
    assert np.abs(line.effects).max() < 0.5 * np.abs(means).max()
    apart = np.where(groups < 7, 0.9, 0.1)
    line = predict(apart, np.zeros(700), groups, 14)
    assert line is not None
    at, _ = line.at(np.zeros(2), np.array([0, 13]))
    assert at == pytest.approx([0.9, 0.1], abs=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_errors_say_how_far_off_the_mean_of_later_values_is(spread: float) -> None:
    """99 % of the expectations lie 2.33 errors below the mean of what follows, or lower."""
    rng = np.random.default_rng(3)
    too_high, plays = 0, 400
    for _ in range(plays):
        effects = rng.normal(0, spread, 14)
        groups = groups_of(700, 14)
        x = rng.random(700)
        share = np.clip(0.3 + 0.4 * x + effects[groups], 0, 1)
        y = (rng.random(700) < share).astype(float)
        line = predict(y, x, groups, 14)
        assert line is not None
        at, error = line.at(x, groups)
        too_high += np.mean(at - 2.33 * error) > share.mean()
    print(spread, too_high / plays)
    assert too_high / plays <= 0.02


def test_what_is_unknown_is_not_guessed() -> None:
    assert predict(np.ones(LEAST - 1), np.zeros(LEAST - 1), groups_of(LEAST - 1), 1) is None
    groups = np.array([0] * 20 + [1] * (LEAST - 1))
    line = predict(np.tile([0.0, 1.0], 20)[: len(groups)], np.zeros(len(groups)), groups, 3)
    assert line is not None
    at, error = line.at(np.zeros(3), np.arange(3))
    assert np.isfinite(at).tolist() == np.isfinite(error).tolist() == [True, False, False]
