"""What would be relayed now, and why each other task is not due, in one row per supplier and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbench_dagster.core.sampling import predicted_half_width
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.planning.supplier import Decision, SupplierFacts, SupplierPlan
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class PlanRows:
    """The rows, the relays they come to, and what is left of the day's budget of each service with a cap.

    Canaries are among the relays: a row says how many of them ask docs of its task again.
    """

    rows: list[dict[str, Any]]
    calls: int
    left: Mapping[str, int]


def plan_rows(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    *,
    tasks: Sequence[str] | None = None,
    budget: int | None = None,
) -> PlanRows:
    """Plan the suppliers within their fair shares of a budget, by default of what is left of the day's.

    Raises:
        ConfigError: a task is not configured.
    """
    planner = Planner(workspace, tasks=tasks, with_windows=True)
    shared = planner.shared_plans(suppliers, budget=budget)
    plans = shared.plans
    rows = [
        _row(plans[s.key], shared.facts[s.key], plans[s.key].tasks[spec.name])
        for s in suppliers
        for spec in planner.specs
    ]
    left = {
        service: relays
        for service in sorted({s.service for s in suppliers})
        if (
            relays := budget_left(workspace.documents, workspace.config.settings.budget, service, planner.now)
        )
        is not None
    }
    return PlanRows(rows, sum(p.n_calls for p in plans.values()), left)


def _row(plan: SupplierPlan, facts: SupplierFacts, decision: Decision) -> dict[str, Any]:
    task = facts.tasks[decision.task]
    measured, has_score = (
        task.measured,
        not task.needs_own_answers,
    )  # a signature is no score: it has no interval
    docs = len(decision.plan.due)
    return {
        "supplier": plan.supplier,
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
    }
