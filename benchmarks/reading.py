"""What reading costs that people wait for: pages of answers, history, and an export of answers.

    python benchmarks/reading.py [--docs 12000] [--days 365] [--tasks 100] [--suppliers 8]

Pages of 50 docs of a task of 200 docs and of one of ``--docs``, from what is cached beside the windows; the
peer, in the same run, is the same page from the facts. All answers of ``--suppliers`` as parquet. The size of
a snapshot of ``--tasks`` tasks and 30 abilities, as BSON and in the store, with what 5,000 suppliers take in
a year (target 8 GB), and how long a supplier's ``--days`` take to read.

Set TESTBENCH_MONGO_URI (an empty database) to measure MongoDB instead of the embedded store.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import orjson
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.ids import attempt_document_id
from testbench_dagster.core.records.rankings import SupplierSnapshotRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.snapshot_rows import SnapshotRow, pack_rows
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.publish.export import write_answers
from testbench_dagster.stages.read.answers import answers, every_answer
from testbench_dagster.stages.read.history import history
from testbench_dagster.stages.sample.catalogue import refresh_dataset
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES, WINDOW_ANSWERS

TARGET_GB, NETWORK = 8.0, 5_000
NOW = datetime.now(UTC).replace(microsecond=0)
SHOTS = "".join(f"Question: How many are {i} and {i}?\nAnswer: {2 * i}\n\n" for i in range(5))


def prepare(folder: Path, suppliers: int, small: int, large: int) -> Path:
    """Write the configuration: two tasks, and suppliers of one service."""
    settings = {
        "suppliers": [
            {"address": f"s{i:03}", "base_url": "http://127.0.0.1:9/v1", "model": f"model-{i % 5}"}
            for i in range(suppliers)
        ],
        "tasks": [{"name": "starter_logic", "alias": name, "samples": "all"} for name in ("small", "large")],
        "sampling": {"window": max(small, large)},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def register(workspace: Workspace, sizes: dict[str, int]) -> dict[str, Registration]:
    """Register both tasks with so many docs."""
    registered, _ = refresh_dataset(workspace, workspace.specs[0])
    for name, n in sizes.items():
        docs = (StoredDoc(i, f'{{"n": {i}}}', f"{i:064x}") for i in range(n))
        task = replace(
            registered, task=name, task_hash=f"{name:0<40}", n_docs=n, splits={"test": n}, n_fewshot=0
        )
        workspace.datasets.register(task, docs, iter(()))
    return {r.task: r for r in workspace.datasets.tasks()}


def facts(supplier: str, registration: Registration) -> Iterator[tuple[dict, dict, dict]]:
    """Prompt, attempt and score of every doc of a supplier and task, a third of them wrong."""
    service = supplier.partition("@")[2]
    metric, name = registration.flags.metric_order[0], registration.flags.filters[0]
    version = scorer_version(registration)
    for doc in range(registration.n_docs):
        at, prompt = NOW - timedelta(seconds=doc), document_id("prompt", registration.task, doc)
        shared = {"supplier": supplier, "service": service, "task": registration.task,
                  "task_hash": registration.task_hash, "epoch": 1, "round": 1, "position": doc,
                  "doc_id": doc, "prompt_id": prompt, "prompt_tokens": 300, "completion_tokens": 60,
                  "latency_ms": 800.0}  # fmt: skip
        text = "First I add what is given, then I look at it again. " * 5 + f"The answer is {doc}."
        body = orjson.dumps({"id": "x" * 24, "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 300, "completion_tokens": 60}})  # fmt: skip
        attempt = attempt_document_id(supplier, prompt, 1, 0, 0, 1)
        messages = [{"role": "user", "content": f"{SHOTS}How many are {doc} and 0?"}]
        question = {
            "type": "generate_until",
            "idx": 0,
            "generation": {"until": ["\n\n"]},
            "messages": messages,
        }
        yield (
            {"_id": prompt, "task": registration.task, "task_hash": registration.task_hash, "epoch": 1,
             "api": "chat", "position": doc, "doc_id": doc, "doc_hash": "d", "calls": 1,
             "relayable": True, "requests": [question], "target": str(doc), "context_chars": 300,
             "created_at": at, "repeats": 1},
            {"_id": attempt, **shared, "idx": 0, "repeat": 0, "attempt": 1, "occasion": 1, "canary": False,
             "fault": "ok", "owner": "none", "classifier": 3, "status": 200, "finished_at": at,
             "started_at": at, "body": body, "body_bytes": len(body), "body_truncated": False,
             "error": None,
             "finish_reason": "stop", "first_byte_ms": None, "first_token_ms": None, "evidence": {},
             "payload_sha256": None, "session_start": None, "session_end": None},
            {"_id": document_id("score", attempt, name, version), **shared, "filter": name,
             "answer_id": attempt, "answered_at": at, "calls": 1, "scorer_version": version,
             "metrics": {metric: float(doc % 3 > 0)}, "error": None, "extracted": str(doc),
             "truncated": False, "attempt_ids": [attempt], "scored_at": at},
        )  # fmt: skip


def fill(workspace: Workspace, supplier: str, registration: Registration) -> None:
    """Store the facts of a supplier and task."""
    made = list(facts(supplier, registration))
    for place, collection in enumerate((PROMPTS, ATTEMPTS, SCORES)):
        workspace.documents.put_new(collection, (one[place] for one in made))


def milliseconds(action: Callable[[], Any], times: int) -> tuple[float, float, float]:
    """Of a warm call the median of CPU milliseconds, and median and 95th percentile of wall ones."""
    action()
    cpu, wall = [], []
    for _ in range(times):
        start, before = time.perf_counter(), time.process_time()
        action()
        cpu.append((time.process_time() - before) * 1000)
        wall.append((time.perf_counter() - start) * 1000)
    return statistics.median(cpu), statistics.median(wall), sorted(wall)[int(len(wall) * 0.95)]


def pages(workspace: Workspace, supplier: str) -> None:
    """Print what a page costs, cached and from the facts."""
    print("| page of 50 docs, ms | cached, CPU | wall, median | wall, p95 | from the facts, CPU | ratio |")
    print("|---|---|---|---|---|---|")
    cases: dict[str, dict[str, Any]] = {
        "all": {},
        "wrong": {"kind": "wrong"},
        "different from peers": {"kind": "different"},
        "a text in all docs": {"search": "answer is"},
    }
    for task in ("small", "large"):
        n = workspace.datasets.current(task).n_docs
        for name, chosen in cases.items():

            def page(task: str = task, chosen: dict[str, Any] = chosen) -> Any:
                return answers(workspace, supplier, task, **chosen)

            cpu, median, late = milliseconds(page, 30)
            kept = list(workspace.documents.find(WINDOW_ANSWERS))
            workspace.documents.purge(WINDOW_ANSWERS, {"supplier": supplier})
            peer, _, _ = milliseconds(page, 3)
            workspace.documents.upsert(WINDOW_ANSWERS, kept)
            print(
                f"| {name}, task of {n:,} docs | {cpu:.1f} | {median:.1f} | {late:.1f} | {peer:.1f} "
                f"| {peer / cpu:.1f}× |"
            )


def snapshot(supplier: str, day: str, tasks: int) -> SupplierSnapshotRecord:
    """A snapshot with scores, intervals and latencies that do not repeat."""
    seed = int(day.replace("-", "")) + sum(map(ord, supplier))
    rows = []
    for i in range(tasks + 30):
        n = 50 + (seed * 7 + i * 31) % 150
        right = (seed * 13 + i * 97) % (n + 1)
        low, high = wilson(right, n)
        latency = 300.0 + (seed * 17 + i * 7919) % 100_003 / 31
        of_task = i < tasks
        rows.append(
            SnapshotRow(
                task=f"leaderboard_subject_{i * 7919 % 997}" if of_task else None,
                taxonomy=None if of_task else "general",
                node=None if of_task else f"ability {i}",
                metric="exact_match" if of_task else None,
                filter="strict-match" if of_task else None,
                score=right / n,
                ci_low=low,
                ci_high=high,
                n=n,
                n_failed=i % 5,
                p50_ms=latency if of_task else None,
                p95_ms=latency * 3.1 if of_task else None,
            )
        )
    return SupplierSnapshotRecord(
        id=document_id("snapshot", supplier, day),
        supplier=supplier,
        day=day,
        taken_at=NOW,
        rows=pack_rows(rows),
    )


def snapshots(workspace: Workspace, folder: Path, supplier: str, days: int, tasks: int) -> None:
    """Print the size of snapshots, and what a supplier's take to read."""
    made = [snapshot(supplier, (NOW.date() - timedelta(days=d)).isoformat(), tasks) for d in range(days)]
    size = statistics.mean(len(bson.encode(record.to_document())) for record in made)
    # others' between them, as a network has
    others = [
        snapshot(f"other{i:03}@external", (NOW.date() - timedelta(days=i % 30)).isoformat(), tasks)
        for i in range(2_000)
    ]
    file = folder / ".testbench" / "documents.sqlite3"
    before = file.stat().st_size if file.exists() else 0
    typed.upsert(workspace.documents, SupplierSnapshotRecord, [*made, *others])
    rows = [f"| BSON | {size:,.0f} | {size * NETWORK * 365 / 1e9:.1f} |"]
    if file.exists():
        workspace.documents.close()
        del workspace.documents
        stored = (file.stat().st_size - before) / (days + len(others))
        rows.append(f"| embedded store, with indexes | {stored:,.0f} | {stored * NETWORK * 365 / 1e9:.1f} |")
    print(f"\n| a snapshot of {tasks} tasks and 30 abilities | bytes | GB a year, 5,000 suppliers |")
    print("|---|---|---|")
    print("\n".join(rows))
    print(f"| target | {TARGET_GB * 1e9 / NETWORK / 365:,.0f} | {TARGET_GB} |")
    print("\n| history of a supplier | CPU ms | wall ms, median |\n|---|---|---|")
    for name, chosen in (("all", {}), ("30", {"since": NOW.date() - timedelta(days=29)})):
        cpu, median, _ = milliseconds(
            lambda chosen=chosen: history(workspace, supplier, fill=False, **chosen), 5
        )
        shown = f"{days} days" if name == "all" else "30 days"
        print(f"| {shown}, {tasks} tasks and 30 abilities | {cpu:.0f} | {median:.0f} |")


