"""Quotas: alone, and as the engine keeps to them over a real ledger."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import FixedQuota, QuotaDecision
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.relays.quotas import (
    MAX_SERVICE_CHUNK,
    MAX_SUPPLIER_CHUNK,
    LedgerQuota,
    service_account,
    supplier_account,
)
from testbench_dagster.stores.documents.collections import BUDGETS
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.relays.quick import run_relays
from testbench_dagster_tests.relays.test_engine import Scripted, Sink, some, target

NOON = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
DAY, HOUR = NOON.replace(hour=0, minute=0), NOON.replace(minute=0)


class Clock:
    """The time of day, as the test sets it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[SqliteDocuments]:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


@pytest.fixture
def ledger(documents: SqliteDocuments) -> BudgetLedger:
    return BudgetLedger(documents)


def allowed(quota: LedgerQuota, endpoint: Endpoint, at_most: int = 10_000) -> int:
    """Take relays one after another until refused; return how many."""
    taken = 0
    while taken < at_most:
        answer = quota.take(endpoint)
        if answer is QuotaDecision.REFUSED:
            break
        if answer is not QuotaDecision.UNKNOWN:
            taken += 1
        if answer is not QuotaDecision.GRANTED:
            quota.refill(endpoint)
    return taken


def spent(ledger: BudgetLedger, account: str) -> int:
    """What all periods of an account have granted."""
    return sum(d["granted"] for d in ledger._documents.find(BUDGETS, {"account": account}))


def test_a_fixed_number_per_service():
    quota = FixedQuota({"test": 2, "none": 0})
    ours, free, none = target("a@test"), target("a@free"), target("a@none")
    assert [quota.take(ours) for _ in range(3)] == [
        QuotaDecision.GRANTED,
        QuotaDecision.LOW,
        QuotaDecision.REFUSED,
    ]
    assert quota.refused(ours) and quota.refused(none) and not quota.refused(free)
    quota.refund(ours)
    assert not quota.refused(ours)
    assert quota.take(free) is QuotaDecision.GRANTED
    quota.refund(free)
    assert quota.take(none) is QuotaDecision.REFUSED


@pytest.mark.parametrize("cap", [0, 1, 7, 40, 1000])
def test_a_services_day_is_used_up_to_the_last_relay(ledger, cap):
    quota = LedgerQuota(ledger, {"test": cap}.get, clock=Clock())
    assert allowed(quota, target("a@test")) == cap
    assert quota.refused(target("b@test"))
    assert not quota.refused(target("a@free"))
    assert allowed(quota, target("a@free"), 50) == 50
    quota.close()
    assert ledger.spent(service_account("test"), DAY) == cap
    assert ledger.spent(service_account("free"), DAY) is None


def test_a_suppliers_hour_and_quota_are_its_own(ledger):
    quota = LedgerQuota(ledger, lambda _: None, supplier_hour_cap=20, clock=Clock())
    assert allowed(quota, target("a@test")) == 20
    quota.limit({"b@test": 5, "c@test": 100})
    assert allowed(quota, target("b@test")) == 5
    assert allowed(quota, target("c@test")) == 20
    assert [quota.refused(target(f"{n}@test")) for n in "abcd"] == [True, True, True, False]
    quota.close()
    used = [ledger.spent(supplier_account(f"{n}@test"), HOUR) for n in "abc"]
    assert used == [20, 5, 20]


def test_a_refusal_spends_nothing(ledger):
    """The supplier's hour is used up, so its service's day must not pay for being asked."""
    quota = LedgerQuota(ledger, lambda _: 1000, supplier_hour_cap=3, clock=Clock())
    for _ in range(5):
        allowed(quota, target("a@test"))
    quota.close()
    assert ledger.spent(service_account("test"), DAY) == 3


