"""What a tick of each sensor costs in CPU seconds, and a run's look at roster and plans (target: 4 s a tick).

    python benchmarks/sensors.py [--suppliers 50000] [--tasks 20]

The installation is real: a roster file, registered tasks with their prompts, a kept plan over all tasks
per supplier, and as many partitions in a Dagster instance. All suppliers join by ticks of ``new_suppliers``,
at the end some leave. Set TESTBENCH_MONGO_URI, TESTBENCH_POSTGRES_URI and DAGSTER_POSTGRES_URL (empty
databases) to measure servers instead of the embedded stores: what these spend is not counted.

The peer, measured in the same run, is the least any sensor over supplier partitions does: read the partition
keys from the instance.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.registration import StoredDoc
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.stages.discover.roster import active_suppliers, named_suppliers
from testbench_dagster.stages.plan.plan_cache import settings_fingerprint, supplier_fingerprint
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import current_epoch, prompt_filter, refresh_dataset
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import PLANS, PROMPTS

TARGET_S = 4.0
EVERY_S = 60  # of new_suppliers by default
LEAVING, OF_A_RUN = 1000, 50
DOCS = 100


def timed(action: Callable[[], object], repeats: int = 3) -> tuple[float, object]:
    """Median CPU seconds of this process, and what the last call returned."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = action()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def write_roster(folder: Path, suppliers: int) -> None:
    """List so many suppliers."""
    roster = [
        {"address": f"supplier{i:05}", "service": f"service-{i % 5}", "model": f"model-{i % 40}",
         "api": "chat" if i % 3 else "completions", "base_url": f"https://host{i}.example.com/v1"}
        for i in range(suppliers)
    ]  # fmt: skip
    (folder / "roster.json").write_text(json.dumps({"suppliers": roster, "height": 1}), encoding="utf-8")


