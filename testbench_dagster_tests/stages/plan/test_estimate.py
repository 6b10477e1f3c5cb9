"""What tasks will ask that are not prepared yet: as much as they then do, where that can be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.api import Plan, Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.tasks.signatures.simulated import prepared

SUPPLIERS = [
    {"address": "chat", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
    {"address": "both", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "completions"},
]


def planned(tmp_path: Path, tasks: list[dict[str, Any]], *, prepare: bool = False, **blocks: Any) -> Plan:
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"suppliers": SUPPLIERS, "tasks": tasks, **blocks}), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        if prepare:
            prepared(workspace)
        return Testbench(workspace).plan()


def by_pair(plan: Plan) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["supplier"].partition("@")[0], row["task"]): row for row in plan.rows}


def test_the_first_plan_says_what_the_second_does(tmp_path: Path) -> None:
    tasks = [
        {"name": "starter_logic", "samples": {"min": 5, "max": 60, "half_width": 0.1}},
        {"name": "starter_units", "samples": 7},
        {"name": "starter_strings", "planning": {"max_docs_per_run": 3}},
        {"name": "identity", "framework": "signatures"},
    ]
    before = planned(tmp_path, tasks)
    after = planned(tmp_path, tasks, prepare=True)
    assert {row["state"] for row in before.rows} == {"no_prompts"}
    assert all(row["estimated"] for row in before.rows) and not any(row["estimated"] for row in after.rows)
    wanted = {pair: (row["docs"], row["calls"]) for pair, row in by_pair(after).items()}
    assert {pair: (row["docs"], row["calls"]) for pair, row in by_pair(before).items()} == wanted
    assert before.calls == before.estimated == after.calls > 0
    assert after.estimated == 0
    logic = by_pair(before)["chat", "starter_logic"]
    assert logic["reason"] == "not prepared yet: at most 50 docs of 1 request each"


def test_choices_are_guessed_and_who_cannot_be_asked_is_left_out(tmp_path: Path) -> None:
    rows = by_pair(planned(tmp_path, [{"name": "starter_choice", "samples": 10}]))
    assert (rows["both", "starter_choice"]["docs"], rows["both", "starter_choice"]["calls"]) == (10, 40)
    assert "10 docs of about 4 requests each" in rows["both", "starter_choice"]["reason"]
    assert rows["chat", "starter_choice"]["calls"] == 0
    assert rows["chat", "starter_choice"]["reason"].endswith("the supplier's API cannot answer this task")


def test_what_nobody_can_know_is_said(tmp_path: Path) -> None:
    gate = {"gates": [{"task": "starter_logic", "is": "present"}]}
    tasks = [
        {"name": "starter_logic", "samples": "all"},
        {"name": "starter_units", "samples": 5, "planning": gate},
        {"name": "starter_strings", "samples": 5, "suppliers": ["!chat@external"]},
    ]
    plan = planned(tmp_path, tasks)
    rows = by_pair(plan)
    assert "nobody knows yet how many it has" in rows["both", "starter_logic"]["reason"]
    assert rows["both", "starter_units"]["reason"].endswith("asked once its gates open")
    assert rows["chat", "starter_strings"]["state"] == "not_applicable"
    assert not rows["chat", "starter_strings"]["estimated"]
    assert plan.calls == plan.estimated == 5


@pytest.mark.parametrize("only", [None, ["starter_units"]])
def test_only_what_is_not_prepared_is_estimated(tmp_path: Path, only: list[str] | None) -> None:
    planned(tmp_path, [{"name": "starter_logic", "samples": 4}], prepare=True)
    tasks = [{"name": "starter_logic", "samples": 4}, {"name": "starter_units", "samples": 6}]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"suppliers": SUPPLIERS, "tasks": tasks}), encoding="utf-8")
    with Testbench.open(path) as testbench:
        plan = testbench.plan(tasks=only)
    assert plan.estimated == 2 * 6
    assert plan.calls == 2 * 6 + (0 if only else 2 * 4)


def test_what_nobody_can_price_is_named_and_not_hidden(tmp_path: Path) -> None:
    tasks = [{"name": "starter_logic", "samples": "all"}, {"name": "starter_units", "samples": 7}]
    plan = planned(tmp_path, tasks)
    assert {pair[1]: row["unpriced"] for pair, row in by_pair(plan).items()} == {
        "starter_logic": True,
        "starter_units": False,
    }
    done = CliRunner().invoke(cli, ["-c", str(tmp_path / "testbench.yaml"), "plan", "--due"])
    assert done.exit_code == 0
    assert "starter_logic" in done.stdout and "starter_units" in done.stdout
    assert "14 relays would be sent now\nan estimate: 2 tasks are not prepared yet;" in done.stderr
    assert "left out of that number: starter_logic; all their docs" in done.stderr
    alone = CliRunner().invoke(
        cli, ["-c", str(tmp_path / "testbench.yaml"), "plan", "--due", "-t", "starter_logic"]
    )
    assert "estimate" not in alone.stderr
    assert "0 relays would be sent now\n1 task is not prepared yet;" in alone.stderr
    prepared_rows = planned(tmp_path, tasks, prepare=True).rows
    assert prepared_rows and not any(row["unpriced"] for row in prepared_rows)
