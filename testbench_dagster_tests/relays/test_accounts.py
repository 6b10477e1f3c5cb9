"""What the ledger granted is used or goes back to the period it was granted in, whatever happens between."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.core.errors import StoreError
from testbench_dagster.relays.accounts import LedgerAccount, give_back
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

HOUR = 3600.0
CAP = 50


@pytest.mark.parametrize("seed", range(5))
def test_what_is_spent_is_what_was_used_and_never_above_the_cap(tmp_path: Path, seed: int) -> None:
    dice, lock = random.Random(seed), threading.Lock()
    with contextlib.closing(SqliteDocuments(tmp_path / "documents.sqlite")) as documents:
        ledger = BudgetLedger(documents)
        account = LedgerAccount("relays", "hour", CAP)
        now = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
        account.begin(now)
        used: Counter[datetime] = Counter()
        under_way: list[datetime] = []
        for _ in range(200):
            now += dice.choice((0.0, 60.0, 900.0))
            if now >= account.ends:
                account.begin(now)
            if not account.left:
                start = account.start
                account.credit(start, ledger.grant("relays", start, CAP, dice.randrange(1, 9)))
            if account.left:
                account.left -= 1
                used[account.start] += 1
                under_way.append(account.start)
            if under_way and dice.random() < 0.3:  # one was not needed, perhaps after its period
                start = under_way.pop(dice.randrange(len(under_way)))
                used[start] -= 1
                assert account.credit(start, 1) is (start == account.start)
            if dice.random() < 0.1:
                give_back(ledger, account, lock)
            assert (ledger.spent("relays", account.start) or 0) <= CAP
        account.retire()
        give_back(ledger, account, lock)
        assert account.left == 0 and not account.returns
        assert len(used) > 5
        assert {start: ledger.spent("relays", start) for start in used} == dict(used)


def test_what_a_closed_owner_is_granted_goes_back() -> None:
    account = LedgerAccount("relays", "day", CAP)
    account.begin(0.0)
    assert not account.credit(account.start, 7, usable=False)
    assert (account.left, account.returns) == (0, {account.start: 7})


def test_what_cannot_be_given_back_stays_spent_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(BudgetLedger):
        def give_back(self, *_: Any) -> None:
            raise StoreError("gone")

    account = LedgerAccount("supplier:a", "hour", CAP)
    account.begin(0.0)
    account.left = 3
    account.begin(HOUR)
    with caplog.at_level(logging.WARNING):
        give_back(Failing(None), account, threading.Lock())  # type: ignore[arg-type]
    assert "not given back: 3 unused of supplier:a: gone" in caplog.text
    assert not account.returns, "it is not tried again: whether it took effect is unknown"
