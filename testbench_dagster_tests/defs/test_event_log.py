"""Pruning Dagster's event log on both of its storages: rows go, nothing derived from the log changes."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs import event_log
from testbench_dagster.defs.event_log import prune_event_log
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.postgres import POSTGRES_ENV

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


@contextmanager
def opened(home: Path, url: str | None) -> Iterator[dg.DagsterInstance]:
    """A new instance with our settings, on PostgreSQL when there is a URL."""
    (home / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.delenv(POSTGRES_ENV, raising=False)
        if url:
            patch.setenv(POSTGRES_ENV, url)
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with three good runs, a failed one, and one that is still going on."""
    url = request.getfixturevalue("postgres_database_uri") if request.param == "postgresql" else None
    with opened(tmp_path, url) as made:
        for partition in ("a", "b", "c", "a"):
            materialize(made, partition)
        going_on = create_run_for_test(made, job_name="other", status=dg.DagsterRunStatus.STARTED)
        made.report_engine_event("still working", going_on)
        yield made


def materialize(instance: dg.DagsterInstance, partition: str) -> bool:
    return dg.materialize(
        [answers, answers_are_fine],
        instance=instance,
        partition_key=partition,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    ).success


@dataclass
class Files:
    """An instance on SQLite with one failed run that logged a lot, and where that lies."""

    instance: dg.DagsterInstance
    run_id: str
    path: Path


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with opened(tmp_path, None) as made:
        run = create_run_for_test(made, status=dg.DagsterRunStatus.FAILURE)
        for number in range(30):
            made.report_engine_event(f"{number} " + "x" * 8000, run)
        storage = made.event_log_storage
        assert isinstance(storage, SqliteEventLogStorage)
        yield Files(made, run.run_id, Path(storage.path_for_shard(run.run_id)))


def derived(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster makes of its event log, computed anew."""
    storage = instance.event_log_storage
    instance.wipe_asset_cached_status([KEY])
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


@pytest.mark.slow
def test_what_is_derived_from_the_log_stays(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "_RUNS", 2)
    monkeypatch.setattr(event_log, "_ROWS", 7)
    before, stored = derived(instance), rows(instance)
    assert before["materialized"] == ["a", "b"]
    assert len(before["materializations"]) == 3 and len(before["observations"]) == 3
    assert [f for f in before["failures"] if f] == [["ValueError: this one never works\n"]]
    failed = before["statuses"].deserialize_failed_partition_subsets(parts)
    assert list(failed.get_partition_keys()) == ["c"]

    assert prune_event_log(instance, datetime.now(UTC) - timedelta(days=1)) == 0
    assert rows(instance) == stored, "young runs keep their logs"
    deleted = prune_event_log(instance, later())

    assert derived(instance) == before
    left = rows(instance)
    assert deleted == sum(stored.values()) - sum(left.values())
    (going_on,) = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert left.pop(going_on) == stored.pop(going_on) > 0, "a run that goes on keeps its log"
    assert all(stored[run_id] - left[run_id] > 20 for run_id in stored)
    assert kinds_in_tables(instance, stored) <= event_log.KEPT
    assert prune_event_log(instance, later()) == 0

    assert materialize(instance, "d"), "the instance goes on"
    assert sorted(instance.get_materialized_partitions(KEY)) == ["a", "b", "d"]
    (newest,) = instance.get_run_ids(limit=1)
    assert rows(instance)[newest] > 20
    assert prune_event_log(instance, later()) > 20


def kinds_in_tables(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str | None]:
    """Types of the rows of some runs, wherever they lie."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    table = SqlEventLogStorageTable
    query = sa.select(table.c.dagster_event_type).where(table.c.run_id.in_(list(run_ids)))
    with storage.index_connection() as connection:
        kinds = set(connection.execute(query).scalars())
    if isinstance(storage, SqliteEventLogStorage):
        for run_id in run_ids:
            with storage.run_connection(run_id) as connection:
                kinds |= set(connection.execute(query).scalars())
    return kinds


def test_a_file_that_is_being_written_waits(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_BUSY_S", 0.05)
    with closing(sqlite3.connect(files.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert prune_event_log(files.instance, later()) == 0
        writer.execute("ROLLBACK")
    assert prune_event_log(files.instance, later()) == 30


def test_pruned_files_shrink_and_are_not_looked_into_again(files: Files) -> None:
    size = files.path.stat().st_size
    assert prune_event_log(files.instance, later()) == 30
    assert files.path.stat().st_size < size / 2
    read = files.path.stat().st_mtime_ns
    assert prune_event_log(files.instance, later()) == 0
    assert files.path.stat().st_mtime_ns == read


def test_files_of_runs_that_are_gone_are_not_made(files: Files) -> None:
    files.path.unlink()
    assert prune_event_log(files.instance, later()) == 0
    assert not files.path.exists()


def test_a_file_that_is_no_event_log_is_named(files: Files) -> None:
    with closing(sqlite3.connect(files.path)) as file:
        file.execute("DROP TABLE event_logs")
    with pytest.raises(TestbenchError, match=f"{files.run_id}.db: .* no such table"):
        prune_event_log(files.instance, later())


def test_an_instant_without_a_zone_is_refused(files: Files) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        prune_event_log(files.instance, datetime(2026, 1, 1))


def test_another_kind_of_event_log_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.instance, "_event_storage", object())
    with pytest.raises(TestbenchError, match="is a object, which cannot be pruned"):
        prune_event_log(files.instance, later())
    monkeypatch.undo()
