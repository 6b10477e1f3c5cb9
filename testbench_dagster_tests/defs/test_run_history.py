"""Old runs go; partition statuses, newest materializations and check results are as before."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.testclient import TestClient

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs import run_history
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.run_history import prune_runs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.defs.test_event_log import opened

suppliers = dg.DynamicPartitionsDefinition(name="supplier")
FAILS = "fails"


@dg.asset(partitions_def=suppliers, backfill_policy=dg.BackfillPolicy.single_run())
def answers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """One materialization per supplier; one supplier fails."""
    if FAILS in context.partition_keys:
        raise ValueError("this one never works")
    for key in context.partition_keys:
        context.log_event(dg.AssetObservation("answers", partition=key))
    return dg.MaterializeResult(metadata={"run": context.run.run_id})


@dg.asset(deps=[answers])
def board(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """No partitions; knows which materializations it came of."""
    return dg.MaterializeResult(metadata={"run": context.run.run_id})


@dg.asset_check(asset=board)
def board_is_fine() -> dg.AssetCheckResult:
    """Passes."""
    return dg.AssetCheckResult(passed=True)


defs = dg.Definitions([answers, board], asset_checks=[board_is_fine])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SHOWN = """
{
  assetNodes {
    assetKey { path }
    partitionStats { numMaterialized numFailed numMaterializing numPartitions }
    assetPartitionStatuses {
      ... on DefaultPartitionStatuses { materializedPartitions failedPartitions materializingPartitions }
    }
    latestMaterializationByPartition {
      runId partition timestamp tags { key value } runOrError { __typename }
      metadataEntries { label ... on TextMetadataEntry { text } }
    }
    assetMaterializations(limit: 1) { runId partition timestamp }
    dependencyKeys { path }
    staleStatus
    assetChecksOrError {
      ... on AssetChecks { checks { name executionForLatestMaterialization { status runId timestamp } } }
    }
  }
}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(run_history, "_RUNS", 2)
    monkeypatch.setattr(run_history, "_LISTED", 3)
    monkeypatch.setattr(run_history, "_IDS", 3)
    url = request.getfixturevalue("postgres_database_uri") if request.param == "postgresql" else None
    with opened(tmp_path, url) as made:
        made.add_dynamic_partitions("supplier", ["a", "b", "c", FAILS, "gone"])
        yield made


def relayed(instance: dg.DagsterInstance, first: str, last: str) -> str:
    """One run over a range of suppliers."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    if first == last:
        tags = {"dagster/partition": first}
    done = dg.materialize([answers], instance=instance, tags=tags, raise_on_error=False, run_config=QUIET)
    return done.run_id


def ranked(instance: dg.DagsterInstance) -> str:
    return dg.materialize([board, board_is_fine], instance=instance, run_config=QUIET).run_id


def shown(instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """What the webserver's own application tells of the assets."""
    instance.wipe_asset_cached_status([answers.key, board.key])
    target = PythonFileTarget(__file__, "defs", None, None)
    with WorkspaceProcessContext(instance, target) as context:
        client = TestClient(create_app_from_workspace_process_context(context))
        answer = client.post("/graphql", json={"query": SHOWN}).json()
    assert "errors" not in answer, answer
    found: list[dict[str, Any]] = answer["data"]["assetNodes"]
    return found


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=2)


def ids(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_run_ids())


def size(instance: dg.DagsterInstance) -> dict[str, int]:
    """Rows of each table that grows, and files."""
    storage = instance.event_log_storage
    counts = {}
    with storage.index_connection() as connection:  # type: ignore[attr-defined]
        for table in ("event_logs", "asset_event_tags", "asset_check_executions"):
            counts[table] = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        for table in ("runs", "run_tags", "bulk_actions", "backfill_tags", "snapshots"):
            counts[table] = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
    if isinstance(storage, SqliteEventLogStorage):
        counts["files"] = len(list(Path(storage.path_for_shard("x")).parent.iterdir()))
    return counts


