"""How simulated models work out questions nobody knew before: fresh ones of the starter catalog's kinds.

A question is read by its form and computed, as a model would that was never shown it. Nothing is looked up
and no seed is known here, so whoever draws such questions may draw as many as they like.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache

from testbench_dagster.tasks.starter import CHOICE_TASK
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.starter.questions import distinct_wrong, near
from testbench_dagster.tasks.starter.questions.dates import MONTHS, WEEKDAYS
from testbench_dagster.tasks.starter.questions.logic import VERDICTS

ARITHMETIC, CALENDAR, UNITS = "starter_arithmetic", "starter_calendar", "starter_units"
STRINGS, LOGIC = "starter_strings", "starter_logic"


@dataclass(frozen=True, slots=True)
class Solved:
    """A question that was read in a text, up to character ``end``: of which task, its answer, wrong ones."""

    task: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    end: int


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of questions: how they read, and what is answered to what its groups hold; None: unreadable."""

    task: str
    pattern: re.Pattern[str]
    answer: Callable[..., object]


def solved(text: str) -> Solved | None:
    """The question of a known form that ends last in ``text``, whose white space is single spaces.

    None where there is none. Of several that end at one place the longest.
    """
    best: Solved | None = None
    for form in _FORMS:
        for found in form.pattern.finditer(text):
            rank = found.end(), len(found.group())
            if best is not None and rank <= (best.end, len(best.question)):
                continue
            if (answer := form.answer(*found.groups())) is not None:
                said = str(answer)
                best = Solved(form.task, found.group(), said, wrong_answers(said), found.end())
    choice = _choice(text)
    return choice if choice and (best is None or choice.end > best.end) else best


def wrong_answers(answer: str) -> tuple[str, ...]:
    """Plausible wrong answers beside a right one, of its kind."""
    if re.fullmatch(r"-?\d{1,18}", answer):
        value = int(answer)
        return near(value, value * 10, abs(value - 10))
    if re.fullmatch(r"\d+\.\d+", answer):
        decimal = Decimal(answer)
        return distinct_wrong(answer, (_plain(decimal * 10), _plain(decimal / 10), _plain(decimal + 1)))
    for words in (VERDICTS, WEEKDAYS, MONTHS):
        if answer in words:
            at = words.index(answer)
            return distinct_wrong(answer, (words[(at + step) % len(words)] for step in (1, -1, 2)))
    if re.fullmatch(r"\d{4}-\d\d-\d\d", answer):
        day = date.fromisoformat(answer)
        return distinct_wrong(answer, (str(day + timedelta(days=slip)) for slip in (1, -1, 2)))
    if re.fullmatch(r"\d\d:\d\d", answer):
        minutes = _minutes(answer)
        return distinct_wrong(answer, (_clock((minutes + slip) % 1440) for slip in (60, 10, 1380)))
    turned = (answer[1:] + answer[:1], answer[::-1], answer + answer[-1:], f"{answer[:1]}e{answer[1:]}")
    return distinct_wrong(answer, (*turned, "x", "qu"))


# --- numbers -------------------------------------------------------------------------------------------


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _whole(count: int, divisor: int) -> int | None:
    """A quotient without remainder."""
    return count // divisor if divisor and count % divisor == 0 else None


_UNITS = {
    ("millimetres", "centimetres"): 10, ("centimetres", "metres"): 100, ("metres", "kilometres"): 1000,
    ("grams", "kilograms"): 1000, ("kilograms", "tonnes"): 1000, ("millilitres", "litres"): 1000,
    ("seconds", "minutes"): 60, ("minutes", "hours"): 60, ("hours", "days"): 24, ("days", "weeks"): 7,
    ("inches", "feet"): 12, ("feet", "yards"): 3, ("ounces", "pounds"): 16, ("items", "dozens"): 12,
}  # fmt: skip


def _converted(wanted: str, count: str, given: str) -> str | None:
    if ratio := _UNITS.get((wanted, given)):
        return _plain(Decimal(count) * ratio)
    if ratio := _UNITS.get((given, wanted)):
        return _plain(Decimal(count) / ratio)
    return None


