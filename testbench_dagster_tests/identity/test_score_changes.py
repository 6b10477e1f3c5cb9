"""Changes of scores over all tasks: how soon they are seen, how rarely where there is none, and their dates.

The figures to hold are those of a simulation on recorded verdicts: medians of 328, 148 and 70 docs for falls
of 10, 20 and 40 points, half of the docs being repeats; at most .2 false alarms in a year of 22 docs a day.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from testbench_dagster.identity import IdentityError, ScoreStream, score_change
from testbench_dagster.identity.score_changes import docs_a_day
from testbench_dagster_tests.identity import scored
from testbench_dagster_tests.identity.population import START
from testbench_dagster_tests.identity.scored import (
    FIRST,
    PERIOD,
    Pool,
    asked,
    delays,
    fallen,
    milliseconds,
    quantile,
    stream_of,
    synthetic,
    times,
)


@pytest.fixture(scope="module")
def pools() -> list[Pool]:
    return [synthetic(seed, share) for seed, share in enumerate((0.8, 0.7, 0.6))]


# ------------------------------------------------------------------------------------------------- how soon


@pytest.mark.parametrize(("points", "median", "most"), [(10, 328, 735), (20, 148, 288), (40, 70, 134)])
def test_falls_are_seen_as_soon_as_they_should_be(
    pools: list[Pool], points: int, median: int, most: int
) -> None:
    found = delays(pools, points / 100, 30)
    print(points, quantile(found, 0.5), quantile(found, 0.9))
    assert quantile(found, 0.5) <= 1.5 * median
    assert quantile(found, 0.9) <= most
    assert all(s is not None and s.delay > 0 and s.change.direction == "down" for s in found)


@pytest.mark.parametrize(("points", "median"), [(20, 148), (40, 70)])
def test_rises_are_seen_as_soon(pools: list[Pool], points: int, median: int) -> None:
    rising = [p for p in pools if p.own.mean() + points / 100 < 0.97] or [synthetic(3, 0.5)]
    found = delays(rising, -points / 100, 20)
    assert quantile(found, 0.5) <= 1.5 * median
    assert all(s is not None and s.change.direction == "up" for s in found)


@pytest.mark.parametrize("peers", [4, 0])
def test_a_fall_from_80_to_70_percent_is_seen_within_600_docs(peers: int) -> None:
    """One task only, with peers and without any: what detectors per task saw in none of 20 runs."""
    pool = [synthetic(9, 0.8, peers=peers, tasks=1)]
    found = delays(pool, 0.1, 20, within=600)
    print(peers, quantile(found, 0.5), sum(s is not None for s in found))
    assert sum(s is not None for s in found) >= 18
    assert quantile(found, 0.5) <= 400


def test_repeats_alone_are_seen_soonest_and_new_docs_alone_are_seen(pools: list[Pool]) -> None:
    repeats, new = (delays(pools, 0.2, 15, repeats=share) for share in (1.0, 0.0))
    assert quantile(repeats, 0.5) <= 1.5 * 103
    assert quantile(repeats, 0.5) < quantile(new, 0.5) <= 1.5 * 164


def test_who_answers_repeats_from_a_cache_is_found_out_by_new_docs(pools: list[Pool]) -> None:
    """It gives every doc it was asked before the answer it gave then."""
    before, n = 1400, 3000
    pool = pools[1]
    docs = asked(0, n, len(pool.own))
    after = fallen(pool.own, 0.3, 0)
    known = np.isin(np.arange(len(pool.own)), docs[:before])
    stream = stream_of(pool, docs, 0, after=np.where(known, pool.own, after), since=before)
    change = score_change("s", stream, PERIOD)
    assert change is not None and change.at > times(n)[before - 50]


# ------------------------------------------------------------------------------------------- false alarms


def years_with_an_alarm(pools: list[Pool], years: int, *, noise: float, repeats: float = 0.5) -> int:
    """Of years of 22 docs a day after the first 700; the tasks come one after the other, 50 docs each."""
    n, alarms = FIRST + 365 * scored.A_DAY, 0
    at = times(n, burst=FIRST)
    for seed in range(years):
        pool = pools[seed % len(pools)]
        docs = asked(seed, n, len(pool.own), repeats=repeats)
        for start in range(0, n, FIRST):
            of = docs[start : start + FIRST]
            docs[start : start + FIRST] = of[np.argsort(pool.tasks[of], kind="stable")]
        alarms += score_change("s", stream_of(pool, docs, seed, noise=noise, at=at), PERIOD) is not None
    return alarms


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_no_alarm_in_years_without_a_change(pools: list[Pool], noise: float) -> None:
    assert years_with_an_alarm(pools, 12, noise=noise) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("repeats", "noise", "most"), [(0.5, 0.05, 0.02), (0.0, 0.05, 0.02), (1.0, 0.1, 0.2)]
)
def test_false_alarms_of_a_hundred_years(repeats: float, noise: float, most: float) -> None:
    """With peers and without; repeats alone use up what may be, since nothing is taken off for them."""
    pools = [synthetic(s, share, peers=6 * (s % 2)) for s, share in enumerate((0.8, 0.7, 0.6, 0.9))]
    alarms = years_with_an_alarm(pools, 100, noise=noise, repeats=repeats)
    print(repeats, noise, alarms)
    assert alarms <= 100 * most


def test_the_first_docs_of_all_raise_no_alarm(pools: list[Pool]) -> None:
    """Learning what to expect: eras of the first 700 docs only, all new, task after task."""
    alarms = 0
    for seed in range(60):
        pool = pools[seed % 3]
        docs = asked(seed, FIRST, len(pool.own))
        docs = docs[np.argsort(pool.tasks[docs], kind="stable")]
        alarms += (
            score_change("s", stream_of(pool, docs, seed, at=times(FIRST, burst=FIRST)), PERIOD) is not None
        )
    assert alarms == 0


def test_a_task_that_is_added_later_is_no_change(pools: list[Pool]) -> None:
    """It is far harder for this supplier than its peers' values let expect."""
    for seed in range(10):
        pool = synthetic(seed, 0.8)
        own = np.where(pool.tasks == 13, 0.2 * pool.own, pool.own)
        docs = asked(seed, 4000, len(own))
        docs = docs[(pool.tasks[docs] != 13) | (np.arange(len(docs)) > 2000)]
        stream = stream_of(replace(pool, own=own), docs, seed, noise=0.0)
        assert score_change("s", stream, PERIOD) is None


