"""Fast or numerically careful code against the definitions in its sources, written out as plain loops."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import betaln

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.change import RATIOS, DropDetector
from testbench_dagster.statistics.combinations import combined_docs, docs_behind, smoothed, wilson_of_mean
from testbench_dagster.statistics.evalues import log_mean_exp
from testbench_dagster.statistics.intervals import (
    betting_interval,
    clustered_standard_error,
    design_effect,
    effective_n,
    standard_error,
    wilson,
)
from testbench_dagster.statistics.paired import (
    docs_to_decide,
    docs_to_decide_overall,
    half_differences,
    mcnemar,
    paired_difference,
    verdict,
)
from testbench_dagster.statistics.ranks import Estimate, bootstrap_ranks, certain_ranks
from testbench_dagster.statistics.sequences import mean_bounds
from testbench_dagster.statistics.sequential import docs_to_decide as docs_of_test
from testbench_dagster.statistics.sequential import sprt
from testbench_dagster.statistics.shrinkage import STRONGEST, WEAKEST, Prior, fit_prior
from testbench_dagster.statistics.strata import rounds_of

some_scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=25)


# ------------------------------------------------------------------------------------------------------- bets


def plug_in_capital(scores: Sequence[float], mean: float, alpha: float) -> list[float]:
    """K+ after each score, Waudby-Smith and Ramdas 2024, section 4.4, with half of alpha a side."""
    n, capital, found = len(scores), 1.0, []
    total, squares = 0.5, 0.25  # the guess that stands for scores before the first
    spread = 0.25
    for t, x in enumerate(scores, start=1):
        bet = min(math.sqrt(2 * math.log(2 / alpha) / (n * spread)), 0.5 / mean)
        capital *= 1 + bet * (x - mean)
        found.append(capital)
        total += x
        squares += (x - total / (t + 1)) ** 2
        spread = squares / (t + 1)
    return found


def spread_capital(
    scores: Sequence[float], mean: float, bank: int | None = None, stakes: Sequence[float] | None = None
) -> list[float]:
    """The mean over constant shares of products of 1 + share stake (x / m - 1), m moving with a bank."""
    capitals, found, seen = [1.0] * len(betting.SHARES), [], 0.0
    for i, x in enumerate(scores):
        m = mean if bank is None else (bank * mean - seen) / (bank - i)
        seen += x
        if m < -1e-9:
            return found + [math.inf] * (len(scores) - i)
        # a mean of 0 is refuted by any score above it
        ratio = x / m if m > 1e-12 else math.inf if x > 0 else 1.0
        stake = stakes[i] if stakes else 1.0
        for k, share in enumerate(betting.SHARES):
            capitals[k] *= 1 + share * stake * (ratio - 1)
        found.append(math.fsum(capitals) / len(capitals))
    return found


def first_standing(refuted: Sequence[bool]) -> int:
    """How many of the means in ascending order are refuted before one stands."""
    return next((i for i, out in enumerate(refuted) if not out), len(refuted))


@settings(max_examples=25)
@given(some_scores, st.sampled_from([0.05, 0.3]))
def test_a_betting_interval_holds_what_the_capital_does_not_refute(scores: list[float], alpha: float) -> None:
    low, high = betting_interval(scores, 1 - alpha)
    for end, side in ((low, scores), (1 - high, [1 - x for x in scores])):
        assert max(plug_in_capital(side, end + 1e-6, alpha)) < 2 / alpha
        if end > 1e-6:
            assert max(plug_in_capital(side, end - 1e-6, alpha)) >= 2 / alpha


@settings(max_examples=25)
@given(some_scores, st.sampled_from([0.05, 0.4]), st.sampled_from([None, 0, 1, 30]))
def test_bounds_for_all_times_hold_what_no_capital_refutes(
    scores: list[float], alpha: float, unseen: int | None
) -> None:
    bank = None if unseen is None else len(scores) + unseen
    low, high = mean_bounds(scores, alpha, bank)
    for end, side in ((low, scores), (1 - high, [1 - x for x in scores])):
        certain = 0.0 if bank is None else sum(side) / bank
        most = 1.0 if bank is None else certain + (bank - len(side)) / bank
        assert certain - 1e-9 <= end <= most + 1e-9
        if end + 1e-6 < most:
            above = spread_capital(side, end + 1e-6, bank)
            assert max(above) < 2 / alpha
        if end > certain + 1e-6:
            assert max(spread_capital(side, end - 1e-6, bank)) >= 2 / alpha


@settings(max_examples=30)
@given(some_scores, st.floats(0.05, 0.95), st.sampled_from([None, 40]), st.booleans())
def test_spread_capital_is_the_mean_of_products(
    scores: list[float], mean: float, bank: int | None, part: bool
) -> None:
    stakes = [1 / (1 + i % 3) for i in range(len(scores))] if part else None
    x = np.array(scores)
    found = betting.spread_capital(x, np.array([mean]), bank, np.array(stakes) if stakes else 1.0)
    plain = spread_capital(scores, mean, bank, stakes)
    assert np.exp(found).tolist() == pytest.approx(plain, rel=1e-9)


def test_what_a_mean_of_nothing_and_an_impossible_mean_are_worth() -> None:
    zero = betting.spread_capital(np.array([0.0, 0.5, 0.0]), np.array([0.0]))
    assert zero.tolist() == [
        pytest.approx(0.0, abs=1e-12),
        math.inf,
        math.inf,
    ]  # zeros say nothing against a mean of 0, others all
    # 2 of 4 docs were right: no mean below a half is left, and it was not refuted before
    gone = betting.spread_capital(np.array([1.0, 1.0, 0.0]), np.array([0.3]), bank=4)
    assert gone[0] < math.inf and gone[2] == math.inf


def test_there_is_no_bound_without_scores() -> None:
    low, high = betting.fixed_bounds(np.empty((3, 0)), 0.05)
    assert low.tolist() == [0, 0, 0] and high.tolist() == [1, 1, 1]


def test_half_of_alpha_is_for_each_side() -> None:
    assert betting.refuting(0.05) == pytest.approx(math.log(40))


@pytest.mark.parametrize("rates", [[1.0, 1.0], [1.0, 2.5, 4.0], [3.0]])
def test_rounds_deal_docs_by_their_rates(rates: list[float]) -> None:
    """After r rounds a task has given floor(r rate / lowest) docs; each bets one over those of its round."""
    tasks = [[(10 * k + i) / 100 for i in range(9)] for k in range(len(rates))]
    rounds = rounds_of(tasks, rates)
    scores: list[float] = []
    stakes: list[float] = []
    ends: list[int] = []
    count = 0
    while True:
        spans = [(int(count * r / min(rates)), int((count + 1) * r / min(rates))) for r in rates]
        if any(last > 9 for _, last in spans):
            break
        for task, (first, last) in zip(tasks, spans, strict=True):
            scores += task[first:last]
            stakes += [1 / (last - first)] * (last - first)
        ends.append(len(scores) - 1)
        count += 1
    assert rounds.scores == tuple(scores) and rounds.ends == tuple(ends)
    assert rounds.stakes == pytest.approx(tuple(stakes))
    assert count == {1.0: 9, 4.0: 2, 3.0: 9}[rates[-1]]


def test_bounds_over_tasks_count_the_capital_after_whole_rounds() -> None:
    chance = random.Random(3)
    tasks = [[float(chance.random() < p) for _ in range(40)] for p in (0.9, 0.8)]
    rounds = rounds_of(tasks, [1.0, 3.0])
    low, high = rounds.bounds(0.1)

    def best(side: list[float], mean: float) -> float:
        capital = spread_capital(side, mean, None, rounds.stakes)
        return max(capital[end] for end in rounds.ends)

    for end, side in ((low, list(rounds.scores)), (1 - high, [1 - x for x in rounds.scores])):
        assert best(side, end + 1e-6) < 20 <= best(side, end - 1e-6)
    assert rounds_of([], []).bounds() == (0, 1)


# ----------------------------------------------------------------------------------------------------- change


def gains(values: Sequence[float], q: float, r: float) -> list[float]:
    """Logarithms of r^x ((1 - r q) / (1 - q))^(1 - x)."""
    return [math.log(r**x * ((1 - r * q) / (1 - q)) ** (1 - x)) for x in values]


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=30))
def test_a_detector_is_the_sum_over_all_times_a_change_may_have_come(values: list[float]) -> None:
    """Shiryaev-Roberts: R sums over starts the product of factors since; Page: the largest sum of logs."""
    detector = DropDetector(arl=50.0, ceiling=0.9)
    detector.baseline = 0.9  # at its ceiling: nothing more is learnt
    alarms = [detector.step(value) for value in values]
    by_ratio = [gains(values, 0.9, r) for r in RATIOS]
    since = [[math.fsum(g[start:]) for start in range(len(g))] for g in by_ratio]
    level = math.fsum(math.exp(s) for sums in since for s in sums) / len(RATIOS)
    assert detector.log_e == pytest.approx(math.log(level), rel=1e-9)
    assert alarms[-1] == (level >= 50.0)
    height = max(0.0, max(s for sums in since for s in sums))
    assert detector.height == pytest.approx(height, abs=1e-9)
    if height > 1e-9:
        best = max(since, key=max)
        assert best[detector.start] == pytest.approx(height, abs=1e-9)
    else:
        assert detector.start == len(values)
    assert (detector.n, detector.total) == (len(values), pytest.approx(math.fsum(values)))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0]), min_size=1, max_size=60))
def test_a_baseline_is_the_highest_lower_bound_before_a_value_below_1(values: list[float]) -> None:
    """Robbins' mixture, weight Beta(9.5, 0.5): B(a + k, b + n - k) / B(a, b) alpha = p^k (1 - p)^(n - k)."""
    detector = DropDetector()
    best = 0.0
    for i, value in enumerate(values):
        k, n = math.fsum(values[:i]), i
        detector.step(value)
        if value < 1 and n and k > 0:
            target = betaln(9.5 + k, 0.5 + n - k) - betaln(9.5, 0.5) + math.log(0.01)

            def excess(p: float, k: float = k, n: int = n, target: float = target) -> float:
                rest = (n - k) * math.log1p(-p) if n > k else 0.0
                return k * math.log(p) + rest - target

            top = min(k / n, 1 - 1e-15)
            if excess(1e-300) < 0 < excess(top):
                best = max(best, optimize.brentq(excess, 1e-300, top, xtol=1e-12))
        assert detector.baseline == pytest.approx(min(best, 0.95), abs=2e-6)