def _mixed(wanted: str, whole: str, large: str, rest: str, small: str) -> int | None:
    ratio = _UNITS.get((small, large))
    return int(whole) * ratio + int(rest) if ratio and small == wanted else None


# --- calendar ------------------------------------------------------------------------------------------


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _weekday_of(text: str) -> str | None:
    day = _day(text)
    return WEEKDAYS[day.weekday()] if day else None


def _day_after(days: str, start: str) -> date | None:
    day = _day(start)
    return day + timedelta(days=int(days)) if day else None


def _days_between(start: str, end: str) -> int | None:
    first, last = _day(start), _day(end)
    return (last - first).days if first and last else None


# --- words ---------------------------------------------------------------------------------------------

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def _nth(ordinal: str, word: str) -> str | None:
    at = _ORDINALS.index(ordinal)
    return word[at] if at < len(word) else None


def _initials(listed: str) -> str:
    return "".join(word[0] for word in listed.split(", "))


# --- logic ---------------------------------------------------------------------------------------------


def _verdict(follows: bool, ruled_out: bool) -> str:
    return "yes" if follows else "no" if ruled_out else "unknown"


def _ordered(story: str, relation: str, first: str, second: str) -> str:
    """Who is above whom by what is told, over any number of steps."""
    below: dict[str, set[str]] = {}
    for upper, lower in re.findall(rf"(\w+) is {relation} than (\w+)\.", story):
        below.setdefault(upper, set()).add(lower)

    def above(one: str, other: str) -> bool:
        seen, todo = {one}, [one]
        while todo:
            new = below.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return other in seen

    return _verdict(above(first, second), above(second, first))


def _member(every: str, kind: str, other: str, _: str, is_a: str, asked: str) -> str | None:
    if {is_a, asked} - {kind, other}:
        return None
    known = is_a == kind and asked == other
    return _verdict(known and every == "Every", known and every == "No")


def _chained(link: str) -> str:
    return {"Every": "yes", "No": "no"}.get(link, "unknown")


def _inferred(first: str, last: str, seen: str, asked: str) -> str:
    """Whether what is asked about holds, from "if first, then last" (through others or not) and what is seen.

    A fact is told by its subject, its first two words; in a question they follow the verb.
    """
    subject, negative = " ".join(seen.split()[:2]), " not " in f" {seen} "
    about = " ".join(asked.split()[1:3])
    cause, effect = (" ".join(fact.split()[:2]) for fact in (first, last))
    return _verdict(
        subject == cause and not negative and about == effect,
        subject == effect and negative and about == cause,
    )


def _boxed(first: str, second: str, seen: str, negative: str | None, asked: str) -> str | None:
    if asked not in (first, second):
        return None
    if seen not in (first, second):
        return "unknown"
    there = negative is None
    return "yes" if (seen == asked) == there else "no"


# --- options in another order --------------------------------------------------------------------------

_OPTIONS = re.compile(r"(?:Which|[A-Z][a-z]+ is to)[^:?]*: ([^:?]+) or ([^:?]+)\?")


def _key(found: re.Match[str]) -> tuple[str, frozenset[str]]:
    stem = found.group()[: found.start(1) - found.start()]
    return stem, frozenset([*found.group(1).split(", "), found.group(2)])


@lru_cache(maxsize=1)
def _choices() -> dict[tuple[str, frozenset[str]], tuple[str, tuple[str, ...]]]:
    """Answers of the catalog's multiple choice by stem and options, in whatever order these stand."""
    known = {}
    for doc in read_docs(CHOICE_TASK):
        if found := _OPTIONS.fullmatch(doc["question"]):
            known[_key(found)] = doc["answer"], tuple(doc["wrong"])
    return known


def _choice(text: str) -> Solved | None:
    for found in reversed(list(_OPTIONS.finditer(text))):
        if (known := _choices().get(_key(found))) is not None:
            answer, wrong = known
            return Solved(CHOICE_TASK, found.group(), answer, wrong, found.end())
    return None


