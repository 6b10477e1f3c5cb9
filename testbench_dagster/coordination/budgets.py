"""Budgets: caps on relays or money per account and period that no crash and no second process can exceed.

What is granted to a process counts as spent. It is granted before it is used, by a compare-and-set on the
account's document of the period, and what is not used is given back. A process that dies loses what it did
not use; the cap holds all the same.

It is not claimed back from the dead. Which of their grants were used is nowhere stored: answers are written
up to a second after they came, and nothing is written before a relay is sent. A relay that a supplier bills
and that left no attempt cannot be told from one that was never sent, so that whoever gave its money to others
might spend it twice, above the cap. With the end of the period it does not matter any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from testbench_dagster.core.records.coordination import BudgetRecord
from testbench_dagster.stores.documents import DocumentStore, document_id, typed

Unit = Literal["hour", "day"]


def period_start(unit: Unit, now: datetime) -> datetime:
    """Start of the UTC hour or day that an instant lies in.

    Raises ValueError when ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"now must have a time zone, got {now!r}; use datetime.now(UTC)")
    start = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return start if unit == "hour" else start.replace(hour=0)


def next_period(unit: Unit, now: datetime) -> datetime:
    """Start of the UTC hour or day after the one that an instant lies in."""
    return period_start(unit, now) + (timedelta(hours=1) if unit == "hour" else timedelta(days=1))


class BudgetLedger:
    """What is granted per account and period; ``period`` is always the start of the period, in UTC.

    Amounts are whole: relays, or millionths of a currency. The account says of what.

    Every operation may raise :class:`StoreError`. One that failed is not repeated: whether it took effect is
    then unknown, and the cap is what must hold.
    """

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def spent(self, account: str, period: datetime) -> int | None:
        """What is granted so far; None when nobody has asked yet."""
        budget = typed.get(self._documents, BudgetRecord, _id(account, period))
        return None if budget is None else budget.granted

    def grant(
        self,
        account: str,
        period: datetime,
        cap: int,
        wanted: int,
        spent_before: Callable[[], int] = lambda: 0,
    ) -> int:
        """Grant ``wanted`` or what is left below ``cap``; return how much, perhaps 0.

        ``spent_before`` is called for what was spent before, when the period's document does not exist yet.
        What is granted by then stays granted, also when the cap was lowered below it.
        """
        _check("cap", cap)
        _check("wanted", wanted)
        id_ = _id(account, period)
        while True:
            budget = typed.get(self._documents, BudgetRecord, id_)
            if budget is None:
                budget = BudgetRecord(id=id_, account=account, period=period, granted=spent_before())
                _check("opening", budget.granted)
                typed.put_new(self._documents, BudgetRecord, [budget])
                continue
            more = max(0, min(wanted, cap - budget.granted))
            if not more or self._change(budget, budget.granted + more):
                return more

    def give_back(self, account: str, period: datetime, n: int) -> None:
        """Return ``n`` that were granted and not used."""
        _check("n", n)
        id_ = _id(account, period)
        while n:
            budget = typed.get(self._documents, BudgetRecord, id_)
            if budget is None:
                return  # an old period that was purged
            if self._change(budget, max(0, budget.granted - n)):
                return

    def _change(self, read: BudgetRecord, granted: int) -> bool:
        """Change what is granted, unless somebody else did since it was read; whether it was changed."""
        where = {"_id": read.id, "granted": read.granted}
        return typed.claim(self._documents, BudgetRecord, where, granted=granted) is not None


def _id(account: str, period: datetime) -> str:
    if not account:
        raise ValueError("account may not be empty")
    if period.tzinfo is None:
        raise ValueError(f"period must have a time zone, got {period!r}; use period_start")
    return document_id("budget", account, period.astimezone(UTC).isoformat())


def _check(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
