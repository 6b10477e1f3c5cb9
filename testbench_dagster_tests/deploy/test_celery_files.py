"""The files of deploy/celery: what they name exists, what must agree does, and systemd takes the units."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

import testbench_dagster
from testbench_dagster.defs.celery_launcher import TestbenchCeleryLauncher
from testbench_dagster.defs.celery_queue import CeleryRunQueue
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster_tests.deploy import units

PACKAGE = Path(testbench_dagster.__file__).parent
DAGSTER = yaml.safe_load((units.DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
#: What must be the same for units that share a user, an environment and a way to come back.
SHARED = ("User", "EnvironmentFile", "WorkingDirectory", "Restart", "StateDirectory", "NoNewPrivileges")


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DagsterInstance:
    """Dagster's instance as the files make it, on SQLite."""
    environment = units.install(tmp_path, {"DAGSTER_POSTGRES_URL": ""})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return DagsterInstance.get()


def test_dagster_takes_the_settings(instance: DagsterInstance) -> None:
    launcher, queue = instance.run_launcher, instance.run_coordinator
    assert isinstance(launcher, TestbenchCeleryLauncher)
    assert isinstance(queue, CeleryRunQueue)
    assert launcher.broker == launcher.backend == os.environ["TESTBENCH_REDIS_URL"]
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    assert limits.max_concurrent_runs == int(os.environ["TESTBENCH_RUN_SLOTS"])
    assert {(limit["value"], limit["limit"]) for limit in limits.tag_concurrency_limits} == {
        ("service_probes", 1),
        ("evaluation", int(os.environ["TESTBENCH_EVALUATION_SLOTS"])),
    }
    assert not launcher.supports_resume_run


def test_times_are_in_their_order() -> None:
    celery, monitor = DAGSTER["run_launcher"]["config"]["config_source"], DAGSTER["run_monitoring"]
    assert celery["broker_transport_options"]["visibility_timeout"] > monitor["max_runtime_seconds"]
    assert monitor["start_timeout_seconds"] > INSTANCE_SETTINGS["run_monitoring"]["start_timeout_seconds"]
    assert celery["worker_disable_prefetch"] is True
    assert celery["worker_max_tasks_per_child"] == 1
    (grace,) = units.settings("testbench-worker")["Service.TimeoutStopSec"]
    assert int(grace) > monitor["cancel_timeout_seconds"]


def test_what_does_not_concern_several_hosts_is_as_on_one() -> None:
    same = set(INSTANCE_SETTINGS) - {"concurrency", "run_monitoring", "run_coordinator"}
    assert {name: DAGSTER[name] for name in same} == {name: INSTANCE_SETTINGS[name] for name in same}
    assert DAGSTER["concurrency"]["pools"] == INSTANCE_SETTINGS["concurrency"]["pools"]


def test_variables_are_set_and_read() -> None:
    named: set[str] = set()
    for path in units.DEPLOY.glob("*.*"):
        if path.suffix in (".yaml", ".service"):
            found = re.findall(r"\$\{(\w+)\}|\{env: (\w+)\}", path.read_text(encoding="utf-8"))
            named |= {name for pair in found for name in pair if name}
    environment = set(units.environment_file())
    assert named <= environment
    read = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert {name for name in environment - named if name not in read} == set(), "nothing reads it"


@pytest.mark.parametrize("unit", units.UNITS)
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    found = units.settings(unit)
    worker = units.settings("testbench-worker")
    assert {key: found[f"Service.{key}"] for key in SHARED} == {
        key: worker[f"Service.{key}"] for key in SHARED
    }
    (program, *_) = units.command(unit, tmp_path, units.environment_file())
    assert os.access(program, os.X_OK)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze, which would read the unit as systemd does")
    text = (units.DEPLOY / f"{unit}.service").read_text(encoding="utf-8")
    copy = tmp_path / f"{unit}.service"
    copy.write_text(text.replace(units.PROGRAMS, str(Path(sys.executable).parent)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_workers_main_process_gets_sigterm() -> None:
    """Its children would end their runs; and one that is killed for its memory leaves the others alone."""
    worker = units.settings("testbench-worker")
    assert worker["Service.KillMode"] == ["mixed"]
    assert worker["Service.OOMPolicy"] == ["continue"]
    # what bubblewrap and Landlock need for tasks that run code
    assert not {"RestrictNamespaces", "ProtectKernelTunables", "ProtectProc", "SystemCallFilter"} & {
        key.partition(".")[2] for key in worker
    }
