"""Wilson's interval against the equation that defines it, statsmodels and real answers; standard errors."""

import gzip
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, norm
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.intervals import (
    bounded_n,
    clustered_standard_error,
    design_effect,
    effective_n,
    normal_quantile,
    standard_error,
    two_sided_z,
    wilson,
)

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


@given(st.integers(1, 5000), st.data(), confidences)
def test_equals_statsmodels(n, data, confidence):
    successes = data.draw(st.integers(0, n))
    peer = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx(peer, abs=1e-12)


# ------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("n", [*range(10, 41), 50, 75, 100, 200, 400, 1000])
def test_covers_95_percent_on_average_over_shares(n):
    """Exactly: the probability of the counts whose interval holds p, averaged over p in [0.05, 0.95]."""
    bounds = np.array([wilson(k, n) for k in range(n + 1)])
    shares = np.linspace(0.05, 0.95, 2001)[:, None]
    inside = (bounds[:, 0] <= shares) & (shares <= bounds[:, 1])
    covered = (binom.pmf(np.arange(n + 1), n, shares) * inside).sum(axis=1)
    assert 0.93 <= covered.mean() <= 0.97
    assert covered.min() >= 0.83  # a single share may fare worse: the known dip of Wilson's interval


MODELS = ("Mistral-7B-v0.1", "Meta-Llama-3_1-8B-Instruct", "jamba-1.5-large")


def lines(path: Path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def mmlu_pro(shared):
    """Verdicts of three models on 12,032 questions: the authors' extraction against the key."""
    answers = {row["question_id"]: row["answer"] for row in lines(shared / "mmlu_pro/questions.jsonl.gz")}
    found = {}
    for model in MODELS:
        outputs = lines(shared / f"mmlu_pro/outputs_{model}.jsonl.gz")
        assert len(outputs) == len(answers) == 12_032
        found[model] = np.array([row["pred"] == answers[row["question_id"]] for row in outputs], dtype=float)
    return found


@pytest.fixture(scope="module")
def instructions(shared):
    """Shares of the instructions of a prompt that Mistral followed: between 0 and 1, most at the ends."""
    path = shared / "ifeval/responses_mistralai__Mistral-7B-Instruct-v0.3.jsonl.gz"
    return np.array([sum(row["strict"]) / len(row["strict"]) for row in lines(path)])


def drawn(values: np.ndarray, n: int, draws: int) -> np.ndarray:
    chance = np.random.default_rng(20260301)
    return np.stack([values[chance.permutation(len(values))[:n]] for _ in range(draws)])


@pytest.mark.parametrize("model", MODELS)
def test_covers_the_score_of_real_answers(mmlu_pro, model):
    """75 of 12,032 documents, 2,000 times."""
    values = mmlu_pro[model]
    bounds = np.array([wilson(k, 75) for k in range(76)])
    x = drawn(values, 75, 2000)
    low, high = bounds[x.sum(axis=1).astype(int)].T
    assert 0.93 <= ((low <= values.mean()) & (values.mean() <= high)).mean() <= 0.97
    low, high = betting.fixed_bounds(x, 0.05)
    least = 0.95 - 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert ((low <= values.mean()) & (values.mean() <= high)).mean() >= least


def test_betting_covers_the_mean_of_real_shares(instructions):
    assert ((instructions > 0) & (instructions < 1)).any(), "not all right or wrong"
    low, high = betting.fixed_bounds(drawn(instructions, 75, 2000), 0.05)
    covered = ((low <= instructions.mean()) & (instructions.mean() <= high)).mean()
    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 2000)


# ------------------------------------------------------------------------------------------- standard errors

values_in_clusters = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=1, max_size=40)


@given(values_in_clusters)
def test_standard_errors_are_their_formulas(pairs):
    values, clusters = np.array([v for v, _ in pairs]), np.array([c for _, c in pairs])
    assert standard_error(values.tolist()) == pytest.approx(values.std() / math.sqrt(len(values)), abs=1e-9)
    sums = [(values - values.mean())[clusters == c].sum() for c in set(clusters.tolist())]
    expected = math.sqrt(np.square(sums).sum()) / len(values)
    assert clustered_standard_error(values.tolist(), clusters.tolist()) == pytest.approx(expected, abs=1e-9)


