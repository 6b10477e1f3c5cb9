"""What it costs to show each supplier its own score in a run over many, and whether the UI then shows it.

    python benchmarks/partitions.py [--suppliers 50 250] [--repeats 3] [--public]

One run of the asset `supplier_scores` over all suppliers, each of whom has other scores, on SQLite and on
PostgreSQL (with a password; skipped where there is no server), with events in batches as `testbench up` has
them. ``shown`` is the time inside the run that goes into metadata of single partitions, in the median, and
``CPU s`` what of it is CPU; ``whole run`` is the wall time with it, ``without`` that of the same run when
nothing of it is added, and ``public call`` what Dagster's own ``add_asset_metadata`` takes for the same. Then
three partitions are asked for by GraphQL, through the webserver's own application: each has to show its own
score.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg

from testbench_dagster.config import load_config
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.evaluation import assets
from testbench_dagster.defs.local_runs import PROCESS_ENVIRONMENT, prepare_home
from testbench_dagster.defs.partitions import SUPPLIER, range_tags
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests import servers
from testbench_dagster_tests.stages.score.facts import Facts, configuration

TARGET_S = 0.1
DOCS = 20
TASK = "starter_logic"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SHOWN = """
query Shown($partition: String!) {
  assetOrError(assetKey: {path: ["supplier_scores"]}) {
    ... on Asset {
      assetMaterializations(partitions: [$partition], limit: 1) {
        partition
        metadataEntries { label ... on FloatMetadataEntry { floatValue } }
      }
    }
  }
}
"""


def score_of(place: int, suppliers: int) -> float:
    """The share of right docs that is stored of a supplier: of neighbours another."""
    return (place * 7 % (DOCS + 1)) / DOCS


def fill(workspace: Workspace, suppliers: int) -> None:
    """Scores of every supplier, as the stages store them."""
    facts = Facts(workspace)
    task, now = facts.registration(TASK, n_docs=DOCS), datetime.now(UTC)
    for place, supplier in enumerate(workspace.config.settings.suppliers):
        right = round(score_of(place, suppliers) * DOCS)
        for doc in range(DOCS):
            facts.score(task, doc, float(doc < right), now, supplier=supplier.key)
            facts.attempt(task, doc, at=now, supplier=supplier.key, text="x")


class Shown:
    """What a run spends on metadata of single partitions."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    @contextlib.contextmanager
    def measured(self, mode: str) -> Iterator[None]:
        """``ours`` as the asset does it, ``public`` by Dagster's own call; ``nothing`` leaves it out."""
        self.seconds = self.cpu_seconds = 0.0
        made, show = assets.scores_shown, assets.show_partitions

        def timed(call: Any, *arguments: Any) -> Any:
            start, cpu = time.perf_counter(), time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - start
                self.cpu_seconds += time.thread_time() - cpu

        def public(context: dg.AssetExecutionContext, shown: Any) -> None:
            for key, metadata in shown.items():
                context.add_asset_metadata(metadata, partition_key=key)

        adding = {"ours": show, "public": public, "nothing": lambda *_: None}[mode]
        making = made if mode != "nothing" else lambda *_: {}
        with (
            mock.patch.object(assets, "scores_shown", lambda *a: timed(making, *a)),
            mock.patch.object(assets, "show_partitions", lambda *a: timed(adding, *a)),
        ):
            yield


def one_run(job: dg.JobDefinition, instance: dg.DagsterInstance, keys: list[str]) -> tuple[float, int]:
    """Wall seconds of a run over everybody without its checks, and how many events it left."""
    start = time.perf_counter()
    done = job.execute_in_process(instance=instance, tags=range_tags(keys[0], keys[-1]), run_config=QUIET)
    seconds = time.perf_counter() - start
    assert done.success
    return seconds, len(instance.all_logs(done.run_id))


