"""Copies in time: found where there are any, by what evidence; independent suppliers are left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from testbench_dagster.identity import Call, Copy, CopySettings, IdentityError, find_copies, stretch
from testbench_dagster_tests.identity.histories import START, Histories, drawn_twice

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def named(found: list[Copy]) -> list[tuple[str, frozenset[str]]]:
    return [(copy.kind, frozenset((copy.follower, copy.followed))) for copy in found]


PAIR = frozenset(("s00", "s01"))


def test_outages_of_a_copy_are_those_of_whom_it_copies() -> None:
    [copy] = find_copies(Histories(3, n=6, days=10, runs=96, docs=1, outages=1.0, of={0: 1}).calls())
    assert named([copy]) == [("outages", PAIR)]
    assert not copy.ordered, "who makes up outages at another's turns would turn any order round"
    assert (copy.follower, copy.followed) == ("s00", "s01")
    assert copy.share >= 0.7
    assert copy.log_e > copy.threshold
    assert START < copy.since < copy.until < START + 10 * DAY
    assert "while others answered" in copy.wording


def test_outages_of_the_whole_network_or_ours_are_nobodys() -> None:
    """All fail in twenty outages, and nobody at any other time: with others to look at, and without."""
    histories = Histories(1, n=6, days=10, runs=96, docs=1, outages=0.0, network=20)
    assert find_copies(histories.calls()) == []
    two = [call for call in histories.calls() if call.supplier in PAIR]
    assert sum(call.answered is False for call in two) > 40
    assert find_copies(two) == [], "nobody else answered meanwhile"


def test_busy_minutes_in_common_are_seen_on_different_prompts() -> None:
    histories = Histories(4, n=9, days=6, runs=8, docs=60, apart=0.5, outages=0.0, load=0.5, of={0: 1})
    [copy] = find_copies(histories.calls())
    assert named([copy]) == [("latency", PAIR)]
    assert copy.lag_ms is not None
    assert copy.share > 0.6


def test_prompts_that_take_long_everywhere_make_nobody_alike() -> None:
    """Two of one model: their latency follows the answer's length and the prompt, and nothing else."""
    histories = Histories(5, n=9, days=2, runs=48, docs=24, apart=0.25, outages=0.0, load=0.02)
    assert find_copies(histories.calls()) == []


def test_draws_of_a_copy_are_those_of_whom_it_copies() -> None:
    [copy] = find_copies(drawn_twice(1, 8, 80, of={0: 1}))
    assert named([copy]) == [("answers", PAIR)]
    assert copy.share == 1.0
    assert copy.observations >= 20


def test_twins_of_one_model_vary_each_by_itself() -> None:
    assert find_copies(drawn_twice(2, 20, 200, varies=1.0)) == []


def test_changes_that_follow_each_other_again_and_again() -> None:
    own = {f"s{n:02}": [at(30 + 50 * k + 13 * n) for k in range(5)] for n in range(2, 9)}
    changes = {**own, "s01": [at(20 + 67 * k) for k in range(5)]}
    changes["s00"] = [(low + DAY / 4, high + DAY / 4) for low, high in changes["s01"]]
    [copy] = find_copies([], changes, now=NOW)
    assert named([copy]) == [("changes", PAIR)]
    assert (copy.follower, copy.ordered) == ("s00", True)
    assert find_copies([], own, now=NOW) == []


def at(days_ago: float) -> tuple[datetime, datetime]:
    return NOW - days_ago * DAY - DAY / 2, NOW - days_ago * DAY


def test_what_changes_everywhere_at_once_is_not_a_copy() -> None:
    times = [at(20 + 67 * k) for k in range(5)]
    assert find_copies([], {f"s{n:02}": times for n in range(9)}, now=NOW) == []


def test_a_stretch_stays_until_the_next_begins() -> None:
    first = stretch(NOW)
    assert timedelta(days=14) <= NOW - first <= timedelta(days=28)
    steps = {stretch(NOW + n * DAY / 4) for n in range(4 * 28)}
    assert len(steps) in (2, 3)
    assert {(b - a).days for a in steps for b in steps if a < b} <= {14, 28}


