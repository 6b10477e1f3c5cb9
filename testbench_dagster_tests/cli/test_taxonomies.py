"""The command ``taxonomies``: rows, listing, pictures, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration
from testbench_dagster_tests.tasks.layouts import REPOSITORY

NOW = datetime.now(UTC)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {
        "tasks": [{"name": "starter_logic", "samples": "all"}],
        "taxonomies": ["builtin:starter"],
        "simulation": True,
    }
    config = configuration(tmp_path, settings)
    with Workspace(config) as workspace:
        facts = Facts(workspace)
        registration = facts.registration("starter_logic", n_docs=40)
        for doc in range(20):
            facts.score(registration, doc, float(doc < 15), NOW, supplier=ALPHA)
        refresh_summaries(workspace, [ALPHA, BETA])
    return config.path


def run(path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["-c", str(path), "taxonomies", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_rows_have_every_documented_field(installation: Path) -> None:
    rows = json.loads(run(installation, "--supplier", ALPHA, "--taxonomy", "starter", "--format", "json"))
    assert len(rows) == 8
    root = next(row for row in rows if row["root"])
    assert (root["score"], root["n"], root["status"]) == (0.75, 20, "ok")
    assert root["weights"] == {"starter_logic": 1.0} and len(root["missing"]) == 7
    reference = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    section = reference.split("## Fields of `testbench taxonomies --format json`")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    assert {name.strip("`|, ") for cell in cells for name in cell.split()} - {""} == set(root)


def test_tasks_set_aside_are_told_and_rows_name_them(installation: Path) -> None:
    with Workspace(load_config(installation)) as workspace:
        torn = SetAsideRecord(
            id="starter_logic",
            step="prompts",
            since=NOW,
            tried_at=NOW,
            failures=1,
            retry_at=NOW,
            reason="its template raises",
            source=None,
        )
        typed.upsert(workspace.documents, SetAsideRecord, [torn])
    told = "task starter_logic is set aside: its template raises\n"
    for command in ("taxonomies", "leaderboard"):
        done = CliRunner().invoke(cli, ["-c", str(installation), command, "--format", "json"])
        assert (done.exit_code, told in done.stderr) == (0, True), done.output
        rows = json.loads(done.stdout)
        if command == "taxonomies":
            roots = [row for row in rows if row["root"]]
            assert roots and all(row["set_aside"] == ["starter_logic"] for row in roots)
            assert any(row["set_aside"] == [] for row in rows), "abilities without the task"


def test_the_list_shows_configured_and_built_in_ones(installation: Path) -> None:
    rows = json.loads(run(installation, "--list", "--format", "json"))
    assert {row["taxonomy"] for row in rows} >= {"starter", "general", "reasoning_math", "chat_only"}
    assert {row["taxonomy"] for row in rows if row["configured"]} == {"starter"}
    (half,) = [row for row in rows if row["taxonomy"] == "reasoning_math" and row["node"] == "mathematics"]
    assert half["weights"]["calculating"] == 0.5
    only = json.loads(run(installation, "--list", "--taxonomy", "chat_only", "--format", "json"))
    assert {row["spec"] for row in only} == {"builtin:chat_only"}


@pytest.mark.parametrize(
    ("name", "arguments", "start"),
    [
        ("a.png", ["--supplier", ALPHA], b"\x89PNG"),
        ("a.svg", ["--supplier", ALPHA, "--kind", "bars"], b"<?xml"),
        ("a.png", ["--kind", "heatmap"], b"\x89PNG"),
    ],
)
def test_pictures(installation: Path, name: str, arguments: list[str], start: bytes) -> None:
    target = installation.parent / name
    assert run(installation, "--plot", str(target), *arguments).strip() == str(target)
    assert target.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--plot", "a.jpg"], Exception, "ends in .png or .svg"),
        (["--plot", "a.png"], Exception, "name it with --supplier"),
        (["--list", "--supplier", ALPHA], Exception, "leave out --plot, --supplier and --model"),
        (["--taxonomy", "nope"], ConfigError, "'nope' is not configured; configured are: starter"),
        (["--plot", "a.png", "--taxonomy", "general"], ConfigError, "'general' is not configured"),
        (["--list", "--taxonomy", "nope"], ConfigError, "no taxonomy 'nope'; there are: starter"),
        (["--plot", "/nowhere/a.png", "--supplier", ALPHA], StoreError, "cannot write /nowhere/a.png"),
    ],
)
def test_refusals(installation: Path, arguments: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        run(installation, *arguments)
    assert said in str(getattr(raised.value, "message", raised.value))
