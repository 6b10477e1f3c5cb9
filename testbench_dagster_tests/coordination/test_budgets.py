"""Budgets under real concurrency, on SQLite and MongoDB."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.coordination.budgets import BudgetLedger, next_period, period_start
from testbench_dagster_tests.coordination.workers import (
    lines,
    running,
    spend_until_killed,
    use_budget,
    wait_for,
)
from testbench_dagster_tests.stores.workers import Target, race

DAY = datetime(2026, 3, 4, tzinfo=UTC)


def test_grants_up_to_the_cap(store):
    ledger = BudgetLedger(store)
    assert ledger.spent("a", DAY) is None
    assert [ledger.grant("a", DAY, 10, wanted) for wanted in (4, 4, 4, 4)] == [4, 4, 2, 0]
    assert ledger.spent("a", DAY) == 10
    assert ledger.grant("b", DAY, 10, 4) == 4  # accounts
    assert ledger.grant("a", DAY + timedelta(days=1), 10, 4) == 4  # and periods have their own


def test_what_is_given_back_is_granted_again(store):
    ledger = BudgetLedger(store)
    ledger.grant("a", DAY, 10, 10)
    ledger.give_back("a", DAY, 3)
    assert ledger.spent("a", DAY) == 7
    assert ledger.grant("a", DAY, 10, 10) == 3
    ledger.give_back("a", DAY, 0)
    ledger.give_back("a", DAY, 99)
    assert ledger.spent("a", DAY) == 0
    ledger.give_back("unknown", DAY, 5)
    assert ledger.spent("unknown", DAY) is None


def test_a_period_opens_with_what_was_spent_before(store):
    ledger = BudgetLedger(store)
    asked = []

    def spent_before() -> int:
        asked.append(1)
        return 8

    assert ledger.grant("a", DAY, 10, 5, spent_before) == 2
    assert ledger.grant("a", DAY, 12, 5, spent_before) == 2
    assert len(asked) == 1
    assert ledger.spent("a", DAY) == 12
    assert ledger.grant("a", DAY, 6, 5, spent_before) == 0  # a cap that was lowered takes nothing back
    assert ledger.spent("a", DAY) == 12


def test_the_same_instant_is_the_same_period(store):
    ledger = BudgetLedger(store)
    ledger.grant("a", DAY, 10, 4)
    assert ledger.spent("a", DAY.astimezone(timezone(timedelta(hours=5)))) == 4


@pytest.mark.parametrize(("cap", "give_back"), [(300, False), (300, True), (3, True)])
def test_processes_never_exceed_the_cap(store, target: Target, cap, give_back):
    """Fresh processes at once; with everything unused given back, what is spent is what was used."""
    used = race(use_budget, target, DAY, cap, give_back, processes=4)
    spent = BudgetLedger(store).spent("account", DAY)
    assert spent == 7 + sum(used)
    assert sum(used) == max(0, cap - 7)


def test_a_killed_process_costs_at_most_its_chunk(store, target: Target, tmp_path: Path):
    log = tmp_path / "log"
    with running(spend_until_killed, target, DAY, 200, str(log)) as first:
        wait_for(lambda: len(lines(log)) > 25)
        first.kill()
        first.join(10)
    sent = len(lines(log))
    spent = BudgetLedger(store).spent("account", DAY)
    assert spent is not None and sent <= spent <= sent + 10
    with running(spend_until_killed, target, DAY, 200, str(log)) as second:
        second.join(20)
        assert second.exitcode == 0
    assert 190 <= len(lines(log)) <= 200
    assert BudgetLedger(store).spent("account", DAY) == 200


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("", DAY, 1, 1), "account"),
        (("a", datetime(2026, 1, 1), 1, 1), "period"),
        (("a", DAY, -1, 1), "cap"),
        (("a", DAY, 1, -1), "wanted"),
        (("a", DAY, 1, 1, lambda: -1), "opening"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, wrong):
    with pytest.raises(ValueError, match=wrong):
        BudgetLedger(Target(str(tmp_path / "home")).open()).grant(*arguments)


moments = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.timezones()
)


@given(moments, st.sampled_from(["hour", "day"]))
def test_periods_are_gapless_in_utc(moment, unit):
    start, following = period_start(unit, moment), next_period(unit, moment)
    assert start <= moment < following
    assert following - start == {"hour": timedelta(hours=1), "day": timedelta(days=1)}[unit]
    assert start.utcoffset() == timedelta(0)
    assert period_start(unit, start) == start
    assert period_start(unit, following) == following


def test_periods_need_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        period_start("day", datetime(2026, 1, 1))
