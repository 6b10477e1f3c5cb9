"""Slopes between pairs: against scipy, simulated coverage, and what does not move them."""

from itertools import combinations, permutations
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import theilslopes

from testbench_dagster.statistics.slopes import _kendall_variance, theil_sen

points = st.lists(st.tuples(st.integers(1, 400).map(float), st.floats(1, 1e5)), min_size=0, max_size=40)


def noisy(rng: np.random.Generator, n: int, slope: float, start: float) -> list[tuple[float, float]]:
    x = rng.integers(13, 400, n).astype(float)
    y = start + slope * x * rng.lognormal(0.0, 0.1, n) + rng.exponential(8.0, n)
    return list(zip(x.tolist(), y.tolist(), strict=True))


@given(points)
def test_of_one_group_it_is_the_median_and_scipys(sample: list[tuple[float, float]]) -> None:
    found = theil_sen([sample])
    if found is None:
        return
    slopes = [(d - b) / (c - a) for (a, b), (c, d) in combinations(sample, 2) if a != c]
    assert found.value == pytest.approx(median(slopes), rel=1e-9, abs=1e-9)
    assert found.low <= found.value <= found.high
    assert found.n == len(sample)
    x, y = zip(*sample, strict=True)
    if len(set(x)) == len(set(y)) == len(sample):  # of many ties theirs is a root of what is negative
        theirs = theilslopes(y, x, alpha=0.95)
        # their ends are rounded to the nearest rank, ours outwards
        assert found.low <= theirs.low_slope + 1e-9
        assert found.high >= theirs.high_slope - 1e-9


@pytest.mark.parametrize("x", [[1, 2, 3, 4, 5], [1, 1, 2, 3, 3], [1, 1, 1, 2, 2], [1, 1, 1, 1, 2]])
@pytest.mark.parametrize("y", [[1, 2, 3, 4, 5], [1, 1, 2, 2, 3], [1, 1, 1, 2, 2]])
def test_the_variance_without_a_trend_is_that_over_all_orders(x: list[int], y: list[int]) -> None:
    def s(other: tuple[int, ...]) -> int:
        pairs = combinations(zip(x, other, strict=True), 2)
        return sum(int(np.sign(c - a) * np.sign(d - b)) for (a, b), (c, d) in pairs)

    wanted = np.mean([s(order) ** 2 for order in permutations(y)])
    assert _kendall_variance(x, y) == pytest.approx(wanted)


def test_it_takes_six_points_of_different_length() -> None:
    rising = [(float(x), 2.0 * x) for x in range(1, 7)]
    assert theil_sen([rising[:5]]) is None
    assert theil_sen([rising]) == (2.0, 2.0, 2.0, 6)
    assert theil_sen([[(7.0, y) for _, y in rising]]) is None, "of one length alone nothing is told"
    assert theil_sen([]) is None
    assert theil_sen([[], [(1.0, 1.0)]]) is None


def test_groups_that_start_elsewhere_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(3)
    short = noisy(rng, 30, 0.35, 5.0)
    # longer answers behind a prompt that takes a second: pairs across would say 3 ms more a token
    long = [(x + 400, y + 400 * 0.35 + 1_000) for x, y in noisy(rng, 30, 0.35, 5.0)]
    apart, mixed = theil_sen([short, long]), theil_sen([[*short, *long]])
    assert apart is not None
    assert mixed is not None
    assert apart.low < 0.36 < apart.high
    assert mixed.low > 0.5


def test_a_quarter_of_outliers_does_not_move_it_far() -> None:
    rng = np.random.default_rng(4)
    sample = noisy(rng, 60, 0.35, 5.0)
    spoilt = [(x, y + 60_000 if i % 4 == 0 else y) for i, (x, y) in enumerate(sample)]
    found = theil_sen([spoilt])
    assert found is not None
    assert found.value == pytest.approx(0.35, rel=0.35)


@pytest.mark.parametrize("groups", [1, 3])
def test_coverage(groups: int) -> None:
    rng = np.random.default_rng(20_261_130)
    held = []
    for _ in range(400):
        made = []
        for g in range(groups):
            x = rng.integers(13, 400, 60 // groups).astype(float)
            y = 40.0 * g + 0.35 * x + rng.exponential(8.0, len(x))
            made.append(list(zip(x.tolist(), y.tolist(), strict=True)))
        found = theil_sen(made)
        assert found is not None
        held.append(found.low <= 0.35 <= found.high)
    assert np.mean(held) >= 0.93


def test_a_confidence_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        theil_sen([[(1.0, 1.0), (2.0, 2.0)]], 1.0)
