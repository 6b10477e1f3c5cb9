"""What programs in a sandbox get of this machine: a user that is nobody, a Python, a few variables."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testbench_dagster.core.errors import SandboxError

#: Who a sandbox is started as where this process is root: a user that no account has, so that what root may
#: does not apply, and nothing belongs to it.
USER = 65533
#: The variables that a program sees.
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets have one order: a score is the same in every process
}
#: Folders of packages, beside the standard library, for checks that import them: those of EvalPlus use numpy.
#: Where they do not, it is not there: it shows an answer all memory of its process.
_OF_NUMPY = ("numpy", "numpy.libs")
_NUMPY = re.compile(r"\bnumpy\b")


@dataclass(frozen=True)
class Python:
    """The Python that programs run in.

    ``folders`` are those with its program and library where they are not below `/usr`, ``packages`` are those
    of packages for it.
    """

    path: str
    folders: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def version(self) -> str:
        """Its version, as ``3.11``: by the name of its program."""
        return Path(self.path).name.removeprefix("python")


def python_for() -> Python:
    """The Python of this process where the sandbox's user may read it, else that of the system.

    Raises:
        SandboxError: there is neither.
    """
    return _python(USER if os.geteuid() == 0 else None)


@cache
def _python(user: int | None) -> Python:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    prefix = os.path.realpath(sys.base_prefix)
    found: str | None = f"{prefix}/bin/python{version}"
    if not (_may_read(str(found), user) and _may_read(os.path.realpath(os.__file__), user)):
        system = [os.path.realpath(f"{folder}/python3") for folder in ("/usr/local/bin", "/usr/bin")]
        found = next((path for path in system if _may_read(path, user)), None)
        if found is None:
            raise SandboxError(
                f"no Python that the sandbox's user may read: {prefix} is closed to it, and there is no "
                "/usr/bin/python3; install python3 for all users"
            )
        prefix = os.path.dirname(os.path.dirname(found))
    packages: tuple[str, ...] = ()
    if Path(str(found)).name == f"python{version}":
        packages = tuple(
            path
            for entry in sys.path
            for name in _OF_NUMPY
            if os.path.isdir(path := os.path.realpath(os.path.join(entry, name))) and _may_read(path, user)
        )
    # nothing else of where it lies, which may be somebody's home
    own = [os.path.join(prefix, name) for name in ("bin", "lib", "lib64")]
    folders = () if f"{prefix}/".startswith("/usr/") else tuple(path for path in own if os.path.isdir(path))
    return Python(str(found), folders, packages)


def packages_for(checks: str) -> tuple[str, ...]:
    """The folders of packages that some checks import; none where they import none of them.

    Raises:
        SandboxError: they are not there for the Python that programs run in.
    """
    if _NUMPY.search(checks) is None:
        return ()
    python = python_for()
    if not python.packages:
        raise SandboxError(
            f"its checks import numpy, which the sandbox's user cannot read for Python {python.version}; "
            "install the testbench where all users may read it, with a Python that all may read"
        )
    return python.packages


def python_version() -> str:
    """The version of the Python that programs run in, such as ``3.11``; ``none`` where there is none."""
    try:
        return python_for().version
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


def as_user() -> tuple[str, ...]:
    """The command that becomes :data:`USER` where this process is root.

    It is quicker than to copy this process, which may be large. Empty where there is nothing to become, or no
    such command.
    """
    return _setpriv() if os.geteuid() == 0 else ()


@cache
def _setpriv() -> tuple[str, ...]:
    program = shutil.which("setpriv")
    if program is None:
        return ()
    identity = ("--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs")
    return (program, *identity, "--inh-caps=-all", "--bounding-set=-all", "--")
