"""What the stages read is bounded by the window: three times the history costs nothing more."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pymongo.monitoring
import pytest
from starlette.testclient import TestClient

from testbench_dagster.board.app import make_app
from testbench_dagster.board.site import Site
from testbench_dagster.config import load_config
from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.core.records.every import RECORDS
from testbench_dagster.core.records.identity import ScoreStreamRecord
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.identify.identify import detect_changes, refresh_identity
from testbench_dagster.stages.rank.ranking import make_board, store_board
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.snapshot import begin_history
from testbench_dagster.stages.tally import Tallying
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests import servers
from testbench_dagster_tests.growing import History, Reads, Size, configure, measured, works

pytestmark = pytest.mark.slow(minutes=2)

#: Weeks of a history that fills the window of 32 days, and docs that are open for three.
FULL = 8


@contextlib.contextmanager
def filled(folder: Path, size: Size) -> Iterator[History]:
    """An installation as old as its size says; opened anew, as by another process."""
    with Workspace(load_config(configure(folder, size))) as workspace:
        history = History(workspace, size)
        history.fill()
    with Workspace(load_config(folder / "testbench.yaml")) as workspace:
        yield History(workspace, size, history.now)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_three_times_the_history_is_read_no_more_of(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Reads]] = []
    for times in (1, 3):
        with contextlib.ExitStack() as stack:
            if store == "mongodb":
                server = request.getfixturevalue("mongo_uri")
                uri = stack.enter_context(servers.mongo_database(server))
                monkeypatch.setenv("TESTBENCH_MONGO_URI", uri)
            size = Size(4, 3, FULL * times)
            found.append(measured(stack.enter_context(filled(tmp_path / f"{times}", size))))
    once, thrice = found
    assert once.keys() == thrice.keys() and len(once) > 8
    grown = {
        name: (once[name], thrice[name])
        for name in once
        for part in ("examined", "returned")
        if abs(getattr(thrice[name], part) - getattr(once[name], part)) > 0.1 * getattr(once[name], part)
    }
    assert grown == {}
    assert once["windows of one, from facts"].returned > 4 * 3 * 100, "the window is full"
    assert once["retention, nothing to do"].returned == 0


def test_what_change_detection_stores_does_not_grow_with_an_era(tmp_path: Path) -> None:
    """Half a year and one and a half: of both, docs are folded."""
    found = []
    for times in (1, 3):
        size = Size(2, 3, 3 * FULL * times)
        with filled(tmp_path / f"{times}", size) as history:
            key = active_suppliers(history.workspace)[0].key
            began = history.now - timedelta(weeks=size.weeks)
            for now in (began, history.now):  # what was never looked at begins with the window
                detect_changes(history.workspace, [key], now)
            record = typed.get(history.workspace.documents, ScoreStreamRecord, key)
            assert record is not None and record.folded is not None
            found.append((len(bson.encode(record.to_document())), record.folded.n))
    (once, n_once), (thrice, n_thrice) = found
    assert n_thrice > 3 * n_once and thrice <= 1.2 * once


# ------------------------------------------------------------------------------- sharded MongoDB

SHARDED = {record.collection.name for record in RECORDS if record.shard_key}
_TIMES = {"finished_at", "answered_at"}
#: Queries that name neither supplier nor time, by the fields that they name: all shards are asked, because
EVERYWHERE = {
    ("attempts", ("_id",)): "a person looks at one answer, by a link that holds its id alone",
    ("attempts", ("fault", "session")): "whether relays of a session were sent before",
    ("attempts", ("prompt_id",)): "who was asked a doc, for its page, and whether retention keeps a prompt",
    ("attempts", ("prompt_id", "service")): "what became of a request of others, where one was refused it",
}

#: A store makes a collection when it is asked for one: for no document, where nothing else is wanted of it.
_OPENED = {"$and": [{"_id": {"$eq": ""}}]}


class _Listener(pymongo.monitoring.CommandListener):
    """Collects what is asked of collections that are sharded: command, collection, fields of the filter."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
        self.upserts: list[str] = []

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        command: Mapping[str, Any] = event.command
        collection = command.get(event.command_name)
        if not isinstance(collection, str) or collection not in SHARDED:
            return
        upsert = any(one.get("upsert") for one in command.get("updates", ()))
        if upsert or event.command_name == "findAndModify":
            self.upserts.append(event.command_name)
        for where in _filters(event.command_name, command):
            if where == _OPENED:
                continue
            self.asked[event.command_name, collection, _fields(where)] += 1

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        pass


def _filters(name: str, command: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if name == "find":
        yield command.get("filter", {})
    elif name == "aggregate":
        yield next((stage["$match"] for stage in command["pipeline"] if "$match" in stage), {})
    elif name in ("delete", "update"):
        yield from (one["q"] for one in command.get(f"{name}s", ()))


def _fields(where: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields that a filter names."""
    terms = where.get("$and", [where])
    return tuple(sorted({field for term in terms for field in term}))


def test_every_hot_query_names_suppliers_or_a_time(
    tmp_path: Path, mongo_database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBENCH_MONGO_URI", mongo_database_uri)
    listener = _Listener()
    listened = partial(pymongo.MongoClient, event_listeners=[listener])
    monkeypatch.setattr("testbench_dagster.stores.documents.mongo.MongoClient", listened)
    with filled(tmp_path / "home", Size(4, 2, FULL)) as history:
        listener.asked.clear()
        workspace, now = history.workspace, history.now
        suppliers = active_suppliers(workspace)
        keys, tasks = [one.key for one in suppliers], [spec.name for spec in workspace.specs]
        tally = Tallying(workspace, keys, tasks)
        for _, work, ready in works(history):
            if ready is not None:
                ready()
            work()
        tally.end()
        refresh_identity(workspace, now=now)
        refresh_service_quality(workspace, keys, now)
        begin_history(workspace, keys, now=now)
        store_board(workspace, make_board(workspace, now=now))
        of_task = {"supplier": keys[0], "task": tasks[0], "fault": "ok"}
        newest = typed.find(workspace.documents, CallAttempt, of_task, sort=[("finished_at", -1)], limit=1)
        open_pages(workspace, keys, tasks[0], next(newest))
    assert listener.upserts == [], "a shard is found by its key, which a replacement by id does not tell"
    asked = {(collection, fields) for _, collection, fields in listener.asked}
    bounded = {one for one in asked if "supplier" in one[1] or _TIMES & {*one[1]}}
    assert asked - bounded <= EVERYWHERE.keys(), "name the supplier, or a time"
    assert len(bounded) > 10 and {collection for collection, _ in asked} >= SHARDED


def open_pages(workspace: Workspace, keys: list[str], task: str, newest: CallAttempt) -> None:
    """Look at the pages of the board."""
    site = Site(workspace)
    site.prepare()
    one, other = keys[:2]
    with TestClient(make_app(site)) as board:
        for path in (
            "/",
            f"/supplier/{one}",
            f"/supplier/{one}/history?task={task}",
            f"/supplier/{one}/service",
            f"/supplier/{one}/task/{task}",
            f"/supplier/{one}/task/{task}/doc/{newest.doc_id}",
            f"/doc/{task}/{newest.doc_id}",
            f"/task/{task}",
            f"/attempt/{newest.id}/body",
            f"/compare?a={one}&b={other}",
            "/changes",
            "/catalog",
        ):
            assert board.get(path).status_code == 200, path