def test_a_baseline_stops_at_its_ceiling() -> None:
    detector = DropDetector(ceiling=0.6)
    for value in [1.0] * 200 + [0.0]:
        detector.step(value)
    assert detector.baseline == 0.6


def test_a_level_beyond_all_floats_stays_an_alarm() -> None:
    detector = DropDetector(ratios=(0.1,))
    detector.baseline = 0.95
    assert [detector.step(0.0) for _ in range(3000)][-1]
    assert detector.log_e == pytest.approx(690.0)
    assert not detector.start


# ------------------------------------------------------------------------------------ combinations, intervals


def test_a_smoothed_share_by_hand() -> None:
    assert smoothed(0.5, 9) == (pytest.approx(0.5), pytest.approx(0.25 / 9))
    assert smoothed(1.0, 9) == (pytest.approx(0.95), pytest.approx(0.95 * 0.05 / 9))
    assert smoothed(0.25, 4) == (pytest.approx(0.3), pytest.approx(0.3 * 0.7 / 4))
    assert combined_docs(0.8, 0.02) == pytest.approx(8)


def test_a_weighted_mean_has_the_interval_of_the_docs_it_is_worth() -> None:
    """Two tasks, worked out: q = (0.8 * 20 + .5) / 21 and (0.4 * 10 + .5) / 11, Q = .75 and .25 of these."""
    q1, q2 = 16.5 / 21, 4.5 / 11
    q = 0.75 * q1 + 0.25 * q2
    variance = 0.75**2 * q1 * (1 - q1) / 20 + 0.25**2 * q2 * (1 - q2) / 10
    docs = q * (1 - q) / variance
    expected = wilson(0.7 * docs, docs, 0.9)
    assert wilson_of_mean([0.75, 0.25], [0.8, 0.4], [20.0, 10.0], 0.9) == pytest.approx(expected)


