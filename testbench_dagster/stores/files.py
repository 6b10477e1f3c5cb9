"""Folders and files of an installation that cannot be made or written: where, why, and what to do instead."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.stores.disk import full_disk, is_full

_HOME = "TESTBENCH_HOME"  # the variable that says where the embedded stores lie, and what is published
_PRIVATE = 0o700
#: What to do where the caller named the path.
ANOTHER_OUT = "choose another --out"
#: What to do where the disk of the home is full, but to free some space.
ANOTHER_DISK = f"set {_HOME} to a folder on another disk"


def create_folder(path: Path, variable: str = _HOME, mode: int = _PRIVATE) -> None:
    """Create a folder and its missing parents, by default readable by their owner only.

    One that exists is left alone. ``variable`` is the environment variable that moves it.

    Raises:
        StoreError: it cannot be created, or is no folder.
    """
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                with suppress(FileExistsError):  # by another process, or a file: the next step tells
                    folder.mkdir(mode)
        if not path.is_dir():
            raise NotADirectoryError(None, "it is a file")
    except OSError as error:
        if is_full(error):
            raise full_disk(path, f"set {variable} to a folder on another disk") from None
        raise StoreError(
            f"{variable} {path} cannot be created: {error.strerror or error}; set it to a folder this user "
            "may write"
        ) from None


def is_stored(path: Path) -> bool:
    """Whether a file of the installation's home is there.

    Raises:
        StoreError: that cannot be found out, or what should be its folder is none.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror}; set {_HOME} to a folder this user may write"
        ) from None
    return True


@contextmanager
def writing(path: Path, remedy: str = ANOTHER_OUT, if_full: str | None = None) -> Iterator[None]:
    """While this lasts ``path`` is written; what the system has against it becomes a message with a remedy.

    ``if_full`` is the one for a full disk, where it is another.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise full_disk(path, if_full or remedy) from None
        raise StoreError(f"cannot write {path}: {error.strerror or error}; {remedy}") from None


@contextmanager
def whole_file(path: Path, remedy: str = ANOTHER_OUT) -> Iterator[Path]:
    """A file beside ``path`` to write while this lasts; it takes that name when it is complete, else it goes.

    Raises:
        StoreError: it cannot be written.
    """
    # two processes may write the same file: each its own, and the last to finish wins whole. Hidden, for who
    # reads a folder of parquet takes every other file
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}.partial")
    with writing(path, remedy):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def alone(path: Path, otherwise: str | Callable[[], str]) -> Iterator[None]:
    """While this lasts no other process is in here with the same ``path``, a file that is left behind.

    The system lets go of it however this process ends. Where its filesystem has no locks, nobody is kept out.

    Raises:
        StoreError: the file cannot be written.
        TestbenchError: another process is in here; with ``otherwise``, asked for then if it is a function.
    """
    with writing(path, f"set {_HOME} to a folder this user may write", ANOTHER_DISK):
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TestbenchError(otherwise if isinstance(otherwise, str) else otherwise()) from None
        except OSError:  # no locks there
            pass
        yield
