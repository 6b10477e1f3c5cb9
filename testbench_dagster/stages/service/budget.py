"""The budget of service probes: their own, per service and UTC day, beside the politeness of all relays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from testbench_dagster.config import Settings
from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.records.coordination import BudgetRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.relays.quotas import LedgerQuota, supplier_account
from testbench_dagster.stages.plan.remaining import attempts_since
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed


def probe_account(service: str) -> str:
    """Name of the account that a service's probes are spent from, by the day."""
    return f"probes:{service}"


def probe_quota(workspace: Workspace) -> LedgerQuota:
    """The caps on service probes, granted by the ledger that all processes share; whoever called closes it.

    The daily cap is ``service_probes.relays_per_day``, an account of its own: probes take nothing of
    ``budget.relays_per_day``. ``budget.relays_per_supplier_hour`` holds for probes and quality relays
    together.
    """
    documents, settings = workspace.documents, workspace.config.settings

    def spent_before(where: Mapping[str, Any], start: datetime) -> int:
        probes = typed.count(documents, ServiceProbeRecord, {**where, "finished_at": {"gte": start}})
        return probes + (attempts_since(documents, where, start) if "supplier" in where else 0)

    return LedgerQuota(
        BudgetLedger(documents),
        lambda service: settings.service_probes.relays_per_day,
        supplier_hour_cap=settings.budget.relays_per_supplier_hour,
        spent_before=spent_before,
        account=probe_account,
    )


def probes_left(documents: DocumentStore, settings: Settings, service: str, now: datetime) -> int | None:
    """Probes that may still be sent to a service this UTC day; None without a cap."""
    cap = settings.service_probes.relays_per_day
    if cap is None:
        return None
    return max(
        0, cap - (BudgetLedger(documents).spent(probe_account(service), period_start("day", now)) or 0)
    )


def asked_enough(
    documents: DocumentStore, settings: Settings, suppliers: Iterable[str], now: datetime
) -> set[str]:
    """Of some suppliers, by key, those that politeness lets be asked nothing more in this UTC hour."""
    cap = settings.budget.relays_per_supplier_hour
    if cap is None:
        return set()
    accounts = {supplier_account(key): key for key in suppliers}
    where = {"account": {"in": sorted(accounts)}, "period": period_start("hour", now)}
    return {accounts[row.account] for row in typed.find(documents, BudgetRecord, where) if row.granted >= cap}
