"""Docs in pairs: which half is public, and in which order they are asked."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.pairs import BLOCK, is_public, pair_of, paired_order
from testbench_dagster.core.sampling import asked_order, sequence


def test_one_half_of_each_pair_is_public_by_the_stated_bit() -> None:
    for doc in range(0, 200, 2):
        assert is_public("s", doc) != is_public("s", doc + 1)
        bit = hashlib.sha256(f"s:public:{doc // 2}".encode()).digest()[0] % 2
        assert is_public("s", doc + bit)


def test_halves_are_drawn_evenly_and_anew_in_each_epoch() -> None:
    first = sum(is_public("one", 2 * pair) for pair in range(4_000))
    same = sum(is_public("one", 2 * pair) == is_public("two", 2 * pair) for pair in range(4_000))
    assert abs(first - 2_000) < 130 and abs(same - 2_000) < 130  # four standard deviations


def test_whether_the_public_half_is_asked_first_is_drawn_too() -> None:
    order = paired_order("s", 8_000)
    place = {doc: number for number, doc in enumerate(order)}
    first = sum(is_public("s", doc) == (place[doc] < place[doc + 1]) for doc in range(0, 8_000, 2))
    assert abs(first - 2_000) < 130


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=8), st.integers(0, 150))
def test_an_order_holds_each_doc_once_with_its_pair_near_and_not_beside(seed: str, n_docs: int) -> None:
    order = paired_order(seed, n_docs)
    assert sorted(order) == list(range(n_docs))
    place = {doc: number for number, doc in enumerate(order)}
    gaps = [abs(place[doc] - place[doc + 1]) for doc in range(0, n_docs // 2 * 2, 2)]
    if n_docs >= 2 * BLOCK:
        assert min(gaps) > BLOCK // 2 and max(gaps) < 3 * BLOCK
    elif n_docs >= 4:
        assert min(gaps) > 1


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=8), st.integers(1, 200))
def test_of_the_first_docs_few_lack_their_other_half(seed: str, n_pairs: int) -> None:
    order = paired_order(seed, 2 * n_pairs)
    open_: set[int] = set()
    for place, doc in enumerate(order, 1):
        open_ ^= {pair_of(doc)}
        whole_blocks = place <= 2 * BLOCK * (n_pairs // BLOCK - 1)
        assert len(open_) <= (BLOCK if whole_blocks else 2 * BLOCK - 1)
        if place % (2 * BLOCK) == 0 and whole_blocks:
            assert not open_, "where a block ends all its pairs are whole"


def test_as_many_pairs_are_whole_as_can_be_beside_what_would_come_of_single_docs() -> None:
    """Of a quarter of 1,000 docs: nearly all, where docs that are drawn one by one make a quarter whole."""

    def whole(order: list[int]) -> int:
        asked = set(order[:250])
        return sum({2 * pair, 2 * pair + 1} <= asked for pair in range(500))

    assert whole(paired_order("s", 1_000)) >= 120
    assert whole(sequence("s", 1_000)) < 50


@pytest.mark.parametrize("ids", [None, [3, 4, 5, 9]])
def test_the_order_of_asking_follows_the_flag(ids: list[int] | None) -> None:
    found = asked_order("s", 40, ids, pairs=True)
    assert found == [doc for doc in paired_order("s", 40) if ids is None or doc in ids]
    assert asked_order("s", 40, ids) == [doc for doc in sequence("s", 40) if ids is None or doc in ids]
