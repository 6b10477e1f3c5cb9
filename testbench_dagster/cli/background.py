"""Servers that a command keeps running: their output goes to a log file, and they end with the command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.text import escaped
from testbench_dagster.stores.files import create_folder, writing

#: A log begins anew at this size; one earlier file is kept beside it.
_LOG_BYTES = 20_000_000
_TAIL = 15  # lines that are shown where a server ended by itself
_ENDS_WITHIN_S = 20.0
_LOOK_S = 0.25
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


class BackgroundServer:
    """A server in a session of its own, so that it and all it starts can be ended as one group.

    A context manager, at whose end it is gone; on Linux also where this process is killed, if it was made in
    the main thread. Whatever it prints is in ``log``, and with ``verbose`` on
    stderr as well, until it is told to stop. With ``with_parent`` its stdin is open as long as this process
    lives.

    Raises:
        StoreError: the log cannot be written.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        verbose: bool = False,
        with_parent: bool = False,
    ) -> None:
        self.name, self.log = name, log
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._verbose = verbose
        create_folder(log.parent)
        with writing(log, "let this user write it"):
            self._file: IO[bytes] = _log_file(log)
        self._process = subprocess.Popen(  # noqa: S603  this Python, and options that click checked
            list(command),
            env=dict(environment),
            stdin=subprocess.PIPE if with_parent else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_as_child(),
        )
        self._reader = threading.Thread(target=self._read, name=f"testbench-{name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> BackgroundServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verbose = False
        self._process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_ENDS_WITHIN_S)
        finally:  # also where somebody is impatient and interrupts again
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=_ENDS_WITHIN_S)

    def wait_until_it_serves(self, url: str) -> None:
        """Return once there is an answer at ``url``.

        Raises:
            TestbenchError: it ended instead; says how, and where its messages are.
        """
        while not _answers(url):
            self.require_running()
            time.sleep(_LOOK_S)

    def wait(self) -> None:
        """Return when it has ended by itself, well.

        Raises:
            TestbenchError: it ended otherwise; says how, and where its messages are.
        """
        self._process.wait()
        self.require_running(done=0)

    def require_running(self, done: int | None = None) -> None:
        """Raise TestbenchError where it has ended, with another exit code than ``done``."""
        code = self._process.poll()
        if code is None or code == done:
            return
        self._reader.join(timeout=_LOOK_S * 8)
        said = "".join(f"\n  {line}" for line in self._tail) if not self._verbose else ""
        raise TestbenchError(f"{self.name} ended with exit code {code}; all it said is in {self.log}{said}")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  a pipe, see above
        with self._file:
            for line in self._process.stdout:
                self._tail.append(escaped(_COLOR.sub("", line.decode("utf-8", "replace").rstrip())))
                if self._verbose:
                    sys.stderr.write(line.decode("utf-8", "replace"))
                    sys.stderr.flush()
                # a full disk must not stop who writes into the pipe
                with contextlib.suppress(OSError):
                    if self._file.tell() > _LOG_BYTES:
                        self._file.close()
                        self._file = _log_file(self.log)
                    self._file.write(line)
                    self._file.flush()


def _log_file(path: Path) -> IO[bytes]:
    """The log, to write on; a large one is put aside first."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def _answers(url: str) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as response:  # a page of ours on loopback
            return int(response.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def _as_child() -> Callable[[], None]:
    """What a child does before it begins: it can be interrupted, and is ended where we are killed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    parent = os.getpid()

    def arrange() -> None:
        # shells start background jobs with SIGINT ignored, which children would inherit
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
            if os.getppid() != parent:  # killed in between
                os._exit(1)

    return arrange
