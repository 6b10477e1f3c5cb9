"""Bias and coverage of scores whose number of docs everybody shares, through planner, rows and rollup."""

from __future__ import annotations

import pytest

from testbench_dagster.core.sampling import asks_again
from testbench_dagster_tests.planning.simulated_epochs import DOCS, RULE, asked, play_epochs, slots

SPANS = [(0.85, 0.85), (0.7, 0.95), (0.05, 0.95)]


@pytest.mark.slow(minutes=4)
@pytest.mark.parametrize("shares", [*SPANS, (0.5, 0.5), (0.95, 0.95)])
def test_scores_are_unbiased_and_intervals_hold(shares: tuple[float, float]) -> None:
    for found in play_epochs(shares, (14, 52, 105), plays=1000, seed=20260301):
        assert all(abs(bias) <= 0.002 for bias in found.bias.values())
        assert all(0.93 <= coverage <= 0.97 for coverage in found.coverage.values())
    if shares == (0.85, 0.85):
        assert 0.9 * 52 <= found.docs <= 1.1 * 52


@pytest.mark.parametrize("shares", SPANS)
def test_a_short_play_of_it_holds(shares: tuple[float, float]) -> None:
    for found in play_epochs(shares, (14,), plays=60, seed=20260301):
        assert abs(found.bias[14]) <= 0.006
        assert found.coverage[14] >= 0.85


def test_the_slots_of_three_epochs() -> None:
    """Fifty docs, then ten more; later the fifty fall due, and half of them are asked again."""
    path, variances = (50, 60, 60), (None, 0.16, 0.16)
    first, second = set(slots(path[:1], variances[:1])), set(slots(path[:2], variances[:2]))
    assert len(first) == 50 and first < second and len(second) == 60
    third = set(slots(path, variances))
    repeated = {doc for doc in first if asks_again("seed 3", doc)}
    assert 15 <= len(repeated) <= 35
    assert len(third) == 60 and third >= repeated | (second - first)
    rounds = [one.round for one in asked(path, variances)]
    assert len(rounds) == 110
    assert 0 < rounds.count(2) <= len(repeated), "the new sequence may have a doc itself"


def test_a_smaller_number_keeps_what_was_asked() -> None:
    path, variances = (50, 40), (None, 0.1)
    assert set(slots(path, variances)) < set(slots(path[:1], variances[:1]))
    assert len(asked(path, variances)) == 50, "nothing more is asked"
    assert RULE.max < DOCS
