"""Dagster's storage goes away while a run relays: it goes on, or ends with one line; no relay is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import StoreError
from testbench_dagster.defs import postgres
from testbench_dagster.defs.local_evaluation import RunReport
from testbench_dagster.defs.postgres import POSTGRES_ENV
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.endpoints import Supplier
from testbench_dagster_tests.servers import PostgresServer

pytestmark = pytest.mark.slow(minutes=1)

DOCS = 30


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    with server_or_skip(PostgresServer()) as made:
        monkeypatch.setenv(POSTGRES_ENV, made.uri)
        yield made


@pytest.fixture
def workspace(supplier: Supplier, tmp_path: Path) -> Iterator[Workspace]:
    settings = {
        "tasks": [{"name": "starter_logic", "samples": DOCS}],
        "suppliers": [{"address": "a", "base_url": supplier.url("slowly"), "model": "m", "max_in_flight": 2}],
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as opened:
        yield opened


class Running:
    """A run in a thread; :meth:`until_it_relays` returns while it does."""

    def __init__(self, workspace: Workspace) -> None:
        self._relays = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._report = self._pool.submit(Testbench(workspace).run, on_progress=lambda _: self._relays.set())

    def until_it_relays(self) -> None:
        while not self._relays.wait(0.1):
            assert not self._report.done(), self._report.exception()

    def report(self) -> RunReport:
        try:
            return self._report.result()
        finally:
            self._pool.shutdown()


def test_an_outage_of_twenty_seconds_is_sat_out(
    workspace: Workspace, server: PostgresServer, supplier: Supplier
) -> None:
    running = Running(workspace)
    running.until_it_relays()
    server.stop()
    time.sleep(20)
    server.start()
    report = running.report()
    asked = supplier.calls["slowly"]
    assert report.sent == asked == workspace.documents.count(ATTEMPTS)
    assert report.final == DOCS == workspace.documents.count(SCORES)
    assert Testbench(workspace).run().sent == 0, "nothing is asked twice"


def test_one_without_end_ends_the_run_in_a_line_and_the_next_goes_on(
    workspace: Workspace, server: PostgresServer, supplier: Supplier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_S", 3.0)
    running = Running(workspace)
    running.until_it_relays()
    server.stop()
    with pytest.raises(StoreError, match=r"Dagster's storage .* went away: .* not asked twice$") as told:
        running.report()
    assert "\n" not in str(told.value)
    asked = supplier.calls["slowly"]
    assert asked == workspace.documents.count(ATTEMPTS) > 0, "what was relayed is stored"
    server.start()
    report = Testbench(workspace).run()
    assert supplier.calls["slowly"] == workspace.documents.count(ATTEMPTS) == asked + report.sent
    assert workspace.documents.count(SCORES) == DOCS