@given(st.floats(0, 1), st.floats(0.001, 0.6), st.floats(0, 1), st.sampled_from([0.8, 0.95]))
def test_docs_behind_an_interval_make_one_of_its_width(
    share: float, width: float, place: float, confidence: float
) -> None:
    low = max(0.0, min(share, 1 - width) - place * min(width, share))
    high = min(1.0, low + width)
    if not low <= share <= high or high - low < 1e-3:
        return
    n = docs_behind(share, low, high, confidence)
    found = wilson(share * n, n, confidence)
    assert found[1] - found[0] == pytest.approx(high - low, rel=1e-6)


def test_the_widths_by_which_docs_are_counted() -> None:
    assert docs_behind(0.5, 0.5, 0.5) == 1e12
    n = docs_behind(0.5, 0.5 - 1e-5, 0.5 + 1e-5)
    assert 1e9 < n < 1e12 and n == pytest.approx((1.959964 / 2e-5) ** 2, rel=1e-3)


values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(values, st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_errors_are_the_sums_of_their_definition(scores: list[float], labels: list[int]) -> None:
    clusters = labels[: len(scores)]
    n = len(scores)
    mean = math.fsum(scores) / n
    inside = sum(
        (scores[i] - mean) * (scores[j] - mean)
        for i in range(n)
        for j in range(n)
        if clusters[i] == clusters[j]
    )
    alone = sum((x - mean) ** 2 for x in scores)
    assert standard_error(scores) == pytest.approx(math.sqrt(alone) / n, abs=1e-9)
    assert clustered_standard_error(scores, clusters) == pytest.approx(
        math.sqrt(max(0.0, inside)) / n, abs=1e-6
    )
    if math.sqrt(alone) / n > 1e-6:
        effect = max(1.0, inside / alone)
        assert design_effect(scores, clusters) == pytest.approx(effect, rel=1e-3)
        assert effective_n(scores, clusters) == pytest.approx(n / effect, rel=1e-3)


def test_equal_values_count_their_clusters() -> None:
    """Three docs of one passage and one of another that all got 1: (9 + 1) / 4 times the variance."""
    assert design_effect([1.0] * 4, ["a", "a", "a", "b"]) == 2.5
    assert effective_n([1.0] * 4, ["a", "a", "a", "b"]) == pytest.approx(1.6)


def test_a_mean_of_exponentials_survives_what_is_infinite() -> None:
    rows = [[0.0, -math.inf, 800.0], [math.log(3), -math.inf, 800.0]]
    assert log_mean_exp(rows).tolist() == pytest.approx([math.log(2), -math.inf, 800.0])


# ---------------------------------------------------------------------------------------------------- pooling


def moments(prior: Prior, successes: Sequence[int], n: Sequence[int]) -> tuple[float, float]:
    """Both sides of Kleinman's equation at the prior's correlation: the spread seen and the one expected."""
    r = 1 / (prior.a + prior.b + 1)
    weights = np.array([size / (1 + (size - 1) * r) for size in n])
    w = weights / weights.sum()
    shares = np.array(successes) / np.array(n)
    mean = float(w @ shares)
    spread = float(w @ (shares - mean) ** 2)
    each = (1 - r) / np.array(n) + r
    return spread, mean * (1 - mean) * float((w * (1 - w)) @ each)


def test_a_prior_solves_the_equation_of_moments() -> None:
    generator = np.random.default_rng(9)
    for a, b in ((3, 2), (12, 4), (1, 1), (30, 20)):
        sizes = generator.integers(5, 60, 40)
        successes = generator.binomial(sizes, generator.beta(a, b, 40))
        prior = fit_prior(successes.tolist(), sizes.tolist())
        assert prior is not None and WEAKEST < prior.a + prior.b < STRONGEST
        seen, expected = moments(prior, successes.tolist(), sizes.tolist())
        assert seen == pytest.approx(expected, rel=1e-6)
        r = 1 / (prior.a + prior.b + 1)
        w = np.array([size / (1 + (size - 1) * r) for size in sizes])
        assert prior.a / (prior.a + prior.b) == pytest.approx(
            float(w @ (successes / sizes) / w.sum()), rel=1e-6
        )


def test_the_ends_of_a_prior() -> None:
    """100 docs at most, one at least, the mean half a doc off the ends: five suppliers of two docs."""
    perfect = fit_prior([2] * 5, [2] * 5)
    assert perfect is not None and (perfect.a, perfect.b) == (pytest.approx(95), pytest.approx(5))
    nothing = fit_prior([0] * 5, [2] * 5)
    assert nothing is not None and (nothing.a, nothing.b) == (pytest.approx(5), pytest.approx(95))
    apart = fit_prior([0, 0, 0, 50, 50, 50], [50] * 6)
    assert apart is not None and (apart.a, apart.b) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_posterior_at_another_confidence() -> None:
    pooled = Prior(2.0, 5.0).pooled(3, 4, confidence=0.8)
    beta = stats.beta(5, 6)
    assert (pooled.ci_low, pooled.ci_high) == pytest.approx(beta.interval(0.8))
    assert (pooled.score, pooled.se) == pytest.approx((beta.mean(), beta.std()))
    skewed = Prior(0.01, 20.0).pooled(0, 0, confidence=0.1)
    assert skewed.ci_low <= skewed.score <= skewed.ci_high


# ------------------------------------------------------------------------------------------------------ pairs


def test_a_difference_by_hand() -> None:
    """A right on 3 of 4, B on 1 of 4; halves (d + 1) / 2 are 1, 1, 1/2, 1/2."""
    found = paired_difference([1, 1, 1, 0], [0, 0, 1, 0])
    assert (found.n, found.mean_a, found.mean_b, found.difference) == (4, 0.75, 0.25, 0.5)
    assert found.standard_error == pytest.approx(math.sqrt(0.25 / 4))
    assert (found.only_a, found.only_b) == (2, 0)
    turned = paired_difference([0, 0, 1, 0.5], [1, 1, 1, 0])
    assert (turned.only_a, turned.only_b) == (1, 2)
    low, high = mean_bounds([1, 1, 0.5, 0.5])
    assert (found.low, found.high) == pytest.approx((2 * low - 1, 2 * high - 1))
    low, high = betting_interval([1, 1, 0.5, 0.5], 0.95)
    assert found.fixed == pytest.approx((2 * low - 1, 2 * high - 1))


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (0.0, 0.2, None, "undecided"),
        (1e-9, 0.2, None, "A better"),
        (-0.2, 0.0, None, "undecided"),
        (-0.2, -1e-9, None, "B better"),
        (-0.02, 0.02, 0.02, "equal within"),
        (0.01, 0.02, 0.02, "equal within"),
        (-0.02, 0.021, 0.02, "undecided"),
        (-0.021, 0.02, 0.02, "undecided"),
        (0.01, 0.03, 0.02, "A better"),
        (-0.03, -0.01, 0.02, "B better"),
    ],
)
def test_what_an_interval_allows_to_say(low: float, high: float, margin: float | None, said: str) -> None:
    assert verdict(low, high, margin) == said


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_binomial_test(b: int, c: int) -> None:
    found = mcnemar(b, c)
    if b + c:
        assert found.exact == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue)
        few = stats.binom(b + c, 0.5)
        assert found.mid == pytest.approx(2 * few.cdf(min(b, c)) - few.pmf(min(b, c)))


