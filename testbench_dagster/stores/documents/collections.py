"""The collections the stages exchange, with the fields that queries may name.

Facts (never changed once written): ``prompts``, ``attempts``, ``scores``, ``epochs``, ``changes``,
``signatures``, ``supplier_snapshots``.
Views (rebuilt from facts): ``windows``, ``taxonomy_summaries``, ``leaderboards``, ``plans``,
``identity_groups``.
Roster: ``suppliers``, ``heights``, ``sessions``. Coordination of processes: ``heartbeats``, ``leases``,
``budgets``.
"""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.stores.documents.contract import Collection

SUPPLIERS = SupplierRecord.collection
HEIGHTS = HeightRecord.collection
SESSIONS = SessionRecord.collection
EPOCHS = EpochRecord.collection
PROMPTS = PromptRecord.collection
ATTEMPTS = AttemptRecord.collection
SCORES = ScoreRecord.collection

WINDOWS = Collection("windows", fields={"token": str, "kept_at": datetime})
"""One per supplier (its ``_id``): the kept rows of its tasks, and who writes facts of which tasks now."""

TAXONOMY_SUMMARIES = Collection(
    "taxonomy_summaries",
    fields={"supplier": str, "taxonomy": str, "summarized_at": datetime, "score": float},
    indexes=(("taxonomy",),),
    unique=(("supplier", "taxonomy"),),
)

LEADERBOARDS = Collection("leaderboards", fields={"taxonomy": str, "made_at": datetime})

SUPPLIER_SNAPSHOTS = Collection(
    "supplier_snapshots",
    fields={"supplier": str, "day": str, "taken_at": datetime},
    indexes=(("day",), ("supplier", "day")),
)

PLANS = PlanRecord.collection

IDENTITY_GROUPS = Collection(
    "identity_groups",
    fields={"service": str, "group": str, "proxy": str, "cut_at": datetime},
    indexes=(("proxy",), ("service",)),
)
"""One per compared supplier (its ``_id``): its group, alone or with others, and who stands for it."""

SIGNATURES = Collection(
    "signatures", fields={"task": str, "first_seen_at": datetime, "supplier": str}, indexes=(("task",),)
)
"""Facts: one per distinct signature of a task (``task:signature``), what it stands for and who showed it."""

CHANGES = Collection(
    "changes",
    fields={
        "supplier": str,
        "service": str,
        "kind": str,
        "task": str,
        "at": datetime,
        "detected_at": datetime,
        "cut": bool,
    },
    indexes=(("supplier", "at"), ("detected_at",)),
)
"""Facts: one per detected change of what a supplier answers, dated by its answers, with the evidence."""

HEARTBEATS = Collection("heartbeats", fields={"expires_at": datetime, "host": str})
"""One per process that works on suppliers (its ``_id``): alive until ``expires_at``, renewed before."""

LEASES = Collection("leases", fields={"holder": str, "token": int}, indexes=(("holder",),))
"""One per supplier (its ``_id``): who may relay to it; the token grows with every new holder."""

BUDGETS = Collection(
    "budgets",
    fields={"account": str, "period": datetime, "granted": int},
    indexes=(("account", "period"), ("period",)),
)
"""One per account and period: relays granted to processes, before they are sent."""

ALL = (
    SUPPLIERS,
    HEIGHTS,
    SESSIONS,
    EPOCHS,
    PROMPTS,
    ATTEMPTS,
    SCORES,
    WINDOWS,
    TAXONOMY_SUMMARIES,
    LEADERBOARDS,
    SUPPLIER_SNAPSHOTS,
    PLANS,
    IDENTITY_GROUPS,
    SIGNATURES,
    CHANGES,
    HEARTBEATS,
    LEASES,
    BUDGETS,
)
