"""Quantiles with order-statistic intervals: against scipy's binomial, simulated coverage, and properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from testbench_dagster.statistics.quantiles import least_n, nearest_rank, quantile, rank_interval

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95, 0.99)
values = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=400)
quantiles = st.sampled_from(QUANTILES)


def test_the_least_numbers_follow_from_the_confidence() -> None:
    assert {q: least_n(q) for q in QUANTILES} == {0.05: 59, 0.1: 29, 0.5: 6, 0.9: 29, 0.95: 59, 0.99: 299}
    assert least_n(0.5, 0.99) == 8
    for q in QUANTILES:
        for n in (least_n(q) - 1, least_n(q)):
            bounded = 1 - q**n - (1 - q) ** n >= 0.95
            assert (rank_interval(n, q) is not None) is bounded


@pytest.mark.parametrize("q", QUANTILES)
@pytest.mark.parametrize("n", [6, 7, 24, 29, 60, 61, 240, 299, 300, 2_000])
def test_ranks_hold_the_quantile_as_surely_as_they_say_and_no_nearer_ones_do(n: int, q: float) -> None:
    ranks = rank_interval(n, q)
    if n < least_n(q):
        assert ranks is None
        return
    assert ranks is not None
    low, high = ranks
    below = binom.cdf(np.arange(-1, n + 1), n, q)  # below[k + 1]: at most k

    def sure(first: int, last: int) -> float:
        return float(below[last] - below[first])

    assert sure(low, high) >= 0.95 - 1e-9
    width = high - low - 1
    assert all(sure(first, first + width) < 0.95 for first in range(1, n - width + 1)) or width == 0
    assert low <= nearest_rank(n, q) <= high


@pytest.mark.parametrize("n", [24, 60, 240])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.95])
def test_coverage_of_times_as_services_have_them(n: int, q: float) -> None:
    """Log-normal with a sigma of .35: 93 to 97 % of the intervals hold the quantile."""
    if n < least_n(q):
        assert quantile(sorted(map(float, range(n))), q) is None
        return
    rng = np.random.default_rng(20_261_130)
    samples = np.sort(rng.lognormal(6.0, 0.35, size=(8_000, n)), axis=1)
    truth = math.exp(6.0 + 0.35 * math.sqrt(2) * _erfinv(2 * q - 1))
    low, high = rank_interval(n, q) or (0, 0)
    held = (samples[:, low - 1] <= truth) & (truth <= samples[:, high - 1])
    assert 0.93 <= held.mean() <= 0.97
    first = quantile(samples[0].tolist(), q)
    assert first == (samples[0, nearest_rank(n, q) - 1], samples[0, low - 1], samples[0, high - 1])


def _erfinv(x: float) -> float:
    from scipy.special import erfinv

    return float(erfinv(x))


@pytest.mark.parametrize(("n", "reach"), [(24, 0.17), (240, 0.06)])
def test_how_wide_a_median_is(n: int, reach: float) -> None:
    rng = np.random.default_rng(7)
    samples = np.sort(rng.lognormal(0.0, 0.35, size=(4_000, n)), axis=1)
    low, high = rank_interval(n, 0.5) or (0, 0)
    half = float(np.median(np.log(samples[:, high - 1] / samples[:, low - 1]))) / 2
    assert half == pytest.approx(reach, abs=0.03)


@given(values, quantiles)
def test_a_quantile_is_one_of_the_values_inside_its_interval(sample: list[float], q: float) -> None:
    ordered = sorted(sample)
    found = quantile(ordered, q)
    assert (found is None) is (len(ordered) < least_n(q))
    if found is not None:
        assert found.low <= found.value <= found.high
        assert {found.value, found.low, found.high} <= set(ordered)
        assert sum(v <= found.value for v in ordered) >= q * len(ordered) - 1e-6
        assert sum(v < found.value for v in ordered) < q * len(ordered) + 1e-6


@given(values, quantiles)
def test_it_moves_with_the_scale_it_is_measured_on(sample: list[float], q: float) -> None:
    ordered = sorted(sample)
    found, doubled = quantile(ordered, q), quantile([2 * v for v in ordered], q)
    assert doubled == (None if found is None else tuple(2 * v for v in found))


@given(st.integers(1, 10_000), st.integers(1, 99))
def test_the_nearest_rank_is_exact_in_whole_numbers(n: int, hundredths: int) -> None:
    assert nearest_rank(n, hundredths / 100) == max(1, -(-n * hundredths // 100))


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 50.0, math.nan])
def test_what_is_no_quantile_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1.0] * 10, q)
    with pytest.raises(ValueError, match="between 0 and 1"):
        least_n(q)


def test_what_is_no_number_or_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        nearest_rank(0, 0.5)
    with pytest.raises(ValueError, match="confidence"):
        least_n(0.5, 1.0)
    assert quantile([], 0.5) is None
