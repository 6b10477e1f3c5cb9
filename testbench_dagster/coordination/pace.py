"""Paces: how many requests and tokens a minute, and requests a day, all processes together may send.

Requests are spaced: of ``N`` a minute the next may follow after a minute / N and five in a hundred more. So
no span of a minute holds more than N, wherever it begins, though each may be sent a second later than it was
granted for and take another two to arrive; a provider that counts whole minutes sees no more either. Tokens
are counted per second: those of the last 64 seconds are at most what a minute may have. Both stand in one
document per pace, changed by compare-and-set, and are granted before they are used: a process that dies
loses what it did not use, at most a second's worth, and the pace holds all the same. The clocks of machines
that share a pace have to agree to within a second.

Requests of a day are granted like budgets, by UTC hour, and those of this hour and the 24 before it are
counted together: any 24 hours hold no more, whenever the provider's day begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.records.coordination import BudgetRecord, PaceRecord
from testbench_dagster.stores.documents import DocumentStore, typed

#: Requests are this many times further apart than they would have to be without any delay on their way.
SPACING = 1.05
#: Seconds (of a minute of 60) over which tokens are counted: 60, two in which what was granted is used, one
#: that the count by whole seconds is coarse by, and one on the way.
TOKEN_SECONDS = 64
#: Seconds after its instant within which a granted request may be sent, and for which a grant is made ahead.
LATE_S = AHEAD_S = 1.0
#: A pace whose next request is further away was written by a clock that has since been set back, in seconds.
_MOST_AHEAD_S = 3600.0
#: Requests of a day granted at once at most, and the part of the day's that is the most.
_MAX_DAY_CHUNK, _DAY_PARTS = 16, 50
_DAY_HOURS = 24
_TRIES = 1000  # of a compare-and-set: each failure is another process's success


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be sent: one request at each of ``slots``, of ``tokens`` in all, counted in ``second``.

    Times are in seconds since 1970. Without anything granted, ``retry_at`` is when to ask again.
    """

    slots: tuple[float, ...] = ()
    tokens: int = 0
    second: int = 0
    until: float = 0.0
    retry_at: float = 0.0


