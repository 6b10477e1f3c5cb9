"""Stored service probes, as tests want them."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.stores.documents import DocumentStore, typed


def stored_probe(
    documents: DocumentStore,
    supplier: str,
    at: datetime,
    workload: str = "short",
    fault: Fault = Fault.OK,
    **fields: Any,
) -> ServiceProbeRecord:
    """Store a probe that ended at an instant; one that answered took 200 ms for 50 tokens."""
    answered = fault.answered
    values: dict[str, Any] = {
        "id": secrets.token_hex(12),
        "supplier": supplier,
        "service": supplier.rpartition("@")[2],
        "workload": workload,
        "fault": fault.value,
        "owner": fault.owner.value,
        "started_at": at - timedelta(milliseconds=200),
        "finished_at": at,
        "streamed": True,
        "own_in_flight": 1,
        "first_token_ms": 50.0 if answered else None,
        "first_answer_ms": 50.0 if answered else None,
        "ended_ms": 200.0,
        "completion_tokens": 50 if answered else None,
        "tokens_source": "usage" if answered else None,
        "status": 200 if answered else None,
        "connect_ms": 1.0,
        "connection_reused": False,
        "first_event_ms": 45.0 if answered else None,
        "last_token_ms": 198.0 if answered else None,
        "events": 52 if answered else None,
        "prompt_tokens": 100 if answered else None,
        "sent_tokens": 100,
        "reasoning_tokens": None,
        "cached_tokens": None,
        "left_out": [],
        "finish_reason": "length" if answered else None,
        "text": "words" if answered else None,
        "text_sha256": None,
        "error": None if answered else "it did not answer",
        "evidence": {},
    }
    made = ServiceProbeRecord(**(values | fields))
    typed.put_new(documents, ServiceProbeRecord, [made])
    return made
