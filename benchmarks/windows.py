"""What windows and taxonomy summaries cost at 5,000 suppliers and 100 tasks (target: under 60 s together).

    python benchmarks/windows.py [--suppliers 5000] [--tasks 100] [--docs 75] [--pairs 1000]
    python benchmarks/windows.py --states 10 20 40 80 [--tasks 100] [--docs 50]

Two installations are filled with scores as the stages write them. The large one holds what is kept of every
supplier and task: its rows are made from the facts of one supplier and kept under every other's name.
Measured there: all primary windows, the summaries of three taxonomies over all tasks, and storing these. The
small one holds the facts: ``--pairs`` windows of ``--docs`` docs are computed from them, kept and read back.
The peer, in the same run, is how windows were read before: two queries per supplier and task.

``--states`` measures doc states alone, from the facts, at so many suppliers each, in CPU seconds. Of each
supplier's docs one in 20 was answered only in a later run, one in 50 has failed, one in 100 is open, and one
doc of every task is refused to everybody, so that peers are looked at; all are of one service. All suppliers
at once, as after an upgrade, and one of them alone, as after its evaluation: what the latter costs more with
more suppliers makes all of them superlinear. Extrapolated to ``--suppliers`` by the last two sizes.

Set TESTBENCH_MONGO_URI (an empty database) to measure MongoDB instead of the embedded store.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.reliability import calls_of
from testbench_dagster.scoring.rows import Aggregation, task_windows
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.score.clusters import Clusters
from testbench_dagster.stages.score.empty import EmptyScores
from testbench_dagster.stages.score.samples import samples_by_task
from testbench_dagster.stages.score.window_cache import subject
from testbench_dagster.stages.score.windows import (
    MeasuredSupplier,
    deadline_s,
    measured_suppliers,
    primary_windows,
    refresh_window_cache,
    windows,
)
from testbench_dagster.stages.summarize.refresh import configured_taxonomies, summary_records
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES, WINDOWS
from testbench_dagster_tests.growing import register_over_one_dataset

TARGET_S = 60.0
TAXONOMIES = 3
TOGETHER = 250  # suppliers summarized at once, as a run does
NOW = datetime.now(UTC).replace(microsecond=0)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds, and what the call returned."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def prepare(folder: Path, suppliers: int, tasks: int, docs: int, services: int = 5) -> Path:
    """Write the configuration: the roster, the tasks and taxonomies over all of them, ten nodes each."""
    folder.mkdir()
    roster = [
        {"address": f"supplier{i:05}", "service": f"service-{i % services}", "model": f"model-{i % 40}",
         "api": "chat", "base_url": f"https://host{i}.example.com/v1"}
        for i in range(suppliers)
    ]  # fmt: skip
    (folder / "roster.json").write_text(json.dumps({"suppliers": roster, "height": 1}), encoding="utf-8")
    names = [f"task{i:03}" for i in range(tasks)]
    for number in range(TAXONOMIES):
        nodes = {f"node{i}": names[i::10] for i in range(min(10, tasks))}
        tree = {
            "name": f"taxonomy{number}",
            "root": "all",
            "nodes": {"all": {"children": list(nodes)}, **{n: {"tasks": own} for n, own in nodes.items()}},
        }
        (folder / f"taxonomy{number}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    settings = {
        "supplier_sources": [{"file": "roster.json"}],
        "tasks": [{"name": "starter_logic", "alias": name, "samples": docs} for name in names],
        "taxonomies": [f"taxonomy{number}.yaml" for number in range(TAXONOMIES)],
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def register(workspace: Workspace) -> dict[str, Registration]:
    """Register every task over one dataset, and read the roster."""
    registered = register_over_one_dataset(workspace)
    refresh_roster(workspace)
    return {r.task: r for r in registered}


def facts(supplier: str, registration: Registration, docs: int) -> Iterator[tuple[dict, dict]]:
    """The attempt and the score of every doc of a supplier and task."""
    service = supplier.partition("@")[2]
    metric, name = registration.flags.metric_order[0], registration.flags.filters[0]
    for doc in range(docs):
        at = NOW - timedelta(minutes=doc)
        shared = {"supplier": supplier, "service": service, "task": registration.task,
                  "task_hash": registration.task_hash, "epoch": 1, "round": 1, "position": doc,
                  "doc_id": doc, "prompt_id": f"{registration.task}-{doc}", "prompt_tokens": 100,
                  "completion_tokens": 5, "latency_ms": 100.0 + doc}  # fmt: skip
        attempt = document_id("attempt", supplier, registration.task, doc)
        yield (
            {"_id": attempt, **shared, "idx": 0, "repeat": 0, "attempt": 1, "fault": "ok", "owner": None,
             "status": 200, "finished_at": at, "body": b"x" * 500},
            {"_id": document_id("score", attempt), **shared, "filter": name, "answer_id": attempt,
             "answered_at": at, "calls": 1, "scorer_version": scorer_version(registration),
             "metrics": {metric: float(doc % 3 > 0)}, "error": None, "truncated": False,
             "attempt_ids": [attempt], "scored_at": at},
        )  # fmt: skip


def fill_facts(workspace: Workspace, suppliers: list[str], tasks: list[Registration], docs: int) -> None:
    """Store the facts of all pairs."""
    for key in suppliers:
        pairs = [pair for registration in tasks for pair in facts(key, registration, docs)]
        workspace.documents.put_new(ATTEMPTS, (attempt for attempt, _ in pairs))
        workspace.documents.put_new(SCORES, (score for _, score in pairs))


def spread(workspace: Workspace, example: str) -> None:
    """Keep the rows of one supplier under every other's name as well."""
    (kept,) = workspace.documents.find(WINDOWS, {"_id": example})
    suppliers = active_suppliers(workspace)
    for start in range(0, len(suppliers), TOGETHER):
        batch = suppliers[start : start + TOGETHER]
        workspace.documents.upsert(
            WINDOWS,
            (
                {**kept, "_id": s.key, "subject": subject(s, deadline_s(workspace, s))}
                for s in batch
                if s.key != example
            ),
        )


