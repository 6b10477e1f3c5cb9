"""Bounds of the mean over tasks: valid whenever one looks, and narrow where tasks have many docs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.betting import refuting, round_bounds, spread_capital
from testbench_dagster.statistics.paired import docs_to_decide, docs_to_decide_overall
from testbench_dagster.statistics.sequences import bounds_of_many, mean_bounds
from testbench_dagster.statistics.strata import Rounds, rounds_of
from testbench_dagster.statistics.strata import bounds_of_many as bounds_of_rounds


def test_rounds_take_docs_at_the_rates_and_end_with_the_first_task_that_has_too_few() -> None:
    first, second, third = [0.1] * 3, [0.2] * 5, [0.3] * 9
    rounds = rounds_of([first, second, third], [10, 15, 20])
    assert rounds.ends == (3, 8, 12)
    assert rounds.scores[:9] == (0.1, 0.2, 0.3, 0.3, 0.1, 0.2, 0.2, 0.3, 0.3)
    assert rounds.stakes[:9] == (1, 1, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 0.5)
    assert (len(rounds.scores), len(rounds.stakes)) == (13, 13)
    shorter = rounds_of([first[:2], second, third], [10, 15, 20])
    assert shorter.scores == rounds.scores[:9], "further docs come behind"
    assert rounds_of([first, []], [1, 1]) == rounds_of([], []) == Rounds((), (), ())
    assert Rounds((), (), ()).bounds() == (0, 1)


def test_one_task_has_the_bounds_of_its_mean() -> None:
    scores = np.random.default_rng(3).random(120).tolist()
    assert rounds_of([scores], [7]).bounds(0.1) == mean_bounds(scores, 0.1)
    assert docs_to_decide_overall(rounds_of([scores], [7]), 0.1) == docs_to_decide(scores, 0.1)


@pytest.mark.parametrize("rates", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan], [1.0, math.inf]])
def test_wrong_rates_are_refused(rates: list[float]) -> None:
    with pytest.raises(ValueError, match="want a rate above 0 of each of 2 tasks"):
        rounds_of([[0.5], [0.5]], rates)


def test_wrong_scores_and_margins_are_refused() -> None:
    with pytest.raises(ValueError, match="a score must lie between 0 and 1, got 2"):
        rounds_of([[2.0], [0.5]], [1, 1]).bounds()
    with pytest.raises(ValueError, match="margin must lie between 0 and 1"):
        docs_to_decide_overall(rounds_of([[0.5], [0.5]], [1, 1]), margin=2.0)


#: Mean score and number of docs of the tasks.
CASES = {
    "as many of each": ((0.35, 40), (0.5, 40), (0.65, 40)),
    "far apart": ((0.98, 60), (0.02, 60)),
    "many more of one": ((0.7, 20), (0.4, 400)),
    "rates that fit no round": ((0.45, 20), (0.6, 35), (0.5, 90)),
}
ALPHA = 0.1


def simulated(case: str, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Many samples of 0 and 1 dealt into rounds: the scores, stakes and ends of rounds, and the true mean."""
    chance = np.random.default_rng(11)
    columns = np.hstack([chance.random((samples, n)) < mean for mean, n in CASES[case]]).astype(float)
    docs = [n for _, n in CASES[case]]
    # the layout does not depend on scores: it is made once, of the numbers of columns
    starts = np.cumsum([0, *docs])
    layout = rounds_of([list(range(a, b)) for a, b in pairwise(starts)], docs)
    truth = sum(mean for mean, _ in CASES[case]) / len(docs)
    return columns[:, layout.scores], np.asarray(layout.stakes), np.asarray(layout.ends), truth


def missed(scores: np.ndarray, truth: float, stakes: np.ndarray, looks: np.ndarray) -> float:
    """Share of samples in which one of the bounds excluded the truth at one of the looks."""
    out = np.zeros(len(scores), dtype=bool)
    for side, mean in ((scores, truth), (1 - scores, 1 - truth)):
        capital = spread_capital(side, np.asarray(mean), stakes=stakes)
        out |= capital[:, looks].max(axis=-1) >= refuting(ALPHA)
    return float(out.mean())


@pytest.mark.parametrize("case", CASES)
def test_looking_after_every_round_misses_the_truth_no_more_often_than_alpha(case: str) -> None:
    scores, stakes, ends, truth = simulated(case, 3000)
    assert missed(scores, truth, stakes, ends) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 3000)


def test_without_rounds_the_same_bets_miss_it() -> None:
    scores, stakes, _, truth = simulated("far apart", 300)
    one_after_the_other = np.hstack([scores[:, 0::2], scores[:, 1::2]])
    looks = np.arange(scores.shape[1])
    assert missed(one_after_the_other, truth, stakes, looks) > 0.9


