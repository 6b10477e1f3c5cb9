"""Bias and coverage of scores whose number of docs everybody shares, through planner, rows and rollup."""

from __future__ import annotations

import pytest

from testbench_dagster.core.sampling import asks_again
from testbench_dagster_tests.planning.simulated_epochs import DOCS, RULE, asked, play_epochs, slots

SPANS = [(0.85, 0.85), (0.7, 0.95), (0.05, 0.95)]


@pytest.mark.slow(minutes=4)
@pytest.mark.parametrize("shares", [*SPANS, (0.5, 0.5), (0.8, 0.8), (0.95, 0.95)])
def test_scores_are_unbiased_and_intervals_hold(shares: tuple[float, float]) -> None:
    for found in play_epochs(shares, (14, 52, 105), plays=1000, seed=20260301):
        assert all(abs(bias) <= 0.002 for bias in found.bias.values())
        assert all(0.93 <= coverage <= 0.97 for coverage in found.coverage.values())
    if shares == (0.85, 0.85):
        assert 0.9 * 52 <= found.docs <= 1.1 * 52


@pytest.mark.slow(minutes=4)
def test_nor_where_suppliers_are_right_at_the_same_docs() -> None:
    for found in play_epochs((0.85, 0.85), (14, 105), plays=400, seed=20260301, alike=0.4):
        assert all(abs(bias) <= 0.002 for bias in found.bias.values())
        assert all(0.92 <= coverage <= 0.98 for coverage in found.coverage.values())


@pytest.mark.parametrize("shares", SPANS)
def test_a_short_play_of_it_holds(shares: tuple[float, float]) -> None:
    for found in play_epochs(shares, (14,), plays=60, seed=20260301, epochs=4):
        assert abs(found.bias[14]) <= 0.006
        assert found.coverage[14] >= 0.85


def test_the_slots_of_the_first_epochs() -> None:
    """Fifty docs; ten more wanted, but only half of them are of the first; later those fall due."""
    path, variances = ((50, 0), (60, 2), (60, 2), (60, 2)), (None, 0.16, 0.16, 0.16)
    first, second = set(slots(path[:1], variances[:1])), set(slots(path[:2], variances[:2]))
    kept, new = first & second, second - first
    assert (len(first), len(kept), len(new)) == (50, 30, 30)
    third = set(slots(path[:3], variances[:3]))
    repeated = {doc for doc in kept if asks_again("seed 3", doc)}
    assert 8 <= len(repeated) <= 22
    assert len(third) == 60 and third >= repeated | new
    assert not third & (kept - repeated), "half of the due slots take other docs"
    assert not third & (first - kept), "what left its slot does not come back"
    fourth = set(slots(path, variances))
    assert len(fourth & new) < 30 and len(fourth) == 60
    assert len(asked(path, variances)) == 50 + 30 + 30 + 30, "each slot once in so many days"


def test_a_smaller_number_takes_other_docs_too() -> None:
    path, variances = ((50, 0), (40, 2)), (None, 0.1)
    kept = set(slots(path, variances)) & set(slots(path[:1], variances[:1]))
    assert len(kept) == 20
    assert len(asked(path, variances)) == 70
    assert RULE.max < DOCS


def test_the_number_alone_leaves_the_docs_as_they_are() -> None:
    """Where nothing that was answered set it, as below five groups."""
    path, variances = ((50, 0), (50, 0)), (None, None)
    assert slots(path, variances) == slots(path[:1], variances[:1])
    assert len(asked(path, variances)) == 50
