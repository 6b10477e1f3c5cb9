"""Free space of the disks that an installation lies on: how much there is, and which errors tell of none."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from testbench_dagster.core.errors import StoreError, causes

#: Of less free space `testbench check`, `run` and `up` warn: it takes some 190,000 attempts with their scores
#: (2.7 KB each in the embedded store), hours of a busy network, in which somebody can act; and a server of
#: MongoDB needs about as much to build an index.
LOW_BYTES = 512 * 2**20
#: With less than that left, an error that says nothing but "cannot be opened" is one of a full disk.
_NOTHING_BYTES = 256 * 2**10
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SQLITE_FULL = "disk is full"
#: How SQLite tells that it cannot make or extend one of the files beside a database.
_SQLITE_UNCLEAR = ("disk I/O error", "unable to open database file")


def free_bytes(path: Path) -> tuple[Path, int]:
    """The folder whose disk ``path`` lies on, or would, and the bytes that are free there to this user."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            disk = os.statvfs(folder)
            no_names = disk.f_files > 0 and disk.f_favail == 0
            return folder, 0 if no_names else disk.f_bavail * disk.f_frsize
    raise FileNotFoundError(errno.ENOENT, "no folder of it is there", str(path))


def left(path: Path) -> str:
    """How much is free on the disk of ``path``, in words."""
    try:
        folder, free = free_bytes(path)
    except OSError:
        return "nothing can be found out of what is left"
    return f"{_size(free)} left in {folder}"


def nothing_left(path: Path) -> bool:
    """Whether the disk of a file has no space to speak of."""
    try:
        return free_bytes(path.parent)[1] < _NOTHING_BYTES
    except OSError:
        return False


def full_disk(path: Path, remedy: str) -> StoreError:
    """The error of a file that found no more space; ``remedy`` is what else can be done than free some."""
    return StoreError(f"{path}: its disk is full ({left(path)}): free some space there, or {remedy}")


def is_full(error: BaseException, path: Path | None = None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk.

    ``path``: the file that it is about, if known: what SQLite says of a full disk may mean other things, but
    not where nothing is left.
    """
    return any(_is_full(one, path) for one in causes(error))


def _is_full(error: BaseException, path: Path | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    if not isinstance(error, sqlite3.Error):
        return False
    text = str(error)
    if _SQLITE_FULL in text:
        return True
    return path is not None and any(unclear in text for unclear in _SQLITE_UNCLEAR) and nothing_left(path)


def _size(n: int) -> str:
    for unit, of in (("GB", 2**30), ("MB", 2**20)):
        if n >= of:
            return f"{n / of:.1f} {unit}"
    return f"{n // 2**10} kB"
