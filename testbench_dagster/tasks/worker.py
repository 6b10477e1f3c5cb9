"""Warm child processes in which frameworks live: neither Dagster's processes nor the relays import them.

Importing lm_eval costs 3 CPU seconds and 180 MB, its checkers use global random state, and its filters run
regular expressions over hostile text without a time limit; another package's framework may do anything. A
child pays the import once, keeps the state to itself, and can be killed when an answer keeps it busy for too
long. Each framework has a child of its own, but for those whose plugs say that they share one.

A child is started as ``python -m testbench_dagster.tasks.worker``, not forked or spawned by
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
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from typing import IO, Any, NamedTuple

from testbench_dagster.core.errors import AdapterFailed, Interrupted, TaskError
from testbench_dagster.core.frameworks import framework_plug

_LENGTH = struct.Struct(">Q")
_PARENT_CHECK_S = 2.0  # of the child's CPU time, and by the clock
#: What the child says, with a value: a part of a result, all of it, that it was in parts, an error.
_PART, _RETURNED, _YIELDED, _RAISED = "part", "returned", "yielded", "raised"
_START_S, _START_WAIT_S = 60.0, 600.0  # of CPU time and by the clock, to start the child: lm-eval takes 3
_LOOK_S = 0.25  # between two looks at what a call has used
#: So many times its limit a call may take by the clock: it may wait, for a processor or for a service.
_WAITING = 10.0
#: What makes tasks ready to be asked; what is under way of it ends at once where the run is to stop.
_PREPARING = ("register", "identify", "build_prompts", "aggregates")
_FUNCTIONS = (*_PREPARING, "score", "score_empty", "score_probes", "aggregate")
#: Seconds of the clock for which a call that scores what is stored may go on without a result after somebody
#: asked to stop, and for which an adapter may be loaded for it.
_STOP_S, _STOP_LOADING_S = 10.0, 30.0
#: A call is told of to who looks on when it has taken so many seconds.
_TELL_AFTER_S = 3.0


class Waiting(NamedTuple):
    """A call that is waited for: of which task (empty where it is of none), and for how long."""

    framework: str
    task: str
    function: str
    seconds: float

    def __str__(self) -> str:
        return f"task {self.task!r}, {self.function}() of framework {self.framework!r}"


class WorkerStopped(TaskError):
    """A call came to no end. ``parts`` are those of its results that were there before."""

    def __init__(self, text: str, parts: Sequence[Any] = ()) -> None:
        super().__init__(text)
        self.parts = list(parts)

    def about(self, what: str) -> None:
        """Say what it is about."""
        self.args = (f"{what}: {self}",)


class WorkerTimeout(WorkerStopped):
    """A call took more time than allowed; the child was killed and the next call starts a new one.

    ``waited``: it did not compute all the time, but waited for something, such as a service.
    """

    def __init__(self, text: str, parts: Sequence[Any] = (), *, waited: bool = False) -> None:
        super().__init__(text, parts)
        self.waited = waited


class WorkerDied(WorkerStopped):
    """The child ended during a call, killed by what it was given or by the system."""


class FrameworkWorker:
    """Calls the adapters of frameworks, each in the child process that its plug names, started when needed.

    Use as a context manager or call :meth:`close`; the children also end when their parent does. Tasks bring
    code of their own, so the children do not get the environment variables in ``secrets``. ``hash_seed`` is
    Python's for texts: by it sets have an order.
    """

    def __init__(self, secrets: Collection[str] = (), *, hash_seed: int = 0) -> None:
        self._secrets, self._hash_seed = frozenset(secrets), hash_seed
        self._children: dict[str, WorkerProcess] = {}
        self._lock = threading.Lock()
        #: Told several times a second which call is waited for, in its thread; None once it has ended.
        self.on_wait: Callable[[Waiting | None], None] | None = None
        #: Set by who wants this process to stop: then what prepares tasks ends at once, and what scores them
        #: where it comes to nothing.
        self.stop: threading.Event | None = None

    def __enter__(self) -> FrameworkWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(
        self,
        framework: str,
        function: str,
        *args: Any,
        task: str = "",
        timeout_s: float | None = None,
        wait_s: float | None = None,
    ) -> Any:
        """Call a function of a framework's adapter; see :meth:`WorkerProcess.call`.

        ``task`` is the one that it is about, for who looks on.

        Raises:
            Interrupted: :attr:`stop` was set, and the call was ended, or not begun.
        """
        plug = framework_plug(framework)
        watch = _Watch(self, framework, task, function)
        try:
            return self.process(framework).call(
                plug.adapter, function, *args, timeout_s=timeout_s, wait_s=wait_s, watch=watch
            )
        finally:
            watch.end()

    def process(self, framework: str) -> WorkerProcess:
        """The child process of a framework, started or not."""
        name = framework_plug(framework).process or framework
        with self._lock:
            return self._children.setdefault(name, WorkerProcess(name, self._secrets, self._hash_seed))

    def close(self) -> None:
        """End the children."""
        with self._lock:
            children = list(self._children.values())
        for child in children:
            child.close()


class WorkerProcess:
    """Calls the functions of adapters in one child process; one call at a time. ``name`` is for messages."""

    def __init__(self, name: str, secrets: Collection[str] = (), hash_seed: int = 0) -> None:
        self._name = name
        self._secrets, self._hash_seed = frozenset(secrets), hash_seed
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._loaded: set[str] = set()

    @property
    def pid(self) -> int | None:
        """The child's, None where it does not run."""
        return None if self._process is None else self._process.pid

    def call(
        self,
        adapter: str,
        function: str,
        *args: Any,
        timeout_s: float | None = None,
        wait_s: float | None = None,
        watch: _Watch | None = None,
    ) -> Any:
        """Run ``function`` of an adapter (``package.module:Class``) in the child and return its result.

        Of a function that yields its results that is a list of them.

        ``timeout_s`` are seconds of the child's CPU time, so that a busy machine makes nobody's answer one
        that takes too long; by the clock it is ten times as much, and never less than ``wait_s`` since the
        last result that was yielded. Where the system does not tell CPU times they are seconds of the clock.
        Loading the adapter has limits of its own. ``watch`` is asked several times a second whether to go on.

        Raises:
            WorkerTimeout: no result within ``timeout_s``.
            WorkerDied: the child ended instead.
            Interrupted: the process is to stop; the child was killed.
            TaskError: whatever the function raised, or the adapter when it was loaded.
        """
        if function not in _FUNCTIONS:
            raise ValueError(f"{function!r} is none of {', '.join(_FUNCTIONS)}")
        watch = watch or _Watch(None, self._name, "", function)
        with self._lock:
            watch.begin()
            process = self._started()
            parts: list[Any] = []
            limit = None
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the worker was started without pipes")
            try:
                if adapter not in self._loaded:
                    limit = _Limit(process.pid, _START_S, _START_WAIT_S)
                    watch.heard(loading=True)
                    _write(process.stdin, (adapter, None, ()))
                    kind, value = _read(process.stdout, limit, watch)
                    if kind == _RAISED:
                        raise value
                    self._loaded.add(adapter)
                limit = None if timeout_s is None else _Limit(process.pid, timeout_s, wait_s)
                watch.heard()
                _write(process.stdin, (adapter, function, args))
                kind, value = _read(process.stdout, limit, watch)
                while kind == _PART:
                    parts.append(value)
                    watch.heard()
                    if limit is not None:
                        limit.alive()
                    kind, value = _read(process.stdout, limit, watch)
            except TaskError:
                raise  # the child is in step
            except TimeoutError:
                waited = limit is not None and limit.waited
                self._kill()
                told = "" if limit is None else limit.told
                raise WorkerTimeout(f"{function} {told} and was stopped", parts, waited=waited) from None
            except (EOFError, BrokenPipeError, OSError):
                code, tail = process.wait(), self._stderr_tail()
                self._kill()
                raise WorkerDied(
                    f"the {self._name} process ended (exit code {code}) during {function}: {tail}", parts
                ) from None
            except BaseException:
                self._kill()  # interrupted between question and answer: the pipe is out of step
                raise
        if kind == _YIELDED:
            return parts
        if kind == _RETURNED:
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
            env={
                **{n: v for n, v in os.environ.items() if n not in self._secrets},
                "PYTHONHASHSEED": str(self._hash_seed),
            },
        )
        return self._process

    def _kill(self) -> None:
        self._loaded.clear()
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


