"""Requests at the pace of who is asked: what this process was granted of the paces that all share.

:mod:`.pacer` lines up the supplier queues of a run before it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from testbench_dagster.coordination.budgets import period_start
from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.stores.documents import DocumentStore

#: After so many requests their own pace tells how long further ones take.
_SEEN = 5
#: An answer comes to so many times what was taken for it at most: a token for every four characters of the
#: prompt was counted, and it is seldom that each is one.
MOST_TIMES = 4

_log = logging.getLogger(__name__)


class Decision(Enum):
    """Answer to the wish to send one request now."""

    GRANTED = "granted"
    LATER = "later"  # not before `Turn.at`
    UNKNOWN = "unknown"  # `Pacing.refill` has to be called first
    USED_UP = "used up"  # the requests of the day are, until `Turn.at`


class Turn(NamedTuple):
    """A decision, the instant it is about (seconds since 1970), and the second its tokens are counted in."""

    decision: Decision
    at: float = 0.0
    second: int = 0


@dataclass
class _Account:
    """One pace as this process sees it: what was granted and is not used yet."""

    pace: Pace
    slots: deque[float] = field(default_factory=deque)
    tokens: int = 0
    second: int = 0
    until: float = 0.0
    retry_at: float = 0.0
    corrections: dict[int, int] = field(default_factory=dict)
    day_left: int = 0
    hour: datetime | None = None
    day_again: float = 0.0  # the day's requests are used up until then
    requests: int = 0  # sent, what they came to, and when the first was
    tokens_used: int = 0
    first_at: float = 0.0
    refilling: threading.Lock = field(default_factory=threading.Lock)


class Pacing:
    """What this process may send at the paces that all processes share; thread-safe.

    Use it in as many runs as the paces are for, then :meth:`close` it.
    """

    def __init__(self, ledger: PaceLedger, days: DayLedger) -> None:
        self._ledger = ledger
        self._days = days
        self._lock = threading.Lock()  # guards the accounts; never held while the store is asked
        self._accounts: dict[str, _Account] = {}

    @classmethod
    def over(cls, documents: DocumentStore) -> Pacing:
        """The paces kept in a document store."""
        return cls(PaceLedger(documents), DayLedger(documents))

    def now(self) -> float:
        """The present by the clock that paces go by, in seconds since 1970."""
        return self._ledger.now()

    @property
    def late_s(self) -> float:
        """For how long after its instant a granted request may be sent, in seconds."""
        return self._ledger.late_s

    def take(self, pace: Pace, tokens: int) -> Turn:
        """Spend one request of so many tokens if it may be sent now."""
        with self._lock:
            account, now = self._account(pace), self._ledger.now()
            if pace.requests_per_day is not None:
                if now < account.day_again:
                    return Turn(Decision.USED_UP, account.day_again)
                if account.day_left <= 0 or account.hour != _hour(now):
                    return Turn(Decision.UNKNOWN)
            short = bool(tokens) and (account.tokens < tokens or now > account.until)
            if short and now < account.retry_at:
                return Turn(Decision.LATER, account.retry_at)
            if pace.requests_per_minute is not None:
                while account.slots and account.slots[0] < now - self._ledger.late_s:
                    account.slots.popleft()
                if not account.slots:
                    return Turn(Decision.UNKNOWN)
                if account.slots[0] > now:
                    return Turn(Decision.LATER, account.slots[0])
            if short:
                return Turn(Decision.UNKNOWN)
            at = account.slots.popleft() if account.slots else now
            account.tokens -= tokens
            account.day_left -= 1
            if not account.requests:
                account.first_at = now
            account.requests += 1
            account.tokens_used += tokens
            return Turn(Decision.GRANTED, at, account.second)

    def refund(self, pace: Pace) -> None:
        """Note that a request that was granted is not sent; its instant has passed for all."""
        with self._lock:
            account = self._account(pace)
            account.requests -= 1
            if account.hour == _hour(self._ledger.now()):
                account.day_left += 1

    def correct(self, pace: Pace, second: int, tokens: int) -> None:
        """Note that a request came to so many tokens more (or less) than were taken for it."""
        if not tokens:
            return
        with self._lock:
            account = self._account(pace)
            account.corrections[second] = account.corrections.get(second, 0) + tokens
            account.tokens_used += tokens
            if tokens < 0:
                account.retry_at = 0.0  # there may be room by now

    def refill(self, pace: Pace, tokens: int, waiting: int) -> None:
        """Ask the store for more, for so many that wait, the first of which takes ``tokens``; blocks.

        Raises :class:`StoreError` when the store fails.
        """
        with self._lock:
            account = self._account(pace)
        with account.refilling:
            if pace.requests_per_day is not None and not self._refill_day(account):
                return
            self._refill_minute(account, tokens, waiting)

    def wait_s(self, pace: Pace, requests: int) -> float | None:
        """About how long so many further requests take at a pace, in seconds, by what they took so far.

        Others may share it, so what was seen counts where that is slower. None where it bounds no minute, or
        tokens of which nothing is known yet.
        """
        with self._lock:
            account = self._account(pace)
            sent, seen_s = account.requests, self._ledger.now() - account.first_at
            each = account.tokens_used / sent if sent > 0 else 0.0
        if pace.requests_per_minute is None and (pace.tokens_per_minute is None or not each):
            return None
        seen = seen_s / (sent - 1) if sent > _SEEN else 0.0
        return requests * max(self._ledger.gap_s(pace), self._ledger.tokens_s(pace, each), seen)

    def close(self) -> None:
        """Give back what was granted of the day, and tell what tokens came to."""
        with self._lock:
            accounts = list(self._accounts.values())
            self._accounts = {}
        for account in accounts:
            try:
                if account.hour is not None and account.day_left > 0:
                    self._days.give_back(account.pace, account.hour, account.day_left)
                corrections = _returned(account)
                if corrections:
                    self._ledger.grant(account.pace, 0, 0, corrections)
            except StoreError as error:  # they stay counted as sent, which no pace minds
                what = account.pace.account
                _log.warning("what is left of the pace of %s was not given back: %s", what, error)

    def _account(self, pace: Pace) -> _Account:
        account = self._accounts.get(pace.account)
        if account is None:
            account = self._accounts[pace.account] = _Account(pace)
        return account

    def _refill_day(self, account: _Account) -> bool:
        """See that a request of this hour is there; whether one is."""
        now = self._ledger.now()
        with self._lock:
            over = account.hour if account.hour != _hour(now) else None
            unused = account.day_left
            if over is None and unused > 0:
                return True
            account.day_left = 0
        moment = datetime.fromtimestamp(now, UTC)
        if over is not None and unused > 0:
            self._days.give_back(account.pace, over, unused)
        hour, granted = self._days.grant(account.pace, moment)
        again = 0.0 if granted else self._days.renews_at(account.pace, moment).timestamp()
        with self._lock:
            account.hour, account.day_left, account.day_again = hour, account.day_left + granted, again
        return granted > 0

    def _refill_minute(self, account: _Account, tokens: int, waiting: int) -> None:
        now = self._ledger.now()
        with self._lock:
            usable = [slot for slot in account.slots if slot >= now - self._ledger.late_s]
            short = bool(tokens) and (account.tokens < tokens or now > account.until)
            wanted = 0 if usable or account.pace.requests_per_minute is None else max(1, waiting)
            if not short and not wanted:
                return
            corrections = _returned(account) if short else _taken(account.corrections)
            if short:
                account.tokens = 0
        granted = self._ledger.grant(account.pace, wanted, tokens if short else 0, corrections)
        with self._lock:
            account.slots.extend(granted.slots)
            if short:
                account.tokens, account.second, account.until = granted.tokens, granted.second, granted.until
                account.retry_at = granted.retry_at


def _hour(now: float) -> datetime:
    return period_start("hour", datetime.fromtimestamp(now, UTC))


def _taken(corrections: dict[int, int]) -> dict[int, int]:
    taken = dict(corrections)
    corrections.clear()
    return taken


def _returned(account: _Account) -> dict[int, int]:
    """What the store has to hear of tokens: corrections, and those that were granted and not used."""
    corrections = _taken(account.corrections)
    if account.tokens > 0:
        corrections[account.second] = corrections.get(account.second, 0) - account.tokens
    return {second: n for second, n in corrections.items() if n}


def came_to(pace: Pace, taken: int, attempt: Attempt) -> int:
    """Tokens that an attempt came to beyond what was taken for it, as far as its answer tells.

    The answer is the supplier's word, and others may share the pace: more than :data:`MOST_TIMES` what was
    taken is not believed.
    """
    if pace.tokens_per_minute is None or attempt.prompt_tokens is None:
        return 0
    said = attempt.prompt_tokens + (attempt.completion_tokens or 0)
    return min(said, MOST_TIMES * taken) - taken


def request_tokens(endpoint: Endpoint, relay: Relay) -> int:
    """What a relay is taken for in tokens before it is sent; 0 where they have no pace."""
    if endpoint.pace is None:
        return 0
    return endpoint.pace.tokens_of(relay.request, endpoint.generation.budget)


class PacedOut(Exception):
    """Nothing may be sent for today: ``until`` is when it may again, in UTC."""

    def __init__(self, pace: Pace, until: datetime) -> None:
        super().__init__(f"its pace of {pace.words} is used up until {until:%Y-%m-%d %H:%M} UTC")
        self.until = until


async def turn_of(pacing: Pacing, endpoint: Endpoint, tokens: int = 0) -> Turn:
    """Wait until one request may be sent at an endpoint's pace, outside any run.

    Raises:
        PacedOut: its requests of the day are used up.
        StoreError: the store failed.
    """
    pace = endpoint.pace
    if pace is None:
        return Turn(Decision.GRANTED)
    while True:
        turn = pacing.take(pace, tokens)
        if turn.decision is Decision.GRANTED:
            return turn
        if turn.decision is Decision.USED_UP:
            raise PacedOut(pace, datetime.fromtimestamp(turn.at, UTC))
        if turn.decision is Decision.UNKNOWN:
            await asyncio.to_thread(pacing.refill, pace, tokens, 1)
        else:
            await asyncio.sleep(max(0.0, turn.at - pacing.now()))


class PacedTransport:
    """A transport that sends each relay when the pace of its endpoint allows it, for what is no run.

    A :class:`~testbench_dagster.core.relay.Transport`, but that :meth:`send` may raise :class:`PacedOut`.
    """

    def __init__(self, inner: Transport, pacing: Pacing) -> None:
        self._inner = inner
        self._pacing = pacing

    async def turn(self, endpoint: Endpoint) -> None:
        """Wait until a request may be sent that no relay is; raises :class:`PacedOut`."""
        await turn_of(self._pacing, endpoint)

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Wait for its turn, and send it."""
        if endpoint.pace is None:
            return await self._inner.send(endpoint, relay)
        tokens = request_tokens(endpoint, relay)
        turn = await turn_of(self._pacing, endpoint, tokens)

        async def further() -> bool:
            nonlocal turn
            try:
                turn = await turn_of(self._pacing, endpoint, tokens)
            except PacedOut:
                return False
            return True

        attempt = await self._inner.send(endpoint, replace(relay, further=further))
        self._pacing.correct(endpoint.pace, turn.second, came_to(endpoint.pace, tokens, attempt))
        return attempt

    async def close(self) -> None:
        """Close the transport within."""
        await self._inner.close()
