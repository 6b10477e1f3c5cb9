"""The dataset store: which dataset each task is registered with, and its processed docs as JSON text.

The same SQLAlchemy Core code runs on PostgreSQL (psycopg2) and on an embedded SQLite file. Bodies are TEXT,
not ``jsonb``: docs hold escaped NUL characters, lone surrogates and NaN, which ``jsonb`` refuses or changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.stores.disk import nothing_left
from testbench_dagster.stores.documents.connections import (
    Snapshot,
    can_be_read,
    connect,
    connect_to_read,
    is_read_alone,
    worded,
)
from testbench_dagster.stores.documents.values import from_milliseconds, milliseconds
from testbench_dagster.stores.files import is_stored
from testbench_dagster.stores.schema import DATASETS_SCHEMA, check_schema
from testbench_dagster.stores.uris import without_password

CONNECT_SECONDS = 5
_POSTGRES_FULL = ("53100", "53000")  # disk_full, and what some of its errors of files come as
_INSERT_ROWS = 1_000
_READ_ROWS = 500
_FEW_TASKS = 100  # that are asked for by name; of more all are read
_SCHEMA_LOCK = "testbench_dagster.datasets.schema"

_metadata = sa.MetaData()
_doc_columns = ("doc_id", "doc_hash", "body")
# The docs under a hash never change. A registration does when only the scoring of its task did.
_registrations = sa.Table(
    "registrations",
    _metadata,
    sa.Column("task", sa.Text, primary_key=True),
    sa.Column("task_hash", sa.Text, primary_key=True, index=True),
    sa.Column("framework", sa.Text, nullable=False),
    sa.Column("lm_task", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    sa.Column("config_hash", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("eval_split", sa.Text, nullable=False),
    sa.Column("splits", sa.Text, nullable=False),  # JSON
    sa.Column("flags", sa.Text, nullable=False),  # JSON
    sa.Column("n_docs", sa.Integer, nullable=False),
    sa.Column("n_fewshot", sa.Integer, nullable=False),
    sa.Column("registered_at", sa.BigInteger, nullable=False),  # milliseconds since 1970, UTC
)
_current = sa.Table(
    "current_tasks",
    _metadata,
    sa.Column("task", sa.Text, primary_key=True),
    sa.Column("task_hash", sa.Text, nullable=False),
)
_docs = sa.Table(
    "dataset_docs",
    _metadata,
    sa.Column("task_hash", sa.Text, primary_key=True),
    sa.Column("doc_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("doc_hash", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_fewshot = sa.Table(
    "dataset_fewshot",
    _metadata,
    sa.Column("task_hash", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("doc_id", sa.BigInteger, nullable=False),
    sa.Column("doc_hash", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
# One row. Missing where tables were made before there was a version: that is version 0.
_schema = sa.Table(
    "dataset_schema",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
)


class DatasetStore:
    """Registered tasks and their docs; safe to use from several threads and processes, and across forks.

    ``url`` is ``sqlite:///<file>``, or a PostgreSQL URI in any of its spellings (``postgres://``,
    ``postgresql://``, ``postgresql+psycopg2://``). Tables are created at first use; those of another schema
    version are refused then, unless ``any_schema``: for who migrates them.
    """

    def __init__(self, url: str, *, any_schema: bool = False) -> None:
        self._any_schema = any_schema
        self._shown = without_password(url)
        self._url = _parsed(url)
        self._engine = _engine(self._url)
        self._pid = os.getpid()
        self._ready = False
        self._closed = False

    def __repr__(self) -> str:
        return f"DatasetStore({self._shown!r})"

    def register(
        self, registration: Registration, docs: Iterable[StoredDoc], fewshot: Iterable[StoredDoc]
    ) -> bool:
        """Make this registration the task's current one, storing its docs unless they are; True if changed.

        All of it happens in one transaction. A task's registration with the same hash is brought up to date
        when anything but its time differs. Neither iterable is read when the docs are stored already. Docs of
        earlier hashes stay. Raises :class:`StoreError` when the docs are not as many as the registration
        says, share an id, or are not ASCII JSON text.
        """
        task, task_hash = registration.task, registration.task_hash
        row = _registration_row(registration)
        with self._read() as connection:
            if _is_current(connection, row):
                return False
            stored = _known(connection, task_hash)
        # The caller's iterables run before the lock is taken.
        doc_rows = [] if stored else _doc_rows(registration, docs, registration.n_docs, "docs")
        shot_rows = (
            [] if stored else _doc_rows(registration, fewshot, registration.n_fewshot, "few-shot docs")
        )
        # Two tasks may share a hash, and one task may be registered with two hashes at once.
        with self._write(f"hash:{task_hash}", f"task:{task}") as connection:
            if _is_current(connection, row):
                return False  # another process was faster
            if not _known(connection, task_hash):
                _insert(connection, _docs, doc_rows)
                _insert(connection, _fewshot, [{**shot, "position": i} for i, shot in enumerate(shot_rows)])
            mine = (_registrations.c.task == task) & (_registrations.c.task_hash == task_hash)
            if connection.execute(sa.update(_registrations).where(mine).values(row)).rowcount == 0:
                connection.execute(sa.insert(_registrations), row)
            moved = connection.execute(
                sa.update(_current).where(_current.c.task == task).values(task_hash=task_hash)
            )
            if moved.rowcount == 0:
                connection.execute(sa.insert(_current), {"task": task, "task_hash": task_hash})
        return True

    def current(self, task: str) -> Registration | None:
        """Return the task's current registration, or None when it was never registered."""
        found = self._registrations(_joined_current().where(_current.c.task == task))
        return found[0] if found else None

    def get(self, task_hash: str) -> Registration | None:
        """Return the registration with this hash, current or not (the oldest, if tasks share it), or None."""
        query = (
            sa.select(_registrations)
            .where(_registrations.c.task_hash == task_hash)
            .order_by(_registrations.c.registered_at, _registrations.c.task)
            .limit(1)
        )
        found = self._registrations(query)
        return found[0] if found else None

    def tasks(self, names: Collection[str] | None = None) -> list[Registration]:
        """Return the current registration of every task, or of those with these names, by task name."""
        query = _joined_current()
        few = names is not None and len(names) <= _FEW_TASKS
        found = self._registrations(query.where(_current.c.task.in_(sorted(names or ()))) if few else query)
        return sorted(
            (one for one in found if names is None or one.task in names), key=lambda found: found.task
        )

    def docs(self, task_hash: str, doc_ids: Sequence[int] | None = None) -> Iterator[StoredDoc]:
        """Stream the docs of a registration by ascending ``doc_id``; only those of ``doc_ids`` if given.

        Ids that do not exist are left out. No connection is held between the batches.
        """
        if doc_ids is not None:
            wanted = iter(sorted(set(doc_ids)))
            while batch := list(itertools.islice(wanted, _READ_ROWS)):
                yield from self._docs(task_hash, _docs.c.doc_id.in_(batch))
            return
        after: int | None = None
        while True:
            condition = sa.true() if after is None else _docs.c.doc_id > after
            found = self._docs(task_hash, condition)
            yield from found
            if len(found) < _READ_ROWS:
                return
            after = found[-1].doc_id

    def fewshot(self, task_hash: str) -> list[StoredDoc]:
        """Return the few-shot pool of a registration in the order it was registered."""
        query = (
            sa.select(*(_fewshot.c[name] for name in _doc_columns))
            .where(_fewshot.c.task_hash == task_hash)
            .order_by(_fewshot.c.position)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [StoredDoc(row.doc_id, row.body, row.doc_hash) for row in rows]

    def schema_version(self) -> int | None:
        """The schema version of what is stored (0: from before there were any); None where nothing is.

        Creates and writes nothing.
        """
        if self._url.get_backend_name() == "sqlite" and not is_stored(Path(self._url.database or "")):
            return None
        with self._errors(), self._engine.connect() as connection:
            return _schema_version(connection)

    def move_schema(self, before: int, after: int, change: Callable[[Connection], None]) -> bool:
        """Take one step of the schema: ``change`` and the new version in one transaction, or nothing.

        Nothing happens and the result is False unless the version is ``before``: another process was faster.
        """
        with self._errors(), self._locked(_SCHEMA_LOCK) as connection:
            if _schema_version(connection) != before:
                return False
            change(connection)
            _schema.create(connection, checkfirst=True)
            connection.execute(sa.delete(_schema))
            connection.execute(sa.insert(_schema), {"id": 1, "version": after})
        return True

    def close(self) -> None:
        """Release this process's connections; the store may not be used afterwards."""
        self._closed = True
        self._engine.dispose(close=self._pid == os.getpid())

    def _docs(self, task_hash: str, condition: sa.ColumnElement[bool]) -> list[StoredDoc]:
        query = (
            sa.select(*(_docs.c[name] for name in _doc_columns))
            .where(_docs.c.task_hash == task_hash, condition)
            .order_by(_docs.c.doc_id)
            .limit(_READ_ROWS)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [StoredDoc(row.doc_id, row.body, row.doc_hash) for row in rows]

    def _registrations(self, query: sa.Select[Any]) -> list[Registration]:
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
        return [_registration(row) for row in rows]

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._errors():
            self._prepare()
            snapshot = self._snapshot()
            with self._engine.connect() as connection:
                yield connection
            if snapshot is not None:
                snapshot.check()

    def _snapshot(self) -> Snapshot | None:
        """Of an embedded file that is read as if nobody wrote it."""
        path = Path(self._url.database or "")
        if self._url.get_backend_name() != "sqlite":
            return None
        disk_is_full = not is_read_alone(path) and nothing_left(path)
        return Snapshot.of(path, disk_is_full) if disk_is_full or is_read_alone(path) else None

    @contextlib.contextmanager
    def _write(self, *locks: str) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes others with one of these lock names."""
        with self._errors():
            self._prepare()
            with self._locked(*locks) as connection:
                yield connection

    @contextlib.contextmanager
    def _locked(self, *locks: str) -> Iterator[Connection]:
        with self._engine.execution_options(writes=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                # SQLite's BEGIN IMMEDIATE excludes all other writers; here only those of the same things.
                # Everybody takes the locks in one order, so that no two wait for each other.
                digests = [hashlib.sha256(lock.encode()).digest() for lock in locks]
                for number in sorted(int.from_bytes(digest[:8], "big", signed=True) for digest in digests):
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
            yield connection

    def _prepare(self) -> None:
        """Forget a parent's connections after a fork, and create the tables that are missing."""
        if self._closed:
            raise StoreError(f"{self!r}: the store is closed")
        if self._pid != os.getpid():
            self._engine.dispose(close=False)  # the parent still uses those sockets
            self._pid = os.getpid()
        if self._ready:
            return
        with self._engine.connect() as connection:
            found = _schema_version(connection)
        if found is None:
            with self._locked(_SCHEMA_LOCK) as connection:
                found = _schema_version(connection)  # another process may have made them meanwhile
                if found is None:
                    _metadata.create_all(connection)
                    connection.execute(sa.insert(_schema), {"id": 1, "version": DATASETS_SCHEMA})
                    found = DATASETS_SCHEMA
        if not self._any_schema:
            where = self._url.database if self._url.get_backend_name() == "sqlite" else self._shown
            check_schema(f"the dataset store {where}", found, DATASETS_SCHEMA)
        self._ready = True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLAlchemy's errors into store errors that say where and what to do."""
        try:
            yield
        except (DBAPIError, UnicodeEncodeError, ValueError) as error:
            cause = getattr(error, "orig", error)
            reason = " ".join(str(cause).split())  # PostgreSQL asks in a second line whether it runs
            if isinstance(cause, sqlite3.OperationalError) and "locked" not in reason:
                raise worded(Path(self._url.database or ""), cause) from error
            if isinstance(error, IntegrityError):
                raise StoreError(f"{self._shown}: {reason}") from error
            remedy = ""
            if getattr(cause, "pgcode", None) in _POSTGRES_FULL:
                remedy = "; the disk of the PostgreSQL server is full: free some space there"
            elif isinstance(error, OperationalError):
                remedy = (
                    "; end the process that holds its lock"
                    if self._url.get_backend_name() == "sqlite"
                    else "; start PostgreSQL, correct TESTBENCH_POSTGRES_URI, or unset it to use the "
                    "embedded store"
                )
            raise StoreError(f"dataset store {self._shown}: {reason}{remedy}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"dataset store {self._shown}: {' '.join(str(error).split())}") from error


def open_datasets(home: Path, postgres_uri: str | None, *, any_schema: bool = False) -> DatasetStore:
    """Return the dataset store: PostgreSQL when a URI is given, else ``datasets.sqlite3`` in ``home``.

    The first use raises :class:`~testbench_dagster.stores.schema.SchemaError` for a store of another schema
    version, unless ``any_schema``.
    """
    url = postgres_uri or f"sqlite:///{home / 'datasets.sqlite3'}"
    return DatasetStore(url, any_schema=any_schema)


def _schema_version(connection: Connection) -> int | None:
    """The schema version of a database; None where there is no table of ours.

    All tables of a new database are committed together, the version with them: who sees the one first looked
    for sees the other afterwards.
    """
    tables = sa.inspect(connection)
    if not tables.has_table(_registrations.name):
        return None
    version: int | None = None
    if tables.has_table(_schema.name):
        version = connection.execute(sa.select(_schema.c.version)).scalar()
    return version or 0


def _parsed(url: str) -> URL:
    """Parse a database URL; :class:`StoreError` unless it names PostgreSQL or an SQLite file."""
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest != "/:memory:":
        return URL.create("sqlite", database=rest[1:])  # as it stands: a path may hold any character
    if scheme in ("postgres", "postgresql"):
        url = f"postgresql+psycopg2{separator}{rest}"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not chained: the cause may quote the URL with its password.
        raise StoreError(
            f"the dataset store's URL {without_password(url)} is not usable; write "
            f"postgresql://user:password@host:port/database, with the password percent-encoded"
        ) from None
    if parsed.drivername == "postgresql+psycopg2":
        return parsed
    raise StoreError(
        f"the dataset store's URL {without_password(url)} names neither a PostgreSQL database nor an SQLite "
        f"file; write postgresql://... or sqlite:///path"
    )


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url,
            pool_size=2,
            max_overflow=8,
            pool_pre_ping=True,
            client_encoding="utf8",
            insertmanyvalues_page_size=_INSERT_ROWS,
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "testbench_dagster"},
        )
    path = Path(url.database or "")
    # No pool: an SQLite connection that is open during a fork is a danger to both processes.
    engine = sa.create_engine(url, creator=lambda: _sqlite(path), poolclass=NullPool)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite(path: Path) -> sqlite3.Connection:
    """A connection to the file: to read it alone where this user may not write it, or has no space to."""
    if is_read_alone(path):
        return connect_to_read(path)
    try:
        return connect(path)
    except (sqlite3.Error, StoreError) as error:
        if not can_be_read(path, error):
            raise
        return connect_to_read(path, disk_is_full=True)


def _begin_sqlite(connection: Connection) -> None:
    """Begin explicitly: the driver would begin late and only at writes, and then fail instead of waiting."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_current(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Whether the task's current registration is this one, but for its time."""
    found = connection.execute(_joined_current().where(_current.c.task == row["task"])).mappings().first()
    return found is not None and {**found, "registered_at": None} == {**row, "registered_at": None}


def _known(connection: Connection, task_hash: str) -> bool:
    """Whether some task is registered with this hash, so that its docs are stored."""
    query = sa.select(_registrations.c.task).where(_registrations.c.task_hash == task_hash).limit(1)
    return connection.execute(query).first() is not None


def _joined_current() -> sa.Select[Any]:
    same = (_registrations.c.task == _current.c.task) & (_registrations.c.task_hash == _current.c.task_hash)
    return sa.select(_registrations).join(_current, same)


def _insert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _INSERT_ROWS):
        connection.execute(sa.insert(table), rows[start : start + _INSERT_ROWS])


