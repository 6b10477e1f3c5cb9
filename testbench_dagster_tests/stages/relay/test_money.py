"""A budget of money over the whole stage: what is sent, what stays due, what is said of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.price import Price
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.relays.money import money_account
from testbench_dagster.relays.report import LaneEnding
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.money import money_findings, out_of_money
from testbench_dagster.stages.plan.open_docs import open_docs
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.plan.remaining import counted_prices, money_left
from testbench_dagster.stages.plan.rows import plan_rows
from testbench_dagster.stages.relay.probe import probe_suppliers
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.tasks.signatures.simulated import installed, prepared, served

TASK = {"name": "starter_units", "samples": 12}
BACKEND = Backend("b", 0.7, latency_ms=1)
PRICE = {"prompt": 1000.0, "completion": 2000.0}
DEAR, FREE = "dear@simulation", "free@simulation"
SERVICE = "simulation"
TOO_LITTLE = {"money_per_day": 0.001}


@pytest.fixture(params=["sqlite", pytest.param("mongo", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    return str(request.param)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation on SQLite whose task is prepared, to be copied: that takes most of the time."""
    folder = tmp_path_factory.mktemp("prepared")
    with served([Persona("dear", BACKEND)]) as net, installed(folder, net, [TASK]) as workspace:
        prepared(workspace)
    return folder


@contextmanager
def network(
    folder: Path, budget: dict[str, Any], *personas: Persona, copied: Path | None = None
) -> Iterator[tuple[Workspace, Localnet]]:
    limits: Any = {"dear": {"price": PRICE}}
    if copied is not None:
        shutil.copytree(copied, folder, dirs_exist_ok=True)
    with (
        served(personas) as net,
        installed(folder, net, [TASK], limits=limits, budget=budget) as workspace,
    ):
        prepared(workspace)
        yield workspace, net


def keys(workspace: Workspace) -> list[str]:
    return [supplier.key for supplier in active_suppliers(workspace)]


def stored_cost(workspace: Workspace, key: str = DEAR) -> int:
    """What the stored attempts cost, in millionths."""
    price = Price(**PRICE)
    return sum(
        price.micros_of(one.prompt_tokens or 0, one.completion_tokens or 0)
        for one in typed.find(workspace.documents, AttemptRecord, {"supplier": key})
    )


def changed(workspace: Workspace, **blocks: Any) -> Workspace:
    """The same installation with other settings."""
    path = workspace.config.path
    settings = yaml.safe_load(path.read_text("utf-8")) | blocks
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return Workspace(load_config(path))


def test_the_day_s_money_ends_a_turn_blames_nobody_and_is_told(
    tmp_path: Path, store: str, catalogue: Path
) -> None:
    personas = Persona("dear", BACKEND), Persona("free", BACKEND)
    copied = catalogue if store == "sqlite" else None
    with network(tmp_path, {"money_per_day": 2.0}, *personas, copied=copied) as (workspace, net):
        report = relay_due(workspace, keys(workspace))
        sent = net.suppliers["dear"].requests
        assert 0 < sent < 12 and net.suppliers["free"].requests == 12
        # what really was spent is what is granted now, and the rest is less than a relay can cost
        now = datetime.now(UTC)
        left = money_left(workspace, SERVICE, now)
        assert left is not None and left.spent == stored_cost(workspace) <= 2_000_000 and left.estimated == 0
        assert report.out_of_money == {DEAR: 12 - sent}
        assert report.left == {} and report.failed == {}
        assert report.relays.lanes[DEAR].end is LaneEnding.CAPPED
        roster = active_suppliers(workspace)
        refresh_plans(workspace, roster)
        assert open_docs(workspace, keys(workspace), ["starter_units"]) == []

        plan = typed.get(workspace.documents, PlanRecord, DEAR)
        assert plan is not None and plan.money_needed is not None and plan.money_needed > left.left
        assert [one.key for one in due_suppliers(workspace, now)] == []
        assert [one.key for one in due_suppliers(workspace, now + timedelta(days=1))] == [DEAR]
        (told,) = out_of_money(workspace, roster, now)
        assert told.startswith("the budget of money of simulation ended it: ")
        assert f"{12 - sent} calls wait for that ({12 - sent} of {DEAR}), which is ours" in told
        assert "counts against nobody; they are asked from" in told
        planned = plan_rows(workspace, roster).money[SERVICE]
        assert planned.unpriced == (FREE,) and planned.untrusted == ()
        assert planned.cap == 2.0 and planned.needed > planned.left

        # nothing is sent before there is more, not even by another process
        assert relay_due(workspace, keys(workspace)).relays.total.sent == 0
        with changed(workspace, budget={"money_services": {SERVICE: 200}}) as richer:
            assert DEAR in [one.key for one in due_suppliers(richer, now)]
            done = relay_due(richer, keys(richer))
            assert done.relays.total.sent == 12 - sent and done.out_of_money == {}
            refresh_plans(richer, active_suppliers(richer))
            assert out_of_money(richer, active_suppliers(richer), now) == []
            plan = typed.get(richer.documents, PlanRecord, DEAR)
            assert plan is not None and plan.money_needed is None


def test_a_relay_that_can_cost_more_than_a_day_has_says_so(tmp_path: Path, catalogue: Path) -> None:
    with network(tmp_path, TOO_LITTLE, Persona("dear", BACKEND), copied=catalogue) as (
        workspace,
        net,
    ):
        assert relay_due(workspace, keys(workspace)).relays.total.sent == 0
        assert net.suppliers["dear"].requests == 0
        refresh_plans(workspace, active_suppliers(workspace))
        (told,) = out_of_money(workspace, active_suppliers(workspace), datetime.now(UTC))
        assert told.endswith("the whole day's budget is less: raise budget.money_per_day (or money_services)")