def further_docs(
    scores: Sequence[float], stakes: Sequence[float], mean: float, alpha: float, most: int = 4000
) -> int | None:
    """Counts up, doc by doc, until the capital with its mean growth so far refutes the mean."""
    so_far = [
        sum(math.log(1 + share * stake * (x / mean - 1)) for stake, x in zip(stakes, scores, strict=True))
        for share in betting.SHARES
    ]
    for further in range(most):
        grown = [c + further * c / len(scores) for c in so_far]
        if math.fsum(math.exp(g) for g in grown) / len(grown) >= 2 / alpha:
            return further
    return None


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(0, 30), st.integers(0, 30), st.sampled_from([None, 0.1, 0.3]))
def test_docs_to_decide_are_counted_one_by_one(
    same: int, only_a: int, only_b: int, margin: float | None
) -> None:
    halves = [0.5] * same + [1.0] * only_a + [0.0] * only_b
    halves = halves[::3] + halves[1::3] + halves[2::3]
    found = docs_to_decide(halves, 0.05, margin)
    low, high = mean_bounds(halves)
    if verdict(2 * low - 1, 2 * high - 1, margin) != "undecided":
        assert found == 0
        return
    ones = [1.0] * len(halves)
    mirrored = [1 - x for x in halves]
    ways = [further_docs(halves if only_a >= only_b else mirrored, ones, 0.5, 0.05)]
    if margin is not None:
        both = [further_docs(x, ones, (1 - margin) / 2, 0.05) for x in (halves, mirrored)]
        ways.append(None if None in both else max(end for end in both if end is not None))
    known = [way for way in ways if way is not None]
    if known:
        assert found == min(known)
    else:
        assert found is None or found >= 4000


