"""The little language of formulas: right where it is arithmetic, and closed to everything else."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.tasks.twins.sources.expressions import (
    MAX_DEPTH,
    MAX_LENGTH,
    FormulaError,
    read_condition,
    read_formula,
)

VALUES = {"a": Fraction(7), "b": Fraction(3), "s1": Fraction(1, 2), "zero": Fraction(0)}

numbers = st.integers(0, 999).map(str)
formulas = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-({})".format),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a+b*2", 13),
        ("(a+b)*2", 20),
        ("a-b-2", 2),
        ("a/b/7", Fraction(1, 3)),
        ("a-(-b)", 10),
        ("-a + 10", 3),
        ("0.25*4 + s1", Fraction(3, 2)),
        (" a ", 7),
    ],
)
def test_values(text: str, value: Fraction) -> None:
    assert read_formula(text).evaluate(VALUES) == value


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a > b", True),
        ("a < b", False),
        ("a + b = 10", True),
        ("a != 7", False),
        ("a >= 7", True),
        ("a <= 6", False),
        ("b divides a - 1", True),
        ("b divides a", False),
        ("zero divides a", False),
    ],
)
def test_comparisons(text: str, holds: bool) -> None:
    assert read_condition(text).holds(VALUES) is holds


@given(formulas)
def test_it_computes_what_python_computes(text: str) -> None:
    try:
        # digits and + - * / ( ) alone, made above; Fraction(n) keeps the division exact
        expected = eval("".join(f"Fraction({part})" if part.isdigit() else part for part in _split(text)))
    except ZeroDivisionError:
        with pytest.raises(FormulaError, match="division by zero"):
            read_formula(text).evaluate({})
        return
    assert read_formula(text).evaluate({}) == expected


def _split(text: str) -> list[str]:
    for sign in "+-*/()":
        text = text.replace(sign, f" {sign} ")
    return text.split()


@settings(max_examples=60)
@given(st.text(max_size=300) | st.text("ab1.+-*/()<>=!, _", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_formula, read_condition):
        try:
            found = read(text)
        except FormulaError:
            continue
        assert found.text == text
        assert set("0123456789abcdefghijklmnopqrstuvwxyz.+-*/()<>=! \t\n\r\f\v") >= set(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "2**3",
        "a//b",
        "a%b",
        "f(a)",
        "a.b",
        "__import__",
        "A",
        "1e9",
        "1_000",
        "1.2.3",
        "()",
        "(a",
        "a)",
        "a +",
        "*a",
        "a = b",
        "divides",
        "1234567890",
        "٣",
        "a" * 9,
        "lambda: 1",
        "a if b else a",
    ],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        read_formula(text)


@pytest.mark.parametrize("text", ["a", "a < b < a", "a == b", "< a", "a <", "a divides", "not a", "a and b"])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        read_condition(text)


def test_length_and_depth_are_bounded() -> None:
    assert read_formula("+".join("1" * 100)).evaluate({}) == 100
    with pytest.raises(FormulaError, match=f"a formula of {MAX_LENGTH + 1} characters; at most {MAX_LENGTH}"):
        read_formula("1" + "+" * MAX_LENGTH)
    deep = MAX_DEPTH - 1
    assert read_formula("(" * deep + "1" + ")" * deep).evaluate({}) == 1
    for opening in ("(", "-", "-("):
        with pytest.raises(FormulaError, match="deeper than 12"):
            read_formula(opening * MAX_DEPTH + "1")


def test_missing_values_and_divisions_by_zero_are_told() -> None:
    assert read_formula("a + c").names == {"a", "c"}
    with pytest.raises(FormulaError, match="'c' has no value; known: a, b, s1, zero"):
        read_formula("a + c").evaluate(VALUES)
    with pytest.raises(FormulaError, match="division by zero"):
        read_formula("a / (b - 3)").evaluate(VALUES)