def test_questions_of_check_are_paid_for_and_it_names_who_has_no_price(
    tmp_path: Path, catalogue: Path
) -> None:
    personas = Persona("dear", BACKEND), Persona("free", BACKEND)
    with network(tmp_path, {"money_per_day": 1.5}, *personas, copied=catalogue) as (workspace, net):
        asked = probed(workspace)
        left = money_left(workspace, SERVICE, datetime.now(UTC))
        assert left is not None and 0 < left.spent < left.cap
        assert "answers in" in asked[DEAR]
        (told,) = money_findings(workspace, active_suppliers(workspace), datetime.now(UTC))
        assert told.what == "money of simulation"
        assert told.warning and "left of today's budget of money" in told.detail
        assert f"1 supplier without a price that counts costs nothing of it: {FREE}" in told.detail
    poor = tmp_path / "poor"
    poor.mkdir()
    with network(poor, {"money_per_day": 0}, *personas, copied=catalogue) as (workspace, net):
        asked = probed(workspace)
        assert asked[DEAR] == "not asked: the budget of money does not reach to it"
        assert net.suppliers["dear"].requests == 0 and net.suppliers["free"].requests > 0


def probed(workspace: Workspace) -> dict[str, str]:
    found = asyncio.run(probe_suppliers(workspace, active_suppliers(workspace)))
    return {one.supplier: one.detail for one in found}


def test_a_day_that_began_before_its_budget_counts_what_was_reported(tmp_path: Path, catalogue: Path) -> None:
    with network(tmp_path, {}, Persona("dear", BACKEND), copied=catalogue) as (workspace, _):
        relay_due(workspace, keys(workspace), max_relays=5)
        cost = stored_cost(workspace)
        assert cost > 0
        with changed(workspace, budget={"money_per_day": 100}) as capped:
            left = money_left(capped, SERVICE, datetime.now(UTC))
            assert left is not None and left.spent == cost
            relay_due(capped, keys(capped))
            left = money_left(capped, SERVICE, datetime.now(UTC))
            assert left is not None and left.spent == stored_cost(capped) > cost


def test_a_source_s_price_counts_only_where_the_source_is_trusted(
    open_workspace: Any, tmp_path: Path
) -> None:
    entry = {"address": "listed", "base_url": "http://127.0.0.1:9/v1", "model": "m", "price": PRICE}
    roster = tmp_path / "roster.json"
    roster.write_text(json.dumps({"suppliers": [entry]}), "utf-8")
    own = {"address": "own", "price": PRICE}
    blocks: dict[str, Any] = {"budget": {"money_per_day": 1}}
    source = {"file": str(roster), "name": "list", "allow_private_networks": True}
    workspace = open_workspace(own, sources=[source], **blocks)
    refresh_roster(workspace)
    suppliers = active_suppliers(workspace)
    assert {s.key: s.price is not None for s in suppliers} == {"own@external": True, "listed@external": True}
    assert set(counted_prices(workspace.config.settings, suppliers)) == {"own@external"}
    planned = plan_rows(workspace, suppliers).money["external"]
    assert planned.unpriced == planned.untrusted == ("listed@external",)
    assert "(1 of them is listed with one by a source; trust_prices: true there" in planned.who_is_free
    trusting = open_workspace(own, sources=[{**source, "trust_prices": True}], **blocks)
    counted = counted_prices(trusting.config.settings, active_suppliers(trusting))
    assert set(counted) == {"own@external", "listed@external"}
    assert plan_rows(trusting, active_suppliers(trusting)).money["external"].who_is_free == ""


def test_another_price_has_who_waited_for_money_looked_at_again(tmp_path: Path, catalogue: Path) -> None:
    with network(tmp_path, TOO_LITTLE, Persona("dear", BACKEND), copied=catalogue) as (
        workspace,
        _,
    ):
        relay_due(workspace, keys(workspace))
        refresh_plans(workspace, active_suppliers(workspace))
        assert due_suppliers(workspace) == []
        settings = yaml.safe_load(workspace.config.path.read_text("utf-8"))
        settings["suppliers"][0]["price"] = {"prompt": 0.1, "completion": 0.1}
        with changed(workspace, suppliers=settings["suppliers"]) as cheaper:
            assert refresh_roster(cheaper).changed == [DEAR]
            assert [one.key for one in due_suppliers(cheaper)] == [DEAR]
            assert relay_due(cheaper, keys(cheaper)).out_of_money == {}


def test_money_and_relays_have_ledgers_of_their_own(tmp_path: Path, catalogue: Path) -> None:
    budget = {"money_per_day": 1000, "relays_per_day": 3}
    with network(tmp_path, budget, Persona("dear", BACKEND), copied=catalogue) as (workspace, net):
        report = relay_due(workspace, keys(workspace))
        assert net.suppliers["dear"].requests == report.relays.total.sent == 3
        assert report.out_of_money == {}
        today = period_start("day", datetime.now(UTC))
        ledger = BudgetLedger(workspace.documents)
        assert ledger.spent("service:simulation", today) == 3
        assert ledger.spent(money_account(SERVICE), today) == stored_cost(workspace)


@pytest.mark.slow
def test_check_tells_of_money_among_all_else(tmp_path: Path, catalogue: Path) -> None:
    personas = Persona("dear", BACKEND), Persona("free", BACKEND)
    with network(tmp_path, {"money_per_day": 1.5}, *personas, copied=catalogue) as (workspace, _):
        (told,) = [one for one in findings(workspace, suppliers=False) if one.what == "money of simulation"]
        assert told.warning and FREE in told.detail
