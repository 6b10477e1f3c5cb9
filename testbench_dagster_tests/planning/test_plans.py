"""The planning stage over stored facts: kept plans, who is wanted, fair shares of what a budget leaves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger, next_period, period_start
from testbench_dagster.network.roster import Supplier, active_suppliers
from testbench_dagster.planning.plans import (
    Planner,
    budget_left,
    note_progress,
    refresh_plans,
    wanted_suppliers,
)
from testbench_dagster.relays.allowances import service_account, supplier_account
from testbench_dagster.relays.faults import Fault
from testbench_dagster.stores.datasets import Registration
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import (
    EPOCHS,
    HEIGHTS,
    IDENTITY_GROUPS,
    PLANS,
    PROMPTS,
    TAXONOMY_SUMMARIES,
)
from testbench_dagster.workspace import Workspace
from testbench_dagster_tests.scoring.facts import ALPHA, BETA, Facts, configuration

GATED, GATING = "starter_logic", "starter_arithmetic"
NOW = datetime.now(UTC).replace(microsecond=0)
DOCS = 10


class Stage:
    """An installation whose two tasks have prompts for both request forms, in epoch 1."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], tasks: list[dict[str, Any]] | None = None
    ) -> None:
        chosen = tasks or [{"name": GATED, "samples": DOCS}, {"name": GATING, "samples": DOCS}]
        self.workspace = Workspace(configuration(folder, {"tasks": chosen, **settings}))
        self.facts = Facts(self.workspace)
        self.registrations: dict[str, Registration] = {}
        for task in (GATED, GATING):
            self.registrations[task] = self.facts.registration(task, n_docs=50)
            self.epoch(task, 1)
        for key in (ALPHA, BETA):
            self.facts.on_roster(key)

    def epoch(self, task: str, number: int, order: list[int] | None = None) -> None:
        """Start an epoch and store its first prompts."""
        registration = self.registrations[task]
        documents = self.workspace.documents
        documents.upsert(
            EPOCHS,
            [
                {
                    "_id": document_id("epoch", task, number),
                    "task": task,
                    "epoch": number,
                    "seed": f"seed {number}",
                    "started_at": NOW,
                }
            ],
        )
        for api in ("chat", "completions"):
            documents.upsert(
                PROMPTS,
                [
                    {
                        "_id": f"{task}-{number}-{api}-{doc}",
                        "task": task,
                        "task_hash": registration.task_hash,
                        "epoch": number,
                        "api": api,
                        "position": position,
                        "doc_id": doc,
                        "doc_hash": "",
                        "calls": 1,
                        "relayable": True,
                    }
                    for position, doc in enumerate(order or range(DOCS))
                ],
            )

    def answered(
        self,
        task: str,
        docs: range,
        at: datetime = NOW,
        supplier: str = ALPHA,
        epoch: int = 1,
        value: float = 1.0,
    ) -> None:
        """Attempts and scores of some docs."""
        api = "chat" if supplier == ALPHA else "completions"
        for doc in docs:
            self.facts.attempt(
                self.registrations[task],
                doc,
                at=at,
                supplier=supplier,
                prompt_id=f"{task}-{epoch}-{api}-{doc}",
                epoch=epoch,
                text="x",
            )
            self.facts.score(self.registrations[task], doc, value, at, supplier=supplier, epoch=epoch)

    def supplier(self, key: str = ALPHA) -> Supplier:
        return next(s for s in active_suppliers(self.workspace) if s.key == key)

    def states(self, key: str = ALPHA, **options: Any) -> dict[str, tuple[str, int]]:
        """State and number of due docs by task."""
        plan = Planner(self.workspace, now=NOW, **options).plan(self.supplier(key))
        return {name: (d.state, len(d.plan.due)) for name, d in plan.tasks.items()}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Any]:
    made: list[Stage] = []

    def make(settings: dict[str, Any] | None = None, **options: Any) -> Stage:
        made.append(Stage(tmp_path, settings or {}, **options))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()


