"""Canary: the private parts of Dagster are as this package uses them. Run it before the pin is raised."""

from __future__ import annotations

import importlib
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from testbench_dagster_tests.upstream import gone, otherwise_called, says, taken

MODULE = "testbench_dagster.defs.dagster_internals"


def test_all_names_are_there() -> None:
    assert gone(MODULE, "dagster") == []


def test_a_missing_name_is_told_with_the_place_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("dagster._core.utils.make_new_backfill_id")
    (sentence,) = gone(MODULE, "dagster")
    assert sentence == (
        f"dagster {dg.__version__}: dagster._core.utils has no make_new_backfill_id any more; "
        f"mend {MODULE.replace('.', '/')}.py"
    )


def test_nothing_but_private_parts_is_kept_there() -> None:
    assert [name for where, name in taken(MODULE, "dagster") if "._" not in where] == []


def test_backfills_are_made_and_stored_as_we_do() -> None:
    ours = importlib.import_module(MODULE)
    changed = [
        otherwise_called(
            ours.PartitionBackfill.from_asset_partitions,
            backfill_id="",
            asset_graph=None,
            partition_names=[],
            asset_selection=[],
            backfill_timestamp=0.0,
            tags={},
            dynamic_partitions_store=None,
            all_partitions=False,
            title="",
            description=None,
            run_config=None,
        ),
        otherwise_called(ours.get_daemon_statuses, None, ["BACKFILL"]),
        otherwise_called(ours.make_new_backfill_id),
        otherwise_called(ours.get_current_timestamp),
        otherwise_called(dg.DagsterInstance.add_backfill, None, None),
        otherwise_called(dg.DagsterInstance.get_backfill, None, ""),
        otherwise_called(dg.DagsterInstance.get_backfills, None, filters=None),
        otherwise_called(dg.DagsterInstance.all_instigator_state, None),
        otherwise_called(dg.DagsterInstance.add_instigator_state, None, None),
    ]
    assert [says("dagster", what, MODULE) for what in changed if what] == []
    ended = {status.name for status in ours.BULK_ACTION_TERMINAL_STATUSES}
    assert ended == {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}, says(
        "dagster", f"backfills now end as {sorted(ended)}", MODULE
    )


def test_runs_are_queued_and_sent_as_we_do() -> None:
    from dagster_celery.launcher import CeleryRunLauncher
    from dagster_celery.tasks import create_execute_job_task

    changed = [
        otherwise_called(dg.QueuedRunCoordinator.submit_run, None, None),
        otherwise_called(CeleryRunLauncher.terminate, None, ""),
        otherwise_called(CeleryRunLauncher.check_run_worker_health, None, None),
        otherwise_called(create_execute_job_task, None, base=None, shared=False),
    ]
    assert [says("dagster", what, MODULE) for what in changed if what] == []


def test_storages_are_made_as_we_do() -> None:
    from dagster_postgres import DagsterPostgresStorage

    ours = importlib.import_module(MODULE)
    changed = [
        otherwise_called(ours.DagsterSqliteStorage.from_local, base_dir="", inst_data=None),
        otherwise_called(DagsterPostgresStorage, postgres_url="", inst_data=None),
        otherwise_called(ours.ConfigurableClass.from_config_value, None, {}),
    ]
    assert [says("dagster", what, MODULE) for what in changed if what] == []


def test_storages_are_extended_where_they_were(tmp_path: Path) -> None:
    ours = importlib.import_module(MODULE)
    parts = {
        ours.SqliteEventLogStorage: {
            *("_connect", "_initdb", "_event_to_row", "_store_asset_event", "_store_asset_event_tags"),
            *("_has_asset_key_col_on_connection", "index_transaction", "run_connection", "has_table"),
        },
        ours.SqliteRunStorage: {"connect", "dispose"},
        ours.SqliteScheduleStorage: {"connect"},
    }
    missing = [f"{one.__name__}.{part}" for one, names in parts.items() for part in names - set(dir(one))]
    assert missing == [], says("dagster", f"there is no {missing}", MODULE)
    storage = ours.SqliteEventLogStorage(str(tmp_path))
    attributes = {"_db_lock", "_initialized_dbs"} - set(vars(storage))
    assert attributes == set(), says("dagster", f"an event log has no {attributes}", MODULE)


