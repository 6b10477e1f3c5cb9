"""What only the MongoDB document store promises."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from pymongo import MongoClient
from pymongo.errors import WriteError

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import Collection, open_documents
from testbench_dagster.stores.documents.mongo import MongoDocuments
from testbench_dagster.stores.uris import without_password
from testbench_dagster_tests import servers
from testbench_dagster_tests.stores.workers import JOBS, Target, start, write_forever


def native(uri: str, name: str = "jobs"):
    client = MongoClient(uri)
    return client, client.get_default_database()[name]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://u:p@h:1/db?replicaSet=rs0", "mongodb://u:***@h:1/db"),
        ("mongodb://u:p@ss/w?rd@h/db", "mongodb://u:***@h/db"),
        ("mongodb+srv://u:p@h/db", "mongodb+srv://u:***@h/db"),
        ("mongodb://u@h/db", "mongodb://u@h/db"),
        ("mongodb://h:1,i:2/db?tlsCertificateKeyFilePassword=x", "mongodb://h:1,i:2/db"),
    ],
)
def test_password_is_never_shown(uri, shown, tmp_path):
    assert without_password(uri) == shown
    assert repr(open_documents(tmp_path, uri)) == f"MongoDocuments({shown!r})"


def test_an_absent_server_is_named_without_its_password(tmp_path, monkeypatch):
    from testbench_dagster.stores.documents import mongo

    monkeypatch.setattr(mongo, "SELECTION_MS", 300)
    port = servers.free_port()
    store = open_documents(tmp_path, f"mongodb://user:s3cret@127.0.0.1:{port}/db")
    for call in (store.count, store.find, lambda c: store.put_new(c, [{"_id": "a"}])):
        with pytest.raises(StoreError) as caught:
            list(call(JOBS) or ())
        assert f"user:***@127.0.0.1:{port}/db does not answer" in str(caught.value)
        assert "TESTBENCH_MONGO_URI" in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_an_unusable_uri_is_named_without_its_password(tmp_path):
    for uri in ("mongodb://user:s3@cret@host/db", "mongodb://user:s3cret@host:port/db", "http://u:s3cret@h"):
        with pytest.raises(StoreError, match="percent-encoded") as caught:
            open_documents(tmp_path, uri).count(JOBS)
        assert "cret" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_pymongo_is_imported_only_for_a_mongo_uri():
    code = (
        "import sys, pathlib; from testbench_dagster.stores.documents import open_documents; "
        "open_documents(pathlib.Path('x'), None); assert 'pymongo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_default_database(mongo_uri):
    store = MongoDocuments(mongo_uri)
    assert store._database().name == "testbench"
    store.close()


def test_writes_are_acknowledged_by_a_majority_with_journal(mongo_database_uri):
    store = MongoDocuments(mongo_database_uri + "&w=0&journal=false")
    assert store._database().write_concern.document == {"w": "majority", "j": True, "wtimeout": 30_000}
    store.close()


def test_validator_and_indexes_follow_the_declaration(mongo_database_uri, tmp_path):
    store = open_documents(tmp_path, mongo_database_uri)
    store.put_new(JOBS, [{"_id": "a", "kind": "k", "rank": 1}])
    client, jobs = native(mongo_database_uri)
    with pytest.raises(WriteError, match="validation"):
        jobs.insert_one({"_id": "b", "rank": "one"})
    wider = replace(JOBS, fields={**JOBS.fields, "colour": str}, indexes=(*JOBS.indexes, ("colour",)))
    assert store.count(wider, {"colour": None}) == 1
    with pytest.raises(WriteError, match="validation"):
        jobs.insert_one({"_id": "b", "colour": 1})
    assert {"index_kind__rank", "index_colour", "unique_kind__at"} <= set(jobs.index_information())
    client.close()
    store.close()


def test_unique_indexes_serve_queries(mongo_database_uri, tmp_path):
    keyed = Collection("keyed", {"task": str, "epoch": int}, unique=(("task", "epoch"),))
    store = open_documents(tmp_path, mongo_database_uri)
    store.put_new(keyed, [{"_id": str(n), "task": "t", "epoch": n} for n in range(50)])
    client, raw = native(mongo_database_uri, "keyed")
    plan = raw.find({"$and": [{"task": {"$eq": "t"}}, {"epoch": {"$eq": 3}}]}).explain()
    assert plan["queryPlanner"]["winningPlan"]["inputStage"]["indexName"] == "unique_task__epoch"
    client.close()
    store.close()


def test_the_first_field_of_a_unique_key_finds_its_documents_alone(mongo_database_uri, tmp_path):
    keyed = Collection("keyed", {"task": str, "epoch": int}, unique=(("task", "epoch"),))
    served = Collection("served", keyed.fields, indexes=(("task", "epoch"), ("task",)), unique=keyed.unique)
    with contextlib.closing(open_documents(tmp_path, mongo_database_uri)) as store:
        for collection in (keyed, served):
            rows = [{"_id": f"{i}", "task": f"t{i % 10}", "epoch": i} for i in range(50)]
            store.put_new(collection, [*rows, {"_id": "x", "task": "t1"}])
            assert [one["_id"] for one in store.find(collection, {"task": "t1"}, sort=[("epoch", 1)])] == [
                "x", "1", "11", "21", "31", "41",
            ]  # fmt: skip
    client, native_keyed = native(mongo_database_uri, "keyed")
    plan = native_keyed.find({"task": "t1"}).explain()["executionStats"]
    assert (plan["nReturned"], plan["totalDocsExamined"]) == (6, 6)
    own = set(native_keyed.database["served"].index_information())
    assert own == {"_id_", "index_task", "unique_task__epoch"}, "what is declared serves already"
    client.close()


def test_an_index_that_differs_from_the_declaration(mongo_database_uri, tmp_path):
    client, jobs = native(mongo_database_uri)
    jobs.create_index([("kind", 1), ("rank", 1)], name="somebody_elses")
    client.close()
    with pytest.raises(StoreError, match="dropIndex"):
        open_documents(tmp_path, mongo_database_uri).count(JOBS)


@pytest.mark.slow
@pytest.mark.usefixtures("mongo_uri")  # skips where no server can be had
def test_killed_server_loses_no_acknowledged_write(tmp_path):
    """kill -9 of mongod in mid-write; restarted on the same folder, it has all it acknowledged."""
    port = servers.free_port()
    uri = f"mongodb://127.0.0.1:{port}/killed?replicaSet=rs0"
    log = tmp_path / "acknowledged"
    server = servers.start_mongod(tmp_path, port)
    try:
        writer = start(write_forever, Target(str(tmp_path), uri), str(log), 20)
        while not log.exists() or log.stat().st_size < 200:
            time.sleep(0.01)
        server.kill()
        server.wait()
        writer.kill()  # pymongo would wait for the server to come back and write on
        writer.join()
        server = servers.start_mongod(tmp_path, port)
        acknowledged = [int(line) for line in log.read_text().split()]
        store = open_documents(tmp_path, uri)
        stored = {row["_id"] for row in store.find(JOBS, fields=["_id"])}
        assert {f"{number}-{index}" for number in acknowledged for index in range(20)} <= stored
        store.close()
    finally:
        servers.stop(server)


@pytest.mark.usefixtures("mongo_uri")
def test_standalone_server(tmp_path):
    """Without a replica set there are no retryable writes; everything else is the same."""
    port = servers.free_port()
    server = servers.start_mongod(tmp_path, port, replica_set=False)
    try:
        store = open_documents(tmp_path, f"mongodb://127.0.0.1:{port}/alone")
        assert store.put_new(JOBS, [{"_id": "a"}, {"_id": "b"}]) == 2
        assert store.upsert(JOBS, [{"_id": "a", "rank": 1}]) == 1
        assert store.claim(JOBS, {"rank": 1}, {"owner": "me"})["_id"] == "a"
        assert store.purge(JOBS, {"owner": "me"}) == 1
        store.close()
    finally:
        servers.stop(server)


@pytest.mark.slow
@pytest.mark.usefixtures("mongo_uri")
def test_what_the_server_fails_at(tmp_path):
    """Its disk is full: told with the remedy. It ceases to be the primary: what may be done twice is."""
    port = servers.free_port()
    server = servers.start_mongod(tmp_path, port, parameters=["enableTestCommands=1"])
    uri = f"mongodb://127.0.0.1:{port}/failing?replicaSet=rs0"
    store = open_documents(tmp_path, uri)
    client = MongoClient(uri)

    def fail(command: str, code: int, **how: object) -> None:
        data = {"failCommands": [command], "errorCode": code, **how}
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})

    try:
        assert store.put_new(JOBS, [{"_id": "a", "rank": 1}, {"_id": "b", "rank": 2}, {"_id": "c"}]) == 3
        fail("insert", 14031)
        with pytest.raises(StoreError, match="the disk of the MongoDB server is full: free some space"):
            store.put_new(JOBS, [{"_id": "d"}])
        for n, code in enumerate((11602, 189)):
            fail("delete", code)
            assert store.purge(JOBS, {"rank": n + 1}) == 1
        fail("update", 91)
        assert store.fill(JOBS, "rank", 7) == 1
        fail("createIndexes", 11600)
        assert store.count(replace(JOBS, name="others")) == 0
        fail("delete", 20)
        with pytest.raises(StoreError):
            store.purge(JOBS, {"rank": 7})
    finally:
        store.close()
        client.close()
        servers.stop(server)


@pytest.mark.parametrize(
    ("hurried", "options", "milliseconds"),
    [
        (False, "", 30_000),
        (True, "", 5_000),
        (False, "?serverSelectionTimeoutMS=700", 700),
        (True, "?retryWrites=true&serverselectiontimeoutms=60000", 60_000),
    ],
)
def test_how_long_a_server_is_looked_for(hurried, options, milliseconds):
    with contextlib.closing(MongoDocuments(f"mongodb://h:1/db{options}", hurried=hurried)) as store:
        assert store._database().client.options.server_selection_timeout == milliseconds / 1000
