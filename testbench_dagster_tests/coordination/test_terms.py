"""The times that coordination promises: when heartbeats beat, when they count as dead, how long is waited."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from testbench_dagster.coordination import leases as leases_module
from testbench_dagster.coordination import processes
from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.coordination.heartbeats import (
    DEFAULT_TTL_S,
    Heartbeat,
    beating,
    delete_expired,
    described,
    is_gone,
    silence_s,
)
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.coordination.processes import boot_clock, is_running, machine, process_started
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import BUDGETS, HEARTBEATS
from testbench_dagster_tests.coordination.test_heartbeats import beat, elsewhere
from testbench_dagster_tests.coordination.test_leases import KEYS, Counted, leased_elsewhere
from testbench_dagster_tests.coordination.workers import wait_for
from testbench_dagster_tests.records import changeable


class Timed(Counted):
    """Notes when heartbeats are renewed; the first renewals fail."""

    def __init__(self, store: Any, failing: int = 0) -> None:
        super().__init__(store)
        self.at: list[float] = []
        self.failing = failing

    def claim(self, collection: Any, where: Any, changes: Any) -> Any:
        self.at.append(time.monotonic())
        if len(self.at) <= self.failing:
            raise StoreError("out of reach")
        return self._store.claim(collection, where, changes)


def test_a_heart_lives_30_seconds_and_says_so(local):
    before = datetime.now(UTC)
    with Heartbeat(local, "me"):
        written = beat(local)
        left = boot_clock()
    assert DEFAULT_TTL_S == written.ttl_s == 30
    assert timedelta(seconds=29.999) <= written.expires_at - before < timedelta(seconds=45)
    assert written.expires_at.microsecond % 1000 == 0  # what stores keep of an instant
    assert left - 15 < written.boot_deadline - 30 <= left
    assert (written.host, written.pid) == (machine(), os.getpid())
    assert described(written) == f"process {os.getpid()} on {socket.gethostname()}"


def test_who_has_no_heart_works_by_one_of_its_own(local):
    with Heartbeat(local, "me") as heartbeat:
        with beating(local, heartbeat) as same:
            assert same is heartbeat and local.count(HEARTBEATS) == 1
        assert heartbeat.alive
    with beating(local, None) as own:
        assert own.holder.startswith("process-") and len(own.holder) == len("process-") + 16
        assert own.alive and beat(local, own.holder).ttl_s == 30
    assert local.count(HEARTBEATS) == 0


def test_a_heart_beats_three_times_in_its_time(local):
    timed = Timed(local)
    with Heartbeat(timed, "me", 0.9):  # type: ignore[arg-type]
        time.sleep(1.4)
    pauses = [later - earlier for earlier, later in pairwise(timed.at)]
    assert min(pauses) >= 0.299  # never more often; a busy machine may make it less often
    assert min(pauses) < 0.42


def test_a_renewal_that_failed_is_tried_again_after_a_tenth_of_the_time(local):
    timed = Timed(local, failing=3)
    with Heartbeat(timed, "me", 1.2) as heartbeat:  # type: ignore[arg-type]
        time.sleep(1.0)
        assert heartbeat.alive and len(timed.at) >= 4
    pauses = [later - earlier for earlier, later in pairwise(timed.at)]
    assert min(pauses[:3]) >= 0.119
    assert min(pauses[:3]) < 0.3


def test_a_lost_heart_says_so_and_one_that_ends_does_not(local, caplog):
    with Heartbeat(local, "me", 0.3):
        time.sleep(0.25)
    assert caplog.text == ""
    with Heartbeat(local, "me", 0.6) as heartbeat:
        while not delete_expired(local, beat(local)):
            pass  # it was renewed in between
        wait_for(lambda: "me lost its heartbeat: it was stopped or cut off from the store" in caplog.text)
        assert heartbeat.lost and not heartbeat.alive


def remote(left_s: float, ttl_s: float = 30.0) -> HeartbeatRecord:
    """The heartbeat of a process on another machine, as it is read."""
    return HeartbeatRecord.from_document(elsewhere("they", left_s, ttl_s))


def test_a_silent_heart_is_dead_after_a_tenth_more_than_its_time():
    assert silence_s(remote(0.0, ttl_s=30.0)) == pytest.approx(33)
    assert silence_s(remote(0.0, ttl_s=0.5)) == pytest.approx(0.55)


def test_clocks_of_other_machines_may_be_a_tenth_of_the_time_apart():
    """3 s of 30; the seconds between are for a busy machine."""
    assert not is_gone(remote(left_s=-1.5))
    assert is_gone(remote(left_s=-3.01))
    assert not is_gone(remote(left_s=-9.0, ttl_s=100.0))
    assert is_gone(remote(left_s=-10.01, ttl_s=100.0))


def own(**changes: Any) -> HeartbeatRecord:
    """The heartbeat of this very process."""
    found = dataclasses.replace(
        HeartbeatRecord.from_document(elsewhere("me", left_s=60)),
        host=machine(),
        pid=os.getpid(),
        started=process_started(os.getpid()),
        boot_deadline=boot_clock() + 60,
    )
    return dataclasses.replace(found, **changes)


def test_on_this_machine_the_boot_clock_decides_where_there_is_one():
    now = datetime.now(UTC)
    assert not is_gone(own(expires_at=now - timedelta(hours=1)))
    assert is_gone(own(boot_deadline=boot_clock() - 0.001))
    assert not is_gone(own(boot_deadline=None))
    assert is_gone(own(boot_deadline=None, expires_at=datetime.now(UTC) - timedelta(seconds=0.01)))
    assert is_gone(own(started=1))  # another process has the number now


def test_what_was_renewed_since_it_was_read_is_not_buried(local):
    local.put_new(HEARTBEATS, [elsewhere("they", left_s=-60)])
    read = beat(local, "they")
    renewed = dataclasses.replace(read, expires_at=read.expires_at + timedelta(seconds=30))
    typed.upsert(local, HeartbeatRecord, [renewed])
    assert not delete_expired(local, read)
    assert delete_expired(local, beat(local, "they"))
    assert local.count(HEARTBEATS) == 0
    assert delete_expired(local, read)  # somebody else did


def test_a_holder_that_may_be_dead_is_looked_at_four_times_a_second(local, monkeypatch):
    leased_elsewhere(local, KEYS[:1], left_s=3600, ttl_s=1.0)
    pauses: list[float] = []
    wait = time.sleep

    def noted(seconds: float) -> None:
        pauses.append(seconds)
        wait(seconds)

    monkeypatch.setattr(leases_module.time, "sleep", noted)
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        started = time.monotonic()
        assert set(leases.acquire(KEYS[:1], wait_s=60).held) == {KEYS[0]}
        assert time.monotonic() - started >= 1.1  # its time to live and a tenth
        assert pauses and set(pauses) == {0.25}


def test_a_look_that_comes_too_late_is_not_waited_for():
    assert leases_module._Watch(until=time.monotonic() - 5).pause_s() == 0.0
    assert leases_module._Watch(until=time.monotonic() + 5).pause_s() == 0.25


def test_no_longer_is_waited_than_asked_for(local, monkeypatch):
    leased_elsewhere(local, KEYS[:1], left_s=3600)
    pauses: list[float] = []
    wait = time.sleep
    monkeypatch.setattr(leases_module.time, "sleep", lambda seconds: (pauses.append(seconds), wait(seconds)))
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        assert set(leases.acquire(KEYS[:1]).refused) == {KEYS[0]} and pauses == []
        assert set(leases.acquire(KEYS[:1], wait_s=0.3).refused) == {KEYS[0]}
    assert pauses[0] == 0.25 and 0 <= pauses[-1] < 0.06


def test_tokens_are_counted_from_one(local):
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        drawn = [leases.acquire([key]).held[key] for key in KEYS[:3]]
        assert drawn == [1, 2, 3]
        assert leases.acquire(KEYS[:1]).held == {KEYS[0]: 1}  # it keeps the one it has
        assert leases.verify(KEYS) == set(KEYS[3:])
        leases.release(KEYS[:1])
        assert leases.verify(KEYS[:3]) == {KEYS[0]}


def test_a_process_is_dated_in_ticks_since_boot():
    before = boot_clock()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    after = boot_clock()
    try:
        started = process_started(child.pid)
        assert started is not None
        assert before - 0.1 <= started / os.sysconf("SC_CLK_TCK") <= after + 0.1
        assert is_running(child.pid, started) and is_running(child.pid, None)
        assert not is_running(child.pid, started - 1)
    finally:
        child.kill()
        child.wait()


def test_where_the_system_hides_processes_a_signal_tells(monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    monkeypatch.setattr(processes, "_stat", lambda pid: None)
    assert is_running(os.getpid(), None) and not is_running(child.pid, None)
    assert not processes.is_stopped(os.getpid()) and process_started(os.getpid()) is None

    def refused(pid: int, number: int) -> None:
        raise PermissionError(pid)

    monkeypatch.setattr(processes.os, "kill", refused)
    assert is_running(1, None)  # it is there, and another user's


def test_a_machine_is_told_by_host_boot_and_namespaces():
    host, boot, *namespaces = machine().split("/")
    assert host == socket.gethostname()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        assert boot == file.read().strip()
    assert [name.partition(":")[0] for name in namespaces] == ["pid", "time"]
    assert processes.shares_boot_clock()


DAY = datetime(2026, 3, 4, tzinfo=UTC)


def test_none_is_a_number_of_relays_and_less_is_not(local):
    ledger = BudgetLedger(local)
    assert ledger.grant("a", DAY, 0, 5) == ledger.grant("a", DAY, 5, 0) == 0
    ledger.give_back("a", DAY, 0)
    assert ledger.spent("a", DAY) == 0
    with pytest.raises(ValueError, match="n must be 0 or more, not -1"):
        ledger.give_back("a", DAY, -1)


def test_more_given_back_than_granted_leaves_none(local):
    ledger = BudgetLedger(local)
    assert ledger.grant("a", DAY, 10, 1) == 1
    ledger.give_back("a", DAY, 2)
    assert ledger.spent("a", DAY) == 0 and local.count(BUDGETS) == 1
    assert ledger.grant("a", DAY, 10, 99) == 10
    ledger.give_back("a", DAY, 1)
    assert ledger.spent("a", DAY) == 9


def test_records_stay_what_they_are():
    assert changeable("testbench_dagster.coordination") <= set()
