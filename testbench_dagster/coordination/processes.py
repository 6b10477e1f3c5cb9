"""What identifies a machine and a process on it, and a clock that all processes of a machine share."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType

_ENDED = frozenset("ZXx")  # a zombie's code runs no more, though its parent has not asked for it yet
_STOPPED = frozenset("Tt")

if sys.platform == "linux":

    def boot_clock() -> float:
        """Seconds since the machine booted: never stepped, and it goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    boot_clock = time.monotonic


@lru_cache(maxsize=1)
def machine() -> str:
    """Identify what process ids and :func:`boot_clock` refer to, beginning with the host name.

    Two containers on one computer differ (their process ids do), and so does a computer before and after a
    restart. Where the system tells no more, it is the host name alone.
    """
    return "/".join([host_name(), *_boot(), *_namespaces()])


@lru_cache(maxsize=1)
def host_name() -> str:
    """What people call this machine."""
    return socket.gethostname()


@lru_cache(maxsize=1)
def shares_boot_clock() -> bool:
    """Whether :func:`machine` tells one boot from the next, so that boot clocks may be compared."""
    return bool(_boot())


def _boot() -> list[str]:
    try:
        return [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    except OSError:
        return []


def _namespaces() -> list[str]:
    found = []
    for name in ("pid", "time"):
        try:
            found.append(os.readlink(f"/proc/self/ns/{name}"))
        except OSError:  # not Linux, or too old to have it
            continue
    return found


def process_started(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot (``proc(5)``); None if unknown."""
    found = _stat(pid)
    return None if found is None else int(found[19])


def is_running(pid: int, started: int | None) -> bool:
    """Whether the process that had this id and start is still there; a reused id is not taken for it."""
    found = _stat(pid)
    if found is not None:
        return found[0] not in _ENDED and started in (None, int(found[19]))
    try:  # no /proc, or one that hides the processes of others
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_stopped(pid: int) -> bool:
    """Whether the process is there and suspended (SIGSTOP, a debugger); False where it is not known."""
    found = _stat(pid)
    return found is not None and found[0] in _STOPPED


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` from the third on (the second, a name, may hold anything)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (OSError, ValueError):
        return None
    return text.rpartition(")")[2].split()


@contextmanager
def ignoring_alone() -> Iterator[None]:
    """What this process was started to ignore (SIGINT, SIGTERM), its children do not: they can be ended.

    Shells start background jobs of scripts so. Children inherit it, and Dagster, which ends by SIGTERM those
    that copy the output of steps, would wait for them in vain. Signals are set in the main thread only: in
    any other, this does nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(one) is signal.SIG_IGN:
                before[one] = signal.signal(one, _overhear)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _overhear(_signal: int, _frame: FrameType | None) -> None:
    """Ignores a signal, as ``SIG_IGN`` does; but no child inherits this."""