def test_what_is_not_answered_is_due(stage: Any) -> None:
    made = stage()
    assert made.states() == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    made.answered(GATED, range(4))
    assert made.states() == {GATED: ("due", DOCS - 4), GATING: ("due", DOCS)}
    assert made.states(BETA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    assert made.states(tasks=[GATED]) == {GATED: ("due", DOCS - 4)}


def test_answers_of_an_earlier_epoch_count_while_they_are_fresh(stage: Any) -> None:
    made = stage({"sampling": {"max_age_days": 1}})
    made.answered(GATED, range(4), at=NOW - timedelta(hours=2))
    made.answered(GATED, range(4, 8), at=NOW - timedelta(hours=30))
    made.epoch(GATED, 2, order=list(range(20, 30)))
    assert made.states()[GATED] == ("due", DOCS - 4)


def test_answers_before_a_change_of_the_model_are_void(stage: Any) -> None:
    made = stage()
    made.answered(GATED, range(DOCS), at=NOW - timedelta(hours=2))
    assert made.states()[GATED] == ("fresh", 0)
    made.facts.on_roster(ALPHA, cut_at=NOW - timedelta(hours=1))
    assert made.states()[GATED] == ("due", DOCS)


def test_a_task_has_its_own_age(stage: Any) -> None:
    tasks = [
        {"name": GATED, "samples": DOCS, "planning": {"max_age_days": 1}},
        {"name": GATING, "samples": DOCS},
    ]
    made = stage(tasks=tasks)
    for task in (GATED, GATING):
        made.answered(task, range(DOCS), at=NOW - timedelta(days=2))
    assert made.states() == {GATED: ("due", DOCS), GATING: ("fresh", 0)}


def test_a_gate_looks_at_the_other_task(stage: Any) -> None:
    tasks = [
        {
            "name": GATED,
            "samples": DOCS,
            "planning": {"gates": [{"task": GATING, "pass": 0.9, "fail": 0.5, "alpha": 0.05, "beta": 0.05}]},
        },
        {"name": GATING, "samples": {"min": 2, "max": DOCS, "half_width": 0.4}},
    ]
    made = stage(tasks=tasks)
    assert made.states()[GATED] == ("gated", 0)
    made.answered(GATING, range(3))
    assert made.states()[GATED] == ("gated", 0)
    # it would have docs enough for its own rule, were the gate decided
    assert made.states()[GATING] == ("due", DOCS - 3)
    made.answered(GATING, range(3, 7))
    assert made.states() == {GATED: ("due", DOCS), GATING: ("fresh", 0)}
    assert made.states(tasks=[GATED]) == {GATED: ("due", DOCS)}, "also where the gating task is not chosen"


@pytest.mark.parametrize(
    ("changes", "opens"),
    [
        ({}, True),
        ({"score": 0.7}, False),
        ({"errors": 60}, False),
        ({"min_n": 9}, False),
        ({"n_measured": 1}, False),
        ({"age_days": 40}, False),
    ],
)
def test_an_ability_opens_a_gate(stage: Any, changes: dict[str, Any], opens: bool) -> None:
    gate = {"taxonomy": "starter", "min_score": 0.8, "min_success": 0.8, "min_samples": 10}
    tasks = [
        # a second configuration of a task, which is no part of the taxonomy it waits for
        {"name": GATED, "alias": "apart", "samples": DOCS, "planning": {"gates": [gate]}},
        {"name": GATED, "samples": DOCS},
        {"name": GATING, "samples": DOCS},
    ]
    made = stage({"taxonomies": ["builtin:starter"]}, tasks=tasks)
    made.registrations["apart"] = made.facts.registration("apart", n_docs=50)
    made.epoch("apart", 1)
    node = {"score": 0.9, "n": 100, "errors": 10, "min_n": 30, "n_measured": 2, "n_tasks": 2, **changes}
    made.workspace.documents.upsert(
        TAXONOMY_SUMMARIES,
        [
            {
                "_id": "summary",
                "supplier": ALPHA,
                "taxonomy": "starter",
                "summarized_at": NOW - timedelta(days=changes.get("age_days", 1)),
                "score": node["score"],
                "root": "root",
                "nodes": {"root": node},
            }
        ],
    )
    assert made.states()["apart"][0] == ("due" if opens else "gated")


def test_a_schedule_counts_blocks_of_the_service(stage: Any) -> None:
    settings = {
        "supplier_sources": [{"file": "roster.json"}],
        "planning": {"schedule": {"every": 2, "unit": "session"}, "blocks_per_session": 10},
    }
    made = stage(settings)
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 119, "at": NOW}])
    registration = made.registrations[GATED]
    made.facts.attempt(registration, 0, at=NOW, prompt_id=f"{GATED}-1-chat-0", text="x")
    assert made.states()[GATED] == ("due", DOCS - 1), "a sample without a height does not block for good"
    made.facts.attempt(registration, 1, at=NOW, prompt_id=f"{GATED}-1-chat-1", text="x", height=100)
    assert made.states()[GATED] == ("scheduled", 0)
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 120, "at": NOW}])
    assert made.states()[GATED] == ("due", DOCS - 2)


