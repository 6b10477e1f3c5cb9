"""The parts of Dagster used here that it does not publish: all of them, and no other module has more.

Each minor version of Dagster may change them, hence the pin on one in ``pyproject.toml``. Before it is
raised, ``testbench_dagster_tests/defs/test_dagster_internals.py`` says what changed.

- the storage factory (:mod:`.storage`): its base class, SQLite's, and how ``dagster.yaml`` names it;
- pruning the event log (:mod:`.event_log`): its storages and table, and what its events are for;
- connections that are held (:mod:`.held_connections`, which extends storages by what is protected there);
- deleting old runs (:mod:`.run_history`): the tables that name them;
- backfills requested from outside the UI, and whom those that go on are about (:mod:`.backfills`);
- the origin of a run, by which the UI's timeline finds it (:mod:`.local_runs`);
- what was switched on the Automation page, by the name of the code location (:mod:`.entry_points`);
- what is kept of sensors and schedules, and how its daemon reads that (:mod:`.set_back`);
- metadata of single partitions, all at once (:mod:`.per_partition`);
- the run queue's limits, and what the code says of itself that a run is of (:mod:`.run_queue`);
- what a launcher says of a run's process, and what the message of a run on Celery holds
  (:mod:`.celery_launcher`, :mod:`.celery_worker`);
- heartbeats of daemons and the migrations that Dagster knows (:mod:`.storage_findings`).

They bring Dagster's storages with them, half a second of CPU: the code location loads none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.events import AssetKey
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.execution.context.metadata_logging import (
    AssetMetadataHandle,
    OutputMetadataAccumulator,
)
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    DynamicPartitionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.runs.schema import BackfillTagsTable, BulkActionsTable, RunsTable, RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
)
from dagster._core.storage.sqlite_storage import (
    _event_logs_directory as event_logs_directory,
)
from dagster._core.storage.sqlite_storage import (
    _runs_directory as runs_directory,
)
from dagster._core.storage.sqlite_storage import (
    _schedule_directory as schedule_directory,
)
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_backfill_id
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)
from dagster._daemon.controller import get_daemon_statuses
from dagster._daemon.types import DaemonHeartbeat
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, unpack_value
from dagster._time import get_current_timestamp
from sqlalchemy.engine import Connection, Engine

__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "BACKFILL_ID_TAG",
    "BULK_ACTION_TERMINAL_STATUSES",
    "EVENT_TYPE_TO_PIPELINE_RUN_STATUS",
    "FINISHED_STATUSES",
    "INDEX_SHARD_NAME",
    "SQLITE_BUSY_TIMEOUT_SECONDS",
    "AssetCheckExecutionsTable",
    "AssetDaemonCursor",
    "AssetEventTagsTable",
    "BackfillTagsTable",
    "BulkActionStatus",
    "BulkActionsFilter",
    "BulkActionsTable",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DaemonHeartbeat",
    "DagsterSqliteStorage",
    "DagsterStorage",
    "DynamicPartitionsTable",
    "ExecuteRunArgs",
    "InstanceRef",
    "InstigatorState",
    "InstigatorStatus",
    "LoadableTargetOrigin",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "PartitionBackfill",
    "QueuedRunCoordinator",
    "RemoteInstigatorOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RunQueueConfig",
    "RunTagsTable",
    "RunsTable",
    "ScheduleInstigatorData",
    "SensorInstigatorData",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqlRunStorage",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "SqliteScheduleStorage",
    "SubmitRunContext",
    "WorkerStatus",
    "add_partition_metadata",
    "asset_daemon_cursor_from_instigator_serialized_cursor",
    "asset_daemon_cursor_to_instigator_serialized_cursor",
    "deserialize_value",
    "event_logs_directory",
    "get_current_timestamp",
    "get_daemon_statuses",
    "knows_revision",
    "make_new_backfill_id",
    "partition_loading_context",
    "remember_schema",
    "runs_directory",
    "schedule_directory",
    "share_engine",
    "stated_metadata",
    "unpack_value",
]


def add_partition_metadata(
    step: StepExecutionContext, asset: AssetKey, shown: Mapping[str, Mapping[str, Any]]
) -> None:
    """What ``add_asset_metadata`` of a run's context does for one partition of an asset, for many at once.

    Of partitions that the run does not carry nothing is shown.
    """
    gathered = step._metadata_accumulator.per_output_metadata
    added = dict(gathered)
    for partition, metadata in shown.items():
        handle = AssetMetadataHandle(asset_key=asset, partition_key=partition)
        added[handle] = {**gathered.get(handle, {}), **metadata}
    step._metadata_accumulator = OutputMetadataAccumulator(per_output_metadata=added)


def share_engine(storage: DagsterStorage, engine: Engine) -> None:
    """Have the parts of a PostgreSQL storage connect by an engine instead of by one of their own each."""
    parts: tuple[Any, ...] = (storage.run_storage, storage.event_log_storage, storage.schedule_storage)
    for part in parts:
        part._engine = engine


def remember_schema(events: SqlEventLogStorage) -> None:
    """Have an event log look once for a table or column that is there; others may come by a migration."""
    has_table, has_column = events.has_table, events._has_asset_key_col_on_connection
    tables: set[str] = set()
    columns: set[str] = set()

    def knows_table(table_name: str) -> bool:
        if table_name not in tables and has_table(table_name):
            tables.add(table_name)
        return table_name in tables

    def knows_column(conn: Connection, column_name: str) -> bool:
        if column_name not in columns and has_column(conn, column_name):
            columns.add(column_name)
        return column_name in columns

    extended: Any = events
    extended.has_table = knows_table
    extended._has_asset_key_col_on_connection = knows_column


def stated_metadata(context: SubmitRunContext) -> dict[str, str]:
    """The texts among the metadata of the definitions that a run is of; none where they are out of reach."""
    origin = context.dagster_run.remote_job_origin
    if origin is None:
        return {}
    repository = origin.repository_origin
    location = repository.code_location_origin.location_name
    if not context.workspace.has_code_location(location):
        return {}
    found = context.workspace.get_code_location(location).get_repository(repository.repository_name)
    metadata = found.repository_snap.metadata or {}
    return {name: value.value for name, value in metadata.items() if isinstance(value.value, str)}


def knows_revision(revision: str) -> bool:
    """Whether the installed Dagster has the migration that a storage's schema was left at."""
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    try:
        return ScriptDirectory.from_config(config).get_revision(revision) is not None
    except CommandError:
        return False