class _Watch:
    """Looks on while a call is waited for: tells who wants to know, and ends it where the run is to stop."""

    def __init__(self, worker: FrameworkWorker | None, framework: str, task: str, function: str) -> None:
        self._worker = worker
        self._what = (framework, task, function)
        self._from = self._silent_from = time.monotonic()
        self._loading = self._told = self._stopping = False

    def begin(self) -> None:
        """The child is this call's: another one may have had it until now."""
        if self._worker is not None and self._what[2] in _PREPARING:
            self.look()

    def heard(self, *, loading: bool = False) -> None:
        """A result has come, or another part of the call begins."""
        self._silent_from, self._loading = time.monotonic(), loading

    def look(self) -> None:
        """Called while nothing comes.

        Raises:
            Interrupted: it is not to be waited for any more.
        """
        worker = self._worker
        if worker is None:
            return
        now = time.monotonic()
        waiting = Waiting(*self._what, now - self._from)
        if worker.stop is not None and worker.stop.is_set():
            if not self._stopping:  # what was silent before has its time from now on
                self._stopping, self._silent_from = True, now
            patience = _STOP_LOADING_S if self._loading else _STOP_S
            if self._what[2] in _PREPARING or now - self._silent_from >= patience:
                raise Interrupted(f"interrupted while waiting for {waiting}")
        if worker.on_wait is not None and waiting.seconds >= _TELL_AFTER_S:
            self._told = True
            worker.on_wait(waiting)

    def end(self) -> None:
        """The call is over."""
        if self._told and self._worker is not None and self._worker.on_wait is not None:
            self._worker.on_wait(None)


