"""Stored answers of suppliers to probes and to docs of tasks, in the words of backends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import ATTEMPTS, IDENTITY_GROUPS, SCORES

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def key(name: str) -> str:
    return f"{name}@external"


def answer_prefix(backend: str, prompt: int) -> str:
    return f"{random.Random(f'{backend}{prompt}').getrandbits(120):030x} and so on"


def answer(
    workspace: Workspace,
    name: str,
    prompts: Sequence[int],
    backend: str,
    start: datetime,
    *,
    round_: int = 1,
    task: str = "identity",
    fault: str = "ok",
) -> None:
    """Stored attempts: one a minute, in the words of a backend."""
    workspace.documents.put_new(
        ATTEMPTS,
        [
            {
                "_id": document_id("attempt", name, task, prompt, round_, start.isoformat()),
                "supplier": key(name),
                "service": "external",
                "task": task,
                "task_hash": "h",
                "epoch": 1,
                "round": round_,
                "prompt_id": f"{task}-{prompt}",
                "position": prompt,
                "doc_id": prompt,
                "idx": 0,
                "repeat": 0,
                "attempt": 1,
                "fault": fault,
                "owner": "none" if fault == "ok" else "supplier",
                "status": 200,
                "finished_at": start + timedelta(minutes=number),
                "latency_ms": 5.0,
                "prompt_tokens": 1,
                "completion_tokens": 1,
                "opening": answer_prefix(backend, prompt) if fault == "ok" else None,
                "height": None,
                "lease": None,
            }
            for number, prompt in enumerate(prompts)
        ],
    )


def stored(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {d["_id"].partition("@")[0]: d for d in workspace.documents.find(IDENTITY_GROUPS)}


def graded(
    workspace: Workspace,
    registration: Registration,
    name: str,
    doc_id: int,
    value: float,
    text: str | None,
    at: datetime,
    *,
    round_: int = 1,
    scored_at: datetime | None = None,
) -> None:
    """A scored doc, with what the filter extracted of its answer; scored at once by default."""
    answer_id = document_id("answer", name, registration.task, doc_id, round_)
    record = {
        "_id": document_id("score", answer_id),
        "supplier": key(name),
        "service": "external",
        "task": registration.task,
        "task_hash": registration.task_hash,
        "epoch": 1,
        "round": round_,
        "position": doc_id,
        "doc_id": doc_id,
        "filter": "none",
        "answer_id": answer_id,
        "answered_at": at,
        "calls": 1,
        "scorer_version": scorer_version(registration),
        "metrics": {"exact_match": value},
        "error": None,
        "extracted": text,
        "prompt_id": f"{registration.task}-{doc_id}",
        "attempt_ids": [answer_id],
        "truncated": False,
        "latency_ms": 5.0,
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "scored_at": scored_at or at,
    }
    workspace.documents.put_new(SCORES, [record])
