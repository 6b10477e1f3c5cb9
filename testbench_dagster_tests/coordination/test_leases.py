"""Leases in real processes, on SQLite and MongoDB."""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import COUNTER, Acquired, SupplierLeases
from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.stores.documents.collections import HEARTBEATS, LEASES
from testbench_dagster_tests.coordination.test_heartbeats import elsewhere
from testbench_dagster_tests.coordination.workers import fight, hold, lines, running, signalled, wait_for
from testbench_dagster_tests.stores.workers import Target

KEYS = [f"s{n}@x" for n in range(6)]


def holders(store: DocumentStore) -> dict[str, str]:
    return {d["_id"]: d["holder"] for d in store.find(LEASES) if d["_id"] != COUNTER}


def leased_elsewhere(store: DocumentStore, keys: list[str], left_s: float, ttl_s: float = 30.0) -> None:
    """Leases of a holder on another machine."""
    store.put_new(HEARTBEATS, [elsewhere("they", left_s, ttl_s)])
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    store.put_new(LEASES, [{"_id": key, "holder": "they", "token": 1, "since": since} for key in keys])


def test_one_holder_at_a_time(store):
    with Heartbeat(store, "one") as one, SupplierLeases(store, one) as mine:
        first = mine.acquire([*KEYS, *KEYS])
        assert set(first.held) == set(KEYS) and not first.refused
        with Heartbeat(store, "two") as two, SupplierLeases(store, two) as theirs:
            second = theirs.acquire([*KEYS[:2], "free@x"])
            assert set(second.held) == {"free@x"} and set(second.refused) == set(KEYS[:2])
            assert mine.acquire(KEYS) == first  # keeps its tokens
            mine.release(KEYS[:1])
            assert set(theirs.acquire(KEYS).held) == {KEYS[0]}
        assert holders(store) == dict.fromkeys(KEYS[1:], "one")
    assert holders(store) == {}


def test_every_holder_has_a_greater_token(store):
    tokens = []
    for holder in ("one", "two", "one-again"):
        with Heartbeat(store, holder) as heartbeat, SupplierLeases(store, heartbeat) as leases:
            tokens.append(leases.acquire(KEYS[:1]).held[KEYS[0]])
    assert tokens == sorted(set(tokens))


def test_who_holds_it_is_told_at_once(store):
    with Heartbeat(store, "one") as one, SupplierLeases(store, one) as mine:
        mine.acquire(KEYS[:1])
        with Heartbeat(store, "two") as two, SupplierLeases(store, two) as theirs:
            started = time.monotonic()
            refused = theirs.acquire(KEYS[:1], wait_s=60).refused[KEYS[0]]
            assert time.monotonic() - started < 20
    year = datetime.now(UTC).year
    assert refused.startswith("process ") and f"has been relaying to it since {year}-" in refused


def test_who_holds_briefly_is_waited_for(store):
    """A service probe holds for moments: an evaluation does not go without the supplier for it."""
    with Heartbeat(store, "one") as one, Heartbeat(store, "two") as two:
        mine, theirs = SupplierLeases(store, one, brief=True), SupplierLeases(store, two)
        mine.acquire(KEYS[:2])
        refused = theirs.acquire(KEYS[:1]).refused[KEYS[0]]
        assert "has been probing it since" in refused, "nobody waits who does not ask for it"
        given_back = threading.Timer(0.3, mine.release, [KEYS[:1]])
        given_back.start()
        acquired = theirs.acquire([KEYS[0], KEYS[2]], wait_s=60)
        given_back.join()
        assert set(acquired.held) == {KEYS[0], KEYS[2]} and not acquired.refused
        assert set(theirs.acquire([KEYS[1]], wait_s=0.2).refused) == {KEYS[1]}, "not for ever"
        mine.release()
        theirs.release()


