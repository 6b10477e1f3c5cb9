"""Documents per second of both stores, beside raw sqlite3 in the same run: the ratios are what counts.

    python benchmarks/stores.py [documents]

MongoDB takes part when a server can be found (see testbench_dagster_tests/servers.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbench_dagster.stores.documents import Group, document_id, open_documents
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests import servers

BATCH = 1_000


def attempts(count: int) -> list[dict[str, Any]]:
    """Attempts as the relay engine writes them, about 2 KB each."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        {
            "_id": document_id("attempt", n),
            "supplier": f"pokt{n % 20}",
            "service": "text-generation",
            "task": f"task-{n % 7}",
            "task_hash": "h" * 40,
            "epoch": 1,
            "round": 0,
            "prompt_id": document_id("prompt", n // 20),
            "position": n // 20,
            "doc_id": n // 20,
            "idx": 0,
            "repeat": 0,
            "attempt": 0,
            "fault": "ok" if n % 9 else "supplier_timeout",
            "owner": "none",
            "status": 200,
            "finished_at": now + timedelta(milliseconds=n),
            "latency_ms": float(n % 1000),
            "prompt_tokens": 700,
            "completion_tokens": 80,
            "body": "x" * 1_400,
        }
        for n in range(count)
    ]


def raw_sqlite(path: Path, documents: list[dict[str, Any]]) -> dict[str, float]:
    """The least any SQLite store does: encode, one executemany per batch, the same indexes, read back."""
    names = list(ATTEMPTS.fields)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"CREATE TABLE a (_id TEXT UNIQUE, {', '.join(map(repr, names))}, body BLOB)")
    for number, key in enumerate(ATTEMPTS.indexes):
        connection.execute(f"CREATE INDEX i{number} ON a ({', '.join(key)})")
    marks = ", ".join("?" * (len(names) + 2))

    def row(document: dict[str, Any]) -> tuple[Any, ...]:
        columns = [document[name] for name in names]
        columns[names.index("finished_at")] = int(document["finished_at"].timestamp() * 1000)
        return (document["_id"], *columns, bson.encode(document))

    def put() -> None:
        for start in range(0, len(documents), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                f"INSERT INTO a VALUES ({marks}) ON CONFLICT(_id) DO NOTHING",
                [row(document) for document in documents[start : start + BATCH]],
            )
            connection.execute("COMMIT")

    def find() -> None:
        query = "SELECT body FROM a WHERE finished_at >= 0 ORDER BY finished_at"
        assert sum(1 for (body,) in connection.execute(query) if bson.decode(body)) == len(documents)

    def columns() -> None:
        query = "SELECT supplier, latency_ms FROM a"
        assert len(connection.execute(query).fetchall()) == len(documents)

    def group() -> None:
        query = "SELECT supplier, task, fault, count(*), max(finished_at) FROM a GROUP BY 1, 2, 3"
        connection.execute(query).fetchall()

    rates = measure(len(documents), put=put, find=find, columns=columns, group=group)
    connection.close()
    return rates


def store_rates(home: Path, uri: str | None, documents: list[dict[str, Any]]) -> dict[str, float]:
    store = open_documents(home, uri)
    store.count(ATTEMPTS)  # creates the tables and indexes, as the raw run does before its clock starts

    def put() -> None:
        for start in range(0, len(documents), BATCH):
            store.put_new(ATTEMPTS, documents[start : start + BATCH])

    def find() -> None:
        since = {"finished_at": {"gte": datetime(2000, 1, 1, tzinfo=UTC)}}
        assert sum(1 for _ in store.find(ATTEMPTS, since, sort=[("finished_at", 1)])) == len(documents)

    def columns() -> None:
        assert sum(1 for _ in store.find(ATTEMPTS, fields=["supplier", "latency_ms"])) == len(documents)

    def group() -> None:
        store.group(ATTEMPTS, Group(["supplier", "task", "fault"], max=["finished_at"]))

    rates = measure(len(documents), put=put, find=find, columns=columns, group=group)
    store.close()
    return rates


def measure(count: int, **works: Callable[[], None]) -> dict[str, float]:
    """Documents per second of each work."""
    rates = {}
    for name, work in works.items():
        began = time.perf_counter()
        work()
        rates[name] = count / (time.perf_counter() - began)
    return rates


def main(count: int) -> None:
    documents = attempts(count)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tb-bench-")))
        results = {"raw sqlite3": raw_sqlite(folder / "raw.sqlite3", documents)}
        results["SQLite store"] = store_rates(folder / "home", None, documents)
        try:
            server = stack.enter_context(servers.mongo_server())
            uri = stack.enter_context(servers.mongo_database(server))
            results["MongoDB store"] = store_rates(folder, uri, documents)
        except servers.ServerMissing as missing:
            print(f"without MongoDB: {missing}")
    base = results["raw sqlite3"]
    print(
        f"{count:,} attempts of {len(bson.encode(documents[0])):,} bytes; documents/s (share of raw sqlite3)"
    )
    print(f"{'':14}" + "".join(f"{name:>20}" for name in base))
    for store, rates in results.items():
        cells = (f"{rate:,.0f} ({rate / base[name]:.2f})" for name, rate in rates.items())
        print(f"{store:14}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
