"""What was extracted is kept in few characters, and equal texts stay equal, others different."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.extracted import MAX_EXTRACTED_CHARS, bounded_extract

#: Any text a filter may leave: lone surrogates, NUL, texts around the bound.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.builds(lambda text, n: text * n, st.text(min_size=1, max_size=3), st.integers(300, 1_100)),
)


def test_a_short_answer_is_kept_as_it_is() -> None:
    for text in ("", "42", " a\x00b\n", "é" * MAX_EXTRACTED_CHARS):
        assert bounded_extract(text) == text


def test_a_long_one_is_its_beginning_and_the_hash_of_all() -> None:
    one = bounded_extract("a" * 1_000 + "b")
    assert one == "a" * 1_000 + "…sha256:" + hashlib.sha256(b"a" * 1_000 + b"b").hexdigest()


def test_what_no_store_can_hold_is_told_by_its_hash() -> None:
    one = bounded_extract("x\ud800")
    assert one.startswith("x\\ud800…sha256:")
    assert one != bounded_extract("x\\ud800") == "x\\ud800"


@given(TEXTS)
def test_it_is_bounded_and_every_store_can_hold_it(text: str) -> None:
    kept = bounded_extract(text)
    # a lone surrogate is written in six characters
    assert len(kept) <= 6 * MAX_EXTRACTED_CHARS + 72
    assert kept.encode().decode() == kept


@given(TEXTS, TEXTS)
def test_equal_texts_and_no_others_are_kept_alike(one: str, other: str) -> None:
    assert (bounded_extract(one) == bounded_extract(other)) == (one == other)


@pytest.mark.parametrize("text", ["a" * 2_000, "\ud800", "…sha256:" + "0" * 64])
def test_nobody_passes_for_another_by_sending_what_is_kept(text: str) -> None:
    assert bounded_extract(bounded_extract(text)) != bounded_extract(text)
