"""What the tests run in other processes, and how they start these together."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.stores.datasets import DatasetStore
from testbench_dagster.stores.documents import (
    BodiesOutside,
    Collection,
    DocumentStore,
    document_id,
    open_documents,
)

JOBS = Collection(
    "jobs",
    fields={
        "kind": str,
        "owner": str,
        "rank": int,
        "cost": float,
        "done": bool,
        "at": datetime,
    },
    indexes=(("kind", "rank"), ("owner",)),
    unique=(("kind", "at"),),
)
DATASETS_AT = datetime(2026, 3, 4, 5, 6, 7, 891000, tzinfo=UTC)

# Processes are forked from a server process that has imported the code and opened nothing.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "pymongo"])


@dataclass(frozen=True)
class Target:
    """A document store as other processes can open it."""

    home: str
    mongo_uri: str | None = None

    def open(self, outside: BodiesOutside | None = None) -> DocumentStore:
        return open_documents(Path(self.home), self.mongo_uri, outside=outside)


def race(work: Callable[..., Any], *arguments: Any, processes: int = 4) -> list[Any]:
    """Run ``work(number, *arguments)`` in several processes that start at the same moment."""
    barrier = _context.Barrier(processes)
    results = _context.Queue()
    started = [
        _context.Process(target=_run, args=(barrier, results, work, number, arguments))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    try:
        outcomes = [results.get(timeout=60) for _ in started]
    except queue.Empty:
        raise AssertionError("a worker did not finish in 60 s") from None
    finally:
        for process in started:
            process.join(10)
            if process.is_alive():
                process.kill()
    failures = [outcome for ok, outcome in outcomes if not ok]
    assert not failures, failures
    return [outcome for _, outcome in outcomes]


def start(work: Callable[..., Any], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start ``work(*arguments)`` in one other process."""
    process = _context.Process(target=work, args=arguments)
    process.start()
    return process


def _run(barrier, results, work, number, arguments) -> None:
    try:
        barrier.wait(30)
        results.put((True, work(number, *arguments)))
    except BaseException as error:
        results.put((False, f"{type(error).__name__}: {error}"))


def claim_all(number: int, target: Target) -> list[str]:
    """Claim open jobs, the lowest rank first, until none is left."""
    store = target.open()
    claimed = []
    while job := store.claim(JOBS, {"owner": None}, {"owner": f"worker-{number}"}, sort=[("rank", 1)]):
        assert job["owner"] == f"worker-{number}"
        claimed.append(job["_id"])
    store.close()
    return claimed


def put_same(number: int, target: Target) -> int:
    """Insert the same 500 documents as the others, in batches; return how many were new."""
    store = target.open()
    ids = [document_id("same", index) for index in range(500)]
    new = 0
    for start_at in range(0, 500, 50):
        batch = ids[start_at : start_at + 50]
        new += store.put_new(JOBS, [{"_id": id_, "owner": f"worker-{number}"} for id_ in batch])
    store.close()
    return new


def upsert_same(number: int, target: Target) -> int:
    """Write the same 100 documents as the others, several times."""
    store = target.open()
    written = 0
    for turn in range(5):
        documents = [
            {"_id": document_id("same", index), "owner": f"worker-{number}", "rank": turn, "by": number}
            for index in range(100)
        ]
        written += store.upsert(JOBS, documents)
    store.close()
    return written


def first_open(number: int, target: Target) -> int:
    """Open a store that does not exist yet and write one document at once."""
    store = target.open()
    store.put_new(JOBS, [{"_id": f"from-{number}", "rank": number}])
    count = store.count(JOBS)
    store.close()
    return count


def write_forever(target: Target, log: str, batch: int) -> None:
    """Write batches and note each acknowledged one in a file, until killed."""
    store = target.open()
    with open(log, "ab", buffering=0) as acknowledged:
        for number in itertools.count():
            documents = [
                {"_id": f"{number}-{index}", "rank": number, "text": "x" * 500} for index in range(batch)
            ]
            try:
                store.put_new(JOBS, documents)
            except Exception:
                os._exit(3)  # the server was killed: this batch was not acknowledged
            acknowledged.write(b"%d\n" % number)


def flags(**extra: Any) -> TaskFlags:
    """Flags of a task, with others that this version does not know."""
    return TaskFlags(
        output_type="generate_until",
        features=[],
        multiple_input=False,
        multiple_target=False,
        repeats=1,
        num_fewshot=0,
        version="1.0",
        metrics={"acc": MetricFlags(aggregation="mean", higher_is_better=True)},
        filters=["none"],
        extra=extra or None,
    )


def registration(task: str, task_hash: str, n_docs: int, **changes: Any) -> Registration:
    values = {
        "framework": "lm_eval",
        "lm_task": task,
        "engine_version": "0.4.13",
        "config_hash": "c" * 64,
        "fingerprint": "f" * 64,
        "eval_split": "test",
        "splits": {"test": n_docs, "train": 2},
        "flags": flags(shots=[1, 2.5, None]),
        "n_fewshot": 2,
        "registered_at": DATASETS_AT,
    }
    return Registration(task=task, task_hash=task_hash, n_docs=n_docs, **(values | changes))


def dataset_docs(count: int, size: int = 20) -> list[StoredDoc]:
    return [
        StoredDoc(doc_id, f'{{"question":"{doc_id} {"q" * size}"}}', document_id("doc", doc_id))
        for doc_id in range(count)
    ]


def register_same(number: int, url: str, task_hash: str) -> bool:
    """Register one task as the others do at the same moment."""
    store = DatasetStore(url)
    changed = store.register(registration("gsm8k", task_hash, 300), dataset_docs(300), dataset_docs(2))
    assert len(list(store.docs(task_hash))) == 300
    store.close()
    return changed


def register_own(number: int, url: str) -> bool:
    """Register one task with a hash of this process's own."""
    return register_same(number, url, f"hash-{number}")
