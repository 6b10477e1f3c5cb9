"""Folded streams of scores: the same alarms as of whole ones, dates that hold, and a size that stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.identity import (
    Change,
    IdentityError,
    ScoreStream,
    fold_scores,
    score_change,
)
from testbench_dagster.identity.score_differences import away, differences
from testbench_dagster.statistics.mean_change import change_interval
from testbench_dagster_tests.identity import scored
from testbench_dagster_tests.identity.folding import change_when_folded, docs_older_than, folded_at, part
from testbench_dagster_tests.identity.scored import (
    FIRST,
    PERIOD,
    asked,
    fallen,
    milliseconds,
    stream_of,
    synthetic,
    times,
)

POOLS = [
    synthetic(number, share, peers=6 * (number % 2), tasks=(14, 1, 5)[number % 3])
    for number, share in enumerate((0.8, 0.7, 0.6, 0.9))
]
#: 14 tasks.
TASKS = synthetic(11, 0.7)


def changing(seed: int, n: int = 2600) -> tuple[ScoreStream, int]:
    """A stream of a supplier that becomes better or worse, and from which doc on; all else is drawn."""
    rng = np.random.default_rng([seed, 9])
    pool = POOLS[seed % len(POOLS)]
    before = int(rng.integers(60, n - 600))
    by = float(rng.choice([0.1, 0.2, 0.4, -0.15])) if pool.own.mean() < 0.75 else 0.2
    docs = asked(seed, n, len(pool.own), first=int(rng.integers(FIRST)), repeats=float(rng.random()))
    return stream_of(pool, docs, seed, after=fallen(pool.own, by, seed), since=before), before


def same_alarm(one: Change, other: Change) -> bool:
    """Whether two alarms are the same: at which doc, which way, how high."""
    return (one.detected_at, one.observations, one.direction, one.kind) == (
        other.detected_at, other.observations, other.direction, other.kind
    ) and (one.log_e, one.arl) == pytest.approx((other.log_e, other.arl), rel=1e-9, abs=1e-9)  # fmt: skip


def holds(wide: Change, narrow: Change) -> bool:
    """Whether the interval of one change holds that of the other."""
    begins = wide.before_at is None or (narrow.before_at is not None and wide.before_at <= narrow.before_at)
    return begins and narrow.at <= wide.at <= wide.detected_at


# ------------------------------------------------------------------------------------------- the same alarm


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_alarm_is_that_of_the_whole_stream_wherever_it_is_folded(seed: int, shares: list[float]) -> None:
    stream, _ = changing(seed)
    whole = score_change("s", stream, PERIOD)
    most = len(stream.at) if whole is None else whole.observations - 1
    places = sorted({max(1, int(share * most)) for share in shares})
    change = change_when_folded(stream, places)
    if whole is None:
        assert change is None
    else:
        assert change is not None and same_alarm(change, whole)
        assert change.since_change >= 1 and change.at <= change.detected_at


def test_the_interval_holds_that_of_the_whole_stream() -> None:
    plays = 0
    for seed in range(20):
        stream, _ = changing(seed)
        whole = score_change("s", stream, PERIOD)
        if whole is None:
            continue
        places = np.random.default_rng(seed).integers(1, whole.observations, size=3)
        change = change_when_folded(stream, sorted({*places.tolist()}))
        assert change is not None and holds(change, whole)
        plays += 1
    assert plays > 15


@pytest.mark.parametrize("seed", range(5))
def test_a_change_long_after_what_was_folded_is_told_as_if_nothing_had_been(seed: int) -> None:
    """Wording, task names and figures: all is of docs that are still there."""
    pool = TASKS
    docs = asked(seed, 2200, len(pool.own))
    names = [f"task{number:02}" for number in range(14)]
    stream = stream_of(pool, docs, seed, after=fallen(pool.own, 0.3, seed), since=1700)
    stream = replace(stream, names=names, asked=names)
    whole = score_change("s", stream, PERIOD)
    assert whole is not None
    change = change_when_folded(stream, [200, 500])
    assert change is not None and change.before_at is not None and whole.before_at is not None
    # that it may have been among folded docs is told by bounds
    assert timedelta(0) <= whole.before_at - change.before_at <= timedelta(hours=3)
    figures = {
        name: pytest.approx(getattr(whole, name)) for name in ("log_e", "arl", "rate_after", "null_rate")
    }
    assert change == replace(whole, before_at=change.before_at, **figures)


def test_what_is_told_of_a_change_among_folded_docs_is_right_to_the_block() -> None:
    """Of the docs from ``at`` on: how many, their mean, how many repeats, which tasks."""
    told = 0
    for seed in range(12):
        n = 4000
        docs = asked(seed, n, len(TASKS.own))
        stream = stream_of(TASKS, docs, seed, after=fallen(TASKS.own, 0.05, seed), since=900)
        stream = replace(stream, tasks=np.where(np.arange(n) < 700, stream.tasks, stream.tasks % 3))
        stream = replace(stream, names=[f"task{number:02}" for number in range(14)])
        whole = score_change("s", stream, PERIOD)
        if whole is None or whole.observations < 1800:
            continue
        folded = folded_at(stream, [500, whole.observations - 700])
        assert folded is not None
        rest = part(stream, folded.n)
        change = score_change("s", rest, PERIOD, folded)
        assert change is not None and holds(change, whole)
        at = (change.at - scored.BEGINNING) // timedelta(milliseconds=1)
        # an interval that ends in a block ends before the next one, or before what was not folded
        found, n_seen = differences(rest, folded.learnt), change.observations - folded.n
        far, kinds = away(rest, found)[:n_seen], found.repeat[:n_seen].astype(int)
        assert change.direction == "down"
        _, high = change_interval(far, kinds, before=folded.stretches)
        firsts = [*folded.blocks["first"][1:], rest.at[0], *rest.at]
        assert at == firsts[high]
        since = np.arange(np.searchsorted(stream.at, at), change.observations)
        told += int(since[0] < whole.observations - 700)
        assert change.since_change == len(since)
        # all of these are bet on: the first fit is long past, and all tasks are known
        assert change.rate_after == pytest.approx(stream.values[since].mean())
        again = [place for place in since.tolist() if stream.docs[place] in stream.docs[:place]]
        assert f"is {change.rate_after:.2f} on {len(since)} docs, {len(again)} of them" in change.wording
        assert f"over all {3 if since[0] >= 700 else 14} tasks is" in change.wording
    assert told >= 4, "else hardly any change was dated among folded docs"


# ------------------------------------------------------------------------------------- year after year


@pytest.mark.parametrize("seed", range(3))
def test_evaluation_after_evaluation_sees_the_same(seed: int) -> None:
    """Docs older than 64 days are folded each time: the alarm comes at the same evaluation, or never."""
    pool, n = POOLS[1], FIRST + 400 * scored.A_DAY
    fall = 0.0 if seed == 2 else (0.05, 0.2)[seed]
    docs, at = asked(seed, n, 3000), times(n, burst=FIRST)
    stream = stream_of(pool, docs, seed, after=fallen(pool.own, fall, seed), since=n - 2500, at=at)
    folded, found = None, []
    for end in range(n % 700, n + 1, 700):
        whole = score_change("s", part(stream, 0, end), PERIOD)
        done = folded.n if folded else 0
        old = docs_older_than(stream, 2 * PERIOD, end) - done
        if old > 500:
            folded = fold_scores("s", part(stream, done, end), old, PERIOD, folded)
        change = score_change("s", part(stream, folded.n if folded else 0, end), PERIOD, folded)
        assert (change is None) == (whole is None)
        if whole is not None and change is not None:
            assert same_alarm(change, whole) and holds(change, whole)
            found.append(change)
    assert folded is not None and folded.n > 5000
    assert bool(found) == (fall > 0)


def test_a_change_that_is_only_told_is_remembered_when_its_docs_are_folded() -> None:
    stream, _ = changing(1)
    whole = score_change("s", stream, PERIOD)
    assert whole is not None
    just_after = folded_at(stream, [whole.observations - 1, whole.observations])
    later = folded_at(stream, [500, len(stream.at)])
    for folded in (just_after, later):
        assert folded is not None and folded.change is not None
        assert same_alarm(folded.change, whole)
        assert score_change("s", part(stream, len(stream.at)), PERIOD, folded) == folded.change
    assert later is not None and later.n == len(stream.at)


def test_what_is_folded_stays_as_small_as_it_is() -> None:
    """Docs that are asked again for years: blocks grow with the logarithm of the age, all else not at all."""
    sizes = []
    for years in (2, 6):
        n = FIRST + years * 365 * scored.A_DAY
        docs, at = asked(3, n, 1500), times(n, burst=FIRST)
        stream = stream_of(POOLS[1], docs, 3, at=at)
        folded, end = None, 0
        for end in range(4000, n, 4000):
            done = folded.n if folded else 0
            old = docs_older_than(stream, 2 * PERIOD, end) - done
            folded = fold_scores("s", part(stream, done, end), old, PERIOD, folded)
        assert folded is not None and folded.change is None
        sizes.append((len(folded.blocks), len(folded.learnt.known), len(folded.learnt.fitted)))
        longest = (folded.blocks["last"] - folded.blocks["first"]) * 32
        assert np.all(longest <= stream.at[end - 1] - folded.blocks["last"])
        docs_after = end - np.cumsum(folded.blocks["docs"])
        several = folded.blocks["docs"] > 1
        assert several.any() and np.all(folded.blocks["docs"] * 32 <= docs_after, where=several)
    # ln 3 / ln(33/32) whole ones in three times the age; two that are not joined are longer than one
    assert sizes[0][0] < sizes[1][0] <= sizes[0][0] + 2 * 36
    assert sizes[0][1:] == sizes[1][1:] == (1500, sizes[0][2])


# ------------------------------------------------------------------------------------------------ dates


@pytest.mark.parametrize("where", ["folded", "recent"])
@pytest.mark.parametrize(
    ("points", "plays"),
    [(10, 20), *(pytest.param(points, 200, marks=pytest.mark.slow) for points in (6, 10, 20, -10))],
)
def test_intervals_hold_the_change_with_95_percent(where: str, points: int, plays: int) -> None:
    """A fall or rise among the folded docs, or among those that are still there."""
    held = []
    for seed in range(plays):
        pool, before = POOLS[seed % 3], 1500
        docs = asked(seed, 3000, len(pool.own))
        stream = stream_of(pool, docs, seed, after=fallen(pool.own, points / 100, seed), since=before)
        whole = score_change("s", stream, PERIOD)
        if whole is None or whole.observations < before + 60:
            continue
        last = whole.observations - 40 if where == "folded" else before - 300
        change = change_when_folded(stream, [last - 200, last])
        assert change is not None
        at = times(before + 1)[before]
        held.append((change.before_at is None or change.before_at < at) and at <= change.at)
    print(where, points, sum(held), len(held))
    assert len(held) > 0.6 * plays and sum(held) >= 0.95 * len(held)


# ------------------------------------------------------------------------------------------- what is known


def test_a_doc_that_was_folded_is_asked_again_and_a_task_that_was_not_is_new() -> None:
    stream, _ = changing(2)
    folded = folded_at(stream, [20, 500, 1200])
    assert folded is not None
    known = folded.learnt.known
    assert known["n"].sum() == folded.n == 1200 and folded.learnt.new.sum() == len(known)
    for row in known[:: len(known) // 7]:
        mine = stream.docs[:1200] == row["doc"]
        assert (row["n"], row["total"]) == (mine.sum(), pytest.approx(stream.values[:1200][mine].sum()))
    assert folded.holds(0) and not folded.holds(99)
    bet = np.flatnonzero(~np.isnan(differences(stream).low[:1200]))
    for task, last in enumerate(folded.last_bet.tolist()):
        assert last == max(bet[stream.tasks[bet] == task].tolist(), default=-1)
    assert folded.last == stream.at[1199] and folded.began == stream.at[0]


def test_docs_that_are_not_bet_on_are_folded_as_well() -> None:
    """The era's first docs, on which nothing is expected yet."""
    stream, _ = changing(5)
    folded = folded_at(stream, [1, 7, 20])
    assert folded is not None and folded.n == 20
    assert folded.blocks["n"].sum() == 0 and np.all(np.isneginf(folded.levels))
    whole = score_change("s", stream, PERIOD)
    change = score_change("s", part(stream, 20), PERIOD, folded)
    assert whole is not None and change is not None and same_alarm(change, whole)


def test_what_follows_must_have_been_asked_later() -> None:
    stream, _ = changing(3)
    folded = folded_at(stream, [500])
    with pytest.raises(IdentityError, match="not in order"):
        score_change("s", part(stream, 400), PERIOD, folded)
    with pytest.raises(IdentityError, match="not in order"):
        fold_scores("s", part(stream, 498), 10, PERIOD, folded)


def test_docs_of_one_moment_are_told_apart() -> None:
    """Many are asked in the same millisecond: some of them are folded, others not."""
    stream, _ = changing(6)
    stream = replace(stream, at=milliseconds([scored.START + timedelta(days=n // 90) for n in range(2600)]))
    whole = score_change("s", stream, PERIOD)
    assert whole is not None
    change = change_when_folded(stream, [101, 350])
    assert change is not None and same_alarm(change, whole) and holds(change, whole)