def seen_by_graphql(instance: dg.DagsterInstance, keys: list[str]) -> list[float]:
    """The score that the webserver's application gives of each of some partitions."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.testclient import TestClient

    found = []
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        client = TestClient(create_app_from_workspace_process_context(context))
        for key in keys:
            body = {"query": SHOWN, "variables": {"partition": key}}
            answer = client.post("/graphql", json=body).json()
            (event,) = answer["data"]["assetOrError"]["assetMaterializations"]
            assert event["partition"] == key
            values = {entry["label"]: entry.get("floatValue") for entry in event["metadataEntries"]}
            found.append(values["score"])
    return found


def measure(storage: str, suppliers: int, repeats: int, with_public: bool) -> None:
    """Print the row of one storage and size."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "suppliers": [
                {"address": f"s{n:04}", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
                for n in range(suppliers)
            ],
            "tasks": [{"name": TASK, "samples": DOCS}],
        }
        path = configuration(Path(folder), settings).path
        os.environ["DAGSTER_HOME"] = prepare_home(load_config(path))["DAGSTER_HOME"]
        with Workspace(load_config(path)) as workspace, dg.DagsterInstance.get() as instance:
            fill(workspace, suppliers)
            keys = [supplier.key for supplier in workspace.config.settings.suppliers]
            instance.add_dynamic_partitions(SUPPLIER, keys)
            whole = build_definitions(workspace).resolve_job_def("evaluate_suppliers")
            job = whole.get_subset(
                asset_selection={dg.AssetKey("supplier_scores")}, asset_check_selection=set()
            )
            one_run(job, instance, keys)  # caches, and modules on their first use
            shown, times, events = Shown(), {}, {}
            added, cpu = {}, {}
            modes = ["nothing", "ours"] * repeats + ["public"] * with_public
            for mode in modes:
                with shown.measured(mode):
                    wall, n = one_run(job, instance, keys)
                times.setdefault(mode, []).append(wall)
                added.setdefault(mode, []).append(shown.seconds)
                cpu.setdefault(mode, []).append(shown.cpu_seconds)
                events.setdefault(mode, set()).add(n)
            with shown.measured("ours"):
                one_run(job, instance, keys)
            looked = [0, suppliers // 2, suppliers - 1]
            seen = seen_by_graphql(instance, [keys[place] for place in looked])
            assert seen == [score_of(place, suppliers) for place in looked], seen
            assert events["ours"] == events["nothing"], events
            walls = {mode: statistics.median(found) for mode, found in times.items()}
            own, own_cpu = statistics.median(added["ours"]), statistics.median(cpu["ours"])
            public = f"{added['public'][0]:.2f}" if with_public else "–"
            print(
                f"{storage:<10} {suppliers:>9} {own:>8.3f} {own_cpu:>6.3f} {TARGET_S:>7.1f} "
                f"{walls['ours']:>10.2f} {walls['nothing']:>8.2f} {public:>12} {min(events['ours']):>7} "
                f"  {', '.join(f'{score:.2f}' for score in seen)}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, nargs="+", default=[50, 250])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--public", action="store_true", help="also Dagster's own call, which takes minutes")
    chosen = parser.parse_args()
    os.environ |= PROCESS_ENVIRONMENT
    for name in ("TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_HOME", "DAGSTER_POSTGRES_URL"):
        os.environ.pop(name, None)
    print(
        f"{'storage':<10} {'suppliers':>9} {'shown s':>8} {'CPU s':>6} {'target':>7} "
        f"{'whole run':>10} {'without':>8} {'public call':>12} {'events':>7}   three scores"
    )
    for count in chosen.suppliers:
        measure("SQLite", count, chosen.repeats, chosen.public)
    try:
        with servers.postgres_server() as server:
            for count in chosen.suppliers:
                with servers.postgres_database(server) as database:
                    os.environ["DAGSTER_POSTGRES_URL"] = database
                    measure("PostgreSQL", count, chosen.repeats, chosen.public)
    except servers.ServerMissing as why:
        print(f"PostgreSQL: {why}")


if __name__ == "__main__":
    main()
