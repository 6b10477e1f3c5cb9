"""How Dagster's storage grows under a year of runs, and that `retention` keeps it bounded.

    python benchmarks/run_history.py [--suppliers 20] [--days 365] [--evaluations 6] [--summaries 24] [--keep]

One run of each job is made for real on an installation of so many suppliers, with relays that ask nothing.
Then the year is filled with copies of what these stored (runs with their tags, events with theirs, results of
checks, the files of SQLite), each under an id and a time of its own: so many evaluations of everybody and
refreshes of the summaries a day. Every 30 simulated days `apply_retention`'s two steps run as of that day:
log lines after `events_days`, runs after `runs_days` (with ``--keep`` never, as before there was this
setting). Before and after, the newest materialization of every partition of every asset is looked up: they
have to be the same. Rows are those of runs, events, their tags, and results of checks; PostgreSQL is measured
after a VACUUM, which it does by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from testbench_dagster.config import load_config
from testbench_dagster.config.settings import RetentionSettings
from testbench_dagster.defs.dagster_internals import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    RunsTable,
    RunTagsTable,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)
from testbench_dagster.defs.event_log import prune_event_log
from testbench_dagster.defs.local_runs import LocalRuns, opened_instance
from testbench_dagster.defs.postgres import POSTGRES_ENV
from testbench_dagster.defs.run_history import Pruned, prune_runs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests import servers
from testbench_dagster_tests.stages.score.facts import configuration

STEP_DAYS = 30
EVALUATION, SUMMARIES = "evaluate_suppliers", ("refresh_identity", "refresh_summaries")
EVENTS = (SqlEventLogStorageTable, AssetEventTagsTable, AssetCheckExecutionsTable)


class Stored:
    """What one real run stored, to be copied."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self.run_id = run_id
        storage, table = instance.event_log_storage, SqlEventLogStorageTable
        with storage.index_connection() as connection:
            of_run = sa.select(table).where(table.c.run_id == run_id).order_by(table.c.id)
            self.events = rows(connection, of_run)
            ids = [row["id"] for row in self.events]
            tags = AssetEventTagsTable
            self.tags = rows(connection, sa.select(tags).where(tags.c.event_id.in_(ids)))
            checks = AssetCheckExecutionsTable
            self.checks = rows(connection, sa.select(checks).where(checks.c.run_id == run_id))
        with instance.run_storage.connect() as connection:
            (self.run,) = rows(connection, sa.select(RunsTable).where(RunsTable.c.run_id == run_id))
            self.run_tags = rows(connection, sa.select(RunTagsTable).where(RunTagsTable.c.run_id == run_id))
        self.file = None
        if isinstance(storage, SqliteEventLogStorage):
            self.file = Path(storage.path_for_shard(run_id))


