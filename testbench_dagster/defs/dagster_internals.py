"""The parts of Dagster used here that it does not publish: all of them, and no other module has more.

Each minor version of Dagster may change them, hence the pin on one in ``pyproject.toml``. Before it is
raised, ``testbench_dagster_tests/defs/test_dagster_internals.py`` says what changed.

- the storage factory (:mod:`.storage`): its base class, SQLite's, and how ``dagster.yaml`` names it;
- pruning the event log (:mod:`.event_log`): its storages and table, and what its events are for;
- backfills requested from outside the UI (:mod:`.backfills`);
- the origin of a run, by which the UI's timeline finds it (:mod:`.local_runs`);
- what was switched on the Automation page, by the name of the code location (:mod:`.entry_points`);
- metadata of single partitions, all at once (:mod:`.per_partition`);
- the run queue's limits (:mod:`.celery_queue`); what a launcher says of a run's process, and what the message
  of a run on Celery holds (:mod:`.celery_launcher`, :mod:`.celery_worker`).

They bring Dagster's storages with them, half a second of CPU: the code location loads none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster._core.definitions.events import AssetKey
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
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_backfill_id
from dagster._daemon.controller import get_daemon_statuses
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, unpack_value
from dagster._time import get_current_timestamp

__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "BULK_ACTION_TERMINAL_STATUSES",
    "EVENT_TYPE_TO_PIPELINE_RUN_STATUS",
    "FINISHED_STATUSES",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DagsterSqliteStorage",
    "DagsterStorage",
    "ExecuteRunArgs",
    "InstanceRef",
    "InstigatorState",
    "InstigatorStatus",
    "LoadableTargetOrigin",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "PartitionBackfill",
    "RemoteInstigatorOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RunQueueConfig",
    "SqlEventLogStorage",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "WorkerStatus",
    "add_partition_metadata",
    "deserialize_value",
    "get_current_timestamp",
    "get_daemon_statuses",
    "make_new_backfill_id",
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
