"""Kept plans, and who is wanted by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.lanes import LaneEndRecord, LeftTask
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.open_docs import OpenDocs, open_docs
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
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


def test_plans_keep_what_is_open_and_what_a_run_left_behind(stage: Any) -> None:
    made = stage()
    registration = made.registrations[GATED]
    for doc, fault in enumerate((Fault.TRANSPORT, Fault.TRANSPORT, Fault.RATE_LIMITED)):
        made.facts.attempt(registration, doc, fault, NOW, prompt_id=f"{GATED}-1-chat-{doc}")
    made.answered(GATED, range(3, 5), at=NOW)
    left = LeftTask(
        task=GATED, task_hash=registration.task_hash, epoch=1, round=1,
        doc_ids=[4, 5, 6], positions=[4, 5, 6],
    )  # fmt: skip
    end = LaneEndRecord(
        id="end", supplier=ALPHA, service="external", lease=1, ended_at=NOW, fault="transport",
        why="", waited_s=60.0, left=(left,),
    )  # fmt: skip
    typed.put_new(made.workspace.documents, LaneEndRecord, [end])
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    (row,) = open_docs(made.workspace, [ALPHA, BETA])
    assert row == OpenDocs(ALPHA, 5, {"transport": 2, "rate_limited": 1}, NOW, left=2), "one was asked since"
    assert str(row) == f"5 of {ALPHA} (transport x 2, rate_limited x 1, 2 not asked yet)"
    assert open_docs(made.workspace, [ALPHA], [GATING]) == []
    assert open_docs(made.workspace, [BETA]) == []


def test_who_was_left_has_its_next_turn_with_the_second_occasion_of_a_doc(stage: Any) -> None:
    made = stage({"planning": {"retry_minutes": 1}})
    began = datetime.now(UTC).replace(microsecond=0)
    record_progress(made.workspace, [ALPHA], {BETA: "nothing"}, left={ALPHA: "503", BETA: "503"})
    refresh_plans(made.workspace, active_suppliers(made.workspace))
    plans = {p["_id"]: p["due_at"] - began for p in made.workspace.documents.find(PLANS)}
    assert timedelta(minutes=15) <= plans[ALPHA] < timedelta(minutes=16), "it answered something"
    assert timedelta(minutes=1) <= plans[BETA] < timedelta(minutes=2), "who answers nothing is tried sooner"
