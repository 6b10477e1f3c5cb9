"""``testbench demo`` and ``up``: one in a folder at a time, and hints that can be typed as they stand."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.cli.alone import alone_at_home
from testbench_dagster.cli.serve import own_command
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.stores.files import alone
from testbench_dagster_tests.servers import free_port


def test_a_second_demo_leaves_the_folder_of_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    home = tmp_path / ".testbench"
    measured = home / "demo" / "measured"
    measured.mkdir(parents=True)
    with alone(home / "demo.lock", "unused"):
        done = CliRunner().invoke(cli, ["demo", "--no-ui", "--fresh"])
    assert isinstance(done.exception, TestbenchError)
    assert f"another demo runs in {home / 'demo'}; end it first" in str(done.exception)
    assert measured.is_dir() and not (home / "demo" / "testbench.yaml").exists()


def test_a_second_up_is_refused_with_who_serves_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    path = tmp_path / "testbench.yaml"
    path.write_text("tasks: [{name: starter_logic}]\nsuppliers: []\n", encoding="utf-8")
    config = load_config(path)
    with alone_at_home(config, "http://127.0.0.1:3000"):
        done = CliRunner().invoke(cli, ["-c", str(path), "up", "--port", str(free_port())])
    assert isinstance(done.exception, TestbenchError)
    told = str(done.exception)
    assert told.startswith(f"`testbench up` serves {config.home} already: process {os.getpid()} on ")
    assert "http://127.0.0.1:3000; use that one, or end it first" in told and "\n" not in told
    with alone_at_home(config, "") as killed:
        assert not killed


def test_an_installation_that_has_anothers_dagster_home_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variable is left over in the shell: two daemons would work on one storage of Dagster."""
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    configs = []
    for name in ("one", "other"):
        path = tmp_path / name / "testbench.yaml"
        path.parent.mkdir()
        path.write_text("tasks: [{name: starter_logic}]\nsuppliers: []\n", encoding="utf-8")
        configs.append(load_config(path))
    one, other = configs
    with alone_at_home(one, "http://127.0.0.1:3000"):
        with alone_at_home(other, ""):
            pass
        monkeypatch.setenv("DAGSTER_HOME", str(one.home / "dagster"))
        with pytest.raises(TestbenchError) as refused, alone_at_home(other, ""):
            pytest.fail("two at a time")
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://127.0.0.1:9/d")
        with alone_at_home(other, ""):
            pass
    told = str(refused.value)
    assert told.startswith(
        f"`testbench up` works on Dagster's storage in {one.home}/dagster already: process "
    )
    assert told.endswith(", or unset DAGSTER_HOME to use the installation's own") and "\n" not in told


@pytest.mark.slow(minutes=1)
def test_one_up_at_a_time_and_the_next_after_a_kill_which_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    settings = {
        "tasks": [{"name": "starter_logic", "samples": 2}],
        "suppliers": [{"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "testbench_dagster.cli", "-c", str(path), "up", "--no-board"]
    command += ["--port", str(port)]

    def begun() -> subprocess.Popen[bytes]:
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(command, cwd=tmp_path, stderr=said, stdout=said)
        give_up = time.monotonic() + 180
        while b"with it runs the daemon" not in (tmp_path / "said").read_bytes():
            assert process.poll() is None and time.monotonic() < give_up, (tmp_path / "said").read_text()
            time.sleep(0.2)
        return process

    first = begun()
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1 and f"already: process {first.pid} on " in done.stderr
        assert f"http://127.0.0.1:{port}" in done.stderr
    finally:
        first.kill()
        first.wait()
    second = begun()  # at once, on the same port, while what the first had started ends
    second.send_signal(signal.SIGTERM)
    assert second.wait(120) == 0


def test_one_at_a_time_and_the_next_when_it_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hold = (
        "from pathlib import Path\n"
        "from testbench_dagster.stores.files import alone\n"
        f"with alone(Path({str(lock)!r}), ''):\n"
        "    print('in', flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(TestbenchError, match="somebody is there"), alone(lock, "somebody is there"):
            pytest.fail("two at a time")
        other.kill()
        other.wait()
    with alone(lock, "somebody is there"):
        assert lock.exists()
    with pytest.raises(StoreError, match="cannot write"), alone(tmp_path / "no" / "lock", ""):
        pytest.fail("without a file")


def test_a_hint_names_the_program_as_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "a folder" / "testbench"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert own_command() == "testbench"
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert shlex.split(own_command()) == [str(program)]
    monkeypatch.chdir(program.parent.parent)
    assert shlex.split(own_command()) == ["a folder/testbench"], "shorter from here"
    program.chmod(0o644)
    assert shlex.split(own_command())[1:] == ["-m", "testbench_dagster.cli"]


@pytest.mark.slow
def test_a_port_that_somebody_took_in_the_meantime_is_left_to_them(tmp_path: Path) -> None:
    """Two demos that begin at once both find the usual port free; the later one takes another."""
    script = (
        "import testbench_dagster.cli.serve as serve\n"
        "serve._is_free = lambda port: True\n"
        "serve.STARTER_PORT = {port}\n"
        "from testbench_dagster.cli import main\n"
        "main()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", script.format(port=port), "demo", "--no-ui", "--suppliers", "2"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "simulated network: 2 suppliers at" in done.stderr and f":{port}" not in done.stderr