def test_a_member_is_only_audited_while_its_proxy_lives(stage: Any) -> None:
    made = stage({"planning": {"audit_docs": 2, "audit_hours": 24}})
    made.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": ALPHA, "group": "g", "proxy": BETA}, {"_id": BETA, "group": "g", "proxy": BETA}],
    )
    assert made.states() == {GATED: ("due", 2), GATING: ("due", 2)}
    made.answered(GATED, range(2), at=NOW - timedelta(hours=1))
    assert made.states()[GATED] == ("represented", 0)
    assert made.states(BETA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}, "the proxy is asked in full"
    kept = {"_id": BETA, "service": "external", "planned_at": NOW, "failures": 3, "due_calls": 0}
    made.workspace.documents.upsert(PLANS, [kept])
    assert made.states()[GATED] == ("due", DOCS - 2), "a proxy that does not answer stands for nobody"


# ----------------------------------------------------------------------------------------------- kept plans


def test_a_kept_plan_says_when_the_next_evaluation_should_begin(stage: Any) -> None:
    made = stage({"sampling": {"max_age_days": 2}})
    for task in (GATED, GATING):
        made.answered(task, range(DOCS), at=NOW - timedelta(days=1))
    assert {w.key for w in wanted_suppliers(made.workspace, NOW)} == {ALPHA, BETA}, "never planned"
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plan = made.workspace.documents.get(PLANS, ALPHA)
    assert plan is not None
    assert (plan["due_calls"], plan["due_at"]) == (0, NOW + timedelta(days=1))
    assert plan["tasks"][GATED]["state"] == "fresh"
    assert [w.key for w in wanted_suppliers(made.workspace, NOW)] == [BETA]
    assert {w.key for w in wanted_suppliers(made.workspace, NOW + timedelta(days=1))} == {ALPHA, BETA}


def test_changed_rules_and_suppliers_outdate_kept_plans(stage: Any, tmp_path: Path) -> None:
    made = stage()
    for key in (ALPHA, BETA):
        for task in (GATED, GATING):
            made.answered(task, range(DOCS), supplier=key)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    assert wanted_suppliers(made.workspace, NOW) == []
    made.facts.on_roster(BETA, cut_at=NOW)
    assert [w.key for w in wanted_suppliers(made.workspace, NOW)] == [BETA]
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    other = Workspace(
        configuration(
            tmp_path, {"tasks": [{"name": GATED, "samples": 12}, {"name": GATING, "samples": DOCS}]}
        )
    )
    with other:
        assert {w.key for w in wanted_suppliers(other, NOW)} == {ALPHA, BETA}


