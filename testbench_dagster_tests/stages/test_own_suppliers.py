"""A run reads roster and cached plans of its own suppliers, however many others there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.stages.discover.roster import active_keys, active_suppliers, named_suppliers
from testbench_dagster.stages.plan.due_suppliers import waiting_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import money_quota
from testbench_dagster.stages.relay.targets import Targets
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.snapshot import begin_history
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, PLANS, SUPPLIERS
from testbench_dagster_tests.reads import documents_read
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA

SERVICE = ALPHA.rpartition("@")[2]
OTHERS = 120
SETTINGS: dict[str, Any] = {"supplier_sources": [{"file": "r.json"}], "taxonomies": ["builtin:starter"]}


def add_others(workspace: Workspace, n: int, *, planned: int | None = None) -> list[str]:
    """Suppliers of a source on the roster, the first of them with due plans."""
    keys = [f"other{i:04}@{SERVICE}" for i in range(n)]
    (known,) = workspace.documents.find(SUPPLIERS, {"_id": ALPHA})
    workspace.documents.put_new(
        SUPPLIERS,
        [
            {**known, "_id": key, "address": key.partition("@")[0], "source": "r.json", "status": "active",
             "base_url": "https://o.example/v1", "api": "chat", "model": "m", "left_at": None}
            for key in keys
        ],
    )  # fmt: skip
    plan = {"service": SERVICE, "planned_at": NOW, "due_at": NOW - timedelta(hours=1), "due_calls": 7}
    with_plan = keys if planned is None else keys[:planned]
    workspace.documents.put_new(PLANS, [{"_id": key, **plan, "failures": 0} for key in with_plan])
    placed = {"service": SERVICE, "group": "g", "cut_at": None, "members": keys}
    workspace.documents.put_new(IDENTITY_GROUPS, [{"_id": key, "proxy": key, **placed} for key in keys[:1]])
    return keys


def evaluate(workspace: Workspace) -> None:
    """What a run of these two suppliers does with the stores, without relays."""
    targets = Targets(workspace, [ALPHA, BETA])
    suppliers = targets.suppliers
    assert [one.key for one in suppliers] == [ALPHA, BETA] and not targets.problems
    quota = money_quota(workspace, targets.keys)
    assert quota is None
    assert Planner(workspace, now=NOW).shared_plans(suppliers).plans[ALPHA].n_calls
    waiting_suppliers(workspace, suppliers, NOW)
    record_progress(workspace, [ALPHA], {BETA: "does not answer"})
    refresh_window_cache(workspace, [ALPHA, BETA])
    refresh_summaries(workspace, [ALPHA, BETA], NOW)
    begin_history(workspace, [ALPHA, BETA], now=NOW)
    refresh_plans(workspace, named_suppliers(workspace, [ALPHA, BETA]), NOW)


@pytest.fixture
def open_stage(tmp_path: Path) -> Callable[..., Stage]:
    def build(name: str, **settings: Any) -> Stage:
        folder = tmp_path / name
        folder.mkdir()
        stage = Stage(folder, SETTINGS | settings)
        stage.answered(GATED, range(DOCS // 2))
        return stage

    return build


def test_a_run_reads_no_others(open_stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    for name, n in (("few", 0), ("many", OTHERS)):
        stage = open_stage(name)
        if n:
            add_others(stage.workspace, n)
        counted = documents_read(stage.workspace.documents, monkeypatch)
        evaluate(stage.workspace)
        read.append({of.name: counted[of.name] for of in (SUPPLIERS, PLANS, IDENTITY_GROUPS)})
        stage.workspace.close()
    assert read[0] == read[1]
    assert read[0]["suppliers"] and read[0]["plans"]


def test_others_still_get_their_share_of_a_budget(open_stage: Callable[..., Stage]) -> None:
    """Due ones what they would ask, who never was planned as much as the others want."""
    stage = open_stage("capped", budget={"relays_per_day": 100})
    workspace = stage.workspace
    keys = add_others(workspace, 9, planned=6)
    workspace.documents.claim(PLANS, {"_id": keys[0]}, {"due_at": NOW + timedelta(days=1)})
    workspace.documents.claim(SUPPLIERS, {"_id": keys[1]}, {"status": "left", "left_at": NOW})
    planner = Planner(workspace, now=NOW)
    suppliers = named_suppliers(workspace, [ALPHA, BETA])
    plans = {s.key: planner.plan(s) for s in suppliers}
    wanted = {key: plan.n_calls for key, plan in plans.items()}
    assert min(wanted.values()) > 7
    # 4 that are due want 7 each, 3 newcomers what the most demanding of ours wants
    rest = 100 - 5  # asked today already
    asked = {ALPHA: 5}
    shares = planner.quotas(plans, suppliers)
    others = 4 * 7
    level = (rest - others + sum(asked.values())) / 5
    assert shares[BETA] == pytest.approx(min(wanted[BETA], level), abs=1)
    assert shares[ALPHA] == pytest.approx(min(wanted[ALPHA], level - 5), abs=1)


def test_keys_alone_are_those_of_the_active_suppliers(open_stage: Callable[..., Stage]) -> None:
    workspace = open_stage("keys").workspace
    keys = add_others(workspace, 4)
    workspace.documents.claim(SUPPLIERS, {"_id": keys[0]}, {"status": "left", "left_at": NOW})
    workspace.documents.claim(SUPPLIERS, {"_id": keys[1]}, {"source": "no more configured"})
    assert active_keys(workspace) == {s.key for s in active_suppliers(workspace)}
    assert active_keys(workspace, "elsewhere") == set()
    assert active_keys(workspace, among=[ALPHA, keys[0], keys[2]]) == {ALPHA, keys[2]}
