"""A score that no store holds says so in its place: one supplier's long answer stops nobody's scoring."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.stages.score.batch import storable
from testbench_dagster.stores.documents import typed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECORD = ScoreRecord(
    id="s", supplier="a@external", service="external", task="t", task_hash="h", epoch=1, round=1, position=0,
    doc_id=0, filter="none", answer_id="x", answered_at=NOW, calls=1, scorer_version="v", metrics={},
    error=None, prompt_id="p", attempt_ids=["x"], truncated=False, latency_ms=1.0, prompt_tokens=None,
    completion_tokens=None, scored_at=NOW,
)  # fmt: skip


@pytest.mark.parametrize(
    "metrics",
    [
        {"bleu": ["gold", "a" * (8 << 20)], "chrf": ["gold", "a" * (8 << 20)], "ter": ["gold", "b"]},
        {"deep": {"a": [{"b": "c" * (17 << 20)}]}},
    ],
)
def test_metrics_that_quote_too_long_an_answer_are_unscorable(metrics: dict[str, Any]) -> None:
    large = replace(RECORD, id="large", metrics=metrics, extracted="a")
    small = replace(RECORD, metrics={"bleu": ["gold", "a" * (2 << 20)]})
    kept, other = storable([large, small])
    assert kept.error is not None and kept.error.startswith("unscorable: ")
    assert "a document may take at most" in kept.error and (kept.metrics, kept.extracted) == ({}, None)
    assert typed.unstorable(kept) is None and other == small
