"""Days of facts made in bulk, and what an export examines of them: for benchmarks/export.py and a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pymongo import MongoClient

from testbench_dagster.core.ids import attempt_document_id
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES

#: The day that is exported; all others lie before it.
TODAY = datetime(2026, 6, 1, tzinfo=UTC)
#: When everything before was exported: no fact of the day is there yet, and no other day is open.
BEFORE = TODAY + timedelta(hours=6, minutes=30)
AFTER = TODAY + timedelta(hours=23, minutes=59)
_AT_ONCE = 5_000
_STEPS = 10  # of SQLite's virtual machine between two calls of the handler


def fill_day(workspace: Workspace, midnight: datetime, per_day: int) -> None:
    """Store so many attempts and scores of a day, of ten suppliers."""
    made = [_fact(midnight, number, per_day) for number in range(per_day)]
    for start in range(0, per_day, _AT_ONCE):
        some = made[start : start + _AT_ONCE]
        workspace.documents.put_new(ATTEMPTS, [attempt for attempt, _ in some])
        workspace.documents.put_new(SCORES, [score for _, score in some])


def _fact(midnight: datetime, number: int, per_day: int) -> tuple[dict[str, Any], dict[str, Any]]:
    at = midnight + timedelta(days=1) * (number + 0.5) / per_day
    prompt = document_id("prompt", midnight.isoformat(), number)
    shared = {
        "supplier": f"s{number % 10}@external", "service": "external", "task": "starter_logic",
        "task_hash": "0" * 40, "epoch": 1, "round": 1, "position": number, "doc_id": number,
        "prompt_id": prompt, "prompt_tokens": 300, "completion_tokens": 60, "latency_ms": 800.0,
    }  # fmt: skip
    text = "First I add what is given, then I look at it again. " * 5 + f"The answer is {number}."
    body = orjson.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
    attempt = attempt_document_id(shared["supplier"], prompt, 1, 0, 0, 1)
    return (
        {
            "_id": attempt, **shared, "idx": 0, "repeat": 0, "attempt": 1, "occasion": 1, "canary": False,
            "fault": "ok", "owner": "none", "classifier": 3, "status": 200, "finished_at": at,
            "started_at": at, "body": body, "body_bytes": len(body), "body_truncated": False,
            "error": None, "finish_reason": "stop", "first_byte_ms": None, "first_token_ms": None,
            "evidence": {}, "payload_sha256": None, "session_start": None, "session_end": None,
        },
        {
            "_id": document_id("score", attempt), **shared, "filter": "none", "answer_id": attempt,
            "answered_at": at, "calls": 1, "scorer_version": "1", "metrics": {"exact_match": 1.0},
            "error": None, "extracted": str(number), "truncated": False, "attempt_ids": [attempt],
            "scored_at": at + timedelta(seconds=30),
        },
    )  # fmt: skip


@contextlib.contextmanager
def examined(workspace: Workspace) -> Iterator[Callable[[], int]]:
    """Count what the document store looks at until the end of the block; call what is yielded.

    On MongoDB keys and documents, by its profiler; on SQLite steps of its virtual machine, of which each row
    looked at takes some.
    """
    uri = workspace.config.mongo_uri
    with _steps(workspace) if uri is None else _profiled(uri) as count:
        yield count


@contextlib.contextmanager
def _steps(workspace: Workspace) -> Iterator[Callable[[], int]]:
    documents: Any = workspace.documents
    calls = 0

    def handler() -> int:
        nonlocal calls
        calls += 1
        return 0

    with documents._connections.use() as connection:
        connection.set_progress_handler(handler, _STEPS)
    try:
        yield lambda: calls * _STEPS
    finally:
        with documents._connections.use() as connection:
            connection.set_progress_handler(None, 0)


@contextlib.contextmanager
def _profiled(uri: str) -> Iterator[Callable[[], int]]:
    with MongoClient(uri) as client:
        database = client.get_default_database()
        database.command("profile", 0)
        database.drop_collection("system.profile")
        database.create_collection("system.profile", capped=True, size=64 << 20)
        database.command("profile", 2)

        def count() -> int:
            found = database["system.profile"].find({"ns": {"$ne": f"{database.name}.system.profile"}})
            return sum(one.get("keysExamined", 0) + one.get("docsExamined", 0) for one in found)

        try:
            yield count
        finally:
            database.command("profile", 0)
