"""Dagster's own storage: one dagster.yaml, SQLite or PostgreSQL by the environment."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml

from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.postgres import POSTGRES_ENV, psycopg2_url
from testbench_dagster.defs.storage import default_base_dir


@dg.asset
def probe_asset() -> None:
    """Something to record."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def used_and_reopened(instance: dg.DagsterInstance) -> None:
    """Record a run, and find it again through the instance's reference, as child processes do."""
    instance.add_dynamic_partitions("supplier", ["a@external", "b@external"])
    assert dg.materialize([probe_asset], instance=instance).success
    with dg.DagsterInstance.from_ref(instance.get_ref()) as again:
        assert again.get_dynamic_partitions("supplier") == ["a@external", "b@external"]
        assert len(again.get_runs()) == 1
        event = again.get_latest_materialization_event(dg.AssetKey("probe_asset"))
        assert event is not None
        assert event.run_id == again.get_runs()[0].run_id


def test_sqlite_without_a_url(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(POSTGRES_ENV, raising=False)
    with dg.DagsterInstance.get() as instance:
        used_and_reopened(instance)
        assert type(instance.event_log_storage).__name__ == "HeldEventLog"
    assert (home / "storage" / "history" / "runs.db").is_file()


def test_postgresql_with_a_url(
    home: Path, monkeypatch: pytest.MonkeyPatch, postgres_database_uri: str
) -> None:
    monkeypatch.setenv(POSTGRES_ENV, postgres_database_uri)
    with dg.DagsterInstance.get() as instance:
        used_and_reopened(instance)
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        shown = json.dumps(instance.get_ref().to_dict()) + instance.info_str()
    password = urlsplit(postgres_database_uri).password
    assert password
    assert password not in shown, "instance data is on command lines and in the UI"
    assert "@127.0.0.1" not in shown
    assert not (home / "storage" / "history" / "runs.db").exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_the_driver_is_always_psycopg2(scheme: str) -> None:
    assert psycopg2_url(f"{scheme}://u:p%40@h:5/d?x=1") == "postgresql+psycopg2://u:p%40@h:5/d?x=1"


def test_where_sqlite_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    assert default_base_dir() == tmp_path / ".testbench" / "dagster" / "storage"
    monkeypatch.setenv("TESTBENCH_HOME", "elsewhere")
    assert default_base_dir() == tmp_path / "elsewhere" / "dagster" / "storage"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert default_base_dir() == tmp_path / "home" / "storage"
