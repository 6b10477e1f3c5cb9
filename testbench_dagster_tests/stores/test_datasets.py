"""The dataset store, the same tests on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.registration import StoredDoc
from testbench_dagster.stores.datasets import DatasetStore, open_datasets
from testbench_dagster_tests import servers
from testbench_dagster_tests.stores.workers import (
    dataset_docs,
    flags,
    race,
    register_own,
    register_same,
    registration,
)


def never():
    raise AssertionError("these docs should not have been read")
    yield


def test_register_and_read_back(datasets):
    first = registration("gsm8k", "h1", 1234)
    docs = dataset_docs(1234)
    assert datasets.register(first, reversed(docs), docs[5:3:-1]) is True
    assert datasets.current("gsm8k") == first
    assert datasets.get("h1") == first
    assert datasets.tasks() == [first]
    assert list(datasets.docs("h1")) == docs
    assert list(datasets.docs("h1", [700, 3, 3, 99999])) == [docs[3], docs[700]]
    assert list(datasets.docs("h1", range(1234))) == docs
    assert list(datasets.docs("h1", [])) == []
    assert datasets.fewshot("h1") == [docs[5], docs[4]]
    assert datasets.current("other") is None
    assert datasets.get("other") is None
    assert list(datasets.docs("other")) == []
    assert datasets.fewshot("other") == []


def test_registering_again_reads_nothing(datasets):
    first = registration("gsm8k", "h1", 3)
    datasets.register(first, dataset_docs(3), dataset_docs(2))
    assert datasets.register(replace(first, registered_at=datetime.now(UTC)), never(), never()) is False
    assert datasets.current("gsm8k") == first


@pytest.mark.parametrize(
    "changes",
    [
        {"config_hash": "d" * 64},
        {"engine_version": "0.5.0"},
        {"flags": replace(flags(), filters=["strict"], source="other")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changed_under_the_same_hash_is_brought_up_to_date(datasets, changes):
    first = registration("gsm8k", "h1", 3)
    other = registration("alias", "h1", 3, registered_at=first.registered_at + timedelta(1))
    datasets.register(first, dataset_docs(3), dataset_docs(2))
    datasets.register(other, never(), never())
    later = replace(first, registered_at=first.registered_at + timedelta(2), **changes)
    assert datasets.register(later, never(), never()) is True
    assert datasets.tasks() == [other, later], "the other task with this hash keeps its own"
    assert datasets.register(later, never(), never()) is False
    assert list(datasets.docs("h1")) == dataset_docs(3)


def test_going_back_to_an_earlier_hash_takes_what_changed_along(datasets):
    first, second = registration("gsm8k", "h1", 3), registration("gsm8k", "h2", 3)
    datasets.register(first, dataset_docs(3), dataset_docs(2))
    datasets.register(second, dataset_docs(3), dataset_docs(2))
    again = replace(first, config_hash="d" * 64)
    assert datasets.register(again, never(), never()) is True
    assert datasets.current("gsm8k") == again


def test_a_new_hash_moves_the_task_and_keeps_the_old_docs(datasets):
    first, second = registration("gsm8k", "h1", 3), registration("gsm8k", "h2", 5)
    datasets.register(first, dataset_docs(3), dataset_docs(2))
    assert datasets.register(second, dataset_docs(5), dataset_docs(2)) is True
    assert datasets.current("gsm8k") == second
    assert datasets.get("h1") == first
    assert len(list(datasets.docs("h1"))) == 3
    assert datasets.register(first, never(), never()) is True
    assert datasets.current("gsm8k") == first
    assert datasets.tasks() == [first]


def test_tasks_over_one_dataset_do_not_collide(datasets):
    one, other = registration("b-task", "h1", 3), registration("a-task", "h2", 3, lm_task="b-task")
    same_hash = registration("c-task", "h1", 3, registered_at=one.registered_at + timedelta(1))
    datasets.register(one, dataset_docs(3), dataset_docs(2))
    datasets.register(other, dataset_docs(3), dataset_docs(2))
    assert datasets.register(same_hash, never(), never()) is True
    assert datasets.tasks() == [other, one, same_hash]
    assert datasets.tasks({"c-task", "a-task", "absent"}) == [other, same_hash]
    assert datasets.tasks({"c-task", *map(str, range(2_000))}) == [same_hash], "of many all are read"
    assert datasets.tasks(set()) == []
    assert datasets.get("h1") == one


def test_a_failed_registration_leaves_nothing(datasets):
    twice = [*dataset_docs(2), dataset_docs(1)[0]]
    unfit = StoredDoc(0, '"ä"', "h")
    for docs, message in (
        (dataset_docs(2), "2 docs given, but the registration says 3"),
        (twice, "(?i)unique"),
        ([*dataset_docs(2), unfit], "ensure_ascii"),
    ):
        with pytest.raises(StoreError, match=message):
            datasets.register(registration("gsm8k", "h1", 3), docs, dataset_docs(2))
    with pytest.raises(StoreError, match="few-shot"):
        datasets.register(registration("gsm8k", "h1", 3), dataset_docs(3), [])
    with pytest.raises(StoreError, match="flags"):
        datasets.register(registration("g", "h1", 3, flags=flags(x={1})), dataset_docs(3), dataset_docs(2))
    assert datasets.current("gsm8k") is None
    assert list(datasets.docs("h1")) == []


def test_bodies_round_trip_exactly(datasets):
    values = ["\0", "\ud800", "a\\u0000b", "ünï 🜁", float("nan"), float("inf"), 2**80, "%s %(x)s :y"]
    docs = [StoredDoc(i, json.dumps({"v": value}), "h") for i, value in enumerate(values)]
    kept = flags(text="\0\ud800ä", nan=None, deep={"list": [1, 2.5, "x"]})
    stored = registration("tâsk", "h1", len(docs), flags=kept, n_fewshot=0)
    datasets.register(stored, docs, [])
    assert list(datasets.docs("h1")) == docs
    assert json.loads(next(datasets.docs("h1", [1])).body) == {"v": "\ud800"}
    assert datasets.current("tâsk") == stored


def test_a_large_registration_takes_few_statements(datasets):
    docs = dataset_docs(12_000, size=2_000)
    sent = []

    def note(connection, cursor, statement, *rest):
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        datasets.register(registration("mmlu", "h1", 12_000), docs, docs[:2])
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert 0 < len(sent) < 100
    assert sum(len(doc.body) for doc in datasets.docs("h1")) == sum(len(doc.body) for doc in docs)


def test_four_processes_register_one_task(dataset_url):
    assert sorted(race(register_same, dataset_url, "h1")) == [False, False, False, True]


def test_four_processes_register_one_task_with_different_hashes(dataset_url):
    assert race(register_own, dataset_url) == [True] * 4
    store = DatasetStore(dataset_url)
    assert len(store.tasks()) == 1
    store.close()


def test_parent_and_forked_child_share_a_store(datasets):
    datasets.register(registration("gsm8k", "h1", 1200), dataset_docs(1200), dataset_docs(2))
    stream = datasets.docs("h1")
    next(stream)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            datasets.register(registration("arc", "h2", 3), dataset_docs(3), dataset_docs(2))
            datasets.close()
            code = 0
        finally:
            os._exit(code)
    assert len(list(stream)) == 1199
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [found.task for found in datasets.tasks()] == ["arc", "gsm8k"]


def test_a_closed_store_says_so(datasets):
    datasets.tasks()
    datasets.close()
    with pytest.raises(StoreError, match="closed"):
        datasets.tasks()


def test_embedded_store_is_private(tmp_path):
    store = open_datasets(tmp_path / "a ?&%#b" / "home", None)
    store.tasks()
    path = tmp_path / "a ?&%#b" / "home" / "datasets.sqlite3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_uri_spellings(postgres_database_uri):
    rest = postgres_database_uri.partition("://")[2]
    for scheme in ("postgres", "postgresql", "postgresql+psycopg2"):
        store = open_datasets(Path("/nowhere"), f"{scheme}://{rest}")
        assert store.tasks() == []
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:s3cret@127.0.0.1:{port}/db",
        "postgresql://user:s3cret@[bad/db",
        "mysql://user:s3cret@host/db",
        "user:s3cret@host",
        "sqlite://",
    ],
)
def test_unusable_urls_are_named_without_the_password(url):
    with pytest.raises(StoreError) as caught:
        DatasetStore(url.format(port=servers.free_port())).tasks()
    assert "s3cret" not in str(caught.value)
    assert "postgresql://" in str(caught.value) or "TESTBENCH_POSTGRES_URI" in str(caught.value)
    assert "\n" not in str(caught.value), "one line"


def test_repr_hides_the_password():
    store = DatasetStore("postgresql://user:s3cret@host:1/db?options=-cx")
    assert repr(store) == "DatasetStore('postgresql://user:***@host:1/db')"


def test_a_full_disk_of_the_server_is_told(postgres_database_uri: str) -> None:
    store = DatasetStore(postgres_database_uri)
    raised = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    with pytest.raises(StoreError) as caught, store._write("x") as connection:
        connection.execute(sa.text(raised))
    told = str(caught.value)
    assert "could not extend file" in told and "the disk of the PostgreSQL server is full: free some" in told
    store.close()
