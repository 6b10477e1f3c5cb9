"""Dagster's PostgreSQL: what keeps it from being used is one line, and an outage is sat out for a while."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
import sqlalchemy as sa
import yaml

from testbench_dagster.config import Config, load_config
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.defs import postgres
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.postgres import POSTGRES_ENV
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.servers import PostgresServer, database_uri, free_port

SETTINGS = {
    "tasks": [{"name": "starter_logic", "samples": 4}],
    "suppliers": [{"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return load_config(path)


def told(config: Config, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What somebody reads who begins with this URL."""
    monkeypatch.setenv(POSTGRES_ENV, url)
    with pytest.raises(ConfigError) as raised, opened_instance(config):
        pytest.fail("opened")
    text = str(raised.value)
    assert "\n" not in text and (urlsplit(url).password or "?") not in text
    return text


def test_a_server_that_is_not_there_is_told_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    text = told(config, f"postgresql://tester:secret@127.0.0.1:{port}/d", monkeypatch)
    assert text.startswith(f"Dagster's storage postgresql://tester:***@127.0.0.1:{port}/d cannot be reached")
    assert "Connection refused" in text and text.endswith("(without it Dagster stores in SQLite)")


def test_a_wrong_password_and_a_missing_database_say_what_to_correct(
    config: Config, monkeypatch: pytest.MonkeyPatch, postgres_uri: str
) -> None:
    parts = urlsplit(postgres_uri)
    login = f"{parts.username}:guessed@{parts.hostname}:{parts.port}"
    text = told(config, urlunsplit(parts._replace(netloc=login)), monkeypatch)
    assert "authentication failed" in text and "correct user and password in DAGSTER_POSTGRES_URL" in text
    text = told(config, database_uri(postgres_uri, "tb_nowhere"), monkeypatch)
    assert 'database "tb_nowhere" does not exist; create it (createdb tb_nowhere)' in text


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:secret@h/d", "postgresql://u:secret@h:port/d"])
def test_a_url_of_no_postgresql_says_how_to_write_one(
    config: Config, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(POSTGRES_ENV, url)
    with pytest.raises(ConfigError, match="not usable; write postgresql:") as raised, opened_instance(config):
        pytest.fail("opened")
    assert "secret" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["run"], ["up"], ["backfill", "--all"], ["check", "--no-suppliers"]])
def test_commands_end_with_one_line(config: Config, command: list[str]) -> None:
    port = free_port()
    environment = {**os.environ, POSTGRES_ENV: f"postgresql://tester:secret@127.0.0.1:{port}/d"}
    done = subprocess.run(
        [sys.executable, "-m", "testbench_dagster.cli", "-c", str(config.path), *command],
        env=environment,
        cwd=config.path.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "secret" not in said
    if command[0] == "check":
        assert done.returncode == 1
        (line,) = [line for line in said.splitlines() if "Dagster's storage" in line]
        assert "Connection refused" in line and "ok" not in line.split()[0]
        return
    lines = done.stderr.splitlines()
    assert [line for line in lines if "Dagster's storage" in line] == lines[-1:], lines
    assert done.returncode == 2


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    with server_or_skip(PostgresServer()) as made:
        monkeypatch.setenv(POSTGRES_ENV, made.uri)
        yield made


@pytest.mark.slow
def test_an_outage_is_sat_out_and_one_without_end_is_told_in_a_line(
    config: Config,
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with opened_instance(config) as instance:
        instance.add_dynamic_partitions("supplier", ["a"])
        server.stop()
        with ThreadPoolExecutor(1) as other:
            found = other.submit(instance.get_dynamic_partitions, "supplier")
            time.sleep(15)  # longer than Dagster itself would try
            assert not found.done()
            server.start()
            assert found.result() == ["a"]
        messages = [record.getMessage() for record in caplog.records]
        assert len([m for m in messages if "is away" in m and "waiting up to 60 s" in m]) == 1
        assert len([m for m in messages if "is back after" in m]) == 1
        assert not [m for m in messages if "Retrying" in m]

        monkeypatch.setattr(postgres, "PATIENCE_S", 3.0)
        server.stop()
        began = time.monotonic()
        for _ in range(3):  # the patience is with the outage, not with each that meets it
            with pytest.raises(StoreError, match=r"went away: .* \(waited 3 s\); start it again") as raised:
                instance.get_dynamic_partitions("supplier")
            assert "\n" not in str(raised.value)
        assert time.monotonic() - began < 30
        server.start()
        assert instance.get_dynamic_partitions("supplier") == ["a"]


@pytest.mark.slow
def test_a_connection_that_breaks_in_a_statement_is_told_in_a_line(
    config: Config, server: PostgresServer
) -> None:
    with opened_instance(config) as instance:
        storage = instance.event_log_storage
        stopping = threading.Timer(1.0, server.stop)
        with storage.index_connection() as connection:
            stopping.start()
            with pytest.raises(StoreError, match=r"Dagster's storage .* went away: ") as raised:
                connection.execute(sa.text("SELECT pg_sleep(60)"))
        stopping.join()
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_server_that_is_full_is_no_server_that_is_away(
    config: Config, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_S", 1.0)
    others = []
    with opened_instance(config) as instance:
        instance.add_dynamic_partitions("supplier", ["a"])
        try:
            with contextlib.suppress(psycopg2.OperationalError):
                while len(others) < 1_000:
                    others.append(psycopg2.connect(server.uri))
            assert len(others) < 1_000
            assert instance.get_dynamic_partitions("supplier") == ["a"], "the connection that is held"
            storage = instance.event_log_storage
            with (
                storage.index_connection(),
                pytest.raises(StoreError, match=r"takes no more connections: .* raise its max_connections"),
                storage.index_connection(),
            ):
                pytest.fail("there was room")
        finally:
            for other in others:
                other.close()
        assert instance.get_dynamic_partitions("supplier") == ["a"]