@pytest.mark.parametrize("change", ["one falls", "weak ones join", "strong ones leave"])
def test_peers_that_change_are_no_change_of_the_supplier(change: str) -> None:
    """One of three answers 40 points less; three join that are half as good; two of five are gone."""
    for seed in range(10):
        pool, rng = synthetic(seed, 0.7, peers=5), np.random.default_rng(seed)
        three, size = pool.peers[:3], len(pool.own)
        if change == "one falls":
            first, fell = three, three.copy()
            fell[0] = fallen(three[0], min(0.4, three[0].mean()), seed)
            # what it is on the whole is known as soon as its own stream shows it
            first_seen = scored.away(three) + (fell[0] - three[0]) / 3
            second = scored.away(fell)
        elif change == "weak ones join":
            first = three
            second = scored.away(np.vstack([three, three * (rng.random(three.shape) < 0.5)]))
        else:
            first, second = pool.peers, scored.away(pool.peers[np.argsort(pool.peers.mean(axis=1))[:3]])
        docs = asked(seed, 4000, size)
        stream = stream_of(replace(pool, peers=first), docs, seed)
        peers = np.where(np.arange(4000) < 1400, stream.peers, second[docs])
        if change == "one falls":
            peers[1400:1600] = first_seen[docs[1400:1600]]
        assert score_change("s", replace(stream, peers=peers), PERIOD) is None


# ------------------------------------------------------------------------------------------------- dates


def test_the_interval_holds_the_change(pools: list[Pool]) -> None:
    """With 95 %, and the narrower the deeper the fall."""
    widths = []
    for points in (10, 20, 40):
        found = [s for s in delays(pools, points / 100, 20, before=1000) if s is not None]
        first_after = times(1001)[1000]
        assert sum(s.holds(first_after) for s in found) >= 0.9 * len(found)
        spans = [s.change.at - (s.change.before_at or START) for s in found]
        widths.append(float(np.median([span / timedelta(days=1) for span in spans])) * scored.A_DAY)
    print(widths)
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] <= 40


def test_a_change_by_hand() -> None:
    """One doc after the other is asked again and again; from the 151st answer on three of four are wrong."""
    n, at = 400, times(400)
    values = np.array([1.0 if i < 150 or i % 4 == 0 else 0.0 for i in range(n)])
    stream = ScoreStream(
        milliseconds(at), np.arange(n) % 50, np.zeros(n, int), values, np.zeros(n), np.zeros(n, int)
    )
    change = score_change("s", stream, PERIOD)
    assert change is not None
    assert (change.kind, change.stream, change.direction, change.certain) == ("score", "scores", "down", True)
    assert change.before_at is not None
    assert at[140] <= change.before_at < at[151] and at[150] <= change.at <= at[160]
    assert at[150] < change.detected_at <= at[185]
    first, last = at.index(change.at), at.index(change.detected_at)
    after = values[first : last + 1]
    assert (change.observations, change.since_change) == (last + 1, len(after))
    assert change.rate_after == pytest.approx(after.mean())
    assert change.null_rate > 0.8
    assert change.log_e >= math.log(change.arl)
    assert change.arl == pytest.approx(3650 * n / 32)
    told = f"{len(after)} docs, {len(after)} of them asked before, where at least {change.null_rate:.2f}"
    assert told in change.wording
    assert "its mean score over 1 task is" in change.wording
    rise = score_change("s", replace(stream, values=1 - values), PERIOD)
    assert rise is not None and rise.direction == "up"
    assert (rise.at, rise.before_at, rise.detected_at) == (change.at, change.before_at, change.detected_at)
    assert rise.null_rate == pytest.approx(1 - change.null_rate) and "at most" in rise.wording


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        (["sums"], "over sums is"),
        (["sums", "logic"], "over sums (1 of 2 tasks) is"),
        (["a", "b", "c", "sums"], "over sums (1 of 4 tasks) is"),
    ],
)
def test_a_change_names_the_tasks_that_it_was_seen_in(tasks: list[str], told: str) -> None:
    change = score_change("s", stream_over(1, ["sums"], tasks), PERIOD)
    assert change is not None and told in change.wording


