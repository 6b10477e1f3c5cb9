"""What ends a run before its time: a person who cancels it, a kill, a mistake; and who is told.

One platform for all of it, in order. The webhook is a server in this process.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.processes import is_running
from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster_tests.operations.evidence import (
    assert_one_at_a_time,
    assert_scored_once,
    docs_scored,
    lost_requests,
)
from testbench_dagster_tests.operations.harness import INTERVAL_S, Platform, platform, wait_until
from testbench_dagster_tests.operations.servers import both_stores

pytestmark = pytest.mark.slow(minutes=4)

SEED = os.environ.get("TESTBENCH_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
SUPPLIERS_N, DOCS, MORE_DOCS = 4, 60, 120
FROM_FILE, BUILT_IN = "starter_logic", "starter_units"
IN_FLIGHT = 4
RELAYING_WITHIN_S, COMPLETE_WITHIN_S = 600.0, 600.0
CANCELED_WITHIN_S = 240.0
ALERTED_WITHIN_S = 300.0  # the daemon looks for failed runs every 30 s
PARENT = "dagster/parent_run_id"
SECRETS = {
    "ALERT_HOOK_TOKEN": "hook-token-5f21",
    "SUPPLIERS_KEY": "sk-suppliers-77aa",
    "ROSTER_TOKEN": "tok-9c3e",
}


@dataclass
class Hook:
    """A webhook on loopback and what it was sent."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    def about(self, run_id: str) -> list[dict[str, Any]]:
        return [post for post in self.posts if post.get("run_id") == run_id]


@contextmanager
def webhook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            hook.raw.append(f"{self.headers}{body}")
            hook.posts.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook.url = f"http://127.0.0.1:{server.server_port}/hooks/{SECRETS['ALERT_HOOK_TOKEN']}"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Running:
    platform: Platform
    hook: Hook
    secrets: list[str]

    def configure(self, docs: int) -> None:
        made = self.platform
        samples = {"min": docs, "max": docs, "half_width": None}
        files = {split: f"logic_{split}.jsonl" for split in ("train", "test")}
        made.configure(
            supplier_sources=[
                {
                    "url": f"{made.localnet.url}/roster",
                    "name": "localnet",
                    "allow_private_networks": True,
                    "api_key_env": "SUPPLIERS_KEY",
                    "token_env": "ROSTER_TOKEN",
                }
            ],
            tasks=[
                {"name": FROM_FILE, "samples": samples, "data": files},
                {"name": BUILT_IN, "samples": samples},
            ],
            sampling={"window": 240},
            relays={"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": IN_FLIGHT},
            automation={
                **{
                    name: {"every_s": INTERVAL_S}
                    for name in ("new_suppliers", "stale_catalog", "stale_scores", "lost_runs")
                },
                "alert_webhook_env": "ALERT_HOOK",
            },
        )

    def relaying(self) -> str:
        """Id of a run that is relaying now, waited for."""
        made = self.platform

        def look() -> str | None:
            in_flight = any(s["in_flight"] for s in made.localnet.stats().values())
            held = set(made.leases().values()) & set(made.workers())
            return min(held) if held and in_flight else None

        return str(wait_until("relays", look, RELAYING_WITHIN_S, every_s=0.05))

    def complete(self, docs: int) -> bool:
        scored = docs_scored(self.platform)
        return len(scored) == SUPPLIERS_N and set(scored.values()) == {2 * docs}

    def run(self, run_id: str) -> dict[str, Any]:
        return next(run for run in self.platform.runs() if run["runId"] == run_id)

    def repeats(self, run_id: str) -> list[str]:
        """Runs that Dagster's run retries started for a run."""
        return [run["runId"] for run in self.platform.runs() if run["tags"].get(PARENT) == run_id]


