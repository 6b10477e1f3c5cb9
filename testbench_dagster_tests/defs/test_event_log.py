"""Pruning Dagster's event log on both of its storages: rows go, nothing derived from the log changes."""

import logging
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test

from testbench_dagster.defs import event_log
from testbench_dagster.defs.event_log import prune_event_log
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.storage import POSTGRES_ENV
from testbench_dagster.errors import TestbenchError

parts = dg.StaticPartitionsDefinition(["a", "b", "c", "d", "e"])


@dg.asset(partitions_def=parts)
def answers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Fails for one partition, and talks."""
    for number in range(20):
        context.log.info(f"working on {number}")
    if context.partition_key == "c":
        raise ValueError("this one never works")
    context.log_event(dg.AssetObservation(asset_key="answers", partition=context.partition_key))
    return dg.MaterializeResult(metadata={"rows": 5})


@dg.asset_check(asset=answers)
def answers_are_fine() -> dg.AssetCheckResult:
    """Passes."""
    return dg.AssetCheckResult(passed=True, metadata={"offenders": 0})


KEY = answers.key


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance with three good runs, a failed one, and one that is still going on."""
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv(POSTGRES_ENV, raising=False)
    if request.param == "postgresql":
        monkeypatch.setenv(POSTGRES_ENV, request.getfixturevalue("postgres_database_uri"))
    with dg.DagsterInstance.get() as opened:
        for partition in ("a", "b", "c", "a"):
            dg.materialize(
                [answers, answers_are_fine],
                instance=opened,
                partition_key=partition,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        going_on = create_run_for_test(opened, job_name="other", status=dg.DagsterRunStatus.STARTED)
        opened.report_engine_event("still working", going_on)
        yield opened


def derived(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster makes of its event log, computed anew."""
    storage = instance.event_log_storage
    instance.wipe_asset_cached_status(KEY)
    statuses = get_and_update_asset_status_cache_value(instance, KEY, parts)
    assert statuses is not None
    check = answers_are_fine.check_key
    record = storage.get_latest_asset_check_execution_by_key([check])[check]
    materialization = instance.get_latest_materialization_event(KEY)
    assert materialization is not None
    return {
        "materialized": sorted(instance.get_materialized_partitions(KEY)),
        "statuses": statuses,
        "materialization": materialization,
        "of each partition": storage.get_latest_storage_id_by_partition(
            KEY, dg.DagsterEventType.ASSET_MATERIALIZATION
        ),
        "materializations": instance.fetch_materializations(KEY, limit=100).records,
        "observations": instance.fetch_observations(KEY, limit=100).records,
        "check": (record.run_id, record.status, record.event),
        "checks": [(r.run_id, r.status) for r in storage.get_asset_check_execution_history(check, limit=100)],
        "runs": [(r.dagster_run.run_id, r.dagster_run.status) for r in instance.get_run_records()],
        "run statuses": [
            instance.fetch_run_status_changes(kind, limit=100).records
            for kind in (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
        ],
        "failures": [
            [e.dagster_event.step_failure_data.error.cause.message for e in _failures(instance, run_id)]
            for run_id in instance.get_run_ids()
        ],
    }


def _failures(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    return list(instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE))


def rows(instance: dg.DagsterInstance) -> dict[str, int]:
    """Number of rows of each run's log."""
    return {run_id: len(instance.all_logs(run_id)) for run_id in instance.get_run_ids()}


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=2)


def test_what_is_derived_from_the_log_stays(instance: dg.DagsterInstance) -> None:
    before, stored = derived(instance), rows(instance)
    assert before["materialized"] == ["a", "b"]
    assert len(before["materializations"]) == 3 and len(before["observations"]) == 3
    assert [f for f in before["failures"] if f] == [["ValueError: this one never works\n"]]
    failed = before["statuses"].deserialize_failed_partition_subsets(parts)
    assert list(failed.get_partition_keys()) == ["c"]

    deleted = prune_event_log(instance, later())

    assert derived(instance) == before
    left = rows(instance)
    assert deleted == sum(stored.values()) - sum(left.values())
    (going_on,) = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert left.pop(going_on) == stored.pop(going_on) > 0
    assert all(stored[run_id] - left[run_id] > 20 for run_id in stored)
    kinds = {
        e.dagster_event_type.value if e.dagster_event else None
        for run_id in stored
        for e in instance.all_logs(run_id)
    }
    assert kinds <= event_log.KEPT
    assert prune_event_log(instance, later()) == 0


def test_young_runs_keep_their_logs(instance: dg.DagsterInstance) -> None:
    stored = rows(instance)
    assert prune_event_log(instance, datetime.now(UTC) - timedelta(days=1)) == 0
    assert rows(instance) == stored


def test_an_instance_goes_on_after_pruning(instance: dg.DagsterInstance) -> None:
    prune_event_log(instance, later())
    assert dg.materialize([answers, answers_are_fine], instance=instance, partition_key="d").success
    assert sorted(instance.get_materialized_partitions(KEY)) == ["a", "b", "d"]
    newest = instance.get_run_ids(limit=1)[0]
    assert rows(instance)[newest] > 20
    assert prune_event_log(instance, later()) > 20


def test_many_runs_and_rows_take_several_steps(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = sum(rows(instance).values())
    monkeypatch.setattr(event_log, "_RUNS", 2)
    monkeypatch.setattr(event_log, "_ROWS", 7)
    deleted = prune_event_log(instance, later())
    assert deleted == stored - sum(rows(instance).values()) > 80


def test_nothing_else_lies_in_the_tables(instance: dg.DagsterInstance) -> None:
    """The rows are gone from where they lie, not only from what the instance shows."""
    prune_event_log(instance, later())
    storage = instance.event_log_storage
    kind = SqlEventLogStorageTable.c.dagster_event_type
    (going_on,) = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    query = sa.select(kind).where(SqlEventLogStorageTable.c.run_id != going_on)
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        kinds = set(connection.execute(query).scalars())
    assert kinds and kinds <= event_log.KEPT
    if isinstance(storage, SqliteEventLogStorage):
        for run_id in set(instance.get_run_ids()) - {going_on}:
            with storage.run_connection(run_id) as connection:
                assert set(connection.execute(query).scalars()) <= event_log.KEPT


@pytest.mark.parametrize("instance", ["sqlite"], indirect=True)
def test_a_file_that_is_being_written_waits(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_BUSY_S", 0.05)
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    run_id = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
    writer = sqlite3.connect(storage.path_for_shard(run_id), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    stored = rows(instance)
    prune_event_log(instance, later())
    assert rows(instance)[run_id] == stored[run_id]
    writer.execute("ROLLBACK")
    writer.close()
    prune_event_log(instance, later())
    assert rows(instance)[run_id] < stored[run_id]


@pytest.mark.parametrize("instance", ["sqlite"], indirect=True)
def test_files_of_runs_that_are_gone_are_not_made(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    run_id = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
    path = Path(storage.path_for_shard(run_id))
    path.unlink()
    prune_event_log(instance, later())
    assert not path.exists()


@pytest.mark.parametrize("instance", ["sqlite"], indirect=True)
def test_pruned_files_shrink(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    assert isinstance(storage, SqliteEventLogStorage)
    run_id = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))[0]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    for number in range(100):
        instance.report_engine_event(f"{number} " + "x" * 2000, run, cls=logging.Logger)
    path = Path(storage.path_for_shard(run_id))
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.close()
    size = path.stat().st_size
    prune_event_log(instance, later())
    assert path.stat().st_size < size / 2


def test_an_instant_without_a_zone_is_refused() -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral, pytest.raises(ValueError, match="no time zone"):
        prune_event_log(ephemeral, datetime(2026, 1, 1))


def test_another_kind_of_event_log_is_refused(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        """Not an SQL storage."""

    monkeypatch.setattr(instance, "_event_storage", Other())
    with pytest.raises(TestbenchError, match="is a Other, which cannot be pruned"):
        prune_event_log(instance, later())
    monkeypatch.undo()
