"""Kept plans, and who is wanted by them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import HEIGHTS, PLANS
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, GATING, NOW
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, configuration


def test_a_kept_plan_says_when_the_next_evaluation_should_begin(stage: Any) -> None:
    made = stage({"sampling": {"max_age_days": 2}})
    for task in (GATED, GATING):
        made.answered(task, range(DOCS), at=NOW - timedelta(days=1))
    assert {w.key for w in due_suppliers(made.workspace, NOW)} == {ALPHA, BETA}, "never planned"
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plan = made.workspace.documents.get(PLANS, ALPHA)
    assert plan is not None
    assert (plan["due_calls"], plan["due_at"]) == (0, NOW + timedelta(days=1))
    assert plan["tasks"][GATED]["state"] == "fresh"
    assert [w.key for w in due_suppliers(made.workspace, NOW)] == [BETA]
    assert {w.key for w in due_suppliers(made.workspace, NOW + timedelta(days=1))} == {ALPHA, BETA}


def test_changed_rules_and_suppliers_outdate_kept_plans(stage: Any, tmp_path: Path) -> None:
    made = stage()
    for key in (ALPHA, BETA):
        for task in (GATED, GATING):
            made.answered(task, range(DOCS), supplier=key)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    assert due_suppliers(made.workspace, NOW) == []
    made.facts.on_roster(BETA, cut_at=NOW)
    assert [w.key for w in due_suppliers(made.workspace, NOW)] == [BETA]
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    other = Workspace(
        configuration(
            tmp_path, {"tasks": [{"name": GATED, "samples": 12}, {"name": GATING, "samples": DOCS}]}
        )
    )
    with other:
        assert {w.key for w in due_suppliers(other, NOW)} == {ALPHA, BETA}


def test_who_does_not_answer_is_asked_ever_more_rarely(stage: Any) -> None:
    made = stage({"planning": {"retry_minutes": 5, "retry_max_hours": 1}})
    waits = []
    for _ in range(6):
        record_progress(made.workspace, reached=[], failed={ALPHA: "none of 3 relays was settled"})
        refresh_plans(made.workspace, [made.supplier()])
        plan = made.workspace.documents.get(PLANS, ALPHA)
        assert plan is not None
        assert plan["problem"] == "none of 3 relays was settled"
        waits.append(round((plan["due_at"] - plan["planned_at"]).total_seconds() / 60))
    assert waits == [5, 10, 20, 40, 60, 60]
    assert ALPHA not in {w.key for w in due_suppliers(made.workspace)}
    record_progress(made.workspace, reached=[ALPHA], failed={})
    refresh_plans(made.workspace, [made.supplier()])
    assert ALPHA in {w.key for w in due_suppliers(made.workspace)}, "one answer ends it"


def test_the_height_of_the_service_makes_a_plan_due(stage: Any) -> None:
    made = stage()
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    later = NOW + timedelta(days=3)
    for key in (ALPHA, BETA):
        made.workspace.documents.claim(PLANS, {"_id": key}, {"due_at": later, "due_height": 120})
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 119, "at": NOW}])
    assert due_suppliers(made.workspace, NOW) == []
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 120, "at": NOW}])
    assert len(due_suppliers(made.workspace, NOW)) == 2
