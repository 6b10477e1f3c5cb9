"""Numbers in a text: found, valued, and written again in the form they had."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.tasks.twins.sources.numbers import WORDS, number_tokens, replaced


def found(text: str) -> list[tuple[str, Fraction]]:
    return [(token.written, token.value) for token in number_tokens(text)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("He has 3 dogs and 12.", [3, 12]),
        ("$1,200.50 or 1200", [Fraction("1200.5"), 1200]),
        ("for $.50 each", [Fraction(1, 2)]),
        ("Twelve eggs, two-thirds", [12, 2]),
        ("someone, tone, often, weight", []),
        ("12,5 and 1,2345", [12, 1]),
        ("B12, x2y", []),
        ("20%, 50km, 3rd, 1/4", [20, 50, 3, 1, 4]),
        ("2.5.", [Fraction(5, 2)]),
    ],
)
def test_numbers_are_found(text: str, values: list[Fraction]) -> None:
    assert [value for _, value in found(text)] == values


@pytest.mark.parametrize(
    ("text", "place", "value", "wanted"),
    [
        ("$1,200 is", 0, 3400, "$3,400 is"),
        ("$1.50 is", 0, Fraction("2.75"), "$2.75 is"),
        ("for .50 each", 0, Fraction("0.75"), "for .75 each"),
        ("0.05 m", 0, Fraction("0.07"), "0.07 m"),
        ("Two of 5", 0, 7, "Seven of 5"),
        ("two of 5", 1, 8, "two of 8"),
        ("40.00", 0, 30, "30.00"),
    ],
)
def test_another_number_is_written_like_the_original(
    text: str, place: int, value: Fraction, wanted: str
) -> None:
    assert replaced(text, {place: Fraction(value)}) == wanted


@given(st.text("0123456789,. $%abtwoe", max_size=40))
def test_writing_the_same_numbers_changes_nothing(text: str) -> None:
    tokens = number_tokens(text)
    same = {place: token.value for place, token in enumerate(tokens) if not token.written.startswith("00")}
    kept = [token for place, token in enumerate(tokens) if place in same and token.written[0] != "0"]
    assert all(token.rewritten(token.value) == token.written for token in kept)


def test_every_word_is_read_and_written() -> None:
    for word, value in WORDS.items():
        assert found(f"has {word} apples") == [(word, value)]
        assert number_tokens("two")[0].rewritten(Fraction(value)) == word
