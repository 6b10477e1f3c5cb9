"""What the detector of scores bets on, against the same in plain loops, and what it never looks at."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.identity.score_differences import (
    FIRST_FIT,
    MARGIN,
    ScoreStream,
    differences,
)
from testbench_dagster_tests.identity.scored import Pool, asked, stream_of, synthetic

VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def stream(docs: list[int], values: list[float], peers: float = 0.0, n_peers: int = 0) -> ScoreStream:
    n = len(docs)
    return ScoreStream(
        np.arange(n),
        np.array(docs, np.int64),
        np.zeros(n, np.int64),
        np.array(values, float),
        np.full(n, peers),
        np.full(n, n_peers),
    )


@given(st.lists(st.tuples(st.integers(0, 5), VALUES), max_size=60))
def test_repeats_differ_from_the_mean_of_what_was_answered_before(given_: list[tuple[int, float]]) -> None:
    found = differences(stream([d for d, _ in given_], [v for _, v in given_]))
    earlier: dict[int, list[float]] = {}
    for place, (doc, value) in enumerate(given_):
        before = earlier.setdefault(doc, [])
        assert bool(found.repeat[place]) is bool(before)
        if before:
            x = value - statistics.fmean(before)
            assert found.fall[place] == pytest.approx(x)
            assert found.rise[place] == pytest.approx(-x)
        before.append(value)


def test_new_docs_differ_by_half_and_the_margin_is_taken_off_on_the_side_bet_on() -> None:
    values = [float(n % 4 > 0) for n in range(FIRST_FIT)] + [1.0, 0.0]
    found = differences(stream(list(range(len(values))), values))
    assert np.all(found.fall[:FIRST_FIT] == 0) and np.all(np.isnan(found.low[:FIRST_FIT]))
    share = statistics.fmean(values[:FIRST_FIT])
    variance = (FIRST_FIT * share * (1 - share) + 0.25) / (FIRST_FIT - 1)
    margin = MARGIN * math.sqrt(variance / FIRST_FIT)
    for place, value in ((FIRST_FIT, 1.0), (FIRST_FIT + 1, 0.0)):
        assert found.fall[place] == pytest.approx((value - share + margin) / 2)
        assert found.rise[place] == pytest.approx((share - value + margin) / 2)
        assert (found.low[place], found.high[place]) == pytest.approx((share - margin, share + margin))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(30, 900))
def test_nothing_follows_from_what_comes_later(seed: int, at: int) -> None:
    pool = POOL
    docs = asked(seed, 1000, len(pool.own), first=400)
    whole = stream_of(pool, docs, seed)
    part = ScoreStream(*(getattr(whole, name)[:at] for name in ScoreStream.__slots__))
    now, then = differences(part), differences(whole)
    for name in ("fall", "rise", "low", "high", "repeat"):
        assert np.array_equal(getattr(now, name), getattr(then, name)[:at], equal_nan=name in ("low", "high"))


POOL: Pool = synthetic(1, 0.7)


@given(st.integers(0, 10_000), st.sampled_from([0, 6]))
@settings(max_examples=25)
def test_bets_stay_within_what_the_detector_takes(seed: int, peers: int) -> None:
    pool = synthetic(seed % 5, (seed % 9 + 1) / 10, peers=peers, docs=2000)
    found = differences(stream_of(pool, asked(seed, 1200, 2000, first=300), seed, noise=0.2))
    for bets in (found.fall, found.rise):
        assert np.all(np.abs(bets) <= 1)
    seen = ~np.isnan(found.low)
    assert np.all(found.low[seen] <= found.high[seen])


def test_fewer_than_two_peers_say_nothing() -> None:
    """One peer alone, whatever it answered, leaves the own mean."""
    rng = np.random.default_rng(0)
    docs, values = list(range(200)), [float(v) for v in rng.random(200) < 0.7]
    alone = differences(stream(docs, values))
    one = stream(docs, values, n_peers=1)
    one = ScoreStream(one.at, one.docs, one.tasks, one.values, rng.random(200), one.n_peers)
    assert np.array_equal(alone.fall, differences(one).fall)
    two = ScoreStream(one.at, one.docs, one.tasks, one.values, one.values, np.full(200, 2))
    assert np.abs(differences(two).fall[60:]).max() < 0.15, "peers that answer alike foresee it all"
