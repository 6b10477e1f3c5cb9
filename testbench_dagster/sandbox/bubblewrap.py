"""Programs that nobody trusts, in bubblewrap: namespaces of their own, another user, a filter of system calls.

What holds for a program:

* no network: a network namespace without a way out, and no socket can be made;
* it sees `/usr` (and its Python, where that lies elsewhere) read-only, a few harmless devices, and a small
  `/tmp` that goes with it; no `/proc`, `/etc`, `/home` or `/root`;
* it is never root: where this process is, bwrap is started as :data:`USER`, and inside as nobody, without
  capabilities and without a way to get any;
* it starts no process and opens no namespace; its threads, memory, CPU time, files and descriptors are
  bounded, so is its time by the clock;
* it has no terminal, no environment but the few variables of :data:`_ENVIRONMENT`, and no descriptor but its
  own pipes;
* it ends with this process, at the latest, and everything in its process namespace with it.

bubblewrap: https://github.com/containers/bubblewrap (its manual page names the options).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError
from testbench_dagster.sandbox.attempts import first_escape
from testbench_dagster.sandbox.programs import Limits, Ran
from testbench_dagster.sandbox.running import INSIDE, run_confined
from testbench_dagster.sandbox.seccomp import filter_program, knows_machine

#: Who bwrap is started as where this process is root: a user that no account has, so that limits of root do
#: not apply and nothing belongs to it. Inside it is nobody.
USER = 65533
_NOBODY = "65534"
_FOLDER, _PACKAGES = "/tmp", "/packages"  # noqa: S108  # of the sandbox, not of this machine
_ENVIRONMENT = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets have one order: a score is the same in every process
}
#: Folders of packages that programs may import, beside the standard library: tests of EvalPlus use numpy.
_OF_NUMPY = ("numpy", "numpy.libs")


class Bubblewrap:
    """Runs programs in bubblewrap. ``bwrap`` is the program to use; by default that on the PATH."""

    name = "bubblewrap"

    def __init__(self, bwrap: str | None = None) -> None:
        self._bwrap = bwrap or shutil.which("bwrap")
        self._as_root = os.geteuid() == 0

    def run(self, program: str, limits: Limits = Limits()) -> Ran:
        """See :meth:`~testbench_dagster.sandbox.programs.Sandbox.run`."""
        return self._ran("run", (program, ""), limits)

    def judge(self, answer: str, checks: str, limits: Limits = Limits()) -> Ran:
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
            return first_escape(self, frozenset({*_ENVIRONMENT, "PWD"}))
        except SandboxError as error:
            return (
                f"bwrap does not start: {error}; where user namespaces are not allowed (a container's "
                "profile, sysctl user.max_user_namespaces), see docs/code.md"
            )

    def _ran(self, mode: str, texts: tuple[str, str], limits: Limits) -> Ran:
        if self._bwrap is None:
            raise SandboxError("bwrap is not installed; install it (apt-get install bubblewrap)")
        with _filter_end() as refused:
            return run_confined(
                lambda arguments: self._command(arguments, limits, refused),
                mode,
                texts,
                limits,
                kept=[refused],
                waited_s=starved_s,
                user=USER if self._as_root and not _setpriv() else None,
            )

    def _command(self, arguments: Sequence[str], limits: Limits, refused: int) -> list[str]:
        python = python_for(USER if self._as_root else None)
        mode, *rest = arguments
        packages = _PACKAGES if python.packages else ""
        return [
            *(_setpriv() if self._as_root else ()),
            str(self._bwrap),
            *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
            *(("--disable-userns",) if _disables_user_namespaces(str(self._bwrap)) else ()),
            *("--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL", "--hostname", "sandbox"),
            *_system(),
            *(() if python.prefix is None else ("--ro-bind", python.prefix, python.prefix)),
            *(part for source in python.packages for part in _package(source)),
            *("--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(limits.folder_bytes), "--tmpfs", _FOLDER, "--remount-ro", "/"),
            *("--chdir", _FOLDER, "--clearenv"),
            *(part for name, value in _ENVIRONMENT.items() for part in ("--setenv", name, value)),
            *("--seccomp", str(refused)),
            *(python.path, "-S", "-s", "-B", "-X", "utf8", "-c", INSIDE),
            *(mode, _FOLDER, packages, *rest),
        ]


# ------------------------------------------------------------------------------------ what it is made of


class _Python:
    """The Python that programs run in, and folders of packages for it; ``prefix`` where not below `/usr`."""

    def __init__(self, path: str, prefix: str | None, packages: tuple[str, ...]) -> None:
        self.path, self.prefix, self.packages = path, prefix, packages

    @property
    def version(self) -> str:
        """Its version, as ``3.11``: by the name of its program."""
        return Path(self.path).name.removeprefix("python")


@cache
def python_for(user: int | None) -> _Python:
    """The Python of this process where a user may read it, else that of the system.

    Raises:
        SandboxError: there is neither.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    prefix = os.path.realpath(sys.base_prefix)
    own = f"{prefix}/bin/python{version}"
    found: str | None = None
    if _may_read(own, user) and _may_read(os.path.realpath(os.__file__), user):
        found = own
    elif system := shutil.which("python3", path="/usr/local/bin:/usr/bin"):
        found, prefix = os.path.realpath(system), os.path.dirname(os.path.dirname(os.path.realpath(system)))
        if not _may_read(found, user):
            found = None
    if found is None:
        raise SandboxError(
            f"no Python that the sandbox's user may read: {own} is closed to it, and there is no "
            "/usr/bin/python3; install python3 for all users"
        )
    inside_usr = f"{prefix}/".startswith("/usr/")
    packages: tuple[str, ...] = ()
    if Path(found).name == f"python{version}":
        packages = tuple(
            path
            for entry in sys.path
            for name in _OF_NUMPY
            if os.path.isdir(path := os.path.realpath(os.path.join(entry, name))) and _may_read(path, user)
        )
    return _Python(found, None if inside_usr else prefix, packages)


def python_version() -> str:
    """The version of the Python that programs run in, such as ``3.11``; ``none`` where there is none."""
    try:
        return python_for(USER if os.geteuid() == 0 else None).version
    except SandboxError:
        return "none"


def _may_read(path: str, user: int | None) -> bool:
    """Whether a user whom nothing belongs to, or this one, may read a path."""
    if not os.path.exists(path):
        return False
    if user is None:
        return os.access(path, os.R_OK)
    folders = all(one.stat().st_mode & stat.S_IXOTH for one in Path(path).parents)
    return folders and bool(os.stat(path).st_mode & stat.S_IROTH)


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
def _setpriv() -> tuple[str, ...]:
    """The command that becomes :data:`USER`; quicker than to copy this process, which may be large."""
    program = shutil.which("setpriv")
    if program is None:
        return ()
    identity = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs")
    return (program, *identity, "--inh-caps=-all", "--bounding-set=-all", "--")


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


def starved_s(pid: int) -> float:
    """How long the youngest of a process's descendants was ready to run and had no processor, in seconds."""
    with suppress(OSError, ValueError):
        for _ in range(8):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
            if not children:
                break
            pid = int(children[-1])
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    return 0.0
