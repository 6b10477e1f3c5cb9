"""Plans of suppliers that are not asked every task: gates, proxies, probes and cached plans."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.rows import plan_rows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, TAXONOMY_SUMMARIES
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, GATING, NOW
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, configuration


def tasks(gated: dict[str, Any] | None = None, gating: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [
        {"name": GATED, "samples": DOCS, **(gated or {})},
        {"name": GATING, "samples": DOCS, **(gating or {})},
    ]


def test_what_is_not_asked_is_in_no_plan_and_no_budget(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 12}}, tasks=tasks({"suppliers": ["beta@*"]}))
    assert made.states() == {GATED: ("not_applicable", 0), GATING: ("due", DOCS)}
    assert made.states(BETA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    planned = plan_rows(made.workspace, active_suppliers(made.workspace))
    docs = {(row["supplier"], row["task"]): row["docs"] for row in planned.rows}
    # of 12 relays alpha takes part in one task's places only; at each place the tasks by name
    assert docs == {(ALPHA, GATED): 0, (ALPHA, GATING): 4, (BETA, GATED): 4, (BETA, GATING): 4}
    first = planned.rows[0]
    assert (first["state"], first["target"], first["open"], first["due_at"]) == ("not_applicable", 0, 0, None)
    assert first["reason"] == f"the task's suppliers leave {ALPHA} out"


def test_a_newcomer_that_is_asked_nothing_takes_no_share_of_a_budget(stage: Any) -> None:
    nobody = {"suppliers": ["!alpha@*"]}
    made = stage({"budget": {"relays_per_day": 12}}, tasks=tasks(nobody, nobody))
    planner, beta = Planner(made.workspace, now=NOW), made.supplier(BETA)
    assert planner.quotas({BETA: planner.plan(beta)}, [beta]) == {BETA: 12}


def test_earlier_answers_to_it_ask_for_nothing_more(stage: Any) -> None:
    """Neither canaries nor open docs; and it goes on from them where it is asked again."""
    made = stage(tasks=tasks({"suppliers": ["beta@*"]}))
    made.answered(GATED, range(6), at=NOW - timedelta(hours=1))
    assert made.states() == {GATED: ("not_applicable", 0), GATING: ("due", DOCS)}
    plan = Planner(made.workspace, now=NOW).plan(made.supplier())
    assert not plan.canaries and not plan.spares
    config = configuration(made.workspace.config.path.parent, {"tasks": tasks()})
    with Workspace(config, documents=made.workspace.documents, datasets=made.workspace.datasets) as wider:
        again = Planner(wider, now=NOW).plan(made.supplier())
        assert (again.tasks[GATED].state, len(again.tasks[GATED].plan.due)) == ("due", DOCS - 6)


@pytest.mark.parametrize(
    "gate",
    [
        {"task": GATING, "is": "present"},
        {"task": GATING, "is": "ok"},
        {"task": GATING, "is": "equal", "value": 1.0},
        {"task": GATING, "pass": 0.9, "fail": 0.5},
        {"taxonomy": "starter", "node": "numeracy"},
    ],
)
def test_a_gate_on_what_is_not_asked_has_no_say(stage: Any, gate: dict[str, Any]) -> None:
    gated = {"planning": {"gates": [gate]}}
    made = stage({"taxonomies": ["builtin:starter"]}, tasks=tasks(gated, {"suppliers": ["beta@*"]}))
    assert made.states() == {GATED: ("due", DOCS), GATING: ("not_applicable", 0)}
    assert made.states(BETA) == {GATED: ("gated", 0), GATING: ("due", DOCS)}


def test_a_gate_on_an_ability_that_is_asked_in_part_holds(stage: Any) -> None:
    gate = {"taxonomy": "starter", "node": "numeracy", "min_score": 0.8}
    chosen = [*tasks({"planning": {"gates": [gate]}}, {"suppliers": ["beta@*"]}), {"name": "starter_units"}]
    made = stage({"taxonomies": ["builtin:starter"]}, tasks=chosen)
    assert made.states()[GATED] == ("gated", 0), "starter_units is asked, and in it"
    node = {
        "node": "numeracy", "status": "ok", "score": 0.9, "se": 0.03, "ci_low": 0.84, "ci_high": 0.94,
        "weights": {}, "n_tasks": 1, "n_measured": 1, "coverage": 1.0, "min_n": 30, "missing": [],
        "not_applicable": [GATING], "n": 100, "errors": 0,
    }  # fmt: skip
    row = {"_id": "s", "supplier": ALPHA, "taxonomy": "starter", "summarized_at": NOW, "score": 0.9}
    made.workspace.documents.upsert(
        TAXONOMY_SUMMARIES, [{**row, "root": "numeracy", "nodes": {"numeracy": node}}]
    )
    assert made.states()[GATED] == ("due", DOCS)


def test_nobody_stands_for_a_member_in_what_the_proxy_is_not_asked(stage: Any) -> None:
    chosen = tasks({"suppliers": ["alpha@*"]})
    made = stage({"planning": {"audit_docs": 2, "audit_hours": 24}}, tasks=chosen)
    made.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": key, "group": "g", "proxy": BETA, "members": [ALPHA, BETA]} for key in (ALPHA, BETA)],
    )
    assert made.states() == {GATED: ("due", DOCS), GATING: ("due", 2)}
    assert made.states(BETA) == {GATED: ("not_applicable", 0), GATING: ("due", DOCS)}


def test_a_cached_plan_is_made_anew_for_whom_the_patterns_changed_only(stage: Any) -> None:
    made = stage(tasks=tasks())
    for key in (ALPHA, BETA):
        for task in (GATED, GATING):
            made.answered(task, range(DOCS), supplier=key)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    assert due_suppliers(made.workspace, NOW) == []
    settings = {"tasks": tasks(gating={"services": ["external"], "suppliers": ["!alpha@*"]})}
    config = configuration(made.workspace.config.path.parent, settings)
    with Workspace(config, documents=made.workspace.documents, datasets=made.workspace.datasets) as changed:
        assert [due.key for due in due_suppliers(changed, NOW)] == [ALPHA]
        refresh_plans(changed, active_suppliers(changed), NOW)
        assert due_suppliers(changed, NOW) == [], "nor is it due again: what is not asked is not stale"
        (cached,) = typed.by_id(changed.documents, PlanRecord, [ALPHA]).values()
        assert cached.tasks is not None and cached.tasks[GATING].state == "not_applicable"
        assert due_suppliers(changed, NOW + timedelta(days=40)) != [], "the other task is"


def test_one_who_is_asked_nothing_is_never_due(stage: Any) -> None:
    made = stage(tasks=tasks({"suppliers": ["!alpha@*"]}, {"suppliers": ["!alpha@*"]}))
    refresh_plans(made.workspace, [made.supplier()], NOW)
    (cached,) = typed.by_id(made.workspace.documents, PlanRecord, [ALPHA]).values()
    assert (cached.due_at, cached.due_calls) == (None, 0)
    assert [due.key for due in due_suppliers(made.workspace, NOW + timedelta(days=99))] == [BETA]


def test_a_plan_says_why_a_choice_is_asked_in_no_form(stage: Any) -> None:
    """Who completes texts and does not echo takes neither log-probabilities nor letters."""
    choice = "starter_choice"
    made = stage({"choices_on_chat": True}, tasks=[{"name": choice, "samples": DOCS}])
    made.facts.registration(choice, n_docs=DOCS, output_type="multiple_choice")
    made.facts.on_roster(BETA, api="completions", echo_logprobs=False)
    rows = {
        (row["supplier"], row["task"]): (row["state"], row["reason"])
        for row in plan_rows(made.workspace, active_suppliers(made.workspace)).rows
    }
    asked = "its requests (multiple_choice) want log-probabilities of given texts, which"
    assert rows[ALPHA, choice] == ("unsupported", f"{asked} no chat API gives")
    assert rows[BETA, choice] == (
        "unsupported",
        f"{asked} the supplier does not echo; by letters (~chat) it is asked where api is chat",
    )
    assert rows[BETA, f"{choice}~chat"] == (
        "not_applicable",
        f"choices_on_chat is for chat, and the API of {BETA} is completions",
    )


def test_a_plan_says_that_letters_are_asked_as_a_chat(stage: Any) -> None:
    choice = "starter_choice"
    made = stage(tasks=[{"name": choice, "samples": DOCS, "mode": "chat_choice"}])
    made.facts.registration(f"{choice}~chat", n_docs=DOCS, forms=["chat"])
    made.facts.on_roster(BETA, api="completions")
    reasons = {
        row["supplier"]: row["reason"]
        for row in plan_rows(made.workspace, active_suppliers(made.workspace)).rows
    }
    assert reasons[BETA] == "it is asked as chat alone, and the supplier's API is completions"
