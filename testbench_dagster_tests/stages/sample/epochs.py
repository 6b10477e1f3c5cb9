"""Stored epochs, as tests want them."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.stores.documents import DocumentStore, document_id, typed


def stored_epoch(
    documents: DocumentStore, task: str, number: int, at: datetime, roll_before: datetime | None = None
) -> None:
    """Store an epoch that was started at an instant, by whatever clock."""
    made = EpochRecord(
        id=document_id("epoch", task, number),
        task=task,
        epoch=number,
        started_at=at,
        seed=f"seed {number}",
        seed_sha256="",
        roll_before=roll_before,
    )
    typed.put_new(documents, EpochRecord, [made])
