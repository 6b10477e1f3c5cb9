"""Keeps Dagster's event log from growing without end: what old runs logged goes, what they made stays.

``DagsterInstance.delete_run`` is no way to do that: it takes the run's materializations along, and with them
the status of partitions. Here only rows of types nothing is derived from are deleted, from Dagster's tables
and its SQLite files of one run each (:mod:`.dagster_internals`); a test runs both back ends. Ticks of sensors
and schedules have a retention of Dagster's own (``dagster.yaml``).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.dagster_internals import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    FINISHED_STATUSES,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)

#: Partition statuses, latest materializations, check results, run statuses and the sensors on them are
#: derived from these; a failed step says why its run failed. Planned materializations are among the asset
#: events: a failed partition is known by one that was not followed by a materialization.
KEPT = frozenset(
    kind.value
    for kind in (
        *ASSET_EVENTS,
        *ASSET_CHECK_EVENTS,
        *EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
        dg.DagsterEventType.STEP_FAILURE,
    )
)
_RUNS = 500  # looked up at a time
_ROWS = 5_000  # deleted per statement, so that writers get their turn
_BUSY_S = 5.0
#: What marks a run's SQLite file as pruned (``PRAGMA user_version``, which Dagster leaves at 0): looking into
#: every old file again each day would take longer than pruning.
_PRUNED = 1


def prune_event_log(instance: dg.DagsterInstance, older_than: datetime) -> int:
    """Delete the log rows of runs that finished before an instant, but those in :data:`KEPT`.

    Log messages and the events of steps, resources and engine go. Runs stay, as do all asset events, check
    results and run status changes. May be stopped and repeated at any time.

    Args:
        instance: Dagster's instance, on SQLite or PostgreSQL.
        older_than: aware; a run counts by when it was last updated, which is not before its end.

    Returns:
        How many rows were deleted.

    Raises:
        TestbenchError: the instance has another kind of event log.
        ValueError: ``older_than`` has no time zone.
    """
    if older_than.tzinfo is None:
        raise ValueError(f"older_than {older_than.isoformat()} has no time zone; use datetime.now(UTC)")
    storage = instance.event_log_storage
    deleted = 0
    for run_ids in _finished_runs(instance, older_than.astimezone(UTC)):
        if isinstance(storage, SqliteEventLogStorage):
            deleted += sum(_prune_file(Path(storage.path_for_shard(run_id))) for run_id in run_ids)
        elif isinstance(storage, SqlEventLogStorage):
            deleted += _prune_table(storage, run_ids)
        else:
            raise TestbenchError(
                f"the event log of this Dagster instance is a {type(storage).__name__}, which cannot be "
                "pruned; use the storage of testbench_dagster.defs.storage"
            )
    return deleted


def _finished_runs(instance: dg.DagsterInstance, older_than: datetime) -> Iterator[Sequence[str]]:
    """Yield the ids of the runs finished before an instant, some hundred at a time, the newest first."""
    finished = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=older_than)
    cursor: str | None = None
    while run_ids := instance.get_run_ids(finished, cursor=cursor, limit=_RUNS):
        yield run_ids
        cursor = run_ids[-1]


def _prune_table(storage: SqlEventLogStorage, run_ids: Sequence[str]) -> int:
    """Delete from the one table of all runs."""
    table = SqlEventLogStorageTable
    kind = table.c.dagster_event_type
    # a log message has no type
    doomed = sa.select(table.c.id).where(
        table.c.run_id.in_(run_ids), sa.or_(kind.is_(None), kind.not_in(sorted(KEPT)))
    )
    statement = sa.delete(table).where(table.c.id.in_(doomed.limit(_ROWS)))
    deleted = 0
    while True:
        with storage.index_connection() as connection:
            rows = connection.execute(statement).rowcount
        deleted += rows
        if rows < _ROWS:
            return deleted


def _prune_file(path: Path) -> int:
    """Delete from the file of one run; one that is in use just now is left to the next time.

    What is kept has its copies in the index file, which holds nothing else.
    """
    if not path.exists():
        return 0
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, timeout=_BUSY_S, isolation_level=None, uri=True)
        ) as file:
            if file.execute("PRAGMA user_version").fetchone()[0] == _PRUNED:
                return 0
            deleted = file.execute(
                "DELETE FROM event_logs WHERE dagster_event_type IS NULL "
                "OR dagster_event_type NOT IN (SELECT value FROM json_each(?))",
                [json.dumps(sorted(KEPT))],
            ).rowcount
            file.execute(f"PRAGMA user_version = {_PRUNED}")
            with contextlib.suppress(sqlite3.OperationalError):  # somebody reads it: it keeps its size
                file.execute("VACUUM")
            return deleted
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return 0
        raise TestbenchError(f"{path}: the run's events cannot be pruned: {error}") from error
