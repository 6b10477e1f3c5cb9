"""Years of history made in seconds, and what the stages read of it: rows examined, rows returned.

Shared by ``benchmarks/growth.py``, which prints a table, and by the test that holds it. Suppliers answer the
same number of docs every week, so that a window is as full after ten weeks as after a hundred.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import yaml
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.health import note_attempts, note_scores
from testbench_dagster.stages.identify.identify import detect_changes
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.rank.ranking import make_board
from testbench_dagster.stages.retain import apply_retention
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Collection, document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.stores.documents.values import encode, prepare
from testbench_dagster_tests.examined import examined

DOCS_A_WEEK = 25
#: Docs of a task, and of each epoch's sequence; a window of 32 days holds all of the former.
DOCS, SEQUENCE = 100, 50
#: Of the docs of a week: answered at a second occasion, and never.
_LATE, _FAILED = 7, 13
_WEEK = timedelta(days=7)
_AT_ONCE = 5_000


@dataclass(frozen=True)
class Size:
    """How many suppliers, of one service, are asked how many tasks for how many weeks."""

    suppliers: int
    tasks: int
    weeks: int

    @property
    def attempts(self) -> int:
        """How many attempts that comes to, about."""
        return self.suppliers * self.tasks * self.weeks * (DOCS_A_WEEK + 3)


def configure(folder: Path, size: Size) -> Path:
    """Write a configuration: a roster file, and tasks that are all the same one under aliases."""
    folder.mkdir(parents=True, exist_ok=True)
    roster = [
        {"address": f"supplier{i:03}", "service": "external", "model": f"model-{i % 7}", "api": "chat",
         "base_url": f"https://host{i}.example.com/v1"}
        for i in range(size.suppliers)
    ]  # fmt: skip
    (folder / "roster.json").write_text(json.dumps({"suppliers": roster, "height": 1}), encoding="utf-8")
    names = [f"task{i:03}" for i in range(size.tasks)]
    tree = {"name": "abilities", "root": "all", "nodes": {"all": {"tasks": names}}}
    (folder / "abilities.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    settings = {
        "supplier_sources": [{"file": "roster.json"}],
        "tasks": [{"name": "starter_logic", "alias": name, "samples": DOCS} for name in names],
        "taxonomies": ["abilities.yaml"],
        # longer than any history here: retention looks for what is too old, and finds nothing
        "retention": {"evidence_days": 10_000},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


class History:
    """The facts of an installation that is as old as its size says, at one instant."""

    def __init__(self, workspace: Workspace, size: Size, now: datetime | None = None) -> None:
        self.workspace, self.size = workspace, size
        #: Never answers anything.
        self.silent = f"supplier{size.suppliers - 1:03}@external"
        self.now = now or datetime.now(UTC).replace(microsecond=0)

    def fill(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Store roster, registrations, epochs, prompts, attempts and scores."""
        workspace = self.workspace
        registered = register_over_one_dataset(self.workspace)
        refresh_roster(workspace)
        prompts = self._prompts(registered)
        suppliers = [supplier.key for supplier in active_suppliers(workspace)]
        for number, key in enumerate(suppliers, 1):
            facts = [
                fact
                for registration in registered
                for week in range(self.size.weeks)
                for fact in self._week(key, registration, week, prompts)
            ]
            put_in_bulk(workspace, ATTEMPTS, [made for attempts, _ in facts for made in attempts])
            put_in_bulk(workspace, SCORES, [score for _, score in facts if score is not None])
            say(f"{number} of {len(suppliers)} suppliers")

    def _prompts(self, registered: Iterable[Registration]) -> dict[tuple[str, int, int], PromptRecord]:
        """Store the sequence of every week, of prompts as the framework builds them; by task, epoch, doc."""
        documents = self.workspace.documents
        first = self.workspace.specs[0]
        refresh_prompts(self.workspace, first)
        built = {
            one.doc_id: one
            for one in typed.find(documents, PromptRecord, {"task": first.name, "api": "chat"})
        }
        typed.purge(documents, PromptRecord, {"task": first.name})
        typed.purge(documents, EpochRecord, {"task": first.name})
        docs = sorted(built)[:DOCS]
        found = {}
        for registration in registered:
            for epoch in range(1, self.size.weeks + 1):
                began = self.now - (self.size.weeks - epoch + 1) * _WEEK
                for place in range(SEQUENCE):
                    doc = docs[self._place(epoch, place, len(docs))]
                    found[registration.task, epoch, place] = replace(
                        built[doc],
                        id=document_id("prompt", registration.task, epoch, doc),
                        task=registration.task,
                        epoch=epoch,
                        position=place,
                        created_at=began,
                    )
                record = EpochRecord(
                    id=document_id("epoch", registration.task, epoch),
                    task=registration.task,
                    epoch=epoch,
                    started_at=began,
                    seed=f"seed {epoch}",
                    seed_sha256="",
                )
                typed.put_new(documents, EpochRecord, [record])
        put_in_bulk(self.workspace, PromptRecord.collection, [one.to_document() for one in found.values()])
        return found

    @staticmethod
    def _place(epoch: int, place: int, docs: int) -> int:
        return (epoch * DOCS_A_WEEK + place) % docs

    def _week(
        self,
        key: str,
        registration: Registration,
        week: int,
        prompts: dict[tuple[str, int, int], PromptRecord],
    ) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | None]]:
        """The attempts at each doc of a week, the last week being 0, and its score."""
        epoch = self.size.weeks - week
        for number in range(DOCS_A_WEEK):
            at = self.now - week * _WEEK - (number + 1) * _WEEK / (DOCS_A_WEEK + 1)
            prompt = prompts[registration.task, epoch, number]
            yield self._doc(key, registration, prompt, at, number)

    def _doc(
        self, key: str, registration: Registration, prompt: PromptRecord, at: datetime, number: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        faults = [Fault.OK]
        if key == self.silent:
            faults = [Fault.UNAVAILABLE] * 3
        elif number % DOCS_A_WEEK == _LATE:
            faults = [Fault.UNAVAILABLE, Fault.OK]
        elif number % DOCS_A_WEEK == _FAILED:
            faults = [Fault.UNAVAILABLE] * 3
        attempts = [
            self.attempt(
                key, registration, prompt, at - timedelta(minutes=2 * (len(faults) - run)), run, fault
            )
            for run, fault in enumerate(faults, 1)
        ]
        return attempts, self._score(registration, attempts[-1]) if faults[-1].answered else None

    def attempt(
        self,
        key: str,
        registration: Registration,
        prompt: PromptRecord,
        at: datetime,
        run: int = 1,
        fault: Fault = Fault.OK,
    ) -> dict[str, Any]:
        """One attempt as the relay stage writes it, with an answer if the fault has one."""
        text = f"answer {prompt.doc_id % 9} of {key}"
        answer = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        body = orjson.dumps(answer) if fault.answered else b""
        return {
            "_id": document_id("attempt", key, prompt.id, 1, 0, 0, run),
            "supplier": key,
            "service": key.rpartition("@")[2],
            "task": registration.task,
            "task_hash": registration.task_hash,
            "epoch": prompt.epoch,
            "round": 1,
            "prompt_id": prompt.id,
            "position": prompt.position,
            "doc_id": prompt.doc_id,
            "idx": 0,
            "repeat": 0,
            "attempt": run,
            "occasion": run,
            "canary": False,
            "fault": fault.value,
            "owner": fault.owner.value,
            "classifier": 1,
            "status": 200 if fault.answered else 503,
            "finished_at": at,
            "started_at": at - timedelta(milliseconds=200),
            "latency_ms": 200.0,
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "opening": text if fault.answered else None,
            "app": None,
            "session": None,
            "height": None,
            "lease": run,
            "own_in_flight": 2,
            "body": body,
            "body_bytes": len(body),
            "body_truncated": False,
            "error": None,
            "finish_reason": "stop",
            "first_byte_ms": 100.0,
            "first_token_ms": None,
            "session_start": None,
            "session_end": None,
            "payload_sha256": None,
            "evidence": {},
        }

    def _score(self, registration: Registration, attempt: dict[str, Any]) -> dict[str, Any]:
        metric, name = registration.flags.metric_order[0], registration.flags.filters[0]
        version = scorer_version(registration)
        same = (
            "supplier", "service", "task", "task_hash", "epoch", "round", "position", "doc_id", "prompt_id",
            "prompt_tokens", "completion_tokens", "latency_ms",
        )  # fmt: skip
        return {
            "_id": document_id("score", attempt["_id"], name, version),
            **{field: attempt[field] for field in same},
            "filter": name,
            "answer_id": attempt["_id"],
            "answered_at": attempt["finished_at"],
            "calls": 1,
            "scorer_version": version,
            "metrics": {metric: float(attempt["doc_id"] % 3 > 0)},
            "error": None,
            "extracted": attempt["opening"],
            "truncated": False,
            "attempt_ids": [attempt["_id"]],
            "scored_at": attempt["finished_at"],
        }

    def answer_more(self, key: str, docs: int = 10) -> None:
        """Store answers of a supplier to the next docs of the present sequence of one task: no scores yet."""
        registration = min(self.workspace.datasets.tasks(), key=lambda one: one.task)
        where = {
            "task": registration.task,
            "task_hash": registration.task_hash,
            "epoch": self.size.weeks,
            "api": "chat",
            "position": {"gte": DOCS_A_WEEK, "lt": DOCS_A_WEEK + docs},
        }
        prompts = list(typed.find(self.workspace.documents, PromptRecord, where))
        assert len(prompts) == docs
        at = self.now - timedelta(minutes=30)
        self.workspace.documents.put_new(
            ATTEMPTS, [self.attempt(key, registration, prompt, at) for prompt in prompts]
        )


def register_over_one_dataset(workspace: Workspace) -> list[Registration]:
    """Register every task over the data of the first; by name."""
    registered, _ = refresh_dataset(workspace, workspace.specs[0])
    docs = list(workspace.datasets.docs(registered.task_hash))
    shots = workspace.datasets.fewshot(registered.task_hash)
    for spec in workspace.specs:
        workspace.datasets.register(
            replace(registered, task=spec.name),
            iter(docs),
            (StoredDoc(d.doc_id, d.body, d.doc_hash) for d in shots),
        )
    return sorted(workspace.datasets.tasks(), key=lambda one: one.task)


def put_in_bulk(workspace: Workspace, collection: Collection, documents: list[dict[str, Any]]) -> None:
    """Insert many documents: on MongoDB past the store, which waits for a majority and the journal."""
    uri = workspace.config.mongo_uri
    if uri is None:
        for start in range(0, len(documents), _AT_ONCE):
            workspace.documents.put_new(collection, documents[start : start + _AT_ONCE])
        return
    workspace.documents.count(collection, {"_id": ""})  # makes the collection and its indexes
    with MongoClient(uri) as client:
        native = client.get_default_database().get_collection(
            collection.name, write_concern=WriteConcern(w=1, j=False)
        )
        for start in range(0, len(documents), _AT_ONCE):
            some = documents[start : start + _AT_ONCE]
            bodies = [RawBSONDocument(encode(collection, prepare(collection, one))) for one in some]
            native.insert_many(bodies, ordered=False)


# ------------------------------------------------------------------------------------------------ reads


@dataclass(frozen=True)
class Reads:
    """What one piece of work read.

    ``examined``: on MongoDB the keys and documents that the server looked at, by its profiler; on SQLite the
    steps of its virtual machine, of which every row looked at takes some. ``returned``: documents, rows and
    groups that the store gave out.
    """

    examined: int
    returned: int


@contextlib.contextmanager
def counted_reads(workspace: Workspace) -> Iterator[Callable[[], Reads]]:
    """Count what a workspace's documents are asked for until the end of the block; call what is yielded."""
    with _returned(workspace) as returned, examined(workspace) as looked_at:
        yield lambda: Reads(looked_at(), returned())


@contextlib.contextmanager
def _returned(workspace: Workspace) -> Iterator[Callable[[], int]]:
    documents: Any = workspace.documents
    given = 0

    def passed(found: Iterator[Any]) -> Iterator[Any]:
        nonlocal given
        for one in found:
            given += 1
            yield one

    def counting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **more: Any) -> Any:
            nonlocal given
            found = operation(*args, **more)
            if isinstance(found, Iterator):
                return passed(found)
            given += len(found) if isinstance(found, list) else 1
            return found

        return count

    names = ("get", "rows", "group", "count", "find")
    for name in names:
        setattr(documents, name, counting(getattr(documents, name)))
    try:
        yield lambda: given
    finally:
        for name in names:
            delattr(documents, name)


