"""Days of facts made in bulk: for benchmarks/export.py and a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

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
