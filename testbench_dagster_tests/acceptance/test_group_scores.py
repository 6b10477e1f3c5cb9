"""MMLU as a group of each form: asked on the simulated network, ranked, published, kept, and shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from testbench_dagster.api import Testbench
from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.config import load_config
from testbench_dagster.localnet.demo import demo_settings
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.tasks import layouts

pytestmark = pytest.mark.slow
GROUP = "mmlu_other"


@pytest.mark.skipif(not layouts.DATA.is_dir(), reason="needs ../shared")
def test_a_group_has_a_score_of_each_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    with LocalnetProcess(suppliers=4, latency_ms=1, fail_rate=0.0) as localnet:
        settings = demo_settings(localnet.roster())
        data = {split: str(layouts.DATA / f"mmlu/{split}.jsonl.gz") for split in ("test", "dev")}
        settings |= {
            "tasks": [
                {
                    "name": GROUP,
                    "num_fewshot": 0,
                    "data": data,
                    "where": {"subject": "{dataset_name}"},
                    "samples": {"min": 4, "max": 4, "half_width": None},
                }
            ],
            "taxonomies": [],
            "choices_on_chat": True,
        }
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(path)) as workspace:
            report = Testbench(workspace).run()
            assert report.problem == "" and len(report.tasks) == 26
            everywhere(workspace)


def everywhere(workspace: Workspace) -> None:
    testbench = Testbench(workspace)
    apis = {s.key: s.api for s in workspace.config.settings.suppliers}
    rows = [row for row in testbench.scores().rows if row["primary"]]
    groups = {(row["supplier"], row["task"]): row for row in rows if row["kind"] == "group"}
    assert {task for _, task in groups} == {GROUP, f"{GROUP}~chat"}
    forms = {"chat": (f"{GROUP}~chat", "letter_acc"), "completions": (GROUP, "acc")}
    assert set(apis.values()) == set(forms), "a supplier of each form"
    scored = {key: row for key, row in groups.items() if row["score"] is not None}
    assert set(scored) == {(supplier, forms[api][0]) for supplier, api in apis.items()}
    for (supplier, name), row in scored.items():
        assert row["metric"] == forms[apis[supplier]][1]
        own = [r for r in rows if r["supplier"] == supplier and r["group"] == name and r["kind"] == "task"]
        assert len(own) == 13 and {r["metric"] for r in own} == {row["metric"]}, "never of both forms"
        assert row["score_answered"] == pytest.approx(weighted(own))
        assert row["ci_low"] < row["score"] < row["ci_high"] or row["score"] in (
            row["ci_low"],
            row["ci_high"],
        )
    for (supplier, name), row in groups.items():
        if (supplier, name) not in scored:
            wanted = "unsupported" if name == GROUP else "not_applicable"
            assert (row["status"], set(row["missing"].values())) == (wanted, {wanted})
            assert len(row["missing"]) == 13
    published = workspace.config.home / "published"
    feed = json.loads((published / "feed.json").read_text(encoding="utf-8"))
    for supplier in feed["suppliers"]:
        name, _ = forms[apis[supplier["supplier"]]]
        assert supplier["task_groups"][name]["score"] == scored[supplier["supplier"], name]["score"]
    assert f'task_group="{GROUP}~chat"' in (published / "feed.prom").read_text(encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    for name, api in ((f"{GROUP}~chat", "chat"), (GROUP, "completions")):
        ranking = testbench.leaderboard(task=name).rows
        ranked = [row["supplier"] for row in ranking if row["rank_low"] is not None]
        assert set(ranked) == {supplier for supplier, own in apis.items() if own == api}
        days = testbench.history(ranked[0], [name]).rows
        assert [d["score"] for d in days if d["task"] == name and d["day"] == today] == [
            pytest.approx(scored[ranked[0], name]["score"], rel=1e-6)
        ]
        page = TestClient(
            make_app(Site(workspace), hosts=allowed_hosts("127.0.0.1")), base_url="http://127.0.0.1:1"
        )
        shown = page.get(links.group(name))
        assert shown.status_code == 200 and f"{scored[ranked[0], name]['score']:.3f}" in shown.text
        assert page.get(links.with_query("/", {"task": name})).text.count("the group of tasks") == 1


def weighted(rows: list[Mapping[str, Any]]) -> float:
    """lm-eval's aggregation, written anew: each task weighs as many docs as it has."""
    total = sum(row["n"] for row in rows)
    return math.fsum(row["score_answered"] * row["n"] for row in rows) / total
