"""What comparing 100 suppliers with the reference of their model costs, in CPU seconds.

    python benchmarks/references.py [--suppliers 100] [--tasks 10] [--docs 50] [--profile]

One installation is filled with attempts and scores as the stages write them: the reference, suppliers alike
and others that differ, some docs that went unanswered. Measured is `refresh_references` of all of them as the
first time, again without a new fact, and after one supplier was evaluated.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import pstats
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.identify.references import refresh_references
from testbench_dagster.stages.sample.catalogue import refresh_dataset
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES

NOW = datetime.now(UTC).replace(microsecond=0)
STARTER = ("arithmetic", "calendar", "instructions", "logic", "reading", "strings", "units")
PROBES = 60

SERVICE = "external"


def configure(folder: Path, suppliers: int, tasks: int, docs: int) -> Path:
    """Write the configuration: the first supplier is the reference, all name one model."""
    roster: list[dict[str, Any]] = [
        {"address": f"s{i:03}", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"}
        for i in range(suppliers)
    ]
    roster[0]["reference"] = True
    chosen = [f"starter_{name}" for name in STARTER][:tasks]
    samples = {"min": docs, "max": docs, "half_width": None}
    settings = {
        "suppliers": roster,
        "tasks": [{"name": name, "samples": samples} for name in chosen],
        "sampling": {"window": docs},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def fill(workspace: Workspace, docs: int, round_: int, only: int | None = None) -> None:
    """Store what everybody, or ``only`` one, answered in a round: attempts, and a score for each answer."""
    suppliers = range(len(workspace.config.settings.suppliers)) if only is None else [only]
    for spec in workspace.specs:
        registration = workspace.datasets.current(spec.name)
        assert registration is not None
        for number in suppliers:
            attempts, scores = [], []
            for attempt, score in answers(registration, number, docs, round_):
                attempts.append(attempt)
                scores += [] if score is None else [score]
            workspace.documents.put_new(ATTEMPTS, attempts)
            workspace.documents.put_new(SCORES, scores)


def answers(
    registration: Registration, number: int, docs: int, round_: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """A supplier's answers to the docs of a task: a third is of another model, a few are missing."""
    supplier = f"s{number:03}@{SERVICE}"
    start = NOW - timedelta(hours=50) + timedelta(hours=10) * round_
    for doc in range(docs):
        draw = random.Random(f"{number} {registration.task} {doc} {round_}")
        other = number % 3 == 2 or (number % 3 == 1 and draw.random() < 0.03)
        text = hashlib.sha256(f"{number if other else 0} {registration.task} {doc}".encode()).hexdigest()
        right = random.Random(text).random() < (0.7 if other else 0.8)
        failed = number % 10 == 9 and draw.random() < 0.02
        at = start + timedelta(seconds=doc * 10 + number)
        ids = document_id("a", supplier, registration.task, doc, round_)
        common = {
            "supplier": supplier,
            "service": SERVICE,
            "task": registration.task,
            "task_hash": registration.task_hash,
            "epoch": 1,
            "round": round_,
            "position": doc,
            "doc_id": doc,
            "prompt_id": f"{registration.task}-{doc}",
            "latency_ms": 5.0,
            "prompt_tokens": 100,
            "completion_tokens": 5,
        }
        attempt = {
            **common,
            "_id": ids,
            "idx": 0,
            "repeat": 0,
            "attempt": 1,
            "fault": "supplier_http" if failed else "ok",
            "owner": "supplier" if failed else "none",
            "status": 500 if failed else 200,
            "started_at": at,
            "finished_at": at,
            "opening": None if failed else text[:40],
            "height": None,
            "lease": round_,
            "occasion": 1,
            "canary": False,
        }
        score = {
            **common,
            "_id": document_id("score", ids),
            "filter": registration.flags.filters[0],
            "answer_id": ids,
            "answered_at": at,
            "calls": 1,
            "scorer_version": scorer_version(registration),
            "metrics": {next(iter(registration.flags.metrics)): float(right)},
            "error": None,
            "extracted": text,
            "attempt_ids": [ids],
            "truncated": False,
            "scored_at": at,
        }
        yield attempt, None if failed else score


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what the call returned."""
    start = time.process_time()
    found = action()
    return time.process_time() - start, found


def main() -> None:
    """Measure, and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suppliers", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=7)
    parser.add_argument("--docs", type=int, default=50)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = configure(Path(folder), given.suppliers, given.tasks, given.docs)
        with Workspace(load_config(path)) as workspace:
            for spec in workspace.specs:
                refresh_dataset(workspace, spec)
            refresh_roster(workspace)
            for round_ in (1, 2):
                fill(workspace, given.docs, round_)
            profile = cProfile.Profile()
            if given.profile:
                profile.enable()
            cpu, found = timed(lambda: refresh_references(workspace, now=NOW))
            profile.disable()
            print(f"all {len(found)}: {cpu:.2f} s CPU, {digest(found)}")
            if given.profile:
                pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
            print(f"again, nothing new: {timed(lambda: refresh_references(workspace, now=NOW))[0]:.2f} s CPU")
            one = [f"s007@{SERVICE}"]
            fill(workspace, given.docs, 3, only=7)
            print(f"one evaluated: {timed(lambda: refresh_references(workspace, one, now=NOW))[0]:.2f} s CPU")


def digest(found: list[Any]) -> str:
    """A hash of all verdicts, to compare two versions of the code by."""
    told = repr(sorted((one.id, one.to_document()) for one in found))
    return hashlib.sha256(told.replace(repr(NOW), "").encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
