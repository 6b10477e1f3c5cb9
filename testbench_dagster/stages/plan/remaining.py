"""What is left of the budgets: relays and money for a service this day, relays to a supplier this hour."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from testbench_dagster.config.settings import BudgetSettings, Settings
from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.price import Price
from testbench_dagster.core.records.attempts import AttemptRecord, TokensOfSupplier
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.relays.money import MoneyQuota, estimated_account, money_account
from testbench_dagster.relays.quotas import LedgerQuota, service_account, supplier_account
from testbench_dagster.stages.discover.roster import known_suppliers, named_suppliers
from testbench_dagster.stages.workspace import Workspace
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


#: Tokens of a prompt, or of an answer, that a day which began before its budget of money counts at most: of
#: what was reserved for a relay then nothing is known, and what its supplier said is its word.
MOST_BELIEVED = 200_000


@dataclass(frozen=True, slots=True)
class MoneyLeft:
    """A service's money of a UTC day, in millionths of the currency.

    ``spent`` is what was granted: what relays came to, and what is reserved for those that may be under way.
    ``estimated`` of it rests on no count of tokens by a supplier.
    """

    cap: int
    spent: int
    estimated: int

    @property
    def left(self) -> int:
        """What may still be granted."""
        return max(0, self.cap - self.spent)


def counted_price(settings: Settings, supplier: Supplier) -> Price | None:
    """The price of a supplier that counts against the budget of money; None where it costs nothing of it.

    That of testbench.yaml, and that of a source whose prices are trusted: else a supplier could use the
    budget up by a price of its own.
    """
    if supplier.source == CONFIG_SOURCE:
        return supplier.price
    trusted = {source.label for source in settings.supplier_sources if source.trust_prices}
    return supplier.price if supplier.source in trusted else None


def counted_prices(settings: Settings, suppliers: Iterable[Supplier]) -> dict[str, Price]:
    """The prices that count, by supplier key; who has none is left out."""
    prices = {supplier.key: counted_price(settings, supplier) for supplier in suppliers}
    return {key: price for key, price in prices.items() if price is not None}


def money_left(workspace: Workspace, service: str, now: datetime) -> MoneyLeft | None:
    """A service's money of this UTC day; None without a cap."""
    cap = workspace.config.settings.budget.money_of_service(service)
    if cap is None:
        return None
    start, ledger = period_start("day", now), BudgetLedger(workspace.documents)
    spent = ledger.spent(money_account(service), start)
    if spent is None:
        spent = _cost_since(workspace, service, start)
    return MoneyLeft(cap, spent, ledger.spent(estimated_account(service), start) or 0)


def money_quota(workspace: Workspace, keys: Collection[str]) -> MoneyQuota | None:
    """The caps on money of relays to suppliers, granted by the ledger that all processes share.

    Whoever called closes it.

    None where nothing is capped.
    """
    budget = workspace.config.settings.budget
    if budget.money_per_day is None and not budget.money_services:
        return None
    prices = counted_prices(workspace.config.settings, named_suppliers(workspace, keys))
    return MoneyQuota(
        BudgetLedger(workspace.documents),
        budget.money_of_service,
        prices,
        spent_before=partial(_cost_since, workspace),
    )


def _cost_since(workspace: Workspace, service: str, start: datetime) -> int:
    """What a service's stored attempts cost since an instant, by the tokens that were reported.

    Reads the whole roster; a day's account begins with it, and is kept from then on.
    """
    prices = counted_prices(workspace.config.settings, known_suppliers(workspace))
    believed = {"gte": 0, "lte": MOST_BELIEVED}
    where = {
        "service": service,
        "finished_at": {"gte": start},
        "prompt_tokens": believed,
        "completion_tokens": believed,
    }
    return sum(
        prices[row.supplier].micros_of(row.sum_prompt_tokens or 0, row.sum_completion_tokens or 0)
        for row in typed.group(workspace.documents, TokensOfSupplier, where)
        if row.supplier in prices
    )


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
