"""What only the embedded document store promises."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import open_documents
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.stores.documents.sqlite_tables import index_name, schema_version
from testbench_dagster.stores.documents.values import serving_index, terms
from testbench_dagster.stores.schema import DOCUMENTS_SCHEMA
from testbench_dagster_tests.stores.workers import JOBS, Target, start, write_forever

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def test_created_folders_and_file_are_private(tmp_path):
    store = open_documents(tmp_path / "new" / "home", None)
    assert not (tmp_path / "new").exists()
    store.put_new(JOBS, [{"_id": "a"}])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    assert modes["home"] == 0o700
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    files = {name: mode for name, mode in modes.items() if name != "home"}
    assert set(files.values()) == {0o600}
    assert "documents.sqlite3" in files
    store.close()


def test_existing_modes_are_left_alone(tmp_path):
    tmp_path.chmod(0o755)
    open_documents(tmp_path, None).count(JOBS)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_projections_never_read_bodies(tmp_path):
    store = open_documents(tmp_path, None)
    store.put_new(JOBS, [{"_id": "a", "rank": 1}])
    with sqlite3.connect(tmp_path / "documents.sqlite3") as raw:
        raw.execute("UPDATE jobs SET _body = x'00'")
    assert list(store.find(JOBS, {"rank": 1}, fields=["rank"])) == [{"rank": 1}]
    store.close()


def test_streams_hold_no_transaction_and_little_memory(tmp_path):
    store = open_documents(tmp_path, None)
    blob = b"x" * 1_000_000
    store.put_new(JOBS, ({"_id": str(n), "blob": blob} for n in range(60)))
    stream = store.find(JOBS)
    next(stream)
    with sqlite3.connect(tmp_path / "documents.sqlite3", isolation_level=None) as raw:
        busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0  # an open read transaction would keep the log from being emptied
    frame = stream.gi_frame
    assert len(frame.f_locals["rows"]) <= 10
    assert len(list(stream)) == 59
    store.close()


def test_a_field_of_another_type_is_refused(tmp_path):
    first = open_documents(tmp_path, None)
    first.put_new(JOBS, [{"_id": "a", "colour": "red"}])
    for fields, message in (
        ({**JOBS.fields, "rank": str}, r"jobs\.rank is stored as int and now declared str"),
        ({**JOBS.fields, "colour": int}, "stored document a does not fit"),
    ):
        with pytest.raises(StoreError, match=message):
            open_documents(tmp_path, None).count(replace(JOBS, fields=fields))
    assert first.count(JOBS, {"rank": None}) == 1
    first.close()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "documents.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not a database; move the file away"):
        open_documents(tmp_path, None).count(JOBS)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="TESTBENCH_HOME"):
        open_documents(tmp_path / "file" / "home", None).count(JOBS)


def test_declared_indexes_are_used(tmp_path):
    store = open_documents(tmp_path, None)
    store.put_new(JOBS, [{"_id": "a", "kind": "k", "rank": 1}])
    raw = sqlite3.connect(tmp_path / "documents.sqlite3")
    plan = raw.execute("EXPLAIN QUERY PLAN SELECT _seq FROM jobs AS t WHERE t.kind = 'k' ORDER BY t.rank")
    assert "index_kind__rank" in str(plan.fetchall())
    raw.close()
    store.close()


def test_connections_of_ended_threads_are_closed(tmp_path):
    store = open_documents(tmp_path, None)
    store.put_new(JOBS, [{"_id": "a"}])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        thread = threading.Thread(target=store.count, args=(JOBS,))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    store.close()


@pytest.mark.parametrize("turn", range(3))
def test_a_killed_writer_loses_nothing_it_was_told_and_leaves_no_half_batch(tmp_path, turn):
    log = tmp_path / "acknowledged"
    writer = start(write_forever, Target(str(tmp_path)), str(log), 50)
    while not log.exists() or log.stat().st_size < 100:
        time.sleep(0.01)
    time.sleep(0.05 + 0.037 * turn)
    writer.kill()
    writer.join()
    acknowledged = {int(line) for line in log.read_text().split()}
    store = open_documents(tmp_path, None)
    sizes: dict[int, int] = {}
    for row in store.find(JOBS, fields=["rank"]):
        sizes[row["rank"]] = sizes.get(row["rank"], 0) + 1
    assert set(sizes.values()) == {50}
    assert acknowledged <= set(sizes) <= acknowledged | {max(acknowledged) + 1}
    with sqlite3.connect(tmp_path / "documents.sqlite3") as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


class BegunMeanwhile:
    """A connection to a new file that another process begins between two of its statements."""

    def __init__(self, path):
        self._path, self._connection = path, sqlite3.connect(path)

    def execute(self, sql):
        if "sqlite_master" in sql:
            with contextlib.closing(sqlite3.connect(self._path)) as other:
                other.execute(f"PRAGMA user_version = {DOCUMENTS_SCHEMA}")
                other.execute("CREATE TABLE IF NOT EXISTS jobs (id)")
                other.commit()
        return self._connection.execute(sql)


def test_a_file_that_another_process_begins_meanwhile_is_no_old_one(tmp_path):
    assert schema_version(BegunMeanwhile(tmp_path / "new.sqlite3")) == DOCUMENTS_SCHEMA


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ({"supplier": "s", "finished_at": {"gt": NOON}}, ("supplier", "finished_at")),
        (
            {"supplier": {"in": ["s", "t"]}, "task": "t", "finished_at": {"gt": NOON}},
            ("supplier", "task", "finished_at"),
        ),
        ({"service": "v", "finished_at": {"gte": NOON}}, ("service", "finished_at")),
        ({"finished_at": {"lt": NOON}}, ("finished_at",)),
        ({"prompt_id": {"in": ["p"]}, "service": "v"}, ("prompt_id", "supplier")),
        ({"supplier": "s", "prompt_id": {"in": ["p"]}}, ("prompt_id", "supplier")),
        ({"_id": {"in": ["a"]}, "supplier": "s", "finished_at": {"gt": NOON}}, ("_id",)),
        ({"task": "t"}, None),
        ({"supplier": {"in": []}}, None),
        ({"supplier": {"in": ["s", None]}}, None),
        ({"supplier": {"ne": "s"}}, None),
        ({}, None),
    ],
)
def test_which_index_serves_a_query_is_told_and_not_guessed(tmp_path, where, index):
    """Without statistics, and on a table that holds next to nothing."""
    assert serving_index(ATTEMPTS, terms(ATTEMPTS, where)) == index
    with contextlib.closing(SqliteDocuments(tmp_path / "documents.sqlite3")) as store:
        store.count(ATTEMPTS, where)
        with store._connections.use() as connection:
            found: list[str] = []
            connection.set_trace_callback(found.append)
            list(store.find(ATTEMPTS, where, sort=[("finished_at", -1)], limit=3))
            connection.set_trace_callback(None)
            plan = str(connection.execute(f"EXPLAIN QUERY PLAN {found[0]}").fetchall())
    if index is not None:
        assert "SEARCH t USING" in plan and f"INDEX {index_name(ATTEMPTS, index)} (" in plan