class Counted:
    """Counts the calls of a store."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._store, name)


def test_many_suppliers_take_few_calls(store):
    keys = [f"s{n}@x" for n in range(250)]
    with Heartbeat(store, "one") as heartbeat:
        counted = Counted(store)
        leases = SupplierLeases(counted, heartbeat)  # type: ignore[arg-type]
        for _ in range(2):
            counted.calls.clear()
            assert len(leases.acquire(keys).held) == 250
            assert leases.verify(keys) == set()
            leases.release()
            assert len(counted.calls) <= 7, counted.calls


def test_leases_end_with_their_heart(store):
    with Heartbeat(store, "one") as heartbeat:
        SupplierLeases(store, heartbeat).acquire(KEYS)
    with Heartbeat(store, "two") as heartbeat, SupplierLeases(store, heartbeat) as leases:
        assert set(leases.acquire(KEYS).held) == set(KEYS)


def test_leases_are_given_back_on_errors(local):
    def work() -> None:
        with Heartbeat(local, "one") as heartbeat, SupplierLeases(local, heartbeat) as leases:
            leases.acquire(KEYS)
            raise LookupError

    with pytest.raises(LookupError):
        work()
    assert holders(local) == {}


def test_who_lost_its_heart_gets_and_keeps_nothing(store):
    with Heartbeat(store, "one", 0.6) as one, SupplierLeases(store, one) as mine:
        mine.acquire(KEYS[:3])
        assert mine.verify(KEYS[:3]) == set() and mine.verify(["other@x"]) == {"other@x"}
        wait_for(lambda: one.lost or not store.purge(HEARTBEATS, {"_id": "one"}))
        wait_for(lambda: one.lost)
        with pytest.raises(StoreError, match="one has no living heartbeat"):
            mine.acquire(KEYS)
        assert mine.verify(KEYS[:3]) == set()  # nobody else has taken them yet
        with Heartbeat(store, "two") as two, SupplierLeases(store, two) as theirs:
            assert set(theirs.acquire(KEYS[:2]).held) == set(KEYS[:2])
            assert mine.verify(KEYS[:3]) == set(KEYS[:2])
            mine.release()
            assert theirs.verify(KEYS[:2]) == set()


def test_a_killed_process_is_succeeded_at_once(local, local_target: Target, tmp_path: Path):
    log = tmp_path / "log"
    with running(hold, local_target, "they", KEYS, 30.0, str(log)) as process:
        wait_for(lambda: lines(log))
        with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
            assert set(leases.acquire(KEYS, wait_s=5).refused) == set(KEYS)
            process.kill()
            process.join(10)
            assert set(leases.acquire(KEYS).held) == set(KEYS)


def test_a_stopped_process_is_waited_for(local, local_target: Target, tmp_path: Path):
    log = tmp_path / "log"
    with running(hold, local_target, "they", KEYS, 1.2, str(log)) as process:
        wait_for(lambda: lines(log))
        signalled(process, signal.SIGSTOP)
        with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
            time.sleep(0.05)  # the signal has arrived
            assert set(leases.acquire(KEYS).refused) == set(KEYS)
            assert set(leases.acquire(KEYS, wait_s=10).held) == set(KEYS)
        signalled(process, signal.SIGCONT)


@pytest.mark.slow
def test_a_silent_holder_elsewhere_is_waited_for_until_it_expires(store):
    leased_elsewhere(store, KEYS, left_s=4.0, ttl_s=4.0)
    with Heartbeat(store, "me") as heartbeat, SupplierLeases(store, heartbeat) as leases:
        acquired = leases.acquire([*KEYS, "free@x"], wait_s=0.2)
        assert set(acquired.held) == {"free@x"} and set(acquired.refused) == set(KEYS)
        assert (
            "process 1 on elsewhere has been relaying to it since 2026-01-02 03:04:05 UTC"
            in (acquired.refused[KEYS[0]])
        )
        started = time.monotonic()
        assert set(leases.acquire(KEYS, wait_s=60).held) == set(KEYS)
        assert time.monotonic() - started < 20


def test_a_dead_machine_whose_clock_was_ahead_is_found_out(local):
    leased_elsewhere(local, KEYS, left_s=3600, ttl_s=0.5)
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        assert set(leases.acquire(KEYS).refused) == set(KEYS)
        started = time.monotonic()
        assert set(leases.acquire(KEYS, wait_s=60).held) == set(KEYS)
        assert 0.4 < time.monotonic() - started < 20


def test_a_holder_elsewhere_that_is_seen_renewing_is_alive(local):
    leased_elsewhere(local, KEYS, left_s=6.0, ttl_s=6.0)
    renewal = elsewhere("they", 12.0, 6.0)
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        started = time.monotonic()
        threading.Timer(0.5, local.upsert, (HEARTBEATS, [renewal])).start()
        assert set(leases.acquire(KEYS, wait_s=60).refused) == set(KEYS)
        assert 0.4 < time.monotonic() - started < 20


def test_a_renewal_in_the_last_moment_counts(local):
    """The heartbeat was read as expired, and is renewed before it is buried."""
    leased_elsewhere(local, KEYS, left_s=-3600)

    class LateRenewal(Counted):
        def purge(self, collection, where):
            if collection is HEARTBEATS:
                local.upsert(HEARTBEATS, [elsewhere("they", 30)])
            return local.purge(collection, where)

    with Heartbeat(local, "me") as heartbeat:
        acquired = SupplierLeases(LateRenewal(local), heartbeat).acquire(KEYS)  # type: ignore[arg-type]
    assert acquired.held == {} and set(acquired.refused) == set(KEYS)
    assert holders(local) == dict.fromkeys(KEYS, "they")


def test_a_lease_that_another_inherits_first_is_his(local):
    """The dead holder was found, and somebody else takes over just before."""
    leased_elsewhere(local, KEYS, left_s=-3600)

    class Overtaken(Counted):
        def purge(self, collection, where):
            if collection is LEASES and not quicker:
                quicker.update(theirs.acquire(KEYS[:2]).held)
            return local.purge(collection, where)

    quicker: dict[str, int] = {}
    with Heartbeat(local, "quicker") as heartbeat, Heartbeat(local, "me") as mine:
        theirs = SupplierLeases(local, heartbeat)
        acquired = SupplierLeases(Overtaken(local), mine).acquire(KEYS)  # type: ignore[arg-type]
        assert set(quicker) == set(acquired.refused) == set(KEYS[:2])
        assert set(acquired.held) == set(KEYS[2:])
        assert theirs.verify(KEYS[:2]) == set()


def test_nothing_to_acquire(local):
    with Heartbeat(local, "me") as heartbeat, SupplierLeases(local, heartbeat) as leases:
        assert leases.acquire([]) == Acquired()
        assert leases.verify([]) == set()


def test_never_two_living_holders(store, target: Target, tmp_path: Path):
    """Processes fight for leases while some are killed and some are stopped for longer than they may live."""
    ttl_s, logs = 0.4, [tmp_path / f"log{n}" for n in range(5)]
    fighters = [running(fight, target, KEYS, ttl_s, str(log)) for log in logs]
    with fighters[0] as a, fighters[1] as b, fighters[2] as c, fighters[3], fighters[4]:
        wait_for(lambda: all(lines(log) for log in logs))
        a.kill()
        for process in (b, c, b):
            signalled(process, signal.SIGSTOP)
            time.sleep(0.6)
            signalled(process, signal.SIGCONT)
    sends: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for log in logs:
        for line in log.read_text().splitlines():
            key, token, at = line.split()
            sends[key][int(token)].append(float(at))
    assert set(sends) == set(KEYS)
    tenures = 0
    for tokens in sends.values():
        spans = sorted((min(times), max(times)) for times in tokens.values())
        tenures += len(spans)
        for (_, ended), (began, _) in pairwise(spans):
            assert ended < began
    assert tenures > 30


def test_expired_leases_are_taken_once(store):
    """Many threads find the same dead holder at the same moment."""
    leased_elsewhere(store, KEYS, left_s=-3600)
    found: list[Acquired] = []

    def take(number: int) -> None:
        leases = SupplierLeases(store, heartbeats[number])
        barrier.wait()
        found.append(leases.acquire(KEYS))

    heartbeats = [Heartbeat(store, f"h{n}").__enter__() for n in range(5)]
    barrier = threading.Barrier(5)
    threads = [threading.Thread(target=take, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [key for acquired in found for key in acquired.held]
    assert sorted(taken) == sorted(KEYS)
    assert all(set(acquired.held) | set(acquired.refused) == set(KEYS) for acquired in found)
    for heartbeat in heartbeats:
        heartbeat.__exit__(None, None, None)


def test_time_left_is_a_matter_of_the_heart_not_of_the_lease(local):
    """A lease itself never expires: work of many hours keeps it."""
    with Heartbeat(local, "me", 0.6) as heartbeat, SupplierLeases(local, heartbeat) as leases:
        leases.acquire(KEYS[:1])
        time.sleep(1.2)
        assert leases.verify(KEYS[:1]) == set()
        lease = local.get(LEASES, KEYS[0])
        assert datetime.now(UTC) - lease["since"] > timedelta(seconds=1)
