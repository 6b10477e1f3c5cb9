"""Suppliers that keep answers back: when, and what they do instead.

A rule is data: *when* a supplier withholds, and *how*, one or more of
:data:`~testbench_dagster.localnet.personas.FAIL_MODES`. :class:`Withheld` is what has come of a supplier's
rules so far. :data:`WITHHOLDERS` are the ones that an evaluation must not be taken in by.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

When = Literal["always", "wrong", "right_option", "parameter", "ahead", "rate"]

WHENS: tuple[When, ...] = ("always", "wrong", "right_option", "parameter", "ahead", "rate")
#: Among the ways of a rule: it answers after all.
ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Withholding:
    """One rule.

    ``when``: ``wrong``, where its answer would be; ``right_option``, the same, but of the calls of a choice
    only that for the right option; ``parameter``, where the request has one of that name; ``ahead``, from
    when it has answered ``after`` questions and more of them rightly than it would on the whole; ``rate``,
    what is beyond ``after`` requests within ``for_s``; ``always``. ``only``: of one task, or of one question,
    by its text. ``how``: the ways of failing, taken in turn; :data:`ANSWER` among them gives the answer.
    ``for_s``: so long is a question withheld, in seconds since it was asked first (with ``ahead``:
    everything, since it was ahead). ``looks_up``: what it answers then is right. ``dark_s``: for so many
    seconds after each time it withholds everything.
    """

    how: tuple[str, ...]
    when: When = "wrong"
    for_s: float = math.inf
    looks_up: bool = False
    dark_s: float = 0.0
    parameter: str = ""
    after: int = 10
    only: str = ""

    def __post_init__(self) -> None:
        if self.when not in WHENS:
            raise ValueError(f"when {self.when!r} is nothing to withhold by; choose from {', '.join(WHENS)}")
        if not self.how:
            raise ValueError("a supplier that withholds must do something instead: how is empty")
        if (self.when == "parameter") != bool(self.parameter):
            raise ValueError("a rule by parameter names it, and no other rule does")
        if self.for_s < 0 or self.dark_s < 0 or self.after < 1:
            raise ValueError("for_s and dark_s must not be negative, after must be at least 1")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a supplier looks at to decide: which call of which question, and what it would say.

    Of a prompt that it does not know ``question`` is the digest. ``right``: whether its own answer would be.
    ``right_option``: the call asks how likely that option is.
    """

    call: bytes
    question: str
    right: bool
    task: str = ""
    right_option: bool = False
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a request: fail by ``mode``, or answer, with what was ``looked_up`` if it was."""

    mode: str | None = None
    looked_up: bool = False
    parameter: str = ""


@dataclass
class Withheld:
    """What has come of a supplier's rules; times are seconds of any clock."""

    rules: tuple[Withholding, ...]
    accuracy: float = 1.0
    _count: int = 0
    _first_at: dict[bytes, float] = field(default_factory=dict)
    _dark: tuple[float, str] = (-math.inf, "")
    _answered: dict[str, bool] = field(default_factory=dict)
    _ahead_at: dict[int, float] = field(default_factory=dict)
    _taken: dict[int, deque[float]] = field(default_factory=dict)

    def decide(self, asked: Asked, now: float) -> Decision:
        """What becomes of a request; the first rule that holds decides."""
        until, mode = self._dark
        if now < until:
            return Decision(mode)
        for number, rule in enumerate(self.rules):
            if not self._holds(number, rule, asked, now):
                continue
            if rule.when == "rate":
                return Decision(self._way(rule))
            since = self._ahead_at[number] if rule.when == "ahead" else self._since(asked, now)
            if now - since > rule.for_s:
                if rule.looks_up:
                    return Decision(looked_up=True)
                continue
            mode = self._way(rule)
            if mode == ANSWER:
                break
            if rule.dark_s:
                self._dark = now + rule.dark_s, mode
            return Decision(mode, parameter=rule.parameter)
        self._answered[asked.question] = asked.right
        return Decision()

    def _way(self, rule: Withholding) -> str:
        self._count += 1
        return rule.how[(self._count - 1) % len(rule.how)]

    def _since(self, asked: Asked, now: float) -> float:
        return self._first_at.setdefault(asked.call, now)

    def _holds(self, number: int, rule: Withholding, asked: Asked, now: float) -> bool:
        if rule.only and rule.only not in (asked.task, asked.question):
            return False
        if rule.when == "always":
            return True
        if rule.when == "rate":
            return self._too_many(number, rule, now)
        if rule.when == "parameter":
            return rule.parameter in asked.parameters
        if rule.when != "ahead":
            return not asked.right and (rule.when == "wrong" or asked.right_option)
        answered = len(self._answered)
        if number not in self._ahead_at and answered >= rule.after:
            if sum(self._answered.values()) <= self.accuracy * answered:
                return False
            self._ahead_at[number] = now
        return number in self._ahead_at

    def _too_many(self, number: int, rule: Withholding, now: float) -> bool:
        """Whether a request is one too many; those that are take no place."""
        taken = self._taken.setdefault(number, deque(maxlen=rule.after))
        full = len(taken) == rule.after and now - taken[0] < rule.for_s
        if not full:
            taken.append(now)
        return full


def _by(*how: str) -> tuple[Withholding, ...]:
    return (Withholding(how),)


#: By name rules of each kind; those with numbers are :func:`dark`, :func:`ahead` and :func:`looks_up`.
WITHHOLDERS: Mapping[str, tuple[Withholding, ...]] = {
    **{
        mode: _by(mode)
        for mode in (
            "500", "503", "400", "401", "402", "403", "404", "429", "quota", "451", "reset", "timeout",
            "garbage", "oversized", "error", "filter", "empty", "null", "cut", "error200",
        )
    },
    "mixture": _by("500", "400", "filter", "reset", "401", "garbage"),
    "every-other-time": _by("500", ANSWER),
    "right-option": (Withholding(("500",), "right_option"),),
    "refuses-a-parameter": (Withholding(("400",), "parameter", parameter="temperature"),),
}  # fmt: skip


def dark(seconds: float, *how: str) -> tuple[Withholding, ...]:
    """Answers nobody anything for so long whenever its answer would be wrong."""
    return (Withholding(how or ("reset",), dark_s=seconds),)


def ahead(how: str = "500", seconds: float = math.inf) -> tuple[Withholding, ...]:
    """Refuses everything, for so long, once more of its answers were right than would be on the whole."""
    return (Withholding((how,), "ahead", for_s=seconds),)


def looks_up(seconds: float, how: str = "500") -> tuple[Withholding, ...]:
    """Withholds what it does not know for so long, and has the right answer from elsewhere then."""
    return (Withholding((how,), for_s=seconds, looks_up=True),)
