"""Servers in the background: quiet, announced when they serve, and gone with the command."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from testbench_dagster.cli import background
from testbench_dagster.cli.background import BackgroundServer
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster_tests.servers import free_port

SERVER = """
import http.server, sys, time
print("\\x1b[32mstarting\\x1b[0m", flush=True)
time.sleep(0.5)
print("x" * 5000, file=sys.stderr, flush=True)
handler = http.server.SimpleHTTPRequestHandler
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""


def started(folder: Path, program: str, *arguments: str, verbose: bool = False) -> BackgroundServer:
    command = [sys.executable, "-c", program, *arguments]
    log = folder / "logs" / "a.log"
    return BackgroundServer("a server", command, log, environment=os.environ, verbose=verbose)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; what nobody waited for yet has."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("verbose", [False, True])
def test_it_is_waited_for_and_what_it_says_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    port = free_port()
    with started(tmp_path, SERVER, str(port), verbose=verbose) as server:
        began = time.monotonic()
        server.wait_until_it_serves(f"http://127.0.0.1:{port}/")
        assert time.monotonic() - began > 0.3, "not before it does"
        pid = server._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    shown = capsys.readouterr()
    assert shown.out == "" and ("starting" in shown.err) is verbose
    log = (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")
    assert "starting" in log and "x" * 5000 in log and '"GET / HTTP/1.1" 200' in log


def test_who_ends_instead_of_serving_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = "import sys; print('\\x1b[31mno\\x07 room\\x1b[0m'); sys.exit(3)"
    with started(tmp_path, program) as server, pytest.raises(TestbenchError) as error:
        server.wait_until_it_serves(f"http://127.0.0.1:{free_port()}/")
    said = str(error.value)
    assert said.startswith("a server ended with exit code 3; all it said is in ")
    assert said.endswith("a.log\n  no\\x07 room"), "without what a terminal would obey"


def test_its_children_end_with_it(tmp_path: Path) -> None:
    program = """
import subprocess, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(0.2); sys.exit(0)
"""
    with started(tmp_path, program) as server:
        server.wait()
        log = tmp_path / "logs" / "a.log"
        deadline = time.monotonic() + 20
        while "child" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.05)
        child = int(log.read_text(encoding="utf-8").split()[1])
    assert is_gone(child)


def test_an_impatient_interrupt_leaves_nobody_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    stubborn = f"{ignoring}; import time; time.sleep(600)"
    server = started(tmp_path, stubborn)
    log = tmp_path / "logs" / "a.log"
    while "1" not in log.read_text(encoding="utf-8"):
        time.sleep(0.05)

    def interrupt(timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), server:
        monkeypatch.setattr(server._process, "wait", interrupt)
    assert server._process.wait(20) == -signal.SIGKILL


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_LOG_BYTES", 10_000)
    program = "for i in range(1000): print(f'{i:06} ' + 'x' * 93)"
    with started(tmp_path, program) as server:
        server.wait()
        server._reader.join(20)
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 2 and all(size <= 10_200 for size in sizes)
    assert (
        "000999 " in (tmp_path / "logs" / "a.log").read_text()
        or "000999 " in (tmp_path / "logs" / "a.log.1").read_text()
    )