def test_the_event_log_has_the_tables_we_prune(tmp_path: Path) -> None:
    ours = importlib.import_module(MODULE)
    table = ours.SqlEventLogStorageTable
    columns = {"id", "run_id", "dagster_event_type"}
    assert table.name == "event_logs", says("dagster", f"the event log's table is {table.name}", MODULE)
    assert columns <= set(table.c.keys()), says("dagster", f"it has the columns {table.c.keys()}", MODULE)

    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        storage = instance.event_log_storage
        assert isinstance(storage, ours.SqliteEventLogStorage), says(
            "dagster", f"the local event log is a {type(storage).__name__}", MODULE
        )
        run = dg.materialize([thing], instance=instance).run_id
        with sqlite3.connect(storage.path_for_shard(run)) as file:
            found = [row[1] for row in file.execute("PRAGMA table_info(event_logs)")]
            marked = file.execute("PRAGMA user_version").fetchone()[0]
    assert columns <= set(found), says("dagster", f"a run's file has the columns {found}", MODULE)
    assert marked == 0, says("dagster", "it sets user_version, which marks pruned files here", MODULE)


def test_the_tables_that_old_runs_are_deleted_from_are_as_we_know_them(tmp_path: Path) -> None:
    ours = importlib.import_module(MODULE)
    wanted = {
        ours.SqlEventLogStorageTable: {"id", "run_id", "dagster_event_type", "asset_key", "partition"},
        ours.AssetEventTagsTable: {"event_id"},
        ours.AssetCheckExecutionsTable: {
            *("id", "asset_key", "check_name", "partition", "run_id", "execution_status")
        },
        ours.DynamicPartitionsTable: {"partitions_def_name", "partition"},
        ours.RunsTable: {"run_id", "backfill_id"},
        ours.RunTagsTable: {"run_id"},
        ours.BulkActionsTable: {"key", "status", "timestamp"},
        ours.BackfillTagsTable: {"backfill_id"},
    }
    changed = [
        says("dagster", f"table {table.name} has the columns {sorted(table.c.keys())}", MODULE)
        for table, columns in wanted.items()
        if not columns <= set(table.c.keys())
    ]
    # one that names events or runs and is new keeps them, unless it is looked at here
    metadata = [ours.SqlEventLogStorageTable.metadata, ours.RunsTable.metadata]
    naming = {
        table.name
        for known in metadata
        for table in known.tables.values()
        if {"run_id", "event_id", "backfill_id"} & set(table.c.keys())
    }
    known = {table.name for table in wanted} | {"concurrency_slots", "pending_steps"}
    changed += [says("dagster", f"{name} names runs or events", MODULE) for name in sorted(naming - known)]
    assert changed == []
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        assert isinstance(instance.run_storage, ours.SqlRunStorage)
        with instance.event_log_storage.index_transaction() as connection:
            assert connection.in_transaction()
        assert instance.run_storage.get_run_storage_id()


def test_schemas_and_heartbeats_are_read_as_we_do(tmp_path: Path) -> None:
    ours = importlib.import_module(MODULE)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
            stored, installed = storage.alembic_version()
            assert stored == installed and ours.knows_revision(stored)
        assert not ours.knows_revision("ffffffffffff")
        instance.add_daemon_heartbeat(ours.DaemonHeartbeat(1.0, "SENSOR", "id", None))
        (beat,) = instance.get_daemon_heartbeats().values()
        assert (beat.timestamp, beat.daemon_id, beat.errors) == (1.0, "id", [])


@dg.asset
def thing() -> None:
    """Leaves one run's events."""


def test_events_that_status_is_derived_from_are_known() -> None:
    ours = importlib.import_module(MODULE)
    types = dg.DagsterEventType
    assert {types.ASSET_MATERIALIZATION, types.ASSET_MATERIALIZATION_PLANNED} <= set(ours.ASSET_EVENTS)
    assert types.ASSET_CHECK_EVALUATION in ours.ASSET_CHECK_EVENTS
    assert {types.RUN_SUCCESS, types.RUN_FAILURE} <= set(ours.EVENT_TYPE_TO_PIPELINE_RUN_STATUS)
    assert {status.value for status in ours.FINISHED_STATUSES} == {"SUCCESS", "FAILURE", "CANCELED"}


def test_runs_are_given_an_origin_as_we_do() -> None:
    ours = importlib.import_module(MODULE)
    runs = importlib.import_module("dagster._core.storage.runs").SqlRunStorage
    changed = [
        otherwise_called(ours.LoadableTargetOrigin, executable_path="", module_name=""),
        otherwise_called(ours.ManagedGrpcPythonEnvCodeLocationOrigin, None, ""),
        otherwise_called(ours.RemoteRepositoryOrigin, None, ""),
        otherwise_called(ours.RemoteJobOrigin, None, ""),
        otherwise_called(runs.replace_job_origin, None, None, None),
    ]
    assert [says("dagster", what, MODULE) for what in changed if what] == []
