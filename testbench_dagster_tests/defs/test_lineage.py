"""What assets say they read and write is what they do, and the ranking has edges to everything it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.partitions import range_tags
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Collection, DocumentStore, open_documents
from testbench_dagster.stores.documents.collections import ALL
from testbench_dagster_tests.defs.conftest import TASKS, Materialized, starter_settings

#: Every run takes part in these; no asset is about them.
COORDINATION = {"heartbeats", "statements", "leases", "budgets", "paces", "probe_seeds"}
#: The job that runs an asset, in the order in which an installation runs them.
JOBS = {
    "suppliers": "refresh_suppliers",
    "task_datasets": "refresh_catalog",
    "sampled_prompts": "refresh_catalog",
    "relay_responses": "evaluate_suppliers",
    "supplier_scores": "evaluate_suppliers",
    "taxonomy_summaries": "evaluate_suppliers",
    "service_probes": "probe_service",
    "identity_groups": "refresh_identity",
    "leaderboard": "refresh_summaries",
    "supplier_snapshots": "take_snapshots",
}
_CUT = {"changes", "suppliers", "plans", "identity_groups"}  # where a supplier changed
#: What an asset writes only where there is reason to: a change, a chain, a signature, a supplier that joined
#: or was left, one whose turn ended early.
SELDOM = {
    "suppliers": {"heights", "sessions", "plans", "source_losses"},
    "sampled_prompts": {"set_aside", "void_docs"},
    "relay_responses": {"heights", "sessions", "lane_ends", "scores", "signatures", "scorer_outages"},
    "supplier_scores": {"signatures", "splits", "scorer_outages", "references", *_CUT},
    "identity_groups": {"changes", "splits", "suppliers", "plans", "public_gaps"},
    "service_probes": {"heights", "sessions"},
    "leaderboard": {"group_scores"},
}
#: What evaluates its check in the same step.
CHECKS_ITSELF = ("service_probes",)


#: Operations of a document store that change nothing.
READS = ("get", "find", "rows", "count", "group")


class Watched:
    """A document store that notes which collections are read and which are written."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.read: set[str] = set()
        self.written: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            if arguments and isinstance(arguments[0], Collection):
                (self.read if name in READS else self.written).add(arguments[0].name)
            return operation(*arguments, **options)

        return watched


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Touched = dict[str, tuple[set[str], set[str]]]


@pytest.fixture(scope="module")
def touched(localnet: LocalnetProcess, tmp_path_factory: pytest.TempPathFactory) -> Touched:
    """By asset the collections that a run of it alone read and wrote, coordination left out."""
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(starter_settings(localnet, n_docs=4)), encoding="utf-8")
    config = load_config(path)
    config.home.mkdir(parents=True)
    watched = Watched(open_documents(config.home, None))
    found = {}
    with (
        Workspace(config, documents=watched) as workspace,  # type: ignore[arg-type]
        dg.DagsterInstance.ephemeral() as instance,
    ):
        definitions = build_definitions(workspace)
        for asset, name in JOBS.items():
            watched.read.clear()
            watched.written.clear()
            job = definitions.resolve_job_def(name)
            if asset not in CHECKS_ITSELF:
                job = job.get_subset(asset_selection={dg.AssetKey(asset)}, asset_check_selection=set())
            tags = partition_tags(asset, instance)
            assert job.execute_in_process(instance=instance, tags=tags, run_config=QUIET).success
            found[asset] = (watched.read - COORDINATION, watched.written - COORDINATION)
    watched.close()
    return found


def partition_tags(asset: str, instance: dg.DagsterInstance) -> dict[str, str]:
    if asset in ("task_datasets", "sampled_prompts"):
        return range_tags(TASKS[0], TASKS[-1])
    if asset in ("relay_responses", "supplier_scores", "taxonomy_summaries", "service_probes"):
        keys = instance.get_dynamic_partitions("supplier")
        return range_tags(keys[0], keys[-1])
    if asset == "supplier_snapshots":
        return {"dagster/partition": datetime.now(UTC).strftime("%Y-%m-%d")}
    return {}


@pytest.fixture(scope="module")
def graph(materialized: Materialized) -> Any:
    return build_definitions(materialized.workspace).resolve_asset_graph()


