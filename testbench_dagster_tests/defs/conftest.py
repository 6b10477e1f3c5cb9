"""Installations over the simulated network, and one whole materialization that several tests look at."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.defs.local_runs import LocalRuns, dagster_environment
from testbench_dagster.localnet.demo import demo_settings
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.workspace import Workspace

TASKS = ("starter_logic", "starter_units", "starter_choice")


def starter_settings(localnet: LocalnetProcess, n_docs: int = 8) -> dict[str, Any]:
    """The demo's settings with fewer tasks and docs."""
    settings = demo_settings(localnet.roster())
    settings["tasks"] = [
        {"name": name, "samples": {"min": n_docs, "max": n_docs, "half_width": None}} for name in TASKS
    ]
    return settings


@pytest.fixture(scope="session")
def localnet() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=4, latency_ms=1, fail_rate=0.0) as process:
        yield process


@dataclass(frozen=True)
class Materialized:
    """A finished installation and the Dagster instance that recorded its runs."""

    workspace: Workspace
    instance: dg.DagsterInstance
    path: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def materialized(
    localnet: LocalnetProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Materialized]:
    """Four suppliers x three tasks, everything materialized through :class:`LocalRuns`."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(starter_settings(localnet)), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        keys = [s.key for s in workspace.config.settings.suppliers]
        with LocalRuns(workspace) as runs:
            runs.refresh_suppliers()
            runs.refresh_catalog(stale_tasks(workspace, workspace.specs))
            runs.evaluate(keys)
            runs.refresh_summaries()
        environment = dagster_environment(workspace.config)
        with opened_instance(workspace) as instance:
            yield Materialized(workspace, instance, path, environment)


@contextlib.contextmanager
def opened_instance(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """The instance :class:`LocalRuns` records in; the storage finds its folder by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", dagster_environment(workspace.config)["DAGSTER_HOME"])
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


class Webhook(BaseHTTPRequestHandler):
    """Takes alerts; answers with what the server was told to."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def webhook() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Webhook)
    server.taken, server.answer = [], 204  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
