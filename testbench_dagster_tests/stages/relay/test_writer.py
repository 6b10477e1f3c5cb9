from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.stages.attempts import last_attempts
from testbench_dagster.stages.relay import writer as writer_module
from testbench_dagster.stages.relay.writer import AttemptWriter, Fence, attempt_id, attempt_record, fenced_out
from testbench_dagster.stores.documents.collections import ATTEMPTS, HEARTBEATS
from testbench_dagster.stores.documents.contract import Collection, Document
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.endpoints import Supplier, chat_body, endpoint, relay
from testbench_dagster_tests.tasks.layouts import REPOSITORY


def attempt(body: bytes = b"{}") -> Attempt:
    now = datetime.now(UTC)
    return Attempt(Fault.OK, now, now, 1.5, body=body, evidence={"path": "/x", "payload_sha256": "0", "z": 1})


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


def test_document_has_every_declared_field():
    document = attempt_record(relay(7), 3, attempt()).to_document()
    assert set(ATTEMPTS.fields) <= set(document)
    assert (document["fault"], document["owner"], document["attempt"]) == ("ok", "none", 3)
    assert (document["path"], document["payload_sha256"], document["evidence"]) == ("/x", "0", {"z": 1})
    assert document["_id"] == attempt_id(relay(7), 3) != attempt_id(relay(7), 2)


def test_attempts_say_their_occasion_and_whether_they_are_canaries() -> None:
    asked = attempt_record(replace(relay(7), occasion=2), 3, attempt())
    canary = attempt_record(replace(relay(7), canary=True), 3, attempt())
    assert (asked.occasion, asked.canary, canary.occasion, canary.canary) == (2, False, 1, True)
    older = {k: v for k, v in asked.to_document().items() if k not in ("occasion", "canary")}
    read = AttemptRecord.from_document(older)
    assert (read.occasion, read.canary) == (None, False)


def test_equal_answers_are_told_by_a_hash_and_failures_have_none() -> None:
    one, same, other = (
        attempt_record(relay(7), n, replace(attempt(), text=text)).answer_hash
        for n, text in enumerate(("x \ud800", "x \ud800", "x  \ud800"), 1)
    )
    assert one == same != other
    assert one is not None and re.fullmatch("[0-9a-f]{16}", one)
    failed = replace(attempt(), text="x", fault=Fault.SUPPLIER_HTTP)
    assert attempt_record(relay(7), 1, failed).answer_hash is None
    assert attempt_record(relay(7), 1, attempt()).answer_hash is None
    lost = fenced_out(attempt_record(relay(7), 1, replace(attempt(), text="x"), lease=3))
    assert lost.answer_hash is None


def test_relayed_attempts_are_kept_as_received(supplier: Supplier, store: SqliteDocuments):
    target = endpoint(supplier.url("ok"), Authorization="Bearer sk-secret-123")
    with AttemptWriter(store) as writer:
        report = run_relays(
            [(target, [relay(n) for n in range(50)])], writer.add, open_transport=DirectTransport
        )
    assert report.total.final == store.count(ATTEMPTS) == writer.written == 50
    document = store.get(ATTEMPTS, attempt_id(relay(7), 1))
    assert document is not None
    assert document["body"] == chat_body() and document["body_bytes"] == len(chat_body())
    assert "sk-secret" not in repr(document) and "127.0.0.1" not in repr(document)
    # the same facts written twice change nothing
    with AttemptWriter(store) as again:
        again.add(relay(7), 1, attempt())
    assert store.count(ATTEMPTS) == 50


def test_attempts_become_durable_by_themselves(store: SqliteDocuments):
    with AttemptWriter(store) as writer:
        writer.add(relay(), 1, attempt())
        deadline = time.monotonic() + 30
        while not store.count(ATTEMPTS) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert store.count(ATTEMPTS) == 1


def test_a_flush_waits_for_all_that_was_added(store: SqliteDocuments):
    with AttemptWriter(store, flush_s=60.0) as writer:
        began = time.monotonic()
        for n in range(3):
            writer.add(relay(n), 1, attempt())
            writer.flush()
            assert store.count(ATTEMPTS) == n + 1
        writer.flush()
        assert time.monotonic() - began < 30


