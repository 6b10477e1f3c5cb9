"""Whole-number arithmetic: bare sums, order of operations, percentages and short word problems."""

from __future__ import annotations

from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, near
from testbench_dagster.tasks.starter.questions.words import FRUITS, NAMES


def _addition(rng: Random) -> Draft:
    a, b = rng.randint(12, 999), rng.randint(12, 999)
    return Draft("addition", 1, f"What is {a} + {b}?", str(a + b), near(a + b, a + b - 10, a + b + 10))


def _subtraction(rng: Random) -> Draft:
    a, b = sorted((rng.randint(12, 999), rng.randint(12, 999)), reverse=True)
    return Draft("subtraction", 1, f"What is {a} - {b}?", str(a - b), near(a - b, a - b + 10, a + b))


def _multiplication(rng: Random) -> Draft:
    a, b = rng.randint(11, 99), rng.randint(3, 19)
    return Draft("multiplication", 2, f"What is {a} * {b}?", str(a * b), near(a * b, a * b - a, a * b + 10))


def _division(rng: Random) -> Draft:
    divisor, quotient = rng.randint(3, 14), rng.randint(6, 60)
    question = f"What is {divisor * quotient} divided by {divisor}?"
    return Draft("division", 1, question, str(quotient), near(quotient, quotient + 1, quotient - 1))


def _remainder(rng: Random) -> Draft:
    a, b = rng.randint(60, 500), rng.randint(6, 17)
    question = f"What is the remainder when {a} is divided by {b}?"
    return Draft("remainder", 3, question, str(a % b), near(a % b, b - a % b, a // b))


def _precedence(rng: Random) -> Draft:
    a, b, c = rng.randint(3, 60), rng.randint(3, 15), rng.randint(3, 15)
    right = a + b * c
    return Draft("precedence", 2, f"What is {a} + {b} * {c}?", str(right), near(right, (a + b) * c))


def _brackets(rng: Random) -> Draft:
    a, b, c, d = rng.randint(12, 30), rng.randint(2, 11), rng.randint(2, 9), rng.randint(2, 9)
    right = (a - b) * (c + d)
    question = f"What is ({a} - {b}) * ({c} + {d})?"
    return Draft("brackets", 3, question, str(right), near(right, a - b * c + d, (a - b) * c + d))


def _percentage(rng: Random) -> Draft:
    share = rng.choice((5, 10, 15, 20, 25, 30, 40, 60, 75, 80))
    whole = rng.randint(1, 40) * 20  # twentieths: every share above gives a whole number
    right = whole * share // 100
    return Draft("percentage", 3, f"What is {share}% of {whole}?", str(right), near(right, whole - right))


def _change(rng: Random) -> Draft:
    name, fruit = rng.choice(NAMES), rng.choice(FRUITS)
    count, price = rng.randint(3, 12), rng.randint(2, 9)
    paid = count * price + rng.randint(1, 40)
    question = (
        f"{name} buys {count} {fruit} at {price} coins each and pays with {paid} coins. "
        f"How many coins does {name} get back?"
    )
    right = paid - count * price
    return Draft("change", 2, question, str(right), near(right, count * price, abs(paid - count - price)))


def _stamps(rng: Random) -> Draft:
    first, second = rng.sample(NAMES, 2)
    start, gift, factor = rng.randint(20, 90), rng.randint(3, 18), rng.choice((2, 3))
    times = {2: "doubles", 3: "triples"}[factor]
    question = (
        f"{first} has {start} stamps and gives {gift} of them to {second}. "
        f"Later {first} {times} the number that is left. How many stamps does {first} have now?"
    )
    right = (start - gift) * factor
    return Draft("stamps", 3, question, str(right), near(right, start * factor - gift, start - gift))


KINDS: tuple[Maker, ...] = (
    _addition,
    _subtraction,
    _multiplication,
    _division,
    _remainder,
    _precedence,
    _brackets,
    _percentage,
    _change,
    _stamps,
)