def test_clusters_of_one_change_nothing_and_copies_of_docs_tell_nothing_new():
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert clustered_standard_error(values, range(7)) == pytest.approx(standard_error(values))
    assert design_effect(values, range(7)) == pytest.approx(1.0)
    copies, clusters = values * 4, [*range(7)] * 4
    assert clustered_standard_error(copies, clusters) == pytest.approx(standard_error(values))
    assert effective_n(copies, clusters) == pytest.approx(7)
    assert wilson(5 / 7 * effective_n(copies, clusters), effective_n(copies, clusters)) == pytest.approx(
        wilson(5, 7)
    )


def test_clusters_equal_statsmodels():
    chance = np.random.default_rng(1)
    clusters = chance.integers(0, 12, 90)
    values = (chance.random(90) < 0.3 + 0.05 * clusters).astype(float)
    options = {"groups": clusters, "use_correction": False}
    fitted = OLS(values, np.ones(90)).fit(cov_type="cluster", cov_kwds=options)
    assert clustered_standard_error(values.tolist(), clusters.tolist()) == pytest.approx(
        fitted.bse[0], rel=1e-9
    )


def test_equal_values_are_taken_for_dependent():
    assert design_effect([1.0] * 6, ["a", "a", "a", "b", "b", "b"]) == 3
    assert effective_n([1.0] * 6, ["a", "a", "a", "b", "b", "b"]) == 2


@given(values_in_clusters)
def test_clusters_never_make_more_of_the_docs(pairs):
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    assert design_effect(values, clusters) >= 1
    assert 0 < effective_n(values, clusters) <= len(values)


def test_widening_for_clusters_restores_coverage():
    """20 passages with 5 questions each, answered together: the plain interval misses far too often."""
    chance = np.random.default_rng(2)
    held = {"plain": 0, "clustered": 0}
    clusters = [i // 5 for i in range(100)]
    for _ in range(600):
        values = np.repeat(chance.random(20) < 0.6, 5).astype(float).tolist()
        n = effective_n(values, clusters)
        mean = sum(values) / 100
        for name, (low, high) in {
            "plain": wilson(sum(values), 100),
            "clustered": wilson(mean * n, n),
        }.items():
            held[name] += low <= 0.6 <= high
    assert held["plain"] / 600 < 0.75
    assert held["clustered"] / 600 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [([], [], "at least one value"), ([1.0], [], "one cluster per value, got 0 for 1")],
)
def test_standard_errors_of_nothing_are_refused(values, clusters, message):
    with pytest.raises(ValueError, match=message):
        clustered_standard_error(values, clusters)


# ------------------------------------------------------------------------------- values between 0 and 1


def test_right_and_wrong_docs_stand_for_themselves():
    assert bounded_n([0, 1, 1.0, True]) == 4.0
    assert bounded_n([1.0]) == 1.0


def test_bounded_values_by_hand():
    values = [0.5, 0.5, 0.8, 0.2]
    q, variance = (2 + 0.5) / 5, (0.09 + 0.09) / 4
    expected = 4 * q * (1 - q) * 5 / (4 * variance + q * (1 - q))
    assert bounded_n(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[], [1.1, 0.5], [-0.1], [math.nan]])
def test_what_is_no_bounded_value_is_refused(values):
    with pytest.raises(ValueError, match="from 0 to 1"):
        bounded_n(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_bounded_values_tell_at_least_about_as_much_as_a_coin(values):
    alike, n = bounded_n(values), len(values)
    assert n * n / (n + 1) - 1e-9 <= alike <= n * (n + 1) + 1e-9
    low, high = wilson(math.fsum(values) / n * alike, alike)
    assert (
        -1e-12 <= low <= math.fsum(values) / n + 1e-12 and math.fsum(values) / n - 1e-12 <= high <= 1 + 1e-12
    )


@pytest.mark.parametrize(("a", "b"), [(8, 2), (2, 1), (0.5, 0.2)])
def test_the_interval_of_bounded_values_holds_and_is_narrower_than_a_coins(a, b):
    """Fifty docs of three kinds of scores: coverage from 93.5 to 97 %, .3 to .8 of the width."""
    chance, truth, plays = np.random.default_rng(20260301), a / (a + b), 1500
    held, width, of_coin = 0, 0.0, 0.0
    for values in chance.beta(a, b, (plays, 50)):
        mean, alike = float(values.mean()), bounded_n(values.tolist())
        low, high = wilson(mean * alike, alike)
        held += low <= truth <= high
        width += high - low
        ends = wilson(mean * 50, 50)
        of_coin += ends[1] - ends[0]
    assert 0.935 <= held / plays <= 0.97
    assert 0.3 <= width / of_coin <= 0.8
