"""e-BH by hand, against its definition, and its false discovery rate under dependence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.statistics.evalues import log_e_at_least
from testbench_dagster.statistics.multiplicity import e_bh_least, e_bh_threshold, family_wise_threshold, holm


def e_bh(log_e, alpha: float) -> np.ndarray:
    """Which hypotheses are rejected: equal e-values stand or fall together."""
    return np.asarray(log_e, dtype=float) >= e_bh_threshold(log_e, alpha)


def test_by_hand() -> None:
    # m = 4, alpha = .1: e_1 >= 40, or e_2 >= 20, or e_3 >= 13.3, or e_4 >= 10
    e = np.log([25.0, 1.0, 21.0, 5.0])
    assert e_bh(e, 0.1).tolist() == [True, False, True, False]
    assert e_bh(np.log([39.0, 1.0, 1.0, 1.0]), 0.1).tolist() == [False] * 4
    assert e_bh_threshold(e, 0.1) == pytest.approx(math.log(21))
    assert e_bh([], 0.05).tolist() == [] and e_bh_threshold([], 0.05) == math.inf
    assert family_wise_threshold(25_651, 0.01) == pytest.approx(14.8, abs=0.05)
    assert family_wise_threshold(0, 0.01) == pytest.approx(math.log(100))


@given(st.lists(st.floats(-5, 12), min_size=1, max_size=30), st.floats(0.01, 0.5))
def test_as_defined(log_e: list[float], alpha: float) -> None:
    m = len(log_e)
    ordered = sorted(log_e, reverse=True)
    k = max((k for k in range(1, m + 1) if ordered[k - 1] >= math.log(m / alpha) - math.log(k)), default=0)
    assert int(e_bh(log_e, alpha).sum()) == k


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_levels_out_of_range_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        e_bh([1.0], alpha)
    with pytest.raises(ValueError, match="alpha"):
        family_wise_threshold(3, alpha)


def test_nan_and_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        e_bh([math.nan], 0.05)
    with pytest.raises(ValueError, match="tests"):
        family_wise_threshold(-1, 0.05)


def test_false_discoveries_among_pairs_that_share_suppliers() -> None:
    """30 twins at the boundary of the null and 10 strangers: pairs depend on each other through suppliers."""
    rng, alpha, prompts, runs = np.random.default_rng(2), 0.2, 60, 300
    rates = []
    for _ in range(runs):
        right = rng.random((40, prompts)) < 0.95**0.5
        right[30:] = rng.random((10, prompts)) < 0.4  # strangers agree with the others on a part of prompts
        i, j = np.triu_indices(40, 1)
        agree = (right[i] & right[j]).sum(axis=1)
        true = (i < 30) & (j < 30)
        rejected = e_bh(log_e_at_least(agree, prompts - agree, 0.95, (0.1, 0.3, 0.5, 0.7, 0.85)), alpha)
        assert rejected[~true].mean() > 0.9  # it rejects what there is to reject
        rates.append((rejected & true).sum() / max(rejected.sum(), 1))
    assert np.mean(rates) <= alpha + 3 * np.std(rates) / math.sqrt(runs)


def test_holm_is_the_procedure_of_the_book() -> None:
    """Four p values; adjusted as by hand: 4 x .01, 3 x .02, then no less than before."""
    assert holm({"a": 0.02, "b": 0.01, "c": 0.025, "d": 0.5}) == pytest.approx(
        {"b": 0.04, "a": 0.06, "c": 0.06, "d": 0.5}
    )
    assert holm({}) == {}


@given(st.lists(st.floats(-5, 40), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.5]))
def test_small_e_values_may_be_left_out_where_their_number_is_told(log_e: list[float], alpha: float) -> None:
    large = [one for one in log_e if one >= e_bh_least(alpha)]
    assert e_bh_threshold(large, alpha, tests=len(log_e)) == e_bh_threshold(log_e, alpha)


def test_there_are_no_more_values_than_tests() -> None:
    with pytest.raises(ValueError, match="tests must be 2 or more"):
        e_bh_threshold([3.0, 4.0], 0.05, tests=1)
