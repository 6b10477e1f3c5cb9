"""Hosts for tests: network, mounts, processes and name of its own for each, where this machine allows that.

Where it does not (no root, a container without the right), a host is plain processes with folders of their
own; what such a test cannot tell is whether one host reads the other's files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from testbench_dagster_tests.servers import ends_with_us, show_log, stop

HERE = Path(__file__).parent
UNSHARE = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
ENTER = ("nsenter", "--net", "--mount", "--uts", "--pid")
COMMAND_WITHIN_S = 300.0


@cache
def namespaces() -> bool:
    """Whether hosts get namespaces of their own here; not where ``TESTBENCH_TEST_PLAIN_HOSTS=1`` says so."""
    if os.environ.get("TESTBENCH_TEST_PLAIN_HOSTS") == "1" or shutil.which("nsenter") is None:
        return False
    mounts = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    with contextlib.suppress(OSError):
        return subprocess.run(mounts, capture_output=True, check=False).returncode == 0
    return False


@dataclass
class Host:
    """A host that executes one program, and others beside it; what they say is in ``folder/log``."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    link: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def beside(self, program: Sequence[str]) -> Iterator[None]:
        """Execute another program on it while this lasts."""
        with (self.folder / "log").open("ab") as log:
            process = self._begin(program, log)
        try:
            yield
        finally:
            _end(process)

    def run(self, program: Sequence[str], within_s: float = COMMAND_WITHIN_S) -> tuple[int, str]:
        """Execute another program on it until it ends; its exit code, and what it printed."""
        process = self._begin(program, subprocess.PIPE)
        try:
            said, _ = process.communicate(timeout=within_s)
        finally:
            _end(process)
        return process.returncode, said.decode(errors="replace")

    def _begin(self, program: Sequence[str], said: Any) -> subprocess.Popen[bytes]:
        inside: list[str] = []
        if namespaces():
            (first,) = _children(self.process.pid)
            inside = [*ENTER, f"--wd={self.folder / 'var'}", f"--target={first}", "--"]
        return subprocess.Popen(
            [*inside, *program],
            env=dict(self.environment),
            cwd=self.folder / "var",
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=ends_with_us(signal.SIGKILL),
        )

    def kill(self) -> float:
        """End everything at once, as a loss of power does; return when, in seconds since 1970."""
        at = time.time()
        if namespaces():
            self.process.kill()  # and with it the first process of the host, and so the host
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.link is not None:
            stop(self.link)
        return at

    def terminate(self) -> None:
        """SIGTERM to its program alone, as systemd sends it (``KillMode=mixed``)."""
        for pid in _children(self.process.pid) if namespaces() else [self.process.pid]:
            os.kill(pid, signal.SIGTERM)

    def pids(self) -> list[int]:
        """Its processes, known by the home in their environment."""
        home = f"TESTBENCH_HOME={self.folder / 'var'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and home in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def log(self) -> str:
        """What its program said."""
        return (self.folder / "log").read_text(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program in a session of its own, with what entered a host to execute it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:  # it ignores that, as what a shell began in the background may
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _first_line(process: subprocess.Popen[bytes], what: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", f"{what} did not start"


@dataclass
class Hosts:
    """All hosts of a test; ``ports`` of this machine is all that they reach in a network of their own."""

    folder: Path
    ports: Sequence[int]
    running: dict[str, Host] = field(default_factory=dict)

    def start(self, name: str, program: Sequence[str], environment: Mapping[str, str]) -> Host:
        """Start a host's program in its folder ``name``, which hides those of the others."""
        folder = self.folder / name
        others = [str(path) for path in self.folder.iterdir() if path.is_dir() and path != folder]
        own = [name, *others] if namespaces() else [""]
        command = [sys.executable, str(HERE / "host.py"), *own, "--", *program]
        show_log(f"host {name}", folder / "log")
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*UNSHARE, *command] if namespaces() else command,
                env=dict(environment),
                cwd=folder / "var",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=ends_with_us(signal.SIGKILL),
            )
        host = self.running[name] = Host(name, folder, process, environment)
        _first_line(process, f"host {name}")
        if namespaces():
            (first,) = _children(process.pid)
            link = [sys.executable, str(HERE / "link.py"), str(first), *map(str, self.ports)]
            host.link = subprocess.Popen(
                link,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=ends_with_us(signal.SIGKILL),
            )
            _first_line(host.link, f"the link of host {name}")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        return host


@contextlib.contextmanager
def hosts(folder: Path, ports: Sequence[int]) -> Iterator[Hosts]:
    """No hosts yet; ends those that were started."""
    made = Hosts(folder, ports)
    try:
        yield made
    finally:
        for host in made.running.values():
            host.kill()