def declared(graph: Any, asset: str) -> tuple[set[str], set[str]]:
    """The collections that an asset's definition says it reads and writes."""
    metadata = graph.get(dg.AssetKey(asset)).metadata
    reads = str(metadata["reads"].value).split(", ") if "reads" in metadata else []
    writes = str(metadata["writes"].value).split("; ")
    return set(reads), {write.partition(":")[0] for write in writes}


def test_assets_say_what_they_read_and_write(touched: Touched, graph: Any) -> None:
    known = {collection.name for collection in ALL}
    for asset, (read, written) in touched.items():
        reads, writes = declared(graph, asset)
        if asset == "task_datasets":
            assert writes == {"the dataset store", "set_aside"} and reads == {"set_aside"}
            assert read <= reads and written <= writes
            continue
        assert reads | writes <= known, asset
        assert read <= reads, f"{asset} reads what it does not say"
        assert written <= writes, f"{asset} writes what it does not say"
        assert writes - written <= SELDOM.get(asset, set()), f"{asset} says it writes what it does not"


def test_the_ranking_has_edges_to_all_it_reads(touched: Touched, graph: Any) -> None:
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey("leaderboard")).parent_keys}
    read, _ = touched["leaderboard"]
    assert {"suppliers", "attempts", "scores", "taxonomy_summaries", "identity_groups"} <= read
    for collection in sorted(read):
        writers = {parent for parent in parents if collection in declared(graph, parent)[1]}
        assert writers, f"no edge leads to what writes {collection}"
    assert "task_datasets" in parents, "windows name the registered task"


def test_what_is_written_on_the_side_is_in_the_lineage(materialized: Materialized, graph: Any) -> None:
    expected = {
        "supplier_plans": {"relay_responses", "taxonomy_summaries"},
        "detected_changes": {"supplier_scores", "identity_groups"},
    }
    for name, writers in expected.items():
        node = graph.get(dg.AssetKey(name))
        assert node.is_external and node.is_observable is False
        assert {key.to_user_string() for key in node.parent_keys} == writers
    plans = observed(materialized.instance, "supplier_plans")
    assert (plans["plans_cached"], plans["plans_due"]) == (4, 0)
    assert plans["next_due_at"] > datetime.now(UTC).timestamp()
    assert observed(materialized.instance, "detected_changes") == {"changes": 0, "cuts": 0}


def observed(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    """Metadata of the newest observation of an external asset."""
    records = instance.fetch_observations(dg.AssetKey(asset), limit=1).records
    observation = records[0].asset_observation
    assert observation is not None
    return {name: value.value for name, value in observation.metadata.items()}


# ----------------------------------------------------------------------------------- when it is refreshed


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """Of an installation that nothing runs in; only events are reported to its instance."""
    monkeypatch.chdir(tmp_path)
    return build_definitions()


def test_the_ranking_follows_new_summaries_and_waits_for_nothing_else(definitions: dg.Definitions) -> None:
    """Where nobody relays, neither groups nor scores are new; samples that grew old leave it all the same."""
    start = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", ["a", "b"])

        def evaluated(minutes: int, cursor: Any = None) -> Any:
            return dg.evaluate_automation_conditions(
                definitions, instance, evaluation_time=start + timedelta(minutes=minutes), cursor=cursor
            )

        def asked_for(result: Any) -> set[str]:
            return {
                key.to_user_string()
                for key in (dg.AssetKey("leaderboard"), dg.AssetKey("identity_groups"))
                if result.get_num_requested(key)
            }

        first = evaluated(0)
        tick = evaluated(31, first.cursor)
        assert asked_for(first) == asked_for(tick) == set(), "nothing is new"
        for asset, then in (("relay_responses", {"identity_groups"}), ("supplier_scores", set())):
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition="a"))
            tick = evaluated(33, tick.cursor)
            assert asked_for(tick) == then, asset
        instance.report_runless_asset_event(dg.AssetMaterialization("taxonomy_summaries", partition="b"))
        tick = evaluated(35, tick.cursor)
        assert asked_for(tick) == {"leaderboard"}
        # speeds and uptime stand in it: they are news on the next hour
        instance.report_runless_asset_event(dg.AssetMaterialization("leaderboard"))
        tick = evaluated(37, tick.cursor)
        instance.report_runless_asset_event(dg.AssetMaterialization("service_probes", partition="a"))
        tick = evaluated(40, tick.cursor)
        assert asked_for(tick) == set()
        assert asked_for(evaluated(95, tick.cursor)) == {"leaderboard"}
