"""Two hosts of workers, a control host, Redis, PostgreSQL and a MongoDB replica set: one platform for all.

Tests go in order. Everything is started from the files of deploy/celery. Hosts are network, mount, process
and name spaces where this machine allows them, else plain processes with folders of their own: the first test
says which. Belongs here: whatever needs a second host.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import next_period
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster_tests.busy import times_slower
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.deploy.cluster import NAMES, Cluster, Redis, cluster
from testbench_dagster_tests.deploy.hosts import namespaces
from testbench_dagster_tests.operations.evidence import (
    DURABLE_S,
    assert_one_at_a_time,
    assert_scored_once,
    docs_scored,
    lost_requests,
)
from testbench_dagster_tests.operations.harness import UNFINISHED, wait_until
from testbench_dagster_tests.servers import ReplicaSet, postgres_database

pytestmark = pytest.mark.slow(minutes=5)

SUPPLIERS_N, PER_RUN, IN_FLIGHT = 20, 7, 4
TASKS = ("starter_logic", "starter_units")
SLOTS, EVALUATIONS = 2, 3  # of a host; on both, fewer than there are slots and more than one host has
FIRST, SECOND, THIRD, LAST = 8, 20, 32, 44  # docs of each task, more and more
LATENCY_S = 0.2
CAP = SUPPLIERS_N * FIRST * len(TASKS) * 6 // 10  # of the day's budget at first
REPLACED_WITHIN_S = 120.0
WITHIN_S = 600.0
LAG_S = 1.0
BACKFILL = "dagster/backfill"


def settings(docs: int, cap: int = 100_000) -> dict[str, Any]:
    samples = {"min": docs, "max": docs, "half_width": None}
    return {
        "tasks": [{"name": name, "samples": samples} for name in TASKS],
        "sampling": {"window": 100},
        "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": IN_FLIGHT},
        "budget": {"relays_per_day": cap},
    }


@dataclass
class Running:
    made: Cluster
    redis: Redis
    mongo: ReplicaSet
    deadly: list[float] = field(default_factory=list)
    """When a host was killed."""

    def complete(self, docs: int) -> bool:
        scored = docs_scored(self.made)
        return len(scored) == SUPPLIERS_N and set(scored.values()) == {len(TASKS) * docs}

    def received(self) -> int:
        return sum(s["requests"] for s in self.made.localnet.stats().values())

    def relaying(self, *names: str) -> str:
        """A run that relays on one of the hosts, waited for."""
        return str(
            wait_until(
                f"relays on {names}",
                lambda: next(filter(None, map(self.made.relaying_on, names)), None),
                WITHIN_S,
                every_s=0.05,
            )
        )

    def ended(self, run_id: str) -> str | None:
        """The status of a run that has an end."""
        status = self.made.run(run_id)["status"]
        return None if status in UNFINISHED else status


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("two-hosts")
    left = next_period("day", datetime.now(UTC)) - datetime.now(UTC)
    if left < timedelta(minutes=15):  # a new day would renew the budget in the middle of it
        time.sleep(left.total_seconds() + 1)
    postgres: str = request.getfixturevalue("postgres_uri")
    localnet = LocalnetProcess(suppliers=SUPPLIERS_N, latency_ms=LATENCY_S * 1000, fail_rate=0.0)
    numbers = {
        "TESTBENCH_WORKER_SLOTS": str(SLOTS),
        "TESTBENCH_RUN_SLOTS": str(SLOTS * len(NAMES)),
        "TESTBENCH_EVALUATION_SLOTS": str(EVALUATIONS),
        "TESTBENCH_SUPPLIERS_PER_RUN": str(PER_RUN),
    }
    with (
        postgres_database(postgres) as datasets,
        postgres_database(postgres) as dagster,
        localnet,
        server_or_skip(
            cluster(
                folder,
                localnet,
                {"TESTBENCH_POSTGRES_URI": datasets, "DAGSTER_POSTGRES_URL": dagster},
                numbers,
                settings(FIRST, CAP),
            )
        ) as (made, redis, mongo),
    ):
        yield Running(made, redis, mongo)


@contextmanager
def watching(made: Cluster) -> Iterator[Counter[str]]:
    """Look all the time how many runs are at work, and how many of these are evaluations; yield the most."""
    most: Counter[str] = Counter()
    ending = Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not ending.wait(0.2):
                runs = made.at_work()
                evaluations = [run for run in runs if run["tags"].get("testbench/kind") == "evaluation"]
                most["runs"] = max(most["runs"], len(runs))
                most["evaluations"] = max(most["evaluations"], len(evaluations))
                most["looks"] += 1
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ending.set()
        thread.join()
    assert failed == []


def test_both_hosts_run_and_share_one_budget(running: Running) -> None:
    print("hosts are namespaces" if namespaces() else "hosts are plain processes")
    made = running.made

    def spent() -> bool:
        with made.workspace() as workspace:
            budget = workspace.config.settings.budget
            left = budget_left(workspace.documents, budget, "simulation", datetime.now(UTC))
        return left == 0 and made.at_rest()

    wait_until("the budget to be spent", spent, WITHIN_S)
    assert running.received() == CAP == len(made.attempts())
    taken = {name: made.taken_by(name) for name in NAMES}
    print(f"runs by host: {taken}")
    assert min(taken.values()) > 0
    assert made.runs("FAILURE", "CANCELED") == []


def test_terminate_ends_canceled_and_is_not_retried(running: Running) -> None:
    made = running.made
    made.configure(**settings(SECOND))  # and no budget any more
    run_id = running.relaying(*NAMES)
    asked = time.monotonic()
    made.terminate(run_id)
    assert wait_until("its end", lambda: running.ended(run_id), WITHIN_S, every_s=0.1) == "CANCELED"
    print(f"canceled after {time.monotonic() - asked:.1f} s")
    assert run_id not in made.leases().values(), "its suppliers are not free yet"
    wait_until("the rest", lambda: running.complete(SECOND), WITHIN_S)
    assert made.repeats(run_id) == []
    assert made.runs("FAILURE") == []


def test_a_killed_host_is_replaced(running: Running) -> None:
    made = running.made
    made.configure(**settings(THIRD))
    run_id = running.relaying("host-b")
    victims = made.runs_on("host-b")
    at = made.host("host-b").kill()
    running.deadly.append(at)
    assert wait_until("its end", lambda: running.ended(run_id), WITHIN_S) == "FAILURE"
    print(f"failed {time.time() - at:.1f} s after the kill")
    (again,) = wait_until("its repetition", lambda: made.repeats(run_id), WITHIN_S)
    wait_until("it to begin", lambda: made.run(again["runId"])["startTime"], WITHIN_S)
    replaced = time.time() - at
    print(f"replaced {replaced:.1f} s after the kill of {len(victims)} runs")
    assert replaced <= REPLACED_WITHIN_S * times_slower()
    wait_until("all docs", lambda: running.complete(THIRD), WITHIN_S)
    wait_until("rest", made.at_rest, WITHIN_S)


def test_redis_is_restarted_with_a_full_queue(running: Running) -> None:
    made = running.made
    taken = made.taken_by("host-a")
    for host in made.hosts_alive():
        host.terminate()  # an idle worker leaves at once
        assert host.process.wait(WITHIN_S) == 0
    keys = made.partitions()
    with watching(made) as most:
        backfill = made.backfill(keys[::3])
        wait_until("a full queue", lambda: running.redis.waiting() >= EVALUATIONS, WITHIN_S)
        canceled = min(
            wait_until(
                "runs that wait for a worker",
                lambda: [r["runId"] for r in made.runs("STARTING") if r["tags"].get(BACKFILL) == backfill],
                WITHIN_S,
            )
        )
        made.force_end(canceled)
        assert running.ended(canceled) == "CANCELED", "no worker has begun it"
        running.redis.stop()
        running.redis.start()
        assert running.redis.waiting() >= EVALUATIONS, "Redis forgot what waited"
        for name in NAMES:
            made.start_worker(name)
        wait_until(
            "the backfill's end",
            lambda: made.backfill_status(backfill) not in ("REQUESTED", "CANCELING"),
            WITHIN_S,
        )
    print(f"at most {dict(most)}")
    of_backfill = [run for run in made.runs() if run["tags"].get(BACKFILL) == backfill]
    assert len(of_backfill) == len(keys[::3]), "runs that cannot share a range"
    ends = Counter(run["status"] for run in of_backfill)
    assert ends == {"SUCCESS": len(keys[::3]) - 1, "CANCELED": 1}
    assert made.repeats(canceled) == []
    # a backfill over many partitions keeps to the limits, though its runs were given no tag by anybody
    assert most["looks"] > 10
    assert most["evaluations"] == EVALUATIONS
    assert most["runs"] <= SLOTS * len(NAMES)
    starts = made.starts([run["runId"] for run in of_backfill])
    assert starts == {run["runId"]: int(run["runId"] != canceled) for run in of_backfill}, "a run began twice"
    assert made.taken_by("host-a") > taken


def test_the_primary_is_killed_in_mid_run(running: Running) -> None:
    made = running.made
    failures = {run["runId"] for run in made.runs("FAILURE")}
    made.configure(**settings(LAST))
    run_id = running.relaying(*NAMES)
    at_work = {run["runId"] for run in made.at_work()}
    running.mongo.kill(running.mongo.primary())
    assert wait_until("its end", lambda: running.ended(run_id), WITHIN_S) == "SUCCESS"
    wait_until("all docs", lambda: running.complete(LAST), WITHIN_S)
    assert {run["runId"] for run in made.runs("FAILURE")} == failures, at_work


def test_nothing_was_lost_doubled_or_shared(running: Running) -> None:
    made = running.made
    wait_until("rest", made.at_rest, WITHIN_S)
    lost = lost_requests(made)
    slower = times_slower()
    for request in lost:
        before = LATENCY_S + LAG_S * slower + (0 if request.outcome == "cancelled" else DURABLE_S * slower)
        assert request.outcome == "cancelled" or any(
            at - before <= request.at <= at + LAG_S * slower for at in running.deadly
        ), f"{request} was lost although no host was killed then"
    print(f"lost: {len(lost)} of {running.received()} requests")
    assert len(made.attempts()) == running.received() - len(lost)
    assert_scored_once(made)
    assert assert_one_at_a_time(made) > SUPPLIERS_N
    assert max(s["in_flight_max"] for s in made.localnet.stats().values()) <= IN_FLIGHT
    assert made.leases() == {}
