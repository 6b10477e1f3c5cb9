"""Money that may still be spent: what a relay can cost at most is reserved before it is sent.

Out of the ledger that all processes share, in chunks, as relays are (:mod:`.quotas`). What the relay came to
is charged after, and the rest can be spent again. What a supplier says of its tokens is its word: nothing
below 0 and nothing above what was reserved for the relay is believed, so it can neither win budget for
itself nor use up that of others. Where it says nothing, characters are counted, and where nothing came back
that could be counted although it may have worked, what was reserved is spent.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.price import Price
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.core.token_bounds import likely_tokens, most_tokens
from testbench_dagster.relays.accounts import LedgerAccount, give_back

#: A chunk is at most this part of what is left of the day, and so many times the relay that it is asked for:
#: several processes share the end fairly, and a death loses little.
_PARTS = 8
_RELAYS = 16
_NO_CAP = 2**62
#: Who waits for what others' relays leave of their reservations looks so often, in seconds.
_POLL_S = 0.05

_log = logging.getLogger(__name__)

#: Counts what a service cost since an instant, before the ledger knew, in millionths.
MoneyBefore = Callable[[str, datetime], int]


def money_account(service: str) -> str:
    """Name of the account of a service's money, by the day, in millionths of the currency."""
    return f"money:{service}"


def estimated_account(service: str) -> str:
    """Name of the account that sums what of a service's money was spent without a count by the supplier."""
    return f"estimated:{service}"


class Decision(Enum):
    """Answer to the wish to send one relay."""

    GRANTED = "granted"
    UNKNOWN = "unknown"  # `MoneyQuota.refill` has to be called first
    LATER = "later"  # what is in flight may leave enough once it is charged
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was reserved for one relay: how much, at which price, and out of which period."""

    service: str
    supplier: str
    micros: int
    price: Price
    start: datetime


class MoneyTurn(NamedTuple):
    """A decision; ``reserved`` is None where the relay costs nothing, ``needed`` what it can cost at most."""

    decision: Decision
    reserved: Reservation | None = None
    needed: int = 0


class Charge(NamedTuple):
    """What a relay came to, in millionths; ``estimated``: by no count of the supplier's."""

    micros: int
    estimated: bool


FREE = MoneyTurn(Decision.GRANTED)


def charge_of(price: Price, relay: Relay, attempt: Attempt, reserved: int) -> Charge:
    """What an attempt cost, from 0 to what was reserved for it.

    By the tokens that the supplier reports; what it does not report of an answer by characters. Who did not
    answer and reports nothing is paid nothing if it turned the request down or was not reached; else it may
    have written the longest answer, and all that was reserved is spent.
    """
    prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
    if prompt is not None and completion is not None and prompt >= 0 and completion >= 0:
        return Charge(min(price.micros_of(prompt, completion), reserved), False)
    row = attempt.fault.row
    if not attempt.fault.answered:
        turned_down = attempt.status is not None and attempt.status >= 400
        if turned_down or not (row.reached or row.worked_on):
            return Charge(0, False)
        return Charge(reserved, True)
    chars = len(attempt.text or "") + (attempt.reasoning_chars or 0)
    likely = likely_tokens(relay.request, chars)
    counted = [
        guess if said is None or said < 0 else said
        for said, guess in zip((prompt, completion), likely, strict=True)
    ]
    return Charge(min(price.micros_of(counted[0], counted[1]), reserved), True)


@dataclass
class _Account(LedgerAccount):
    """A service's money as this process sees it, in millionths of the currency.

    ``left`` is granted and neither reserved nor spent, ``reserved`` is what is in flight. From ``dry`` on the
    ledger had not as much.
    """

    service: str = ""
    reserved: int = 0
    dry: int | None = None
    estimated: int = 0

    def begin(self, now: float) -> None:
        """Go over to the day that an instant lies in."""
        super().begin(now)
        self.estimated = 0
        self.dry = None

    def lost(self, amount: int) -> str:
        """Say what was not given back."""
        return f"money of {self.service} that was not spent"