class Failing:
    """A store whose disk is full."""

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        pass

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        raise OSError("no space left")

    def find(self, *_: Any, **__: Any) -> Any:
        raise OSError("no space left")

    rows = find


def test_store_errors_surface_in_add_and_close():
    writer = AttemptWriter(Failing(), flush_s=0.01)  # type: ignore[arg-type]
    writer.add(relay(), 1, attempt())
    writer._thread.join(10)
    with pytest.raises(StoreError, match="no space left"):
        writer.flush()
    with pytest.raises(StoreError, match="no space left"):
        writer.add(relay(), 2, attempt())
    with pytest.raises(StoreError, match="no space left"):
        writer.close()


def test_store_errors_end_a_run(supplier: Supplier):
    target = endpoint(supplier.url("slowly"))
    with pytest.raises(StoreError, match="no space left"), AttemptWriter(Failing(), 0.01) as writer:  # type: ignore[arg-type]
        run_relays([(target, [relay(n) for n in range(1_000)])], writer.add, open_transport=DirectTransport)
    assert supplier.calls["slowly"] < 500


class Slow:
    """A store that waits for a signal."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.documents = 0

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        pass

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        assert self.go.wait(10)
        self.documents += len(list(documents))
        return 0


def test_a_slow_store_holds_the_engine_back(supplier: Supplier, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 20)
    store = Slow()
    seen: list[int] = []

    def look() -> None:
        seen.append(supplier.calls["ok"])
        store.go.set()

    threading.Timer(1.0, look).start()
    with AttemptWriter(store, batch=10) as writer:  # type: ignore[arg-type]
        report = run_relays(
            [(endpoint(supplier.url("ok")), [relay(n) for n in range(300)])],
            writer.add,
            open_transport=DirectTransport,
        )
    assert report.total.final == store.documents == 300
    assert seen[0] < 100


def test_a_slow_store_blocks_plain_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 5)
    store = Slow()
    started = time.monotonic()
    threading.Timer(0.3, store.go.set).start()
    with AttemptWriter(store, batch=5) as writer:  # type: ignore[arg-type]
        for n in range(20):
            assert writer.add(relay(n), 1, attempt()) is None
    assert time.monotonic() - started >= 0.3
    assert store.documents == 20


def test_closed_writers_take_nothing(store: SqliteDocuments):
    writer = AttemptWriter(store)
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.add(relay(), 1, attempt())


def test_attempts_carry_their_lease_and_height(store: SqliteDocuments):
    with Heartbeat(store, "me") as heartbeat, SupplierLeases(store, heartbeat) as leases:
        held = leases.acquire(["a@test"]).held

        def verify(_: Iterable[str]) -> set[str]:
            raise AssertionError("a living heartbeat need not ask the store")

        fence = Fence(held, heartbeat, verify)
        with AttemptWriter(store, fence=fence, heights={"test": 77, "other": 1}) as writer:
            writer.add(relay(1), 1, attempt())
            writer.add(relay(1, "b@free"), 1, attempt())
    documents = {d["supplier"]: d for d in store.find(ATTEMPTS)}
    assert (documents["a@test"]["lease"], documents["a@test"]["height"]) == (held["a@test"], 77)
    assert (documents["b@free"]["lease"], documents["b@free"]["height"]) == (None, None)
    assert documents["a@test"]["_id"] == attempt_id(relay(1), 1)


def test_attempts_of_a_lost_lease_are_evidence_that_counts_for_nothing(store: SqliteDocuments):
    """The process was stopped with answers in hand; another took over one of its two suppliers meanwhile."""
    suppliers = ["a@test", "b@test"]
    refused = Attempt(Fault.SUPPLIER_HTTP, *[datetime.now(UTC)] * 2, 9.0, status=500, body=b"no", error="500")
    with Heartbeat(store, "old", ttl_s=1.5) as old, SupplierLeases(store, old) as leases:
        held = leases.acquire(suppliers).held
        while not old.lost:
            store.purge(HEARTBEATS, {"_id": "old"})
            time.sleep(0.01)
        with Heartbeat(store, "new") as new, SupplierLeases(store, new) as theirs:
            taken = theirs.acquire(["a@test"]).held
            with AttemptWriter(store, fence=Fence(held, old, leases.verify)) as writer:
                for name in suppliers:
                    writer.add(relay(1, name), 1, attempt(b"stale"))
                    writer.add(relay(2, name), 3, refused)
            between = last_attempts(store, "a@test", "t", "h")
            with AttemptWriter(store, fence=Fence(taken, new, theirs.verify)) as writer:
                writer.add(relay(1, "a@test"), 1, attempt(b"new"))
                writer.add(relay(2, "a@test"), 1, attempt(b"new"))

    # nobody else relays to b: what it answered stands
    kept = {d["attempt"]: d for d in store.find(ATTEMPTS, {"supplier": "b@test"})}
    assert {n: (d["fault"], d["lease"]) for n, d in kept.items()} == {
        1: ("ok", held["b@test"]),
        3: ("supplier_http", held["b@test"]),
    }
    # of a, the old answers count for nothing: before the new ones, and beside them
    assert {(a.fault, a.attempt) for a in between.values()} == {("internal", 0)}
    latest = last_attempts(store, "a@test", "t", "h")
    assert {key[0]: (a.fault, a.attempt) for key, a in latest.items()} == {
        "p1": ("ok", 1),
        "p2": ("ok", 1),
    }
    assert bytes(store.get(ATTEMPTS, attempt_id(relay(1, "a@test"), 1))["body"]) == b"new"
    # and are kept
    stale = list(store.find(ATTEMPTS, {"supplier": "a@test", "fault": "internal"}))
    assert {(bytes(d["body"]), d["status"], d["owner"], d["lease"]) for d in stale} == {
        (b"stale", None, "internal", held["a@test"]),
        (b"no", 500, "internal", held["a@test"]),
    }
    assert all(d["error"].startswith("lease lost") for d in stale)
    assert sorted(
        (d["evidence"]["disowned"]["fault"], d["evidence"]["disowned"]["attempt"]) for d in stale
    ) == [("ok", 1), ("supplier_http", 3)]
    assert store.count(ATTEMPTS) == 6


def test_disowned_attempts_have_ids_of_their_lease():
    record = attempt_record(relay(7), 3, attempt(), lease=5)
    other = attempt_record(relay(7), 3, attempt(), lease=6)
    ids = {record.id, fenced_out(record).id, fenced_out(other).id}
    assert len(ids) == 3 and fenced_out(record) == fenced_out(record)
    assert record.fault == "ok" and "disowned" not in record.evidence  # a copy was changed


def test_a_store_that_cannot_verify_ends_the_writing(store: SqliteDocuments):
    heartbeat = Heartbeat(store, "never-began")
    leases = SupplierLeases(Failing(), heartbeat)  # type: ignore[arg-type]
    writer = AttemptWriter(store, 0.01, fence=Fence({"a@test": 1}, heartbeat, leases.verify))
    writer.add(relay(), 1, attempt())
    with pytest.raises(StoreError, match="no space left"):
        writer.close()
    assert store.count(ATTEMPTS) == 0


KILLED = """
import sys
from pathlib import Path
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.stages.relay.writer import AttemptWriter
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.endpoints import endpoint, relay

with AttemptWriter(SqliteDocuments(Path(sys.argv[1]))) as writer:
    work = [(endpoint(sys.argv[2]), (relay(n) for n in range(10**9)))]
    run_relays(work, writer.add, open_transport=DirectTransport)
"""


def test_a_killed_process_loses_at_most_a_second(supplier: Supplier, tmp_path: Path):
    path = tmp_path / "documents.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), supplier.url("slowly")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        deadline = time.monotonic() + 20
        while supplier.calls["slowly"] < 50 and time.monotonic() < deadline:
            time.sleep(0.01)
        answered = list(supplier.texts)[: -supplier.in_flight or None]
        time.sleep(1.0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = SqliteDocuments(path)
    kept = {document["prompt_id"] for document in store.find(ATTEMPTS, fields=["prompt_id"])}
    store.close()
    assert len(answered) >= 30
    in_flight_then = 16  # asked for at that moment, so perhaps answered later
    wanted = {f"p{text.removeprefix('question ')}" for text in answered[:-in_flight_then]}
    assert wanted <= kept