def prepare(folder: Path, suppliers: int, tasks: int) -> Path:
    """Write the configuration and the roster."""
    write_roster(folder, suppliers)
    settings = {
        "roster": {"grace_hours": 0},
        "supplier_sources": [{"file": "roster.json"}],
        "tasks": [{"name": "starter_logic", "alias": f"task{i:03}"} for i in range(tasks)],
        "budget": {"relays_per_day": 1_000_000, "relays_per_supplier_hour": 1000},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def register(workspace: Workspace) -> None:
    """Register every task with its prompts."""
    first = workspace.specs[0]
    registered, _ = refresh_dataset(workspace, first)
    docs = list(workspace.datasets.docs(registered.task_hash))
    shots = workspace.datasets.fewshot(registered.task_hash)
    for spec in workspace.specs:
        registration = replace(registered, task=spec.name)
        workspace.datasets.register(
            registration, iter(docs), (StoredDoc(d.doc_id, d.body, d.doc_hash) for d in shots)
        )
        epoch = current_epoch(workspace, spec).epoch
        for api in ("chat", "completions"):
            workspace.documents.put_new(
                PROMPTS,
                [
                    {"_id": f"{spec.name}-{api}-{i}", **prompt_filter(registration, epoch, api),
                     "position": i, "doc_id": i, "doc_hash": "", "calls": 1, "relayable": True,
                     "requests": []}
                    for i in range(DOCS)
                ],
            )  # fmt: skip


def plan(workspace: Workspace) -> None:
    """Keep a plan per supplier."""
    now = datetime.now(UTC)
    fingerprint = settings_fingerprint(workspace)
    decisions = {
        s.name: {"state": "fresh", "reason": "all 100 wanted docs are fresh", "calls": 0, "due_at": now}
        for s in workspace.specs
    }
    workspace.documents.upsert(
        PLANS,
        [
            {"_id": s.key, "service": s.service, "planned_at": now, "due_at": now + timedelta(days=9),
             "due_height": None, "due_calls": 0, "failures": 0, "problem": None,
             "fingerprint": supplier_fingerprint(fingerprint, s), "tasks": decisions}
            for s in active_suppliers(workspace)
        ],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=50_000)
    parser.add_argument("--tasks", type=int, default=20)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = prepare(folder, args.suppliers, args.tasks)
        os.environ["TESTBENCH_CONFIG"] = str(path)
        with Workspace(load_config(path)) as workspace:
            register(workspace)
        instance = stack.enter_context(opened_instance(load_config(path)))
        repository = build_definitions().get_repository_def()

        def tick(name: str, cursor: str | None = None) -> dg.SensorResult:
            """One tick as the code server runs it: the installation is opened anew."""
            with Workspace.open(path) as workspace:
                context = dg.build_sensor_context(
                    instance=instance,
                    repository_def=repository,
                    cursor=cursor,
                    resources={"workspace": workspace},
                )
                result = repository.get_sensor_def(name)(context)
            assert isinstance(result, dg.SensorResult)
            return result

        def show(label: str, name: str, cursor: str | None = None) -> None:
            seconds, result = timed(lambda: tick(name, cursor))
            assert isinstance(result, dg.SensorResult)
            requests = len(result.run_requests or ())
            print(f"{label:<38}  {seconds:>7.2f}  {seconds / peer:>7.0f}  {requests:>8}", flush=True)

        print(
            f"{args.suppliers} suppliers x {args.tasks} tasks, CPU seconds, target {TARGET_S:.0f} s a tick\n"
        )
        joining(tick, instance, args.suppliers)
        with Workspace(load_config(path)) as workspace:
            plan(workspace)
            keys = [s.key for s in active_suppliers(workspace)]
        peer, _ = timed(lambda: instance.get_dynamic_partitions("supplier"))
        print(f"reading the partition keys: {peer:.3f} s\n")
        print(f"{'tick':<38}  {'s':>7}  {'x peer':>7}  {'requests':>8}")
        show("new_suppliers, nothing new, reported", "new_suppliers")
        cursor = tick("new_suppliers").cursor
        show("new_suppliers, nothing new", "new_suppliers", cursor)
        for name in ("stale_catalog", "lost_runs"):
            show(f"{name}, nothing new", name)
        show("stale_scores, nothing due", "stale_scores")
        past = datetime.now(UTC) - timedelta(hours=1)
        with Workspace(load_config(path)) as workspace:
            for key in keys[:: max(1, len(keys) // 250)]:
                workspace.documents.claim(PLANS, {"_id": key}, {"due_at": past})
        show("stale_scores, 250 scattered due", "stale_scores")
        of_a_run(path, keys[:OF_A_RUN])
        leaving(tick, instance, folder, args.suppliers, cursor)
        with Workspace(load_config(path)) as workspace:
            workspace.documents.purge(PLANS, {"_id": {"in": keys}})
        show("stale_scores, everybody due", "stale_scores")


def joining(tick: Callable[..., dg.SensorResult], instance: dg.DagsterInstance, suppliers: int) -> None:
    """Have all suppliers join; print what that took, and how fast first evaluations are requested."""
    cursor, costs, runs = None, [], []
    while len(instance.get_dynamic_partitions("supplier")) < suppliers:
        start = time.process_time()
        result = tick("new_suppliers", cursor)
        costs.append(time.process_time() - start)
        cursor = result.cursor
        runs.append(len(result.run_requests or ()))
    print(
        f"new_suppliers, joining: {len(costs)} ticks ({len(costs) * EVERY_S / 60:.0f} min) until all have "
        f"partitions, up to {max(runs)} first evaluations requested at each; "
        f"median {statistics.median(costs):.2f} s, most {max(costs):.2f} s",
        flush=True,
    )


def leaving(
    tick: Callable[..., dg.SensorResult],
    instance: dg.DagsterInstance,
    folder: Path,
    suppliers: int,
    cursor: str | None,
) -> None:
    """Have some leave while a run of others is under way, until their partitions are gone."""
    first = str(instance.get_dynamic_partitions("supplier")[0])
    job = build_definitions().resolve_job_def("evaluate_suppliers")
    run = instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": first}
    )
    write_roster(folder, suppliers - LEAVING)
    costs = []
    while len(instance.get_dynamic_partitions("supplier")) > suppliers - LEAVING:
        start = time.process_time()
        result = tick("new_suppliers", cursor)
        costs.append(time.process_time() - start)
        for request in result.dynamic_partitions_requests or ():  # what the daemon does with them
            for key in request.partition_keys:
                instance.delete_dynamic_partition("supplier", key)
    instance.report_run_canceled(run)
    print(
        f"new_suppliers, {LEAVING} leave: {len(costs)} ticks until their partitions are gone; "
        f"most {max(costs):.2f} s"
    )


def of_a_run(path: Path, keys: list[str]) -> None:
    """What a run reads of roster and plans: by its suppliers alone."""
    with Workspace(load_config(path)) as workspace:

        def look() -> None:
            Planner(workspace).look_up(keys)
            assert len(named_suppliers(workspace, keys)) == len(keys)

        seconds, _ = timed(look)
    print(f"a run of {len(keys)} reads roster, plans and groups: {seconds:.3f} s")


if __name__ == "__main__":
    main()
