"""The detector of falls below 0 against its definition and its promise, and the interval that dates them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.mean_change import (
    SHARES,
    Stretches,
    change_interval,
    levels_by_share,
    log_levels,
    nothing_bet,
)

differences = st.lists(st.floats(-1, 1, allow_nan=False), max_size=40)


def by_definition(values: Sequence[float]) -> list[float]:
    """M of each share, one difference after the other."""
    levels, found = [0.0] * len(SHARES), []
    for x in values:
        levels = [(m + 1) * (1 - share * x) for m, share in zip(levels, SHARES, strict=True)]
        found.append(math.log(statistics.fmean(levels)))
    return found


@given(differences)
def test_levels_are_those_of_the_definition(values: list[float]) -> None:
    assert log_levels(np.array(values)) == pytest.approx(by_definition(values))


def test_levels_beyond_all_floats_are_told() -> None:
    level = log_levels(np.full(20_000, -1.0))
    assert np.all(np.isfinite(level)) and level[-1] == pytest.approx(20_000 * math.log(1.7), rel=0.01)


@pytest.mark.parametrize("kind", ["coin", "rare", "smooth"])
def test_false_alarms_are_as_rare_as_asked_for(kind: str) -> None:
    """Mean time to an alarm at A = 100 of at least 100, at the boundary: a mean of exactly 0."""
    rng, most, arl = np.random.default_rng(4), 3000, 100.0
    times = []
    for _ in range(300):
        if kind == "coin":
            values = rng.choice([-0.5, 0.5], most)
        elif kind == "rare":
            values = np.where(rng.random(most) < 0.05, rng.choice([-1.0, 1.0], most), 0.0)
        else:
            values = rng.uniform(-0.3, 0.3, most)
        reached = np.flatnonzero(log_levels(values) >= math.log(arl))
        # who has no alarm counts as having one at the end, which only lowers the mean
        times.append(int(reached[0]) + 1 if len(reached) else most)
    print(kind, statistics.fmean(times))
    assert statistics.fmean(times) >= arl
    assert min(times) < most, "alarms do happen, so the mean means something"


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=40), st.data())
def test_an_interval_lies_within_what_was_seen(values: list[float], data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.integers(0, 1), min_size=len(values), max_size=len(values)))
    given_ = np.array(values), np.array(kinds)
    low, high = change_interval(*given_)
    assert 0 <= low <= high < len(values)
    narrow = change_interval(*given_, coverage=0.5)
    assert low <= narrow[0] <= narrow[1] <= high


def test_an_interval_holds_the_change_as_often_as_it_says() -> None:
    """Two kinds, one of which varies little before the change."""
    rng = np.random.default_rng(7)
    for fall in (0.1, 0.3):
        held = 0
        for _ in range(300):
            before, after = 200, round(6 / fall) + 20
            kinds = rng.integers(2, size=before + after)
            values = np.where(kinds == 1, rng.normal(0, 0.4, len(kinds)), rng.normal(0, 0.1, len(kinds)))
            values[before:] -= fall
            low, high = change_interval(values.clip(-1, 1), kinds)
            held += low <= before <= high
        print(fall, held / 300)
        assert held / 300 >= 0.9


def test_what_cannot_be_used_is_refused() -> None:
    for values in ([1.1], [0.0, -1.0001], [math.nan]):
        with pytest.raises(ValueError, match="between -1 and 1"):
            log_levels(np.array(values))
        with pytest.raises(ValueError, match="between -1 and 1"):
            change_interval(np.array(values), np.zeros(len(values), int))
    with pytest.raises(ValueError, match="no change to date"):
        change_interval(np.zeros(0), np.zeros(0, int))
    assert len(log_levels(np.zeros(0))) == 0


# ------------------------------------------------------------------------------------------------ stretches

some = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0, math.nan]), min_size=1, max_size=40)


@given(differences, differences)
def test_levels_go_on_from_those_before(first: list[float], second: list[float]) -> None:
    before = levels_by_share(np.array(first))[-1] if first else nothing_bet()
    whole = log_levels(np.array(first + second))
    assert log_levels(np.array(second), before) == pytest.approx(whole[len(first) :])


def starts_of(data: st.DataObject, n: int) -> list[int]:
    return [0, *sorted(data.draw(st.sets(st.integers(1, n - 1))))] if n > 1 else [0]


@given(some, st.data())
def test_stretches_hold_what_their_differences_came_to(values: list[float], data: st.DataObject) -> None:
    """Also those that were joined of joined ones; what is no number is not there."""
    kinds = data.draw(st.lists(st.integers(0, 1), min_size=len(values), max_size=len(values)))
    each = Stretches.of_each(np.array(values), np.array(kinds), 2)
    starts = starts_of(data, len(values))
    again = starts_of(data, len(starts))
    joined = each.joined(np.array(starts)).joined(np.array(again))
    bounds = [*(starts[place] for place in again), len(values)]
    for stretch, (first, end) in enumerate(itertools.pairwise(bounds)):
        for kind in (0, 1):
            there = [
                [x] if of == kind and not math.isnan(x) else []
                for x, of in zip(values[first:end], kinds[first:end], strict=True)
            ]
            here = [x for some in there for x in some]
            until_the_end = [sum(x for some in there[place:] for x in some) for place in range(len(there))]
            found = (getattr(joined, name)[stretch, kind] for name in Stretches.__slots__)
            assert (*found,) == pytest.approx(
                (len(here), sum(here), sum(x * x for x in here), min(until_the_end), max(until_the_end))
            )


@settings(max_examples=300)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=2, max_size=40), st.data())
def test_an_interval_over_stretches_holds_that_over_differences(
    values: list[float], data: st.DataObject
) -> None:
    """Of kinds that were seen too seldom to vary otherwise than a coin: all are weighed alike."""
    given_, kinds = np.array(values), np.arange(len(values)) % 5
    coverage = data.draw(st.floats(0.05, 0.98))
    low, high = change_interval(given_, kinds, coverage)
    folded = data.draw(st.integers(1, len(values) - 1))
    starts = starts_of(data, folded)
    before = Stretches.of_each(given_[:folded], kinds[:folded], 5).joined(np.array(starts))
    found = change_interval(given_[folded:], kinds[folded:], coverage, before)
    firsts = [*starts, *range(folded, len(values) + 1)]
    assert firsts[found[0]] <= low and high < firsts[found[1] + 1]
    # of one difference each, all is known
    each = Stretches.of_each(given_[:folded], kinds[:folded], 5)
    assert change_interval(given_[folded:], kinds[folded:], coverage, each) == (low, high)
    turned = Stretches.of_each(-given_[:folded], kinds[:folded], 5).joined(np.array(starts))
    rising = change_interval(-given_[folded:], kinds[folded:], coverage, turned)
    assert change_interval(-given_[folded:], kinds[folded:], coverage, -before) == rising


def test_a_fall_at_the_end_of_a_long_stretch_is_in_its_interval() -> None:
    """Few differences follow it: weighed by all of the stretch it would look unlikely."""
    values, kinds = np.array([0.0] * 20 + [-1.0] * 6), np.arange(26) % 5
    assert change_interval(values, kinds)[0] <= 20
    before = Stretches.of_each(values[:21], kinds[:21], 5).joined(np.array([0]))
    assert change_interval(values[21:], kinds[21:], before=before)[0] == 0
