"""Question makers of the starter catalog: one module per task, each exporting ``KINDS``.

A kind is a function from a seeded random source to one :class:`Draft`; the generator calls the kinds in turn
and keeps what is new. A maker knows the exact answer because it computes question and answer together.

Belongs here: question makers: functions from a seed to a question with its answer. Does not: files, formats,
and task configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

#: Plausible wrong answers kept per doc.
WRONG_ANSWERS = 3


@dataclass(frozen=True, slots=True)
class Draft:
    """One question with its only right answer and some plausible wrong ones.

    ``level`` is 1 (easy) to 3 (hard). ``extra`` holds fields only some tasks have, such as ``choices``.
    """

    kind: str
    level: int
    question: str
    answer: str
    wrong: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


Maker = Callable[[Random], Draft]


def distinct_wrong(answer: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The first few different candidates that are not the answer (case does not make a difference)."""
    kept: dict[str, str] = {}
    for candidate in candidates:
        if candidate.lower() != answer.lower():
            kept.setdefault(candidate.lower(), candidate)
    if not kept:
        raise ValueError(f"no wrong answer beside {answer!r}")
    return tuple(kept.values())[:WRONG_ANSWERS]


def near(value: int, *slips: int) -> tuple[str, ...]:
    """Wrong numbers beside ``value``: typical slips first, then neighbours."""
    neighbours = (value + 1, value + 10, abs(value - 2), value + 3)
    return distinct_wrong(str(value), (str(number) for number in (*slips, *neighbours)))
