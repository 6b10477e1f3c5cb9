"""Counts of pairs in blocks, and the groups that follow: the same as of a full matrix, in less memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testbench_dagster.identity import Answer, Assignment, Evidence, Grouping, counts, find_groups, tables
from testbench_dagster.identity.counts import Cells, Counts, agreements
from testbench_dagster.identity.pairs import agreements_from, lean, majorities
from testbench_dagster.identity.settings import IdentitySettings
from testbench_dagster_tests.identity.population import START, World


def by_hand(one: np.ndarray, two: np.ndarray) -> tuple[int, int]:
    both = [(a, b) for a, b in zip(one.tolist(), two.tolist(), strict=True) if a >= 0 and b >= 0]
    return len(both), sum(a == b for a, b in both)


matrices = arrays(np.int16, st.tuples(st.integers(1, 7), st.integers(1, 40)), elements=st.integers(-1, 3))


@given(cells=matrices, small=st.sampled_from([0, 10**6]), columns=st.integers(1, 5))
@settings(deadline=None)
def test_counts_are_those_by_hand_however_they_are_made(cells: np.ndarray, small: int, columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_SMALL", small)
        patch.setattr(counts, "_ROWS", 2)
        patch.setattr(counts, "_COLUMNS", columns)
        patch.setattr(counts, "_MOST", 7)
        patch.setattr(counts, "_PAIRS", 5)
        common, agree = agreements(cells, cells)
        wanted = [[by_hand(one, two) for two in cells] for one in cells]
        assert [
            list(zip(*rows, strict=True)) for rows in zip(common.tolist(), agree.tolist(), strict=True)
        ] == wanted
        for cached in (0, 100):
            patch.setattr(counts, "_CACHED", cached)
            of = Counts(cells)
            i, j = np.array([0, len(cells) - 1]), np.array([len(cells) - 1, 0])
            assert list(zip(*(n.tolist() for n in of.of_pairs(i, j)), strict=True)) == [wanted[0][-1]] * 2
            pairs = {
                (int(row), int(column)): (int(block.common[a, b]), int(block.agree[a, b]))
                for block in of.blocks()
                for a, row in enumerate(block.rows)
                for b, column in enumerate(block.columns)
                if row < column
            }
            assert pairs == {
                (a, b): wanted[a][b] for a in range(len(cells)) for b in range(a + 1, len(cells))
            }


def test_more_prompts_than_eight_bits_hold() -> None:
    cells = np.zeros((3, 1_000), dtype=np.int16)
    cells[2, ::2] = 1
    common, agree = Cells(cells).counts(np.arange(3), Cells(np.tile(cells, (2_000, 1))), np.arange(6_000))
    assert (common == 1_000).all()
    assert agree[0, :3].tolist() == [1_000, 1_000, 500]


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("least", [0.0, -2.0, 3.5])
def test_the_table_of_fewest_agreements_is_the_lean_itself(least: float, above: bool) -> None:
    chosen = IdentitySettings()
    fewest = agreements_from(120, least, chosen, above=above)
    for common in range(121):
        leaning = lean(np.full(common + 1, common), np.arange(common + 1), chosen)
        enough = np.flatnonzero(leaning > least if above else leaning >= least)
        assert fewest[common] == (enough[0] if len(enough) else common + 1)


def test_majorities_in_parts_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    cells, labels = rng.integers(-1, 3, size=(40, 31)), rng.integers(0, 5, size=40)
    whole = majorities(cells, labels, 5)
    monkeypatch.setattr("testbench_dagster.identity.pairs._AT_ONCE", 40 * 3)
    assert (majorities(cells, labels, 5) == whole).all()
    for group in range(5):
        for t in range(31):
            said = [c for c in cells[labels == group, t].tolist() if c >= 0]
            most = [c for c in set(said) if 2 * said.count(c) > len(said)]
            assert whole[group, t] == (most[0] if most else -1)


def answer(s: int, t: int, text: str) -> Answer:
    return Answer(f"s{s:03d}", f"p{t:04d}", f"f{t % 3}", START + timedelta(minutes=t), 0, text)


def population(seed: int, suppliers: int, prompts: int, asked: float) -> list[Answer]:
    """Suppliers of twelve backends, one in ten a mixture of two, each asked a share of the prompts."""
    world, rng = World(seed), random.Random(seed)
    found = []
    for s in range(suppliers):
        weights = {s % 12: 1.0} if rng.random() < 0.9 else {s % 12: 0.5, (s + 1) % 12: 0.5}
        found += [
            Answer(
                f"s{s:03d}",
                f"p{t:04d}",
                f"f{t % 3}",
                START + timedelta(minutes=t),
                0,
                world.answer(weights, t),
            )
            for t in range(prompts)
            if rng.random() < asked
        ]
    return found


def told(grouping: Grouping, names: Sequence[str]) -> object:
    pairs = [repr(grouping.pair(one, two)) for one, two in zip(names, names[7:], strict=False)]
    return [
        [(g.id, g.members) for g in grouping.groups],
        sorted(map(repr, grouping.profiles.values())),
        list(map(repr, grouping.suspects)),
        pairs,
    ]


@pytest.mark.parametrize(("seed", "prompts", "asked"), [(1, 150, 1.0), (2, 220, 0.5), (3, 60, 0.4)])
def test_groups_are_those_of_the_full_matrix(
    seed: int, prompts: int, asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing, and from groups of which a tenth is somewhere else now; contested pairs included."""
    given_ = population(seed, 96, prompts, asked)
    evidence = Evidence.of(given_)
    full = find_groups(evidence, now=START)
    rng, names = random.Random(seed), [group.id for group in full.groups]
    before = [
        Assignment(member, group.id if rng.random() < 0.9 else rng.choice(names), member, START)
        for group in full.groups
        for member in group.members
    ]
    later = START + timedelta(days=1)
    again = find_groups(evidence, None, before, now=later)
    monkeypatch.setattr(counts, "_CACHED", 0)
    monkeypatch.setattr(counts, "_PAIRS", 500)
    monkeypatch.setattr(tables, "_AT_ONCE", 300)
    in_blocks = find_groups(evidence, now=START)
    assert told(in_blocks, evidence.suppliers) == told(full, evidence.suppliers)
    assert in_blocks.contested == full.contested
    in_blocks_again = find_groups(evidence, None, before, now=later)
    assert told(in_blocks_again, evidence.suppliers) == told(again, evidence.suppliers)


@pytest.mark.parametrize("seed", [4, 5])
def test_with_few_pairs_kept_the_groups_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 suppliers of one model only the three nearest of each are kept, and groups have all of them."""
    world = World(seed, twins=0.98)
    given_ = [
        Answer(
            f"s{s:03d}", f"p{t:04d}", "f", START + timedelta(minutes=t), 0, world.answer({s % 3 + 2: 1.0}, t)
        )
        for s in range(120)
        for t in range(150)
    ]
    evidence = Evidence.of(given_)
    full = find_groups(evidence, now=START)
    assert sorted(len(group.members) for group in full.groups)[-3:] == [40, 40, 40]
    monkeypatch.setattr(tables, "_CANDIDATES", 400)
    monkeypatch.setattr(tables, "_NEAREST", 3)
    few = find_groups(evidence, now=START)
    assert [group.members for group in few.groups] == [group.members for group in full.groups]
