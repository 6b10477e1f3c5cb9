"""The command that writes files: formats, times, and what it says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbench_dagster.cli import cli
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import Facts, configuration


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"tasks": [{"name": "starter_logic", "samples": "all"}], "sampling": {"max_age_days": 30}}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
        asked.answer(0, 1.0, "yes")
        asked.answer(1, 0.0, "no", at=NOW - timedelta(hours=2))
    return tmp_path


def export(folder: Path, *arguments: str) -> Result:
    command = ["-c", str(folder / "testbench.yaml"), "export", "--out", str(folder / "out"), *arguments]
    return CliRunner().invoke(cli, command)


def test_each_format_writes_its_files(folder: Path) -> None:
    done = export(folder, "--format", "inspect")
    assert done.exit_code == 0, done.output
    [line] = done.stdout.splitlines()
    assert line.endswith(".eval  2 rows")
    done = export(folder, "--format", "lm-eval", "--since", (NOW - timedelta(hours=1)).isoformat())
    assert done.exit_code == 0, done.output
    samples, results = done.stdout.splitlines()
    assert (Path(samples.split()[0]).suffix, samples.split()[1:]) == (".jsonl", ["1", "row"])
    assert Path(results.split()[0]).suffix == ".json"
    assert len(export(folder).stdout.splitlines()) == 12, "parquet, as ever"


def test_nothing_to_write_is_said(folder: Path) -> None:
    done = export(folder, "--format", "inspect", "--supplier", "beta@external")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to write" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since", "yesterday"), "'yesterday' is no time; give one such as 2026-11-01T00:00Z"),
        (("--since", "last"), "'last' goes with a destination: testbench export FOLDER --since last"),
        (("--since", "2026-11-01"), "has no zone; give one, such as 2026-11-01T00:00:00Z"),
        (("--until", "2026-11-01T10:00"), "has no zone; give one, such as 2026-11-01T10:00:00Z"),
        (("--format", "csv"), "'csv' is not one of"),
    ],
)
def test_wrong_usage_exits_with_2(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = export(folder, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
