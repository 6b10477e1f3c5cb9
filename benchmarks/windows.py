"""What windows and taxonomy summaries cost at 5,000 suppliers and 100 tasks (target: under 60 s together).

    python benchmarks/windows.py [--suppliers 5000] [--tasks 100] [--docs 75] [--pairs 1000]

Two installations are filled with scores as the stages write them. The large one holds what is kept of every
supplier and task: its rows are made from the facts of one supplier and kept under every other's name.
Measured there: all primary windows, the summaries of three taxonomies over all tasks, and storing these. The
small one holds the facts: ``--pairs`` windows of ``--docs`` docs are computed from them, kept and read back.
The peer, in the same run, is how windows were read before: two queries per supplier and task.

Set TESTBENCH_MONGO_URI (an empty database) to measure MongoDB instead of the embedded store.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.reliability import calls_of
from testbench_dagster.scoring.rows import Aggregation, task_windows
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.sample.catalogue import refresh_dataset
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
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES, WINDOWS

TARGET_S = 60.0
TAXONOMIES = 3
TOGETHER = 250  # suppliers summarized at once, as a run does
NOW = datetime.now(UTC).replace(microsecond=0)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds, and what the call returned."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def prepare(folder: Path, suppliers: int, tasks: int, docs: int) -> Path:
    """Write the configuration: the roster, the tasks and taxonomies over all of them, ten nodes each."""
    folder.mkdir()
    roster = [
        {"address": f"supplier{i:05}", "service": f"service-{i % 5}", "model": f"model-{i % 40}",
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
    registered, _ = refresh_dataset(workspace, workspace.specs[0])
    docs = list(workspace.datasets.docs(registered.task_hash))
    shots = workspace.datasets.fewshot(registered.task_hash)
    for spec in workspace.specs:
        workspace.datasets.register(
            replace(registered, task=spec.name),
            iter(docs),
            (StoredDoc(d.doc_id, d.body, d.doc_hash) for d in shots),
        )
    refresh_roster(workspace)
    return {r.task: r for r in workspace.datasets.tasks()}


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--docs", type=int, default=75)
    parser.add_argument("--pairs", type=int, default=1000)
    args = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        small(Path(folder) / "small", args.pairs, args.tasks, args.docs)
        if os.environ.get("TESTBENCH_MONGO_URI"):  # one database for both
            with Workspace(load_config(Path(folder) / "small/testbench.yaml")) as workspace:
                for collection in (ATTEMPTS, SCORES, WINDOWS):
                    workspace.documents.purge(collection, {"_id": {"gt": ""}})
        large(Path(folder) / "large", args.suppliers, args.tasks, args.docs)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
