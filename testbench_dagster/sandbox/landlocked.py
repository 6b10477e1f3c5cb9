"""Programs that nobody trusts, where no user namespace may be opened: a process that confines itself first.

It is Python of its own, which takes on the walls of :mod:`~testbench_dagster.sandbox.landlock` (Landlock and
seccomp) and only then reads the program. Where this process is root, it is another user before that. What is
otherwise than in bubblewrap: no file can be written at all, as nothing would bound them together, packages
are not there, and that a file exists on this machine can be found out by who guesses its path.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox import landlock
from testbench_dagster.sandbox.attempts import first_escape
from testbench_dagster.sandbox.programs import USUAL, Limits, Ran
from testbench_dagster.sandbox.running import INSIDE, run_confined, starved_s
from testbench_dagster.sandbox.surroundings import ENVIRONMENT, USER, as_user, python_for

#: What runs before the program: both modules by their text, as this package is not there, then the walls.
_START = """
import sys, types
def module(name, text):
    made = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), made.__dict__)
    return made
module("testbench_dagster", "")
module("testbench_dagster.core", "")
module("testbench_dagster.core.errors", "class SandboxError(Exception): pass")
walls = module("walls", {landlock!r})
def confine(channel, memory, cpu, size, files):
    walls._libc().prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: it ends with who started it
    walls.confine(
        readable=[walls.Path(path) for path in {readable!r}], memory_bytes=memory, cpu_s=cpu,
        file_bytes=size, open_files=files, threads=True, keep=(0, 1, 2, channel),
    )
    for name in list(sys.modules):
        if name.partition(".")[0] in ("testbench_dagster", "walls", "inside", "ctypes", "_ctypes"):
            del sys.modules[name]
    for name in ("walls", "confine", "module"):
        globals().pop(name, None)
module("inside", {inside!r}).main(confine)
"""
_FOLDER = "/usr"  # it can be read, and written by nobody
_READABLE = ("/usr", "/lib", "/lib64", "/bin", "/dev/null", "/dev/zero", "/dev/urandom")


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
    mode, *rest = arguments
    flags = ("-S", "-s", "-B", "-X", "utf8", "-c", _start())
    return [*as_user(), python.path, *flags, mode, _FOLDER, "", *rest]


@cache
def _start() -> str:
    readable = [path for path in (*_READABLE, *python_for().folders) if os.path.exists(path)]
    walls = Path(landlock.__file__).read_text("utf-8")
    return _START.format(landlock=walls, inside=INSIDE, readable=readable)
