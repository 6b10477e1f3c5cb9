"""Filesystems of a test's own: small ones, and ones that cannot be written, whoever runs the tests.

Root may write what the modes of a file forbid, so modes alone prove nothing. In a mount namespace of its own
(``unshare -rm``) a process has other filesystems than the rest, and nobody else sees them.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

_ROOT = str(Path(__file__).parent.parent)
_UNSHARE = ["unshare", "--map-root-user", "--mount"]


@functools.cache
def _refusal() -> str | None:
    """Why there is no namespace with filesystems of its own here."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1)"
    tried = subprocess.run(
        [*_UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return tried.stderr.strip() or "mounting failed" if tried.returncode else None


def require_namespaces() -> None:
    """Skip the test, with the reason, where user and mount namespaces are not allowed."""
    if (why := _refusal()) is not None:
        pytest.skip(f"no mount namespace here: {why}")


def _inside(
    mount: str, command: list[str], environment: Mapping[str, str], cwd: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    require_namespaces()
    return subprocess.run(
        [*_UNSHARE, "sh", "-ec", f'{mount}; cd "$0"; exec "$@"', str(cwd), *command],
        env={**environment, "PYTHONPATH": _ROOT},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def python_reading_alone(
    folder: Path, *arguments: str, environment: Mapping[str, str], cwd: Path, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run this Python where ``folder`` cannot be written."""
    mount = f"mount --bind '{folder}' '{folder}'; mount -o remount,bind,ro '{folder}'"
    return _inside(mount, [sys.executable, *arguments], environment, cwd, timeout_s)


def python_on_small_disk(
    folder: Path,
    size_kb: int,
    *arguments: str,
    environment: Mapping[str, str],
    cwd: Path,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run this Python where ``folder`` is an empty filesystem of so many kilobytes."""
    mount = f"mount -t tmpfs -o size={size_kb}k none '{folder}'"
    return _inside(mount, [sys.executable, *arguments], environment, cwd, timeout_s)
