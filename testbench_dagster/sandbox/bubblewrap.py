"""Programs that nobody trusts, in bubblewrap: own namespaces, another user, a filter of system calls.

What holds for a program:

* no network: a network namespace without a way out, and no socket can be made;
* it sees `/usr` (and its Python, where that lies elsewhere) read-only, a few harmless devices, and a small
  `/tmp` that goes with it; no `/proc`, `/etc`, `/home` or `/root`;
* it is never root: where this process is, bwrap is started as another user, and inside as nobody, without
  capabilities and without a way to get any;
* it starts no process and opens no namespace; its threads, memory, CPU time, files and descriptors are
  bounded, so is its time by the clock;
* it has no terminal, no environment but a few variables, and no descriptor but its
  own pipes;
* it ends with this process, at the latest, and everything in its process namespace with it.

bubblewrap: https://github.com/containers/bubblewrap (its manual page names the options).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox.attempts import first_escape
from testbench_dagster.sandbox.landlock import knows_machine
from testbench_dagster.sandbox.programs import USUAL, Limits, Ran
from testbench_dagster.sandbox.running import INSIDE, run_confined, starved_s
from testbench_dagster.sandbox.seccomp import filter_program
from testbench_dagster.sandbox.surroundings import ENVIRONMENT, USER, as_user, packages_for, python_for

_NOBODY = "65534"  # who it is inside
_FOLDER, _PACKAGES = "/tmp", "/packages"  # noqa: S108  # of the sandbox, not of this machine


class Bubblewrap:
    """Runs programs in bubblewrap. ``bwrap`` is the program to use; by default that on the PATH."""

    name = "bubblewrap"

    def __init__(self, bwrap: str | None = None) -> None:
        self._bwrap = bwrap or shutil.which("bwrap")

    def run(self, program: str, limits: Limits = USUAL) -> Ran:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.run`."""
        return self._ran("run", (program, ""), limits)

    def judge(self, answer: str, checks: str, limits: Limits = USUAL) -> Ran:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.judge`."""
        return self._ran("judge", (answer, checks), limits)

    def probe(self) -> str | None:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.probe`."""
        if sys.platform != "linux":
            return f"bubblewrap is for Linux, and this is {sys.platform}; use a Linux machine"
        if self._bwrap is None:
            return "bwrap is not installed; install it (apt-get install bubblewrap)"
        if not knows_machine():
            return "the system calls of this processor are not known here; use x86-64 or 64-bit ARM"
        try:
            return first_escape(self, frozenset({*ENVIRONMENT, "PWD"}))
        except SandboxError as error:
            return (
                f"bwrap does not start: {error}; where user namespaces are not allowed (a container's "
                "profile, sysctl user.max_user_namespaces), see docs/code.md"
            )

    def _ran(self, mode: str, texts: tuple[str, str], limits: Limits) -> Ran:
        if self._bwrap is None:
            raise SandboxError("bwrap is not installed; install it (apt-get install bubblewrap)")
        packages = packages_for(texts[1])
        with _filter_end() as refused:
            return run_confined(
                lambda arguments: self._command(arguments, limits, packages, refused),
                mode,
                texts,
                limits,
                kept=[refused],
                waited_s=starved_s,
                user=USER if os.geteuid() == 0 and not as_user() else None,
            )

    def _command(
        self, arguments: Sequence[str], limits: Limits, packages: Sequence[str], refused: int
    ) -> list[str]:
        python = python_for()
        mode, *rest = arguments
        return [
            *as_user(),
            str(self._bwrap),
            *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
            *(("--disable-userns",) if _disables_user_namespaces(str(self._bwrap)) else ()),
            *("--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL", "--hostname", "sandbox"),
            *_system(),
            *("--size", str(limits.folder_bytes), "--tmpfs", _FOLDER),
            *(part for folder in python.folders for part in ("--ro-bind", folder, folder)),
            *(part for source in packages for part in _package(source)),
            *("--dev", "/dev", "--remount-ro", "/dev"),
            *("--remount-ro", "/"),
            *("--chdir", _FOLDER, "--clearenv"),
            *(part for name, value in ENVIRONMENT.items() for part in ("--setenv", name, value)),
            *("--seccomp", str(refused)),
            *(python.path, "-S", "-s", "-B", "-X", "utf8", "-c", INSIDE),
            *(mode, _FOLDER, _PACKAGES if packages else "", *rest),
        ]


# ------------------------------------------------------------------------------------ what it is made of


def _package(source: str) -> Iterator[str]:
    yield from ("--ro-bind", source, f"{_PACKAGES}/{os.path.basename(source)}")


@cache
def _system() -> tuple[str, ...]:
    """`/usr`, and what of it stands at the root, as links or as folders of their own."""
    found = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            found += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            found += ["--ro-bind", str(path), str(path)]
    return tuple(found)


@cache
def _disables_user_namespaces(bwrap: str) -> bool:
    """Whether this bwrap has `--disable-userns` (0.8 and later); the filter of system calls does, anyway."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(  # noqa: S603  # a program of this system
            [bwrap, "--help"], capture_output=True, text=True, timeout=20, check=False
        )
        return "--disable-userns" in said.stdout + said.stderr
    return False


@contextmanager
def _filter_end() -> Iterator[int]:
    """A descriptor to read the filter from, once: a pipe holds it as a whole."""
    steps = filter_program()
    read, write = os.pipe()
    try:
        try:
            os.write(write, steps)
        finally:
            os.close(write)
        yield read
    finally:
        os.close(read)