class MoneyQuota:
    """Caps on the money of services per UTC day; thread-safe.

    Args:
        ledger: the budgets that all processes share.
        service_cap: the daily cap of a service in millionths of the currency, None for none.
        prices: by supplier key the prices that count; who has none costs nothing.
        spent_before: what a service's day cost before the ledger knew of it; nothing by default.
        clock: tells the present, in seconds since 1970.

    Use it in as many runs as the caps are for, then :meth:`close` it.
    """

    def __init__(
        self,
        ledger: BudgetLedger,
        service_cap: Callable[[str], int | None],
        prices: Mapping[str, Price],
        *,
        spent_before: MoneyBefore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._service_cap = service_cap
        self._prices = prices
        self._spent_before = spent_before
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below; never held while the ledger is asked
        self._accounts: dict[str, _Account] = {}
        self._refused: dict[str, int] = {}
        self._closed = False

    def reserve(self, endpoint: Endpoint, relay: Relay) -> MoneyTurn:
        """Reserve what a relay can cost at most, if it is there."""
        price = self._prices.get(endpoint.supplier)
        if price is None or not (price.prompt or price.completion):
            return FREE
        with self._lock:
            account = self._account(endpoint.service)
            if account is None:
                return FREE
            needed = price.micros_of(*most_tokens(relay.request, endpoint.generation))
            if self._clock() >= account.ends:
                return MoneyTurn(Decision.UNKNOWN, needed=needed)
            if account.left >= needed:
                account.left -= needed
                account.reserved += needed
                reserved = Reservation(endpoint.service, endpoint.supplier, needed, price, account.start)
                return MoneyTurn(Decision.GRANTED, reserved, needed)
            if not self._closed and (account.dry is None or needed < account.dry):
                return MoneyTurn(Decision.UNKNOWN, needed=needed)
            if account.reserved and not self._closed:
                return MoneyTurn(Decision.LATER, needed=needed)
            self._refused.setdefault(endpoint.supplier, needed)
            return MoneyTurn(Decision.REFUSED, needed=needed)

    def release(self, reserved: Reservation) -> None:
        """Undo a reservation: nothing was sent."""
        self._charge(reserved, Charge(0, False))

    def charge(self, reserved: Reservation, relay: Relay, attempt: Attempt) -> None:
        """Note what the relay came to; what it did not need can be spent again."""
        self._charge(reserved, charge_of(reserved.price, relay, attempt, reserved.micros))

    def _charge(self, reserved: Reservation, came_to: Charge) -> None:
        with self._lock:
            account = self._accounts[reserved.service]
            rest = reserved.micros - came_to.micros
            account.reserved -= reserved.micros
            if account.credit(reserved.start, rest, usable=not self._closed):
                account.estimated += came_to.micros * came_to.estimated

    def refused(self) -> dict[str, int]:
        """Who was refused a relay, with what that could have cost at most, in millionths, by supplier key."""
        with self._lock:
            return dict(self._refused)

    def refill(self, endpoint: Endpoint, needed: int) -> None:
        """Ask the ledger for as much as a relay needs, and for some more; move on where a day has ended.

        Raises :class:`StoreError` when the store fails.
        """
        with self._lock:
            account = self._account(endpoint.service)
        if account is not None:
            with account.refilling:
                self._refill(account, needed)

    def close(self) -> None:
        """Give back what was granted and not spent; nothing is granted afterwards."""
        with self._lock:
            self._closed = True
            accounts = list(self._accounts.values())
            estimated = [(account.service, account.start, account.estimated) for account in accounts]
            for account in accounts:
                account.retire()
                account.estimated = 0
        for account in accounts:
            give_back(self._ledger, account, self._lock)
        for service, start, micros in estimated:
            self._note_estimated(service, start, micros)

    def _account(self, service: str) -> _Account | None:
        known = self._accounts.get(service)
        if known is None:
            cap = self._service_cap(service)
            if cap is None:
                return None
            known = self._accounts[service] = _Account(money_account(service), "day", cap, service=service)
            known.begin(self._clock())
        return known

    def _refill(self, account: _Account, needed: int) -> None:
        """Ask the ledger, one thread at a time per account."""
        ended: tuple[datetime, int] | None = None
        with self._lock:
            now = self._clock()
            if now >= account.ends:
                ended = account.start, account.estimated
                account.begin(now)
            elif account.left >= needed or (account.dry is not None and needed >= account.dry):
                return
            if self._closed:
                return
            start, left = account.start, account.left
        if ended is not None:
            give_back(self._ledger, account, self._lock)
            self._note_estimated(account.service, *ended)
        spent = self._ledger.spent(account.name, start) or 0
        chunk = max(needed, min((account.cap - spent) // _PARTS, _RELAYS * needed))
        wanted = max(0, chunk - left)
        granted = self._ledger.grant(
            account.name, start, account.cap, wanted, lambda: self._opened_with(account.service, start)
        )
        with self._lock:
            if account.credit(start, granted, usable=not self._closed) and left + granted < needed:
                account.dry = needed
            late = self._closed
        if late:
            give_back(self._ledger, account, self._lock)

    def _opened_with(self, service: str, start: datetime) -> int:
        return 0 if self._spent_before is None else self._spent_before(service, start)

    def _note_estimated(self, service: str, start: datetime, micros: int) -> None:
        if not micros:
            return
        try:
            self._ledger.grant(estimated_account(service), start, _NO_CAP, micros)
        except StoreError as error:  # what is spent is counted all the same
            _log.warning("what was estimated of the money of %s was not noted: %s", service, error)


async def send_paid(
    money: MoneyQuota | None, transport: Transport, endpoint: Endpoint, relay: Relay
) -> Attempt | None:
    """Send a relay once what it can cost at most is reserved, and charge what it came to.

    None where too little money is left: nothing was sent. For who asks one relay at a time; the engine waits
    for money in its queues.

    Raises what the transport raises; what was reserved is free again then.
    """
    if money is None:
        return await transport.send(endpoint, relay)
    while (turn := money.reserve(endpoint, relay)).decision in (Decision.UNKNOWN, Decision.LATER):
        if turn.decision is Decision.LATER:  # what others are asked meanwhile may leave enough
            await asyncio.sleep(_POLL_S)
        else:
            await asyncio.to_thread(money.refill, endpoint, turn.needed)
    if turn.decision is not Decision.GRANTED:
        return None
    if turn.reserved is None:
        return await transport.send(endpoint, relay)
    try:
        attempt = await transport.send(endpoint, relay)
    except Exception:
        money.release(turn.reserved)
        raise
    money.charge(turn.reserved, relay, attempt)
    return attempt