def _write(stream: IO[bytes], value: Any) -> None:
    _send(stream, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))


def _send(stream: IO[bytes], data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


class _Limit:
    """What a call may use: so much CPU time of a process from now on, and some times as much by the clock."""

    def __init__(self, pid: int, seconds: float, wait_s: float | None = None) -> None:
        self._pid, self._seconds, self._wait_s = pid, seconds, wait_s or 0.0
        self._long = f"took longer than {seconds:g} s"
        self._cpu_from = cpu_seconds(pid)
        self._from = time.monotonic()
        #: Seconds of the clock for which nothing may be heard.
        self.patience_s = max(_WAITING * seconds, self._wait_s)
        #: Whether it was reached by the clock, with time to compute left.
        self.waited = False

    def alive(self) -> None:
        """A result has come: the clock begins anew, what was computed stays."""
        self._from = time.monotonic()
        self.patience_s = self._wait_s or self.patience_s

    @property
    def told(self) -> str:
        """What was done for too long, and how long was allowed."""
        return f"waited for more than {self.patience_s:g} s" if self.waited else self._long

    @property
    def reached(self) -> bool:
        """Whether nothing is left of it."""
        waited, cpu = time.monotonic() - self._from, cpu_seconds(self._pid)
        if cpu is None or self._cpu_from is None:
            return waited >= self._seconds
        if cpu - self._cpu_from >= self._seconds:
            return True
        self.waited = waited >= self.patience_s
        return self.waited


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process, its threads and the children it waited for (proc(5)); None off Linux."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _read(stream: IO[bytes], limit: _Limit | None = None, watch: _Watch | None = None) -> Any:
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size, limit, watch))
    # what was pickled by this package, in a pipe that it shares with its own child process
    return pickle.loads(_read_exactly(stream, length, limit, watch))  # noqa: S301


def _read_exactly(stream: IO[bytes], size: int, limit: _Limit | None, watch: _Watch | None) -> bytes:
    parts = []
    while size:
        while watch is not None and not select.select([stream], [], [], _LOOK_S)[0]:
            watch.look()
            if limit is not None and limit.reached:
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
    regular expressions and Python loops let through (and which tasks do not use, as they may SIGALRM). One
    that waits, for a service say, has a thread that looks.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    def check(_signum: int, _frame: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGVTALRM, check)
    signal.setitimer(signal.ITIMER_VIRTUAL, _PARENT_CHECK_S, _PARENT_CHECK_S)
    threading.Thread(target=look, name="testbench-parent", daemon=True).start()


def _own_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to the parent, out of reach: what frameworks print, in whatever way, goes to stderr."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return calls, answers


def _serve() -> None:
    """Answer calls until the parent closes the pipe; a call without a function loads an adapter."""
    calls, answers = _own_pipes()
    _leave_with_parent()
    adapters: dict[str, Any] = {}
    while True:
        try:
            path, function, args = _read(calls)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = (_RETURNED, None)
            if function is None:
                module, _, name = path.partition(":")
                adapters[path] = getattr(import_module(module), name)()
            else:
                answer = (_RETURNED, getattr(adapters[path], function)(*args))
            if isinstance(answer[1], Iterator):
                for part in answer[1]:
                    _write(answers, (_PART, part))
                answer = (_YIELDED, None)
            said = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        except TaskError as error:
            said = pickle.dumps((_RAISED, error))
        except Exception as error:  # an adapter's, or of what it returned, which may be anything
            what = function or f"loading {path}"
            failed = AdapterFailed(f"{what} failed: {type(error).__name__}: {str(error)[:500]}")
            said = pickle.dumps((_RAISED, failed))
        _send(answers, said)


if __name__ == "__main__":
    _serve()
