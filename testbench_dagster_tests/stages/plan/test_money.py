"""Plans within a budget of money: the same first docs for all, by what answers took so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.relays.money import estimated_account, money_account
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.rows import plan_rows
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA

PRICES = {"alpha": {"prompt": 2.0, "completion": 10.0}, "beta": {"prompt": 4.0, "completion": 20.0}}
ASKED = 4
CALL = (100 * 2 + 5 * 10) / 1e6  # of alpha's; beta costs twice as much


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))


def made(folder: Path, money: float, tokens: tuple[int | None, int | None] = (100, 5)) -> Stage:
    """Two suppliers that answered four docs of ten, at the cost above where they report tokens."""
    base = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    suppliers = [
        {**base, "address": "alpha", "api": "chat", "price": PRICES["alpha"]},
        {**base, "address": "beta", "api": "completions", "price": PRICES["beta"]},
    ]
    budget = {"money_per_day": money}
    stage = Stage(folder, {"suppliers": suppliers, "budget": budget}, [{"name": GATED, "samples": DOCS}])
    for key, api in ((ALPHA, "chat"), (BETA, "completions")):
        for doc in range(ASKED):
            stage.facts.score(stage.registrations[GATED], doc, 1.0, NOW, supplier=key, tokens=tokens)
            stage.facts.attempt(
                stage.registrations[GATED],
                doc,
                at=NOW,
                supplier=key,
                prompt_id=f"{GATED}-1-{api}-{doc}",
                text="x",
                tokens=tokens,
            )
    return stage


def docs(stage: Stage) -> dict[str, int]:
    suppliers = active_suppliers(stage.workspace)
    planned = Planner(stage.workspace, now=NOW).shared_plans(suppliers).plans
    return {key: len(plan.tasks[GATED].plan.due) for key, plan in planned.items()}


def spend(stage: Stage, micros: int) -> None:
    BudgetLedger(stage.workspace.documents).grant(
        money_account("external"), period_start("day", NOW), 10**12, micros
    )


def test_all_get_the_same_first_docs_whatever_they_cost(tmp_path: Path) -> None:
    stage = made(tmp_path, 100)
    spend(stage, int(1e8 - 6 * 3 * CALL * 1e6))  # six docs of both are left, and that is all of them
    assert docs(stage) == {ALPHA: 6, BETA: 6}
    spend(stage, int(3 * 3 * CALL * 1e6))
    # and one more, so that the relay stage finds out to whom the rest reaches
    assert docs(stage) == {ALPHA: 4, BETA: 4}
    shared = Planner(stage.workspace, now=NOW).shared_plans(active_suppliers(stage.workspace))
    assert shared.kept_back == {ALPHA: 2, BETA: 2}


def test_who_is_not_in_the_batch_has_its_part_left(tmp_path: Path) -> None:
    stage = made(tmp_path, 100)
    spend(stage, int(1e8 - 6 * CALL * 1e6))
    planned = Planner(stage.workspace, now=NOW).shared_plans([stage.supplier()]).plans
    assert len(planned[ALPHA].tasks[GATED].plan.due) == 3 + 1, "beta is due, too"


def test_where_nothing_is_known_of_answers_the_money_ends_it_itself(tmp_path: Path) -> None:
    stage = made(tmp_path, 0.0001, tokens=(None, None))
    assert docs(stage) == {ALPHA: 6, BETA: 6}


def test_nobody_is_planned_to_nothing_and_so_looked_at_for_ever(tmp_path: Path) -> None:
    """The relay stage finds out for whom the money is too little: that is what is waited for."""
    stage = made(tmp_path, 0.0031)  # 0.0001 more than the stored answers of the day cost
    assert docs(stage) == {ALPHA: 1, BETA: 1}
    workspace, suppliers = stage.workspace, active_suppliers(stage.workspace)
    refresh_plans(workspace, suppliers, NOW)
    assert {one.key for one in due_suppliers(workspace, NOW)} == {ALPHA, BETA}
    record_progress(workspace, [], {}, money={ALPHA: 300, BETA: 20})
    refresh_plans(workspace, suppliers, NOW)
    assert {one.key for one in due_suppliers(workspace, NOW)} == {BETA}, "a cheaper one has enough"


def test_a_plan_tells_what_is_needed_and_left(tmp_path: Path) -> None:
    stage = made(tmp_path, 1)
    spend(stage, 250_000)
    BudgetLedger(stage.workspace.documents).grant(
        estimated_account("external"), period_start("day", NOW), 10**12, 50_000
    )
    planned: Any = plan_rows(stage.workspace, active_suppliers(stage.workspace)).money["external"]
    assert (planned.cap, planned.spent, planned.estimated, planned.left) == (1.0, 0.25, 0.05, 0.75)
    assert planned.needed == pytest.approx(6 * 3 * CALL)
    assert planned.words == (
        "0.750 of 1.00 is left of today's budget of money, 0.0500 of what is spent an estimate"
    )
    assert planned.who_is_free == ""
