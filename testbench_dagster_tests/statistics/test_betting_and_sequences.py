"""Betting intervals and confidence sequences: their definitions, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.intervals import betting_interval
from testbench_dagster.statistics.sequences import mean_bounds

ALPHA = 0.05
unit = st.floats(0, 1, allow_subnormal=False)
scores = st.lists(unit, max_size=40)


def monte_carlo(runs: int) -> float:
    """Three standard errors of a share of 5 % over so many runs."""
    return 3 * math.sqrt(0.05 * 0.95 / runs)


def coins(mean: float, shape: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    return (chance.random(shape) < mean).astype(float)


def spread_out(mean: float, shape: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """Scores over all of [0, 1]."""
    return chance.beta(3 * mean, 3 * (1 - mean), shape)


def differences(mean: float, shape: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """0, 0.5 or 1: the halved differences of two systems that differ on 30 % of the docs."""
    drawn = chance.random(shape)
    above = (0.3 + 2 * mean - 1) / 2
    return np.where(drawn < above, 1.0, np.where(drawn < 0.3, 0.0, 0.5))


KINDS = [
    (coins, 0.5),
    (coins, 0.9),
    (coins, 0.98),
    (spread_out, 0.3),
    (spread_out, 0.8),
    (differences, 0.5),
    (differences, 0.6),
]


# ------------------------------------------------------------------------------------------------- properties


@settings(max_examples=30, deadline=None)
@given(scores)
@example([1.0] * 40)
@example([0.0] * 40)
@example([])
def test_intervals_lie_in_the_unit_interval_and_mirror(values: list[float]) -> None:
    for interval in (betting_interval, mean_bounds):
        low, high = interval(values)
        assert 0 <= low < high <= 1
        mirrored = interval([1 - value for value in values])
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert betting_interval([]) == mean_bounds([]) == (0, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(unit, min_size=1, max_size=30), st.integers(1, 30), st.floats(0.01, 0.2))
def test_more_scores_only_narrow(values: list[float], cut: int, alpha: float) -> None:
    """To within the accuracy of the search for the bounds."""
    low, high = mean_bounds(values, alpha)
    early_low, early_high = mean_bounds(values[:cut], alpha)
    assert early_low <= low + 1e-9 and high <= early_high + 1e-9


@settings(max_examples=30, deadline=None)
@given(scores, st.floats(0.001, 0.2), st.floats(1.1, 4))
def test_more_confidence_widens(values: list[float], alpha: float, factor: float) -> None:
    low, high = mean_bounds(values, alpha)
    narrower_low, narrower_high = mean_bounds(values, alpha * factor)
    assert low <= narrower_low + 1e-12 and narrower_high <= high + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(unit, min_size=1, max_size=25), unit, unit)
def test_capital_falls_in_the_mean_it_is_bet_against(values: list[float], one: float, other: float) -> None:
    x = np.array(values)
    low, high = sorted((one, other))
    capitals = [betting.spread_capital(x, np.array([mean])) for mean in (low, high)]
    assert np.all(capitals[0] >= capitals[1] - 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30), st.integers(0, 30))
def test_a_bank_bounds_by_what_was_seen_and_is_known_once_seen(values: list[float], unseen: int) -> None:
    bank = len(values) + unseen
    low, high = mean_bounds(values, bank=bank)
    assert sum(values) / bank - 1e-9 <= low <= high <= (sum(values) + unseen) / bank + 1e-9
    if not unseen:
        assert low == pytest.approx(high, abs=1e-9)


@pytest.mark.parametrize("number", [0, 1, 12])
def test_many_samples_at_once_are_each_as_alone(number: int) -> None:
    x = np.random.default_rng(2).random((2, 3, number))
    ends = np.arange(number)[2::3] if number > 2 else np.arange(number)

    def bounds(scores: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            "fixed": betting.fixed_bounds(scores, ALPHA),
            **({"anytime": betting.anytime_bounds(scores, ALPHA)} if number else {}),
            **({"rounds": betting.round_bounds(scores, np.ones(number), ends, ALPHA)} if number else {}),
        }

    together = bounds(x)
    for i, j in np.ndindex(2, 3):
        for kind, (low, high) in bounds(x[i, j]).items():
            lows, highs = together[kind]
            assert lows.shape == highs.shape == (2, 3)
            assert (lows[i, j], highs[i, j]) == (low, high)


# --------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(("kind", "mean"), KINDS)
def test_betting_intervals_hold_the_mean(kind, mean: float) -> None:
    """As they are computed for one sample: many at once are the same numbers."""
    x = kind(mean, (2000, 75), np.random.default_rng(20260301))
    low, high = betting.fixed_bounds(x, ALPHA)
    assert (low[7], high[7]) == pytest.approx(betting_interval(x[7].tolist()), abs=1e-12)
    assert ((low <= mean) & (mean <= high)).mean() >= 0.95 - monte_carlo(2000)


@pytest.mark.parametrize(("kind", "mean"), KINDS)
def test_the_truth_is_ever_refuted_as_seldom_as_promised(kind, mean: float) -> None:
    """Looked at after each of 600 scores: the capital against the truth, which the bounds are made of."""
    x = kind(mean, (1000, 600), np.random.default_rng(7))
    errors = np.zeros(1000, dtype=bool)
    for seen, truth in ((x, mean), (1 - x, 1 - mean)):
        capital = betting.spread_capital(seen, np.full((1000, 1), truth))
        errors |= capital.max(axis=-1) >= betting.refuting(ALPHA)
    assert errors.mean() <= ALPHA + monte_carlo(1000)
    # the bounds say the same as the capital
    for sample, error in zip(x[:20], errors[:20], strict=True):
        low, high = mean_bounds(sample[:200].tolist())
        early = max(
            betting.spread_capital(v[:200], np.array([t])).max()
            for v, t in ((sample, mean), (1 - sample, 1 - mean))
        )
        assert (not low <= mean <= high) == (early >= betting.refuting(ALPHA))
        assert error or low <= mean <= high


def test_without_replacement_the_bank_is_held_and_less_is_needed() -> None:
    chance = np.random.default_rng(5)
    bank = coins(0.6, (1, 200), chance)[0]
    truth = bank.mean()
    x = np.stack([chance.permutation(bank)[:150] for _ in range(200)])
    low, high = betting.anytime_bounds(x, ALPHA, bank=200)
    assert (low[3], high[3]) == pytest.approx(mean_bounds(x[3].tolist(), bank=200), abs=1e-12)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.95 - monte_carlo(200)
    wider_low, wider_high = betting.anytime_bounds(x, ALPHA)
    assert ((high - low) / (wider_high - wider_low)).mean() < 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_bounds([0.5, 1.5]), r"between 0 and 1, got 1\.5"),
        (lambda: mean_bounds([math.nan]), "between 0 and 1, got nan"),
        (lambda: betting_interval([-0.1]), r"got -0\.1"),
        (lambda: betting_interval([0.1], 1.0), "confidence"),
        (lambda: mean_bounds([0.5], 0.0), "alpha must lie"),
        (lambda: mean_bounds([0.5], 1.0), "alpha must lie"),
        (lambda: mean_bounds([0.5, 0.5], bank=1), "bank must be at least the number of scores, 2; got 1"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
