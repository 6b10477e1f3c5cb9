"""What is left of the budgets: relays to a service this day, to a supplier this hour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.relays.quotas import service_account, supplier_account
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


def budget_left(workspace: Workspace, service: str, now: datetime) -> int | None:
    """Relays left to a service this UTC day; None without a cap."""
    cap = workspace.config.settings.budget.of_service(service)
    if cap is None:
        return None
    account, start = service_account(service), period_start("day", now)
    spent = BudgetLedger(workspace.documents).spent(account, start)
    if spent is None:
        spent = attempts_since(workspace, {"service": service}, start)
    return max(0, cap - spent)


def politeness_left(workspace: Workspace, key: str, now: datetime) -> int | None:
    """Relays left to a supplier this UTC hour; None without a cap."""
    cap = workspace.config.settings.budget.relays_per_supplier_hour
    if cap is None:
        return None
    spent = BudgetLedger(workspace.documents).spent(supplier_account(key), period_start("hour", now))
    return max(0, cap - (spent or 0))


def attempts_since(workspace: Workspace, where: Mapping[str, Any], start: datetime) -> int:
    """Stored attempts of a service or supplier since an instant: what a new budget period begins with."""
    return typed.count(workspace.documents, AttemptRecord, {**where, "finished_at": {"gte": start}})