@pytest.mark.parametrize(("cap", "most"), [(100_000, MAX_SERVICE_CHUNK), (80, 10), (8, 1)])
def test_a_death_costs_no_more_than_a_chunk(ledger, cap, most):
    quota = LedgerQuota(ledger, lambda _: cap, clock=Clock())
    for n in range(20):
        allowed(quota, target(f"s{n}@test"), 0)
        quota.take(target(f"s{n}@test"))
    taken = allowed(quota, target("s0@test"), cap // 2)
    granted = ledger.spent(service_account("test"), DAY)
    assert granted is not None
    assert taken <= granted <= taken + most


def test_the_hour_is_asked_for_in_small_parts(ledger):
    quota = LedgerQuota(ledger, lambda _: None, supplier_hour_cap=500, clock=Clock())
    for taken in range(1, 200):
        allowed(quota, target("a@test"), 1)
        granted = ledger.spent(supplier_account("a@test"), HOUR)
        assert granted is not None and taken <= granted <= taken + MAX_SUPPLIER_CHUNK


def test_quotas_bound_what_is_asked_for(ledger):
    quota = LedgerQuota(ledger, lambda _: 100_000, clock=Clock())
    quota.limit({"a@test": 3})
    quota.take(target("a@test"))
    quota.refill(target("a@test"))
    assert ledger.spent(service_account("test"), DAY) == 3


def test_the_next_period_follows_and_the_rest_of_the_last_is_given_back(ledger):
    clock = Clock()
    quota = LedgerQuota(ledger, lambda _: 1000, supplier_hour_cap=10, clock=clock)
    ours = target("a@test")
    assert allowed(quota, ours) == 10
    clock.now = NOON + timedelta(hours=1)
    assert not quota.refused(ours)
    assert allowed(quota, ours, 4) == 4
    clock.now = NOON + timedelta(days=1)
    assert allowed(quota, ours) == 10
    quota.close()
    hours = [HOUR, HOUR + timedelta(hours=1), HOUR + timedelta(days=1)]
    assert [ledger.spent(supplier_account("a@test"), hour) for hour in hours] == [10, 4, 10]
    days = [DAY, DAY + timedelta(days=1)]
    assert [ledger.spent(service_account("test"), day) for day in days] == [14, 10]


def test_what_was_not_sent_returns_to_its_own_period(ledger):
    clock = Clock()
    quota = LedgerQuota(ledger, lambda _: None, supplier_hour_cap=10, clock=clock)
    ours = target("a@test")
    assert allowed(quota, ours, 9) == 9
    quota.refund(ours)
    assert allowed(quota, ours) == 2
    clock.now += timedelta(hours=1)
    assert allowed(quota, ours, 1) == 1
    clock.now += timedelta(hours=1)
    quota.refill(ours)
    quota.refund(ours)  # was taken from the hour before
    assert allowed(quota, ours) == 10


def test_a_period_opens_with_what_the_ledger_did_not_see(ledger):
    asked: list[tuple[Mapping[str, Any], datetime]] = []

    def spent_before(where: Mapping[str, Any], start: datetime) -> int:
        asked.append((where, start))
        return 6

    for expected in (4, 0):
        quota = LedgerQuota(ledger, lambda _: 10, spent_before=spent_before, clock=Clock())
        assert allowed(quota, target("a@test")) == expected
        quota.close()
    assert asked == [({"service": "test"}, DAY)]
    quota = LedgerQuota(
        ledger, lambda _: None, supplier_hour_cap=10, spent_before=spent_before, clock=Clock()
    )
    assert allowed(quota, target("a@test")) == 4
    assert asked[1:] == [({"service": "test", "supplier": "a@test"}, HOUR)]


def test_nothing_is_granted_after_the_end(ledger):
    quota = LedgerQuota(ledger, lambda _: 1000, clock=Clock())
    assert allowed(quota, target("a@test"), 5) == 5
    quota.close()
    quota.close()
    assert quota.refused(target("a@test")) and allowed(quota, target("a@test")) == 0
    assert allowed(quota, target("b@test")) == 0
    assert ledger.spent(service_account("test"), DAY) == 5


def test_a_refill_that_is_under_way_at_the_end_is_given_back(documents, tmp_path):
    ledger = BudgetLedger(documents)
    ledger.grant(service_account("test"), DAY, 1000, 1)
    quota = LedgerQuota(ledger, lambda _: 1000, clock=Clock())
    other = sqlite3.connect(tmp_path / "documents.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refill = threading.Thread(target=quota.refill, args=(target("a@test"),))
    refill.start()
    time.sleep(0.1)
    quota.close()
    other.execute("ROLLBACK")
    other.close()
    refill.join(10)
    assert ledger.spent(service_account("test"), DAY) == 1


# ------------------------------------------------------------------------------------------ in the engine


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    cap=st.none() | st.integers(0, 50),
    hour_cap=st.none() | st.integers(0, 20),
    shares=st.dictionaries(st.integers(0, 3), st.integers(0, 15)),
    faults=st.lists(st.sampled_from([Fault.OK, Fault.TRANSPORT, Fault.EMPTY]), max_size=3),
    most=st.none() | st.integers(0, 40),
    slots=st.integers(1, 8),
)
def test_every_cap_is_hard_and_what_is_spent_is_what_was_sent(
    tmp_path_factory, counts, cap, hour_cap, shares, faults, most, slots
):
    documents = SqliteDocuments(tmp_path_factory.mktemp("ledger") / "documents.sqlite")
    ledger = BudgetLedger(documents)
    names = [f"{n}@{'even' if n % 2 == 0 else 'odd'}" for n in range(len(counts))]
    transport = Scripted({names[0]: faults})
    quota = LedgerQuota(ledger, {"even": cap}.get, supplier_hour_cap=hour_cap)
    quota.limit({names[n]: share for n, share in shares.items() if n < len(names)})
    work = [
        (target(name, retries=1, start_in_flight=4), iter(some(count, name)))
        for name, count in zip(names, counts, strict=True)
    ]
    report = run_relays(work, Sink(), transport=transport, max_in_flight=slots, quota=quota, max_relays=most)
    quota.close()
    sent = transport.sent
    even = sum(count for name, count in sent.items() if name.endswith("@even"))
    assert cap is None or even <= cap
    for n, name in enumerate(names):
        assert hour_cap is None or sent[name] <= hour_cap
        assert n not in shares or sent[name] <= shares[n]
        if hour_cap is not None:
            assert spent(ledger, supplier_account(name)) == sent[name]
    assert most is None or sum(sent.values()) <= most
    if cap is not None:
        assert spent(ledger, service_account("even")) == even
    assert report.total.sent == sum(sent.values())
    assert report.total.relays == sum(counts)
    if most is None:  # nothing is left unsent without a cap that says so
        for n, name in enumerate(names):
            if report.suppliers[name].unsent:
                capped = n in shares and sent[name] == shares[n]
                capped = capped or (hour_cap is not None and sent[name] == hour_cap)
                assert capped or (cap is not None and n % 2 == 0 and even == cap)
    documents.close()


def test_a_supplier_at_its_cap_stops_alone(ledger):
    quota = LedgerQuota(ledger, lambda _: None, supplier_hour_cap=30)
    quota.limit({"b@test": 10})
    work = [
        (target(f"{n}@test"), some(count, f"{n}@test"))
        for n, count in zip("abc", (100, 100, 20), strict=True)
    ]
    report = run_relays(work, Sink(), transport=Scripted(), quota=quota)
    sent = {key: (counts.sent, counts.unsent) for key, counts in report.suppliers.items()}
    assert sent == {"a@test": (30, 70), "b@test": (10, 90), "c@test": (20, 0)}


def test_retries_are_paid_for(ledger):
    quota = LedgerQuota(ledger, lambda _: 4)
    transport = Scripted({"a@test": [Fault.RATE_LIMITED] * 99})
    report = run_relays([(target(retries=9), some(1))], Sink(), transport=transport, quota=quota)
    assert (report.total.sent, report.total.still_due) == (4, 1)
    quota.close()
    assert spent(ledger, service_account("test")) == 4


def test_a_used_up_budget_ends_a_run_that_waits_for_retries(ledger):
    quota = LedgerQuota(ledger, lambda _: 2)
    transport = Scripted({"a@test": [Fault.TRANSPORT] * 9}, retry_after_s=0.5)
    started = time.monotonic()
    report = run_relays([(target(retries=9), some(5))], Sink(), transport=transport, quota=quota)
    assert time.monotonic() - started < 20
    assert (report.total.sent, report.total.still_due, report.total.unsent) == (2, 2, 3)


def test_runs_at_the_same_time_share_a_budget(ledger):
    sent: list[int] = []

    def run(name: str) -> None:
        quota = LedgerQuota(ledger, lambda _: 500)
        sink: Counter[str] = Counter()
        work = [(target(f"{name}{n}@test"), some(100, f"{name}{n}@test")) for n in range(4)]
        barrier.wait()
        run_relays(work, lambda relay, *_: sink.update([relay.supplier]), transport=Scripted(), quota=quota)
        quota.close()
        sent.append(sink.total())

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=run, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sent) == spent(ledger, service_account("test")) == 500


def test_a_slow_store_does_not_stop_the_others(documents, tmp_path):
    """While a grant waits for the store, relays that need none go on."""
    quota = LedgerQuota(BudgetLedger(documents), {"test": 100}.get)
    documents.count(BUDGETS)
    other = sqlite3.connect(tmp_path / "documents.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    released: list[float] = []

    def release() -> None:
        released.append(time.monotonic())
        other.execute("ROLLBACK")

    timer = threading.Timer(0.6, release)
    timer.start()
    done: dict[str, float] = {}

    def sink(relay, number, attempt) -> None:
        done[relay.supplier] = time.monotonic()

    work = [(target(name), some(50, name)) for name in ("a@test", "b@free")]
    report = run_relays(work, sink, transport=Scripted(), quota=quota)
    assert report.total.final == 100
    assert done["b@free"] < released[0] < done["a@test"]
    timer.join()
    other.close()


def test_a_broken_store_ends_the_run(documents):
    quota = LedgerQuota(BudgetLedger(documents), lambda _: 100)
    documents.close()
    with pytest.raises(StoreError, match="closed"):
        run_relays([(target(), some(50))], Sink(), transport=Scripted(), quota=quota)
