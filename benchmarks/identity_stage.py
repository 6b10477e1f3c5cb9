"""What the identity stage costs of one service: CPU and memory by part, facts read from MongoDB.

    python benchmarks/identity_stage.py [--suppliers 1000 2000] [--tasks 20] [--twins 333] [--sqlite]

Every supplier answered the first docs of each task, as many as identity compares, and a tenth of them again;
all is scored, equal answers alike. So many suppliers at a time are of one model. Facts are written past the
store. Then all are compared, which stores groups and looks for suspicions, once more with known groups, again
when a tenth of the suppliers was evaluated since, and last with all scores to be compared anew, as after an
upgrade.
CPU is that of this process: what MongoDB itself takes comes on top, beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import random

from pymongo import MongoClient

from testbench_dagster.config import load_config
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.identify import identify
from testbench_dagster.stages.identify.reading import PROMPTS
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, IDENTITY_GROUPS, SCORES
from testbench_dagster_tests import servers
from testbench_dagster_tests.growing import Size, configure, put_in_bulk, register_over_one_dataset

START = datetime(2026, 1, 1, tzinfo=UTC)
#: Names in the module of the stage whose time is told apart.
PARTS = [
    "read_answers",
    "find_changes",
    "record_changes",
    "watch_groups",
    "kept_apart",
    "read_graded",
    "read_failed",
    "graded_by_supplier",
    "find_groups",
    "read_availability",
    "refresh_suspicions",
    "active_suppliers",
]


def fill(workspace: Workspace, suppliers: int, twins: int) -> datetime:
    """Store the facts; return an instant after the last."""
    registered = register_over_one_dataset(workspace)
    refresh_roster(workspace)
    docs = max(2, -(-PROMPTS // len(registered)))
    rng = random.Random(7)
    models: dict[int, list[list[str]]] = {}
    attempts: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for number in range(suppliers):
        model = number // twins
        if model not in models:
            models = {model: [[f"{rng.random():.18f} said" for _ in range(docs)] for _ in registered]}
        for t, registration in enumerate(registered):
            for doc in range(docs):
                for again in range(2 if doc % 10 == 0 else 1):
                    said = models[model][t][doc] if rng.random() < 0.975 else f"{rng.random():.18f} slip"
                    at = START + timedelta(minutes=5 * (t * docs + doc), days=again, seconds=number % 240)
                    attempt = _attempt(
                        f"supplier{number:03}@external", registration, doc, again + 1, at, said
                    )
                    attempts.append(attempt)
                    scores.append(_score(registration, attempt, float(said[2] < "7")))
        if len(attempts) > 50_000:
            put_in_bulk(workspace, ATTEMPTS, attempts)
            put_in_bulk(workspace, SCORES, scores)
            attempts, scores = [], []
    put_in_bulk(workspace, ATTEMPTS, attempts)
    put_in_bulk(workspace, SCORES, scores)
    return START + timedelta(days=3)


def evaluate(workspace: Workspace, suppliers: int, now: datetime) -> None:
    """Store what an evaluation of every tenth supplier brings: two docs of each task, answered as before."""
    registered = [r for spec in workspace.specs if (r := workspace.datasets.current(spec.name)) is not None]
    attempts: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for number in range(0, suppliers, 10):
        key = f"supplier{number:03}@external"
        for registration in registered:
            where = {"supplier": key, "task": registration.task, "position": {"lt": 2}, "round": 1}
            for known in workspace.documents.find(ATTEMPTS, where, fields=["doc_id", "opening"]):
                said = known["opening"]
                attempt = _attempt(key, registration, known["doc_id"], 9, now, said)
                attempts.append(attempt)
                scores.append(_score(registration, attempt, float(said[2] < "7")))
    put_in_bulk(workspace, ATTEMPTS, attempts)
    put_in_bulk(workspace, SCORES, scores)


def forget_what_was_compared(workspace: Workspace) -> None:
    """Leave the records of groups as earlier versions wrote them."""
    keys = [group.id for group in typed.find(workspace.documents, ProxyOfSupplier)]
    workspace.documents.amend(IDENTITY_GROUPS, {key: {"watched_at": None} for key in keys})


def _attempt(
    key: str, registration: Registration, doc: int, round_: int, at: datetime, said: str
) -> dict[str, Any]:
    prompt = f"{registration.task}-{doc}"
    return dict.fromkeys(AttemptRecord.collection.fields) | {
        "_id": document_id("attempt", key, prompt, round_),
        "supplier": key,
        "service": "external",
        "task": registration.task,
        "task_hash": registration.task_hash,
        "epoch": 1,
        "round": round_,
        "prompt_id": prompt,
        "position": doc,
        "doc_id": doc,
        "idx": 0,
        "repeat": 0,
        "attempt": 1,
        "fault": Fault.OK.value,
        "owner": Fault.OK.owner.value,
        "status": 200,
        "finished_at": at,
        "latency_ms": 200.0,
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "opening": said,
        "answer_hash": said,
        "own_in_flight": 1,
        "body": said.encode(),
    }


def _score(registration: Registration, attempt: dict[str, Any], value: float) -> dict[str, Any]:
    name, version = registration.flags.filters[0], scorer_version(registration)
    same = [
        "supplier",
        "service",
        "task",
        "task_hash",
        "epoch",
        "round",
        "position",
        "doc_id",
        "prompt_id",
        "prompt_tokens",
        "completion_tokens",
        "latency_ms",
    ]
    return dict.fromkeys(ScoreRecord.collection.fields) | {
        "_id": document_id("score", attempt["_id"], name, version),
        **{field: attempt[field] for field in same},
        "filter": name,
        "answer_id": attempt["_id"],
        "answered_at": attempt["finished_at"],
        "calls": 1,
        "scorer_version": version,
        "metrics": {registration.flags.metric_order[0]: value},
        "error": None,
        "extracted": attempt["opening"],
        "truncated": False,
        "attempt_ids": [attempt["_id"]],
        "scored_at": attempt["finished_at"],
    }


@contextlib.contextmanager
def timed() -> Iterator[dict[str, list[float]]]:
    """CPU seconds of the parts of the stage, and the most memory until the end of each (MB)."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    before = {name: getattr(identify, name) for name in PARTS}

    def measured(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(start: float) -> None:
            found[name][0] += time.process_time() - start
            found[name][1] = peak()

        def through(rows: Iterator[Any]) -> Iterator[Any]:
            start = time.process_time()
            yield from rows  # what is done with a row counts too
            done(start)

        @functools.wraps(work)
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            made = work(*args, **options)
            if isinstance(made, Iterator):
                return through(made)
            done(start)
            return made

        return call

    try:
        for name, work in before.items():
            setattr(identify, name, measured(name, work))
        yield found
    finally:
        for name, work in before.items():
            setattr(identify, name, work)


def peak() -> float:
    """The most memory that this process held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(suppliers: int, tasks: int, twins: int) -> None:
    """Print a table of two comparisons of so many suppliers, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tb-identity-") as folder:
        home = Path(folder) / "home"
        path = configure(home, Size(suppliers, tasks, 1))
        start = time.perf_counter()
        with Workspace(load_config(path)) as workspace:
            now = fill(workspace, suppliers, twins)
        print(f"\n{suppliers:,} suppliers, filled in {time.perf_counter() - start:.0f} s", flush=True)
        child = os.fork()  # whose memory is counted from here on
        if child == 0:
            with Workspace(load_config(path)) as workspace:
                compare(workspace, "from nothing", now)
                now += timedelta(hours=4)
                compare(workspace, "once more", now)
                evaluate(workspace, suppliers, now + timedelta(hours=2))
                compare(workspace, "a tenth evaluated since", now + timedelta(hours=4))
                forget_what_was_compared(workspace)
                compare(workspace, "all anew", now + timedelta(hours=6))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def compare(workspace: Workspace, turn: str, now: datetime) -> None:
    """Compare all suppliers and print what it took."""
    with timed() as parts:
        start, wall = time.process_time(), time.perf_counter()
        report = identify.refresh_identity(workspace, now=now)
        cpu, wall = time.process_time() - start, time.perf_counter() - wall
    sizes = sorted((len(members) for members in report.groups.values()), reverse=True)
    print(
        f"{turn}: {cpu:.1f} s of CPU, {1000 * cpu / report.n_suppliers:.1f} ms a supplier, {wall:.0f} s, "
        f"{peak():,.0f} MB; {report.n_answers:,} answers, "
        f"{len(sizes)} groups of {sizes[:3]}, {len(report.changes)} changes, "
        f"{len(report.suspicions)} suspicions"
    )
    for name, (seconds, most) in parts.items():
        print(f"  {name:24}{seconds:>9.1f} s{most:>9,.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--twins", type=int, default=333, help="suppliers of one model")
    parser.add_argument("--sqlite", action="store_true", help="on the embedded store")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        server = None if args.sqlite else stack.enter_context(servers.mongo_server())
        if server is not None:
            with MongoClient(server) as client:  # tests make do with little memory, which takes hours here
                cache = {"wiredTigerEngineRuntimeConfig": "cache_size=4G"}
                client.admin.command({"setParameter": 1, **cache})
        for suppliers in args.suppliers:
            with contextlib.ExitStack() as one:
                os.environ.pop("TESTBENCH_MONGO_URI", None)
                if server is not None:
                    os.environ["TESTBENCH_MONGO_URI"] = one.enter_context(servers.mongo_database(server))
                measure(suppliers, args.tasks, args.twins)


if __name__ == "__main__":
    main()