# passes with "servers" too; the leases that cancellation is about are tested on both in ../coordination
@pytest.fixture(scope="module", params=["embedded"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    for split in ("train", "test"):
        lines = [json.dumps(doc) for doc in read_docs(FROM_FILE, split)]
        (folder / f"logic_{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with both_stores(request) as databases, webhook() as hook:
        secrets = {**SECRETS, "ALERT_HOOK": hook.url, **databases}
        with platform(folder, SUPPLIERS_N, secrets, latency_ms=80) as made:
            running = Running(made, hook, list(secrets.values()))
            running.configure(DOCS)
            made.start()
            yield running


def test_a_canceled_run_ends_at_once_and_the_next_goes_on(running: Running) -> None:
    made = running.platform
    print(f"TESTBENCH_TEST_SEED={SEED}")
    run_id = running.relaying()
    time.sleep(random.Random(SEED).uniform(0, 3))
    pid = made.workers()[run_id]
    asked = time.monotonic()
    made.terminate(run_id)
    wait_until("the end", lambda: running.run(run_id)["status"] == "CANCELED", CANCELED_WITHIN_S, every_s=0.1)
    print(f"canceled after {time.monotonic() - asked:.1f} s")
    assert run_id not in made.leases().values(), "the suppliers are not free yet"
    assert run_id not in made.workers()
    wait_until("the process's end", lambda: not is_running(pid, None), CANCELED_WITHIN_S)
    print(f"process gone after {time.monotonic() - asked:.1f} s")

    wait_until("the rest", lambda: running.complete(DOCS), COMPLETE_WITHIN_S)
    lost = lost_requests(made)
    # what was in flight is cancelled and leaves no attempt; all that was answered is stored
    print(f"lost: {lost}")
    assert len(lost) <= IN_FLIGHT
    received = sum(s["requests"] for s in made.localnet.stats().values())
    assert received == SUPPLIERS_N * 2 * DOCS + len(lost)
    assert_scored_once(made)
    assert assert_one_at_a_time(made) > SUPPLIERS_N
    assert running.repeats(run_id) == []
    assert running.hook.posts == []


def test_a_killed_run_is_repeated_once_and_told_of(running: Running) -> None:
    made = running.platform
    running.configure(MORE_DOCS)
    killed = running.relaying()
    made.kill([made.workers()[killed]])
    at = time.monotonic()
    wait_until("the failure", lambda: running.run(killed)["status"] == "FAILURE", RELAYING_WITHIN_S)
    print(f"failed {time.monotonic() - at:.1f} s after the kill")
    (again,) = wait_until("its repetition", lambda: running.repeats(killed), RELAYING_WITHIN_S)
    print(f"repeated {time.monotonic() - at:.1f} s after the kill")
    assert running.run(again)["tags"]["dagster/root_run_id"] == killed
    pid = wait_until("its process", lambda: made.workers().get(again), RELAYING_WITHIN_S, every_s=0.02)
    made.kill([pid])
    wait_until("the second failure", lambda: running.run(again)["status"] == "FAILURE", RELAYING_WITHIN_S)

    wait_until("the rest", lambda: running.complete(MORE_DOCS), COMPLETE_WITHIN_S)
    print(f"complete {time.monotonic() - at:.1f} s after the first kill")
    assert running.repeats(killed) == [again]
    assert running.repeats(again) == []
    assert_scored_once(made)
    assert_one_at_a_time(made)
    for run_id in (killed, again):
        wait_until("an alert", partial(running.hook.about, run_id), ALERTED_WITHIN_S)
        (alert,) = running.hook.about(run_id)
        assert alert["job"] == "evaluate_suppliers"
        assert alert["partitions"] == "sim-01@simulation...sim-04@simulation"
        assert f"{run_id} was terminated by signal 9" in alert["message"], alert


def test_a_broken_file_sets_its_task_aside_and_fails_no_run(running: Running) -> None:
    made = running.platform
    failures = {run["runId"] for run in made.runs("FAILURE")}
    broken = made.folder / "logic_test.jsonl"
    broken.write_text('{"question": "is this a doc?", "answer":', encoding="utf-8")

    def aside() -> list[SetAsideRecord]:
        with made.documents() as documents:
            return list(typed.find(documents, SetAsideRecord, {}))

    (record,) = wait_until("a task that is set aside", aside, RELAYING_WITHIN_S)
    assert record.id == FROM_FILE and "logic_test.jsonl" in record.reason
    time.sleep(2 * INTERVAL_S)
    assert {run["runId"] for run in made.runs("FAILURE")} == failures
    told = wait_until(
        "an alert", lambda: [p for p in running.hook.posts if "run_id" not in p], ALERTED_WITHIN_S
    )
    assert [(post["task"], post["reason"]) for post in told] == [(FROM_FILE, record.reason)]
    assert {post["run_id"] for post in running.hook.posts if "run_id" in post} == failures
    for raw in running.hook.raw:
        assert not [secret for secret in running.secrets if secret in raw]
    # the data as it was registered before goes on counting
    assert running.complete(MORE_DOCS)