def test_docs_to_decide_over_tasks_bet_by_their_stakes() -> None:
    one = half_differences([1, 1, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0])
    tasks = [one, half_differences([1, 0, 0, 1] * 3, [0, 0, 1, 0] * 3)]
    rounds = rounds_of(tasks, [1.0, 2.0])
    found = docs_to_decide_overall(rounds)
    assert found == further_docs(rounds.scores, rounds.stakes, 0.5, 0.05)
    assert found is not None and found > 0


def test_docs_that_lead_nowhere_give_no_figure() -> None:
    assert docs_to_decide([]) is None
    assert docs_to_decide([0.5] * 50) is None
    assert docs_to_decide([0.5] * 50, margin=0.2) is not None  # but equality can be shown
    rare = docs_to_decide([0.5] * 400 + [1.0])
    assert rare is not None and rare > 400
    assert docs_to_decide([0.5 + 1e-7] * 20) is None  # beyond ten million docs


# ------------------------------------------------------------------------------------------------------ ranks

estimates = st.lists(
    st.tuples(st.floats(0.1, 0.9), st.floats(0, 0.1), st.floats(0, 0.1)), min_size=1, max_size=9
).map(lambda drawn: [Estimate(s, s - below, s + above) for s, below, above in drawn])


@given(estimates, st.sampled_from([0.8, 0.95]))
def test_certain_ranks_compare_every_pair(found: list[Estimate], confidence: float) -> None:
    """Sidak's confidence for n - 1 comparisons; a difference's margin is the root of the squared arms."""
    n = len(found)
    if n < 2:
        assert certain_ranks(found, confidence) == [(1, 1)] * n
        return
    z = stats.norm.ppf((1 + confidence) / 2)
    critical = stats.norm.ppf((1 + confidence ** (1 / (n - 1))) / 2)

    def surely(better: Estimate, worse: Estimate) -> bool:
        down, up = (better.score - better.low) / z, (worse.high - worse.score) / z
        return better.score - worse.score > critical * math.hypot(down, up) * (1 + 1e-12)

    expected = [(1 + sum(surely(o, e) for o in found), n - sum(surely(e, o) for o in found)) for e in found]
    assert certain_ranks(found, confidence) == expected


