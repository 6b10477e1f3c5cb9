"""Whether a sandbox holds on this machine: programs that try to get out of it, and what came of them."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from testbench_dagster.sandbox.programs import Limits, Ran, Sandbox

#: Small ones, so that trying costs about a second.
_LIMITS = Limits(cpu_s=1, wall_s=10.0, memory_bytes=256 << 20)
_PROMPT = Limits(cpu_s=1, wall_s=0.5, memory_bytes=256 << 20)

#: What a program tries that has most of it in one place; each line is a name and code that raises where it is
#: held back. Values in braces are of the machine outside.
_TRIES = """
import ctypes, os, signal, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def made(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(0.3)
        s.connect(address)
def write(path, size=1):
    with open(path, "wb") as file:
        for _ in range(0, size, 1 << 20):
            file.write(b"x" * min(size, 1 << 20))
def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", ("192.0.2.1", 53))
def fork():
    if os.fork() == 0:
        os._exit(0)
def fill():
    for number in range(64):
        write(f"/tmp/{{number}}", 1 << 20)
def threads():
    wait, begun = threading.Event(), []
    try:
        for _ in range(2000):
            one = threading.Thread(target=wait.wait, daemon=True)
            one.start()
            begun.append(one)
    finally:
        wait.set()
        for one in begun:  # Python's end would end them by pthread_exit, which aborts where memory is short
            one.join()
def not_root():
    if 0 not in (os.getuid(), os.geteuid()):
        raise PermissionError
def variables():
    if set(os.environ) <= {variables!r}:
        raise PermissionError
def descriptors():
    there = 0
    for number in range(64):
        try:
            os.fstat(number)
            there += 1
        except OSError:
            pass
    if there <= 4:
        raise PermissionError
TRIES = {{
    "be root": not_root,
    "see variables of this process": variables,
    "see descriptors of this process": descriptors,
    "reach a server on this machine": lambda: connect(socket.AF_INET, ("127.0.0.1", {port})),
    "reach a socket of this machine": lambda: connect(socket.AF_UNIX, {abstract!r}),
    "reach the network": lambda: connect(socket.AF_INET, ("192.0.2.1", 53)),
    "send to the network": send,
    "read a file of this machine": lambda: open({canary!r}).read(),
    "write a file of this machine": lambda: write({canary!r}),
    "read accounts": lambda: open("/etc/passwd").read(),
    "read passwords": lambda: open("/etc/shadow").read(),
    "list the home of root": lambda: os.listdir("/root"),
    "read the environment of processes": lambda: open("/proc/{pid}/environ", "rb").read(1),
    "write into the memory of this process": lambda: open("/proc/{pid}/mem", "wb"),
    "change the system": lambda: write("/usr/testbench-escape"),
    "write beside its folder": lambda: write("/testbench-escape"),
    "write among devices": lambda: write("/dev/shm/testbench-escape"),
    "write a file that is too large": lambda: write("/tmp/large", 9 << 20),
    "fill its folder": fill,
    "send a signal to this process": lambda: os.kill({pid}, 0),
    "start a process": fork,
    "start any number of threads": threads,
    "open a user namespace": lambda: made(libc.unshare(0x10000000)),
    "open a mount namespace": lambda: made(libc.unshare(0x00020000)),
    "mount": lambda: made(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "trace": lambda: made(libc.ptrace(16, {pid}, 0, 0)),
    "keep memory beside its own": lambda: made(libc.shmget(0, 1 << 20, 0o1600)),
}}
for name, attempt in TRIES.items():
    try:
        attempt()
    except (OSError, RuntimeError, AttributeError):
        continue
    print("could", name)
    sys.stdout.flush()
    os._exit(3)
print("held")
"""
_LOOP = """
import signal
for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""
_SLEEP = "import time\ntime.sleep(600)"
_MEMORY = "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))"
_OUTPUT = "while True:\n    print('x' * 65536)"
_EARLY = "import os\nos._exit(0)"


@contextmanager
def _targets() -> Iterator[dict[str, object]]:
    """Things of this machine that a program would reach if it could."""
    abstract = f"\0testbench-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory(prefix="testbench-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(abstract)
        local.listen()
        os.chmod(folder, 0o777)  # noqa: S103  # it is to be held back by the sandbox, not by this
        canary = Path(folder, "canary")
        canary.write_text("alive", "utf-8")
        canary.chmod(0o666)
        yield {
            "port": server.getsockname()[1],
            "abstract": abstract,
            "canary": str(canary),
            "pid": os.getpid(),
        }
        if canary.read_text("utf-8") != "alive":
            raise ChangedOutside


class ChangedOutside(Exception):
    """A file of this machine is not as it was."""


def first_escape(sandbox: Sandbox, variables: frozenset[str] = frozenset()) -> str | None:
    """What a program in a sandbox could do that it must not, in a sentence; None where all was held back.

    ``variables`` are those that it may see. Takes about a second.

    Raises:
        SandboxError: nothing can be started in it.
    """
    told = f"a program in {sandbox.name}"
    try:
        with _targets() as targets, ThreadPoolExecutor(3) as pool:
            tried = pool.submit(sandbox.run, _TRIES.format(variables=set(variables), **targets), _LIMITS)
            runs = {
                "compute for ever": (pool.submit(sandbox.run, _LOOP, _LIMITS), "time"),
                "stay for ever": (pool.submit(sandbox.run, _SLEEP, _PROMPT), "time"),
                "take all memory": (pool.submit(sandbox.run, _MEMORY, _LIMITS), "memory"),
                "print for ever": (pool.submit(sandbox.run, _OUTPUT, _LIMITS), "output"),
                "pass without checks": (
                    pool.submit(sandbox.judge, _EARLY, "1", _LIMITS),
                    "left early",
                ),
            }
            passes = pool.submit(sandbox.judge, "value = 1", "assert value == 1", _LIMITS)
            if problem := _told(tried.result()):
                return f"{told} {problem}"
            for what, (run, reason) in runs.items():
                if (found := run.result()).reason != reason or found.passed:
                    return f"{told} could {what}: it ended by {found.reason!r}, not {reason!r}"
            if not (found := passes.result()).passed:
                return f"{told} does not run as it should: {found.reason}: {found.note or found.exit}"
    except ChangedOutside:
        return f"{told} changed a file of this machine"
    return None


def _told(ran: Ran) -> str | None:
    """What the program of all tries says; None where all were held back."""
    lines = ran.output.strip().splitlines()
    if lines[-1:] == ["held"] and ran.exit == 0:
        return None
    if ran.exit == 3 and lines:
        return lines[-1]
    return f"that tries to get out came to no end ({ran.reason}, exit code {ran.exit}): {ran.output[-200:]!r}"