def export(workspace: Workspace, folder: Path) -> None:
    """Print what an export of all answers costs."""
    start, before = time.perf_counter(), time.process_time()
    path = folder / "answers.parquet"
    n = write_answers(path, every_answer(workspace, active_suppliers(workspace), workspace.specs))
    took, cpu = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n| answers exported | s | CPU s per million | MB | peak memory, MB |\n|---|---|---|---|---|")
    size = path.stat().st_size / 1e6
    print(f"| {n:,} | {took:.1f} | {cpu / n * 1e6:.0f} | {size:.1f} | {peak:.0f} |")


def main() -> None:
    """Fill an installation and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=12_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--suppliers", type=int, default=8)
    given = parser.parse_args()
    for name in ("TESTBENCH_HOME", "TESTBENCH_POSTGRES_URI"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = prepare(folder, given.suppliers, 200, given.docs)
        with Workspace(load_config(path)) as workspace:
            registrations = register(workspace, {"small": 200, "large": given.docs})
            keys = [supplier.key for supplier in active_suppliers(workspace)]
            for key in keys:
                for registration in registrations.values():
                    fill(workspace, key, registration)
            refresh_window_cache(workspace, keys)
            pages(workspace, keys[0])
            export(workspace, folder)
            snapshots(workspace, folder, keys[0], given.days, given.tasks)


if __name__ == "__main__":
    main()
