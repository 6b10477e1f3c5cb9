"""Paces in planning: what is left of a day, who waits for the next, and what is said of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from testbench_dagster.coordination.budgets import period_start
from testbench_dagster.coordination.pace import DayLedger
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.paces import how_long, used_up
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.rows import plan_rows
from testbench_dagster.stores.documents.collections import PLANS
from testbench_dagster_tests.stages.plan.stage import DOCS, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA

URL = "http://127.0.0.1:9/v1"


def suppliers(alpha: dict[str, Any] | None, beta: dict[str, Any] | None = None) -> dict[str, Any]:
    own = {"base_url": URL, "model": "m"}
    return {
        "suppliers": [
            {"address": "alpha", "api": "chat", **own, **({"pace": alpha} if alpha else {})},
            {"address": "beta", "api": "completions", **own, **({"pace": beta} if beta else {})},
        ]
    }


def sent(made: Stage, key: str, n: int, at: datetime = NOW) -> None:
    """So many requests of a supplier's day were granted."""
    settings = made.workspace.config.settings
    pace = settings.pace_of(next(s for s in active_suppliers(made.workspace) if s.key == key))
    assert pace is not None
    days = DayLedger(made.workspace.documents)
    while n > 0:
        hour, granted = days.grant(pace, at)
        assert granted
        days.give_back(pace, hour, max(0, granted - n))
        n -= granted


def due_at(made: Stage) -> dict[str, datetime]:
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    return {plan["_id"]: plan["due_at"] for plan in made.workspace.documents.find(PLANS)}


def test_no_more_is_released_than_the_day_leaves(stage: Any) -> None:
    made = stage(suppliers({"requests_per_day": 12}))
    sent(made, ALPHA, 5)
    shared = Planner(made.workspace, now=NOW).shared_plans(active_suppliers(made.workspace))
    assert shared.plans[ALPHA].n_calls == 7
    assert shared.plans[BETA].n_calls > 7
    positions = {doc.prompt.position for task in shared.plans[ALPHA].tasks.values() for doc in task.plan.due}
    assert positions == set(range(4))  # the first of both tasks


def test_who_shares_an_account_shares_its_day(stage: Any) -> None:
    pace = {"requests_per_day": 8, "account": "key"}
    made = stage(suppliers(pace, pace))
    shared = Planner(made.workspace, now=NOW).shared_plans(active_suppliers(made.workspace))
    assert [shared.plans[key].n_calls for key in (ALPHA, BETA)] == [4, 4]
    sent(made, ALPHA, 8)
    after = due_at(made)
    assert after[ALPHA] == after[BETA] == period_start("hour", NOW) + timedelta(hours=25)


def test_a_day_that_is_used_up_puts_its_supplier_off(stage: Any) -> None:
    made = stage(suppliers({"requests_per_day": 12, "requests_per_minute": 20}))
    assert due_at(made) == {ALPHA: NOW, BETA: NOW}
    assert used_up(made.workspace, active_suppliers(made.workspace), NOW) == []
    sent(made, ALPHA, 12, NOW - timedelta(hours=3))
    again = period_start("hour", NOW) + timedelta(hours=22)
    assert due_at(made) == {ALPHA: again, BETA: NOW}
    assert [one.key for one in due_suppliers(made.workspace, NOW)] == [BETA]
    assert {one.key for one in due_suppliers(made.workspace, again)} == {ALPHA, BETA}
    (told,) = used_up(made.workspace, active_suppliers(made.workspace), NOW)
    assert told == (
        "alpha@external is asked at its pace of 20 requests a minute, 12 a day, which is used up; "
        f"asked on from {again.astimezone():%Y-%m-%d %H:%M}"
    )
    shared = Planner(made.workspace, now=NOW).shared_plans(active_suppliers(made.workspace))
    assert shared.plans[ALPHA].n_calls == 0
    assert {d.state for d in shared.plans[ALPHA].tasks.values()} == {"capped"}


def test_plans_tell_the_pace_and_how_long_it_takes(stage: Any) -> None:
    made = stage(suppliers({"requests_per_minute": 20}))
    planned = plan_rows(made.workspace, active_suppliers(made.workspace))
    assert planned.paces == {
        f"supplier:{ALPHA}": f"{ALPHA} is asked at its pace of 20 requests a minute: "
        f"{2 * DOCS} relays take about 63 s"
    }
    roster = active_suppliers(made.workspace)
    (text,) = how_long(made.workspace, roster, {ALPHA: 1000}).values()
    assert text.endswith("1000 relays take about 52 min")
    (text,) = how_long(made.workspace, roster, {}).values()
    assert text.endswith("its pace of 20 requests a minute")


def test_a_changed_pace_outdates_kept_plans(stage: Any, tmp_path: Any) -> None:
    made = stage(suppliers({"requests_per_day": 4}))
    sent(made, ALPHA, 4)
    due_at(made)
    assert [one.key for one in due_suppliers(made.workspace, NOW)] == [BETA]
    other = stage(suppliers({"requests_per_day": 40}))
    assert {one.key for one in due_suppliers(other.workspace, NOW)} == {ALPHA, BETA}