def as_before(workspace: Workspace, tasks: dict[str, Registration]) -> list[Window]:
    """The windows of all suppliers, two queries for each task of each."""
    aggregation = Aggregation(
        lambda spec, *rest: workspace.framework(spec).aggregate(spec, *rest),
        Clusters(workspace.datasets).of,
        EmptyScores(workspace.documents).of,
    )
    found: list[Window] = []
    for supplier in active_suppliers(workspace):
        deadline_ms = deadline_s(workspace, supplier) * 1000
        for spec in workspace.specs:
            registration = tasks[spec.name]
            [(_, read)] = samples_by_task(workspace, supplier, [(spec, registration)], NOW)
            calls = calls_of(read.attempts, deadline_ms)
            found += task_windows(supplier, spec, registration, read.samples, aggregation, calls)
    return found


def summarize(workspace: Workspace) -> int:
    """All summaries, in batches as the runs make them; return how many."""
    taxonomies, made = configured_taxonomies(workspace), 0
    batch: dict[str, MeasuredSupplier] = {}

    def store() -> int:
        records = summary_records(workspace, taxonomies, batch, NOW)
        batch.clear()
        return typed.upsert(workspace.documents, TaxonomySummaryRecord, records)

    for measured in measured_suppliers(workspace, now=NOW):
        batch[measured.supplier] = measured
        if len(batch) == TOGETHER:
            made += store()
    return made + (store() if batch else 0)


def large(folder: Path, suppliers: int, tasks: int, docs: int) -> None:
    """Everything that is kept, read and summarized."""
    with Workspace(load_config(prepare(folder, suppliers, tasks, docs))) as workspace:
        registered = register(workspace)
        example = active_suppliers(workspace)[0].key
        fill_facts(workspace, [example], list(registered.values()), docs)
        refresh_window_cache(workspace, [example], now=NOW)
        filling, _ = timed(lambda: spread(workspace, example))
        read, rows = timed(
            lambda: sum(row.n == docs for _, own in primary_windows(workspace, now=NOW) for row in own)
        )
        assert rows == suppliers * tasks, "every row is a kept one"
        both, made = timed(lambda: summarize(workspace))
        assert made == suppliers * TAXONOMIES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{suppliers} suppliers x {tasks} tasks, all kept (stored in {filling:.1f} s)")
    print(f"  all primary windows                                 {read:7.1f} s")
    print(f"  windows and {made} summaries, stored                {both:7.1f} s   target {TARGET_S:.0f} s")
    print(f"  peak memory                                         {peak:7.0f} MB")