@settings(max_examples=20)
@given(estimates, st.sampled_from([0.8, 0.95]), st.integers(0, 3))
def test_likely_ranks_are_ranks_of_scores_drawn_anew(
    found: list[Estimate], confidence: float, seed: int
) -> None:
    z = stats.norm.ppf((1 + confidence) / 2)
    noise = np.random.default_rng(seed).standard_normal((60, len(found)))
    ranks = []
    for row in noise:
        drawn = [
            e.score + x * ((e.high - e.score) if x > 0 else (e.score - e.low)) / z
            for e, x in zip(found, row, strict=True)
        ]
        negative = [-d for d in drawn]
        ranks.append([stats.rankdata(negative, "min"), stats.rankdata(negative, "max")])
    array = np.array(ranks)
    likely = bootstrap_ranks(found, confidence, draws=60, seed=seed)
    tail = (1 - confidence) / 2
    for i, one in enumerate(likely):
        first, last = np.sort(array[:, 0, i]), np.sort(array[:, 1, i])
        # numpy's "lower" and "higher" quantiles of 60 draws
        assert one.low == first[math.floor(tail * 59)]
        assert one.high == last[math.ceil((1 - tail) * 59 - 1e-9)]
        assert one.p_best == pytest.approx((array[:, 0, i] == 1).mean())


def test_many_suppliers_are_ranked_a_block_at_a_time() -> None:
    """Blocks of 256: scores in order, known to the thousandth, have certain ranks."""
    found = certain_ranks([Estimate(n / 600, n / 600, n / 600) for n in range(600)])
    assert found == [(600 - n, 600 - n) for n in range(600)]


def test_chances_come_in_thousandths() -> None:
    likely = bootstrap_ranks([Estimate(0.5, 0.4, 0.6), Estimate(0.52, 0.4, 0.6), Estimate(0.45, 0.4, 0.6)])
    parts = [one.p_best * 1000 for one in likely]
    assert parts == pytest.approx([round(part) for part in parts], abs=1e-6)
    assert min(parts) > 0 and sum(parts) == pytest.approx(1000)


def test_a_unit_moves_as_one_and_has_one_place() -> None:
    pair = [Estimate(0.8, 0.7, 0.9, "g"), Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9, "g")]
    likely = bootstrap_ranks(pair, draws=50)
    assert likely[0] == likely[2] and (likely[0].low, likely[0].high) == (1, 1)
    assert certain_ranks(pair) == [(1, 1), (2, 2), (1, 1)]
    apart = [Estimate(0.8, 0.79, 0.81, "g"), Estimate(0.5, 0.49, 0.51, "g")]
    assert certain_ranks(apart) == [(1, 1), (1, 1)]


