"""Service probes as they are stored, made by hand: no supplier is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import numpy as np

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.workloads import WORKLOADS
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_NUMBERS = count()


def probe(supplier: str, at: datetime, workload: str = "short", **more: Any) -> ServiceProbeRecord:
    """A probe that ended then: answered with 301 tokens in 3.3 s, the first after 300 ms, unless told."""
    fault = Fault(more.pop("fault", "ok"))
    answered = fault.answered
    first_ms = more.pop("first_ms", 300.0)
    per_s = more.pop("per_s", 100.0)
    tokens = more.pop("tokens", 301)
    last_ms = first_ms + (tokens - 1) / per_s * 1000
    plain: dict[str, Any] = {
        "id": f"probe-{next(_NUMBERS)}",
        "supplier": supplier,
        "service": supplier.rpartition("@")[2],
        "workload": workload,
        "fault": fault.value,
        "owner": fault.owner.value,
        "started_at": at - timedelta(milliseconds=last_ms),
        "finished_at": at,
        "streamed": True,
        "own_in_flight": 1,
        "first_token_ms": first_ms if answered else None,
        "first_answer_ms": first_ms + 5 if answered else None,
        "ended_ms": last_ms + 1,
        "completion_tokens": tokens if answered else None,
        "tokens_source": "usage" if answered else None,
        "tokens_after_first": tokens - 1 if answered else None,
        "status": 200 if answered else 503,
        "connect_ms": 1.0,
        "connection_reused": False,
        "first_event_ms": first_ms if answered else None,
        "last_token_ms": last_ms if answered else None,
        "events": tokens if answered else None,
        "prompt_tokens": 100 if answered else None,
        "sent_tokens": WORKLOADS[workload].prompt_tokens or 8_000,
        "reasoning_tokens": None,
        "cached_tokens": None,
        "left_out": [],
        "finish_reason": "length" if answered else None,
        "text": "word " * 10 if answered else None,
        "text_sha256": "0" * 64 if answered else None,
        "error": None if answered else "unwell",
        "evidence": {},
    }
    return ServiceProbeRecord(**{**plain, **more})


def store(workspace: Workspace, probes: Iterable[ServiceProbeRecord]) -> int:
    return typed.put_new(workspace.documents, ServiceProbeRecord, probes)


def hourly(
    supplier: str, last: datetime, n: int, workload: str = "short", *, seed: int = 1, apart_h: float = 1.0
) -> Iterator[ServiceProbeRecord]:
    """So many answered probes, one every ``apart_h`` hours up to ``last``, log-normal with a sigma of .35."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        yield probe(
            supplier,
            last - timedelta(hours=apart_h * i),
            workload,
            first_ms=float(300 * rng.lognormal(0, 0.35)),
            per_s=float(100 * rng.lognormal(0, 0.35)),
        )
