"""Stored findings on public questions and fresh ones, for tests of what shows them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.score.facts import Facts

TASK = "twins_starter"
CONFIGURED = {"name": TASK, "framework": "twins"}
FOUND = (
    "better on public questions than on fresh ones of the kind: 98% of public and 61% of fresh ones right in "
    "200 pairs, +2.91 logits (1.80 to 4.40) beside 7 peers"
)


def paired(workspace: Workspace) -> Registration:
    """A registered task in pairs."""
    plain = Facts(workspace).registration(TASK, n_docs=20, metrics={"exact": "mean"}, filters=("flexible",))
    flags = replace(plain.flags, pairs=True, questions_of_epoch=True)
    docs = list(workspace.datasets.docs(plain.task_hash))
    workspace.datasets.register(replace(plain, flags=flags, task_hash="of twins"), docs, [])
    stored = workspace.datasets.current(TASK)
    assert stored is not None
    return stored


def gap(name: str, **changes: Any) -> PublicGapRecord:
    """A finding on a supplier; without changes it is no better on public questions."""
    said: dict[str, Any] = {
        "id": f"gap of {name} {changes.get('epoch', 3)}",
        "supplier": f"{name}@external",
        "service": "external",
        "task": TASK,
        "task_hash": "of twins",
        "epoch": 3,
        "compared_at": datetime(2026, 3, 1, tzinfo=UTC),
        "verdict": "not better",
        "flagged": False,
        "finding": "no better on public questions than on fresh ones of the kind: 70% of both",
        "why": None,
        "final": True,
        "made_by": "1/twins",
        "n_pairs": 200,
        "n_open": 0,
        "both": 100,
        "public_only": 40,
        "fresh_only": 39,
        "neither": 21,
        "failed_public": 0,
        "failed_fresh": 0,
        "public_share": 0.7,
        "fresh_share": 0.695,
        "peers": 7,
        "peers_public_only": 280,
        "peers_fresh_only": 275,
        "peers_public_share": 0.71,
        "peers_fresh_share": 0.705,
        "peers_shift": 0.018,
        "peers_shift_error": 0.085,
        "known_shift": 0.018,
        "known_shift_error": 0.085,
        "excess": 0.01,
        "excess_low": -0.4,
        "excess_high": 0.42,
        "p": 1.0,
    }
    return PublicGapRecord(**{**said, **changes})


def flagged(name: str) -> PublicGapRecord:
    """A supplier of which two epochs say that it is better on public questions."""
    return gap(
        name,
        verdict="better",
        flagged=True,
        finding=FOUND,
        public_share=0.98,
        fresh_share=0.61,
        excess=2.91,
        excess_low=1.8,
        excess_high=4.4,
        p=1e-9,
    )


def store(workspace: Workspace, *records: PublicGapRecord) -> None:
    typed.upsert(workspace.documents, PublicGapRecord, records)
