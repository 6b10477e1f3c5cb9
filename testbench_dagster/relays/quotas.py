"""How many relays may still be sent to whom: fixed numbers, or grants out of the shared budget ledger.

The engine asks a :class:`Quota` before every send, retries and probes included. Asking is quick and
never leaves the process; what needs the store is done by :meth:`Quota.refill` in a thread, ahead of need
where possible.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from testbench_dagster.coordination.budgets import BudgetLedger, Unit
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import QuotaDecision
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.wording import counted
from testbench_dagster.relays.accounts import LedgerAccount, give_back

#: Most relays granted and not used yet, of a service's day and a supplier's hour: what a death can lose.
MAX_SERVICE_CHUNK = 256
MAX_SUPPLIER_CHUNK = 16
#: A service's chunk is at most this part of what is left, so that several processes share the end fairly;
#: and holds so many relays per supplier of the run. (A supplier's hour serves one process at a time.)
_PARTS = 8
_PER_SUPPLIER = 32
_LOW = 4  # at this part of a chunk the next one is asked for

#: Counts what was spent before the ledger knew: ``opening(where, start)``, ``where`` as a filter on attempts.
SpentBefore = Callable[[Mapping[str, Any], datetime], int]


def service_account(service: str) -> str:
    """Name of a service's account, by the day."""
    return f"service:{service}"


def supplier_account(key: str) -> str:
    """Name of a supplier's account, by the hour."""
    return f"supplier:{key}"


@dataclass
class _Account(LedgerAccount):
    """Relays of a service's day or of a supplier's hour, of the attempts that ``where`` tells."""

    where: Mapping[str, Any] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)  # suppliers of this run
    taken_in: datetime | None = None  # the period that the last relay was taken from
    low: int = 0  # at so many a refill is due
    asked: bool = False  # a refill is under way
    exhausted: bool = False  # nothing is left in the ledger

    def lost(self, amount: int) -> str:
        """Say what was not given back."""
        return f"{counted(amount, 'unused relay')} of {self.name}"


