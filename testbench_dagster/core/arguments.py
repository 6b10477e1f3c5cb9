"""Arguments of the Python API as its methods take them, or a message on what to give instead.

Python passes anything anywhere: without these checks a text would be read letter by letter, an empty
selection would mean everybody, and a wrong type would show as an error of some module far below.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.period import Period
from testbench_dagster.core.places import is_url, place_problem


def selection(name: str, given: object) -> tuple[str, ...] | None:
    """The keys or names of a selection, each once and in order; None, which stands for all, stays None.

    Raises:
        ConfigError: it is empty, a single text, or holds something else than texts.
    """
    if given is None:
        return None
    many = _listed(name, given, "a list of texts")
    for position, one in enumerate(many):
        if not isinstance(one, str):
            raise ConfigError(f"{name}[{position}] is {_shown(one)}; give a text")
    return tuple(dict.fromkeys(str(one) for one in many))


def numbers(name: str, given: object) -> tuple[int, ...] | None:
    """The ids of a selection, each once and in order; None, which stands for all, stays None.

    Raises:
        ConfigError: it is empty, or holds something else than whole numbers of at least 0.
    """
    if given is None:
        return None
    many = _listed(name, given, "a list of ids")
    return tuple(dict.fromkeys(_whole(f"{name}[{n}]", one, "an id", 0) for n, one in enumerate(many)))


def count(name: str, given: object, of: str, least: int = 0) -> int:
    """A number of something. Raises ConfigError: it is no whole number of at least ``least``."""
    return _whole(name, given, f"a number of {of}", least)


def count_or_none(name: str, given: object, of: str = "relays") -> int | None:
    """A number of something, or None for no bound. Raises ConfigError: it is no whole number from 0 on."""
    return None if given is None else _whole(name, given, f"a number of {of}", 0, ", or None")


def text(name: str, given: object) -> str:
    """A key or name. Raises ConfigError: it is no text."""
    if not isinstance(given, str):
        raise ConfigError(f"{name} is {_shown(given)}; give a text")
    return str(given)


def text_or_none(name: str, given: object) -> str | None:
    """A key or name, or None for all. Raises ConfigError: it is something else."""
    if given is not None and not isinstance(given, str):
        raise ConfigError(f"{name} is {_shown(given)}; give a text, or None")
    return given


def flag(name: str, given: object) -> bool:
    """A yes or no. Raises ConfigError: it is something else, such as the text "no", which would mean yes."""
    if not isinstance(given, bool):
        raise ConfigError(f"{name} is {_shown(given)}; give True or False")
    return given


def wait(name: str, given: object) -> bool | timedelta:
    """Whether to wait, or for how long at most. Raises ConfigError: it is something else, or below zero."""
    if isinstance(given, bool) or (isinstance(given, timedelta) and given >= timedelta()):
        return given
    raise ConfigError(f"{name} is {_shown(given)}; give True, False, or a timedelta of at least 0")


def event(name: str, given: object) -> threading.Event | None:
    """An event to be set, or None. Raises ConfigError: it is something else."""
    if given is not None and not isinstance(given, threading.Event):
        raise ConfigError(f"{name} is {_shown(given)}; give a threading.Event, or None")
    return given


def instant_or_none(name: str, given: object, now: datetime) -> datetime | None:
    """An instant, or the end of a day in UTC as far as it is past; None stays None.

    Raises:
        ConfigError: it is neither, has no time zone, or lies after ``now``.
    """
    if given is None:
        return None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigError(f"{name} has no time zone; give one, such as tzinfo=datetime.UTC")
        if given > now:
            raise ConfigError(
                f"{name} is {given.isoformat()}, which is yet to come; give an instant up to now"
            )
        return given
    if isinstance(given, date):
        start = datetime(given.year, given.month, given.day, tzinfo=UTC)
        if start > now:
            raise ConfigError(f"{name} is {given.isoformat()}, which is yet to come; give a day up to today")
        return min(start + timedelta(days=1), now)
    raise ConfigError(f"{name} is {_shown(given)}; give a datetime with a time zone, a date, or None for now")


def period(since: object, until: object) -> Period:
    """The time between two instants with a zone, either of them None for no bound.

    Raises:
        ConfigError: one is no instant, has no time zone, or the end is not after the beginning.
    """
    bounds = []
    for name, given in (("since", since), ("until", until)):
        if given is not None and not isinstance(given, datetime):
            raise ConfigError(f"{name} is {_shown(given)}; give a datetime with a time zone, or None")
        if given is not None and given.tzinfo is None:
            raise ConfigError(f"{name} has no time zone; give one, such as tzinfo=datetime.UTC")
        try:
            bounds.append(None if given is None else given.astimezone(UTC))
        except OverflowError:
            raise ConfigError(f"{name} is {given}, which no calendar reaches in UTC; give another") from None
    first, last = bounds
    if first is not None and last is not None and first >= last:
        raise ConfigError(
            f"until is {last.isoformat()}, which is not after since, {first.isoformat()}; give a later one"
        )
    return Period(first, last)


def one_of(name: str, given: object, known: Sequence[str]) -> str:
    """One of some words. Raises ConfigError: it is none of them."""
    if not isinstance(given, str) or given not in known:
        raise ConfigError(f"{name} is {_shown(given)}; give one of {', '.join(known)}")
    return given


def day_or_none(name: str, given: object, now: datetime) -> date | None:
    """A day in UTC: a date, that of an instant, or so long before ``now``; None stays None.

    Raises:
        ConfigError: it is something else, or an instant without time zone.
    """
    if isinstance(given, timedelta):
        try:
            return (now - given).date()
        except OverflowError:
            raise ConfigError(f"{name} is {_shown(given)}, which no calendar reaches; give less") from None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigError(f"{name} has no time zone; give one, such as tzinfo=datetime.UTC")
        return given.astimezone(UTC).date()
    if given is None or isinstance(given, date):
        return given
    raise ConfigError(f"{name} is {_shown(given)}; give a date, a timedelta, or None")


def share(name: str, given: object) -> float | None:
    """A number strictly between 0 and 1, or None. Raises ConfigError: it is something else."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 1:
        raise ConfigError(f"{name} is {_shown(given)}; give a number between 0 and 1, such as 0.02, or None")
    return float(given)


