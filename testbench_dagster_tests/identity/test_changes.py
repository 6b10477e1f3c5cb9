"""Changes: found in repeats and groups, dated by answers, blamed on whom the evidence points to."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from testbench_dagster.identity import (
    Answer,
    Change,
    IdentityError,
    IdentitySettings,
    find_changes,
)
from testbench_dagster_tests.identity.population import START, World, ask, phrase


def minutes(t: int) -> datetime:
    return START + timedelta(minutes=t)


def probes(world: World, name: str, backends: list[int], prompts: int = 12, seconds: int = 0) -> list[Answer]:
    """One answer a minute, round after round over the same prompts; ``backends[m]`` answers in minute m."""
    given = []
    for m, backend in enumerate(backends):
        said = world.answer({backend: 1.0}, m % prompts)
        at = minutes(m) + timedelta(seconds=seconds)
        given.append(Answer(name, f"p{m % prompts}", "probe", at, m // prompts, said))
    return given


def test_a_swap_is_found_in_repeats_and_dated() -> None:
    delays = []
    for seed in range(40):
        given = probes(World(seed), "s", [0] * 96 + [2] * 60)
        (change,) = find_changes(given)
        assert change.kind == "repeat" and change.direction == "down" and change.certain
        assert change.before_at is not None and change.before_at < change.at <= change.detected_at
        assert abs(change.at - minutes(96)) <= timedelta(minutes=8)
        assert change.log_e >= 11.5 and change.rate_after < 0.5 < change.null_rate
        delays.append((change.detected_at - minutes(95)) // timedelta(minutes=1))
    print(sorted(delays))
    assert statistics.median(delays) <= 12


def test_no_change_no_alarm() -> None:
    for seed in range(20):
        world = World(seed, twins=0.95 if seed % 2 else 0.6)
        given = [a for n in range(4) for a in probes(world, f"s{n}", [0] * 400, seconds=n)]
        assert find_changes(given, groups=[[f"s{n}" for n in range(4)]]) == []


def test_a_cut_ends_the_era_before() -> None:
    given = probes(World(1), "s", [0] * 96 + [2] * 200)
    (change,) = find_changes(given)
    assert find_changes(given, cut_at={"s": change.at - timedelta(milliseconds=1)}) == []


def test_a_router_that_starts_to_send_half_elsewhere_is_found() -> None:
    delays, rates = [], []
    for seed in range(10):
        rng = random.Random(seed)
        given = probes(World(seed, twins=0.98), "s", [0] * 200 + [rng.choice([0, 2]) for _ in range(150)])
        (change,) = find_changes(given)
        assert minutes(180) < change.at < change.detected_at
        delays.append((change.detected_at - minutes(199)) // timedelta(minutes=1))
        rates.append(change.rate_after)
    print(sorted(delays))
    assert statistics.median(delays) <= 30
    assert 0.25 < statistics.fmean(rates) < 0.75


@pytest.mark.parametrize("who", ["s0", "s3"])
def test_a_member_that_leaves_its_group_is_told_from_those_that_stay(who: str) -> None:
    """All prompts are new, so only the group tells; everybody answers all of them."""
    world, prompts = World(4), range(200)
    given = []
    for name in ("s0", "s1", "s2", "s3"):
        given += ask(world, name, {0: 1.0}, prompts if name != who else range(100), minutes)
    given += ask(world, who, {2: 1.0}, range(100, 200), minutes)
    (change,) = find_changes(given, groups=[["s0", "s1", "s2", "s3"]])
    assert (change.supplier, change.kind, change.certain) == (who, "group", True)
    assert abs(change.at - minutes(100)) <= timedelta(minutes=4)
    assert (change.detected_at - minutes(99)) / timedelta(minutes=1) <= 16


@pytest.mark.parametrize("who", ["proxy", "m1"])
def test_with_audits_only_the_proxy_is_told_from_its_members(who: str) -> None:
    """The proxy answers all prompts, each member a third: one disagreement at a time has two sides only."""
    world, given = World(5), []
    for t in range(300):
        for name in ("proxy", f"m{t % 3}"):
            backend = 2 if name == who and t >= 180 else 0
            given += ask(world, name, {backend: 1.0}, range(t, t + 1), minutes)
    (change,) = find_changes(given, groups=[["proxy", "m0", "m1", "m2"]])
    assert (change.supplier, change.certain) == (who, True)
    assert abs(change.at - minutes(180)) <= timedelta(minutes=10)


def test_of_two_members_both_are_reported_as_uncertain() -> None:
    world = World(6)
    given = ask(world, "a", {0: 1.0}, range(200), minutes)
    given += ask(world, "b", {0: 1.0}, range(100), minutes) + ask(
        world, "b", {2: 1.0}, range(100, 200), minutes
    )
    changes = find_changes(given, groups=[["a", "b"]])
    assert {c.supplier for c in changes} == {"a", "b"}
    assert not any(c.certain for c in changes)
    assert all("may as well be" in c.wording for c in changes)


@pytest.mark.parametrize("sybils", [1, 3])
def test_who_repeats_faithfully_has_not_changed_however_many_say_otherwise(sybils: int) -> None:
    """They copy it until they are grouped, then answer otherwise; only the honest one is sent repeats."""
    world, names = World(9), [f"s{n}" for n in range(sybils)]
    given = ask(world, "honest", {0: 1.0}, range(200), minutes)
    for name in names:
        given += ask(world, name, {0: 1.0}, range(100), minutes)
        given += ask(world, name, {2: 1.0}, range(100, 200), minutes)
    given += [replace(a, round=1, at=a.at + timedelta(hours=4)) for a in given if a.supplier == "honest"]
    changes = find_changes(given, groups=[["honest", *names]])
    assert {c.supplier for c in changes} == set(names)
    assert all(c.against == ("honest",) and not c.confirmed for c in changes)


def test_others_answers_alone_confirm_no_change() -> None:
    """Without repeats of its own nobody can say whether one left or the three others did."""
    world, given = World(4), []
    for name in ("honest", "s1", "s2", "s3"):
        given += ask(world, name, {0: 1.0}, range(100), minutes)
        given += ask(world, name, {0 if name == "honest" else 2: 1.0}, range(100, 200), minutes)
    (change,) = find_changes(given, groups=[["honest", "s1", "s2", "s3"]])
    assert (change.supplier, change.confirmed) == ("honest", False)
    assert change.against == ("s1", "s2", "s3")


def test_own_repeats_confirm_what_the_group_shows_first() -> None:
    """Six repeats are too few for an alarm of their own, and enough beside the group's."""
    world = World(4)
    given = [a for n in ("a", "b", "c") for a in ask(world, n, {0: 1.0}, range(100), minutes)]
    for name in ("a", "b", "c"):
        given += ask(world, name, {2 if name == "c" else 0: 1.0}, range(100, 200), minutes)
    again = ask(world, "c", {2: 1.0}, range(6), lambda t: minutes(t + 120))
    given += [replace(a, round=1) for a in again]
    (change,) = find_changes(given, groups=[["a", "b", "c"]])
    assert (change.supplier, change.kind, change.confirmed) == ("c", "group", True)


