"""Conversion between units whose ratio is exact, alone, mixed and inside short problems."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, distinct_wrong, near

# (small unit, large unit, small units in one large one)
_RATIOS = (
    ("millimetres", "centimetres", 10),
    ("centimetres", "metres", 100),
    ("metres", "kilometres", 1000),
    ("grams", "kilograms", 1000),
    ("kilograms", "tonnes", 1000),
    ("millilitres", "litres", 1000),
    ("seconds", "minutes", 60),
    ("minutes", "hours", 60),
    ("hours", "days", 24),
    ("days", "weeks", 7),
    ("inches", "feet", 12),
    ("feet", "yards", 3),
    ("ounces", "pounds", 16),
    ("items", "dozens", 12),
)
_DECIMAL = tuple(ratio for ratio in _RATIOS if ratio[2] in (10, 100, 1000))


def _plain(value: Decimal) -> str:
    """Decimal without exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _to_small(rng: Random) -> Draft:
    small, large, ratio = rng.choice(_RATIOS)
    count = rng.randint(3, 60)
    right = count * ratio
    question = f"How many {small} are {count} {large}?"
    return Draft("to_small", 1, question, str(right), near(right, right * 10, right + ratio))


def _to_large(rng: Random) -> Draft:
    small, large, ratio = rng.choice(_RATIOS)
    count = rng.randint(3, 60)
    question = f"How many {large} are {count * ratio} {small}?"
    return Draft("to_large", 1, question, str(count), near(count, count * 10, count + 1))


def _decimal_to_small(rng: Random) -> Draft:
    small, large, ratio = rng.choice(_DECIMAL)
    count = Decimal(rng.randrange(11, 999)) / 10
    right = count * ratio
    question = f"How many {small} are {_plain(count)} {large}?"
    wrong = distinct_wrong(_plain(right), (_plain(right * 10), _plain(right / 10), _plain(right + ratio)))
    return Draft("decimal_to_small", 2, question, _plain(right), wrong)


def _decimal_to_large(rng: Random) -> Draft:
    small, large, ratio = rng.choice(_DECIMAL)
    count = rng.randrange(ratio + 1, 20 * ratio)
    right = Decimal(count) / ratio
    wrong = distinct_wrong(_plain(right), (_plain(right * 10), _plain(right / 10), _plain(right + 1)))
    return Draft("decimal_to_large", 3, f"How many {large} are {count} {small}?", _plain(right), wrong)


def _mixed(rng: Random) -> Draft:
    small, large, ratio = rng.choice(_RATIOS)
    whole, rest = rng.randint(2, 15), rng.randint(2, ratio - 1)
    right = whole * ratio + rest
    question = f"How many {small} are {whole} {large} and {rest} {small} together?"
    return Draft("mixed", 2, question, str(right), near(right, whole * 10 + rest, whole + rest))


def _rope(rng: Random) -> Draft:
    metres, pieces, length = rng.randint(3, 20), rng.randint(2, 6), rng.randint(12, 45)
    right = metres * 100 - pieces * length
    question = (
        f"From a rope of {metres} metres, {pieces} pieces of {length} centimetres each are cut off. "
        "How many centimetres of rope remain?"
    )
    return Draft("rope", 3, question, str(right), near(right, metres * 100 - length, pieces * length))


def _jugs(rng: Random) -> Draft:
    litres, glass = rng.randint(2, 12), rng.choice((100, 125, 200, 250, 500))
    right = litres * 1000 // glass
    question = f"How many glasses of {glass} millilitres can be filled from {litres} litres of juice?"
    return Draft("jugs", 2, question, str(right), near(right, right * 10, litres * glass // 100))


def _ride(rng: Random) -> Draft:
    speed, minutes = rng.choice((12, 18, 24, 30, 36, 48, 60, 72)), rng.randrange(10, 190, 10)
    right = speed * minutes // 60
    question = f"How many kilometres does a car cover in {minutes} minutes at {speed} kilometres per hour?"
    return Draft("ride", 3, question, str(right), near(right, speed * minutes // 100, right * 2))


KINDS: tuple[Maker, ...] = (
    _to_small,
    _to_large,
    _decimal_to_small,
    _decimal_to_large,
    _mixed,
    _rope,
    _jugs,
    _ride,
)
