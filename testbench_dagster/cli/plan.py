"""Command ``plan``: what would be relayed now, why the rest is not due, and what a budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from testbench_dagster.cli.evaluate import chosen_suppliers
from testbench_dagster.cli.output import emit, format_option, note
from testbench_dagster.core.sampling import predicted_half_width
from testbench_dagster.planning.supplier import Decision, SupplierFacts, SupplierPlan
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster.stages.workspace import Workspace

_COLUMNS = (
    "supplier",
    "task",
    "state",
    "docs",
    "calls",
    "fresh",
    "target",
    "half_width",
    "buys",
    "due_at",
    "reason",
)


@click.command()
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.option(
    "--budget",
    type=click.IntRange(min=0),
    metavar="N",
    help="Share N relays fairly and show the interval widths they buy (default: what is left of the day's).",
)
@click.option("--due", "only_due", is_flag=True, help="Leave out what is not due.")
@format_option
@click.pass_obj
def plan(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    budget: int | None,
    only_due: bool,
    format_: str,
) -> None:
    """Show what would be relayed now, and why each other task is not due. Sends nothing.

    `half_width` is that of the present 95 % interval of the primary score, `buys` the one to expect once the
    planned docs are answered at the present score.
    """
    with Workspace.open(config) as workspace:
        rows, calls = planned_rows(workspace, suppliers, tasks, budget)
    if only_due:
        rows = [row for row in rows if row["docs"]]
    emit(rows, format_, _COLUMNS, "Plan")
    if format_ == "table":
        note(f"{calls} relays would be sent now{'' if budget is None else f', of a budget of {budget}'}")


def planned_rows(
    workspace: Workspace, suppliers: Sequence[str], tasks: Sequence[str], budget: int | None
) -> tuple[list[dict[str, Any]], int]:
    """One row per supplier and task, and the number of relays in all.

    Raises:
        ConfigError: a supplier is not on the roster, or a task is not configured.
    """
    chosen = chosen_suppliers(workspace, suppliers)
    planner = Planner(workspace, tasks=tasks or None, with_windows=True)
    shared = planner.shared_plans(chosen, budget=budget)
    plans = shared.plans
    rows = [
        _row(plans[s.key], shared.facts[s.key], plans[s.key].tasks[spec.name])
        for s in chosen
        for spec in planner.specs
    ]
    if budget is None:
        _note_budgets(workspace, {s.service for s in chosen}, planner.now)
    return rows, sum(p.n_calls for p in plans.values())


def _row(plan: SupplierPlan, facts: SupplierFacts, decision: Decision) -> dict[str, Any]:
    task = facts.tasks[decision.task]
    measured, has_score = task.measured, not task.personal  # a signature is no score: it has no interval
    docs = len(decision.plan.due)
    return {
        "supplier": plan.supplier,
        "task": decision.task,
        "state": decision.state,
        "docs": docs,
        "calls": decision.plan.n_calls,
        "fresh": decision.plan.fresh,
        "target": decision.plan.target,
        "round": decision.plan.round,
        "half_width": predicted_half_width(measured, 0) if measured.n and has_score else None,
        "buys": predicted_half_width(measured, docs) if docs and has_score else None,
        "due_at": decision.due_at and decision.due_at.replace(microsecond=0),
        "due_height": decision.due_height,
        "reason": decision.reason,
        "supplier_reason": plan.reason or None,
    }


def _note_budgets(workspace: Workspace, services: set[str], now: datetime) -> None:
    for service in sorted(services):
        left = budget_left(workspace, service, now)
        if left is not None:
            note(f"{service}: {left} relays are left of today's budget")
