"""Dagster's storages with connections that are held: the same rows as Dagster's own, of a few connections."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.engine import Engine

from testbench_dagster.core.errors import StoreError
from testbench_dagster.defs.dagster_internals import SqliteEventLogStorage
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS, PROCESS_ENVIRONMENT, _ErrorsOnce
from testbench_dagster.defs.postgres import POSTGRES_ENV

suppliers = dg.DynamicPartitionsDefinition(name="supplier")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset(partitions_def=suppliers, backfill_policy=dg.BackfillPolicy.single_run())
def answers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """A materialization with a tag, and an observation, of each supplier."""
    for key in context.partition_keys:
        context.log_event(dg.AssetObservation("answers", partition=key))
    return dg.MaterializeResult(metadata={"n": len(context.partition_keys)}, tags={"kind": "answers"})


@dg.asset(partitions_def=suppliers, backfill_policy=dg.BackfillPolicy.single_run())
def plain() -> None:
    """Nothing but what Dagster notes of it."""


@dg.asset_check(asset=answers)
def answered() -> dg.AssetCheckResult:
    """Passes."""
    return dg.AssetCheckResult(passed=True)


@pytest.fixture(autouse=True)
def as_our_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PROCESS_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@contextmanager
def instance_in(home: Path, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> Iterator[Any]:
    """The installation's instance, as a process gets it."""
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    if url is None:
        monkeypatch.delenv(POSTGRES_ENV, raising=False)
    else:
        monkeypatch.setenv(POSTGRES_ENV, url)
    with dg.DagsterInstance.get() as instance:
        yield instance


def run(instance: dg.DagsterInstance, n: int, asset: dg.AssetsDefinition = answers) -> str:
    """Materialize so many partitions in one run; its id."""
    keys = [f"s{i:03}" for i in range(n)]
    instance.add_dynamic_partitions("supplier", keys)
    checks = [answered] if asset is answers else []
    job = dg.Definitions([asset], asset_checks=checks).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    result = job.execute_in_process(instance=instance, tags=tags, run_config=QUIET)
    assert result.success
    return result.run_id


