"""Two hosts of workers, a control host, Redis, PostgreSQL and a MongoDB replica set: one platform for all.

Tests go in order. Everything is started from the files of deploy/celery. Hosts are network, mount, process
and name spaces where this machine allows them, else plain processes with folders of their own: the first test
says which. Belongs here: whatever needs a second host.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from testbench_dagster.coordination.budgets import next_period
from testbench_dagster.coordination.processes import host_name
from testbench_dagster.core.finding import Finding
from testbench_dagster.defs.hosts import HOST_TAG, REFUSED_TAG
from testbench_dagster.defs.kinds import EVALUATION_KIND, KIND_TAG
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster.stages.statements import statement_findings
from testbench_dagster_tests.busy import times_slower
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.deploy.cluster import ENDS, NAMES, Cluster, Redis, cluster
from testbench_dagster_tests.deploy.hosts import HERE, Host, namespaces
from testbench_dagster_tests.operations.evidence import (
    DURABLE_S,
    assert_one_at_a_time,
    assert_scored_once,
    docs_scored,
    lost_requests,
)
from testbench_dagster_tests.operations.harness import SENSORS, UNFINISHED, wait_until
from testbench_dagster_tests.servers import (
    S3_KEYS,
    ReplicaSet,
    free_port,
    link_to,
    new_bucket,
    postgres_database,
)

pytestmark = pytest.mark.slow(minutes=5)

SUPPLIERS_N, PER_RUN = 20, 7
IN_FLIGHT = 1  # so that the relays of a run last, and cost no more for it
TASKS = ("starter_logic", "starter_units")
SLOTS, EVALUATIONS = 2, 3  # of a host; on both, fewer than there are slots and more than one host has
STEP = 8  # docs of each task that are asked, and that are added again and again
LATENCY_S = 0.6
CAP = SUPPLIERS_N * STEP * len(TASKS) * 6 // 10  # of the day's budget at first
REPLACED_WITHIN_S = 120.0
WITHIN_S = 600.0
LAG_S = 1.0
BACKFILL = "dagster/backfill"
CLI = (sys.executable, "-m", "testbench_dagster.cli")


@dataclass
class Running:
    made: Cluster
    redis: Redis
    mongo: ReplicaSet
    published: dict[str, str]
    """Where everybody reads what is published: URLs by the names of files."""
    blocks: dict[str, Any]
    """Of testbench.yaml, besides tasks and budget."""
    docs: int = STEP
    deadly: list[float] = field(default_factory=list)
    """When a host was killed."""
    away: set[str] = field(default_factory=set)
    """Runs that failed because their host was killed, or was refused."""

    def settings(self) -> dict[str, Any]:
        """What is configured now, without a budget."""
        return {**self.blocks, "tasks": tasks(self.docs)}

    def more(self, forgotten: str | None = None) -> None:
        """Have more docs asked, of which one host may not be told; nothing is at work at this moment."""
        self.rest()
        self.docs += STEP
        if forgotten is None:
            self.made.configure(**self.settings())
        else:
            self.made.configure_without(forgotten, **self.settings())

    def rest(self) -> None:
        """Wait until nothing is due and no run is queued or at work."""
        wait_until("rest", self.made.at_rest, WITHIN_S, every_s=1)

    def complete(self) -> bool:
        """Whether all docs are scored."""
        scored = docs_scored(self.made)
        return len(scored) == SUPPLIERS_N and set(scored.values()) == {len(TASKS) * self.docs}

    def received(self) -> int:
        return sum(s["requests"] for s in self.made.localnet.stats().values())

    def relaying(self, *names: str, to_come: int) -> list[str]:
        """A run on each of the hosts that relays, to a supplier that so many requests are still to come to.

        Where one was done before the other began, or nobody looked in time, there is more to do.
        """
        while (found := self._relaying(names, to_come)) is None:
            self.more()
        return found

    def _relaying(self, names: Sequence[str], to_come: int) -> list[str] | None:
        until = len(TASKS) * self.docs - to_come

        def look() -> list[str] | str | None:
            found = [self.made.relaying_on(name, until) for name in names]
            if all(found):
                return [str(run_id) for run_id in found]
            return "all is done" if not any(found) and self.complete() else None

        found = wait_until(f"relays on {names}", look, WITHIN_S, every_s=0.2)
        return found if isinstance(found, list) else None

    def ended(self, run_id: str) -> str | None:
        """The status of a run that has an end."""
        status = self.made.run(run_id)["status"]
        return None if status in UNFINISHED else status

    def evaluating(self, name: str) -> str | None:
        """An evaluation that goes on on a host, and was not refused there."""
        there = self.made.runs_on(name)
        runs = [run for run in self.made.runs("STARTED") if run["tags"].get(KIND_TAG) == EVALUATION_KIND]
        return next((run["runId"] for run in runs if run["runId"] in there), None)

    def disagreeing(self) -> list[Finding]:
        """What `testbench check` says on the control host of hosts that go by something else."""
        with self.made.workspace() as workspace:
            return [found for found in statement_findings(workspace) if not found.ok]

    def refused(self) -> list[str]:
        """Runs that their host refused, the first one first."""
        failed = self.made.runs("FAILURE")
        return [run["runId"] for run in reversed(failed) if run["tags"].get(REFUSED_TAG) == "true"]

    def failed(self) -> set[str]:
        """Runs that failed for no reason that is known."""
        return {run["runId"] for run in self.made.runs("FAILURE")} - self.away


def tasks(docs: int) -> list[dict[str, Any]]:
    samples = {"min": docs, "max": docs, "half_width": None}
    return [{"name": name, "samples": samples} for name in TASKS]


def most_at_once(runs: Iterable[list[tuple[dg.DagsterEventType, float]]]) -> int:
    """How many runs were at work at a time: from when the queue let them go until they ended."""
    steps: list[tuple[float, int]] = []
    for happened in runs:
        steps.append((min(at for _, at in happened), 1))
        steps.append((max(at for kind, at in happened if kind in ENDS), -1))
    return max(accumulate(step for _, step in sorted(steps)))


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("two-hosts")
    left = next_period("day", datetime.now(UTC)) - datetime.now(UTC)
    if left < timedelta(minutes=30):  # a new day would renew the budget in the middle of it
        time.sleep(left.total_seconds() + 1)
    postgres: str = request.getfixturevalue("postgres_uri")
    keys = {**S3_KEYS, "AWS_ENDPOINT_URL": request.getfixturevalue("s3_url")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        bucket = new_bucket()
        published = {name: link_to(bucket, f"site/{name}") for name in ("feed.json", "leaderboard.html")}
    blocks = {
        "sampling": {"window": 100},
        "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": IN_FLIGHT},
        "publish": f"s3://{bucket}/site",
        # what only makes work here looks more rarely
        "automation": {**SENSORS, "new_suppliers": {"every_s": 10}, "summaries_sensor": {"every_s": 60}},
    }
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
                {**blocks, "tasks": tasks(STEP), "budget": {"relays_per_day": CAP}},
                keys,
            )
        ) as (made, redis, mongo),
    ):
        yield Running(made, redis, mongo, published, blocks)


def test_both_hosts_run_and_share_one_budget(running: Running) -> None:
    print("hosts are namespaces" if namespaces() else "hosts are plain processes")
    made = running.made

    def spent() -> bool:
        with made.workspace() as workspace:
            budget = workspace.config.settings.budget
            left = budget_left(workspace.documents, budget, "simulation", datetime.now(UTC))
        return left == 0 and made.at_rest()

    wait_until("the budget to be spent", spent, WITHIN_S, every_s=2)
    assert running.received() == CAP == len(made.attempts())
    taken = {name: made.taken_by(name) for name in NAMES}
    print(f"runs by host: {taken}")
    assert min(taken.values()) > 0
    assert made.runs("FAILURE", "CANCELED") == []


def test_a_host_is_killed_and_a_run_of_the_other_terminated(running: Running) -> None:
    """The run that is terminated ends CANCELED and is not repeated; that of the dead host is."""
    made = running.made
    running.more()
    terminated, lost = running.relaying(*NAMES, to_come=10)
    victims = made.runs_on("host-b")
    at = made.host("host-b").kill()
    running.deadly.append(at)
    running.away |= victims

    asked = time.monotonic()
    made.terminate(terminated)
    assert wait_until("its end", lambda: running.ended(terminated), WITHIN_S) == "CANCELED"
    print(f"canceled after {time.monotonic() - asked:.1f} s")
    assert terminated not in made.leases().values(), "its suppliers are not free yet"

    assert wait_until("the lost run's end", lambda: running.ended(lost), WITHIN_S) == "FAILURE"
    print(f"failed {time.time() - at:.1f} s after the kill")
    (again,) = wait_until("its repetition", lambda: made.repeats(lost), WITHIN_S)
    replaced = wait_until("it to begin", lambda: made.run(again["runId"])["startTime"], WITHIN_S) - at
    print(f"replaced {replaced:.1f} s after the kill of {len(victims)} runs")
    assert replaced <= REPLACED_WITHIN_S * times_slower()
    wait_until("all docs", running.complete, WITHIN_S, every_s=1)
    running.rest()
    assert made.repeats(terminated) == []
    assert running.failed() == set()


def test_redis_is_restarted_with_a_full_queue(running: Running) -> None:
    made = running.made
    for host in made.hosts_alive():
        made.leave(host.name)
    taken = made.taken_by("host-a")
    keys = made.partitions()[::4]
    backfill = made.backfill(keys)
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
    of_backfill = [run for run in made.runs() if run["tags"].get(BACKFILL) == backfill]
    assert len(of_backfill) == len(keys), "runs that cannot share a range"
    ends = Counter(run["status"] for run in of_backfill)
    assert ends == {"SUCCESS": len(keys) - 1, "CANCELED": 1}
    assert made.repeats(canceled) == []
    happened = made.events(run["runId"] for run in of_backfill)
    # a backfill over many partitions keeps to the limits, though its runs were given no tag by anybody
    assert most_at_once(happened.values()) == EVALUATIONS
    begun = {
        run_id: [kind for kind, _ in events].count(dg.DagsterEventType.RUN_START)
        for run_id, events in happened.items()
    }
    assert begun == {run_id: int(run_id != canceled) for run_id in happened}, "a run began twice"
    assert made.taken_by("host-a") > taken


def test_pages_are_read_on_the_host_that_did_not_rank(running: Running) -> None:
    made = running.made
    running.rest()
    began = datetime.now(UTC)
    ranking = made.launch("refresh_summaries")
    assert wait_until("the ranking", lambda: running.ended(ranking), WITHIN_S) == "SUCCESS"
    for_all = httpx.get(running.published["feed.json"], timeout=60).raise_for_status().content.decode()
    (ranked_on,) = [name for name in NAMES if made.published_on(name) == for_all]
    (other,) = set(NAMES) - {ranked_on}
    read = pages(made.host(other), running.published)
    ranked, made_anew = json.loads(read["feed.json"]), json.loads(read["feed"])
    assert read["feed.json"] == for_all
    assert began < datetime.fromisoformat(ranked["made_at"]) < datetime.fromisoformat(made_anew["made_at"])
    scores = {one["supplier"]: one["score"] for one in ranked["suppliers"]}
    assert len(scores) == SUPPLIERS_N and None not in scores.values()
    assert {one["supplier"]: one["score"] for one in made_anew["suppliers"]} == scores
    for page in ("leaderboard.html", "board"):
        missing = [
            key for key, score in scores.items() if not (key in read[page] and f"{score:.3f}" in read[page])
        ]
        assert missing == [], page


def pages(host: Host, published: dict[str, str]) -> dict[str, str]:
    """What somebody on a host reads: published files, and a board and a feed that it serves."""
    ports = {"board": free_port(), "feed": free_port()}
    urls = {
        **published,
        "board": f"http://127.0.0.1:{ports['board']}/",
        "feed": f"http://127.0.0.1:{ports['feed']}/feed.json",
    }
    with (
        host.beside([*CLI, "board", "--port", str(ports["board"])]),
        host.beside([*CLI, "feed", "--serve", "--port", str(ports["feed"])]),
    ):
        get = [sys.executable, str(HERE / "get.py"), str(WITHIN_S), *urls.values()]
        code, said = host.run(get, 2 * WITHIN_S)
    assert code == 0, said
    found = json.loads(said)
    return {name: found[url] for name, url in urls.items()}


def test_a_host_of_another_configuration_is_refused(running: Running) -> None:
    """Its testbench.yaml was forgotten when more docs were configured on the others."""
    made = running.made
    running.rest()
    before = running.docs
    made.leave("host-b")
    running.more(forgotten="host-b")
    # the other host goes on, until it has begun its last: there are more suppliers than it has slots for
    wait_until(
        "relays there", lambda: made.relaying_on("host-a", len(TASKS) * running.docs), WITHIN_S, every_s=0.2
    )
    made.leave("host-a")
    received = running.received()
    made.start_worker("host-b")
    sentence = f"tasks.{TASKS[0]}.samples.max is {before} here and {running.docs} there"
    refused = wait_until("a refused run", lambda: running.refused(), WITHIN_S)
    told = made.failure(refused[0])
    assert sentence in told and "goes by another configuration than the code server" in told
    assert str(made.base / "host-b") in told and "nothing was relayed" in told
    wait_until(
        "the sensor to say why",
        lambda: any(sentence in (t["skipReason"] or "") for t in made.ticks("stale_scores")),
        WITHIN_S,
    )
    code, said = made.host("host-b").run([*CLI, "check", "--no-suppliers"])
    (line,) = [line for line in said.splitlines() if line.startswith("FAIL")]
    assert code != 0 and line.startswith("FAIL  other machines: ") and sentence in line
    (workers,) = [line for line in said.splitlines() if "Celery's workers: " in line]
    assert f"1 worker with {SLOTS} slots on " in workers, "the other host left"
    assert f"max_concurrent_runs is {SLOTS * len(NAMES)}" in workers
    (found,) = running.disagreeing()
    name = "host-b" if namespaces() else host_name()
    assert found.what == f"runs on {name}" and sentence in found.detail
    assert running.received() == received and made.leases() == {}, "nobody was asked"

    # what the other host writes names it
    made.start_worker("host-a")
    goes_on = wait_until("its next evaluation", lambda: running.evaluating("host-a"), WITHIN_S)
    made.host("host-a").terminate()
    assert wait_until("its end", lambda: running.ended(goes_on), WITHIN_S) == "SUCCESS"
    check = made.check("relay_responses", "hosts_agree", goes_on)
    assert not check["success"] and check["severity"] == "WARN"
    offenders = next(
        json.loads(one["jsonString"]) for one in check["metadataEntries"] if one["label"] == "offenders"
    )
    assert list(offenders) == [name] and sentence in offenders[name]

    # with the right file it works again, and nothing has to be started anew
    made.copy_configuration("host-b")
    made.backfill(made.partitions()[:1])  # the others may have been done meanwhile
    wait_until("nobody to be refused", lambda: running.disagreeing() == [], WITHIN_S)
    refused = running.refused()
    running.away |= set(refused)
    for run_id in refused:
        run = made.run(run_id)
        assert run["tags"]["dagster/max_retries"] == "0" and made.repeats(run_id) == []
        assert run["tags"][HOST_TAG] == name
    assert running.failed() == set()


def test_the_primary_is_killed_in_mid_run(running: Running) -> None:
    (run_id,) = running.relaying("host-b", to_come=4)
    running.mongo.kill(running.mongo.primary())
    assert wait_until("its end", lambda: running.ended(run_id), WITHIN_S) == "SUCCESS"
    wait_until("all docs", running.complete, WITHIN_S, every_s=1)
    running.rest()
    assert running.failed() == set()
    assert running.disagreeing() == []


def test_nothing_was_lost_doubled_or_shared(running: Running) -> None:
    made = running.made
    running.rest()
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
    runs = made.runs()
    happened = {
        run_id: events for run_id, events in made.events(run["runId"] for run in runs).items() if events
    }
    assert most_at_once(happened.values()) <= SLOTS * len(NAMES)
    of_kind = {run["runId"] for run in runs if run["tags"].get(KIND_TAG) == EVALUATION_KIND}
    assert most_at_once(events for run_id, events in happened.items() if run_id in of_kind) <= EVALUATIONS
