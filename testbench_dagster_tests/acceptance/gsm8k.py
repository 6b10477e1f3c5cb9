"""What the tests that break things share: GSM8K on recorded systems, judged by the authors' flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.stores.documents.collections import SCORES
from testbench_dagster_tests.tasks.layouts import SHARED, shared_rows

TASK = "gsm8k"
ALL = 1319
FILTERS = ("flexible-extract", "strict-match")


def settings(suppliers: Mapping[str, str], docs: int = ALL, **blocks: Any) -> dict[str, Any]:
    """A configuration: suppliers by address and base URL, ``docs`` of the questions; blocks are added."""
    return {
        "suppliers": [
            {"address": address, "base_url": url, "model": "replay"} for address, url in suppliers.items()
        ],
        "tasks": [
            {
                "name": TASK,
                "num_fewshot": 5,
                "metric": "exact_match",
                "filter": "flexible-extract",
                "data": {s: str(SHARED / f"data/gsm8k/{s}.jsonl.gz") for s in ("train", "test")},
                "samples": "all" if docs == ALL else {"min": docs, "max": docs, "half_width": None},
            }
        ],
        "sampling": {"window": docs},
        **blocks,
    }


def flags(system: str) -> dict[int, float]:
    """The authors' verdict by doc id: the independent check of every score."""
    rows = shared_rows("gsm8k/openai_model_solutions.jsonl.gz")
    return {doc_id: float(row[system]["is_correct"]) for doc_id, row in enumerate(rows)}


def verdicts(documents: DocumentStore, address: str, name: str = "flexible-extract") -> dict[int, float]:
    """The stored verdicts of a supplier by doc id; a doc scored twice fails the test."""
    found: dict[int, float] = {}
    for score in documents.find(SCORES, {"supplier": f"{address}@external", "filter": name}):
        assert score["doc_id"] not in found, f"doc {score['doc_id']} of {address} is scored twice"
        assert score["error"] is None
        found[score["doc_id"]] = score["metrics"]["exact_match"]
    return found


def primary(rows: list[dict[str, Any]], address: str) -> dict[str, Any]:
    """The row of a supplier's primary metric and filter."""
    (row,) = [r for r in rows if r["address"] == address and r["primary"]]
    return row
