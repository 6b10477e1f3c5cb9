"""Bytes and CPU per attempt with bodies in the document store and outside of it, for answers of about 8 KB.

    python benchmarks/bodies.py [attempts]

Answers are those of a model that reasons: English of the pages in docs/, drawn word by word, with an id and a
time of their own. MongoDB takes part when a server can be found (see testbench_dagster_tests/servers.py). CPU
is that of this process; a server's own is not in it. The place is a folder here: S3 adds the time of its
answers, 16 at once.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord, RawAnswer
from testbench_dagster.core.relay import Attempt
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stores.documents import BodiesOutside, open_documents, typed
from testbench_dagster_tests import servers
from testbench_dagster_tests.endpoints import relay

ROOT = Path(__file__).resolve().parent.parent
ATTEMPTS = 5_000
BATCH = 500  # as the relay stage writes them
CHARACTERS = 7_800  # of what was thought


def thoughts(draw: random.Random, followers: dict[str, list[str]]) -> str:
    """Text in which each word follows the one before it somewhere in the documentation."""
    word = draw.choice(sorted(followers))
    words, size = [word], 0
    while size < CHARACTERS:
        word = draw.choice(followers.get(word) or ["the"])
        words.append(word)
        size += len(word) + 1
    return " ".join(words)


def followers_of_words() -> dict[str, list[str]]:
    """By word of the documentation those that follow it."""
    found: dict[str, list[str]] = {}
    for page in sorted((ROOT / "docs").glob("*.md")):
        words = re.findall(r"[A-Za-z'-]+[.,;:]?", page.read_text("utf-8"))
        for one, other in itertools.pairwise(words):
            found.setdefault(one, []).append(other)
    return found


def records(count: int) -> Iterator[AttemptRecord]:
    """Attempts with answers like those of a server that reasons."""
    draw, followers = random.Random(1), followers_of_words()
    started = datetime(2026, 11, 1, tzinfo=UTC)
    for n in range(count):
        at = started + timedelta(seconds=n)
        message = {"role": "assistant", "content": "The answer is B.", "reasoning": thoughts(draw, followers)}
        body = orjson.dumps(
            {
                "id": f"chatcmpl-{draw.getrandbits(128):032x}",
                "object": "chat.completion",
                "created": int(at.timestamp()),
                "model": "reasoning-70b",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 412, "completion_tokens": 1_731, "total_tokens": 2_143},
            }
        )
        evidence = {"path": "/chat/completions", "payload_sha256": hashlib.sha256(b"%d" % n).hexdigest()}
        attempt = Attempt(
            Fault.OK,
            at,
            at + timedelta(seconds=9),
            9_000.0,
            status=200,
            text="The answer is B.",
            body=body,
            body_bytes=len(body),
            prompt_tokens=412,
            completion_tokens=1_731,
            evidence=evidence,
        )
        yield attempt_record(relay(n), 1, attempt)


def mongo_bytes(uri: str) -> tuple[int, int]:
    """Bytes of the data and of the indexes of a database on its server's disk."""
    from pymongo import MongoClient

    with MongoClient(uri) as client:
        client.admin.command("fsync")
        told = client.get_default_database().command("dbStats")
        return int(told["storageSize"]), int(told["indexSize"])


def sqlite_bytes(home: Path) -> tuple[int, int]:
    """Bytes of the embedded store, its indexes among them."""
    path = home / "documents.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size, 0


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measured(name: str, made: list[AttemptRecord], uri: str | None, *, outside: bool) -> None:
    """Write and read the attempts, and print a row."""
    with tempfile.TemporaryDirectory() as folder:
        home, place = Path(folder, "home"), Path(folder, "bodies")
        bodies = BodiesOutside(f"file://{place}", 4096) if outside else None
        with contextlib.closing(open_documents(home, uri, outside=bodies)) as store:
            typed.count(store, AttemptRecord)
            cpu, wall = time.process_time(), time.perf_counter()
            for start in range(0, len(made), BATCH):
                typed.write_ahead(store, AttemptRecord, made[start : start + BATCH])
                typed.put_new(store, AttemptRecord, made[start : start + BATCH])
            wrote = time.process_time() - cpu, time.perf_counter() - wall
            cpu = time.process_time()
            for start in range(0, len(made), BATCH):
                found = typed.by_id(store, RawAnswer, [one.id for one in made[start : start + BATCH]])
                assert all(found[one.id].body == one.body for one in made[start : start + BATCH])
            read = time.process_time() - cpu
        data, indexes = mongo_bytes(uri) if uri is not None else sqlite_bytes(home)
        there = folder_bytes(place)
    n, where = len(made), "outside" if outside else "inside"
    print(
        f"| {name}, {where} | {(data + indexes) / n:,.0f} | {indexes / n:,.0f} | "
        f"{there / n:,.0f} | {(data + indexes + there) / n:,.0f} | {1_000 * wrote[0] / n:.2f} | "
        f"{1_000 * wrote[1] / n:.2f} | {1_000 * read / n:.2f} |"
    )


def main() -> None:
    """Print the table, and what levels of compression come to."""
    made = list(records(int(sys.argv[1]) if len(sys.argv) > 1 else ATTEMPTS))
    size = sum(len(one.body) for one in made) / len(made)
    print(f"{len(made):,} attempts with bodies of {size:,.0f} bytes; per attempt:\n")
    print(
        "| | document store | its indexes | place | together | write: CPU ms | write: ms | read: CPU ms |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for outside in (False, True):
        measured("SQLite", made, None, outside=outside)
    try:
        with servers.mongo_server() as uri:
            for outside in (False, True):
                name = "outside" if outside else "inside"
                measured("MongoDB", made, servers.database_uri(uri, f"bodies_{name}"), outside=outside)
    except servers.ServerMissing as missing:
        print(f"\nno MongoDB: {missing}")
    print("\n| level of gzip | bytes | CPU ms |\n|---|---|---|")
    for level in (1, 4, 6, 9):
        began = time.process_time()
        there = sum(len(gzip.compress(one.body, level, mtime=0)) for one in made)
        spent = time.process_time() - began
        print(f"| {level} | {there / len(made):,.0f} | {1_000 * spent / len(made):.2f} |")


if __name__ == "__main__":
    main()
