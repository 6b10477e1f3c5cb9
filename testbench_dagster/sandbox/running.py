"""Starts a confined process, feeds it a program and bounds what it says and how long it stays."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.core.wording import counted
from testbench_dagster.sandbox import inside
from testbench_dagster.sandbox.programs import Limits, Ran, Reason

#: The text of what runs inside, as `python -c` takes it.
INSIDE = Path(inside.__file__).read_text("utf-8")
_CHANNEL_BYTES = 4096
#: So many times its limit of the clock a program may stay while it waits for a processor.
_STARVED = 10.0
_SIGXCPU, _SIGKILL = 24, 9
_BY_SIGNAL = 128  # and its number: how a shell, and bwrap, tell that a signal ended a program

#: Makes a command of the arguments that :mod:`~testbench_dagster.sandbox.inside` wants.
Command = Callable[[Sequence[str]], list[str]]


@dataclass
class _Heard:
    """What came of one of a process's descriptors, and how much of it is kept."""

    most: int
    kept: bytearray = field(default_factory=bytearray)
    over: bool = False

    def take(self, data: bytes) -> None:
        left = self.most - len(self.kept)
        self.kept += data[:left]
        self.over = self.over or len(data) > left


def arguments(mode: str, channel: int, sizes: Sequence[int], limits: Limits) -> list[str]:
    """How :func:`inside.main` is told what comes, folder and packages aside."""
    bounds = (limits.cpu_s, limits.memory_bytes, limits.file_bytes, limits.open_files, limits.threads)
    return [mode, *(str(number) for number in (channel, *sizes, *bounds))]


def run_confined(
    command: Command,
    mode: str,
    texts: tuple[str, str],
    limits: Limits,
    *,
    kept: Sequence[int] = (),
    waited_s: Callable[[int], float],
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Ran:
    """Run one program to its end; everything that it started has ended with it.

    Args:
        command: makes the command line.
        mode: ``run`` for a program by itself, ``judge`` for an answer and its checks.
        texts: the program and nothing, or the answer and the checks.
        limits: what it may use.
        kept: descriptors that the process gets.
        waited_s: tells of a process how long it, or what it started, was ready and had no processor.
        environment: the variables that the command gets.
        user: to become before the command is started.

    Raises:
        SandboxError: the process did not come as far as the program.
    """
    first, second = (text.encode("utf-8", "surrogatepass") for text in texts)
    if len(first) + len(second) > limits.program_bytes:
        return Ran(
            exit=None, reason="too large", note=f"a program of {counted(len(first) + len(second), 'byte')}"
        )
    token = secrets.token_hex(inside.TOKEN_BYTES // 2).encode()
    judged = mode == "judge"
    began = time.monotonic()
    channel, theirs = os.pipe()
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        process = subprocess.Popen(  # noqa: S603  # a program of this system with our own arguments
            command(arguments(mode, theirs, (len(first), len(second)), limits)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if judged else subprocess.PIPE,
            stderr=subprocess.PIPE if judged else subprocess.STDOUT,
            cwd="/",
            env=dict(environment or {}),
            pass_fds=(theirs, *kept),
            **identity,
        )
    except OSError as error:
        os.close(channel)
        raise SandboxError(f"it cannot be started: {error}") from error
    finally:
        os.close(theirs)
    printing = process.stderr if judged else process.stdout
    if process.stdin is None or printing is None:
        raise RuntimeError("the process was started without pipes")
    said, printed = _Heard(_CHANNEL_BYTES), _Heard(limits.output_bytes)
    try:
        payload = first + second + (token if judged else b"")
        forced = _attend(
            process,
            payload,
            {channel: said, printing.fileno(): printed},
            None if judged else printed,
            lambda: limits.wall_s + min(waited_s(process.pid), (_STARVED - 1) * limits.wall_s),
        )
    finally:
        process.kill()
        for stream in (process.stdin, printing):
            with contextlib.suppress(OSError):  # what was not written yet is not wanted any more
                stream.close()
        os.close(channel)
        process.wait()
    if not said.kept.startswith(b"S"):
        told = " ".join(printed.kept.decode("utf-8", "replace").split())[-300:]
        raise SandboxError(told or f"it ended before the program began (exit code {process.returncode})")
    code = None if forced else process.returncode
    ran = _outcome(bytes(said.kept[1:]), token if judged else None, code, forced)
    return replace(
        ran,
        output="" if judged else printed.kept.decode("utf-8", "replace"),
        seconds=time.monotonic() - began,
    )


def _attend(
    process: subprocess.Popen[bytes],
    payload: bytes,
    heard: dict[int, _Heard],
    bounded: _Heard | None,
    most_s: Callable[[], float],
) -> Reason | None:
    """Feed a process and listen to it until it has ended, or say why it has to be.

    ``bounded`` is what may not be more than is kept; ``most_s`` says how long the process may take.
    """
    began, left = time.monotonic(), memoryview(payload)
    limit = most_s()
    with selectors.DefaultSelector() as selector:
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin.fileno(), selectors.EVENT_WRITE)
        for descriptor in heard:
            selector.register(descriptor, selectors.EVENT_READ)
        open_ends = set(heard)
        while open_ends:
            passed = time.monotonic() - began
            if passed >= limit:
                limit = most_s()
                if passed >= limit:
                    return "time"
            for key, _ in selector.select(limit - passed):
                if key.fd not in heard:
                    try:
                        left = left[os.write(key.fd, left) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        left = left[:0]
                    if not left and process.stdin is not None:
                        selector.unregister(key.fd)
                        process.stdin.close()  # who reads on finds the end
                    continue
                data = os.read(key.fd, 1 << 16)
                heard[key.fd].take(data)
                if not data:
                    selector.unregister(key.fd)
                    open_ends.discard(key.fd)
                if bounded is not None and bounded.over:
                    return "output"
    with contextlib.suppress(subprocess.TimeoutExpired):
        # whoever closed all its ends and stays is ended
        process.wait(timeout=max(0.05, limit - (time.monotonic() - began)))
        return None
    return "time"


def _outcome(said: bytes, token: bytes | None, code: int | None, forced: Reason | None) -> Ran:
    """What a program's end means; ``token`` is None where there was nothing to pass."""
    note = said[1:].decode("utf-8", "replace") if said.startswith(b"F") else ""
    if forced is not None or code is None:
        return Ran(exit=None, reason=forced or "time", note=note)
    signal_number = -code if code < 0 else max(0, code - _BY_SIGNAL)
    reason: Reason
    if token is not None and code == 0 and hmac.compare_digest(said, b"P" + token):
        return Ran(exit=0, reason="done", passed=True)
    if code == inside.FORBIDDEN:
        reason = "forbidden"
    elif signal_number in (_SIGXCPU, _SIGKILL):
        reason = "time"  # the limit of CPU time; also the kernel's way out where a machine has no memory left
    elif signal_number:
        reason = "crashed"
    elif note:
        reason = "memory" if note.startswith("MemoryError") else "raised"
    else:
        reason = "done" if token is None else "left early"
    return Ran(exit=code, reason=reason, note=note)


def starved_s(pid: int) -> float:
    """How long the youngest of a process's descendants was ready to run and had no processor, in seconds."""
    with contextlib.suppress(OSError, ValueError):
        for _ in range(8):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
            if not children:
                break
            pid = int(children[-1])
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    return 0.0
