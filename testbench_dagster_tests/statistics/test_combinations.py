"""Intervals of combinations: what they reduce to, and how often they hold the truth."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.statistics.combinations import (
    combined_error,
    docs_behind,
    mover,
    wilson_of_mean,
)
from testbench_dagster.statistics.intervals import two_sided_z, wilson

shares = st.floats(0, 1)


@given(st.integers(1, 5000), shares)
def test_docs_behind_finds_the_n_of_a_wilson_interval(n, part):
    successes = round(part * n)
    low, high = wilson(successes, n)
    share = successes / n
    found = docs_behind(share, min(low, share), max(high, share))
    assert found == pytest.approx(n, rel=1e-6)


def test_docs_behind_refuses_what_is_no_interval_and_bears_one_without_width():
    assert docs_behind(0.5, 0.5, 0.5) == 1e12
    for share, low, high in ((0.5, 0.6, 0.8), (0.5, 0.0, 1.0), (1.2, 0.5, 1.3)):
        with pytest.raises(ValueError, match="want 0 <= low"):
            docs_behind(share, low, high)


def test_docs_behind_an_interval_of_nearly_everything_are_right_to_the_last_digits():
    """The quadratic equation of the docstring solved with 50 digits; its terms nearly cancel here."""
    share, width = 0.125, 1 - 2.0**-26  # its square, too, is a float without rounding
    with localcontext() as context:
        context.prec = 50
        z, squared = Decimal(two_sided_z(0.95)), Decimal(width) ** 2
        a, c = z * z * (squared - 1) / 4, squared / (4 * z * z)
        b = squared / 2 - Decimal(share) * (1 - Decimal(share))
        exact = 2 * a / (-b - (b * b - 4 * a * c).sqrt())
    assert docs_behind(share, 0.0, width) == pytest.approx(float(exact), rel=1e-12, abs=0)


@given(st.integers(1, 200), shares, st.integers(1, 12))
def test_equal_parts_are_one_share_of_all_their_docs(n, part, count):
    share = round(part * n) / n
    low, high = wilson_of_mean([1 / count] * count, [share] * count, [float(n)] * count)
    exact = wilson(share * n * count, n * count)
    if count == 1:
        assert (low, high) == wilson(share * n, n)
    assert (low, high) == pytest.approx(exact, abs=1e-9)


def test_combinations_refuse_what_is_none():
    for weights, parts, docs in (([], [], []), ([-1.0], [0.5], [9.0]), ([1.0], [1.5], [9.0])):
        with pytest.raises(ValueError, match="at least one share"):
            wilson_of_mean(weights, parts, docs)
    with pytest.raises(ValueError, match="zip"):
        wilson_of_mean([0.5, 0.5], [0.5], [9.0])
    with pytest.raises(ValueError, match="at least one part"):
        mover([], [], [], [])
    with pytest.raises(ValueError, match="must lie between"):
        mover([1.0], [0.5], [0.6], [0.7])


def test_mover_is_newcombes_interval_of_a_difference():
    """Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339."""
    first, second = wilson(56, 70), wilson(48, 80)
    low, high = mover([1, -1], [56 / 70, 48 / 80], [first[0], second[0]], [first[1], second[1]])
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_errors_add_in_squares():
    assert combined_error([0.6, 0.8], [1.0, 1.0]) == pytest.approx(1.0)


def coverage(generator, truths, sizes, weights, rounds=1000):
    weights = np.asarray(weights, dtype=float) / np.sum(weights)
    truth = math.fsum(w * p for w, p in zip(weights, truths, strict=True))
    seen = 0
    for counts in generator.binomial(sizes, truths, (rounds, len(truths))):
        low, high = wilson_of_mean(list(weights), list(counts / sizes), list(map(float, sizes)))
        seen += low - 1e-12 <= truth <= high + 1e-12
    return seen / rounds


def test_coverage_of_random_combinations():
    """Shares from .05 to .95, 2 to 19 tasks of 10 to 100 docs, weights drawn too."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(60):
        k = generator.integers(2, 20)
        sizes = generator.integers(10, 101, k)
        found.append(
            coverage(generator, generator.uniform(0.05, 0.95, k), sizes, generator.dirichlet(np.ones(k)), 300)
        )
    assert 0.935 <= np.mean(found) <= 0.965
    assert min(found) >= 0.87


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 5, 20])
def test_coverage_at_the_corners(share, count):
    """Where the normal interval, and distances added up, cover 0 to 85 %."""
    generator = np.random.default_rng(11)
    for sizes in (10, 50):
        for weights in (np.ones(count), np.arange(1, count + 1) ** 2):
            found = coverage(generator, [share] * count, np.full(count, sizes), weights, 600)
            assert found >= 0.87, (sizes, weights)
