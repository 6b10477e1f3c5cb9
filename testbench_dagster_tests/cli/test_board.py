"""The ``board`` command in a process of its own: what it announces, answers and refuses, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.core.errors import TestbenchError

WITHIN_S = 60


@contextlib.contextmanager
def running(folder: Path, *options: str, settings: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command over an empty installation, and the port it told."""
    (folder / "testbench.yaml").write_text(
        "suppliers: [{address: a, base_url: 'http://127.0.0.1:9/v1', model: m}]\n"
        f"tasks: [{{name: starter_logic}}]\n{settings}",
        encoding="utf-8",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TESTBENCH_", "DAGSTER_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "testbench_dagster.cli", "board", "--port", "0", *options],
        cwd=folder,
        env={**environment, "TESTBENCH_CACHE_DIR": str(folder / "cache")},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"board: http://127\.0\.0\.1:(\d+)$", told.strip())
        assert found, told + process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_announces_itself_answers_and_ends(tmp_path: Path, stop: signal.Signals) -> None:
    with running(tmp_path, "--name", "board.example") as (process, port):
        assert ask(port, "/")[0] == 200
        assert ask(port, "/", "board.example")[0] == 200
        assert ask(port, "/", "evil.example")[0] == 421
        process.send_signal(stop)
        process.wait(WITHIN_S)
        assert process.returncode in (0, -stop)
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_it_answers_to_the_name_in_the_configuration(tmp_path: Path) -> None:
    with running(tmp_path, settings="board: {url: 'https://board.example:8443'}") as (_, port):
        assert ask(port, "/", "board.example:8443")[0] == 200
        assert ask(port, "/", "evil.example")[0] == 421


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with running(tmp_path, "--with-parent") as (process, port):
        assert ask(port, "/")[0] == 200
        assert process.stdin is not None
        process.stdin.close()
        process.wait(WITHIN_S)
        assert process.returncode == 0


def test_no_answers_hides_answers(tmp_path: Path) -> None:
    with running(tmp_path, "--no-answers") as (_, port):
        status, text = ask(port, "/supplier/a@external/task/starter_logic")
        assert status == 403 and "--no-answers" in text


def test_a_port_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command, remedy in (
            (["board", "--port", port], "choose others with --host and --port"),
            (["up", "--board-port", port], "choose another with --board-port"),
            (["demo", "--board-port", port], "choose another with --board-port"),
        ):
            done = CliRunner().invoke(cli, command, standalone_mode=False)
            assert isinstance(done.exception, TestbenchError), command
            assert port in str(done.exception) and remedy in str(done.exception)
    assert list(tmp_path.iterdir()) == []
