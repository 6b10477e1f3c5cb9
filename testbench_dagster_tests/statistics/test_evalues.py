"""E-values for rates of agreement: their value by hand, their error at any time, and how fast they decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.identity import IdentitySettings
from testbench_dagster.statistics.evalues import (
    gain_of_agreement,
    log_e_at_least,
    log_e_at_most,
    log_mean_exp,
)

SETTINGS = IdentitySettings()


def test_values_by_hand() -> None:
    # q0 = .75, q1 = .95: (.95 / .75)^3 (.05 / .25)^1
    assert log_e_at_most(3, 1, 0.75, [0.8]) == pytest.approx(3 * math.log(0.95 / 0.75) + math.log(0.2))
    # q1 = .95 against .475: .5^1 (.525 / .05)^2
    assert log_e_at_least(1, 2, 0.95, [0.5]) == pytest.approx(math.log(0.5) + 2 * math.log(0.525 / 0.05))
    both = log_e_at_most(3, 1, 0.75, [0.8, 0.4])
    parts = [log_e_at_most(3, 1, 0.75, [k]) for k in (0.8, 0.4)]
    assert both == pytest.approx(math.log(sum(map(math.exp, map(float, parts))) / 2))
    assert log_mean_exp([-2000.0, -2000.0]) == pytest.approx(-2000.0)
    assert log_mean_exp([-math.inf, -math.inf]) == -math.inf


def test_an_agreement_that_proves_nothing_weighs_nothing() -> None:
    assert gain_of_agreement(1.0, 0.8) == 0
    gains = gain_of_agreement(np.array([0.75, 0.9, 0.99]), 0.8)
    assert (np.diff(gains) < 0).all() and (gains > 0).all()


@given(st.floats(0.05, 0.95), st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4))
def test_the_mean_of_one_factor_is_one_at_the_null(rate: float, grid: list[float]) -> None:
    for e, null in ((log_e_at_most, rate), (log_e_at_least, rate)):
        mean = rate * math.exp(e(1, 0, null, grid)) + (1 - rate) * math.exp(e(0, 1, null, grid))
        assert mean == pytest.approx(1)


@pytest.mark.parametrize(("name", "arguments"), [("null", (1.0, [0.5])), ("shares", (0.5, [0.0]))])
def test_values_out_of_range_are_refused(name: str, arguments: tuple[float, list[float]]) -> None:
    with pytest.raises(ValueError, match=name):
        log_e_at_most(1, 1, *arguments)


def crossings(rate: float, prompts: int, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    agree = (np.random.default_rng(seed).random((runs, prompts)) < rate).cumsum(axis=1)
    return agree, np.arange(1, prompts + 1) - agree


@pytest.mark.parametrize("alpha", [0.1, 0.02])
def test_a_true_null_is_ever_rejected_at_the_stated_rate(alpha: float) -> None:
    """At the boundary of the null, looking after each of 600 prompts."""
    runs = 4000
    agree, differ = crossings(0.75, 600, runs, seed=3)
    merged = (
        (log_e_at_most(agree, differ, 0.75, SETTINGS.merge_shares) >= -math.log(alpha)).any(axis=1).mean()
    )
    agree, differ = crossings(0.95, 600, runs, seed=4)
    split = (
        (log_e_at_least(agree, differ, 0.95, SETTINGS.split_ratios) >= -math.log(alpha)).any(axis=1).mean()
    )
    noise = 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert 0 < merged <= alpha + noise  # some rejections, so the test tests something
    assert 0 < split <= alpha + noise


def test_prompts_to_merge_are_those_measured_before() -> None:
    """At 14.8 nats 71, 94 and 235 at agreement .98, .95 and .90 (median), reference/statistics.md 2.1.

    A disagreement takes 7 agreements to make up for, so medians move in lumps of 8. The average over
    alternatives costs a few prompts at .95 and wins them at .99 and .90.
    """
    medians = {}
    for shares in ((0.8,), SETTINGS.merge_shares):
        for rate in (0.99, 0.98, 0.95, 0.9):
            agree, differ = crossings(rate, 900, 1500, seed=5)
            reached = log_e_at_most(agree, differ, 0.75, shares) >= 14.8
            first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 901)
            medians[shares, rate] = float(np.median(first))
    single = {rate: medians[(0.8,), rate] for rate in (0.98, 0.95, 0.9)}
    measured = {0.98: 71, 0.95: 94, 0.9: 235}
    assert single == {rate: pytest.approx(median, abs=8) for rate, median in measured.items()}
    grid = {rate: medians[SETTINGS.merge_shares, rate] for rate in (0.99, 0.98, 0.95, 0.9)}
    assert grid[0.99] < medians[(0.8,), 0.99]
    assert grid[0.95] <= 115
    assert grid[0.9] < single[0.9]