def test_bounds_are_where_the_capital_refutes() -> None:
    scores, stakes, ends, _ = simulated("many more of one", 5)
    low, high = round_bounds(scores, stakes, ends, ALPHA)
    for row, a, b in zip(scores, low, high, strict=True):
        for side, bound in ((row, a), (1 - row, 1 - b)):
            capital = [
                spread_capital(side, np.asarray(mean), stakes=stakes)[ends].max()
                for mean in (bound - 1e-9, bound + 1e-9)
            ]
            assert capital[0] >= refuting(ALPHA) > capital[1]


@pytest.mark.parametrize(
    ("docs", "narrower"), [((75, 75, 150, 300), 0.75), ((60, 600), 0.8), ((75,) * 20, 0.5)]
)
def test_intervals_are_narrower_than_by_means_of_one_doc_per_task(
    docs: tuple[int, ...], narrower: float
) -> None:
    chance = np.random.default_rng(5)
    widths, old_widths, of_one_look = [], [], []
    for _ in range(8):
        tasks = [chance.choice([0.0, 0.5, 1.0], size=n, p=[0.1, 0.75, 0.15]) for n in docs]
        low, high = rounds_of([task.tolist() for task in tasks], docs).bounds()
        assert low < 0.525 < high
        widths.append(high - low)
        low, high = mean_bounds([math.fsum(scores) / len(docs) for scores in zip(*tasks, strict=False)])
        old_widths.append(high - low)
        error = math.sqrt(sum(np.var(task) / len(task) for task in tasks)) / len(docs)
        of_one_look.append(2 * 1.96 * error)
    assert sum(widths) < narrower * sum(old_widths)
    assert sum(widths) < 1.8 * sum(of_one_look)


@pytest.mark.slow
def test_further_docs_until_a_verdict_are_about_as_many_as_it_then_takes() -> None:
    chance = np.random.default_rng(8)
    ratios = []
    for _ in range(9):
        first, second = (
            chance.choice([0.0, 0.5, 1.0], size=n, p=[0.1, 0.75, 0.15]).tolist() for n in (4000, 8000)
        )

        def dealt(n: int, first: list[float] = first, second: list[float] = second) -> Rounds:
            return rounds_of([first[:n], second[: 2 * n]], [1, 2])

        further = docs_to_decide_overall(dealt(50))
        if further == 0:
            continue
        needed = 3 * next(n for n in range(50, 4000, 60) if dealt(n).bounds()[0] > 0.5)
        ratios.append((math.inf if further is None else further) / (needed - 150))
    assert len(ratios) > 5 and 0.5 < np.median(ratios) < 2
    assert docs_to_decide_overall(dealt(4000)) == 0


def test_bounds_of_many_are_those_of_each_to_the_last_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal and of other lengths, of equal samples, of none, each with its own alpha; in batches too."""
    chance = np.random.default_rng(20261130)
    samples = [chance.choice([0.0, 0.5, 1.0], size=n, p=[0.1, 0.8, 0.1]).tolist() for n in [40] * 9 + [7, 0]]
    samples += [samples[3], [1.0] * 40, [0.0] * 40, chance.random(40).tolist()]
    alphas = [0.05 if n % 3 else 0.0025 for n in range(len(samples))]
    alone = [mean_bounds(one, alpha) for one, alpha in zip(samples, alphas, strict=True)]
    assert bounds_of_many(samples, alphas) == alone
    assert len(set(alone)) > 10
    rounds = [rounds_of([one, samples[0]], [2, 1]) for one in samples]
    each = [one.bounds(0.0025) for one in rounds]
    assert bounds_of_rounds(rounds, 0.0025) == each
    monkeypatch.setattr(betting, "_AT_ONCE", 1000)
    assert bounds_of_many(samples, alphas) == alone and bounds_of_rounds(rounds, 0.0025) == each
    assert bounds_of_many([], []) == bounds_of_rounds([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds_of_many([[0.5, 2.0]], [0.05])


@pytest.mark.parametrize("bank", [None, 60])
def test_capitals_that_cannot_refute_are_left_out_and_no_other(bank: int | None) -> None:
    chance = np.random.default_rng(20261130)
    scores = (chance.random((5, 50)) < 0.7).astype(float)
    for mean in (0.0, 0.2, 0.4, 0.6, 0.9):
        every = spread_capital(scores, np.full((5, 1), mean), bank)
        some = spread_capital(scores, np.full((5, 1), mean), bank, least=3.0)
        assert np.array_equal(np.where(every >= 3.0, every, 0), np.where(some >= 3.0, some, 0))
