"""Paired differences, McNemar's test against statsmodels, and how far the forecast of docs holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as peer

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.intervals import betting_interval
from testbench_dagster.statistics.paired import (
    docs_to_decide,
    half_differences,
    mcnemar,
    paired_difference,
    verdict,
)
from testbench_dagster.statistics.sequences import mean_bounds

counts = st.integers(0, 400)
unit = st.floats(0, 1, allow_subnormal=False)
pairs = st.lists(st.tuples(unit, unit), min_size=1, max_size=30)


def test_no_docs_are_needed_where_bounds_crossed_for_more_do_not_mend_that() -> None:
    halves = [1.0] * 60 + [0.0] * 120
    low, high = mean_bounds(halves)
    assert low > high
    assert docs_to_decide(halves) is None


@settings(max_examples=30, deadline=None)
@given(counts, counts)
def test_mcnemar_equals_statsmodels_and_mid_p_its_definition(b: int, c: int) -> None:
    found = mcnemar(b, c)
    if b + c:
        assert found.exact == pytest.approx(peer([[5, b], [c, 5]], exact=True).pvalue, rel=1e-9)
    else:
        assert found.exact == 1
    point = math.comb(b + c, b) / 2 ** (b + c)
    assert found.mid == pytest.approx(1.0 if b == c else found.exact - point, rel=1e-9, abs=1e-15)
    assert 0 <= found.mid <= found.exact <= 1
    assert mcnemar(c, b) == found


def test_mcnemar_knows_published_values() -> None:
    # Fagerland, Lydersen and Laake 2013, table 3: 1 against 7 discordant pairs, exact 0.070, mid-p 0.039
    found = mcnemar(1, 7)
    assert (round(found.exact, 3), round(found.mid, 3)) == (0.070, 0.039)


def test_mcnemar_of_thousands_of_docs() -> None:
    assert mcnemar(4000, 4100).exact == pytest.approx(
        peer([[0, 4000], [4100, 0]], exact=True).pvalue, rel=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_a_difference_is_what_it_says_and_turns_with_its_sides(values: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in values], [y for _, y in values]
    found, turned = paired_difference(a, b), paired_difference(b, a)
    d = np.array(a) - np.array(b)
    assert found.n == len(values)
    assert found.difference == pytest.approx(d.mean(), abs=1e-12)
    assert found.difference == pytest.approx(found.mean_a - found.mean_b, abs=1e-12)
    assert found.standard_error == pytest.approx(d.std() / math.sqrt(len(d)), abs=1e-9)
    halves = half_differences(a, b)
    assert (found.low, found.high) == tuple(2 * end - 1 for end in mean_bounds(halves))
    assert found.fixed == tuple(2 * end - 1 for end in betting_interval(halves))
    assert -1 <= found.low < found.high <= 1
    assert turned.difference == pytest.approx(-found.difference, abs=1e-12)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert (turned.only_a, turned.only_b) == (found.only_b, found.only_a)


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (0.01, 0.2, None, "A better"),
        (-0.2, -0.01, None, "B better"),
        (-0.01, 0.2, None, "undecided"),
        (-0.01, 0.01, None, "undecided"),
        (-0.01, 0.01, 0.02, "equal within"),
        (0.001, 0.01, 0.02, "equal within"),
        (0.01, 0.2, 0.02, "A better"),
        (0.0, 0.2, None, "undecided"),
        (0.3, 0.1, None, "undecided"),
        (-0.1, -0.3, None, "undecided"),
        (0.01, -0.01, 0.02, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, margin: float | None, expected: str) -> None:
    assert verdict(low, high, margin) == expected


# ---------------------------------------------------------------------------------------------- docs needed


def with_shares(n: int, above: int, below: int, chance: np.random.Generator) -> np.ndarray:
    """Half differences of which so many are 1 and 0, in random order."""
    return chance.permutation(np.array([1.0] * above + [0.0] * below + [0.5] * (n - above - below)))


def first_refuted(x: np.ndarray, mean: float) -> np.ndarray:
    """Docs until a difference is refuted from below, per sample; one more than there are where it is not."""
    out = betting.spread_capital(x, np.full((len(x), 1), mean)) >= betting.refuting(0.05)
    return np.where(out.any(axis=1), out.argmax(axis=1), x.shape[1]) + 1


@pytest.mark.parametrize(("n", "above", "below"), [(60, 15, 6), (60, 12, 5), (100, 14, 5), (200, 12, 4)])
def test_the_docs_needed_are_about_what_it_then_takes(n: int, above: int, below: int) -> None:
    chance = np.random.default_rng(3)
    seen = with_shares(n, above, below, chance)
    predicted = docs_to_decide(seen.tolist())
    assert predicted
    further = chance.choice(seen, size=(400, 6 * predicted))
    runs = first_refuted(np.hstack([np.tile(seen, (400, 1)), further]), 0.5) - n
    assert predicted == pytest.approx(runs.mean(), rel=0.2)
    fixed = (1.96 / (2 * seen.mean() - 1)) ** 2 * (2 * seen).var()
    assert 2 < (n + predicted) / fixed < 3.5, "what the docstring says of a test at a fixed number"


def test_the_docs_needed_for_equality() -> None:
    chance = np.random.default_rng(4)
    seen = with_shares(100, 3, 3, chance)
    assert docs_to_decide(seen.tolist()) is None, "an even score leads nowhere"
    predicted = docs_to_decide(seen.tolist(), margin=0.05)
    assert predicted
    x = np.hstack([np.tile(seen, (200, 1)), chance.choice(seen, size=(200, 5 * predicted))])
    runs = np.maximum(first_refuted(x, 0.475), first_refuted(1 - x, 0.475)) - 100
    assert predicted == pytest.approx(np.median(runs), rel=0.3)
    assert docs_to_decide(seen.tolist(), margin=0.02) > predicted


def test_no_docs_are_needed_where_it_is_decided_and_none_can_be_told_of_nothing() -> None:
    assert (
        docs_to_decide([1.0] * 40)
        == docs_to_decide([0.0] * 40)
        == docs_to_decide([0.5] * 400, margin=0.1)
        == 0
    )
    assert docs_to_decide([]) is docs_to_decide([], margin=0.1) is docs_to_decide([0.5] * 50) is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60), st.sampled_from([None, 0.05, 0.3])
)
def test_the_forecast_agrees_with_the_verdict_and_is_the_same_from_both_sides(
    halves: list[float], margin: float | None
) -> None:
    low, high = mean_bounds(halves)
    needed = docs_to_decide(halves, margin=margin)
    assert (needed == 0) == (verdict(2 * low - 1, 2 * high - 1, margin) != "undecided")
    mirrored = docs_to_decide([1 - x for x in halves], margin=margin)
    assert mirrored == needed or mirrored == pytest.approx(needed, abs=1)


def test_wrong_verdicts_are_as_rare_as_promised() -> None:
    """Of equals, looked at after every doc of 500: both directions together at most 5 %."""
    chance = np.random.default_rng(9)
    a, b = chance.random((2, 2000, 500)) < chance.random(500)  # docs of all difficulties, equal for both
    x = (a.astype(float) - b + 1) / 2
    wrong = (first_refuted(x, 0.5) <= 500) | (first_refuted(1 - x, 0.5) <= 500)
    assert wrong.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([1.0], []), "got 1 of A and 0 of B"),
        (lambda: paired_difference([], []), "at least one common doc"),
        (lambda: paired_difference([2.0], [1.0]), "between 0 and 1, got 2"),
        (lambda: docs_to_decide([0.5], margin=0.0), "margin must lie"),
        (lambda: docs_to_decide([0.5], margin=1.0), "margin must lie"),
        (lambda: docs_to_decide([1.5]), "between 0 and 1"),
        (lambda: mcnemar(-1, 2), "counts"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