def test_nothing_is_found_in_little() -> None:
    assert find_copies([]) == []
    call = Call("a@x", "p", "1/0", NOW, True, 10.0)
    assert find_copies([call, replace(call, supplier="b@x")]) == []


def test_of_many_those_that_were_asked_most_are_compared() -> None:
    histories = Histories(3, n=6, days=10, runs=96, docs=1, outages=1.0, of={0: 1})
    calls = histories.calls()
    few = [call for n, call in enumerate(calls) if call.supplier != "s00" or n % 2]
    assert named(find_copies(calls, settings=CopySettings(most_suppliers=6))) == [("outages", PAIR)]
    assert find_copies(few, settings=CopySettings(most_suppliers=5)) == []
    assert find_copies(calls, settings=CopySettings(most_pairs=0)) == []


def test_times_have_a_zone_and_settings_a_range() -> None:
    with pytest.raises(IdentityError, match="has no time zone; give it one"):
        find_copies([Call("a@x", "p", "1/0", datetime(2026, 1, 1), True, 10.0)])
    with pytest.raises(IdentityError, match="alpha must lie between 0 and 1"):
        CopySettings(alpha=0)
    with pytest.raises(IdentityError, match="outage_block must be more than 0"):
        CopySettings(outage_block=0)


# ------------------------------------------------------------------ how often it errs, and what it takes

#: Ways of being asked: by the hour in bursts, rarely in longer ones, all the time; with single failures or
#: none; and so that latencies tell, with delays of ours.
ASKED = (
    {"runs": 24, "docs": 3},
    {"runs": 24, "docs": 4, "flaky": 0.05},
    {"runs": 6, "docs": 6, "flaky": 0.2, "outages": 0.2},
    {"runs": 96, "docs": 1, "flaky": 0.02, "outages": 1.0},
    {"runs": 12, "docs": 24, "apart": 0.25, "ours": 200.0, "days": 14},
    {"runs": 12, "docs": 24, "apart": 0.25, "ours": 200.0, "days": 14, "n": 4},
)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_independent_suppliers_are_never_named(asked: dict[str, float]) -> None:
    """At a thousandfold stake per kind and stretch: of some hundred stretches none."""
    for seed in range(8):
        assert find_copies(Histories(seed, **asked).calls()) == []  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_looking_again_and_again_names_nobody(seed: int) -> None:
    """Twice a day over a stretch, and after every tenth request that was asked a second time."""
    calls = Histories(seed, n=9, days=14, runs=12, docs=16, apart=0.25, ours=200.0, flaky=0.02).calls()
    for half_day in range(4, 29):
        assert find_copies([c for c in calls if c.at < START + half_day * DAY / 2]) == []
    twice = drawn_twice(seed, 12, 200, varies=0.8)
    first = [call for call in twice if call.draw == "1/0"]
    second = sorted((call for call in twice if call.draw == "2/0"), key=lambda call: call.at)
    for n in range(0, len(second), 120):
        assert find_copies([*first, *second[:n]]) == []


@pytest.mark.slow
def test_twins_are_never_named_for_their_draws() -> None:
    for seed in range(100):
        assert find_copies(drawn_twice(seed, 12, 120, varies=0.8, variants=2 + seed % 4)) == []


@pytest.mark.slow
def test_how_many_outages_it_takes_where_all_are_shared() -> None:
    """Of twelve suppliers, asked every quarter of an hour: about one outage a day for two weeks is enough."""
    shown = 0
    for seed in range(6):
        histories = Histories(seed + 50, days=14, runs=96, docs=1, outages=1.0, flaky=0.02, of={0: 1})
        found = named(find_copies(histories.calls()))
        assert set(found) <= {("outages", PAIR)}
        shown += bool(found)
    assert shown >= 4
