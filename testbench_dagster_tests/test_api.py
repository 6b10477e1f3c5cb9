"""The Python face of what commands do: checks, plans, and arguments that are none. Runs: defs/."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Testbench]:
    """One supplier that nobody listens for, and one task."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "suppliers": [
            {
                "address": "a",
                "service": "external",
                "base_url": "http://127.0.0.1:9/v1",
                "api": "chat",
                "model": "m",
            }
        ],
        "tasks": [{"name": "starter_logic", "samples": 4}],
        "budget": {"relays_per_day": 7},
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Testbench.open(path) as testbench:
        yield testbench


def test_a_check_returns_what_it_told(installation: Testbench, tmp_path: Path) -> None:
    told: list[Finding] = []
    found = installation.check(on_finding=told.append)
    assert found == told
    by_what = {finding.what: finding for finding in found}
    assert list(by_what) == [
        "configuration",
        "document store",
        "dataset store",
        "task starter_logic",
        "supplier a@external",
    ]
    assert by_what["configuration"].detail == f"{tmp_path / 'testbench.yaml'}, 1 tasks"
    assert by_what["document store"].detail == f"SQLite in {tmp_path / '.testbench'}"
    assert [finding.what for finding in found if finding.failed] == ["supplier a@external"]
    assert "is it running, and is base_url right?" in by_what["supplier a@external"].detail
    assert installation.check(suppliers=False) == found[:-1]


def test_a_plan_says_why_nothing_is_due_and_what_is_left(installation: Testbench) -> None:
    plan = installation.plan()
    assert [(row["supplier"], row["task"], row["calls"]) for row in plan.rows] == [
        ("a@external", "starter_logic", 0)
    ]
    assert plan.rows[0]["reason"]
    assert (plan.calls, plan.left) == (0, {"external": 7})
    assert len(installation.plan(tasks=["starter_logic"]).to_pandas()) == 1


def test_arguments_that_are_none_are_told(installation: Testbench) -> None:
    with pytest.raises(ConfigError, match=r"budget is -1; give a number of relays of at least 0"):
        installation.plan(budget=-1)
    with pytest.raises(ConfigError, match=r"max_relays is -2; give a number of relays of at least 0"):
        installation.run(max_relays=-2)
    with pytest.raises(ConfigError, match="force relays and rescore does not"):
        installation.backfill(force=True, rescore=True)
    for act in (installation.plan, installation.run, installation.backfill):
        with pytest.raises(ConfigError, match="supplier 'b@external' is not active; active are: a@external"):
            act(["b@external"])
    with pytest.raises(ConfigError, match="task 'starter_logik' is not configured"):
        installation.plan(tasks=["starter_logik"])


def test_only_runs_and_backfills_pay_for_dagster(installation: Testbench, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from testbench_dagster.api import Testbench\n"
        "with Testbench.open('testbench.yaml') as testbench:\n"
        "    assert testbench.plan().rows and testbench.check(suppliers=False)\n"
        "assert not {'dagster', 'pandas', 'aiohttp', 'lm_eval'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
