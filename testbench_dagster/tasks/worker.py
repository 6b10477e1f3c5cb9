"""A warm child process that owns lm_eval, so that neither Dagster's processes nor the relays import it.

Importing lm_eval costs 3 CPU seconds and 180 MB, its checkers use global random state, and its filters run
regular expressions over hostile text without a time limit. The child pays the import once, keeps the state
to itself, and can be killed when an answer keeps it busy for too long.

The child is started as ``python -m testbench_dagster.tasks.worker``, not forked or spawned by
multiprocessing, so that it works from any caller: scripts without a main guard, threads, Dagster runs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from typing import IO, Any

from testbench_dagster.core.errors import TaskError

_LENGTH = struct.Struct(">Q")
_PARENT_CHECK_S = 2.0  # of the child's CPU time
_LOOK_S = 0.25  # between two looks at what a call has used
#: So many times its limit a call may take by the clock: it may wait, for a processor or for a service.
_WAITING = 10.0
_FUNCTIONS = ("register", "identify", "build_prompts", "score", "score_empty", "aggregate")


class WorkerTimeout(TaskError):
    """A call took more time than allowed; the child was killed and the next call starts a new one."""


class WorkerDied(TaskError):
    """The child ended during a call, killed by what it was given or by the system."""


class FrameworkWorker:
    """Calls the functions of the lm-eval adapter in the child process; one call at a time.

    Use as a context manager or call :meth:`close`; the child also ends when its parent does. Tasks bring code
    of their own, so the child does not get the environment variables in ``secrets``.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._secrets = frozenset(secrets)
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> FrameworkWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, function: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Run ``lm_eval_adapter.<function>(*args)`` in the child and return its result.

        ``timeout_s`` are seconds of the child's CPU time, so that a busy machine makes nobody's answer one
        that takes too long; by the clock it is ten times as much. Where the system does not tell CPU times
        they are seconds of the clock.

        Raises:
            WorkerTimeout: no result within ``timeout_s``.
            WorkerDied: the child ended instead.
            TaskError: whatever the function raised.
        """
        if function not in _FUNCTIONS:
            raise ValueError(f"{function!r} is none of {', '.join(_FUNCTIONS)}")
        with self._lock:
            process = self._started()
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the worker was started without pipes")
            try:
                limit = None if timeout_s is None else _Limit(process.pid, timeout_s)
                _write(process.stdin, (function, args))
                ok, value = _read(process.stdout, limit)
            except TimeoutError:
                self._kill()
                raise WorkerTimeout(f"{function} took longer than {timeout_s:g} s and was stopped") from None
            except (EOFError, BrokenPipeError, OSError):
                code, tail = process.wait(), self._stderr_tail()
                self._kill()
                raise WorkerDied(
                    f"the lm-eval process ended (exit code {code}) during {function}: {tail}"
                ) from None
            except BaseException:
                self._kill()  # interrupted between question and answer: the pipe is out of step
                raise
        if ok:
            return value
        raise value

    def close(self) -> None:
        """End the child."""
        with self._lock:
            process = self._process
            if process is not None and process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()  # end of file asks the child to leave
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
            self._kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbench_dagster.tasks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # a checker that walks a set gives the same sums everywhere; hostile keys meet time limits anyway
            env={**{n: v for n, v in os.environ.items() if n not in self._secrets}, "PYTHONHASHSEED": "0"},
        )
        return self._process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _stderr_tail(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read()[-2000:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no message"


def _write(stream: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


class _Limit:
    """What a call may use: so much CPU time of a process from now on, and some times as much by the clock."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid, self._seconds = pid, seconds
        self._cpu_from = cpu_seconds(pid)
        self._from = time.monotonic()

    @property
    def reached(self) -> bool:
        """Whether nothing is left of it."""
        waited, cpu = time.monotonic() - self._from, cpu_seconds(self._pid)
        if cpu is None or self._cpu_from is None:
            return waited >= self._seconds
        return cpu - self._cpu_from >= self._seconds or waited >= _WAITING * self._seconds


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process, its threads and the children it waited for (proc(5)); None off Linux."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _read(stream: IO[bytes], limit: _Limit | None = None) -> Any:
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size, limit))
    # what was pickled by this package, in a pipe that it shares with its own child process
    return pickle.loads(_read_exactly(stream, length, limit))  # noqa: S301


def _read_exactly(stream: IO[bytes], size: int, limit: _Limit | None) -> bytes:
    parts = []
    while size:
        while limit is not None and not select.select([stream], [], [], _LOOK_S)[0]:
            if limit.reached:
                raise TimeoutError
        part = stream.raw.read(min(size, 1 << 20)) if hasattr(stream, "raw") else stream.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _leave_with_parent() -> None:
    """End this process soon after its parent ended, even while a regular expression keeps it busy.

    An idle child notices the closed pipe. A busy one is interrupted by a timer of its own CPU time, which
    regular expressions and Python loops let through (and which tasks do not use, as they may SIGALRM).
    """
    parent = os.getppid()

    def check(_signum: int, _frame: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGVTALRM, check)
    signal.setitimer(signal.ITIMER_VIRTUAL, _PARENT_CHECK_S, _PARENT_CHECK_S)


def _serve() -> None:
    """Answer calls until the parent closes the pipe."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # lm-eval and its tasks print; the pipe carries answers only
    sys.modules.setdefault("chardet", None)  # type: ignore[arg-type]  # saves 1 s: requests has another detector
    from datasets.utils.logging import disable_progress_bar

    # with lm-eval: seconds, which is what this process is for
    from testbench_dagster.tasks import lm_eval_adapter

    disable_progress_bar()
    _leave_with_parent()
    while True:
        try:
            function, args = _read(sys.stdin.buffer)
        except EOFError:
            return
        call: Callable[..., Any] = getattr(lm_eval_adapter, function)
        try:
            answer = (True, call(*args))
        except TaskError as error:
            answer = (False, error)
        except Exception as error:
            answer = (False, TaskError(f"{function} failed: {type(error).__name__}: {str(error)[:500]}"))
        _write(answers, answer)


if __name__ == "__main__":
    _serve()
