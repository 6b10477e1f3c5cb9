"""Dagster's storages with connections that are held: what a run writes of itself costs a fraction.

Dagster connects anew for every statement. On SQLite it makes a new engine for each, too, which compiles every
statement once more, and stores the materializations of a run's partitions one after the other. Here engines
stay, the runs and the index of the event log keep a connection each, and a batch of materializations is one
transaction, after which the asset's row shows the last of them, as Dagster does it on PostgreSQL. The file of
a single run is closed after each transaction as before: only then is the file itself written, by which the
UI sees that the run goes on. A full disk is told in our words: SQLAlchemy's have the statement with them.

Belongs here: how the storages of :mod:`.storage` connect, what they write at once, and how SQLite's full disk
is told. Does not: how an outage of PostgreSQL is told (:mod:`.postgres`).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from testbench_dagster.config import HOME_ENV
from testbench_dagster.defs.dagster_internals import (
    INDEX_SHARD_NAME,
    SQLITE_BUSY_TIMEOUT_SECONDS,
    ConfigurableClassData,
    DagsterSqliteStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    SqliteRunStorage,
    SqliteScheduleStorage,
    event_logs_directory,
    remember_schema,
    runs_directory,
    schedule_directory,
    share_engine,
)
from testbench_dagster.stores.disk import full_disk, is_full

#: Files of single runs whose engine is kept: a process that runs writes one, the UI reads some.
_RUN_FILES = 8
_SQLITE = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
#: By URL what holds a connection in this process, as long as an instance uses it.
_engines: WeakValueDictionary[str, sa.Engine] = WeakValueDictionary()
_lock = threading.Lock()
#: What Dagster's own code stores at once on PostgreSQL in the same way.
_BATCHES = ({dg.DagsterEventType.ASSET_MATERIALIZATION}, {dg.DagsterEventType.ASSET_OBSERVATION})


class HeldSqliteStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite files below ``base_dir``."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._run_storage = HeldRuns.from_local(runs_directory(base_dir))
        self._event_log_storage = HeldEventLog(event_logs_directory(base_dir))
        self._schedule_storage = HeldSchedules.from_local(schedule_directory(base_dir))
        self._inst_data = inst_data
        # not SQLite's own, which makes storages that connect anew
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]


class _ByEngine:
    """Transactions on connections of an engine that is kept."""

    _engine: sa.Engine

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A transaction: on the connection that the engine holds, or on another."""
        with self._engine.begin() as connection:
            yield connection


class HeldRuns(_ByEngine, SqliteRunStorage):
    """Runs in one SQLite file, whose engine is kept."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engine = _held_on_sqlite(conn_string)
        super().__init__(conn_string, inst_data)

    def dispose(self) -> None:
        """Close what is open."""
        super().dispose()
        self._engine.dispose()


class HeldSchedules(_ByEngine, SqliteScheduleStorage):
    """Sensors, schedules and their ticks in one SQLite file, whose engine is kept.

    It holds no connection: an instance that is closed does not say so to this part.
    """

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engine = _opened_anew(conn_string)
        super().__init__(conn_string, inst_data)


class HeldEventLog(SqliteEventLogStorage):
    """Events in one SQLite file a run and an index of all runs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()  # the one that was used last is last
        super().__init__(base_dir, inst_data)
        remember_schema(self)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _engine(self, shard: str) -> sa.Engine:
        if shard in self._engines:
            self._engines.move_to_end(shard)
            return self._engines[shard]
        url = self.conn_string_for_shard(shard)
        engine = _held_on_sqlite(url) if shard == INDEX_SHARD_NAME else _opened_anew(url)
        self._engines[shard] = engine
        if len(self._engines) > _RUN_FILES:
            oldest = next(name for name in self._engines if name != INDEX_SHARD_NAME)
            self._engines.pop(oldest).dispose()
        return engine

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run: in one transaction on its file and one on the index, where that can be."""
        run_ids = {event.run_id for event in events}
        if len(run_ids) != 1 or {event.dagster_event_type for event in events} not in _BATCHES:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        insert = SqlEventLogStorageTable.insert()
        with self.run_connection(run_ids.pop()) as connection:
            connection.execute(insert, rows)
        last = {event.get_dagster_event().asset_key: at for at, event in enumerate(events)}
        with self.index_transaction() as connection:
            returning = insert.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
            ids = connection.execute(returning, rows).scalars().all()
            self._store_asset_event_tags(connection, events, ids)
            for at in last.values():
                self._store_asset_event(connection, events[at], ids[at])

    def dispose(self) -> None:
        """Close what is open."""
        super().dispose()
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()


def held_on_postgres(storage: Any, url: str) -> Any:
    """Have the parts of Dagster's PostgreSQL storage share an engine that holds one connection; returns it.

    Before it is used again it is asked whether it is still there, so that a restarted server is no error.
    """
    share_engine(storage, _holding(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True))
    remember_schema(storage.event_log_storage)
    return storage


def _held_on_sqlite(url: str) -> sa.Engine:
    return _telling_of_full_disks(_holding(url, connect_args=_SQLITE))


def _opened_anew(url: str) -> sa.Engine:
    """An engine for a SQLite file that holds no connection."""
    return _telling_of_full_disks(sa.create_engine(url, poolclass=NullPool, connect_args=_SQLITE))


def _telling_of_full_disks(engine: sa.Engine) -> sa.Engine:
    if not sa.event.contains(engine, "handle_error", _tell_of_full_disk):
        sa.event.listen(engine, "handle_error", _tell_of_full_disk)
    return engine


def _tell_of_full_disk(context: Any) -> None:
    """Raise the error of a full disk in place of one that has the statement and its parameters in it.

    Raises:
        StoreError: the disk of the SQLite file is full.
    """
    if context.engine is None or not context.engine.url.database:
        return
    path = Path(context.engine.url.database)
    if is_full(context.original_exception, path):
        home = os.environ.get(HOME_ENV)
        variable = HOME_ENV if home and Path(home).absolute() in path.absolute().parents else "DAGSTER_HOME"
        raise full_disk(path, f"set {variable} to a folder on another disk") from None


def _holding(url: str, **options: Any) -> sa.Engine:
    """This process's engine for a database, which holds one connection; threads open others beside it.

    All instances share it: Dagster makes some for a tick or a request and lets them go without a word, and a
    connection of each would soon be more than a server takes.
    """
    with _lock:
        engine = _engines.get(url)
        if engine is None:
            engine = _engines[url] = sa.create_engine(url, pool_size=1, max_overflow=-1, **options)
        return engine
