"""Elections of proxies: who, by lot among equals, until when, and what death does."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from testbench_dagster.identity import Assignment, Election, IdentityError, elect
from testbench_dagster_tests.identity.population import START

MEMBERS = ("a", "b", "c", "d")
DAY = timedelta(days=1)


def vote(
    members: Sequence[str] = MEMBERS,
    *,
    availability: dict[str, float] | None = None,
    reliable: dict[str, float | None] | None = None,
    alive: Sequence[str] | None = None,
    previous: Assignment | None = None,
    now: datetime = START,
    seed: int = 0,
) -> Election:
    return elect(
        members,
        availability=dict.fromkeys(MEMBERS, 1.0) if availability is None else availability,
        self_agreement=reliable or {},
        alive=members if alive is None else alive,
        previous=previous,
        now=now,
        rng=random.Random(seed),
    )


def standing(proxy: str, until: datetime | None = START + DAY) -> Assignment:
    return Assignment("a", "g", proxy, START, until)


def test_the_most_available_and_reliable_one_stands() -> None:
    assert {vote(availability={"a": 0.9, "b": 0.7}, seed=s).proxy for s in range(20)} == {"a"}
    reliable: dict[str, float | None] = {"a": 0.8, "b": 1.0, "c": 0.8, "d": 0.8}
    assert {vote(reliable=reliable, seed=s).proxy for s in range(20)} == {"b"}
    first = vote()
    assert first.reason == "elected" and first.changed


def test_near_ties_are_drawn_by_lot() -> None:
    availability = {"a": 0.99, "b": 0.98, "c": 0.96, "d": 0.5}
    drawn = Counter(vote(availability=availability, seed=s).proxy for s in range(300))
    assert set(drawn) == {"a", "b"}  # .96 is 3 % below the best
    assert min(drawn.values()) > 100


def test_a_proxy_stays_until_its_date_and_then_makes_room() -> None:
    kept = vote(availability={"b": 1.0}, previous=standing("a"))
    assert kept == Election("a", START + DAY, changed=False, reason="kept")
    for seed in range(20):
        rotated = vote(previous=standing("a"), now=START + DAY, seed=seed)
        assert rotated.reason == "rotated" and rotated.changed and rotated.proxy != "a"
        assert rotated.rotates_at > START + DAY
    # nobody else is acceptable: it stands for another term
    alone = vote(availability={"a": 1.0, "b": 0.5}, previous=standing("a"), now=START + DAY)
    assert (alone.proxy, alone.changed, alone.reason) == ("a", False, "rotated")


def test_dates_are_exponential_with_a_mean_of_a_week() -> None:
    days = [(vote(seed=s).rotates_at - START) / DAY for s in range(2000)]
    assert statistics.fmean(days) == pytest.approx(7, rel=0.1)
    assert statistics.stdev(days) == pytest.approx(7, rel=0.15)


def test_a_dead_proxy_is_replaced_at_once() -> None:
    replaced = vote(alive=["c"], previous=standing("a"))
    assert (replaced.proxy, replaced.reason, replaced.changed) == ("c", "dead", True)
    nobody = vote(alive=[], previous=standing("a"))
    assert (nobody.proxy, nobody.reason, nobody.changed) == ("a", "dead", False)
    assert vote(alive=[]).reason == "dead"


def test_a_proxy_that_left_the_group_is_replaced() -> None:
    replaced = vote(("b", "c"), previous=standing("a"))
    assert replaced.proxy in ("b", "c") and replaced.changed and replaced.reason == "elected"


def test_unusable_input_is_refused() -> None:
    with pytest.raises(IdentityError, match="members"):
        vote(())
    with pytest.raises(IdentityError, match="time zone"):
        vote(now=datetime(2026, 1, 1))
