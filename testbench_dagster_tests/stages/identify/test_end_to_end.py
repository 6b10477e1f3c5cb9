"""Real relays to the simulated network, real Dagster runs: twins are grouped, a silent swap ends that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.localnet.demo import demo_settings
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import CHANGES, IDENTITY_GROUPS

pytestmark = pytest.mark.slow
TWINS = ["sim-01@simulation", "sim-03@simulation"]


@pytest.fixture
def localnet() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=4, latency_ms=1, fail_rate=0.0) as process:
        yield process


@pytest.fixture
def workspace(
    localnet: LocalnetProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    settings = demo_settings(localnet.roster())
    settings["tasks"] = [
        {"name": "starter_reading", "samples": {"min": 20, "max": 20, "half_width": None}},
        {"name": "identity", "framework": "signatures"},
    ]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as opened:
        yield opened


def test_twins_are_grouped_until_one_silently_swaps(workspace: Workspace, localnet: LocalnetProcess) -> None:
    documents = workspace.documents

    def groups() -> dict[str, list[str]]:
        return {d["_id"]: d["members"] for d in documents.find(IDENTITY_GROUPS)}

    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        runs.refresh_catalog(stale_tasks(workspace, workspace.specs))
        keys = [s.key for s in workspace.config.settings.suppliers]
        runs.evaluate(keys)
        runs.refresh_summaries()
        assert groups() == {key: TWINS if key in TWINS else [key] for key in keys}
        (proxy,) = {d["proxy"] for d in documents.find(IDENTITY_GROUPS) if d["_id"] in TWINS}
        (member,) = set(TWINS) - {proxy}
        suppliers = {s.key: s for s in known_suppliers(workspace)}
        assert Planner(workspace).facts(suppliers[member]).proxy == proxy

        runs.evaluate(keys, force=True)  # the same prompts again: an honest supplier answers as before
        assert documents.count(CHANGES) == 0

        before_swap = datetime.now(UTC)
        localnet.swap(member.partition("@")[0], accuracy=0.0, announce=False)
        runs.evaluate(keys, force=True)
        (change,) = documents.find(CHANGES)
        assert (change["supplier"], change["cut"]) == (member, True)
        assert before_swap <= change["at"] <= datetime.now(UTC)
        assert groups() == {key: [key] for key in keys}, "ungrouped in the run that found it"
        changed = {s.key: s for s in known_suppliers(workspace)}[member]
        assert changed.cut_at is not None
        assert changed.cut_at >= before_swap
        (row,) = [r for r in windows(workspace, suppliers=[member]) if r.primary and r.framework == "lm_eval"]
        assert row.first_sample_at is not None, "the answers since the swap count"
        assert row.first_sample_at > before_swap
        assert row.score == 0.0
        plan = Planner(workspace).plan(changed)
        assert Planner(workspace).facts(changed).proxy is None
        assert all("stands for it" not in decision.reason for decision in plan.tasks.values())
