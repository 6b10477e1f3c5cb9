"""Templates: read from a line, fitted to a question, drawn from; on questions of our own."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.tasks.twins.sources.numbers import number_tokens
from testbench_dagster.tasks.twins.sources.templates import (
    MAX_LINE,
    RATIO,
    TemplateError,
    fit,
    read_template,
)

QUESTION = (
    "Ada has 24 plums, 1 box and an 8 year old brother, to whom she gives 6. How many are left for three?"
)
LINE = "a0 b3 c4 | a-b, s1/c | b < 9"


def test_a_template_is_read() -> None:
    template = read_template("a0 b2:10..60/5 | a*b, s1-1 | a < b, s2 > 3")
    assert [(n.name, n.place, n.values) for n in template.numbers] == [
        ("a", 0, None),
        ("b", 2, range(10, 61, 5)),
    ]
    assert [step.text for step in template.steps] == ["a*b", "s1-1"]
    assert [condition.text for condition in template.conditions] == ["a < b", "s2 > 3"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a0", "has 1 part"),
        ("a0 | a | a > 1 | a", "has 4 parts"),
        ("| 1", "every number that varies has a letter and a place of its own"),
        ("a0 a1 | a", "a letter and a place of its own"),
        ("a0 b0 | a+b", "a letter and a place of its own"),
        ("a | a", "'a' is no number that varies"),
        ("a0:5..4 | a", "'a0:5..4' has 0 values; give 2 to 100000"),
        ("a0:0..999999 | a", "has 1000000 values"),
        ("a0 | a+c", "names c, not known there"),
        ("a0 | s1+a", "names s1, not known there"),
        ("a0 b1 | a", "b is not used by any step"),
        ("a0 | a, a+1", "s1 is not used by any step"),
        ("a0 | a | x > 1", "conditions name x, not known"),
        ("a0 | a..b", "is not expected"),
        ("a0 | ", "ends where more is expected"),
        ("a0 | " + "a" * MAX_LINE, f"at most {MAX_LINE} are read"),
    ],
)
def test_what_is_no_template_is_refused(line: str, told: str) -> None:
    with pytest.raises(TemplateError, match=told.replace("(", r"\(")):
        read_template(line)


@given(st.text("ab012 |.:/+-*,<s", max_size=60))
def test_any_line_is_read_or_refused(line: str) -> None:
    try:
        template = read_template(line)
    except TemplateError:
        return
    assert template.numbers and template.steps


def test_the_originals_numbers_give_the_answer() -> None:
    fitted = fit(read_template(LINE), QUESTION)
    assert (fitted.answer, fitted.results) == (6, (18, 6))
    assert fitted.originals == {"a": 24, "b": 6, "c": 3}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a9 | a", "the question has 5 numbers"),
        ("a0 | a/(a-24)", "division by zero"),
        ("a0 | a | a > 30", "break a > 30"),
        ("a2:11..12 | a", "has 1 values to take|has 0 values to take"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(line: str, told: str) -> None:
    with pytest.raises(TemplateError, match=told):
        fit(read_template(line), QUESTION)


def test_twins_keep_all_rules() -> None:
    fitted = fit(read_template(LINE), QUESTION)
    seen = set()
    for number in range(100):
        text, answer = fitted.draw(f"seed {number}")
        a, one, eight, b, c = (token.value for token in number_tokens(text))
        assert (one, eight) == (1, 8)
        assert answer == (a - b) / c != 6 and answer.denominator == 1 and answer > 0
        assert 10 <= a <= 24 * RATIO and a % 5 and 2 < b < 9 and 2 <= c <= 7 and len({a, b, c}) == 3
        assert text.split("How")[0].startswith(f"Ada has {a} plums, 1 box and an 8 year")
        seen.add(text)
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4", [2, 3, 4, 5, 6, 7, 8, 9]),  # down to 1.6, but 1 would be singular
        ("20", [10, 20, 30, 40, 50]),
        ("15", [15, 25, 35]),
        ("$1.50", [Fraction("1.50"), Fraction("2.50"), Fraction("3.50")]),
        ("ten", [10, 20]),
        ("four", [2, 3, 4, 5, 6, 7, 8, 9]),
        ("an 8 year", []),
        ("a 7 year", [3, 4, 5, 6, 7, 9]),
        ("an 80 year", []),
    ],
)
def test_numbers_like_the_original(text: str, values: list[Fraction]) -> None:
    if values:
        assert list(fit(read_template("a0 | a"), text).values[0].values) == values
    else:
        with pytest.raises(TemplateError, match="1 values to take"):
            fit(read_template("a0 | a"), text)


def test_a_number_is_larger_as_often_as_smaller() -> None:
    choices = fit(read_template("a0 | a"), "There are 38 of them").values[0]
    chances = dict(zip(choices.values, map(int.__sub__, choices.weights, (0, *choices.weights)), strict=True))
    below = sum(weight for value, weight in chances.items() if value < 38)
    above = sum(weight for value, weight in chances.items() if value > 38)
    assert 0.9 < below / above < 1.1


def test_decimals_of_results_are_no_more_than_the_originals() -> None:
    fitted = fit(read_template("a0 b1 | a/b, s1*2"), "24 plums for 6 people, twice")
    for number in range(50):
        text, _ = fitted.draw(f"{number}")
        a, b = (token.value for token in number_tokens(text))
        assert (a / b).denominator == 1


def test_where_nothing_fits_it_is_told() -> None:
    fitted = fit(read_template("a0 | a | a < 7, a > 5"), "There are 6 of them")
    with pytest.raises(TemplateError, match="no twin of 'There are 6 of them'"):
        fitted.draw("x")


def test_a_zero_or_too_long_a_number_does_not_vary() -> None:
    for text in ("0 of them", "123456789 of them"):
        with pytest.raises(TemplateError):
            fit(read_template("a0 | a"), text)