def rows(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """The rows that a query finds."""
    return [dict(row) for row in connection.execute(query).mappings()]


class Year:
    """Copies of runs, one simulated day after another."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        with instance.event_log_storage.index_connection() as connection:
            self._next = {
                table.name: (connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0) + 1
                for table in EVENTS
            }

    def add(self, stored: Stored, at: datetime) -> None:
        """One more run as the real one, that ended at an instant."""
        run_id, naive = str(uuid.uuid4()), at.replace(tzinfo=None)
        events, tags, checks = [], [], []
        new = {}
        for row in stored.events:
            new[row["id"]] = self._id(SqlEventLogStorageTable)
            event = row["event"].replace(stored.run_id, run_id)
            events.append({**row, "id": new[row["id"]], "run_id": run_id, "event": event, "timestamp": naive})
        for row in stored.tags:
            id_ = self._id(AssetEventTagsTable)
            tags.append({**row, "id": id_, "event_id": new[row["event_id"]], "event_timestamp": naive})
        for row in stored.checks:
            id_ = self._id(AssetCheckExecutionsTable)
            checks.append({**row, "id": id_, "run_id": run_id})
        with self._instance.event_log_storage.index_transaction() as connection:
            for table, some in zip(EVENTS, (events, tags, checks), strict=True):
                if some:
                    connection.execute(sa.insert(table), some)
        body = stored.run["run_body"].replace(stored.run_id, run_id)
        times = {"create_timestamp": naive, "update_timestamp": naive}
        times |= {"start_time": at.timestamp() - 60, "end_time": at.timestamp()}
        run = {**stored.run, **times, "run_id": run_id, "run_body": body}
        del run["id"]
        with self._instance.run_storage.connect() as connection:
            connection.execute(sa.insert(RunsTable), run)
            of_run = [{"run_id": run_id, "key": row["key"], "value": row["value"]} for row in stored.run_tags]
            if of_run:
                connection.execute(sa.insert(RunTagsTable), of_run)
        if stored.file is not None:
            shutil.copy(stored.file, stored.file.with_name(f"{run_id}.db"))

    def _id(self, table: sa.Table) -> int:
        self._next[table.name] += 1
        return self._next[table.name]


def newest(instance: dg.DagsterInstance) -> Mapping[str, Mapping[str, int]]:
    """By asset and partition the storage id of the newest materialization."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    storage = instance.event_log_storage
    return {
        key.to_user_string(): storage.get_latest_storage_id_by_partition(key, kind)
        for key in instance.all_asset_keys()
    }


def counts(instance: dg.DagsterInstance) -> tuple[int, int]:
    """Runs, and rows of the tables that grow."""
    with instance.event_log_storage.index_connection() as connection:
        of_events = sum(
            connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in EVENTS
        )
    with instance.run_storage.connect() as connection:
        runs, tags = (
            connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
            for t in (RunsTable, RunTagsTable)
        )
    return runs, of_events + runs + tags


def megabytes(instance: dg.DagsterInstance, folder: Path) -> float:
    """Size of the database, or of all files."""
    if isinstance(instance.event_log_storage, SqliteEventLogStorage):
        files = [path for path in folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_blocks * 512 for path in files) / 1e6
    with instance.event_log_storage.index_connection() as connection:
        connection.execute(sa.text("VACUUM"))
        size = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
    return float(size) / 1e6


def templates(workspace: Workspace) -> None:
    """One real run of each job."""
    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        runs.refresh_catalog(workspace.specs)
        runs.evaluate([supplier.key for supplier in workspace.config.settings.suppliers], max_relays=0)
        runs.refresh_summaries()


def measure(storage: str, options: argparse.Namespace) -> None:
    """Print the year on one storage."""
    retention = RetentionSettings(runs_days=None) if options.keep else RetentionSettings()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "suppliers": [
                {"address": f"s{n:04}", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
                for n in range(options.suppliers)
            ],
            "tasks": [{"name": "starter_logic", "samples": 20}],
        }
        config = load_config(configuration(Path(folder), settings).path)
        with Workspace(config) as workspace:
            templates(workspace)
        with opened_instance(config) as instance:
            real = {run.job_name: run.run_id for run in instance.get_runs()}
            of_job = {name: Stored(instance, real[name]) for name in (EVALUATION, *SUMMARIES)}
            per_run = {name: len(one.events) for name, one in of_job.items()}
            size = megabytes(instance, config.home)
            print(f"\n{storage}, {size:.0f} MB; rows of events a run: {per_run}")
            print(
                f"{'day':>5}  {'runs':>7}  {'rows':>9}  {'MB':>7}  {'deleted runs':>12}  {'retention s':>11}"
            )
            year, start = Year(instance), datetime.now(UTC) - timedelta(days=options.days)
            for day in range(options.days):
                now = start + timedelta(days=day)
                for hour in range(24):
                    at = now + timedelta(hours=hour)
                    if hour % max(1, 24 // options.evaluations) == 0:
                        year.add(of_job[EVALUATION], at)
                    if hour % max(1, 24 // options.summaries) == 0:
                        for name in SUMMARIES:
                            year.add(of_job[name], at)
                if (day + 1) % STEP_DAYS and day + 1 != options.days:
                    continue
                before, began = newest(instance), time.perf_counter()
                pruned = Pruned()
                if retention.runs_days is not None:
                    pruned = prune_runs(instance, now - timedelta(days=retention.runs_days))
                prune_event_log(instance, now - timedelta(days=retention.events_days))
                seconds = time.perf_counter() - began
                assert newest(instance) == before, "what partitions show has changed"
                runs, stored = counts(instance)
                size = megabytes(instance, config.home)
                deleted = f"{pruned.runs:>8,}  {seconds:>11.1f}"
                print(f"{day + 1:>5}  {runs:>7,}  {stored:>9,}  {size:>7,.0f}  {deleted}", flush=True)


@contextlib.contextmanager
def storages() -> Iterator[list[tuple[str, str | None]]]:
    """SQLite, and PostgreSQL where there is one."""
    with contextlib.ExitStack() as stack:
        found: list[tuple[str, str | None]] = [("SQLite", None)]
        with contextlib.suppress(servers.ServerMissing):
            uri = stack.enter_context(servers.postgres_server())
            found.append(("PostgreSQL", stack.enter_context(servers.postgres_database(uri))))
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=20)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--evaluations", type=int, default=6, help="a day, of everybody")
    parser.add_argument("--summaries", type=int, default=24, help="a day")
    parser.add_argument("--only", choices=["SQLite", "PostgreSQL"], help="one storage alone")
    parser.add_argument("--keep", action="store_true", help="delete no runs")
    options = parser.parse_args()
    for name in ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_HOME", "DAGSTER_HOME"):
        os.environ.pop(name, None)
    with storages() as found:
        for storage, uri in found:
            if options.only not in (None, storage):
                continue
            os.environ.pop(POSTGRES_ENV, None)
            if uri:
                os.environ[POSTGRES_ENV] = uri
            measure(storage, options)


if __name__ == "__main__":
    main()
