"""The simulated hosts themselves: a kill leaves nothing, SIGTERM arrives, others are out of reach."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster_tests.deploy.hosts import HERE, Host, hosts, namespaces
from testbench_dagster_tests.operations.harness import wait_until
from testbench_dagster_tests.servers import free_port

WITHIN_S = 60.0
PROGRAM = """
import os, pathlib, signal, socket, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("sees", sorted(p.name for p in pathlib.Path(sys.argv[1]).iterdir()))
for port in map(int, sys.argv[2:]):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as there:
            print("port", port, there.recv(5))
    except OSError:
        print("port", port, None)
def leave(*_):
    print("leaves", flush=True)
    child.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("works", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["namespaces", "plain"])
def separate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether hosts are namespaces: tried both ways, where this machine allows them."""
    monkeypatch.setenv("TESTBENCH_TEST_PLAIN_HOSTS", str(int(request.param == "plain")))
    namespaces.cache_clear()
    if request.param == "namespaces" and not namespaces():
        pytest.skip("no namespaces here")
    yield namespaces()
    namespaces.cache_clear()


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Of two servers that greet; hosts are to reach the first."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:

        def greet(server: socket.socket) -> None:
            while True:
                try:
                    with server.accept()[0] as client:
                        client.sendall(b"hello")
                except OSError:
                    return

        for server in (first, second):
            threading.Thread(target=greet, args=[server], daemon=True).start()
        yield [first.getsockname()[1], second.getsockname()[1]]


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TESTBENCH_HOME": str(folder / "var")}


def working(host: Host) -> str:
    wait_until("the program", lambda: "works" in host.log(), WITHIN_S, every_s=0.05)
    return host.log()


def test_a_host_is_alone_and_dies_whole(separate: bool, ports: list[int], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "var").mkdir(parents=True)
        (tmp_path / name / "secret").touch()
    with hosts(tmp_path, ports[:1]) as made:
        program = [sys.executable, "-c", PROGRAM, str(tmp_path / "two"), *map(str, ports)]
        host = made.start("one", program, environment(tmp_path / "one"))
        log = working(host)
        assert f"port {ports[0]} b'hello'" in log
        assert (f"port {ports[1]} None" in log) == separate
        assert ("sees []" in log) == separate
        assert len(host.pids()) >= 3
        host.kill()
        wait_until("its end", lambda: not host.pids(), WITHIN_S, every_s=0.05)


def test_sigterm_reaches_the_program(separate: bool, tmp_path: Path) -> None:
    (tmp_path / "one" / "var").mkdir(parents=True)
    with hosts(tmp_path, []) as made:
        program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        host = made.start("one", program, environment(tmp_path / "one"))
        working(host)
        host.terminate()
        assert host.process.wait(WITHIN_S) == 0
        assert "leaves" in host.log()


def test_other_programs_are_executed_beside_the_first(separate: bool, tmp_path: Path) -> None:
    (tmp_path / "one" / "var").mkdir(parents=True)
    with hosts(tmp_path, []) as made:
        program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        host = made.start("one", program, environment(tmp_path / "one"))
        working(host)
        alone = host.pids()
        (tmp_path / "one" / "var" / "page").write_text("who reads me?")
        port = free_port()
        with host.beside([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]):
            url = f"http://127.0.0.1:{port}/page"
            code, said = host.run([sys.executable, str(HERE / "get.py"), str(WITHIN_S), url])
            assert (code, json.loads(said)) == (0, {url: "who reads me?"})
            if separate:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 5)
        whoami = "import os, socket; print(socket.gethostname(), os.environ['TESTBENCH_HOME']); exit(3)"
        name = "one" if separate else socket.gethostname()
        home = str(tmp_path / "one" / "var")
        assert host.run([sys.executable, "-c", whoami]) == (3, f"{name} {home}\n")
        wait_until("the end of what was beside it", lambda: host.pids() == alone, WITHIN_S, every_s=0.05)
