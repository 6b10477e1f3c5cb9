"""One ``testbench up`` on a storage of Dagster, whatever the host; daemons started otherwise are told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.defs import postgres, serving
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.postgres import POSTGRES_ENV
from testbench_dagster.defs.serving import alone_on_storage
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.servers import PostgresServer

HOLD = """
import sys
from testbench_dagster.config import load_config
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.serving import alone_on_storage
from testbench_dagster.stages.workspace import Workspace
config = load_config(sys.argv[1])
with Workspace(config) as opened, opened_instance(config) as instance:
    with alone_on_storage(opened.documents, instance, print):
        print("in", flush=True)
        input()
"""


@pytest.fixture
def workspace(open_workspace: Callable[..., Workspace]) -> Workspace:
    return open_workspace({"address": "a"})


@pytest.fixture
def instance(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    with opened_instance(workspace.config) as made:
        yield made


@pytest.mark.slow
def test_the_second_is_refused_until_the_first_is_killed(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    command = [sys.executable, "-c", HOLD, str(workspace.config.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with (
            pytest.raises(TestbenchError, match=f"already: process {first.pid} on ") as told,
            alone_on_storage(workspace.documents, instance, print),
        ):
            pytest.fail("two at a time")
        assert "\n" not in str(told.value)
        first.kill()
        first.wait()
    with alone_on_storage(workspace.documents, instance, print):
        assert typed.count(workspace.documents, HeartbeatRecord) == 1
    assert typed.count(workspace.documents, HeartbeatRecord) == 0


def test_one_on_another_host_is_refused_while_it_beats(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    with alone_on_storage(workspace.documents, instance, print):
        (own,) = typed.find(workspace.documents, HeartbeatRecord)
    other = replace(own, host="elsewhere/boot", pid=77, expires_at=datetime.now(UTC) + timedelta(seconds=20))
    typed.put_new(workspace.documents, HeartbeatRecord, [other])
    with (
        pytest.raises(TestbenchError, match="already: process 77 on elsewhere; use that one, or end it"),
        alone_on_storage(workspace.documents, instance, print),
    ):
        pytest.fail("two at a time")
    typed.purge(workspace.documents, HeartbeatRecord, {"_id": other.id})
    gone = replace(other, expires_at=datetime.now(UTC) - timedelta(seconds=20))
    typed.put_new(workspace.documents, HeartbeatRecord, [gone])
    with alone_on_storage(workspace.documents, instance, print):
        pass


@pytest.mark.slow
def test_another_storage_is_served_beside(
    workspace: Workspace, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with (
        dg.instance_for_test(temp_dir=str(tmp_path)) as other,
        alone_on_storage(workspace.documents, instance, print),
        alone_on_storage(workspace.documents, other, print),
    ):
        assert typed.count(workspace.documents, HeartbeatRecord) == 2


@pytest.mark.slow
def test_a_daemon_that_somebody_started_beside_is_told_once(
    workspace: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_LOOK_S", 0.02)
    monkeypatch.setattr(serving, "_SETTLED_S", 0.5)
    said: list[str] = []

    def beats(*daemons: str) -> None:
        """For a while these overwrite each other's heartbeats, as daemons do."""
        for _ in range(30):
            for daemon in daemons:
                instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", daemon, None))
                time.sleep(0.04)

    with alone_on_storage(workspace.documents, instance, said.append):
        beats("ours")
        assert said == []
        beats("ours", "theirs")
    assert len(said) == 1 and "two work on the same storage" in said[0]


@pytest.mark.slow
def test_a_heartbeat_that_was_lost_is_taken_up_again(
    workspace: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_LOOK_S", 0.02)
    monkeypatch.setattr(serving.Heartbeat.__init__, "__defaults__", (1.0,))
    with alone_on_storage(workspace.documents, instance, print):
        (first,) = typed.find(workspace.documents, HeartbeatRecord)
        typed.purge(workspace.documents, HeartbeatRecord, {"_id": first.id})
        give_up = time.monotonic() + 30
        while not typed.count(workspace.documents, HeartbeatRecord, {"_id": first.id}):
            assert time.monotonic() < give_up
            time.sleep(0.05)


@pytest.mark.slow
def test_a_storage_that_is_away_is_told_once_each_time(
    open_workspace: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_LOOK_S", 0.05)
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.3)
    said: list[str] = []

    def until(n: int) -> None:
        give_up = time.monotonic() + 60
        while len(said) < n:
            assert time.monotonic() < give_up, said
            time.sleep(0.05)

    workspace = open_workspace({"address": "a"})
    with server_or_skip(PostgresServer()) as server:
        monkeypatch.setenv(POSTGRES_ENV, server.uri)
        with (
            opened_instance(workspace.config) as made,
            alone_on_storage(workspace.documents, made, said.append),
        ):
            for outage in (1, 2):
                server.stop()
                until(outage)
                time.sleep(1)
                server.start()
                while True:
                    with contextlib.suppress(StoreError):
                        made.get_daemon_heartbeats()
                        break
                time.sleep(1)
    assert len(said) == 2
    assert all("went away: " in one and one.endswith("the daemon goes on by itself") for one in said)