class LedgerQuota:
    """Caps per service and UTC day, per supplier and UTC hour, and shares of this run per supplier.

    Relays are granted by the ledger in chunks. A period that ends while the run goes on is followed by the
    next; what is left of the old one is given back. A supplier whose hour or share is used up is refused
    alone, a service whose day is used up with all its suppliers.

    Args:
        ledger: the budgets that all processes share.
        service_cap: the daily cap of a service, None for none.
        supplier_hour_cap: the hourly cap of every supplier, None for none.
        spent_before: what was spent in a period before the ledger knew of it, such as a count of stored
            attempts; nothing by default.
        account: name of the account that a service's day is spent from.
        clock: tells the present, in seconds since 1970.

    Use it in as many runs as the caps are for, then :meth:`close` it.
    """

    def __init__(
        self,
        ledger: BudgetLedger,
        service_cap: Callable[[str], int | None],
        *,
        supplier_hour_cap: int | None = None,
        spent_before: SpentBefore | None = None,
        account: Callable[[str], str] = service_account,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._account_of = account
        self._ledger = ledger
        self._service_cap = service_cap
        self._supplier_hour_cap = supplier_hour_cap
        self._spent_before = spent_before
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below; never held while the ledger is asked
        self._accounts: dict[str, _Account] = {}
        self._of: dict[str, tuple[_Account, ...]] = {}  # by supplier
        self._shares: dict[str, int] = {}
        self._closed = False

    def limit(self, shares: Mapping[str, int]) -> None:
        """Allow these suppliers so many relays from now on, within the other caps; others are as before."""
        with self._lock:
            self._shares.update(shares)

    def take(self, endpoint: Endpoint) -> QuotaDecision:
        """Spend one relay of the supplier's share, its hour and its service's day, or of none."""
        with self._lock:
            share = self._shares.get(endpoint.supplier)
            if share is not None and share <= 0:
                return QuotaDecision.REFUSED
            accounts = self._accounts_of(endpoint)
            if accounts:
                now = self._clock()
                for account in accounts:
                    if now >= account.ends:
                        return QuotaDecision.UNKNOWN
                    if account.left <= 0:
                        return QuotaDecision.REFUSED if account.exhausted else QuotaDecision.UNKNOWN
            answer = QuotaDecision.GRANTED
            for account in accounts:
                account.left -= 1
                account.taken_in = account.start
                if account.left <= account.low and not account.asked:
                    account.asked = True
                    answer = QuotaDecision.LOW
            if share is not None:
                self._shares[endpoint.supplier] = share - 1
                if share == 1:
                    answer = QuotaDecision.LOW
            return answer

    def refund(self, endpoint: Endpoint) -> None:
        """Undo the last :meth:`take` for this supplier."""
        with self._lock:
            for account in self._accounts_of(endpoint):
                if account.taken_in == account.start:
                    account.left += 1
            if endpoint.supplier in self._shares:
                self._shares[endpoint.supplier] += 1

    def refused(self, endpoint: Endpoint) -> bool:
        """Whether the supplier's share or hour, or its service's day, is known to be used up."""
        with self._lock:
            if self._shares.get(endpoint.supplier, 1) <= 0:
                return True
            now = self._clock()
            return any(
                account.exhausted and account.left <= 0 and now < account.ends
                for account in self._accounts_of(endpoint)
            )

    def claimed(self, endpoint: Endpoint) -> Fault | None:
        """Nothing: the ledger is ours."""
        return None

    def refill(self, endpoint: Endpoint) -> None:
        """Ask the ledger for more where little is left, and move on where a period has ended.

        Raises :class:`StoreError` when the store fails.
        """
        with self._lock:
            accounts = self._accounts_of(endpoint)
        for account in accounts:
            with account.refilling:
                self._refill(account)

    def close(self) -> None:
        """Give back what was granted and not used; nothing is granted afterwards."""
        with self._lock:
            self._closed = True
            accounts = list(self._accounts.values())
            for account in accounts:
                account.retire()
                account.exhausted = True
        for account in accounts:
            give_back(self._ledger, account, self._lock)

    def _accounts_of(self, endpoint: Endpoint) -> tuple[_Account, ...]:
        """The accounts a supplier's relays are spent from; opened at first sight."""
        known = self._of.get(endpoint.supplier)
        if known is not None:
            return known
        accounts = []
        service: dict[str, Any] = {"service": endpoint.service}
        cap = self._service_cap(endpoint.service)
        if cap is not None:
            name = self._account_of(endpoint.service)
            accounts.append(self._open(name, "day", cap, service))
        if self._supplier_hour_cap is not None:
            name, where = supplier_account(endpoint.supplier), {**service, "supplier": endpoint.supplier}
            accounts.append(self._open(name, "hour", self._supplier_hour_cap, where))
        for account in accounts:
            account.users.add(endpoint.supplier)
        self._of[endpoint.supplier] = tuple(accounts)
        return self._of[endpoint.supplier]

    def _open(self, name: str, unit: Unit, cap: int, where: Mapping[str, Any]) -> _Account:
        if name not in self._accounts:
            account = _Account(name, unit, cap, where=where, exhausted=self._closed)
            account.begin(self._clock())
            self._accounts[name] = account
        return self._accounts[name]

    def _refill(self, account: _Account) -> None:
        """Ask the ledger, one thread at a time per account."""
        with self._lock:
            now = self._clock()
            if now >= account.ends:
                account.begin(now)
                account.exhausted = self._closed
            elif account.left > account.low:
                account.asked = False
                return
            if account.exhausted:
                account.asked = False
                return
            start, left, users = account.start, account.left, sorted(account.users)
            shares = [self._shares.get(key) for key in users]
        give_back(self._ledger, account, self._lock)
        spent = self._ledger.spent(account.name, start) or 0
        chunk = self._chunk(account, account.cap - spent, shares)
        wanted = max(0, chunk - left)
        granted = self._ledger.grant(
            account.name, start, account.cap, wanted, lambda: self._opened_with(account, start)
        )
        with self._lock:
            account.credit(start, granted, usable=not self._closed)
            account.exhausted = self._closed or granted < wanted
            account.low = 0 if account.exhausted else chunk // _LOW  # then only the last one matters
            account.asked = False
        give_back(self._ledger, account, self._lock)

    def _chunk(self, account: _Account, capacity: int, shares: list[int | None]) -> int:
        """How many relays to ask for: enough for a while, never much of what is left for all."""
        known = [share for share in shares if share is not None]
        demand = max(sum(known), 0) if len(known) == len(shares) else account.cap
        if account.unit == "hour":
            return max(1, min(MAX_SUPPLIER_CHUNK, capacity, demand))
        return max(1, min(MAX_SERVICE_CHUNK, capacity // _PARTS, _PER_SUPPLIER * len(shares), demand))

    def _opened_with(self, account: _Account, start: datetime) -> int:
        return 0 if self._spent_before is None else self._spent_before(account.where, start)
