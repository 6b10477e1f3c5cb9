"""The ends of what functions of numbers accept: the last value inside is taken, the first outside named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.change import DropDetector
from testbench_dagster.statistics.combinations import combined_error, docs_behind, mover, wilson_of_mean
from testbench_dagster.statistics.evalues import log_e_at_least, log_e_at_most
from testbench_dagster.statistics.intervals import (
    clustered_standard_error,
    normal_quantile,
    standard_error,
    two_sided_z,
    wilson,
)
from testbench_dagster.statistics.multiplicity import family_wise_threshold
from testbench_dagster.statistics.paired import checked_margin, mcnemar, paired_difference
from testbench_dagster.statistics.ranks import Estimate, bootstrap_ranks, certain_ranks
from testbench_dagster.statistics.sequences import mean_bounds
from testbench_dagster.statistics.sequential import sprt
from testbench_dagster.statistics.shrinkage import Prior, fit_prior
from testbench_dagster.statistics.strata import rounds_of
from testbench_dagster_tests.records import changeable

TINY = 1e-9

#: Functions of one number that must lie strictly between 0 and 1.
BETWEEN_0_AND_1: dict[str, Callable[[float], Any]] = {
    "alpha of bets": betting.checked_alpha,
    "alpha of tests": lambda alpha: family_wise_threshold(3, alpha),
    "probability of a quantile": normal_quantile,
    "confidence of z": two_sided_z,
    "confidence of certain ranks": lambda c: certain_ranks([Estimate(0.5, 0.4, 0.6)] * 2, c),
    "confidence of likely ranks": lambda c: bootstrap_ranks([Estimate(0.5, 0.4, 0.6)] * 2, c, draws=2),
    "margin": checked_margin,
    "baseline_alpha": lambda alpha: DropDetector(baseline_alpha=alpha),
    "ceiling": lambda ceiling: DropDetector(ceiling=ceiling),
    "ratios": lambda ratio: DropDetector(ratios=(0.5, ratio)),
    "null of at most": lambda null: log_e_at_most(1, 1, null, (0.5,)),
    "shares of at most": lambda share: log_e_at_most(1, 1, 0.5, (0.5, share)),
    "null of at least": lambda null: log_e_at_least(1, 1, null, (0.5,)),
    "ratios of at least": lambda ratio: log_e_at_least(1, 1, 0.5, (0.5, ratio)),
    "fail of a test": lambda fail: sprt([1.0], fail, 1 - TINY / 2, 0.1, 0.1),
    "pass of a test": lambda pass_: sprt([1.0], TINY / 2, pass_, 0.1, 0.1),
}


@pytest.mark.parametrize("name", BETWEEN_0_AND_1)
def test_what_lies_between_0_and_1_excludes_both(name: str) -> None:
    function = BETWEEN_0_AND_1[name]
    for inside in (TINY, 0.5, 1 - TINY):
        function(inside)
    for outside in (-0.5, 0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=str(outside)):
            function(outside)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_error_rates_of_a_sequential_test_lie_below_a_half(name: str) -> None:
    settings = {"alpha": 0.1, "beta": 0.1}
    for inside in (TINY, 0.5 - TINY):
        sprt([1.0], 0.4, 0.6, **settings | {name: inside})
    for outside in (-0.1, 0.0, 0.5, 0.7):
        with pytest.raises(
            ValueError, match=f"{name} must lie between 0 and 0.5, such as 0.01; got {outside}"
        ):
            sprt([1.0], 0.4, 0.6, **settings | {name: outside})


def test_a_sequential_test_needs_two_means_in_order() -> None:
    for fail, pass_ in ((0.5, 0.5), (0.6, 0.4)):
        with pytest.raises(ValueError, match=f"got fail {fail} and pass {pass_}"):
            sprt([1.0], fail, pass_, 0.1, 0.1)


#: Functions of scores that may be 0 and 1.
SCORES: dict[str, Callable[[float], Any]] = {
    "bets": lambda x: betting.checked_scores([0.5, x]),
    "bounds": lambda x: mean_bounds([0.5, x]),
    "fall": lambda x: DropDetector().step(x),
    "sequential test": lambda x: sprt([x], 0.4, 0.6, 0.1, 0.1),
    "pairs": lambda x: paired_difference([x], [0.5]),
    "pairs, other side": lambda x: paired_difference([0.5], [x]),
    "weighted mean": lambda x: wilson_of_mean([0.5, 0.5], [0.5, x], [9.0, 9.0]),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_include_0_and_1(name: str) -> None:
    for inside in (0.0, 1.0):
        SCORES[name](inside)
    for outside in (-TINY, 1 + TINY, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"0 and 1|0 to 1"):
            SCORES[name](outside)


def test_successes_lie_between_none_and_all() -> None:
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1
    assert all(map(math.isnan, wilson(0, 0)))
    assert 0 < wilson(0.25, 0.5)[0] < 0.5  # less than one doc is a number of docs too
    for successes, n in ((-TINY, 5), (-0.5, 5), (5 + TINY, 5), (0, -0.5), (TINY, 0)):
        with pytest.raises(ValueError, match="want 0 <= successes <= n"):
            wilson(successes, n)
    assert Prior(1, 1).pooled(0, 0).score == 0.5
    assert Prior(1, 1).pooled(5, 5).score == pytest.approx(6 / 7)
    for successes, n in ((-TINY, 5), (5 + TINY, 5)):
        with pytest.raises(ValueError, match="want 0 <= successes <= n"):
            Prior(1, 1).pooled(successes, n)


def test_suppliers_of_a_prior_have_a_doc_each() -> None:
    assert fit_prior([1, 0, 1, 0, 1], [1] * 5) is not None
    assert fit_prior([5] * 4, [10] * 4) is None, "four suppliers say too little"
    for successes, n in ((0, 0), (-1, 5), (6, 5), (0, -1)):
        with pytest.raises(ValueError, match=f"got {successes} of {n}"):
            fit_prior([1, 0, 1, 0, 1, successes], [5] * 5 + [n])


def test_intervals_hold_their_estimate_and_leave_something_out() -> None:
    assert docs_behind(0.0, 0.0, 0.5) > 0 and docs_behind(1.0, 0.5, 1.0) > 0
    assert docs_behind(0.5, TINY, 1.0) > 0
    for share, low, high in ((0.5, 0.0, 1.0), (0.5, -TINY, 0.9), (0.5, 0.1, 1 + TINY), (0.4, 0.5, 0.6)):
        with pytest.raises(ValueError, match="want 0 <= low <= share <= high <= 1"):
            docs_behind(share, low, high)
    for edge in (0.2, 0.8):
        assert mover([1.0], [edge], [0.2], [0.8]) == pytest.approx((0.2, 0.8))
        assert Estimate(edge, 0.2, 0.8).score == edge
        outside = edge + (TINY if edge > 0.5 else -TINY)
        with pytest.raises(ValueError, match="must lie between its bounds"):
            mover([1.0], [outside], [0.2], [0.8])
        with pytest.raises(ValueError, match="want finite low <= score <= high"):
            Estimate(outside, 0.2, 0.8)
    for numbers in ((math.nan, 0.2, 0.8), (0.5, -math.inf, 0.8), (0.5, 0.2, math.inf)):
        with pytest.raises(ValueError, match="want finite"):
            Estimate(*numbers)


def test_a_weighted_mean_needs_weights_and_docs_above_zero() -> None:
    wilson_of_mean([TINY, 1 - TINY], [0.0, 1.0], [TINY, 9.0])
    for weights, docs in (([0.0, 1.0], [9.0, 9.0]), ([0.5, 0.5], [9.0, 0.0]), ([1.5, -0.5], [9.0, 9.0])):
        with pytest.raises(ValueError, match="with a weight and docs above zero"):
            wilson_of_mean(weights, [0.5, 0.5], docs)


def test_counts_start_at_none() -> None:
    assert mcnemar(0, 0).exact == mcnemar(0, 0).mid == 1
    assert (mcnemar(1, 0).exact, mcnemar(0, 1).mid) == (1.0, 0.5)
    for b, c in ((-1, 0), (0, -1), (-1, 3), (3, -1)):
        with pytest.raises(ValueError, match=f"got {b} and {c}"):
            mcnemar(b, c)
    assert family_wise_threshold(0, 0.05) == family_wise_threshold(1, 0.05) == pytest.approx(math.log(20))
    assert family_wise_threshold(2, 0.05) == pytest.approx(math.log(40))
    with pytest.raises(ValueError, match="tests must be 0 or more, got -1"):
        family_wise_threshold(-1, 0.05)
    assert len(bootstrap_ranks([Estimate(0.5, 0.4, 0.6)], draws=1)) == 1
    with pytest.raises(ValueError, match="want at least one draw, got 0"):
        bootstrap_ranks([Estimate(0.5, 0.4, 0.6)], draws=0)


def test_a_bank_holds_at_least_the_scores_and_one_doc() -> None:
    assert mean_bounds([0.5, 0.5], bank=2) == pytest.approx((0.5, 0.5), abs=1e-6)
    assert mean_bounds([], bank=1) == (0, 1)
    for scores, bank in (([0.5, 0.5], 1), ([], 0)):
        with pytest.raises(ValueError, match=f"the number of scores, {len(scores)}; got {bank}"):
            mean_bounds(scores, bank=bank)


def test_rates_of_tasks_are_finite_and_above_zero() -> None:
    assert rounds_of([[1.0]], [TINY]).scores == (1.0,)
    for rates in ([0.0], [-1.0], [math.inf], [math.nan], [1.0, 1.0]):
        with pytest.raises(ValueError, match="want a rate above 0 of each of 1 task,"):
            rounds_of([[1.0]], rates)


def test_an_alarm_rate_is_more_than_one_observation() -> None:
    assert DropDetector(arl=1 + TINY).n == 0
    for arl in (1.0, 0.5, math.nan):
        with pytest.raises(ValueError, match=f"arl must be more than 1 observation, got {arl}"):
            DropDetector(arl=arl)
    with pytest.raises(ValueError, match=r"ratios must lie between 0 and 1, got \(\)"):
        DropDetector(ratios=())


def test_errors_need_values_and_a_cluster_for_each() -> None:
    for call in (lambda: standard_error([]), lambda: clustered_standard_error([], [])):
        with pytest.raises(ValueError, match="at least one value"):
            call()
    with pytest.raises(ValueError, match="got 1 for 2 values"):
        clustered_standard_error([0.5, 0.6], ["a"])


def test_records_stay_what_they_are() -> None:
    sums = "_Sums"  # of pairs, while they are added up
    assert changeable("testbench_dagster.statistics") <= {"DropDetector", sums}


def test_the_first_of_several_scores_that_are_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"got 2\.0"):
        betting.checked_scores([0.5, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"null must lie between 0 and 1, both excluded; got 2\.0"):
        log_e_at_most(1, 1, [0.5, 2.0, 3.0], (0.5,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: combined_error([0.5, 0.5], [0.1]),
        lambda: mover([1.0, 1.0], [0.5], [0.4], [0.6]),
        lambda: mover([1.0], [0.5, 0.5], [0.4], [0.6]),
        lambda: wilson_of_mean([1.0], [0.5], [9.0, 9.0]),
        lambda: fit_prior([1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2]),
        lambda: paired_difference([1.0], [1.0, 0.0]),
        lambda: clustered_standard_error([1.0, 0.0], ["a"]),
    ],
)
def test_lists_that_belong_together_are_of_one_length(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"zip|one cluster per value|common docs"):
        call()
