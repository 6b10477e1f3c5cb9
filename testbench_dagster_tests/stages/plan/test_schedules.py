"""What ``testbench check`` and ``plan`` tell of schedules: whom they reach, and what keeps them from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.plan.schedules import schedule_texts
from testbench_dagster.stages.workspace import Workspace

AT = {"cron": "0 6 * * *"}


def installation(folder: Path, *schedules: dict[str, Any]) -> Workspace:
    """Three suppliers of two services, listed by a source."""
    suppliers = [
        {"address": a, "service": s, "base_url": f"http://127.0.0.1:9/{a}/v1", "model": "m"}
        for a, s in (("ann", "text"), ("bob", "text"), ("cy", "code"))
    ]
    (folder / "roster.json").write_text(json.dumps({"suppliers": suppliers}), encoding="utf-8")
    settings = {
        "supplier_sources": [{"file": "roster.json", "allow_private_networks": True}],
        "tasks": [{"name": "starter_logic"}, {"name": "starter_units"}],
        "schedules": [{**AT, **schedule} for schedule in schedules],
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Workspace(load_config(path))


def test_one_line_says_whom_what_and_when(tmp_path: Path) -> None:
    with installation(
        tmp_path,
        {"name": "text", "services": ["text"], "suppliers": ["*", "!bob@*"], "tasks": ["starter_units"]},
        {"name": "off", "suppliers": ["*"], "enabled": False, "timezone": "Asia/Tokyo"},
    ) as workspace:
        refresh_roster(workspace)
        assert schedule_texts(workspace) == {
            "text": "1 supplier (suppliers *, !bob@* of services text), tasks starter_units, "
            "at 0 6 * * * (UTC)",
            "off": "3 suppliers (suppliers *), all tasks, at 0 6 * * * (Asia/Tokyo); switched off",
        }


def test_check_names_what_keeps_one_from_working_and_leaves_the_others(tmp_path: Path) -> None:
    with installation(
        tmp_path,
        {"name": "typo", "suppliers": ["dora@*"]},
        {"name": "half", "suppliers": ["ann@*", "dora@*"]},
        {"name": "apart", "suppliers": ["ann@*"], "services": ["code"]},
        {"name": "untasked", "suppliers": ["*"], "tasks": ["starter_unit"]},
        {"name": "fine", "suppliers": ["*"]},
    ) as workspace:
        refresh_roster(workspace)
        told: dict[str, list[tuple[bool, bool, str]]] = {}
        for finding in findings(workspace, suppliers=False):
            if finding.what.startswith("schedule "):
                told.setdefault(finding.what, []).append((finding.ok, finding.warning, finding.detail))
    ((ok, warning, detail),) = told["schedule typo"]
    assert (ok, warning) == (False, True)
    assert detail.startswith("suppliers: 'dora@*' matches none of the suppliers on the roster; there are: ")
    warned, fine = told["schedule half"]
    assert "'dora@*' matches none" in warned[2] and fine[2].startswith("1 supplier (")
    ((_, warning, detail),) = told["schedule apart"]
    assert warning and "no supplier fits all of its patterns; correct them" in detail
    ((ok, warning, detail),) = told["schedule untasked"]
    assert (ok, warning) == (False, False)
    assert detail.startswith("tasks: task 'starter_unit' is not configured; configured are: starter_logic")
    assert told["schedule fine"][0][0] is True


def test_nothing_is_said_of_patterns_before_anybody_is_known(tmp_path: Path) -> None:
    with installation(tmp_path, {"name": "later", "suppliers": ["dora@*"]}) as workspace:
        assert schedule_texts(workspace)["later"].startswith("0 suppliers (suppliers dora@*)")


def test_plan_names_them(tmp_path: Path) -> None:
    with installation(
        tmp_path, {"name": "mine", "suppliers": ["ann@*"]}, {"name": "typo", "suppliers": ["dora@*"]}
    ) as workspace:
        refresh_roster(workspace)
        planned = Testbench(workspace).plan().schedules
    assert planned["mine"] == "1 supplier (suppliers ann@*), all tasks, at 0 6 * * * (UTC)"
    assert planned["typo"].startswith("suppliers: 'dora@*' matches none of the suppliers on the roster")
    done = CliRunner().invoke(cli, ["--config", str(tmp_path / "testbench.yaml"), "plan", "--due"])
    assert done.exit_code == 0
    assert f"schedule mine: {planned['mine']}\nschedule typo: {planned['typo']}\n" in done.output