def works(history: History) -> Iterator[tuple[str, Callable[[], object], Callable[[], object] | None]]:
    """Name of each piece of work whose reads may not grow, the work, and what makes it ready each time."""
    workspace, now = history.workspace, history.now
    keys = [supplier.key for supplier in active_suppliers(workspace)]
    one = active_suppliers(workspace)[0]
    key = one.key

    def plan() -> object:
        return Planner(workspace, now=now).plan(one)

    def noted(chosen: list[str]) -> object:
        note_attempts(workspace, chosen)
        return note_scores(workspace, chosen, windows(workspace, suppliers=chosen, now=now))

    refresh_window_cache(workspace, keys, now=now)
    refresh_summaries(workspace, keys, now)
    yield "plan of one supplier", plan, None
    yield "windows of one, kept", lambda: windows(workspace, suppliers=[key], now=now), None
    yield (
        "windows of one, from facts",
        lambda: windows(workspace, suppliers=[key], now=now, from_facts=True),
        None,
    )
    yield (
        "windows of one never there",
        lambda: windows(workspace, suppliers=[history.silent], now=now, from_facts=True),
        None,
    )
    yield "scoring, nothing new", lambda: score_new(workspace, [key], now=now), None
    yield "fault check of one", lambda: noted([key]), None
    yield "fault check of all", lambda: noted(keys), None
    yield "retention, nothing to do", lambda: apply_retention(workspace, now), None
    yield "change detection of one", lambda: detect_changes(workspace, [key], now), None
    yield "leaderboard", lambda: make_board(workspace, now=now), None
    yield (
        "scoring, ten new answers",
        lambda: score_new(workspace, [key], now=now),
        lambda: history.answer_more(key),
    )


def measured(history: History) -> dict[str, Reads]:
    """What each piece of work reads when it was done before, or was made ready."""
    found = {}
    for name, work, ready in works(history):
        (ready or work)()
        with counted_reads(history.workspace) as reads:
            work()
            found[name] = reads()
    return found
