"""SQLite connections of one file: one per thread and process, none of them open across a fork.

SQLite keeps a table of the file locks its process holds. A forked child inherits that table but not the
locks, so even a fresh connection of the child would believe itself locked in: a parent that closes its last
connection would then delete the write-ahead log under the child. Hence every connection is closed before a
fork (idle ones at once, busy ones when their statement is done) and opened again on demand in both processes.
``subprocess`` without ``preexec_fn`` runs no fork hooks and needs none.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.disk import full_disk, is_full, nothing_left
from testbench_dagster.stores.documents.contract import DuplicateKey
from testbench_dagster.stores.files import ANOTHER_DISK, create_folder, is_stored

BUSY_SECONDS = 30.0
"""How long a statement waits for another process's write lock."""

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent that forked without Python's fork hooks: closing one here could harm the parent."""


class _Lock(Protocol):
    """What is needed of a lock once it is held."""

    def release(self) -> None: ...


class _Slot:
    """The connection of one thread; the lock is held while a statement or transaction runs."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.connection: sqlite3.Connection | None = None
        self.snapshot: Snapshot | None = None  # of a connection that sees the file as nobody changes it
        self.disk_is_full = False  # and the connection can read alone

    def close(self) -> None:
        """Close the connection if this process opened it, else keep it untouched for good."""
        connection, self.connection = self.connection, None
        self.snapshot, self.disk_is_full = None, False
        if connection is None:
            return
        if self.pid == os.getpid():
            connection.close()
        else:
            _inherited.append(connection)

    def __del__(self) -> None:
        self.close()  # the thread has ended


class Connections:
    """Opens and hands out the connections to one SQLite file, and words its errors.

    A file that this user may not write is opened to be read alone, and so is one whose disk is full, until
    somebody writes: see :func:`connect_to_read`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._slots: weakref.WeakSet[_Slot] = weakref.WeakSet()
        self._gate = threading.RLock()
        self._closed = False
        _live.add(self)

    @contextlib.contextmanager
    def use(self, to_write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection; no user code may run inside.

        ``to_write``: one that can read alone, for want of space, will not do.

        SQLite's errors leave as :class:`DuplicateKey` (a unique index) or :class:`StoreError`.
        """
        slot = self._slot()
        with slot.lock:
            try:
                if slot.snapshot is not None and slot.snapshot.is_outdated():
                    slot.close()
                if slot.disk_is_full and to_write:
                    slot.close()
                if slot.connection is None or slot.pid != os.getpid():
                    slot.close()
                    if self._closed:
                        raise StoreError(f"{self.path}: the store is closed")
                    self._open(slot, to_write)
                yield slot.connection  # type: ignore[misc]  # which is open now
                if slot.snapshot is not None:
                    slot.snapshot.check()
            except sqlite3.Error as error:
                raise worded(self.path, error) from error

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection inside a write transaction: all of it is kept, or nothing.

        ``BEGIN IMMEDIATE`` takes the write lock at once: a transaction that reads first and asks for the
        lock later fails without waiting when another process wrote in between.
        """
        with self.use(to_write=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @property
    def read_alone(self) -> bool:
        """Whether this user may read the file and not write it, or this thread cannot for want of space."""
        return is_read_alone(self.path) or self._slot().disk_is_full

    def _open(self, slot: _Slot, to_write: bool) -> None:
        slot.pid = os.getpid()
        if is_read_alone(self.path):
            slot.snapshot = Snapshot.of(self.path)
            slot.connection = connect_to_read(self.path)
            return
        try:
            slot.connection = connect(self.path)
        except (sqlite3.Error, StoreError) as error:
            if to_write or not can_be_read(self.path, error):
                raise
            slot.snapshot = Snapshot.of(self.path, disk_is_full=True)
            slot.connection = connect_to_read(self.path, disk_is_full=True)
            slot.disk_is_full = True

    def close(self) -> None:
        """Close every thread's connection; later use raises :class:`StoreError`."""
        self._closed = True
        self.release()

    def release(self) -> None:
        """Close every thread's connection, each when its running statement is done."""
        with self._gate:
            for slot in list(self._slots):
                with slot.lock:
                    slot.close()

    def before_fork(self) -> list[_Lock]:
        """Close all connections and return the locks that keep them closed, held."""
        self._gate.acquire()
        held: list[_Lock] = [self._gate]
        for slot in list(self._slots):
            slot.lock.acquire()
            held.append(slot.lock)
            slot.close()
        return held

    def _slot(self) -> _Slot:
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            with self._gate:
                slot = self._local.slot = _Slot()
                self._slots.add(slot)
        return slot


def create_private(path: Path) -> None:
    """Create the file and its missing folders, readable by their owner only; leave existing ones alone."""
    create_folder(path.parent)
    try:
        # O_EXCL: opening and closing an existing database would drop this process's locks on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        if is_full(error):
            raise full_disk(path, ANOTHER_DISK) from error
        raise StoreError(
            f"{path} cannot be created: {error.strerror}; set TESTBENCH_HOME to a writable folder"
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the file in WAL mode, creating it privately when it is missing.

    ``synchronous=NORMAL``: a killed process loses nothing it had been told was written, and the file is
    never corrupted; a power cut may lose the commits of the last moments, which this system re-creates by
    asking again. FULL would cost a disk flush per write (a third of the throughput).
    """
    create_private(path)
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA analysis_limit=1000")
        # makes what SQLite needs beside the file, or fails where there is no space for it: now, not later
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def is_writable(path: Path) -> bool:
    """Whether this user may write the file, and what SQLite puts beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def is_read_alone(path: Path) -> bool:
    """Whether a file is there that this user may read and not write.

    In this order: one that another process is about to make cannot be written before it is there.
    """
    return is_stored(path) and not is_writable(path)


def can_be_read(path: Path, error: Exception) -> bool:
    """Whether a file that could not be opened, for its disk is full, can still be opened to be read alone."""
    if not is_stored(path) or not is_full(error, path):
        return False
    return not _in_log(path) or _reads_log(path, disk_is_full=True)


def _reads_log(path: Path, disk_is_full: bool) -> bool:
    """Whether SQLite is to read the log beside a file that it reads alone.

    On a full disk whoever tried to open the file may have left the names of the others, with nothing in them.
    """
    return _beside(path, "shm").exists() and (not disk_is_full or _in_log(path))


@dataclass(frozen=True)
class Snapshot:
    """A file that is read as if nobody changed it, and by what it shows that somebody did."""

    path: Path
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, disk_is_full: bool = False) -> Snapshot | None:
        """Of a file as it is now; None where its log holds something, which SQLite then reads with it."""
        return None if _reads_log(path, disk_is_full) or _in_log(path) else cls(path, _stamp(path))

    def is_outdated(self) -> bool:
        """Whether the file changed, or its log has begun."""
        return _stamp(self.path) != self.stamp or _in_log(self.path)

    def check(self) -> None:
        """Call it after each reading. Raises StoreError: the file changed, what was read may be wrong."""
        if _stamp(self.path) != self.stamp:
            raise StoreError(f"{self.path}: another process wrote it while it was read; repeat the command")


def connect_to_read(path: Path, disk_is_full: bool = False) -> sqlite3.Connection:
    """Open a file that this user may not write, or that has no space to be written, to read it.

    SQLite wants to write beside a file in WAL mode even to read it, unless whoever writes has made the files
    there. A file whose log holds nothing says everything itself, and is opened as one that nobody changes
    meanwhile: whether somebody does is the caller's to find out (:class:`Snapshot`).

    Raises:
        StoreError: its log holds something and cannot be read with it.
    """
    with_log = _reads_log(path, disk_is_full)
    if not with_log and _in_log(path):
        raise StoreError(
            f"{path}: {_beside(path, 'wal').name} beside it holds what was written last, and cannot be read "
            "without writing there; have a user who may write in that folder run the same command once, or "
            "copy both files to a folder of your own and set TESTBENCH_HOME to it"
        )
    options = "mode=ro" if with_log else "immutable=1"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{options}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def _beside(path: Path, what: str) -> Path:
    """A file that SQLite keeps beside a database: its log, or the index of that."""
    return path.with_name(f"{path.name}-{what}")


def _in_log(path: Path) -> bool:
    try:
        return _beside(path, "wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def worded(path: Path, error: sqlite3.Error) -> StoreError:
    """The store error for an error of SQLite: what happened, where, and what to do."""
    text = str(error)
    # one that was opened to be read alone for want of space says that it is read-only
    if is_full(error, path) or ("readonly" in text and is_writable(path) and nothing_left(path)):
        return full_disk(path, ANOTHER_DISK)
    if isinstance(error, sqlite3.IntegrityError) and text.startswith("UNIQUE"):
        return DuplicateKey(f"{path}: {text}: another document already has these values")
    if "locked" in text or "busy" in text:
        return StoreError(
            f"{path}: another process held the write lock for more than {BUSY_SECONDS:.0f} s; end it, or "
            f"use MongoDB (TESTBENCH_MONGO_URI) for many writers"
        )
    if "not a database" in text or "malformed" in text:
        return StoreError(f"{path}: {text}; move the file away or restore a copy")
    if "readonly" in text or "unable to open" in text:
        return StoreError(f"{path}: {text}; set TESTBENCH_HOME to a folder this user may write")
    return StoreError(f"{path}: {text}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turn on write-ahead logging; SQLite answers "locked" without waiting while another process does it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            if mode != "wal":
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode == "wal":
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("write-ahead logging cannot be turned on (a network file system?)")
        time.sleep(0.01)


_live: weakref.WeakSet[Connections] = weakref.WeakSet()
_held: list[_Lock] = []
_forking = threading.Lock()


def _before_fork() -> None:
    _forking.acquire()
    for connections in list(_live):
        _held.extend(connections.before_fork())


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
