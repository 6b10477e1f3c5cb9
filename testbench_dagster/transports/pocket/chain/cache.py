"""A cache that many threads use at once: whoever misses the same thing waits for one load of it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

V = TypeVar("V")

#: Things remembered at most; the ones stored first go first.
MAX_ENTRIES = 65_536


@dataclass(slots=True)
class _Flight:
    """A load under way, when it was begun (in the order of calls), and what it gave."""

    began: int
    outcome: Future[Any] = field(default_factory=Future)


class Cache:
    """Values by key, as long as their reader finds them usable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, Any] = {}
        self._flights: dict[Hashable, _Flight] = {}
        self._turns = itertools.count()

    def get(
        self,
        key: Hashable,
        load: Callable[[], V],
        *,
        usable: Callable[[V], bool] = lambda value: True,
        keep: Callable[[V], bool] = lambda value: True,
        fresh: bool = False,
    ) -> V:
        """Return the value of a key, loaded unless a ``usable`` one is known; ``keep`` says what to remember.

        ``fresh`` wants a load that began after the call. What a load raises, all who waited for it get, and
        nothing is remembered. A load may ask for other keys, not for its own.
        """
        with self._lock:
            arrived = next(self._turns)
        while True:
            with self._lock:
                value: V
                if not fresh and key in self._values and usable(self._values[key]):
                    value = self._values[key]
                    return value
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight(next(self._turns))
                    break
            if not fresh or flight.began > arrived:
                value = flight.outcome.result()
                if flight.began > arrived or usable(value):
                    return value
                continue  # what was good for those before us is not for us
            flight.outcome.exception()  # too early for us: wait until it is over, then look again
        return self._load(key, flight, load, keep)

    def _load(self, key: Hashable, flight: _Flight, load: Callable[[], V], keep: Callable[[V], bool]) -> V:
        try:
            value = load()
        except BaseException as error:
            with self._lock:
                del self._flights[key]
            flight.outcome.set_exception(error)
            raise
        with self._lock:
            del self._flights[key]
            if keep(value):
                self._values.pop(key, None)
                self._values[key] = value
                while len(self._values) > MAX_ENTRIES:
                    del self._values[next(iter(self._values))]
        flight.outcome.set_result(value)
        return value
