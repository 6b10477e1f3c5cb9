"""Homes and outputs that cannot be made or written: one line with a remedy, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.cli import COMMANDS, cli
from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.stages.workspace import Workspace

KEY = "a@external"
#: What makes each command open the stores; None for those that need no home.
OPENS: dict[str, list[str] | None] = {
    "demo": ["--no-ui", "--suppliers", "1"],
    "init": None,
    "up": ["--port", "1"],
    "board": ["--port", "0"],
    "check": ["--no-suppliers"],
    "run": [],
    "tasks": None,
    "plan": [],
    "backfill": ["--all"],
    "scores": [],
    "show": [KEY],
    "answers": ["--supplier", KEY, "--task", "starter_logic"],
    "history": ["--supplier", KEY],
    "taxonomies": [],
    "compare": [KEY, "b@external"],
    "identity": [],
    "references": [],
    "suspicions": [],
    "twins": [],
    "leaderboard": [],
    "service": [],
    "probe": [KEY],
    "feed": [],
    "export": ["--out", "out"],
    "evidence": ["--supplier", KEY, "--out", "evidence.zip"],
    "rescore": None,
    "migrate": [],
    "localnet": None,
    "import-frameworks": None,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the configuration of a supplier that nobody listens for."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    supplier = {"address": "a", "service": "external", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    settings = {
        "suppliers": [supplier, {**supplier, "address": "b"}],
        "tasks": [{"name": "starter_logic", "samples": 4}],
        "taxonomies": ["builtin:starter"],
    }
    (tmp_path / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path


def error_of(*arguments: str) -> TestbenchError:
    """The error that ``main`` shows in a line."""
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(done.exception, TestbenchError), (arguments, done.exception, done.output)
    return done.exception


def test_every_command_is_tried_or_needs_no_home() -> None:
    assert OPENS.keys() == COMMANDS.keys()


@pytest.mark.parametrize(
    "command", [name for name, arguments in OPENS.items() if arguments is not None and name != "check"]
)
@pytest.mark.parametrize("home", ["testbench.yaml", "testbench.yaml/sub", "/proc/nowhere"])
def test_a_home_that_cannot_be_made_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, home: str
) -> None:
    monkeypatch.setenv("TESTBENCH_HOME", home)
    monkeypatch.setattr("testbench_dagster.cli.serve._require_ports", lambda *ports: None)
    arguments = [command, *(OPENS[command] or ())]
    if command == "migrate" and home == "/proc/nowhere":
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0 and "nothing is stored yet" in done.output  # which is true, and no use
        return
    error = error_of(*arguments)
    assert isinstance(error, StoreError)
    text = str(error)
    assert home in text
    assert "TESTBENCH_HOME" in text and "set it to a folder" in text.replace("set TESTBENCH_HOME", "set it")
    assert {path.name for path in folder.iterdir()} <= {"testbench.yaml", "cache"}, "nothing half-made"


def test_a_home_that_cannot_be_made_is_found_by_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "testbench.yaml").write_text(
        "suppliers: [{address: a, base_url: 'http://127.0.0.1:9/v1', model: m}]\n"
        "tasks: [{name: identity, framework: signatures}]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("TESTBENCH_HOME", "testbench.yaml")
    done = CliRunner().invoke(cli, ["check"], standalone_mode=False)
    assert isinstance(done.exception, TestbenchError) and "3 problems found" in str(done.exception)
    assert (
        done.output.count(f"TESTBENCH_HOME {folder / 'testbench.yaml'} cannot be created: it is a file") == 3
    )


@pytest.mark.parametrize("command", ["up", "run", "backfill"])
@pytest.mark.parametrize("home", ["testbench.yaml", "/proc/nowhere"])
def test_a_home_of_dagster_that_cannot_be_made_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, home: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    monkeypatch.setenv("TESTBENCH_HOME", str(folder / "home"))
    monkeypatch.setattr("testbench_dagster.cli.serve._require_ports", lambda *ports: None)
    text = str(error_of(command, *(OPENS[command] or ())))
    assert f"{Path(home).absolute()} cannot be created" in text
    assert "DAGSTER_HOME" in text


def test_a_home_of_dagster_that_cannot_be_written_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbench_dagster.defs.local_runs.os.access", lambda path, mode: False)  # for root
    text = str(error_of("run"))
    assert text.startswith(f"cannot write {folder / '.testbench' / 'dagster'}: Permission denied")
    assert "set TESTBENCH_HOME to a folder this user may write" in text


def test_files_of_the_home_that_cannot_be_written_are_told(folder: Path) -> None:
    from testbench_dagster.board.published import render_page
    from testbench_dagster.stages.publish.publish import publish, published_folder

    with Workspace.open() as workspace:
        published_folder(workspace).mkdir(parents=True)
        (published_folder(workspace) / "feed.json").mkdir()
        with pytest.raises(StoreError, match=r"cannot write .*feed\.json: Is a directory; let this user"):
            publish(workspace, render_page)
        (published_folder(workspace) / "feed.json").rmdir()
        (published_folder(workspace) / "item_matrix.parquet").mkdir()
        with pytest.raises(StoreError, match=r"cannot write .*item_matrix\.parquet: .*; let this user"):
            publish(workspace, render_page)


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--out"],
        ["evidence", "--supplier", KEY, "--out"],
        ["feed", "--out"],
        ["leaderboard", "--html"],
    ],
)
@pytest.mark.parametrize("out", ["/proc/nowhere", "testbench.yaml/sub", f"{'x' * 300}"])
def test_an_output_that_cannot_be_written_is_told(folder: Path, arguments: list[str], out: str) -> None:
    if arguments[0] == "evidence":
        _attempt(folder)
    error = error_of(*arguments, out)
    assert isinstance(error, StoreError)
    assert str(error).startswith(f"cannot write {out}")
    assert "; choose another " in str(error)


@pytest.mark.parametrize("name", ["attempts", "item_matrix", "leaderboard"])
def test_an_export_names_the_file_that_cannot_be_written(folder: Path, name: str) -> None:
    (folder / "out" / f"{name}.parquet").mkdir(parents=True)
    text = str(error_of("export", "--out", "out"))
    assert text == f"cannot write out/{name}.parquet: Is a directory; choose another --out"


def _attempt(folder: Path) -> None:
    """One stored attempt: evidence of nothing cannot be written anyway."""
    from testbench_dagster_tests.stages.score.facts import Facts

    with Workspace.open() as workspace:
        facts = Facts(workspace)
        facts.attempt(facts.registration("starter_logic", n_docs=4), 0, supplier=KEY)


@pytest.mark.parametrize("arguments", [["scores", "--format", "json"], ["plan"], ["feed"]])
def test_a_full_disk_behind_stdout_is_told(folder: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from testbench_dagster.cli import main; main()", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot write the output: No space left on device")
    assert "Traceback" not in done.stderr


def test_a_user_there_is_not_has_no_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "names the home of a user there is not; write the path out"
    assert said in str(error_of("-c", "~nobody-there/testbench.yaml", "scores"))
    monkeypatch.setenv("TESTBENCH_HOME", "~nobody-there/home")
    assert said in str(error_of("scores"))
