"""Routers, mixtures, third models, and changes that look like mixtures."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from testbench_dagster.identity import Answer, Evidence, Grouping, find_groups
from testbench_dagster_tests.identity.population import START, World, ask


def minutes(t: int) -> datetime:
    return START + timedelta(minutes=t)


def base(world: World, prompts: range) -> list[Answer]:
    """Twelve suppliers of four backends."""
    return [a for n in range(12) for a in ask(world, f"s{n:02d}", {n % 4: 1.0}, prompts, minutes)]


def grouping(answers: list[Answer]) -> Grouping:
    return find_groups(Evidence.of(answers), now=START)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.3), (0.2, 0.8)])
def test_mixtures_are_reported_with_their_shares(shares: tuple[float, float]) -> None:
    world, prompts = World(3), range(200)
    given = base(world, prompts) + ask(world, "m", {2: shares[0], 3: shares[1]}, prompts, minutes)
    found = grouping(given)
    (suspect,) = found.suspects
    assert suspect.supplier == "m" and suspect.kind == "mixture"
    by_group = dict(zip(suspect.groups, suspect.shares, strict=True))
    assert by_group[found.group_of("s02").id] == pytest.approx(shares[0], abs=0.1)
    assert by_group[found.group_of("s03").id] == pytest.approx(shares[1], abs=0.1)
    assert suspect.explained_low >= 0.9 and min(suspect.shares_low) >= 0.1
    assert found.group_of("m").members == ("m",)
    assert found.profiles["m"].reason == "its answers are those of two groups"
    assert "router or mixture" in suspect.wording


def test_a_third_model_is_no_mixture_however_related() -> None:
    """A relative of two groups: it shares much with each, and has answers of its own where they differ."""
    suspects = 0
    for seed in range(20):
        world, prompts = World(seed), range(200)
        given = base(world, prompts)
        # .4 of its answers are one group's, .4 the other's: explained at .8 by habit, not by routing
        given += ask(world, "kin", {2: 0.4, 3: 0.4, 100: 0.2}, prompts, minutes)
        given += ask(world, "own", {101: 1.0}, prompts, minutes)
        suspects += len(grouping(given).suspects)
    assert suspects == 0


def test_pure_suppliers_that_stand_alone_are_no_suspects() -> None:
    """A, B, and a mixture of them, each alone: only the mixture is one."""
    world, prompts = World(9), range(200)
    given = [a for n in range(6) for a in ask(world, f"s{n}", {n: 1.0}, prompts, minutes)]
    given += ask(world, "m", {2: 0.5, 3: 0.5}, prompts, minutes)
    assert [s.supplier for s in grouping(given).suspects] == ["m"]


def test_one_model_after_the_other_is_a_change_not_a_mixture() -> None:
    world, prompts = World(4), range(200)
    given = base(world, prompts)
    given += ask(world, "m", {2: 1.0}, range(110), minutes)
    given += ask(world, "m", {3: 1.0}, range(110, 200), minutes)
    (suspect,) = grouping(given).suspects
    assert suspect.kind == "change" and "may have changed" in suspect.wording


def test_a_few_prompts_prove_no_mixture() -> None:
    world, prompts = World(5), range(15)
    given = base(world, prompts) + ask(world, "m", {2: 0.5, 3: 0.5}, prompts, minutes)
    assert grouping(given).suspects == ()
