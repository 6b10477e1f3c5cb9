"""SIGKILL in the middle of `testbench run` under a budget of money, and the same run again: the budget holds.

Looked at all the time from outside: what the stored attempts cost, and what the ledger has granted.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger, next_period, period_start
from testbench_dagster.core.price import Price
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.relays.money import money_account
from testbench_dagster.stages.plan.remaining import money_left
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.tasks.layouts import REPOSITORY
from testbench_dagster_tests.tasks.signatures.simulated import installed, prepared, served

pytestmark = pytest.mark.slow(minutes=9)

DOCS, KILLS, IN_FLIGHT = 50, 2, 3
TASKS = ("starter_units", "starter_logic", "starter_reading")
PRICE = {"prompt": 1000.0, "completion": 2000.0}
NAMES = ("one", "two", "three")
CAP = 24.0  # of some 40 that all docs cost
WORST = 1.8  # what no relay of these tasks can cost more than: some 1,200 bytes of prompt, and the template
CHUNK = CAP / 8
SEED = os.environ.get("TESTBENCH_TEST_SEED") or str(random.SystemRandom().getrandbits(32))


class Books:
    """What is stored and granted, read again and again; fails as soon as it is more than the budget."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.cap = int(CAP * 1e6)
        self.looks = 0

    def look(self) -> tuple[int, int]:
        """What the stored attempts cost and what is granted, in millionths: read in this order, as the
        second never is less than the first was."""
        price, documents = Price(**PRICE), self._workspace.documents
        stored = sum(
            price.micros_of(one.prompt_tokens or 0, one.completion_tokens or 0)
            for one in typed.find(documents, AttemptRecord)
        )
        today = period_start("day", datetime.now(UTC))
        granted = BudgetLedger(documents).spent(money_account("simulation"), today) or 0
        assert stored <= granted <= self.cap
        self.looks += 1
        return stored, granted


@pytest.mark.parametrize("store", ["sqlite", "mongo"])
def test_no_kill_makes_a_day_cost_more_than_its_budget(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    left = next_period("day", now) - now
    if left < timedelta(minutes=6):  # a new day would renew the budget in the middle of it
        time.sleep(left.total_seconds() + 1)
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    if store == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    samples = {"min": DOCS, "max": DOCS, "half_width": None}
    personas = [Persona(name, Backend(name, 0.7, latency_ms=50)) for name in NAMES]
    with (
        served(personas) as net,
        installed(
            tmp_path,
            net,
            [{"name": name, "samples": samples} for name in TASKS],
            limits={name: {"price": PRICE} for name in NAMES},  # type: ignore[misc]
            budget={"money_per_day": CAP},
            relays={"max_in_flight": IN_FLIGHT},
        ) as workspace,
    ):
        prepared(workspace)
        books = Books(workspace)
        for kill in range(KILLS):
            before, _ = books.look()
            process = run(tmp_path)
            try:
                target = before + rng.randint(1, max(1, (books.cap - before) // 6))
                while process.poll() is None and books.look()[0] < target:
                    time.sleep(0.05)
                if process.poll() is None:
                    process.kill()
            finally:
                process.kill()
                process.communicate()
            print(f"kill {kill}: {books.look()}")
        process = run(tmp_path)
        while process.poll() is None:
            books.look()
            time.sleep(0.05)
        told = process.communicate()[0]
        stored, granted = books.look()
        print(f"end: {stored}, {granted} of {books.cap}; {books.looks} looks")
        assert process.returncode == 0, told
        assert "the budget of money of simulation ended it: " in told
        assert "which is ours and counts against nobody" in told
        money = money_left(workspace, "simulation", datetime.now(UTC))
        assert money is not None and money.spent == granted
        # each kill loses what was in flight and a chunk at most; the end is less than a relay can cost
        assert stored / 1e6 >= CAP - KILLS * (IN_FLIGHT * WORST + CHUNK) - WORST
        assert books.looks > 50
        # another run has next to nothing to spend: what is left may reach to a shorter prompt
        sent = sum(supplier.requests for supplier in net.suppliers.values())
        process = run(tmp_path)
        told = process.communicate()[0]
        assert "the budget of money of simulation ended it: " in told
        assert sum(supplier.requests for supplier in net.suppliers.values()) <= sent + 2 * len(NAMES)
        books.look()


def run(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "testbench_dagster.cli", "-c", str(folder / "testbench.yaml"), "run"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