def test_a_change_over_all_tasks_says_so_and_how_many() -> None:
    names = ["a", "b", "c", "d", "e"]
    some = "over a, b, c and 2 more (5 of 6 tasks) is"
    for tasks, told in ((names, "over all 5 tasks is"), ([*names, "f"], some)):
        change = score_change("s", stream_over(5, names, tasks), PERIOD)
        assert change is not None and told in change.wording, change.wording


def stream_over(n_tasks: int, names: Sequence[str], tasks: Sequence[str]) -> ScoreStream:
    """Docs of so many tasks in turn, asked again and again; at last three of four are wrong."""
    n = 400
    values = np.array([1.0 if i < 150 or i % 4 == 0 else 0.0 for i in range(n)])
    docs = np.arange(n) % 50
    return ScoreStream(
        milliseconds(times(n)), docs, docs % n_tasks, values, np.zeros(n), np.zeros(n, int), names, tasks
    )


# --------------------------------------------------------------------------------------- docs of a year


def test_docs_of_a_year_are_those_of_the_first_period_or_more() -> None:
    burst = np.concatenate([np.linspace(0, 0.01, 640), 32 + np.arange(1, 321) / 20])
    rate = docs_a_day(burst, 32.0)
    assert rate[0] == rate[639] == pytest.approx(20.0)
    assert rate[-1] == pytest.approx(960 / 48)
    assert docs_a_day(np.array([0.0, 300.0]), 32.0).tolist() == [1.0, 1.0]
    slower = docs_a_day(np.concatenate([np.zeros(640), [320.0]]), 32.0)
    assert slower[-1] == pytest.approx(641 / 320)


# ---------------------------------------------------------------------------------------------- bad input


def a_stream(**changes: object) -> ScoreStream:
    fields = {
        "at": np.arange(3),
        "docs": np.arange(3),
        "tasks": np.zeros(3, int),
        "values": np.ones(3),
        "peers": np.zeros(3),
        "n_peers": np.zeros(3, int),
    }
    return ScoreStream(**{**fields, **changes})  # type: ignore[arg-type]


def test_unusable_input_is_refused() -> None:
    assert score_change("s", a_stream(), PERIOD) is None
    with pytest.raises(IdentityError, match="not in order"):
        score_change("s", a_stream(at=np.array([2, 1, 3])), PERIOD)
    for values in (np.array([0, 0, 1.5]), np.array([0, math.nan, 1])):
        with pytest.raises(IdentityError, match="scores of s must lie between 0 and 1"):
            score_change("s", a_stream(values=values), PERIOD)
    with pytest.raises(IdentityError, match="how well peers of s did"):
        score_change("s", a_stream(peers=np.full(3, 2.0), n_peers=np.full(3, 2)), PERIOD)
    nothing = {name: np.zeros(0, int) for name in ("at", "docs", "tasks", "values", "peers", "n_peers")}
    assert score_change("s", a_stream(**nothing), PERIOD) is None


# --------------------------------------------------------------------------------------- recorded answers


@pytest.mark.parametrize(
    ("points", "median", "most"),
    [
        pytest.param(10, 328, 735, marks=pytest.mark.slow),
        (20, 148, 192),
        pytest.param(40, 70, 89, marks=pytest.mark.slow),
    ],
)
def test_falls_of_recorded_models_on_mmlu_pro(shared: Path, points: int, median: int, most: int) -> None:
    """Three models, six peers of each by resampling; 1.5 times the recorded medians and 90 % quantiles."""
    pools = [p for p in scored.recorded(shared) if p.own.mean() > points / 100 + 0.02]
    found = delays(pools, points / 100, 45)
    print(points, quantile(found, 0.5), quantile(found, 0.9))
    assert quantile(found, 0.5) <= 1.5 * median
    assert quantile(found, 0.9) <= 1.5 * most


@pytest.mark.parametrize(("was", "is_", "median"), [(1, 0, 393), (2, 0, 190)])
def test_one_recorded_model_for_another(shared: Path, was: int, is_: int, median: int) -> None:
    """Falls of 14 and 20 points as they are: some docs are answered better than before."""
    pools = scored.recorded(shared)
    found = delays([pools[was]], 0.0, 20, after=lambda _: pools[is_].own)
    print(quantile(found, 0.5), quantile(found, 0.9))
    assert quantile(found, 0.5) <= 1.5 * median


@pytest.mark.slow
def test_no_alarm_in_a_hundred_recorded_years(shared: Path) -> None:
    assert years_with_an_alarm(scored.recorded(shared), 100, noise=0.02) == 0