def _doc_rows(
    registration: Registration, docs: Iterable[StoredDoc], expected: int, what: str
) -> list[dict[str, Any]]:
    rows = []
    for doc in docs:
        if not doc.body.isascii() or "\0" in doc.body:
            raise StoreError(
                f"task {registration.task}: doc {doc.doc_id} is not ASCII JSON text; PostgreSQL cannot keep "
                f"every character, so serialise with ensure_ascii=True"
            )
        rows.append(
            {
                "task_hash": registration.task_hash,
                "doc_id": doc.doc_id,
                "doc_hash": doc.doc_hash,
                "body": doc.body,
            }
        )
    if len(rows) != expected:
        raise StoreError(
            f"task {registration.task}: {len(rows)} {what} given, but the registration says {expected}"
        )
    return rows


def _registration_row(registration: Registration) -> dict[str, Any]:
    row = dict(vars(registration))
    if registration.registered_at.tzinfo is None:
        raise StoreError(f"task {registration.task}: registered_at {registration.registered_at} has no zone")
    row["registered_at"] = milliseconds(registration.registered_at)
    row["flags"] = registration.flags.to_document()
    for name in ("splits", "flags"):
        try:
            row[name] = json.dumps(row[name], sort_keys=True)
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"task {registration.task}: {name} cannot be written as JSON: {error}"
            ) from error
    return row


def _registration(row: Mapping[Any, Any]) -> Registration:
    fields = dict(row)
    fields["registered_at"] = from_milliseconds(fields["registered_at"])
    for name in ("splits", "flags"):
        fields[name] = json.loads(fields[name])
    fields["flags"] = TaskFlags.from_document(fields["flags"])
    return Registration(**fields)
