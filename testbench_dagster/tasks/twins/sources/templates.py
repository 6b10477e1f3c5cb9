"""A template: which numbers of a question vary, how its answer follows from them, and what must hold.

Written on one line of three parts, the last of which may be missing::

    a0 b2 c3:10..60/5 | a*b, s1-c | s1 > c, a < 10

First the numbers that vary: a letter, the number's place among the numbers of the question from 0, and
where the rule below is not wanted the values it may take, from .. to / step. Then the steps of the solution;
``s1`` is the result of the first, and the last is the answer. Then conditions.

Beyond what a template says, a twin keeps to the following, so that it is as hard as its original and reads as
well. A number keeps its number of digits, trailing zeros, decimals, and whether it is a multiple of five
(one-digit numbers aside); it is 2.5 times as large or small at most, never 1, and after "a" or "an" begins
with the same kind of sound. It is drawn with a chance of 1 / value, so that it is larger than the original as
often as smaller: larger numbers are harder (arXiv 2605.28700 on the twins of others). Numbers that vary
differ from each other, and at least half of them from the original's. A step's result is positive, has no
more decimals than the original's, and a digit more or less at most. The answer is whole where the original's
is, and another.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.twins.sources.drawing import HashRandom
from testbench_dagster.tasks.twins.sources.expressions import (
    Condition,
    Formula,
    FormulaError,
    read_condition,
    read_formula,
)
from testbench_dagster.tasks.twins.sources.numbers import WORDS, NumberToken, number_tokens, replaced

#: Characters of a line.
MAX_LINE = 600
#: Draws until one fits. Of the templates of GSM8K one draw in 450 fits or more, which a test measures.
MAX_DRAWS = 20_000
#: How many times as large or small as the original a number is at most.
RATIO = Fraction(5, 2)
# Values a number may take.
_MAX_VALUES = 100_000
# Weight of the value 1, far above any value, so that rounding does not matter.
_WEIGHT = 10**12
# Results with more decimals than this are no decimals that a person writes.
_MAX_DECIMALS = 6

_NUMBER = re.compile(r"([a-z])(\d{1,3})(?::(\d{1,7})\.\.(\d{1,7})(?:/(\d{1,6}))?)?", re.ASCII)
_ARTICLE = re.compile(r"\ba(n?)\s+\$?$", re.IGNORECASE)
_VOWEL_SOUND = re.compile(r"8|11(?!\d)|18(?!\d)|eight|eleven|eighteen", re.IGNORECASE)


class TemplateError(ValueError):
    """A template cannot be read, or does not fit the question."""


@dataclass(frozen=True, slots=True)
class Varying:
    """A number that varies: its name, its place in the question, and its values if not the rule's."""

    name: str
    place: int
    values: range | None


@dataclass(frozen=True, slots=True)
class Template:
    """What :func:`read_template` reads from a line."""

    numbers: tuple[Varying, ...]
    steps: tuple[Formula, ...]
    conditions: tuple[Condition, ...]


def read_template(line: str) -> Template:
    """Reads a template from its line.

    Raises:
        TemplateError: the line is too long, or a part of it cannot be read or names what is not there.
    """
    if len(line) > MAX_LINE:
        raise TemplateError(f"a template of {counted(len(line), 'character')}; at most {MAX_LINE} are read")
    parts = line.split("|")
    if len(parts) not in (2, 3):
        raise TemplateError(f"{line!r} has {counted(len(parts), 'part')}; write numbers | steps | conditions")
    numbers = tuple(_varying(part) for part in parts[0].split())
    try:
        steps = tuple(read_formula(part.strip()) for part in parts[1].split(","))
        conditions = tuple(
            read_condition(part.strip()) for part in "".join(parts[2:]).split(",") if part.strip()
        )
    except FormulaError as error:
        raise TemplateError(f"{line!r}: {error}") from error
    _check_names(line, numbers, steps, conditions)
    return Template(numbers, steps, conditions)


def _varying(text: str) -> Varying:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise TemplateError(f"{text!r} is no number that varies; write one like a0 or b2:10..60/5")
    name, place, low, high, step = found.groups()
    values = None if low is None else range(int(low), int(high) + 1, int(step or 1) or 1)
    if values is not None and not 2 <= len(values) <= _MAX_VALUES:
        raise TemplateError(f"{text!r} has {len(values)} values; give 2 to {_MAX_VALUES}")
    return Varying(name, int(place), values)


def _check_names(
    line: str, numbers: Sequence[Varying], steps: Sequence[Formula], conditions: Sequence[Condition]
) -> None:
    known = {number.name for number in numbers}
    used: set[str] = set()
    if not numbers or len(known) != len(numbers) or len({n.place for n in numbers}) != len(numbers):
        raise TemplateError(f"{line!r}: every number that varies has a letter and a place of its own")
    for count, step in enumerate(steps, 1):
        if unknown := step.names - known:
            raise TemplateError(
                f"{line!r}: {step.text!r} names {', '.join(sorted(unknown))}, not known there"
            )
        used |= step.names
        known.add(f"s{count}")
    if unknown := frozenset().union(*(condition.names for condition in conditions)) - known:
        raise TemplateError(f"{line!r}: conditions name {', '.join(sorted(unknown))}, not known")
    if unused := known - used - {f"s{len(steps)}"}:
        raise TemplateError(f"{line!r}: {', '.join(sorted(unused))} is not used by any step")


