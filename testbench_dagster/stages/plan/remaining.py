"""What is left of the budgets: relays to a service this day, to a supplier this hour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from testbench_dagster.config.settings import BudgetSettings
from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.relays.quotas import LedgerQuota, service_account, supplier_account
from testbench_dagster.stores.documents import DocumentStore, typed


def budget_left(documents: DocumentStore, budget: BudgetSettings, service: str, now: datetime) -> int | None:
    """Relays left to a service this UTC day; None without a cap."""
    cap = budget.of_service(service)
    if cap is None:
        return None
    account, start = service_account(service), period_start("day", now)
    spent = BudgetLedger(documents).spent(account, start)
    if spent is None:
        spent = attempts_since(documents, {"service": service}, start)
    return max(0, cap - spent)


def politeness_left(documents: DocumentStore, budget: BudgetSettings, key: str, now: datetime) -> int | None:
    """Relays left to a supplier this UTC hour; None without a cap."""
    cap = budget.relays_per_supplier_hour
    if cap is None:
        return None
    spent = BudgetLedger(documents).spent(supplier_account(key), period_start("hour", now))
    return max(0, cap - (spent or 0))


def attempts_since(documents: DocumentStore, where: Mapping[str, Any], start: datetime) -> int:
    """Stored attempts of a service or supplier since an instant: what a new budget period begins with."""
    return typed.count(documents, AttemptRecord, {**where, "finished_at": {"gte": start}})


def ledger_quota(documents: DocumentStore, budget: BudgetSettings) -> LedgerQuota:
    """The caps of the settings, granted by the ledger that all processes share; whoever called closes it."""
    return LedgerQuota(
        BudgetLedger(documents),
        budget.of_service,
        supplier_hour_cap=budget.relays_per_supplier_hour,
        spent_before=partial(attempts_since, documents),
    )