def test_who_does_not_answer_is_asked_ever_more_rarely(stage: Any) -> None:
    made = stage({"planning": {"retry_minutes": 5, "retry_max_hours": 1}})
    waits = []
    for _ in range(6):
        note_progress(made.workspace, reached=[], failed={ALPHA: "none of 3 relays was settled"})
        refresh_plans(made.workspace, [made.supplier()])
        plan = made.workspace.documents.get(PLANS, ALPHA)
        assert plan is not None
        assert plan["problem"] == "none of 3 relays was settled"
        waits.append(round((plan["due_at"] - plan["planned_at"]).total_seconds() / 60))
    assert waits == [5, 10, 20, 40, 60, 60]
    assert ALPHA not in {w.key for w in wanted_suppliers(made.workspace)}
    note_progress(made.workspace, reached=[ALPHA], failed={})
    refresh_plans(made.workspace, [made.supplier()])
    assert ALPHA in {w.key for w in wanted_suppliers(made.workspace)}, "one answer ends it"


def test_the_height_of_the_service_makes_a_plan_due(stage: Any) -> None:
    made = stage()
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    later = NOW + timedelta(days=3)
    for key in (ALPHA, BETA):
        made.workspace.documents.claim(PLANS, {"_id": key}, {"due_at": later, "due_height": 120})
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 119, "at": NOW}])
    assert wanted_suppliers(made.workspace, NOW) == []
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 120, "at": NOW}])
    assert len(wanted_suppliers(made.workspace, NOW)) == 2


# -------------------------------------------------------------------------------------------------- budgets


def test_a_spent_budget_puts_everyone_off_until_the_next_day(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 30}})
    assert budget_left(made.workspace, "external", NOW) == 30
    made.answered(GATED, range(4))
    assert budget_left(made.workspace, "external", NOW) == 26, "before the ledger knows, attempts are counted"
    ledger = BudgetLedger(made.workspace.documents)
    assert ledger.grant(service_account("external"), period_start("day", NOW), 30, 30, lambda: 4) == 26
    assert budget_left(made.workspace, "external", NOW) == 0
    assert wanted_suppliers(made.workspace, NOW) == []
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


def test_what_was_asked_today_counts_towards_the_share(stage: Any) -> None:
    made = stage({"budget": {"relays_per_day": 12}})
    registration = made.registrations[GATED]
    for doc in range(4):
        made.facts.attempt(registration, doc, Fault.OK, NOW, prompt_id=f"{GATED}-1-chat-{doc}")
    ledger = BudgetLedger(made.workspace.documents)
    ledger.grant(service_account("external"), period_start("day", NOW), 12, 4)
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
    registration = made.registrations[GATED]
    for doc in range(4):
        made.facts.attempt(registration, doc, Fault.OK, NOW, prompt_id=f"{GATED}-1-chat-{doc}")
    ledger = BudgetLedger(made.workspace.documents)
    ledger.grant(service_account("external"), period_start("day", NOW), 8, 4)
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    plans = {p["_id"]: p["due_at"] for p in made.workspace.documents.find(PLANS)}
    wait = timedelta(minutes=made.workspace.config.settings.planning.retry_minutes)
    assert plans == {ALPHA: NOW + wait, BETA: NOW}


def test_without_a_cap_there_are_no_quotas(stage: Any) -> None:
    made = stage()
    planner = Planner(made.workspace, now=NOW)
    assert planner.quotas({ALPHA: planner.plan(made.supplier())}, [made.supplier()]) == {}


def test_faults_that_settle_nothing_leave_the_doc_due(stage: Any) -> None:
    made = stage()
    made.facts.attempt(made.registrations[GATED], 0, Fault.TRANSPORT, NOW, prompt_id=f"{GATED}-1-chat-0")
    assert made.states()[GATED] == ("due", DOCS)
    made.facts.attempt(made.registrations[GATED], 1, Fault.SUPPLIER_HTTP, NOW, prompt_id=f"{GATED}-1-chat-1")
    assert made.states()[GATED] == ("due", DOCS - 1)