@dataclass(frozen=True, slots=True)
class Choices:
    """Values of a number, drawn with chances of 1 / value, as whole numbers: floats may differ."""

    values: tuple[Fraction, ...]
    weights: tuple[int, ...]

    @classmethod
    def from_values(cls, values: Sequence[Fraction]) -> Choices:
        """The values with their cumulative weights."""
        return cls(tuple(values), tuple(accumulate(int(_WEIGHT / value) for value in values)))

    def draw(self, rng: HashRandom) -> Fraction:
        """One of the values."""
        return self.values[bisect_right(self.weights, rng.randrange(self.weights[-1]))]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A template on its question: the original's numbers and results, and the values each number may take."""

    question: str
    template: Template
    originals: Mapping[str, Fraction]
    results: tuple[Fraction, ...]
    values: tuple[Choices, ...]

    @property
    def answer(self) -> Fraction:
        """The answer with the original's numbers."""
        return self.results[-1]

    def draw(self, key: str) -> tuple[str, Fraction]:
        """A twin's text and answer, drawn by SHA-256 of ``key``.

        Raises:
            TemplateError: nothing that was drawn fits.
        """
        rng = HashRandom(key)
        for _ in range(MAX_DRAWS):
            drawn = [choices.draw(rng) for choices in self.values]
            if (answer := self.answer_with(drawn)) is not None:
                places = [number.place for number in self.template.numbers]
                return replaced(self.question, dict(zip(places, drawn, strict=True))), answer
        raise TemplateError(f"no twin of {self.question[:60]!r} in {MAX_DRAWS} draws")

    def answer_with(self, drawn: Sequence[Fraction]) -> Fraction | None:
        """The answer with other numbers; None where they do not make a twin."""
        changed = sum(map(operator.ne, drawn, self.originals.values()))
        if len(set(drawn)) != len(drawn) or changed * 2 < len(drawn):
            return None
        known = dict(zip((number.name for number in self.template.numbers), drawn, strict=True))
        try:
            results = _results(self.template, known)
            if not all(condition.holds(known) for condition in self.template.conditions):
                return None
        except FormulaError:  # a division by zero
            return None
        alike = all(map(_alike, results, self.results))
        return results[-1] if alike and results[-1] != self.answer else None


def fit(template: Template, question: str) -> Fitted:
    """The template on its question.

    Raises:
        TemplateError: the question has not the numbers that the template names, or they break its conditions.
    """
    tokens = number_tokens(question)
    if any(number.place >= len(tokens) for number in template.numbers):
        raise TemplateError(f"the question has {len(tokens)} numbers, fewer than its template names")
    known = {number.name: tokens[number.place].value for number in template.numbers}
    originals = dict(known)
    try:
        results = _results(template, known)
        broken = [condition.text for condition in template.conditions if not condition.holds(known)]
    except FormulaError as error:
        raise TemplateError(f"the original's numbers do not fit: {error}") from error
    if broken:
        raise TemplateError(f"the original's numbers break {', '.join(broken)}")
    choices = tuple(_choices(number, tokens[number.place], question) for number in template.numbers)
    return Fitted(question, template, originals, results, choices)


def _results(template: Template, known: dict[str, Fraction]) -> tuple[Fraction, ...]:
    """The results of all steps, which are also added to the known values."""
    for count, step in enumerate(template.steps, 1):
        known[f"s{count}"] = step.evaluate(known)
    return tuple(known[f"s{count}"] for count in range(1, len(template.steps) + 1))


def decimals(value: Fraction) -> int:
    """Decimals that write ``value`` exactly; more than anybody writes where there are none."""
    return next((n for n in range(_MAX_DECIMALS + 1) if (value * 10**n).denominator == 1), _MAX_DECIMALS + 1)


def _alike(result: Fraction, original: Fraction) -> bool:
    """Whether a step's result is like the original's: positive, no more decimals, of about as many digits."""
    return (
        result > 0
        and decimals(result) <= decimals(original)
        and abs(len(str(int(result))) - len(str(int(original)))) <= 1
    )


def _choices(number: Varying, token: NumberToken, question: str) -> Choices:
    """The values that a number may take in place of ``token``."""
    if number.values is not None:
        values = [Fraction(value) for value in number.values]
    else:
        values = [Fraction(value, 10**token.decimals) for value in _alike_whole(token.scaled)]
    if token.is_word:
        values = [value for value in values if value <= len(WORDS)]
    if _ARTICLE.search(question, max(0, token.start - 5), token.start):
        values = [value for value in values if _sounds(token.rewritten(value)) == _sounds(token.written)]
    values = [value for value in values if value > 0 and value != 1]
    if len(values) < 2:
        raise TemplateError(f"{token.written!r} of {question[:60]!r} has {len(values)} values to take")
    return Choices.from_values(values)


def _alike_whole(original: int) -> list[int]:
    """Whole numbers like another: in size, digits, trailing zeros, and whether they are multiples of five."""
    digits = str(original)
    core = digits.rstrip("0")
    if not core:
        raise TemplateError("a number that is 0 cannot vary")
    unit = 10 ** (len(digits) - len(core))
    lowest = max(-(-original // RATIO // unit), 10 ** (len(core) - 1))
    highest = min(original * RATIO // unit, 10 ** len(core) - 1)
    if highest - lowest > _MAX_VALUES:
        raise TemplateError(f"{original} has more than {_MAX_VALUES} numbers like it")
    by_five = int(core) % 5 == 0
    return [
        value * unit
        for value in range(int(lowest), int(highest) + 1)
        if value % 10 and (len(core) == 1 or (value % 5 == 0) == by_five)
    ]


def _sounds(written: str) -> bool:
    return _VOWEL_SOUND.match(written) is not None
