"""The F1 of decisions: its value, its interval, and how often that holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from testbench_dagster.statistics.f1 import F1, f1

SEED = 20261130


def decided(both: int, ours: int, theirs: int, neither: int) -> list[tuple[bool, bool]]:
    counts = {(True, True): both, (True, False): ours, (False, True): theirs, (False, False): neither}
    return [two for two, n in counts.items() for _ in range(n)]


def test_the_value_is_the_harmonic_mean_of_precision_and_recall() -> None:
    found = f1(decided(30, 10, 20, 40))
    assert found is not None
    precision, recall = 30 / 40, 30 / 50
    assert found.value == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.low < found.value < found.high


def test_nobody_said_yes_is_no_f1() -> None:
    assert f1(decided(0, 0, 0, 12)) is None and f1([]) is None


def test_the_same_seed_gives_the_same_interval_in_whatever_order() -> None:
    docs = decided(30, 10, 20, 40)
    assert f1(docs) == f1(docs[::-1])
    assert f1(docs, seed=1) != f1(docs, seed=2)


@pytest.mark.parametrize("n", [1, 10, 300])
def test_decisions_that_never_differ_are_sure_only_by_their_number(n: int) -> None:
    same, opposite = f1(decided(n, 0, 0, 0)), f1(decided(0, n, 0, 0))
    q = 0.025 ** (1 / n)
    assert same == F1(1.0, pytest.approx(2 * q / (1 + q)), 1.0)
    assert opposite == F1(0.0, 0.0, pytest.approx(2 * (1 - q) / (2 - q)))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(SEED)
    shares = [0.5, 0.08, 0.07, 0.35]
    truth = 2 * 0.5 / (1 + 0.15)
    held = 0
    for number, counts in enumerate(rng.multinomial(200, shares, 300)):
        found = f1(decided(*map(int, counts)), seed=number)
        assert found is not None
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 300 <= 0.985
