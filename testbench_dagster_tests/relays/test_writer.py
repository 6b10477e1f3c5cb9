from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.errors import StoreError
from testbench_dagster.relays import writer as writer_module
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Attempt
from testbench_dagster.relays.writer import AttemptWriter, attempt_document, attempt_id
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster.stores.documents.contract import Collection, Document
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.relays.servers import Supplier, chat_body, endpoint, relay


def attempt(body: bytes = b"{}") -> Attempt:
    now = datetime.now(UTC)
    return Attempt(Fault.OK, now, now, 1.5, body=body, evidence={"path": "/x", "payload_sha256": "0", "z": 1})


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


def test_document_has_every_declared_field():
    document = attempt_document(relay(7), 3, attempt())
    assert set(ATTEMPTS.fields) <= set(document)
    assert (document["fault"], document["owner"], document["attempt"]) == ("ok", "none", 3)
    assert (document["path"], document["payload_sha256"], document["evidence"]) == ("/x", "0", {"z": 1})
    assert document["_id"] == attempt_id(relay(7), 3) != attempt_id(relay(7), 2)


def test_relayed_attempts_are_kept_as_received(supplier: Supplier, store: SqliteDocuments):
    target = endpoint(supplier.url("ok"), Authorization="Bearer sk-secret-123")
    with AttemptWriter(store) as writer:
        report = run_relays([(target, [relay(n) for n in range(50)])], writer.add)
    assert report.total.settled == store.count(ATTEMPTS) == writer.written == 50
    document = store.get(ATTEMPTS, attempt_id(relay(7), 1))
    assert document is not None
    assert document["body"] == chat_body() and document["body_bytes"] == len(chat_body())
    assert "sk-secret" not in repr(document) and "127.0.0.1" not in repr(document)
    # the same facts written twice change nothing
    with AttemptWriter(store) as again:
        again.add(relay(7), 1, attempt())
    assert store.count(ATTEMPTS) == 50


def test_attempts_are_durable_within_a_second(store: SqliteDocuments):
    with AttemptWriter(store) as writer:
        writer.add(relay(), 1, attempt())
        time.sleep(0.9)
        assert store.count(ATTEMPTS) == 1


class Failing:
    """A store whose disk is full."""

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        raise OSError("no space left")


def test_store_errors_surface_in_add_and_close():
    writer = AttemptWriter(Failing(), flush_s=0.01)  # type: ignore[arg-type]
    writer.add(relay(), 1, attempt())
    time.sleep(0.2)
    with pytest.raises(StoreError, match="no space left"):
        writer.add(relay(), 2, attempt())
    with pytest.raises(StoreError, match="no space left"):
        writer.close()


def test_store_errors_end_a_run(supplier: Supplier):
    target = endpoint(supplier.url("slowly"))
    with pytest.raises(StoreError, match="no space left"), AttemptWriter(Failing(), 0.01) as writer:  # type: ignore[arg-type]
        run_relays([(target, [relay(n) for n in range(1_000)])], writer.add)
    assert supplier.calls["slowly"] < 500


class Slow:
    """A store that waits for a signal."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.documents = 0

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        assert self.go.wait(10)
        self.documents += len(list(documents))
        return 0


def test_a_slow_store_holds_the_engine_back(supplier: Supplier, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 20)
    store = Slow()
    threading.Timer(1.0, store.go.set).start()
    seen: list[int] = []
    threading.Timer(0.9, lambda: seen.append(supplier.calls["ok"])).start()
    with AttemptWriter(store, batch=10) as writer:  # type: ignore[arg-type]
        report = run_relays([(endpoint(supplier.url("ok")), [relay(n) for n in range(300)])], writer.add)
    assert report.total.settled == store.documents == 300
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


KILLED = """
import sys
from pathlib import Path
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.relays.writer import AttemptWriter
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.relays.servers import endpoint, relay

with AttemptWriter(SqliteDocuments(Path(sys.argv[1]))) as writer:
    run_relays([(endpoint(sys.argv[2]), (relay(n) for n in range(10**9)))], writer.add)
"""


def test_a_killed_process_loses_at_most_a_second(supplier: Supplier, tmp_path: Path):
    path = tmp_path / "documents.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), supplier.url("slowly")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
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
