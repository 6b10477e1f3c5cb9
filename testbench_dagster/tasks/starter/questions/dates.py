"""Reckoning with the Gregorian calendar and the clock: weekdays, dates, times of day, counts of days."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from testbench_dagster.tasks.starter.questions import Draft, Maker, distinct_wrong, near

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def _day(rng: Random) -> date:
    return date(2001, 1, 1) + timedelta(days=rng.randrange(365 * 40))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _weekday_after(rng: Random) -> Draft:
    today, days = rng.randrange(7), rng.randint(3, 60)
    answer = WEEKDAYS[(today + days) % 7]
    wrong = (WEEKDAYS[(today + days + slip) % 7] for slip in (1, 6, 2))
    question = f"Today is {WEEKDAYS[today]}. Which day of the week will it be in {days} days?"
    return Draft("weekday_after", 1 if days < 14 else 2, question, answer, distinct_wrong(answer, wrong))


def _weekday_of_date(rng: Random) -> Draft:
    start = _day(rng)
    days = rng.randint(5, 45)
    end = start + timedelta(days=days)
    answer = WEEKDAYS[end.weekday()]
    wrong = (WEEKDAYS[(end.weekday() + slip) % 7] for slip in (1, 6, 3))
    question = f"{start} is a {WEEKDAYS[start.weekday()]}. Which day of the week is {end}?"
    return Draft("weekday_of_date", 3, question, answer, distinct_wrong(answer, wrong))


def _date_after(rng: Random) -> Draft:
    start, days = _day(rng), rng.randint(4, 50)
    answer = start + timedelta(days=days)
    wrong = (str(answer + timedelta(days=slip)) for slip in (1, -1, 2))
    question = f"Which date (YYYY-MM-DD) is {days} days after {start}?"
    return Draft("date_after", 2, question, str(answer), distinct_wrong(str(answer), wrong))


def _days_between(rng: Random) -> Draft:
    start, days = _day(rng), rng.randint(8, 120)
    question = f"How many days after {start} is {start + timedelta(days=days)}?"
    return Draft("days_between", 3, question, str(days), near(days, days - 1, days + 1))


def _month_length(rng: Random) -> Draft:
    year, month = rng.randint(1896, 2104), rng.randint(1, 12)
    following = date(year + month // 12, month % 12 + 1, 1)
    days = (following - date(year, month, 1)).days
    question = f"How many days does {MONTHS[month - 1]} {year} have?"
    wrong = near(days, *(n for n in (29, 28, 30, 31) if n != days))
    return Draft("month_length", 2 if month == 2 else 1, question, str(days), wrong)


def _month_after(rng: Random) -> Draft:
    month, steps = rng.randrange(12), rng.randint(3, 20)
    answer = MONTHS[(month + steps) % 12]
    wrong = (MONTHS[(month + steps + slip) % 12] for slip in (1, 11, 2))
    question = f"Which month comes {steps} months after {MONTHS[month]}?"
    return Draft("month_after", 1, question, answer, distinct_wrong(answer, wrong))


def _arrival(rng: Random) -> Draft:
    start, minutes = rng.randrange(6 * 60, 18 * 60, 5), rng.randrange(35, 330, 5)
    answer = _clock(start + minutes)
    wrong = (_clock(start + minutes + slip) for slip in (-60, 10, 60))
    leaves = _clock(start)
    question = f"A train leaves at {leaves} and travels {minutes} minutes. When does it arrive (HH:MM)?"
    return Draft("arrival", 2, question, answer, distinct_wrong(answer, wrong))


KINDS: tuple[Maker, ...] = (
    _weekday_after,
    _weekday_of_date,
    _date_after,
    _days_between,
    _month_length,
    _month_after,
    _arrival,
)
