"""What would be relayed now, and why each other task is not due, in one row per supplier and task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.sampling import predicted_half_width
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.planning.supplier import Decision, SupplierFacts, SupplierPlan
from testbench_dagster.stages.plan.costs import fill_in_costs
from testbench_dagster.stages.plan.estimate import Estimates
from testbench_dagster.stages.plan.money import MoneyOfService, money_of_services
from testbench_dagster.stages.plan.paces import how_long
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class PlanRows:
    """The rows, the relays they come to, and what is left of the day's budget of each service with a cap.

    Canaries are among the relays: a row says how many of them ask docs of its task again. ``paces`` says, by
    account, who is asked at a pace and how long that takes. ``estimated`` of the relays are those of tasks
    that are not prepared yet. ``cost`` is that of all relays whose cost is known, None where that is none of
    them; of ``uncosted`` of the relays it is not.
    ``money`` is that of the day of each service with a budget of it.
    """

    rows: list[dict[str, Any]]
    calls: int
    estimated: int
    left: Mapping[str, int]
    paces: Mapping[str, str]
    cost: float | None
    uncosted: int
    money: Mapping[str, MoneyOfService]


#: Columns of a plan's rows, with their types.
PLAN_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("supplier", "model", "task", "state"), str),
    **dict.fromkeys(("docs", "calls", "canaries", "fresh", "open", "target", "round"), int),
    **dict.fromkeys(("half_width", "buys", "cost"), float),
    "cost_from": str,
    "due_at": datetime,
    "due_height": int,
    "estimated": bool,
    "unpriced": bool,
    **dict.fromkeys(("reason", "supplier_reason"), str),
}


def plan_rows(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    *,
    tasks: Sequence[str] | None = None,
    budget: int | None = None,
) -> PlanRows:
    """Plan the suppliers within their fair shares of a budget, by default of what is left of the day's.

    Of tasks that are not prepared yet the rows estimate what will be asked, outside of any budget.

    Raises:
        ConfigError: a task is not configured.
    """
    planner = Planner(workspace, tasks=tasks, with_windows=True)
    shared = planner.shared_plans(suppliers, budget=budget)
    plans = shared.plans
    rows = [
        _row(s, plans[s.key], shared.facts[s.key], plans[s.key].tasks[spec.name])
        for s in suppliers
        for spec in planner.specs
    ]
    guessed = _estimate(planner, suppliers, shared.facts, rows)
    uncosted = fill_in_costs(workspace, suppliers, shared.facts, rows, planner.now)
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    left = {
        service: relays
        for service in sorted({s.service for s in suppliers})
        if (
            relays := budget_left(workspace.documents, workspace.config.settings.budget, service, planner.now)
        )
        is not None
    }
    calls = {key: plan.n_calls + guessed[key] for key, plan in plans.items()}
    paces = how_long(workspace, suppliers, calls)
    cost = sum(costs) if costs else None
    money = money_of_services(workspace, suppliers, planner.now, rows)
    return PlanRows(rows, sum(calls.values()), sum(guessed.values()), left, paces, cost, uncosted, money)


def _estimate(
    planner: Planner,
    suppliers: Sequence[Supplier],
    facts: Mapping[str, SupplierFacts],
    rows: Iterable[dict[str, Any]],
) -> Counter[str]:
    """Fill in what tasks without a registration will ask; return how many calls of whom."""
    specs = {spec.name: spec for spec in planner.specs}
    asked = {supplier.key: supplier for supplier in suppliers}
    unprepared = [
        row
        for row in rows
        if row["state"] == "no_prompts"
        and not (task := facts[row["supplier"]].tasks[row["task"]]).registered
        and task.set_aside is None
    ]
    names = dict.fromkeys(row["task"] for row in unprepared)
    probes = {name: planner.probes(specs[name]) for name in names if specs[name].probes_by_roster}
    estimates = Estimates([specs[name] for name in names], probes)
    calls: Counter[str] = Counter()
    for row in unprepared:
        task = facts[row["supplier"]].tasks[row["task"]]
        found = estimates.of(asked[row["supplier"]], specs[row["task"]], task)
        row |= {"docs": found.docs, "calls": found.calls, "target": found.docs, "reason": found.reason}
        row |= {"estimated": True, "unpriced": found.unpriced}
        calls[row["supplier"]] += found.calls
    return calls


def _row(supplier: Supplier, plan: SupplierPlan, facts: SupplierFacts, decision: Decision) -> dict[str, Any]:
    task = facts.tasks[decision.task]
    measured, has_score = (
        task.measured,
        not task.needs_own_answers,
    )  # a signature is no score: it has no interval
    docs = len(decision.plan.due)
    return {
        "supplier": plan.supplier,
        "model": supplier.model,
        "task": decision.task,
        "state": decision.state,
        "docs": docs,
        "calls": decision.plan.n_calls,
        "canaries": sum(canary.task == decision.task for canary in plan.canaries),
        "fresh": decision.plan.fresh,
        "open": decision.plan.open,
        "target": decision.plan.target,
        "round": decision.plan.round,
        "half_width": predicted_half_width(measured, 0) if measured.n and has_score else None,
        "buys": predicted_half_width(measured, docs) if docs and has_score else None,
        "due_at": decision.due_at and decision.due_at.replace(microsecond=0),
        "due_height": decision.due_height,
        "reason": decision.reason,
        "supplier_reason": plan.reason or None,
        "estimated": False,
        "unpriced": False,
        "cost": None,
        "cost_from": None,
    }