# -------------------------------------------------------------------------------------------- sequential test


def test_a_sequential_test_ends_at_walds_thresholds() -> None:
    """p0 = .5, p1 = .75: a 1 adds ln 1.5, a 0 adds ln .5; pass at ln 9 = 2.197, fail at -2.197."""
    passed = sprt([1.0] * 6, 0.5, 0.75, 0.1, 0.1)
    assert (passed.decision, passed.decided_at, passed.n) == ("pass", 6, 6)
    assert passed.log_ratio == pytest.approx(6 * math.log(1.5))
    assert sprt([1.0] * 5, 0.5, 0.75, 0.1, 0.1).decision == "undecided"
    failed = sprt([0.0] * 7, 0.5, 0.75, 0.1, 0.1)
    assert (failed.decision, failed.decided_at, failed.n) == ("fail", 4, 7)
    assert failed.log_ratio == pytest.approx(4 * math.log(0.5))
    assert sprt([0.5], 0.5, 0.75, 0.1, 0.1).log_ratio == pytest.approx(0.5 * math.log(0.75))
    uneven = sprt([1.0] * 20, 0.5, 0.75, 0.01, 0.2)  # pass at ln 80 = 4.38: 11 docs
    assert uneven.decided_at == 11
    assert sprt([0.0] * 9, 0.5, 0.75, 0.2, 0.01).decided_at == 7  # fail at ln(.01 / .8) = -4.38


def exit_time(ahead: float, behind: float, drift: float, spread: float) -> float:
    """Mean time for a Brownian motion to leave (-behind, ahead): the ODE spread / 2 u'' + drift u' = -1."""
    grid = np.linspace(-behind, ahead, 4001)
    h = grid[1] - grid[0]
    inner = len(grid) - 2
    banded = np.zeros((3, inner))
    banded[0, 1:] = spread / 2 / h**2 + drift / 2 / h
    banded[1] = -spread / h**2
    banded[2, :-1] = spread / 2 / h**2 - drift / 2 / h
    from scipy.linalg import solve_banded

    solution = solve_banded((1, 1), banded, -np.ones(inner))
    return float(np.interp(0.0, grid[1:-1], solution))


@pytest.mark.parametrize(
    ("scores", "fail", "pass_"),
    [
        ([1.0, 0.0, 1.0], 0.5, 0.75),
        ([1.0, 1.0, 0.0, 1.0, 1.0], 0.7, 0.8),
        ([1.0, 0.0, 0.0], 0.5, 0.75),
        ([0.5, 0.9, 0.7, 0.2], 0.5, 0.6),
        ([1.0, 0.0] * 3, 0.45, 0.55),
    ],
)
def test_docs_to_decide_are_the_mean_time_to_leave_the_interval(
    scores: list[float], fail: float, pass_: float
) -> None:
    gain, loss = math.log(pass_ / fail), math.log((1 - pass_) / (1 - fail))
    low, high = math.log(0.05 / 0.9), math.log(0.95 / 0.1)
    ratio = sum(x * gain + (1 - x) * loss for x in scores)
    mean = sum(scores) / len(scores)
    drift = mean * gain + (1 - mean) * loss
    spread = (gain - loss) ** 2 * float(np.var(scores))
    found = docs_of_test(scores, fail, pass_, 0.1, 0.05)
    assert found == pytest.approx(exit_time(high - ratio, ratio - low, drift, spread), abs=1.01)


def test_docs_of_a_sequential_test_at_its_ends() -> None:
    assert docs_of_test([1.0] * 6, 0.5, 0.75, 0.1, 0.1) == 0
    assert docs_of_test([], 0.5, 0.75, 0.1, 0.1) is None
    # equal scores only drift: ln 9 - ln 1.5 are left, ln 1.5 each
    assert docs_of_test([1.0], 0.5, 0.75, 0.1, 0.1) == math.ceil(
        (math.log(9) - math.log(1.5)) / math.log(1.5)
    )
    assert docs_of_test([0.0], 0.5, 0.75, 0.1, 0.1) == math.ceil((math.log(9) - math.log(2)) / math.log(2))
    balance = math.log(2) / (math.log(1.5) + math.log(2))  # a score that leaves the ratio as it is
    assert docs_of_test([balance] * 3, 0.5, 0.75, 0.1, 0.1) is None
