"""Wilson's interval against the equation that defines it, and its general properties."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from testbench_dagster.statistics.intervals import normal_quantile, two_sided_z, wilson

confidences = st.sampled_from((0.5, 0.8, 0.9, 0.95, 0.99, 0.999))


@st.composite
def trials(draw):
    n = draw(st.integers(1, 5000))
    return draw(st.one_of(st.integers(0, n), st.floats(0, n))), n


def exact_bounds(successes, n, z):
    """Roots of (share - p)^2 = z^2 p (1 - p) / n in rational arithmetic, the square root to 60 digits."""
    share, square = Fraction(successes) / n, Fraction(z) ** 2
    a, b, c = 1 + square / n, -(2 * share + square / n), share**2
    discriminant = b * b - 4 * a * c
    scale = 10**60
    root = Fraction(math.isqrt(discriminant.numerator * scale**2 // discriminant.denominator), scale)
    return float((-b - root) / (2 * a)), float((-b + root) / (2 * a))


@given(trials(), confidences)
@example((0, 10), 0.95)
@example((10, 10), 0.95)
@example((1, 1), 0.999)
def test_equals_the_exact_roots(trial, confidence):
    successes, n = trial
    low, high = wilson(successes, n, confidence)
    exact_low, exact_high = exact_bounds(successes, n, two_sided_z(confidence))
    assert low == pytest.approx(exact_low, abs=1e-12)
    assert high == pytest.approx(exact_high, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(1, 3), (7, 10), (50, 75), (999, 1000)])
def test_solves_the_score_equation_numerically(successes, n):
    share, z = successes / n, norm.ppf(0.975)

    def score(p):
        return abs(share - p) - z * math.sqrt(p * (1 - p) / n)

    low, high = wilson(successes, n)
    assert low == pytest.approx(brentq(score, 1e-12, share, xtol=1e-15), abs=1e-12)
    assert high == pytest.approx(brentq(score, share, 1 - 1e-12, xtol=1e-15), abs=1e-12)


def test_known_value():
    # R: prop.test(81, 263, correct = FALSE), the worked example of Newcombe (1998), rounded there to 4 digits
    assert [round(bound, 4) for bound in wilson(81, 263)] == [0.2553, 0.3662]


@given(trials(), confidences)
def test_stays_in_the_unit_interval_and_holds_the_share(trial, confidence):
    successes, n = trial
    low, high = wilson(successes, n, confidence)
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= successes / n <= high + 1e-12


@given(st.integers(1, 500), st.integers(0, 500), st.integers(2, 20), confidences)
def test_more_trials_of_the_same_share_narrow_it(n, successes, factor, confidence):
    assume(successes <= n)
    low, high = wilson(successes, n, confidence)
    closer_low, closer_high = wilson(successes * factor, n * factor, confidence)
    assert closer_high - closer_low < high - low


@given(trials())
def test_more_confidence_widens_it_and_failures_mirror_it(trial):
    successes, n = trial
    low, high = wilson(successes, n, 0.9)
    wider_low, wider_high = wilson(successes, n, 0.99)
    assert wider_low <= low <= high <= wider_high
    mirrored_low, mirrored_high = wilson(n - successes, n, 0.9)
    assert mirrored_low == pytest.approx(1 - high, abs=1e-12)
    assert mirrored_high == pytest.approx(1 - low, abs=1e-12)


def test_no_trials_tell_nothing():
    assert all(math.isnan(bound) for bound in wilson(0, 0))


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (0, -1), (math.nan, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"want 0|confidence"):
        wilson(*arguments)


@given(st.floats(1e-12, 1 - 1e-12))
def test_quantile_agrees_with_scipy(probability):
    assert normal_quantile(probability) == pytest.approx(norm.ppf(probability), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 2.0])
def test_quantile_refuses_the_ends(probability):
    with pytest.raises(ValueError, match="between 0 and 1"):
        normal_quantile(probability)
