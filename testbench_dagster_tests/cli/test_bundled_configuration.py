"""Where nobody named a configuration and there is none the bundled one is used, and that is said."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbench_dagster.cli import COMMANDS, WITHOUT_CONFIGURATION, cli

SAID = re.compile(r"no testbench\.yaml here: this is the bundled simulation, .*`testbench init` writes")
CONFIGURATION = """
suppliers: [{address: a, base_url: "http://127.0.0.1:9/v1", model: m}]
tasks: [{name: starter_logic}]
"""
#: Those that serve until they are stopped: they are given a port that is taken.
SERVING = {"up", "board"}
#: What the others need to get as far as their work.
ARGUMENTS = {
    "compare": ["sim-01@simulation", "sim-02@simulation"],
    "evidence": ["--supplier", "sim-01@simulation", "--out", "x.zip"],
    "export": ["--out", "x"],
    "check": ["--no-suppliers"],
    "run": ["--task", "nope"],
    "show": ["nope"],
    "answers": ["-s", "nope", "-t", "nope"],
    "history": ["-s", "nope"],
    "backfill": ["--supplier", "nope"],
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "HOME", "MONGO_URI", "POSTGRES_URI"):
        monkeypatch.delenv(f"TESTBENCH_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def done(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - WITHOUT_CONFIGURATION))
def test_every_command_says_so_once(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = ["--port", str(taken.getsockname()[1])] if command in SERVING else []
        for _ in range(2):  # each time it is called
            result = done(command, *ARGUMENTS.get(command, []), *port)
            assert result.stderr.startswith("no testbench.yaml here"), "before anything else"
            assert len(SAID.findall(result.stderr)) == 1
            assert "testbench.yaml here" not in result.stdout


@pytest.mark.parametrize("how", ["here", "named", "by variable", "help", "wrong option"])
def test_it_is_not_said_where_there_is_one_or_nothing_is_done(tmp_path: Path, how: str) -> None:
    name = "testbench.yaml" if how == "here" else "other.yaml"
    if how in ("here", "named", "by variable"):
        (tmp_path / name).write_text(CONFIGURATION, encoding="utf-8")
    arguments = {
        "named": ["-c", name, "scores"],
        "help": ["scores", "--help"],
        "wrong option": ["scores", "-X"],
    }
    environment = {"TESTBENCH_CONFIG": name} if how == "by variable" else {}
    result = done(*arguments.get(how, ["scores"]), **environment)
    assert "testbench.yaml here" not in result.stderr
    assert result.exit_code == (2 if how == "wrong option" else 0), result.output