@pytest.mark.slow(minutes=1)
def test_what_is_shown_of_partitions_stays_and_superseded_runs_go(instance: dg.DagsterInstance) -> None:
    first = relayed(instance, "a", "c")
    alone = relayed(instance, "a", "a")
    superseded = relayed(instance, "b", "b")
    relayed_last = relayed(instance, "b", "b")
    failed = relayed(instance, FAILS, FAILS)
    old_board, new_board = ranked(instance), ranked(instance)
    going_on = create_run_for_test(instance, job_name="other", status=dg.DagsterRunStatus.STARTED).run_id
    waiting = create_run_for_test(instance, job_name="other", status=dg.DagsterRunStatus.NOT_STARTED).run_id
    nothing = create_run_for_test(instance, job_name="other", status=dg.DagsterRunStatus.SUCCESS).run_id
    before, stored = shown(instance), size(instance)
    by_name = {node["assetKey"]["path"][0]: node for node in before}
    statuses = by_name["answers"]["assetPartitionStatuses"]
    assert statuses["materializedPartitions"] == ["a", "b", "c"]
    assert statuses["failedPartitions"] == [FAILS]

    pruned = prune_runs(instance, datetime.now(UTC) - timedelta(days=1))
    assert (pruned.runs, pruned.rows) == (0, 0) and size(instance) == stored, "young runs stay as they are"
    pruned = prune_runs(instance, later())

    assert shown(instance) == before
    assert ids(instance) == {first, alone, relayed_last, failed, new_board, going_on, waiting}
    assert not {superseded, old_board, nothing} & ids(instance)
    assert pruned.runs == 3 and pruned.rows > 0
    left = size(instance)
    assert all(left[table] <= stored[table] for table in left)
    assert left["event_logs"] < stored["event_logs"] and left["run_tags"] < stored["run_tags"]
    of_first = {
        event.dagster_event.partition
        for event in instance.all_logs(first, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        if event.dagster_event
    }
    assert of_first == {"c"}, "of a run that stays only what is shown"
    again = prune_runs(instance, later())
    assert (again.runs, again.rows) == (0, 0)

    assert shown(instance) == before
    relayed(instance, "a", "c")
    assert prune_runs(instance, later()).runs == 3, "first, alone and relayed_last are superseded now"


@pytest.mark.slow
def test_of_partitions_that_are_no_more_nothing_stays(instance: dg.DagsterInstance) -> None:
    run_id = relayed(instance, "gone", "gone")
    kept = relayed(instance, "a", "a")
    dynamic = {"supplier": [answers.key]}
    assert prune_runs(instance, later(), dynamic).runs == 0
    shown(instance)  # which caches the status
    instance.delete_dynamic_partition("supplier", "gone")
    assert prune_runs(instance, later()).runs == 0, "nobody said whose partitions they are"
    assert prune_runs(instance, later(), dynamic).runs == 1
    assert ids(instance) == {kept} and run_id not in ids(instance)
    instance.add_dynamic_partitions("supplier", ["gone"])
    (node,) = [node for node in shown(instance) if node["assetKey"]["path"] == ["answers"]]
    assert node["assetPartitionStatuses"]["materializedPartitions"] == ["a"], "one that returns begins anew"


def backfill(instance: dg.DagsterInstance, id_: str, status: BulkActionStatus) -> None:
    """A backfill of two suppliers."""
    made = PartitionBackfill.from_asset_partitions(
        backfill_id=id_,
        asset_graph=defs.resolve_asset_graph(),
        partition_names=["a", "b"],
        asset_selection=[answers.key],
        backfill_timestamp=(datetime.now(UTC) - timedelta(days=2)).timestamp(),
        tags={"of": id_},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=id_,
        description=None,
        run_config=None,
    )
    instance.add_backfill(made.with_status(status))


@pytest.mark.slow
def test_backfills_that_go_on_keep_their_runs_and_ended_ones_go_with_theirs(
    instance: dg.DagsterInstance,
) -> None:
    backfill(instance, "goes-on", BulkActionStatus.REQUESTED)
    backfill(instance, "ended", BulkActionStatus.COMPLETED_SUCCESS)
    done = dg.DagsterRunStatus.SUCCESS
    needed = create_run_for_test(instance, status=done, tags={"dagster/backfill": "goes-on"}).run_id
    create_run_for_test(instance, status=done, tags={"dagster/backfill": "ended"})
    assert prune_runs(instance, datetime.now(UTC) - timedelta(days=1)).backfills == 0, "it has a run yet"
    pruned = prune_runs(instance, later())
    assert (pruned.runs, pruned.backfills) == (1, 1)
    assert ids(instance) == {needed}
    assert [one.backfill_id for one in instance.get_backfills()] == ["goes-on"]
    counts = size(instance)
    assert counts["bulk_actions"] == 1 and counts["backfill_tags"] == 1


@pytest.mark.slow
def test_the_size_is_that_of_the_partitions_not_of_the_time(instance: dg.DagsterInstance) -> None:
    sizes = []
    for _ in range(2):
        for _ in range(2):
            relayed(instance, "a", "b")
        ranked(instance)
        prune_runs(instance, later())
        sizes.append(size(instance))
    assert sizes[0] == sizes[1], sizes


def test_compute_logs_of_runs_go_with_them(tmp_path: Path) -> None:
    with opened(tmp_path, None) as made:
        run_id = create_run_for_test(made, status=dg.DagsterRunStatus.SUCCESS).run_id
        manager = made.compute_log_manager
        with manager.open_log_stream([run_id, "compute_logs", "step"], dg_io_type()) as stream:
            assert stream is not None
            stream.write("said")
        (folder,) = (path for path in tmp_path.rglob(run_id) if path.is_dir())
        assert prune_runs(made, later()).runs == 1
        assert not folder.exists()
        assert not list(tmp_path.rglob(f"{run_id}.db*"))


def dg_io_type() -> Any:
    from dagster._core.storage.compute_log_manager import ComputeIOType

    return ComputeIOType.STDOUT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "kept"), [({"runs_days": 1e-6}, {"a@external"}), ({"runs_days": None}, None)]
)
def test_the_job_deletes_as_the_setting_says_and_knows_whose_partitions_are_no_more(
    open_workspace: Callable[..., Workspace], setting: dict[str, Any], kept: set[str] | None
) -> None:
    workspace = open_workspace({"address": "a"}, retention=setting)
    job = build_definitions(workspace).resolve_job_def("apply_retention")
    everybody = {"a@external", "left@external"}
    with opened_instance(workspace.config) as made:
        made.add_dynamic_partitions("supplier", sorted(everybody))
        asset = dg.AssetKey("supplier_scores")
        runs = {}
        for key in sorted(everybody):
            run = create_run_for_test(made, status=dg.DagsterRunStatus.SUCCESS)
            event = dg.AssetMaterialization(asset, partition=key)
            made.report_dagster_event(materialized_by(event), run.run_id)
            runs[key] = run.run_id
        made.delete_dynamic_partition("supplier", "left@external")
        time.sleep(1)
        assert job.execute_in_process(instance=made, run_config=QUIET).success
        assert made.get_materialized_partitions(asset) == (everybody if kept is None else kept)
        assert {key for key, run_id in runs.items() if made.has_run(run_id)} == (kept or everybody)


def materialized_by(event: dg.AssetMaterialization) -> Any:
    """The event of a run's step that materialized something."""
    from dagster._core.events import DagsterEvent, StepMaterializationData

    return DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="evaluate",
        event_specific_data=StepMaterializationData(event),
    )


def test_an_instant_without_a_zone_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, None) as made, pytest.raises(ValueError, match="no time zone"):
        prune_runs(made, datetime(2026, 1, 1))


def test_another_kind_of_storage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, None) as made:
        monkeypatch.setattr(made, "_event_storage", object())
        with pytest.raises(TestbenchError, match="old runs of a object cannot be deleted"):
            prune_runs(made, later())
        monkeypatch.undo()
