"""MongoDB's primary is killed in the middle of a run: the run waits for the election and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from testbench_dagster.core.records.coordination import BudgetRecord
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.operations.evidence import assert_scored_once, docs_scored, lost_requests
from testbench_dagster_tests.operations.harness import platform, wait_until
from testbench_dagster_tests.servers import replica_set

pytestmark = pytest.mark.slow(minutes=2)

SUPPLIERS_N, DOCS = 3, 30
TASKS = ("starter_logic", "starter_units")
DAY_CAP = 10_000


@pytest.mark.usefixtures("mongo_uri")  # skips where no server can be had
def test_a_primary_killed_in_mid_run_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    (tmp_path / "work").mkdir()
    samples = {"min": DOCS, "max": DOCS, "half_width": None}
    with replica_set(tmp_path / "servers") as members:
        environment = {"TESTBENCH_MONGO_URI": members.uri.replace("/?", "/testbench?")}
        settings = {
            "tasks": [{"name": name, "samples": samples} for name in TASKS],
            "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": 2, "retries": 1},
            "budget": {"relays_per_day": DAY_CAP},
        }
        with platform(tmp_path / "work", SUPPLIERS_N, environment, latency_ms=150, **settings) as made:

            def received() -> int:
                return Counter({a: s["requests"] for a, s in made.localnet.stats().items()}).total()

            command = [
                sys.executable,
                "-m",
                "testbench_dagster.cli",
                "-c",
                str(made.config_path),
                "run",
                "-q",
            ]
            process = subprocess.Popen(
                command,
                cwd=made.folder,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                total = SUPPLIERS_N * DOCS * len(TASKS)
                wait_until(
                    "the middle of the run",
                    lambda: received() > total // 4 or process.poll() is not None,
                    240,
                    every_s=0.02,
                )
                assert process.poll() is None and received() < total * 3 // 4
                members.kill(members.primary())
                said, _ = process.communicate(timeout=240)
            finally:
                process.kill()
                process.wait()
            assert process.returncode == 0, said

            assert lost_requests(made) == [], "each request that a supplier received is stored once"
            assert docs_scored(made) == {
                f"{address}@simulation": DOCS * len(TASKS) for address in made.localnet.stats()
            }
            assert_scored_once(made)
            with made.documents() as documents:
                sent = documents.count(ATTEMPTS)
                budgets = {b.account: b.granted for b in typed.find(documents, BudgetRecord)}
            assert budgets, budgets
            assert all(granted == sent for granted in budgets.values()), (budgets, sent)