def path(name: str, given: object) -> Path:
    """The path of a file or folder. Raises ConfigError: it is none."""
    if isinstance(given, (str, os.PathLike)):
        named = os.fspath(given)
        if isinstance(named, str) and named and "\0" not in named:
            return Path(named)
    raise ConfigError(f"{name} is {_shown(given)}; give a path")


def place(name: str, given: object) -> str:
    """The path or URL of a folder for files. Raises ConfigError: it is none, or a URL with a password."""
    text = str(path(name, given)) if isinstance(given, os.PathLike) else given
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"{name} is {_shown(given)}; give a path, or a URL such as s3://bucket/prefix")
    if is_url(text) and (problem := place_problem(text)):
        raise ConfigError(f"{name}: {problem}")
    return text


def file(name: str, given: object) -> Path:
    """The path of a file. Raises ConfigError: it is none, or that of a folder, such as ``.``."""
    named = path(name, given)
    if not named.name or named.name == "..":
        raise ConfigError(f"{name} is {_shown(str(named))}; give the path of a file")
    return named


def callback(name: str, given: object) -> None:
    """Something to call, or None. Raises ConfigError: it is something else."""
    if given is not None and not callable(given):
        raise ConfigError(f"{name} is {_shown(given)}; give a function, or None")


def _listed(name: str, given: object, wanted: str) -> list[object]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ConfigError(f"{name} is {_shown(given)}; give {wanted}, or None for all")
    many = list(given)  # once: a generator can be walked no second time
    if not many:
        raise ConfigError(f"{name} is empty; name at least one, or give None for all")
    return many


def _whole(name: str, given: object, what: str, least: int, otherwise: str = "") -> int:
    try:
        # whole numbers of numpy are such too, without being int; True is none here
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least:
        raise ConfigError(f"{name} is {_shown(given)}; give {what} of at least {least}{otherwise}")
    return number


def _shown(given: object) -> str:
    if isinstance(given, float) and not math.isfinite(given):
        return "no finite number"
    shown = repr(given)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
