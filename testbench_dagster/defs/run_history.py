"""Old runs of Dagster go, with all they logged; what the pages say of partitions today stays.

``DagsterInstance.delete_run`` is no way to do that: it takes the run's materializations along, and with them
the status of partitions. Here the newest event of each kind of each partition stays, and so does the newest
result of each check; a run that any of these are of stays too, with no more than them. All else of a finished
run goes: what was superseded, its logs, its tags, its compute logs, then the run itself. So what is stored is
bounded by the partitions there are, not by how long there have been runs.

Only rows are deleted, from Dagster's tables and its SQLite files of one run each (:mod:`.dagster_internals`);
a test runs both back ends. What runs that stay logged is thinned out by :mod:`.event_log`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import dagster as dg
import sqlalchemy as sa

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.dagster_internals import (
    ASSET_EVENTS,
    BACKFILL_ID_TAG,
    BULK_ACTION_TERMINAL_STATUSES,
    FINISHED_STATUSES,
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    BackfillTagsTable,
    BulkActionsFilter,
    BulkActionsTable,
    BulkActionStatus,
    DynamicPartitionsTable,
    RunsTable,
    RunTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    SqlRunStorage,
)

_LISTED = 1_000  # ids of runs read at a time
_RUNS = 50  # deleted in one transaction: a run over 250 suppliers has some thousands of events
_IDS = 5_000  # in one statement
_CHECKED = ("SUCCEEDED", "FAILED")  # of a check that was evaluated, not only planned
_ASSET_EVENTS = sorted(kind.value for kind in ASSET_EVENTS)
T = TypeVar("T")


@dataclass
class Pruned:
    """How many runs, rows of the event log and backfills were deleted."""

    runs: int = 0
    rows: int = 0
    backfills: int = 0
    departed: set[str] = field(default_factory=set)
    """Assets of which events of partitions that are no more were deleted."""


def prune_runs(
    instance: dg.DagsterInstance,
    older_than: datetime,
    dynamic: Mapping[str, Collection[dg.AssetKey]] | None = None,
) -> Pruned:
    """Delete what finished before an instant and what nothing shown today is derived from.

    Runs that are queued or go on stay, and so do those of backfills that go on. May be stopped and repeated
    at any time.

    Args:
        instance: Dagster's instance, on SQLite or PostgreSQL.
        older_than: aware; a run counts by when it was last updated, which is not before its end.
        dynamic: by name of dynamic partitions the assets that have them. Of partitions that are no more
            nothing stays of runs as old.

    Raises:
        TestbenchError: the instance has another kind of storage.
        ValueError: ``older_than`` has no time zone.
    """
    if older_than.tzinfo is None:
        raise ValueError(f"older_than {older_than.isoformat()} has no time zone; use datetime.now(UTC)")
    older_than = older_than.astimezone(UTC)
    events, runs = instance.event_log_storage, instance.run_storage
    if not isinstance(events, SqlEventLogStorage) or not isinstance(runs, SqlRunStorage):
        raise TestbenchError(
            f"old runs of a {type(events).__name__} cannot be deleted; use the storage of "
            "testbench_dagster.defs.storage"
        )
    pruned = Pruned()
    # all ids first: deleting takes away what the next page would begin at
    for batch in _batches(list(_old_runs(instance, older_than)), _RUNS):
        _prune(instance, events, runs, batch, dynamic or {}, pruned)
    for asset in pruned.departed:
        key = dg.AssetKey.from_db_string(asset)
        if key is not None:
            instance.wipe_asset_cached_status([key])
    pruned.backfills = _prune_backfills(runs, older_than)
    return pruned


def _old_runs(instance: dg.DagsterInstance, older_than: datetime) -> Iterator[str]:
    """Yield the ids of the runs that finished before an instant, but those of backfills that go on."""
    finished = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=older_than)
    going_on = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=going_on))
    needed = {
        run_id
        for backfill in backfills
        for run_id in instance.get_run_ids(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id}))
    }
    cursor: str | None = None
    while run_ids := instance.get_run_ids(finished, cursor=cursor, limit=_LISTED):
        yield from (run_id for run_id in run_ids if run_id not in needed)
        cursor = run_ids[-1]


def _prune(
    instance: dg.DagsterInstance,
    events: SqlEventLogStorage,
    runs: SqlRunStorage,
    run_ids: Sequence[str],
    dynamic: Mapping[str, Collection[dg.AssetKey]],
    pruned: Pruned,
) -> None:
    """Delete what is superseded of some runs, and those of which nothing is left to be shown.

    The run itself goes last: stopped before, all this is done again.
    """
    with events.index_transaction() as connection:
        superseded, kept = _told_apart(connection, run_ids, dynamic, pruned)
        thinned, ids = {run_id for run_id, _ in superseded}, [row_id for _, row_id in superseded]
        kept |= _prune_checks(connection, run_ids)
        doomed = [run_id for run_id in run_ids if run_id not in kept]
        table = SqlEventLogStorageTable
        for some in _batches(ids, _IDS):
            connection.execute(sa.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(some)))
            pruned.rows += connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount
        pruned.rows += connection.execute(sa.delete(table).where(table.c.run_id.in_(doomed))).rowcount
    if isinstance(events, SqliteEventLogStorage):
        for run_id in thinned & kept:
            pruned.rows += _thin_file(events, run_id)
        for run_id in doomed:
            _remove_file(Path(events.path_for_shard(run_id)))
    for run_id in doomed:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    with runs.connect() as connection:
        connection.execute(sa.delete(RunTagsTable).where(RunTagsTable.c.run_id.in_(doomed)))
        pruned.runs += connection.execute(sa.delete(RunsTable).where(RunsTable.c.run_id.in_(doomed))).rowcount


def _told_apart(
    connection: sa.Connection,
    run_ids: Sequence[str],
    dynamic: Mapping[str, Collection[dg.AssetKey]],
    pruned: Pruned,
) -> tuple[list[tuple[str, int]], set[str]]:
    """Run and id of the asset events that newer ones took the place of, and the runs with others."""
    row, newer = SqlEventLogStorageTable, SqlEventLogStorageTable.alias("newer")
    of_same = [
        newer.c.asset_key.is_not(None),
        newer.c.asset_key == row.c.asset_key,
        newer.c.dagster_event_type == row.c.dagster_event_type,
        newer.c.id > row.c.id,
    ]
    # two ways to ask, for each has an index: equality with a partition, and no partition at all
    same = sa.and_(*of_same, newer.c.partition.is_not(None), newer.c.partition == row.c.partition)
    none = sa.and_(*of_same, newer.c.partition.is_(None))
    replaced = sa.case(
        (row.c.partition.is_(None), sa.exists().where(none)), else_=sa.exists().where(same)
    ).label("replaced")
    departed = _departed(dynamic).label("departed")
    found = connection.execute(
        sa.select(row.c.run_id, row.c.id, row.c.asset_key, replaced, departed).where(
            row.c.run_id.in_(run_ids),
            row.c.asset_key.is_not(None),
            row.c.dagster_event_type.in_(_ASSET_EVENTS),
        )
    )
    superseded, kept = [], set()
    for run_id, row_id, asset, is_replaced, is_departed in found:
        if is_departed:
            pruned.departed.add(asset)
        if is_replaced or is_departed:
            superseded.append((run_id, row_id))
        else:
            kept.add(run_id)
    return superseded, kept


def _departed(dynamic: Mapping[str, Collection[dg.AssetKey]]) -> sa.ColumnElement[bool]:
    """Whether an event is of a partition that is no more."""
    row, there = SqlEventLogStorageTable, DynamicPartitionsTable
    conditions = [
        sa.and_(
            row.c.partition.is_not(None),
            row.c.asset_key.in_([key.to_string() for key in assets]),
            ~sa.exists().where(there.c.partitions_def_name == name, there.c.partition == row.c.partition),
        )
        for name, assets in dynamic.items()
    ]
    return sa.or_(sa.false(), *conditions)


def _prune_checks(connection: sa.Connection, run_ids: Sequence[str]) -> set[str]:
    """Delete the results of checks that newer ones took the place of; return the runs with others.

    Where the newest was only planned, as by a run that failed, the newest that was evaluated stays too.
    """
    row, newer = AssetCheckExecutionsTable, AssetCheckExecutionsTable.alias("newer")
    without = sa.and_(newer.c.partition.is_(None), row.c.partition.is_(None))
    of_same = sa.and_(
        newer.c.asset_key == row.c.asset_key,
        newer.c.check_name == row.c.check_name,
        newer.c.id > row.c.id,
        sa.or_(newer.c.partition == row.c.partition, without),
    )
    newest = ~sa.exists().where(of_same)
    newest_result = sa.and_(
        row.c.execution_status.in_(_CHECKED),
        ~sa.exists().where(sa.and_(of_same, newer.c.execution_status.in_(_CHECKED))),
    )
    shown = sa.or_(newest, newest_result).label("shown")
    superseded, kept = [], set()
    for run_id, row_id, is_shown in connection.execute(
        sa.select(row.c.run_id, row.c.id, shown).where(row.c.run_id.in_(run_ids))
    ):
        if is_shown:
            kept.add(run_id)
        else:
            superseded.append(row_id)
    for some in _batches(superseded, _IDS):
        connection.execute(sa.delete(row).where(row.c.id.in_(some)))
    return kept


def _thin_file(events: SqliteEventLogStorage, run_id: str) -> int:
    """Delete from the file of a run that stays those asset events that are no more in the index."""
    if not Path(events.path_for_shard(run_id)).exists():
        return 0
    row = SqlEventLogStorageTable
    query = sa.select(row.c.id, row.c.dagster_event_type, row.c.asset_key, row.c.partition).where(
        row.c.run_id == run_id, row.c.asset_key.is_not(None), row.c.dagster_event_type.in_(_ASSET_EVENTS)
    )
    with events.index_connection() as connection:
        shown = {tuple(found[1:]) for found in connection.execute(query)}
    with events.run_connection(run_id) as connection:
        ids = [found[0] for found in connection.execute(query) if tuple(found[1:]) not in shown]
        for some in _batches(ids, _IDS):
            connection.execute(sa.delete(row).where(row.c.id.in_(some)))
    return len(ids)


def _remove_file(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _prune_backfills(runs: SqlRunStorage, older_than: datetime) -> int:
    """Delete the backfills that ended, began before an instant, and have no run any more."""
    row = BulkActionsTable
    ended = [status.value for status in BULK_ACTION_TERMINAL_STATUSES]
    before = older_than.replace(tzinfo=None)  # as it is stored
    with runs.connect() as connection:
        without_runs = ~sa.exists().where(RunsTable.c.backfill_id == row.c.key)
        query = sa.select(row.c.key).where(row.c.status.in_(ended), row.c.timestamp < before, without_runs)
        keys = list(connection.execute(query).scalars())
        for some in _batches(keys, _IDS):
            connection.execute(sa.delete(BackfillTagsTable).where(BackfillTagsTable.c.backfill_id.in_(some)))
            connection.execute(sa.delete(row).where(row.c.key.in_(some)))
    return len(keys)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
