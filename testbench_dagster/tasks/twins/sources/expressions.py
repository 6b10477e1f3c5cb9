"""Arithmetic of templates: ``+ - * /``, brackets, names and plain numbers, over exact fractions.

A small language of its own instead of Python's: there is nothing in it to call, no power, no loop, and every
text is bounded, so a file of templates can do no harm whoever wrote it.

    formula   = product { ("+" | "-") product }
    product   = leaf { ("*" | "/") leaf }
    leaf      = number | name | "(" formula ")" | "-" leaf
    condition = formula ("<" | "<=" | ">" | ">=" | "=" | "!=" | "divides") formula
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from testbench_dagster.core.wording import counted

#: Characters of one formula.
MAX_LENGTH = 200
#: Brackets and signs within each other.
MAX_DEPTH = 12

_SPACES = " \t\n\r\f\v"  # what \s is in it; there are others beyond ASCII
_TOKEN = re.compile(
    r"\s*(?:(\d{1,9}(?:\.\d{1,6})?(?![\d.]))|([a-z][a-z0-9]{0,7})|(<=|>=|!=|[-+*/()<>=]))", re.ASCII
)
_DIVIDES = "divides"
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
    _DIVIDES: lambda divisor, number: divisor != 0 and (number / divisor).denominator == 1,
}
_OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class FormulaError(ValueError):
    """A formula cannot be read, or has no value."""


@dataclass(frozen=True, slots=True)
class _Number:
    value: Fraction

    def evaluate(self, values: Mapping[str, Fraction]) -> Fraction:
        return self.value


@dataclass(frozen=True, slots=True)
class _Name:
    name: str

    def evaluate(self, values: Mapping[str, Fraction]) -> Fraction:
        try:
            return values[self.name]
        except KeyError:
            raise FormulaError(f"{self.name!r} has no value; known: {', '.join(sorted(values))}") from None


@dataclass(frozen=True, slots=True)
class _Operation:
    sign: str
    left: _Formula
    right: _Formula

    def evaluate(self, values: Mapping[str, Fraction]) -> Fraction:
        left, right = self.left.evaluate(values), self.right.evaluate(values)
        if self.sign == "/" and not right:
            raise FormulaError("division by zero")
        return _OPERATIONS[self.sign](left, right)


_Formula = _Number | _Name | _Operation


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that was read; ``names`` are the names in it, and ``text`` is what it was read from."""

    text: str
    names: frozenset[str]
    _tree: _Formula

    def evaluate(self, values: Mapping[str, Fraction]) -> Fraction:
        """Its value.

        Raises:
            FormulaError: a name has no value, or something is divided by zero.
        """
        return self._tree.evaluate(values)


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of two formulas; ``a divides b`` holds where b / a is whole."""

    text: str
    names: frozenset[str]
    _left: _Formula
    _sign: str
    _right: _Formula

    def holds(self, values: Mapping[str, Fraction]) -> bool:
        """Whether it holds.

        Raises:
            FormulaError: a name has no value, or something is divided by zero.
        """
        return _COMPARISONS[self._sign](self._left.evaluate(values), self._right.evaluate(values))


def read_formula(text: str) -> Formula:
    """Reads a formula.

    Raises:
        FormulaError: it is too long or too deep, or no formula.
    """
    reader = _Reader(text)
    tree = reader.formula(0)
    reader.end()
    return Formula(text, frozenset(reader.names), tree)


def read_condition(text: str) -> Condition:
    """Reads a comparison.

    Raises:
        FormulaError: it is too long or too deep, or no comparison.
    """
    reader = _Reader(text)
    left = reader.formula(0)
    sign = reader.comparison()
    right = reader.formula(0)
    reader.end()
    return Condition(text, frozenset(reader.names), left, sign, right)


class _Reader:
    """Recursive descent; the depth is that of brackets and signs, for chains are read in a loop."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise FormulaError(
                f"a formula of {counted(len(text), 'character')}; at most {MAX_LENGTH} are read"
            )
        self._text = text
        self._parts = _parts(text)
        self._place = 0
        self.names: set[str] = set()

    def formula(self, depth: int) -> _Formula:
        return self._chain(depth, ("+", "-"), self._product)

    def comparison(self) -> str:
        sign = self._next()
        if sign not in _COMPARISONS:
            raise self._odd(sign)
        return sign

    def end(self) -> None:
        if self._place < len(self._parts):
            raise self._odd(self._parts[self._place])

    def _product(self, depth: int) -> _Formula:
        return self._chain(depth, ("*", "/"), self._leaf)

    def _chain(self, depth: int, signs: tuple[str, str], part: Callable[[int], _Formula]) -> _Formula:
        left = part(depth)
        while self._place < len(self._parts) and self._parts[self._place] in signs:
            sign = self._next()
            left = _Operation(sign, left, part(depth))
        return left

    def _leaf(self, depth: int) -> _Formula:
        if depth >= MAX_DEPTH:
            raise FormulaError(f"{self._text!r} is deeper than {MAX_DEPTH} brackets")
        part = self._next()
        if part == "(":
            inner = self.formula(depth + 1)
            if (closing := self._next()) != ")":
                raise self._odd(closing)
            return inner
        if part == "-":
            return _Operation("-", _Number(Fraction(0)), self._leaf(depth + 1))
        if part[0].isdigit():
            return _Number(Fraction(part))
        if part[0].isalpha() and part != _DIVIDES:
            self.names.add(part)
            return _Name(part)
        raise self._odd(part)

    def _next(self) -> str:
        if self._place >= len(self._parts):
            raise FormulaError(f"{self._text!r} ends where more is expected")
        self._place += 1
        return self._parts[self._place - 1]

    def _odd(self, part: str) -> FormulaError:
        return FormulaError(f"{part!r} is not expected in {self._text!r}")


def _parts(text: str) -> list[str]:
    """Numbers, names and signs, in order."""
    parts, place, end = [], 0, len(text.rstrip(_SPACES))
    while place < end:
        found = _TOKEN.match(text, place, end)
        if found is None:
            raise FormulaError(f"{text[place : place + 20]!r} is not expected in {text!r}")
        parts.append(found[found.lastindex or 0])
        place = found.end()
    return parts
