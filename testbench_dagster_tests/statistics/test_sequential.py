"""Wald's sequential test: thresholds, the figures it was chosen for, and its error rates by simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from testbench_dagster.statistics.sequential import SequentialVerdict, docs_to_decide, sprt

GATE = (0.7, 0.9, 0.01, 0.01)  # fail, pass, alpha, beta


def coins(p: float, n: int, chance: random.Random) -> list[float]:
    return [float(chance.random() < p) for _ in range(n)]


def beta_scores(mean: float, n: int, chance: random.Random) -> list[float]:
    """Scores spread over [0, 1] with the given mean."""
    return [chance.betavariate(4 * mean, 4 * (1 - mean)) for _ in range(n)]


def test_right_answers_alone_pass_and_wrong_ones_fail_at_the_thresholds() -> None:
    gain, loss = math.log(0.9 / 0.7), math.log(0.1 / 0.3)
    to_pass = math.ceil(math.log(0.99 / 0.01) / gain)
    to_fail = math.ceil(math.log(0.01 / 0.99) / loss)
    assert (to_pass, to_fail) == (19, 5)
    assert sprt([1.0] * (to_pass - 1), *GATE).decision == "undecided"
    assert sprt([1.0] * to_pass, *GATE) == SequentialVerdict(
        "pass", pytest.approx(to_pass * gain), to_pass, to_pass
    )
    assert sprt([0.0] * 4, *GATE).decision == "undecided"
    assert sprt([0.0] * 5, *GATE) == SequentialVerdict("fail", pytest.approx(5 * loss), 5, 5)


def test_the_first_crossing_decides() -> None:
    passed_first = sprt([1.0] * 19 + [0.0] * 40, *GATE)
    assert (passed_first.decision, passed_first.n, passed_first.decided_at) == ("pass", 59, 19)
    assert sprt([0.0] * 5 + [1.0] * 90, *GATE).decision == "fail"


def test_without_scores_nothing_is_decided() -> None:
    assert sprt([], *GATE) == SequentialVerdict("undecided", 0.0, 0, None)
    assert docs_to_decide([], *GATE) is None


@pytest.mark.parametrize(
    ("p", "low", "high", "decision"),
    [(0.5, 9, 14, "fail"), (0.6, 14, 21, "fail"), (0.9, 36, 44, "pass"), (0.95, 24, 29, "pass")],
)
def test_it_needs_the_samples_it_was_chosen_for(p: float, low: int, high: int, decision: str) -> None:
    """reference/statistics.md 3.2: 12-18 docs to fail 0.5-0.6, 40 to pass 0.9, 26 to pass 0.95."""
    chance = random.Random(20260301)
    verdicts = [sprt(coins(p, 400, chance), *GATE) for _ in range(1000)]
    needed = sum(v.decided_at or 400 for v in verdicts) / len(verdicts)
    assert low <= needed <= high
    assert sum(v.decision == decision for v in verdicts) / len(verdicts) > 0.98


@pytest.mark.parametrize("scores", [coins, beta_scores])
@pytest.mark.parametrize(("mean", "wrong"), [(0.7, "pass"), (0.9, "fail")])
def test_wrong_decisions_are_as_rare_as_promised(scores, mean: float, wrong: str) -> None:
    chance = random.Random(7)
    runs = 4000
    share = sum(sprt(scores(mean, 150, chance), *GATE).decision == wrong for _ in range(runs)) / runs
    bound = 0.01 / 0.99
    assert share <= bound + 3 * math.sqrt(bound * (1 - bound) / runs)


@pytest.mark.parametrize("right", [57, 52, 48, 40])
def test_the_docs_still_needed_are_about_what_it_then_takes(right: int) -> None:
    """Going on from 60 scores at their own mean, with thresholds far enough to be undecided after them."""
    chance = random.Random(3)
    rule = (0.7, 0.9, 1e-7, 1e-7)
    seen = [1.0] * right + [0.0] * (60 - right)
    chance.shuffle(seen)
    predicted = docs_to_decide(seen, *rule)
    assert predicted
    runs = [sprt(seen + coins(right / 60, 1500, chance), *rule).decided_at or 1560 for _ in range(300)]
    assert predicted == pytest.approx(sum(runs) / len(runs) - 60, rel=0.15, abs=4)


def test_the_docs_still_needed_where_the_mean_points_nowhere() -> None:
    """At the mean where the ratio does not drift it leaves by chance alone, if the scores differ at all."""
    gain, loss = math.log(0.9 / 0.7), math.log(0.1 / 0.3)
    level = -loss / (gain - loss)
    far = math.log(0.99 / 0.01)
    assert docs_to_decide([level - 0.1, level + 0.1], *GATE) == math.ceil(far**2 / (0.1 * (gain - loss)) ** 2)
    assert docs_to_decide([level], *GATE) is None


unit = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(unit, max_size=60), st.floats(0.05, 0.9), st.floats(0.02, 0.5), st.floats(0.001, 0.4))
def test_more_scores_never_change_a_decision(
    values: list[float], fail: float, gap: float, rate: float
) -> None:
    assume(fail + gap < 0.99)
    rule = (fail, fail + gap, rate, rate)
    decided = [sprt(values[:n], *rule) for n in range(len(values) + 1)]
    final = decided[-1]
    for n, verdict in enumerate(decided):
        assert verdict.n == n
        if final.decided_at is not None and n >= final.decided_at:
            assert (verdict.decision, verdict.decided_at) == (final.decision, final.decided_at)
        else:
            assert verdict.decision == "undecided"
        more = docs_to_decide(values[:n], *rule)
        assert (more == 0) == (verdict.decided_at is not None)


@given(
    st.lists(unit, min_size=1, max_size=40), st.floats(0.05, 0.6), st.floats(0.02, 0.3), st.floats(0.001, 0.4)
)
def test_wrong_answers_mirror_right_ones(values: list[float], fail: float, gap: float, rate: float) -> None:
    """Testing 1 - x for 1 - p swaps pass and failure."""
    straight = sprt(values, fail, fail + gap, rate, rate)
    mirrored = sprt([1 - v for v in values], 1 - fail - gap, 1 - fail, rate, rate)
    assume(abs(abs(straight.log_ratio) - math.log((1 - rate) / rate)) > 1e-6)
    swap = {"pass": "fail", "fail": "pass", "undecided": "undecided"}
    assert mirrored.decision == swap[straight.decision]
    assert mirrored.log_ratio == pytest.approx(-straight.log_ratio, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "rule", "said"),
    [
        ([0.5], (0.9, 0.7, 0.01, 0.01), "fail 0.9"),
        ([0.5], (0.0, 0.7, 0.01, 0.01), "fail 0.0"),
        ([0.5], (0.7, 1.0, 0.01, 0.01), "pass 1.0"),
        ([0.5], (0.7, 0.9, 0.0, 0.01), "alpha"),
        ([0.5], (0.7, 0.9, 0.01, 0.5), "beta"),
        ([1.5], GATE, "got 1.5"),
        ([math.nan], GATE, "got nan"),
    ],
)
def test_bad_input_is_refused(values: list[float], rule: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sprt(values, *rule)
