"""Programs that nobody trusts, where no user namespace may be opened: a process that confines itself first.

It is a Python of its own, which takes on the walls of :mod:`~testbench_dagster.sandbox.landlock` (Landlock
and seccomp), and gives its place to another one within them, which reads the program. Where this process is
root, it is another user before that. What is otherwise than in bubblewrap: no file can be written at all, as
nothing would bound them together, packages are not there, and that a file exists on this machine can be found
out by who guesses its path.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox import landlock
from testbench_dagster.sandbox.attempts import first_escape
from testbench_dagster.sandbox.programs import USUAL, Limits, Ran
from testbench_dagster.sandbox.running import INSIDE, run_confined, starved_s
from testbench_dagster.sandbox.surroundings import ENVIRONMENT, USER, as_user, packages_for, python_for

#: What runs before the program: the walls by their text, as this package is not there. Then another Python
#: takes the place of this one: of ctypes, by which the walls are built and all memory can be read, nothing is
#: left.
_START = """
import os, sys, types
def module(name, text):
    made = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), made.__dict__)
    return made
module("testbench_dagster", "")
module("testbench_dagster.core", "")
module("testbench_dagster.core.errors", "class SandboxError(Exception): pass")
walls = module("walls", {landlock!r})
channel, *_, cpu, memory, size, files, threads = (int(one) for one in (sys.argv[4], *sys.argv[5:]))
walls._libc().prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: it ends with who started it
walls.confine(
    readable=[walls.Path(path) for path in {readable!r}],
    executable=[walls.Path(path) for path in {executable!r}], memory_bytes=memory, cpu_s=cpu,
    file_bytes=size, open_files=files, threads=True, keep=(0, 1, 2, channel),
)
os.execv({python!r}, [{python!r}, *{flags!r}, "-c", {inside!r}, *sys.argv[1:]])
"""
_FLAGS = ("-S", "-s", "-B", "-X", "utf8")
#: Threads of other programs that begin meanwhile, or cannot be seen.
_BESIDE = 32
_FOLDER = "/usr"  # it can be read, and written by nobody
_READABLE = ("/dev/null", "/dev/zero", "/dev/urandom")
_EXECUTABLE = ("/usr", "/lib", "/lib64", "/bin")  # Python, and what loads it; all within the walls


class Landlocked:
    """Runs programs in processes that confine themselves."""

    name = "Landlock"

    def run(self, program: str, limits: Limits = USUAL) -> Ran:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.run`."""
        return self._ran("run", (program, ""), limits)

    def judge(self, answer: str, checks: str, limits: Limits = USUAL) -> Ran:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.judge`."""
        return self._ran("judge", (answer, checks), limits)

    def probe(self) -> str | None:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.probe`."""
        if (problem := landlock.probe()) is not None:
            return problem
        try:
            return first_escape(self, frozenset(ENVIRONMENT))
        except SandboxError as error:
            return f"a process that confines itself does not start: {error}"

    def _ran(self, mode: str, texts: tuple[str, str], limits: Limits) -> Ran:
        if packages_for(texts[1]):
            raise SandboxError(
                "its checks import numpy, which is not there under Landlock; install bubblewrap "
                "(apt-get install bubblewrap) where user namespaces are allowed"
            )
        return run_confined(
            _command,
            mode,
            texts,
            limits,
            waited_s=starved_s,
            environment=ENVIRONMENT,
            user=USER if os.geteuid() == 0 and not as_user() else None,
        )


def _command(arguments: Sequence[str]) -> list[str]:
    python = python_for()
    mode, *rest, threads = arguments
    most = int(threads) + _tasks_of(USER if os.geteuid() == 0 else os.geteuid()) + _BESIDE
    return [*as_user(), python.path, *_FLAGS, "-c", _start(), mode, _FOLDER, "", *rest, str(most)]


def _tasks_of(user: int) -> int:
    """How many processes and threads a user has on this machine, as far as can be seen.

    Without a user namespace RLIMIT_NPROC counts them all: a bound of a few would leave an answer none.
    """
    found = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended
                if folder.stat().st_uid == user:
                    found += len(os.listdir(folder / "task"))
    return found


@cache
def _start() -> str:
    python = python_for()
    return _START.format(
        landlock=Path(landlock.__file__).read_text("utf-8"),
        inside=INSIDE,
        readable=[path for path in _READABLE if os.path.exists(path)],
        executable=[path for path in (*_EXECUTABLE, *python.folders) if os.path.exists(path)],
        python=python.path,
        flags=_FLAGS,
    )