class PaceLedger:
    """The paces that all processes share, in the document store.

    Every operation may raise :class:`StoreError`.

    Args:
        documents: the store.
        minute_s: what counts as a minute, in seconds; shorter ones are for rehearsals.
        clock: tells the present, in seconds since 1970.
    """

    def __init__(
        self, documents: DocumentStore, *, minute_s: float = 60.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._documents = documents
        self._second = minute_s / 60.0
        self._clock = clock

    @property
    def late_s(self) -> float:
        """For how long after its instant a granted request may be sent, in seconds."""
        return LATE_S * self._second

    def now(self) -> float:
        """The present, in seconds since 1970."""
        return self._clock()

    def gap_s(self, pace: Pace) -> float:
        """Seconds between two requests of a pace; 0 where it bounds none."""
        if pace.requests_per_minute is None:
            return 0.0
        return SPACING * 60.0 * self._second / pace.requests_per_minute

    def tokens_s(self, pace: Pace, tokens: float) -> float:
        """Seconds that so many tokens take at a pace; 0 where it bounds none."""
        if pace.tokens_per_minute is None:
            return 0.0
        return tokens * TOKEN_SECONDS * self._second / pace.tokens_per_minute

    def grant(
        self, pace: Pace, requests: int, tokens: int, corrections: Mapping[int, int] | None = None
    ) -> Grant:
        """Grant up to ``requests`` requests, for a second at most (but always one), and their tokens.

        Args:
            pace: whose.
            requests: how many can be used at once; 0 for tokens alone.
            tokens: how many the first of them takes; without room for these nothing is granted.
            corrections: by second of an earlier grant, tokens that came to more (or less) than was granted.
        """
        for _ in range(_TRIES):
            now = self._clock()
            record = typed.get(self._documents, PaceRecord, pace.account)
            if record is None:
                fresh = PaceRecord(id=pace.account, revision=0, next_at=now, token_times=[], token_counts=[])
                typed.put_new(self._documents, PaceRecord, [fresh])
                continue
            counted = dict(zip(record.token_times, record.token_counts, strict=False))
            for second, more in (corrections or {}).items():
                if second in counted:
                    counted[second] = max(0, counted[second] + more)
            granted, next_at = self._granted(pace, record.next_at, counted, now, requests, tokens)
            if not (granted.slots or granted.tokens or corrections):
                return granted
            changed = typed.claim(
                self._documents,
                PaceRecord,
                {"_id": record.id, "revision": record.revision},
                revision=record.revision + 1,
                next_at=next_at,
                token_times=list(counted),
                token_counts=list(counted.values()),
            )
            if changed is not None:
                return granted
        raise StoreError(f"the pace of {pace.account} is asked for by too many processes; use fewer")

    def _granted(
        self, pace: Pace, next_at: float, counted: dict[int, int], now: float, requests: int, tokens: int
    ) -> tuple[Grant, float]:
        """What can be granted, and when the next request may follow; changes ``counted``."""
        gap = self.gap_s(pace)
        if next_at > now + _MOST_AHEAD_S * self._second:
            next_at = now + 60.0 * self._second
        slots: tuple[float, ...] = ()
        if gap and requests:
            first = max(next_at, now)
            n = max(1, min(requests, int(AHEAD_S * self._second / gap)))
            slots = tuple(first + gap * place for place in range(n))
        at = slots[0] if slots else now
        second = int(at / self._second)
        present = int(now / self._second)
        # those too far ahead were written by a clock that has since been set back
        for wrong in [k for k in counted if not present - TOKEN_SECONDS < k <= present + _MOST_AHEAD_S]:
            del counted[wrong]
        taken = 0
        if pace.tokens_per_minute is not None and tokens:
            used = {known: n for known, n in counted.items() if known > second - TOKEN_SECONDS}
            free = pace.tokens_per_minute - sum(used.values())
            if free < tokens:
                return Grant(retry_at=self._freed_at(used, tokens - free)), next_at
            taken = min(free, max(tokens, pace.tokens_per_minute // 60))
            counted[second] = counted.get(second, 0) + taken
        until = (slots[-1] if slots else now + AHEAD_S * self._second) + self.late_s
        return Grant(slots, taken, second, until), (slots[-1] + gap) if slots else next_at

    def _freed_at(self, used: Mapping[int, int], missing: int) -> float:
        """When so many of the counted tokens are counted no more."""
        second = 0
        for second in sorted(used):
            missing -= used[second]
            if missing <= 0:
                break
        return (second + TOKEN_SECONDS) * self._second


class DayLedger:
    """Requests of a day, any 24 hours of which hold no more than a pace allows.

    ``hour`` is always the start of a UTC hour. Every operation may raise :class:`StoreError`.
    """

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._budgets = BudgetLedger(documents)

    def grant(self, pace: Pace, now: datetime) -> tuple[datetime, int]:
        """Grant some requests to be sent within this hour: the hour, and how many, perhaps 0."""
        hour = period_start("hour", now)
        if pace.requests_per_day is None:
            raise ValueError(f"the pace of {pace.account} bounds no day")
        earlier = sum(n for start, n in self._granted(pace, hour).items() if start != hour)
        wanted = max(1, min(_MAX_DAY_CHUNK, pace.requests_per_day // _DAY_PARTS))
        cap = max(0, pace.requests_per_day - earlier)
        return hour, self._budgets.grant(_account(pace), hour, cap, wanted)

    def give_back(self, pace: Pace, hour: datetime, n: int) -> None:
        """Return requests that were granted and not sent."""
        self._budgets.give_back(_account(pace), hour, n)

    def left(self, pace: Pace, now: datetime) -> int | None:
        """Requests that may still be sent now; None where the pace bounds no day."""
        if pace.requests_per_day is None:
            return None
        granted = self._granted(pace, period_start("hour", now))
        return max(0, pace.requests_per_day - sum(granted.values()))

    def renews_at(self, pace: Pace, now: datetime) -> datetime:
        """When a request may be sent again where none is left; ``now`` where some are."""
        granted = self._granted(pace, period_start("hour", now))
        excess = sum(granted.values()) - (pace.requests_per_day or 0)
        for hour in sorted(granted):
            if excess < 0:
                break
            excess -= granted[hour]
            if excess < 0:
                return hour + timedelta(hours=_DAY_HOURS + 1)
        return now

    def _granted(self, pace: Pace, hour: datetime) -> dict[datetime, int]:
        """Requests by hour, of this one and those before it that count with it."""
        since = hour - timedelta(hours=_DAY_HOURS)
        # later ones are of a clock that was ahead: what it granted does not count before its time
        where = {"account": _account(pace), "period": {"gte": since, "lte": hour}}
        return {b.period.astimezone(UTC): b.granted for b in typed.find(self._documents, BudgetRecord, where)}


def _account(pace: Pace) -> str:
    return f"pace:{pace.account}"
