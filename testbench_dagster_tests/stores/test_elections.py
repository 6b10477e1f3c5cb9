"""What the stores make of the loss of MongoDB's primary: a real replica set whose primary is killed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.coordination.writing import writing_facts
from testbench_dagster.stores.documents import open_documents
from testbench_dagster_tests.servers import ReplicaSet, ServerMissing, replica_set
from testbench_dagster_tests.stores.workers import JOBS

pytestmark = pytest.mark.slow(minutes=1)


@pytest.fixture
def members(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ReplicaSet]:
    request.getfixturevalue("mongo_uri")  # skips where no server can be had
    try:
        with replica_set(tmp_path) as made:
            yield made
    except ServerMissing as missing:
        pytest.skip(str(missing))


def test_everything_waits_for_an_election_and_takes_effect_once(members: ReplicaSet, tmp_path: Path) -> None:
    """All that processes coordinate by goes on through the loss of the primary, in four threads at once."""
    uri = members.uri.replace("/?", "/elections?")
    failures: list[BaseException] = []
    ending = threading.Event()
    rounds: dict[str, int] = {}

    with contextlib.closing(open_documents(tmp_path, uri)) as store:
        hour = period_start("hour", datetime.now(UTC))
        granted = [0]
        with Heartbeat(store, "run-1", ttl_s=60.0) as heartbeat:

            def lease() -> None:
                with SupplierLeases(store, heartbeat) as leases:
                    held = leases.acquire(["a@s", "b@s"])
                    assert set(held.held) == {"a@s", "b@s"} and not held.refused
                    assert leases.verify(["a@s", "b@s"]) == set()

            def budget() -> None:
                granted[0] += BudgetLedger(store).grant("account", hour, 10**9, 3)

            def write() -> None:
                with writing_facts(store, heartbeat) as writer:
                    writer.enter({"a@s": ["t"]})

            def facts() -> None:
                number = rounds.get("facts", 0)
                wanted = [{"_id": f"{number}-{i}", "rank": number} for i in range(20)]
                assert store.put_new(JOBS, wanted) == 20
                assert store.purge(JOBS, {"rank": {"lt": number - 3}}) >= 0
                assert store.count(JOBS, {"rank": number}) == 20

            def repeat(work) -> None:
                try:
                    while not ending.is_set():
                        work()
                        rounds[work.__name__] = rounds.get(work.__name__, 0) + 1
                except BaseException as error:
                    failures.append(error)

            threads = [
                threading.Thread(target=repeat, args=(work,)) for work in (lease, budget, write, facts)
            ]
            for thread in threads:
                thread.start()
            while len(rounds) < len(threads) and not failures:
                time.sleep(0.05)
            killed = members.primary()
            members.kill(killed)
            assert members.primary(60) != killed
            after = dict(rounds)
            deadline = time.monotonic() + 60
            while any(rounds[name] <= after[name] + 2 for name in after) and not failures:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            ending.set()
            for thread in threads:
                thread.join()
            assert failures == []
            assert heartbeat.alive
        assert BudgetLedger(store).spent("account", hour) == granted[0]
