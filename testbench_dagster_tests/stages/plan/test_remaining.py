"""What a budget leaves, and the fair shares of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from testbench_dagster.coordination.budgets import BudgetLedger, next_period, period_start
from testbench_dagster.core.faults import Fault
from testbench_dagster.relays.quotas import service_account, supplier_account
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster.stores.documents.collections import PLANS
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA


def test_a_spent_budget_puts_everyone_off_until_the_next_day(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 30}})
    assert budget_left(made.workspace.documents, made.workspace.config.settings.budget, "external", NOW) == 30
    made.answered(GATED, range(4))
    assert (
        budget_left(made.workspace.documents, made.workspace.config.settings.budget, "external", NOW) == 26
    ), "before the ledger knows, attempts are counted"
    ledger = BudgetLedger(made.workspace.documents)
    assert ledger.grant(service_account("external"), period_start("day", NOW), 30, 30, lambda: 4) == 26
    assert budget_left(made.workspace.documents, made.workspace.config.settings.budget, "external", NOW) == 0
    assert due_suppliers(made.workspace, NOW) == []
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plan = made.workspace.documents.get(PLANS, ALPHA)
    assert plan is not None
    assert plan["due_at"] == next_period("day", NOW)
    assert plan["due_calls"] == 2 * DOCS - 4


def test_politeness_puts_one_supplier_off_until_the_next_hour(stage: Any) -> None:
    made = stage({"budget": {"relays_per_supplier_hour": 5}})
    ledger = BudgetLedger(made.workspace.documents)
    ledger.grant(supplier_account(ALPHA), period_start("hour", NOW), 5, 5)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plans = {p["_id"]: p["due_at"] for p in made.workspace.documents.find(PLANS)}
    assert plans == {ALPHA: next_period("hour", NOW), BETA: NOW}


def test_shares_take_everyone_who_is_due_into_account(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 20, "services": {"other": 7}}})
    planner = Planner(made.workspace, now=NOW)
    alpha = made.supplier()
    plans = {ALPHA: planner.plan(alpha)}
    assert plans[ALPHA].n_calls == 2 * DOCS
    # beta is in no run yet and was never planned: half the budget is its
    assert planner.quotas(plans, [alpha]) == {ALPHA: 10}
    kept = {
        "_id": BETA,
        "service": "external",
        "planned_at": NOW,
        "due_at": NOW,
        "due_calls": 4,
        "failures": 0,
    }
    made.workspace.documents.upsert(PLANS, [kept])
    assert Planner(made.workspace, now=NOW).quotas(plans, [alpha]) == {ALPHA: 16}
    made.workspace.documents.upsert(PLANS, [{**kept, "due_at": NOW + timedelta(hours=1)}])
    assert Planner(made.workspace, now=NOW).quotas(plans, [alpha]) == {ALPHA: 20}, "beta is not due"
    assert made.workspace.config.settings.budget.of_service("other") == 7


def asked_four(made: Stage, cap: int) -> None:
    """The first supplier was asked four docs of a day's budget."""
    for doc in range(4):
        prompt = f"{GATED}-1-chat-{doc}"
        made.facts.attempt(made.registrations[GATED], doc, Fault.OK, NOW, prompt_id=prompt)
    ledger = BudgetLedger(made.workspace.documents)
    ledger.grant(service_account("external"), period_start("day", NOW), cap, 4)


def test_what_was_asked_today_counts_towards_the_share(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 12}})
    asked_four(made, 12)
    suppliers = active_suppliers(made.workspace)
    planner = Planner(made.workspace, now=NOW)
    plans = {s.key: planner.plan(s) for s in suppliers}
    # eight are left of twelve: six for each over the day
    assert planner.quotas(plans, suppliers) == {ALPHA: 2, BETA: 6}
    # yesterday's do not count
    later = Planner(made.workspace, now=NOW + timedelta(days=1))
    assert later.quotas(plans, suppliers) == {ALPHA: 6, BETA: 6}


def test_who_had_its_share_lets_the_others_get_theirs_first(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 8}})
    asked_four(made, 8)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plans = {p["_id"]: p["due_at"] for p in made.workspace.documents.find(PLANS)}
    wait = timedelta(minutes=made.workspace.config.settings.planning.retry_minutes)
    assert plans == {ALPHA: NOW + wait, BETA: NOW}


def test_without_a_cap_there_are_no_quotas(stage: Any) -> None:
    made = stage()
    planner = Planner(made.workspace, now=NOW)
    assert planner.quotas({ALPHA: planner.plan(made.supplier())}, [made.supplier()]) == {}
