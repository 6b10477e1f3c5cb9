"""What a check tells of Dagster's storage, its schema and its daemon."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from testbench_dagster.config import Config, load_config
from testbench_dagster.core.finding import Finding
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.postgres import POSTGRES_ENV
from testbench_dagster.defs.storage_findings import storage_findings


def configured(tmp_path: Path, **blocks: Any) -> Config:
    path = tmp_path / "testbench.yaml"
    settings = {"tasks": [{"name": "starter_logic"}], "suppliers": [], **blocks}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_config(path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def used(request: pytest.FixtureRequest, config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """An installation whose storage was made."""
    monkeypatch.delenv(POSTGRES_ENV, raising=False)
    if request.param == "postgresql":
        monkeypatch.setenv(POSTGRES_ENV, request.getfixturevalue("postgres_database_uri"))
    with opened_instance(config):
        pass
    return config


def beat(config: Config, *, age_s: float = 0.0, daemon: str = "one", error: str = "", only: str = "") -> None:
    """Have a daemon's threads, or one of them, say that they live."""
    errors = [SerializableErrorInfo(error, [], None)] if error else None
    with opened_instance(config) as instance:
        for kind in [only] if only else instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age_s, kind, daemon, errors))


def found(config: Config) -> dict[str, Finding]:
    return {finding.what: finding for finding in storage_findings(config)}


def test_nothing_is_made_where_there_is_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POSTGRES_ENV, raising=False)
    (finding,) = storage_findings(config)
    assert finding.ok and "made by the first run" in finding.detail
    assert not (config.home / "dagster").exists()


def test_who_only_uses_the_command_line_is_not_warned(used: Config) -> None:
    assert all(finding.ok for finding in storage_findings(used))
    assert "none has run yet" in found(used)["Dagster's daemon"].detail


def test_a_daemon_that_beats_is_fine_and_one_that_stopped_is_a_note(used: Config) -> None:
    beat(used)
    assert found(used)["Dagster's daemon"].detail.startswith("heard of ")
    beat(used, age_s=7200)
    finding = found(used)["Dagster's daemon"]
    assert finding.warning and not finding.failed
    assert finding.detail.startswith("none has been heard of for 2 h ")
    assert ": sensors, schedules and backfills wait; `testbench up` starts one" in finding.detail
    beat(used)
    beat(used, age_s=7200, only="SENSOR")
    assert "its threads SENSOR have not been heard of" in found(used)["Dagster's daemon"].detail
    beat(used, error="OSError: no space\nmore", only="SENSOR")
    finding = found(used)["Dagster's daemon"]
    assert finding.warning and "its sensor thread failed lately: OSError: no space;" in finding.detail


def test_nobody_waits_for_a_daemon_where_all_is_off(used: Config, tmp_path: Path) -> None:
    beat(used, age_s=7200)
    names = [name for name, field in type(used.settings.automation).model_fields.items() if "env" not in name]
    off = configured(tmp_path, automation={name: {"enabled": False} for name in names})
    finding = found(off)["Dagster's daemon"]
    assert finding.ok and "no sensor and no schedule is on" in finding.detail


def test_what_launches_pods_is_not_made_where_no_pod_is(used: Config) -> None:
    """As in the pod of the code server, which has no token of its cluster."""
    pytest.importorskip("dagster_k8s", reason="the extra k8s is not installed")
    path = used.home / "dagster" / "dagster.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = {
        "service_account_name": "testbench",
        "job_image": "testbench-dagster",
        "instance_config_map": "testbench-instance",
        "dagster_home": str(path.parent),
        "load_incluster_config": True,
    }
    launcher = {"module": "dagster_k8s.launcher", "class": "K8sRunLauncher", "config": config}
    path.write_text(yaml.safe_dump({**settings, "run_launcher": launcher}), encoding="utf-8")
    told = found(used)
    assert told.keys() == {"Dagster's storage", "Dagster's daemon"}
    assert all(finding.ok for finding in told.values())


def test_two_daemons_on_one_storage_are_told(used: Config) -> None:
    beat(used, daemon="one")
    beat(used, daemon="two", only="SENSOR", age_s=10)
    finding = found(used)["Dagster's daemon"]
    assert finding.warning and "two work on the same storage" in finding.detail
    beat(used, daemon="two", only="SENSOR", age_s=300)  # the one before, whose place was taken
    assert "two work" not in found(used)["Dagster's daemon"].detail


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("7e2f3204cf8e", "run `dagster instance migrate`"),
        ("ffffffffffff", "install the version that made it"),
    ],
)
def test_another_schema_says_what_to_do(
    used: Config, revision: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_instance(used) as instance:
        change = f"UPDATE alembic_version SET version_num = '{revision}'"
        runs = used.home / "dagster" / "storage" / "history" / "runs.db"
        if runs.exists():
            with closing(sqlite3.connect(runs)) as file, file:
                file.execute(change)
        else:
            with instance.event_log_storage.index_connection() as connection:
                connection.execute(sa.text(change))
    (finding,) = storage_findings(used)
    assert finding.failed and words in finding.detail and dg.__version__ in finding.detail
    assert revision in finding.detail
