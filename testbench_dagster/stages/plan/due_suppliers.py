"""Who is to be asked now, and who waits for a session: from the cached plans, in one row per supplier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.records.plans import DuePlan, SpentSession
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.plan_cache import (
    restricted_tasks,
    settings_fingerprint,
    supplier_fingerprint,
)
from testbench_dagster.stages.plan.remaining import budget_left, money_left
from testbench_dagster.stages.plan.sessions import Sessions, spent_until
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


@dataclass(frozen=True)
class DueSupplier:
    """A supplier whose evaluation should begin; ``version`` changes when it has been planned anew."""

    key: str
    version: str


def due_suppliers(workspace: Workspace, now: datetime | None = None) -> list[DueSupplier]:
    """The active suppliers whose cached plan is due, outdated or missing, in the order of the roster.

    Reads one row per supplier and a handful per service, no attempts: 5,000 suppliers take well under a
    second. Suppliers of a service whose budget of the day is spent are left out until the next day, those
    for whose next relay it left too little money until it leaves as much, those that no session lets be
    reached until one does.
    """
    now = now or datetime.now(UTC)
    cached = {plan.id: plan for plan in typed.find(workspace.documents, DuePlan)}
    sessions = Sessions.read(workspace, now)
    fingerprint, budget = settings_fingerprint(workspace), workspace.config.settings.budget
    restricted = restricted_tasks(workspace)
    broke: dict[str, bool] = {}
    money: dict[str, int | None] = {}
    found = []
    for supplier in active_suppliers(workspace):
        plan = cached.get(supplier.key)
        height = sessions.height(supplier.service)
        if not _is_due(plan, supplier_fingerprint(fingerprint, supplier, restricted), height, now):
            continue
        if sessions.waiting(supplier, spent_until(plan)) is not None:
            continue
        if supplier.service not in broke:
            broke[supplier.service] = budget_left(workspace.documents, budget, supplier.service, now) == 0
        needed = None if plan is None else plan.money_needed
        if needed is not None and not broke[supplier.service]:
            if supplier.service not in money:
                capped = money_left(workspace, supplier.service, now)
                money[supplier.service] = None if capped is None else capped.left
            left = money[supplier.service]
            if left is not None and left < needed:
                continue
        if not broke[supplier.service]:
            version = str(plan.planned_at) if plan else f"new {supplier.joined_at}"
            found.append(DueSupplier(supplier.key, version))
    return found


def waiting_suppliers(
    workspace: Workspace, suppliers: Iterable[Supplier], now: datetime | None = None
) -> dict[str, str]:
    """Why suppliers cannot be asked now for want of a session, by key; the others are left out."""
    now = now or datetime.now(UTC)
    sessions = Sessions.read(workspace, now)
    asked = list(suppliers)
    plans = typed.by_id(workspace.documents, SpentSession, [supplier.key for supplier in asked])
    spent = {key: plan.session_spent_until for key, plan in plans.items()}
    told = {s.key: sessions.waiting(s, spent.get(s.key)) for s in asked}
    return {key: reason for key, reason in told.items() if reason is not None}


def _is_due(plan: DuePlan | None, fingerprint: str, height: int | None, now: datetime) -> bool:
    if plan is None or is_ahead(plan.planned_at, now):
        return True
    if plan.fingerprint != fingerprint and not plan.failures:
        return True
    if plan.due_height is not None and height is not None and plan.due_height <= height:
        return True
    return plan.due_at is not None and plan.due_at <= now
