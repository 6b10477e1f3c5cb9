"""The collections the stages exchange, with the fields that queries may name.

Facts (never changed once written): ``prompts``, ``attempts``, ``scores``, ``epochs``.
Views (rebuilt from facts): ``taxonomy_summaries``, ``leaderboards``. Roster: ``suppliers``.
"""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.stores.documents.contract import Collection

SUPPLIERS = Collection(
    "suppliers",
    fields={
        "address": str,
        "service": str,
        "status": str,
        "joined_at": datetime,
        "left_at": datetime,
        "echo_logprobs": bool,
    },
    indexes=(("status",), ("service", "status")),
    unique=(("address", "service"),),
)

EPOCHS = Collection(
    "epochs",
    fields={"task": str, "epoch": int, "started_at": datetime},
    unique=(("task", "epoch"),),
)

PROMPTS = Collection(
    "prompts",
    fields={
        "task": str,
        "task_hash": str,
        "epoch": int,
        "api": str,
        "position": int,
        "doc_id": int,
        "doc_hash": str,
        "calls": int,
        "relayable": bool,
    },
    indexes=(("task", "task_hash", "epoch", "api", "position"),),
)

ATTEMPTS = Collection(
    "attempts",
    fields={
        "supplier": str,
        "service": str,
        "task": str,
        "task_hash": str,
        "epoch": int,
        "round": int,
        "prompt_id": str,
        "position": int,
        "doc_id": int,
        "idx": int,
        "repeat": int,
        "attempt": int,
        "fault": str,
        "owner": str,
        "status": int,
        "finished_at": datetime,
        "latency_ms": float,
        "prompt_tokens": int,
        "completion_tokens": int,
    },
    indexes=(
        ("supplier", "task", "task_hash", "epoch", "round"),
        ("service", "finished_at"),
        ("prompt_id",),
    ),
)

SCORES = Collection(
    "scores",
    fields={
        "supplier": str,
        "service": str,
        "task": str,
        "task_hash": str,
        "epoch": int,
        "round": int,
        "position": int,
        "doc_id": int,
        "filter": str,
        "answer_id": str,
        "answered_at": datetime,
        "scorer_version": str,
    },
    indexes=(("supplier", "task", "task_hash", "filter", "answered_at"), ("answer_id",)),
)

TAXONOMY_SUMMARIES = Collection(
    "taxonomy_summaries",
    fields={"supplier": str, "taxonomy": str, "summarized_at": datetime, "score": float},
    indexes=(("taxonomy",),),
    unique=(("supplier", "taxonomy"),),
)

LEADERBOARDS = Collection("leaderboards", fields={"taxonomy": str, "made_at": datetime})

ALL = (SUPPLIERS, EPOCHS, PROMPTS, ATTEMPTS, SCORES, TAXONOMY_SUMMARIES, LEADERBOARDS)