def small(folder: Path, pairs: int, tasks: int, docs: int) -> None:
    """From the facts: as before, as now, kept, and read back."""
    suppliers = max(1, pairs // tasks)
    with Workspace(load_config(prepare(folder, suppliers, tasks, docs))) as workspace:
        registered = register(workspace)
        keys = [s.key for s in active_suppliers(workspace)]
        fill_facts(workspace, keys, list(registered.values()), docs)
        before, old = timed(lambda: as_before(workspace, registered))
        cold, new = timed(lambda: windows(workspace, now=NOW, from_facts=True))
        keeping, _ = timed(lambda: refresh_window_cache(workspace, keys, now=NOW))
        warm, kept = timed(lambda: windows(workspace, now=NOW))
        assert old == new == kept
    print(f"{suppliers * tasks} windows of {docs} docs")
    for label, seconds in (
        ("from the facts, two queries a window (before)", before),
        ("from the facts, two queries a supplier", cold),
        ("computed and kept", keeping),
        ("read as kept", warm),
    ):
        print(f"  {label:<50}  {seconds:7.2f} s   {before / seconds:5.1f}x")


def lives(supplier: str, registration: Registration, docs: int) -> Iterator[tuple[list[dict], dict | None]]:
    """The attempts at every doc of a supplier and task, and the score where it was answered."""
    number = int(supplier.partition("@")[0].removeprefix("supplier"))
    for doc, (attempt, score) in enumerate(facts(supplier, registration, docs)):
        turn = doc + 7 * number
        faults = ["ok"]
        if doc == 0:
            faults = ["client_request"] * 2
        elif turn % 20 == 1:
            faults = ["unavailable", "ok"]
        elif turn % 50 == 2:
            faults = ["unavailable"] * 3
        elif turn % 100 == 3:
            faults = ["transport"]
        made = [
            {**attempt, "_id": f"{attempt['_id']}{run}", "attempt": run + 1, "fault": fault, "lease": run + 1,
             "occasion": run + 1, "canary": False,
             "finished_at": attempt["finished_at"] - timedelta(minutes=2 * (len(faults) - 1 - run))}
            for run, fault in enumerate(faults)
        ]  # fmt: skip
        yield made, score if faults[-1] == "ok" else None


def state_costs(folder: Path, suppliers: int, tasks: int, docs: int) -> tuple[float, float]:
    """CPU seconds of all windows from facts with docs of every state, and of those of one supplier."""
    with Workspace(load_config(prepare(folder, suppliers, tasks, docs, 1))) as workspace:
        registered = register(workspace)
        workspace.documents.upsert(
            PROMPTS,
            (
                {"_id": f"{r.task}-{doc}", "task": r.task, "task_hash": r.task_hash, "epoch": 1,
                 "position": doc, "doc_id": doc, "api": "chat", "calls": 1, "relayable": True,
                 "requests": [{}]}
                for r in registered.values()
                for doc in range(docs)
            ),
        )  # fmt: skip
        keys = [s.key for s in active_suppliers(workspace)]
        for key in keys:
            made = [one for r in registered.values() for one in lives(key, r, docs)]
            workspace.documents.put_new(ATTEMPTS, (attempt for attempts, _ in made for attempt in attempts))
            workspace.documents.put_new(SCORES, (score for _, score in made if score is not None))
        start = time.process_time()
        rows = [row for row in windows(workspace, now=NOW, from_facts=True) if row.primary]
        every = time.process_time() - start
        start = time.process_time()
        windows(workspace, suppliers=keys[:1], now=NOW, from_facts=True)
        one = time.process_time() - start
    states = {
        name: sum(getattr(row, name) for row in rows) for name in ("n_failed", "n_open", "n_void", "n_late")
    }
    assert all(states.values()), states
    assert states["n_void"] == len(rows), "one doc of every task"
    return every, one


def states(folder: Path, sizes: list[int], wanted: int, tasks: int, docs: int) -> None:
    """Doc states at several sizes, and what they come to at the size that is wanted."""
    costs = []
    for suppliers in sizes:
        every, one = state_costs(folder / f"states{suppliers}", suppliers, tasks, docs)
        costs.append((every, one))
        each = 1000 * every / (suppliers * tasks)
        print(
            f"{suppliers:5} suppliers x {tasks} tasks x {docs} docs  all {every:8.2f} s of CPU, "
            f"{each:6.2f} ms a window   one supplier {one:6.2f} s",
            flush=True,
        )
    if len(sizes) < 2:
        return
    (some, more), (low, high) = sizes[-2:], costs[-2:]
    for what, before, after, per in (("all", low[0], high[0], 1), ("one supplier", low[1], high[1], 0)):
        power = math.log(after / before) / math.log(more / some)
        at_size = after * (wanted / more) ** max(power, per)
        print(f"  {what}: grows with the power {power:.2f}; {at_size:,.1f} s of CPU at {wanted} suppliers")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--docs", type=int, default=75)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument(
        "--states", type=int, nargs="*", help="measure doc states from facts at so many suppliers"
    )
    args = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        if args.states:
            states(Path(folder), args.states, args.suppliers, args.tasks, args.docs)
            return
        small(Path(folder) / "small", args.pairs, args.tasks, args.docs)
        if os.environ.get("TESTBENCH_MONGO_URI"):  # one database for both
            with Workspace(load_config(Path(folder) / "small/testbench.yaml")) as workspace:
                for collection in (ATTEMPTS, SCORES, WINDOWS):
                    workspace.documents.purge(collection, {"_id": {"gt": ""}})
        large(Path(folder) / "large", args.suppliers, args.tasks, args.docs)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
