"""What the stored attempts say about a supplier and task: the last attempt of every call, no bodies read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from testbench_dagster.planning.due import CallOutcome
from testbench_dagster.relays.faults import Fault
from testbench_dagster.stores.documents import Document, DocumentStore
from testbench_dagster.stores.documents.collections import ATTEMPTS

_FIELDS = (
    "_id",
    "service",
    "prompt_id",
    "doc_id",
    "position",
    "epoch",
    "round",
    "idx",
    "repeat",
    "attempt",
    "fault",
    "finished_at",
    "latency_ms",
    "prompt_tokens",
    "completion_tokens",
)


def last_attempts(
    documents: DocumentStore,
    supplier: str,
    task: str,
    task_hash: str,
    epoch: int | None = None,
    since: datetime | None = None,
) -> dict[tuple[str, int, int, int], Document]:
    """Last attempt per call, keyed (prompt id, round, idx, repeat); declared fields only.

    With ``since`` only calls whose last attempt finished after it.
    """
    where: Document = {"supplier": supplier, "task": task, "task_hash": task_hash}
    if epoch is not None:
        where["epoch"] = epoch
    if since is not None:
        where["finished_at"] = {"gt": since}
    last: dict[tuple[str, int, int, int], Document] = {}
    for attempt in documents.find(ATTEMPTS, where, fields=_FIELDS):
        key = (attempt["prompt_id"], attempt["round"], attempt["idx"], attempt["repeat"])
        known = last.get(key)
        if known is None or known["attempt"] < attempt["attempt"]:
            last[key] = attempt
    return last


def call_outcomes(
    documents: DocumentStore, supplier: str, task: str, task_hash: str, epoch: int
) -> Iterator[CallOutcome]:
    """The same as the planner wants it."""
    for attempt in last_attempts(documents, supplier, task, task_hash, epoch).values():
        yield CallOutcome(
            prompt_id=attempt["prompt_id"],
            idx=attempt["idx"],
            repeat=attempt["repeat"],
            attempt=attempt["attempt"],
            fault=Fault(attempt["fault"]),
            finished_at=attempt["finished_at"],
            round=attempt["round"],
        )
