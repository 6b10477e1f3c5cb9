"""Groups: what merges, what must not, what stays, what is said of it."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import combinations

import pytest

from testbench_dagster.identity import (
    Answer,
    Assignment,
    Evidence,
    Group,
    Grouping,
    IdentityError,
    IdentitySettings,
    find_groups,
)
from testbench_dagster_tests.identity.population import START, World, ask, phrase

MINUTE = timedelta(minutes=1)


def minutes(t: int) -> datetime:
    return START + t * MINUTE


def suppliers(
    world: World, weights: dict[str, dict[int, float]], prompts: range, repeats: int = 20
) -> list[Answer]:
    given = []
    for name, share in weights.items():
        given += ask(world, name, share, prompts, minutes)
        again = range(prompts.start, prompts.start + repeats)
        given += ask(world, name, share, again, lambda t: minutes(t + 10_000), round=1)
    return given


def groups(grouping: Grouping) -> list[tuple[str, ...]]:
    return sorted(g.members for g in grouping.groups if len(g.members) > 1)


def remembered(grouping: Grouping) -> list[Assignment]:
    return [Assignment(m, g.id, g.members[0], g.since[m]) for g in grouping.groups for m in g.members]


def the(grouping: Grouping, supplier: str) -> Group:
    return grouping.group_of(supplier)


# --------------------------------------------------------------------------------------------- cold start


def test_two_distinct_models_alone_in_the_world_do_not_merge_on_boilerplate() -> None:
    """They say the same thing wherever that is a habit or a letter, and differ only in free text."""
    given = []
    for name in ("a", "b"):
        for t in range(200):
            letter = "ABCD"[t % 4]
            given.append(Answer(name, f"mc{t}", "mmlu", minutes(t), 0, letter))
            given.append(Answer(name, f"cot{t}", "bbh", minutes(t), 0, "Let's think step by step. We know"))
            given.append(
                Answer(name, f"opt{t}", "arc", minutes(t), 0, f"The correct answer is ({letter}) since")
            )
            given.append(Answer(name, f"num{t}", "gsm", minutes(t), 0, f"The answer is {t * 37}. That is so"))
    grouping = find_groups(Evidence.of(given), now=START)
    assert groups(grouping) == []
    finding = grouping.pair("a", "b")
    assert finding.agreement == 1 and finding.log_merge < 1
    assert finding.relation == "too little evidence" and not finding.certain
    assert finding.wording.endswith("neither that they are alike nor that they differ is certain yet")
    reason = grouping.profiles["a"].reason
    assert "nobody else" not in reason and "whether they are alike is not certain yet" in reason
    differ = [
        Answer(n, f"free{t}", "free", minutes(t), 0, phrase(n, t)) for n in ("a", "b") for t in range(40)
    ]
    apart = find_groups(Evidence.of(given + differ), now=START).pair("a", "b")
    assert apart.log_merge < 0


def test_two_twins_alone_in_the_world_merge_with_more_evidence_than_among_others() -> None:
    """Nobody else tells which answer prefixes are habits of all models, so agreement counts for less."""
    needed = {}
    for others in (0, 8):
        weights = {"a": {0: 1.0}, "b": {0: 1.0}} | {f"x{n}": {n + 2: 1.0} for n in range(others)}
        for n in range(20, 400, 5):
            evidence = Evidence.of(suppliers(World(5), weights, range(n), 0))
            if find_groups(evidence, IdentitySettings(), now=START).pair("a", "b").log_merge > 9.0:
                needed[others] = n
                break
    assert 30 < needed[8] < needed[0] < 160


# ------------------------------------------------------------------------------------- merging, not merging


def test_twins_merge_and_lineage_does_not() -> None:
    weights = {f"s{n:02d}": {n % 4: 1.0} for n in range(16)}
    grouping = find_groups(Evidence.of(suppliers(World(1), weights, range(160))), now=START)
    assert groups(grouping) == [tuple(f"s{n:02d}" for n in range(k, 16, 4)) for k in range(4)]
    kin = grouping.pair("s00", "s01")
    assert kin.relation == "same lineage" and kin.split and kin.distance is not None and kin.distance > 0.2
    twin = grouping.pair("s00", "s04")
    assert twin.relation == "same stack" and not twin.split
    assert twin.distance_low == 0
    stranger = grouping.pair("s00", "s02")
    assert stranger.relation == "different" and stranger.high < 0.45
    profile = grouping.profiles["s00"]
    assert profile.nearest == grouping.group_of("s01").id
    assert profile.nearest_low is not None and profile.nearest_low < 0.6 < profile.nearest_low + 0.2
    assert profile.reason == "answers like 3 others on 160 common prompts"
    assert " is " not in profile.reason


def test_relations_before_there_is_evidence() -> None:
    weights = {"a": {0: 1.0}, "b": {0: 1.0}, "c": {2: 1.0}}
    grouping = find_groups(Evidence.of(suppliers(World(2), weights, range(12), 0)), now=START)
    assert grouping.pair("a", "b").relation == "too little evidence"
    assert groups(grouping) == []


def test_what_clears_the_threshold_is_told_apart() -> None:
    """Suppliers that differ on nearly all prompts: no e-value is lost to a rounded threshold."""
    weights = {f"s{n:02d}": {n: 1.0} for n in range(24)}
    grouping = find_groups(Evidence.of(suppliers(World(9), weights, range(60), 0)), now=START)
    findings = [grouping.pair(a, b) for a, b in combinations(sorted(weights), 2)]
    assert {f.relation for f in findings} <= {"different", "same lineage"}
    assert all(f.certain and "in common" not in f.wording for f in findings)
    assert all(p.reason == "answers like nobody else on 60 prompts" for p in grouping.profiles.values())


def test_a_chain_is_no_group() -> None:
    """B answers like A on even and odd prompts alike, C like B, but A and C too rarely: complete linkage."""
    rng = random.Random(4)
    given = []
    for t in range(600):
        base = phrase("b", t)
        drift = rng.random()
        said = {
            "b": base,
            "a": base if drift > 0.1 else phrase("a", t),
            "c": base if drift < 0.9 else phrase("c", t),
        }
        # others, so that the answer prefixes are known to be no habit of all
        said |= {f"x{n}": phrase("x", n, t) for n in range(6)}
        given += [
            Answer(name, f"p{t}", "f", minutes(t), 0, answer_prefix) for name, answer_prefix in said.items()
        ]
    settings = IdentitySettings()
    grouping = find_groups(Evidence.of(given, settings), now=START)
    assert grouping.pair("a", "b").log_merge > grouping.pair("a", "c").log_merge
    assert the(grouping, "a") is not the(grouping, "c")
    assert grouping.contested, "the pair that a third kept apart is reported"
    for pair in grouping.contested:
        assert "b" in pair


def test_a_noisy_supplier_is_never_merged() -> None:
    world = World(6)
    weights = {f"s{n}": {0: 1.0} for n in range(4)} | {f"x{n}": {n: 1.0} for n in range(2, 6)}
    given = suppliers(world, weights, range(120))
    rng = random.Random(1)
    # answers like backend 0 on the common prompts, yet unlike itself when asked again
    given += ask(world, "noisy", {0: 1.0}, range(120), minutes)
    given += [
        Answer(
            "noisy",
            f"p{t:05d}",
            "task",
            minutes(t + 10_000),
            1,
            phrase("noise", rng.random()) if t % 2 else world.answer_prefix(0, t),
        )
        for t in range(-30, 0)
    ]
    given += [
        Answer("noisy", f"p{t:05d}", "task", minutes(t + 5_000), 0, world.answer_prefix(0, t))
        for t in range(-30, 0)
    ]
    grouping = find_groups(Evidence.of(given), now=START)
    assert groups(grouping) == [("s0", "s1", "s2", "s3")]
    profile = grouping.profiles["noisy"]
    assert profile.self_agreement == pytest.approx(0.5)
    assert "too noisy" in profile.reason


def test_honest_noise_is_not_split() -> None:
    """Twins that agree with themselves on .85 only: their agreement of .85 is no evidence of two models."""
    weights = {"a": {0: 1.0}, "b": {0: 1.0}, "c": {2: 1.0}}
    given = suppliers(World(7, twins=0.85), weights, range(200), repeats=100)
    finding = find_groups(Evidence.of(given), now=START).pair("a", "b")
    assert finding.agreement == pytest.approx(0.85, abs=0.07)
    assert not finding.split


def test_false_merges_at_the_boundary_are_as_rare_as_stated() -> None:
    """Pairs of distinct models that agree on exactly the null rate of .75, in a world of two: none merges."""
    merged = 0
    for seed in range(60):
        rng = random.Random(seed)
        previous: list[Assignment] = []
        given: list[Answer] = []
        for t in range(150):
            base = phrase(seed, t)
            given.append(Answer("a", f"p{t}", "f", minutes(t), 0, base))
            given.append(
                Answer(
                    "b", f"p{t}", "f", minutes(t), 0, base if rng.random() < 0.75 else phrase("b", seed, t)
                )
            )
            if t % 30 == 29:
                grouping = find_groups(Evidence.of(given), previous=previous, now=minutes(t))
                previous = remembered(grouping)
        merged += bool(groups(grouping))
    assert merged <= 3  # 1 % of 60, and Monte Carlo error


# ------------------------------------------------------------------------------------- what was before


@pytest.fixture(scope="module")
def four() -> tuple[World, dict[str, dict[int, float]], list[Answer]]:
    world = World(11)
    weights = {f"s{n:02d}": {n % 4: 1.0} for n in range(16)}
    return world, weights, suppliers(world, weights, range(160))


def test_groups_keep_their_names_and_dates(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    world, _, given = four
    first = find_groups(Evidence.of(given), now=START)
    later = START + timedelta(days=2)
    given = [*given, *suppliers(world, {"s16": {0: 1.0}}, range(160))]
    second = find_groups(Evidence.of(given), previous=remembered(first), now=later)
    assert the(second, "s00").id == the(first, "s00").id
    assert the(second, "s16") is the(second, "s00")
    assert the(second, "s00").since["s00"] == START and the(second, "s00").since["s16"] == later
    assert {g.id for g in second.groups} == {g.id for g in first.groups}
    third = find_groups(Evidence.of(given), previous=remembered(second), now=later)
    assert [(g.id, g.members, dict(g.since)) for g in third.groups] == [
        (g.id, g.members, dict(g.since)) for g in second.groups
    ]


def test_a_member_whose_model_changed_starts_alone(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    _, _, given = four
    first = find_groups(Evidence.of(given), now=START)
    cut = {"s04": START + timedelta(days=30)}
    evidence = Evidence.of(given, cut_at=cut, suppliers=[f"s{n:02d}" for n in range(16)])
    second = find_groups(evidence, previous=remembered(first), now=START + timedelta(days=31))
    assert the(second, "s04").members == ("s04",)
    assert the(second, "s04").id != the(first, "s04").id == the(second, "s00").id
    assert second.profiles["s04"].answers == 0


def test_a_group_stays_while_nothing_speaks_against_it(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    """Too little is left to merge anew (answers age), and no answers at all of one member."""
    _, _, given = four
    first = find_groups(Evidence.of(given), now=START)
    few = [a for a in given if a.prompt < "p00020" and a.supplier != "s08"]
    evidence = Evidence.of(few, suppliers=[f"s{n:02d}" for n in range(16)])
    assert groups(find_groups(evidence, now=START)) == []
    kept = find_groups(evidence, previous=remembered(first), now=START)
    assert groups(kept) == groups(first)


def test_a_member_that_now_answers_otherwise_leaves(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    world, _, given = four
    first = find_groups(Evidence.of(given), now=START)
    fresh = [a for a in given if a.supplier != "s04"] + ask(world, "s04", {2: 1.0}, range(160), minutes)
    second = find_groups(Evidence.of(fresh), previous=remembered(first), now=START)
    assert "s04" in the(second, "s02").members
    assert the(second, "s00").members == ("s00", "s08", "s12")
    assert the(second, "s00").id == the(first, "s00").id


def test_equal_evidence_gives_equal_groups(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    _, _, given = four
    shuffled = list(given)
    random.Random(0).shuffle(shuffled)
    one, two = (find_groups(Evidence.of(g), now=START) for g in (given, shuffled))
    assert one.groups == two.groups
    assert one.pair("s00", "s05") == two.pair("s00", "s05")
    swapped = one.pair("s05", "s00")
    assert (swapped.common, swapped.log_merge, swapped.split) == (
        one.pair("s00", "s05").common,
        pytest.approx(one.pair("s00", "s05").log_merge),
        one.pair("s00", "s05").split,
    )


def test_suppliers_without_evidence_are_refused_by_name(
    four: tuple[World, dict[str, dict[int, float]], list[Answer]],
) -> None:
    grouping = find_groups(Evidence.of(four[2]), now=START)
    with pytest.raises(IdentityError, match="nobody"):
        grouping.pair("s00", "nobody")
    with pytest.raises(IdentityError, match="settings"):
        find_groups(Evidence.of([]), IdentitySettings(merge_alpha=0.02), now=START)
    with pytest.raises(IdentityError, match="time zone"):
        find_groups(Evidence.of([]), now=datetime(2026, 1, 1))