def test_repeats_settle_which_of_two_it_was() -> None:
    world = World(7)
    given = probes(world, "a", [0] * 300) + probes(world, "b", [0] * 150 + [2] * 150, seconds=5)
    changes = find_changes(given, groups=[["a", "b"]])
    assert [c.supplier for c in changes] == ["b"]


def test_answers_far_apart_in_time_are_not_compared() -> None:
    world = World(8)
    given = ask(world, "a", {0: 1.0}, range(200), minutes)
    given += ask(world, "b", {0: 1.0}, range(80), minutes)
    given += ask(world, "b", {2: 1.0}, range(80, 200), lambda t: minutes(t) + timedelta(days=10))
    assert find_changes(given, groups=[["a", "b"]]) == []


def test_short_answers_are_no_evidence_of_change() -> None:
    given = [
        Answer("s", f"p{m % 10}", "mc", minutes(m), m // 10, "A" if m < 100 else "B") for m in range(300)
    ]
    assert find_changes(given) == []


def test_text_that_gives_way_to_short_answers_is() -> None:
    given = [
        Answer("s", f"p{m % 10}", "mc", minutes(m), m // 10, phrase(m % 10) if m < 100 else "No.")
        for m in range(150)
    ]
    (change,) = find_changes(given)
    assert change.at == minutes(100)


def test_false_alarms_are_as_rare_as_asked_for() -> None:
    """Mean observations between false alarms at least the ARL, here 300, over three kinds of noise."""
    alarms = observations = 0
    for seed in range(90):
        world = World(seed, twins=(0.97, 0.8, 0.5)[seed % 3])
        found = find_changes(probes(world, "s", [0] * 400), IdentitySettings(arl=300))
        alarms += len(found)
        observations += found[0].observations if found else 388  # the first 12 have nothing before them
    assert observations >= 300 * alarms


# ---------------------------------------------------------------------------------------------- bad input


def test_unusable_input_is_refused() -> None:
    naive = datetime(2026, 1, 1)
    with pytest.raises(IdentityError, match="time zone"):
        find_changes([Answer("s", "p", "f", naive, 0, phrase(1))])
    with pytest.raises(IdentityError, match="two groups"):
        find_changes([], groups=[["a", "b"], ["b", "c"]])


def test_changes_do_not_depend_on_the_order_of_answers() -> None:
    given = [a for n in range(3) for a in probes(World(n), f"s{n}", [0] * 96 + [2 * (n == 1)] * 60)]
    shuffled = list(given)
    random.Random(0).shuffle(shuffled)
    one: list[Change] = find_changes(given)
    assert one == find_changes(shuffled) and [c.supplier for c in one] == ["s1"]
