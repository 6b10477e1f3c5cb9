"""E-values of pairs of histories: by hand, against their definitions, and how often they err by chance."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.coincidences import (
    SHARES,
    chances_of_onsets,
    log_e_of_coins,
    log_e_of_directions,
    log_e_of_events,
    same_draws,
    steps,
    without_common,
)

DAY = 86400.0


def test_a_place_weighs_as_much_as_the_time_before_it_and_at_least_as_one_look() -> None:
    at = np.array([0.0, 100.0, 200.0, 900.0])
    second = np.array([False, False, False, True])
    # by time 700 of 900 s, by looks 1 of 3: the first look has none before it
    assert chances_of_onsets(at, second, DAY) == pytest.approx([7 / 9] * 4)
    second = np.array([False, True, False, False])
    assert chances_of_onsets(at, second, DAY) == pytest.approx([1 / 3] * 4)


def test_chances_are_of_the_block_and_of_the_hour() -> None:
    at = np.array([0.0, 3600.0, 7200.0, DAY + 3600.0, DAY + 7200.0])
    second = np.array([False, False, True, False, False])
    assert chances_of_onsets(at, second, DAY)[:3] == pytest.approx([0.5] * 3)
    assert chances_of_onsets(at, second, DAY)[3:] == pytest.approx([0.0] * 2)
    profile = np.ones(24)
    profile[2] = 9.0  # outages begin at two o'clock nine times as often
    assert chances_of_onsets(at, second, DAY, profile)[:3] == pytest.approx([0.9] * 3)


def test_events_by_definition() -> None:
    hits, chances = np.array([True, False, True]), np.array([0.1, 0.2, 0.25])

    def bet(share: float) -> float:
        factors = [
            1 + share * (1 / p - 1) if hit else 1 - share for hit, p in zip(hits, chances, strict=True)
        ]
        return math.prod(factors)

    expected = sum(map(bet, SHARES)) / len(SHARES)
    assert log_e_of_events(hits, chances) == pytest.approx(math.log(expected))


def test_what_can_hardly_be_missed_says_nothing_and_what_cannot_be_met_is_a_miss() -> None:
    assert log_e_of_events(np.array([True, True]), np.array([0.9, 0.6])) == 0.0
    assert log_e_of_events(np.array([False]), np.array([0.0])) < 0.0


@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_events_bet_fairly(chances: list[float]) -> None:
    """The mean of the e-value over all outcomes is 1 where each event is a hit by its own chance."""
    p = np.array(chances)
    mean = 0.0
    for number in range(2 ** len(p)):
        hits = np.array([bool(number >> i & 1) for i in range(len(p))])
        weight = float(np.prod(np.where(hits, p, 1 - p)))
        mean += weight * math.exp(log_e_of_events(hits, p))
    assert mean == pytest.approx(1.0, abs=1e-9)


def test_steps_use_each_column_once_and_only_neighbours() -> None:
    values = np.array([[1.0, 3.0, 2.0, 9.0, 4.0], [0.0, np.nan, 5.0, 1.0, 1.0]])
    found = steps(values, np.array([0.0, 10.0, 20.0, 200.0, 210.0]), 60.0)
    assert found.shape == (2, 2)
    assert found[0].tolist() == [2.0, -5.0]
    assert np.isnan(found[1, 0])
    assert found[1, 1] == 0.0


def test_what_is_common_is_taken_away_as_far_as_each_follows_it() -> None:
    rng = np.random.default_rng(1)
    common, own = rng.normal(size=4000), rng.normal(size=(2, 4000)) * 0.1
    moves = np.array([[3.0], [0.2]]) * common + own
    rest = without_common(moves, common)
    assert np.abs(rest - own).max() < 0.1
    assert abs(float(np.corrcoef(rest[0], rest[1])[0, 1])) < 0.05


def test_directions_are_counted_pair_by_pair() -> None:
    first = np.array([[1.0, -1.0, 2.0, np.nan], [1.0, 1.0, 1.0, 1.0]])
    log_e, alike, tosses = log_e_of_directions(first, first, 0.5)
    assert tosses.tolist() == [[3, 3], [3, 4]]
    assert alike.tolist() == [[3, 2], [2, 4]]
    assert log_e[0, 0] == pytest.approx(float(log_e_of_coins(np.array(3), np.array(0))))


def test_draws_are_compared_as_made_and_swapped() -> None:
    straight, crossed = np.zeros((4, 4), dtype=int), np.zeros((4, 4), dtype=int)
    # rows 0 and 1 drew the same in the same order, 3 in the other; 2 has one in common with each
    rows = np.array([0, 1, 2, 3])
    same_draws(np.array([1, 1, 1, 2]), np.array([2, 2, 5, 1]), straight, crossed, rows)
    assert (straight[0, 1], crossed[0, 1]) == (1, 0)
    assert (straight[0, 3], crossed[0, 3]) == (0, 1)
    assert (straight[0, 2], crossed[0, 2]) == (1, 0)
    assert (straight[2, 3], crossed[2, 3]) == (0, 1)
    assert (straight == straight.T).all()
    assert (crossed == crossed.T).all()


def test_a_pair_counts_as_often_straight_as_crossed_where_one_is_permuted() -> None:
    """Whatever two drew: over both orders of one of them a fair coin."""
    for draws in permutations(range(3), 2):
        for others in permutations(range(3), 2):
            counts = []
            for order in (others, others[::-1]):
                straight, crossed = np.zeros((2, 2), dtype=int), np.zeros((2, 2), dtype=int)
                first, second = np.array([draws[0], order[0]]), np.array([draws[1], order[1]])
                same_draws(first, second, straight, crossed, np.array([0, 1]))
                counts.append((straight[0, 1], crossed[0, 1]))
            assert counts[0] == counts[1][::-1]
