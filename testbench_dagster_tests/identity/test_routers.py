"""Partial routers: found, with the share they route; whoever answers its own way is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from testbench_dagster.identity import Answer, Evidence, Grouping, IdentityError, find_groups, find_routers
from testbench_dagster.identity.routers import Router, RouterSettings
from testbench_dagster_tests.identity.population import START, World, ask

DAY = timedelta(days=1)


def service(
    world: World, router: Mapping[int, float], prompts: int, rounds: int = 1, members: int = 3
) -> tuple[Evidence, Grouping, list[Answer]]:
    """Five groups (backends 2 to 6) and a supplier ``router`` whose requests go to backends by weights."""
    who: dict[str, Mapping[int, float]] = {
        f"g{backend}m{member}": {backend: 1.0} for backend in range(2, 7) for member in range(members)
    }
    who["router"] = router
    answers = [
        one
        for round_ in range(rounds)
        for name, weights in who.items()
        for one in ask(
            world,
            name,
            weights,
            range(prompts),
            lambda t, days=10 * round_: START + days * DAY + timedelta(minutes=t),  # type: ignore[misc]
            round=round_,
        )
    ]
    evidence = Evidence.of(answers)
    return evidence, find_groups(evidence, now=START + 30 * DAY), answers


def found(seed: int, router: Mapping[int, float], prompts: int, rounds: int = 1) -> list[Router]:
    return find_routers(*service(World(seed), router, prompts, rounds))


def test_a_fifth_of_another_groups_answers_is_seen_and_how_many_they_are() -> None:
    evidence, grouping, answers = service(World(1), {2: 0.8, 3: 0.2}, 200, 3)
    [router] = find_routers(evidence, grouping, answers)
    group = {member: group.id for group in grouping.groups for member in group.members}
    assert (router.supplier, router.group) == ("router", group["g3m0"])
    assert router.low < 0.2 < router.high
    assert router.high - router.low < 0.12
    assert router.log_e > router.threshold
    assert START <= router.since < router.until <= START + 30 * DAY


def test_the_rest_may_be_a_model_that_nobody_else_has() -> None:
    """Departures are told by its own answers at other times, and the share is that of all answers."""
    [router] = found(2, {9: 0.7, 4: 0.3}, 200, 3)
    assert router.baseline is None
    assert router.low < 0.3 < router.high
    assert "as it answers itself at other times" in router.wording


@pytest.mark.parametrize("own", [{9: 1.0}, {2: 1.0}], ids=["alone", "in a group"])
def test_whoever_answers_its_own_way_is_left_alone(own: Mapping[int, float]) -> None:
    assert found(3, own, 200, 2) == []


def test_kin_of_a_group_is_no_router() -> None:
    """Backends 0 and 1 are of one lineage: what one says the other says on many prompts, each time again."""
    assert found(4, {1: 1.0}, 200, 2) == []
    world = World(5, lineage=0.6)
    answers = [
        one
        for name, backend in (("a", 0), ("b", 0), ("c", 1), ("d", 2), ("e", 3))
        for one in ask(world, name, {backend: 1.0}, range(300), lambda t: START + timedelta(minutes=t))
    ]
    evidence = Evidence.of(answers)
    assert find_routers(evidence, find_groups(evidence, now=START), answers) == []


def test_a_noisy_twin_that_stands_alone_is_no_router() -> None:
    """What varies of its answers is the group's, since it is of the group."""
    world = World(12, twins=0.9, lineage=0.4)
    assert find_routers(*service(world, {9: 1.0}, 300)) == []


def test_nobody_routes_to_nobody() -> None:
    answers = ask(World(1), "alone", {2: 1.0}, range(50), lambda t: START + timedelta(minutes=t))
    evidence = Evidence.of(answers)
    assert find_routers(evidence, find_groups(evidence, now=START), answers) == []


def test_settings_have_a_range() -> None:
    with pytest.raises(IdentityError, match="null must lie between 0 and 1"):
        RouterSettings(null=1.0)


# ------------------------------------------------------------------ what it takes, and what it misses

#: Share routed elsewhere, prompts, how often each is asked; of twenty plays the fewest and most it shows in.
SHOWN = (
    (0.05, 300, 3, 0, 8),
    (0.05, 600, 3, 11, 20),
    (0.1, 150, 3, 8, 20),
    (0.1, 300, 3, 18, 20),
    (0.1, 600, 1, 16, 20),
    (0.2, 100, 3, 8, 20),
    (0.2, 150, 3, 17, 20),
    (0.2, 300, 1, 16, 20),
    (0.5, 150, 1, 17, 20),
)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "prompts", "rounds", "least", "most"), SHOWN)
def test_how_many_prompts_it_takes(share: float, prompts: int, rounds: int, least: int, most: int) -> None:
    plays = [found(seed, {2: 1 - share, 3: share}, prompts, rounds) for seed in range(20)]
    assert {router.supplier for play in plays for router in play} <= {"router"}
    shown = sum(bool(play) for play in plays)
    assert least <= shown <= most


@pytest.mark.slow
def test_honest_services_are_never_accused() -> None:
    """Of 60 services of 16 suppliers, with self-agreement of .90 to .98 and three lineages, none."""
    for seed in range(60):
        world = World(seed, twins=(0.9, 0.95, 0.98)[seed % 3], lineage=0.4 + 0.1 * (seed % 3))
        own = ({9: 1.0}, {2: 1.0}, {1: 1.0})[seed % 3]
        assert find_routers(*service(world, own, 300, 1 + seed % 2)) == []
