"""Small matters of English in what people are told."""

from __future__ import annotations

import math

#: Digits behind the point of the least amount of money that is told.
_MOST_DIGITS = 12


def counted(n: float, noun: str, form: str = "") -> str:
    """``1 task``, ``2 tasks``: a number of things whose plural ends in s; ``form`` is that of the number."""
    return f"{n:{form}} {noun}" if n == 1 else f"{n:{form}} {noun}s"


def money(amount: float | None, unknown: str = "–") -> str:
    """An amount of money: to cents, and small ones to three digits, for a call may cost thousandths."""
    if amount is None:
        return unknown
    if not amount:
        return "0"
    digits = 2 if abs(amount) >= 1 else 2 - math.floor(math.log10(abs(amount)))
    return f"{amount:,.{min(digits, _MOST_DIGITS)}f}"


def agreeing(n: int, one: str, many: str) -> str:
    """``1 doc waits``, ``2 docs wait``: a number with the words that agree with it."""
    return f"{n} {one if n == 1 else many}"


def are(n: int) -> str:
    """The verb that goes with so many: ``1 doc is``, ``2 docs are``."""
    return "is" if n == 1 else "are"


def duration(seconds: float) -> str:
    """A length of time in its two largest units: ``8 s``, ``3 m 02 s``, ``2 h 05 m``, ``3 d 04 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