def rows(instance: dg.DagsterInstance, run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """What is stored of a run, without what differs from run to run: times, and texts with them."""
    events: Any = instance.event_log_storage
    found: dict[str, list[tuple[Any, ...]]] = {}
    logs = sa.text("SELECT dagster_event_type, step_key, asset_key, partition FROM event_logs ORDER BY id")
    tags = sa.text(
        "SELECT t.asset_key, t.key, e.partition, e.dagster_event_type FROM asset_event_tags t "
        "JOIN event_logs e ON e.id = t.event_id ORDER BY e.id, t.key"
    )
    with events.run_connection(run_id) as connection:
        found["run"] = [tuple(row) for row in connection.execute(logs)]
    with events.index_connection() as connection:
        found["index"] = [tuple(row) for row in connection.execute(logs)]
        found["tags"] = [tuple(row) for row in connection.execute(tags)]
        newest = sa.text(
            "SELECT asset_key, last_run_id, last_materialization FROM asset_keys ORDER BY asset_key"
        )
        found["assets"] = [(row[0], row[1] == run_id) for row in connection.execute(newest)]
        found["checks"] = [
            tuple(row)
            for row in connection.execute(
                sa.text("SELECT asset_key, check_name, execution_status FROM asset_check_executions")
            )
        ]
    record = instance.get_latest_materialization_event(dg.AssetKey("answers"))
    assert record is not None and record.dagster_event is not None
    found["newest"] = [(record.dagster_event.partition,)]
    found["partitions"] = [
        (key,) for key in sorted(instance.get_materialized_partitions(dg.AssetKey("answers")))
    ]
    return found


def test_the_same_is_stored_as_by_dagsters_own_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_in(tmp_path / "ours", monkeypatch) as instance:
        ours = rows(instance, run(instance, 30))
    storage = {"sqlite": {"base_dir": str(tmp_path / "theirs")}}
    with dg.instance_for_test(overrides={"storage": storage}) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        theirs = rows(instance, run(instance, 30))
    kinds = Counter(row[0] for row in ours["index"])
    assert kinds["ASSET_MATERIALIZATION"] == kinds["ASSET_OBSERVATION"] == 30
    assert len(ours["tags"]) >= 30 and len(ours["partitions"]) == 30
    assert ours == theirs


@contextmanager
def connections() -> Iterator[Counter[str]]:
    """Count what is opened meanwhile, by kind of database."""
    counted: Counter[str] = Counter()

    def count(dialect: Any, *_: object) -> None:
        counted[dialect.name] += 1

    sa.event.listen(Engine, "do_connect", count)
    try:
        yield counted
    finally:
        sa.event.remove(Engine, "do_connect", count)


@contextmanager
def statements() -> Iterator[list[str]]:
    """Gather what is asked of databases meanwhile."""
    asked: list[str] = []

    def gather(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", gather)
    try:
        yield asked
    finally:
        sa.event.remove(Engine, "before_cursor_execute", gather)


@pytest.mark.parametrize("url", [None, "postgres_database_uri"], ids=["sqlite", "postgresql"])
def test_many_partitions_need_as_many_connections_as_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, url: str | None
) -> None:
    at = None if url is None else request.getfixturevalue(url)
    found = {}
    for n in (5, 60):
        with instance_in(tmp_path / str(n), monkeypatch, at) as instance:
            run(instance, n, plain)  # looks once for tables and columns
            with connections() as opened_ones, statements() as asked:
                run(instance, n, plain)
            found[n] = opened_ones.total(), sum("asset_keys" in one for one in asked)
    assert found[60] == found[5]
    assert found[60][0] <= (2 if url else 60), "Dagster's own opens 5 and 8 a partition"


def of_others(url: str, what: str) -> int:
    """Ask PostgreSQL something of all other connections to the database."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    query = f"SELECT {what} FROM pg_stat_activity WHERE {others}"
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def test_a_connection_that_was_cut_while_nobody_used_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_database_uri: str
) -> None:
    with instance_in(tmp_path, monkeypatch, postgres_database_uri) as instance:
        run_id = run(instance, 3)
        cut = of_others(postgres_database_uri, "count(pg_terminate_backend(pid))")
        assert cut == 1, "one is held by all three parts"
        assert instance.get_run_by_id(run_id) is not None
        assert run(instance, 3) != run_id


def test_instances_that_nobody_closes_share_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_database_uri: str
) -> None:
    """As Dagster's code servers leave them behind, one for each tick."""
    left = []
    with instance_in(tmp_path, monkeypatch, postgres_database_uri) as instance:
        for _ in range(12):
            left.append(dg.DagsterInstance.from_ref(instance.get_ref()))
            left[-1].get_runs(limit=1)
            left[-1].get_dynamic_partitions("supplier")
        held = of_others(postgres_database_uri, "count(*)")
    assert held == 1


def test_nothing_stays_open_when_the_instance_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_in(tmp_path, monkeypatch) as instance:
        run_id = run(instance, 1)
        for i in range(12):  # more runs than engines are kept
            context = instance.event_log_storage.run_connection(f"{run_id}{i}")
            with context as connection:
                connection.execute(sa.text("SELECT count(*) FROM event_logs"))
        held = _open_files(tmp_path)
        assert 0 < len([name for name in held if not name.endswith(("-wal", "-shm"))]) <= 3
    assert _open_files(tmp_path) == []


def _open_files(folder: Path) -> list[str]:
    links = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    found = [os.readlink(link) for link in links if link.is_symlink()]
    return sorted({name for name in found if name.startswith(str(folder)) and ".db" in name})


def test_whoever_watches_a_run_is_told_of_it_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    told = threading.Event()
    with instance_in(tmp_path, monkeypatch) as instance:

        @dg.op
        def waits_for_a_watcher(context: dg.OpExecutionContext) -> None:
            with dg.DagsterInstance.from_ref(instance.get_ref()) as watching:

                def callback(event: dg.EventLogEntry, _cursor: str) -> None:
                    seen.append(event.user_message)
                    if "of this" in event.user_message:
                        told.set()

                watching.watch_event_logs(context.run_id, None, callback)
                for i in range(100):  # a file's change is told by the kernel, some time
                    context.log.info(f"{i} of this")
                    if told.wait(0.1):
                        break
                watching.end_watch_event_logs(context.run_id, callback)

        @dg.job
        def watched() -> None:
            waits_for_a_watcher()

        began = time.monotonic()
        assert watched.execute_in_process(instance=instance, run_config=QUIET).success
    assert told.is_set(), f"{len(seen)} events were seen in {time.monotonic() - began:.0f} s"


def test_threads_use_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_in(tmp_path, monkeypatch) as instance:
        failed: list[BaseException] = []

        def use(name: str) -> None:
            try:
                for i in range(10):
                    instance.add_dynamic_partitions("supplier", [f"{name}{i}"])
                    instance.get_runs(limit=1)
                    instance.all_instigator_state()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=use, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(instance.get_dynamic_partitions("supplier")) == 40


@pytest.mark.parametrize(("variable", "home_of"), [("TESTBENCH_HOME", ""), ("DAGSTER_HOME", "elsewhere")])
def test_a_full_disk_is_told_without_the_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, home_of: str
) -> None:
    """SQLite itself says that the file cannot grow: it may have no more pages than it has."""
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / home_of))
    with instance_in(tmp_path / "dagster", monkeypatch) as instance:
        runs = instance.run_storage
        with runs.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # of the connection that is held
        with pytest.raises(StoreError) as told:
            runs.add_run(dg.DagsterRun(job_name="j", tags={"filler": "x" * 1_000_000}))
    said = str(told.value)
    assert said.startswith(f"{tmp_path / 'dagster' / 'storage'}") and "its disk is full (" in said
    assert said.endswith(f"or set {variable} to a folder on another disk") and "INSERT" not in said


def test_what_is_raised_is_not_written_besides(capsys: pytest.CaptureFixture[str]) -> None:
    stream = _ErrorsOnce(sys.stderr)
    for error in (StoreError("ours"), OSError("another")):
        try:
            raise error
        except Exception as raised:
            stream.write(f"Exception while storing event batch: {raised}\n")
    stream.write("Exception while nothing is handled\n")
    assert capsys.readouterr().err == (
        "Exception while storing event batch: another\nException while nothing is handled\n"
    )
