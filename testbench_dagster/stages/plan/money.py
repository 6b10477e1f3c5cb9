"""What a plan, a check and the end of a run say of the budget of money: what is left, and who waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.coordination.budgets import next_period
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.price import from_micros
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import are, counted, money
from testbench_dagster.stages.plan.remaining import counted_prices, money_left
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Suppliers that are told by key.
_TOLD = 5


@dataclass(frozen=True)
class MoneyOfService:
    """A service's money of this UTC day, in the currency of the prices.

    ``spent`` holds what is reserved for relays that may be under way, and ``estimated`` of it rests on no
    count of tokens by a supplier. ``needed`` is about what the planned relays cost whose cost is known.
    ``unpriced`` are suppliers that cost nothing of it, as no price of theirs counts; ``untrusted`` of them
    have one that their source lists.
    """

    cap: float
    spent: float
    estimated: float
    left: float
    needed: float
    unpriced: tuple[str, ...]
    untrusted: tuple[str, ...]

    @property
    def words(self) -> str:
        """What is left, and of what."""
        guessed = f", {money(self.estimated)} of what is spent an estimate" if self.estimated else ""
        return f"{money(self.left)} of {money(self.cap)} is left of today's budget of money{guessed}"

    @property
    def who_is_free(self) -> str:
        """Who costs nothing of it, and why; empty where that is nobody."""
        if not self.unpriced:
            return ""
        named = ", ".join(self.unpriced[:_TOLD]) + (", …" if len(self.unpriced) > _TOLD else "")
        n = len(self.unpriced)
        told = (
            f"{counted(n, 'supplier')} without a price that counts {'costs' if n == 1 else 'cost'} nothing "
            f"of it: {named}"
        )
        if self.untrusted:
            listed = len(self.untrusted)
            told += (
                f" ({listed} of them {are(listed)} listed with one by a source; trust_prices: true there has "
                "it count)"
            )
        return told


def money_of_services(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    now: datetime,
    rows: Iterable[Mapping[str, Any]] = (),
) -> dict[str, MoneyOfService]:
    """By service with a cap what these suppliers' money of the day is; ``rows`` are those of a plan."""
    prices = counted_prices(workspace.config.settings, suppliers)
    costs: dict[str, float] = {}
    for row in rows:
        if row["cost"] is not None and row["supplier"] in prices:
            costs[row["supplier"]] = costs.get(row["supplier"], 0.0) + row["cost"]
    found = {}
    for service in sorted({supplier.service for supplier in suppliers}):
        capped = money_left(workspace, service, now)
        if capped is None:
            continue
        own = [supplier for supplier in suppliers if supplier.service == service]
        free = [supplier for supplier in own if supplier.key not in prices]
        found[service] = MoneyOfService(
            from_micros(capped.cap),
            from_micros(capped.spent),
            from_micros(capped.estimated),
            from_micros(capped.left),
            sum(costs.get(supplier.key, 0.0) for supplier in own),
            tuple(supplier.key for supplier in free),
            tuple(supplier.key for supplier in free if supplier.price is not None),
        )
    return found


def money_findings(workspace: Workspace, suppliers: Sequence[Supplier], now: datetime) -> Iterator[Finding]:
    """What is left of budgets of money, and a warning where suppliers cost nothing of one."""
    for service, of_service in money_of_services(workspace, suppliers, now).items():
        free = of_service.who_is_free
        told = f"{of_service.words}; {free}" if free else of_service.words
        yield Finding(f"money of {service}", told, ok=not free, warning=bool(free))


def out_of_money(
    workspace: Workspace, suppliers: Sequence[Supplier], now: datetime, ended: Collection[str] = ()
) -> list[str]:
    """Whose due calls wait because the day's money leaves less than their next relay can cost, by service.

    ``ended`` are suppliers whose turn in a run it ended, or cut.
    """
    plans = typed.by_id(workspace.documents, PlanRecord, [supplier.key for supplier in suppliers])
    due = [plan for _, plan in sorted(plans.items()) if plan.due_calls]
    told = []
    for service in sorted({plan.service for plan in due}):
        capped = money_left(workspace, service, now)
        if capped is None:
            continue
        own = [plan for plan in due if plan.service == service]
        short = [plan for plan in own if (plan.money_needed or 0) > capped.left]
        waiting = [plan for plan in own if plan in short or plan.id in ended]
        if not waiting:
            continue
        left = f"{money(from_micros(capped.left))} of {money(from_micros(capped.cap))} is left today"
        when = "the next run goes on with what is left, and `testbench up` does so by itself"
        if len(short) == len(waiting):
            least = min(plan.money_needed or 0 for plan in short)
            left += f", and a next relay can cost {money(from_micros(least))}"
            until = next_period("day", now).astimezone()
            when = (
                f"they are asked from {until:%Y-%m-%d %H:%M} on, or once budget.money_per_day (or "
                "money_services) is more"
            )
            if least > capped.cap:
                when = "the whole day's budget is less: raise budget.money_per_day (or money_services)"
        named = ", ".join(f"{plan.due_calls} of {plan.id}" for plan in waiting[:_TOLD])
        more = f", and those of {len(waiting) - _TOLD} more" if len(waiting) > _TOLD else ""
        calls = sum(plan.due_calls or 0 for plan in waiting)
        told.append(
            f"the budget of money of {service} ended it: {left}; {counted(calls, 'call')} "
            f"{'waits' if calls == 1 else 'wait'} for that ({named}{more}), which is ours and counts against "
            f"nobody; {when}"
        )
    return told
