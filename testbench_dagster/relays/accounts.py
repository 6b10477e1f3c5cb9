"""An account of the ledger as one process sees it: its period, what is granted and left, what goes back.

Serves relays (:mod:`.quotas`) and money (:mod:`.money`) alike. Who owns an account guards it by a lock of its
own, which is never held while the ledger is asked.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from testbench_dagster.coordination.budgets import BudgetLedger, Unit, next_period, period_start
from testbench_dagster.core.errors import StoreError

_log = logging.getLogger(__name__)


@dataclass
class LedgerAccount:
    """One account: ``left`` is granted in the period from ``start`` and not yet used, in what it is kept in.

    ``returns``: what is to be given back, by the start of the period that it was granted in. ``refilling``
    is held by who asks the ledger, one thread at a time.
    """

    name: str
    unit: Unit
    cap: int
    start: datetime = field(init=False)
    ends: float = field(init=False)  # in seconds since 1970, as is every time here
    left: int = 0
    returns: Counter[datetime] = field(default_factory=Counter)
    refilling: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, now: float) -> None:
        """Go over to the period that an instant lies in; what is left of the old one goes back to it."""
        moment = datetime.fromtimestamp(now, UTC)
        if self.left:
            self.retire()
        self.start = period_start(self.unit, moment)
        self.ends = next_period(self.unit, moment).timestamp()

    def retire(self) -> None:
        """Nothing more is used of what is left: it goes back to its period."""
        self.returns[self.start] += self.left
        self.left = 0

    def credit(self, start: datetime, amount: int, *, usable: bool = True) -> bool:
        """Take in what the ledger granted, or a relay left, of a period.

        It can be used where that period goes on and ``usable``, which is returned; else it goes back.
        """
        if usable and start == self.start:
            self.left += amount
            return True
        self.returns[start] += amount
        return False

    def lost(self, amount: int) -> str:
        """Say what was not given back."""
        return f"{amount} unused of {self.name}"


def give_back(ledger: BudgetLedger, account: LedgerAccount, lock: AbstractContextManager[object]) -> None:
    """Give back what goes back, each to its period; ``lock`` guards the account and is not held meanwhile.

    Where the store fails it stays counted as spent, which no cap minds; that is logged.
    """
    with lock:
        returns, account.returns = account.returns, Counter()
    for start, amount in returns.items():
        if not amount:
            continue
        try:
            ledger.give_back(account.name, start, amount)
        except StoreError as error:
            _log.warning("not given back: %s: %s", account.lost(amount), error)