# --- the forms -----------------------------------------------------------------------------------------


def _numbers(work: Callable[..., object]) -> Callable[..., object]:
    """Work on whole numbers."""
    return lambda *groups: work(*map(int, groups))


def _forms() -> Iterable[_Form]:
    def form(task: str, pattern: str, answer: Callable[..., object]) -> _Form:
        return _Form(task, re.compile(pattern), answer)

    n, word, day, fact = r"(\d{1,6})", r"([a-z]{1,30})", r"(\d{4}-\d\d-\d\d)", r"([a-z ]{5,40})"
    name, amount = r"([A-Z][a-z]+)", r"(\d{1,6}(?:\.\d{1,3})?)"
    words, weekday = r"([a-z]{1,30}(?:, [a-z]{1,30}){1,9})", rf"({'|'.join(WEEKDAYS)})"

    yield form(ARITHMETIC, rf"What is {n} \+ {n}\?", _numbers(lambda a, b: a + b))
    yield form(ARITHMETIC, rf"What is {n} - {n}\?", _numbers(lambda a, b: a - b))
    yield form(ARITHMETIC, rf"What is {n} \* {n}\?", _numbers(lambda a, b: a * b))
    yield form(ARITHMETIC, rf"What is {n} divided by {n}\?", _numbers(_whole))
    yield form(
        ARITHMETIC,
        rf"What is the remainder when {n} is divided by {n}\?",
        _numbers(lambda a, b: a % b if b else None),
    )
    yield form(ARITHMETIC, rf"What is {n} \+ {n} \* {n}\?", _numbers(lambda a, b, c: a + b * c))
    yield form(
        ARITHMETIC,
        rf"What is \({n} - {n}\) \* \({n} \+ {n}\)\?",
        _numbers(lambda a, b, c, d: (a - b) * (c + d)),
    )
    yield form(ARITHMETIC, rf"What is {n}% of {n}\?", _numbers(lambda a, b: _whole(a * b, 100)))
    yield form(
        ARITHMETIC,
        rf"{name} buys {n} [a-z]+ at {n} coins each and pays with {n} coins\. "
        r"How many coins does \1 get back\?",
        lambda _, count, price, paid: int(paid) - int(count) * int(price),
    )
    yield form(
        ARITHMETIC,
        rf"{name} has {n} stamps and gives {n} of them to [A-Z][a-z]+\. "
        r"Later \1 (doubles|triples) the number that is left\. How many stamps does \1 have now\?",
        lambda _, start, gift, times: (int(start) - int(gift)) * (2 if times == "doubles" else 3),
    )

    yield form(
        CALENDAR,
        rf"Today is {weekday}\. Which day of the week will it be in {n} days\?",
        lambda today, days: WEEKDAYS[(WEEKDAYS.index(today) + int(days)) % 7],
    )
    yield form(
        CALENDAR,
        rf"[\d-]+ is a {weekday}\. Which day of the week is {day}\?",
        lambda _, end: _weekday_of(end),
    )
    yield form(CALENDAR, rf"Which date \(YYYY-MM-DD\) is {n} days after {day}\?", _day_after)
    yield form(CALENDAR, rf"How many days after {day} is {day}\?", _days_between)
    yield form(
        CALENDAR,
        rf"How many days does ({'|'.join(MONTHS)}) (\d{{4}}) have\?",
        lambda month, year: monthrange(int(year), MONTHS.index(month) + 1)[1] if int(year) else None,
    )
    yield form(
        CALENDAR,
        rf"Which month comes {n} months after ({'|'.join(MONTHS)})\?",
        lambda steps, month: MONTHS[(MONTHS.index(month) + int(steps)) % 12],
    )
    yield form(
        CALENDAR,
        rf"A train leaves at (\d\d:\d\d) and travels {n} minutes\. When does it arrive \(HH:MM\)\?",
        lambda leaves, minutes: _clock(_minutes(leaves) + int(minutes)),
    )

    yield form(UNITS, rf"How many {word} are {amount} {word}\?", _converted)
    yield form(UNITS, rf"How many {word} are {n} {word} and {n} {word} together\?", _mixed)
    yield form(
        UNITS,
        rf"From a rope of {n} metres, {n} pieces of {n} centimetres each are cut off\. "
        r"How many centimetres of rope remain\?",
        _numbers(lambda metres, pieces, length: metres * 100 - pieces * length),
    )
    yield form(
        UNITS,
        rf"How many glasses of {n} millilitres can be filled from {n} litres of juice\?",
        _numbers(lambda glass, litres: litres * 1000 // glass if glass else None),
    )
    yield form(
        UNITS,
        rf"How many kilometres does a car cover in {n} minutes at {n} kilometres per hour\?",
        _numbers(lambda minutes, speed: speed * minutes // 60),
    )

    yield form(STRINGS, rf'Spell the word "{word}" backwards\.', lambda w: w[::-1])
    yield form(
        STRINGS,
        r'How many times does the letter "([a-z])" occur in "([a-z ]{1,90})"\?',
        lambda letter, phrase: phrase.count(letter),
    )
    yield form(STRINGS, rf'What is the ({"|".join(_ORDINALS)}) letter of the word "{word}"\?', _nth)
    yield form(STRINGS, rf"Join the first letters of these words into one string: {words}\.", _initials)
    yield form(
        STRINGS,
        r'How many of the letters in "([a-z ]{1,60})" are vowels \(a, e, i, o or u\)\?',
        lambda phrase: sum(letter in "aeiou" for letter in phrase),
    )
    yield form(
        STRINGS,
        rf'Write the letters of the word "{word}" in alphabetical order, without spaces\.',
        lambda w: "".join(sorted(w)),
    )
    yield form(
        STRINGS,
        rf'What remains of the word "{word}" when every "([a-z])" is removed\?',
        lambda w, letter: w.replace(letter, "") or None,
    )
    yield form(
        STRINGS,
        rf"Which of these words comes (first|last) in alphabetical order: {words}\?",
        lambda end, listed: (min if end == "first" else max)(listed.split(", ")),
    )

    yield form(
        LOGIC,
        r"((?:[A-Z][a-z]+ is [a-z]+ than [A-Z][a-z]+\. ){1,9})Is ([A-Z][a-z]+) ([a-z]+) than ([A-Z][a-z]+)\?",
        lambda story, first, relation, second: _ordered(story, relation, first, second),
    )
    yield form(
        LOGIC,
        rf"(Every|No) {word} is a {word}\. ([A-Z][a-z]+) is a {word}\. Is \4 a {word}\?",
        _member,
    )
    yield form(
        LOGIC,
        rf"Every {word} is a {word}\. (Every) \2 is a {word}\. Is every \1 a \4\?",
        lambda *g: _chained(g[2]),
    )
    yield form(
        LOGIC,
        rf"Every {word} is a {word}\. (No) \2 is a {word}\. Is any \1 a \4\?",
        lambda *g: _chained(g[2]),
    )
    yield form(
        LOGIC,
        rf"Every {word} is a {word}\. (Some) but not all \2s are {word}s\. Is any \1 a \4\?",
        lambda *g: _chained(g[2]),
    )
    asked = r"((?:Is|Does) [a-z ]{5,40})\?"
    yield form(LOGIC, rf"If {fact}, then {fact}\. We see that {fact}\. {asked}", _inferred)
    yield form(
        LOGIC,
        rf"If {fact}, then {fact}\. If \2, then {fact}\. We see that {fact}\. {asked}",
        lambda first, _, last, seen, question: _inferred(first, last, seen, question),
    )
    yield form(
        LOGIC,
        rf"Exactly one of two things is in the box: the {word} or the {word}\. "
        rf"The {word} is (not )?in the box\. Is the {word} in the box\?",
        _boxed,
    )


_FORMS = tuple(_forms())
