"""Scores and windows where bodies of attempts stand outside the document store, and what waits for them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import BodyUnavailable, ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.publish.export import export_parquet
from testbench_dagster.stages.read.answers import answers, attempts
from testbench_dagster.stages.relay.history import StoredHistory
from testbench_dagster.stages.score.outages import who_waits_for_scorers
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.datasets import open_datasets
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ALL, SCORES, WINDOW_ANSWERS, WINDOWS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import installations
from testbench_dagster_tests.stages.dispute.installations import KEY
from testbench_dagster_tests.stages.score.facts import ALPHA, configuration
from testbench_dagster_tests.stages.score.test_score import HEAD, N_DOCS, SECOND, Case


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker) -> Iterator[Case]:
    """A task of an installation whose bodies go to ``bodies``, whatever their size."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    rows = "".join(f'{{"n": {i}, "answer": "{"a" * (i + 1)}"}}\n' for i in range(N_DOCS))
    (tmp_path / "docs.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(HEAD.format(name="own"), encoding="utf-8")
    suppliers = [
        {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for name in ("alpha", "second")
    ]
    config = configuration(
        tmp_path,
        {
            "tasks": [{"name": "own", "data": {"test": "docs.jsonl"}, "samples": "all"}],
            "task_paths": ["."],
            "suppliers": suppliers,
            "bodies": {"place": f"file://{tmp_path}/bodies", "min_bytes": 1},
            "publish": f"file://{tmp_path}/site",
        },
    )
    with Workspace(config) as opened:
        opened.__dict__["worker"] = worker
        yield Case(opened, opened.specs[0])
        del opened.__dict__["worker"]


def told_of(workspace: Workspace) -> list[Finding]:
    looked_at = itertools.takewhile(lambda found: found.what != "publish", findings(workspace))
    return [found for found in looked_at if found.what == "bodies"]


def test_an_answer_that_cannot_be_read_waits_and_no_other(case: Case, tmp_path: Path) -> None:
    workspace, folder, aside = case.workspace, tmp_path / "bodies", tmp_path / "aside"
    for supplier in (ALPHA, SECOND):
        for doc in range(N_DOCS):
            case.answer(doc, "a" * (doc + 1), supplier=supplier, at=datetime.now(UTC))
    [kept] = [
        one for one in typed.find(workspace.documents, AttemptRecord, {"supplier": SECOND}) if one.doc_id == 5
    ]
    others = [one for one in typed.find(workspace.documents, AttemptRecord) if one.body == kept.body]
    assert len(others) == 2, "the same answer of both, stored once"
    [path] = folder.rglob(f"{hashlib.sha256(kept.body).hexdigest()}.gz")
    path.rename(aside)
    before = list(typed.find(workspace.documents, ScoreRecord))
    report = score_new(workspace, [ALPHA, SECOND])
    assert before == [] and report.n_scored == 2 * N_DOCS - 2 and report.n_failed == 0
    assert report.unread == {"own": 2} and report.n_put_off == 2
    assert "its body is not at" in report.why_unread["own"] and str(path) in report.why_unread["own"]
    assert len(case.scores(SECOND)) == N_DOCS - 1 and {one["error"] for one in case.scores()} == {None}
    outages = list(typed.find(workspace.documents, ScorerOutageRecord))
    assert sorted((one.supplier, one.docs, one.unread) for one in outages) == [
        (ALPHA, 1, True),
        (SECOND, 1, True),
    ]
    told = who_waits_for_scorers(workspace.documents, [ALPHA, SECOND], ["own"])["own"]
    assert told.startswith("2 answered docs wait because the answer cannot be read where it is kept (at")
    assert "nothing is asked again" in told
    folder.rename(tmp_path / "away")  # all of it is away: what is scored stays, and nothing is lost
    folder.write_text("no folder")
    assert score_new(workspace, [ALPHA, SECOND]).unread == {"own": 2}
    assert len(case.scores()) == N_DOCS - 1
    folder.unlink()
    (tmp_path / "away").rename(folder)
    aside.rename(path)
    fresh = Workspace(workspace.config, documents=None, datasets=workspace.datasets, worker=workspace.worker)
    with contextlib.closing(fresh.documents):  # this process asks a place again a minute after it was away
        report = score_new(fresh, [ALPHA, SECOND])
    assert (report.n_scored, report.unread) == (2, {})
    assert {len(case.scores(one)) for one in (ALPHA, SECOND)} == {N_DOCS}
    assert list(typed.find(workspace.documents, ScorerOutageRecord)) == []


def test_people_are_shown_all_answers_but_what_cannot_be_read(case: Case, tmp_path: Path) -> None:
    workspace = case.workspace
    for doc in range(N_DOCS):
        case.answer(doc, "a" * (doc + 1), at=datetime.now(UTC))
    assert score_new(workspace, [ALPHA]).n_scored == N_DOCS
    whole = {one.doc_id: one for one in answers(workspace, ALPHA, "own").rows}
    [lost] = [one for one in typed.find(workspace.documents, AttemptRecord) if one.doc_id == 3]
    next((tmp_path / "bodies").rglob(f"{hashlib.sha256(lost.body).hexdigest()}.gz")).unlink()
    shown = {one.doc_id: one for one in answers(workspace, ALPHA, "own").rows}
    less = shown.pop(3)
    assert shown == {doc: one for doc, one in whole.items() if doc != 3}
    assert less.error is not None and less.error.startswith(
        f"its answer cannot be read now: attempts[{lost.id}]"
    )
    assert (less.value, less.answer, less.answer_id) == (whole[3].value, None, lost.id)
    (sent,) = attempts(workspace, ALPHA, "own", 3)
    assert (sent.text, sent.error) == (None, less.error)


def test_relays_of_a_session_count_though_their_answers_cannot_be_read(case: Case, tmp_path: Path) -> None:
    for doc in range(N_DOCS):
        case.answer(doc, "a" * (doc + 1))
    documents = case.workspace.documents
    made = [
        replace(one, id=f"{one.id}s", session="s", payload_sha256=f"{one.doc_id}")
        for one in typed.find(documents, AttemptRecord)
    ]
    typed.put_new(documents, AttemptRecord, made)
    history = StoredHistory(case.workspace, {ALPHA})
    bodies = {one.payload_sha256: one.body for one in history.relays("s", but=())}
    assert bodies == {one.payload_sha256: one.body for one in made}
    digest = hashlib.sha256(made[3].body).hexdigest()
    next((tmp_path / "bodies").rglob(f"{digest}.gz")).unlink()
    less = {one.payload_sha256: one.body for one in history.relays("s", but=())}
    assert less == {**bodies, made[3].payload_sha256: b""}


def test_check_says_how_many_bodies_stand_outside_and_whether_they_can_be_read(
    case: Case, tmp_path: Path
) -> None:
    workspace, folder = case.workspace, tmp_path / "bodies"
    [told] = told_of(workspace)
    assert told.ok and told.detail == f"{folder}: 0 of the newest 0 attempts have their bodies there"
    for doc in range(4):
        case.answer(doc, "a" * 50)
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    case.answer(5, "other")
    [told] = told_of(workspace)
    assert not told.ok
    assert told.detail.startswith(
        f"{folder}: 4 of the newest 5 attempts have their bodies there; cannot read"
    )
    assert "is put off until it can be reached, and nothing is lost" in told.detail
    folder.unlink()
    (tmp_path / "away").rename(folder)
    [told] = told_of(workspace)
    assert told.ok and told.detail.endswith(
        "4 of the newest 5 attempts have their bodies there; 1 other of at least 1 byte stands in the "
        "document store, written before it was set or while it did not answer"
    )
    [lost] = folder.rglob("*.gz")  # equal answers are one file
    lost.rename(tmp_path / "lost")
    [told] = told_of(workspace)
    assert not told.ok and "4 of 4 that were read: attempts[" in told.detail
    assert "its body is not at" in told.detail
    (tmp_path / "lost").rename(lost)
    written = yaml.safe_load(workspace.config.path.read_text("utf-8"))
    large = {"place": f"file://{folder}", "min_bytes": 10_000}
    workspace.config.path.write_text(yaml.safe_dump({**written, "bodies": large}), encoding="utf-8")
    with Workspace(load_config(workspace.config.path), datasets=workspace.datasets) as changed:
        [told] = told_of(changed)
        assert told.ok and told.detail.endswith(
            "none has 10,000 bytes, from which on they go there (`min_bytes`)"
        )
    for bodies, what in ((None, []), (f"file://{tmp_path}/new", ["new: 0 of the newest 5 attempts"])):
        workspace.config.path.write_text(yaml.safe_dump({**written, "bodies": bodies}), encoding="utf-8")
        with Workspace(load_config(workspace.config.path), datasets=workspace.datasets) as changed:
            *first, last = told_of(changed)
            assert [one.detail.startswith(f"{tmp_path}/{what[n]}") for n, one in enumerate(first)] == [
                True
            ] * len(what)
            assert (
                last.ok
                and "no more go there, but these are read there: keep it, for retention" in last.detail
            )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("bodies", "is no URL of a place for files; write it like s3://bucket/prefix"),
        ("s3://id:key@bucket/x", "a URL may not hold a password or key"),
        ("file://host/x", "names a host"),
        ({"place": "s3://bucket", "min_bytes": 0}, "min_bytes"),
        ({"min_bytes": 7}, "place"),
        ({"place": "s3://bucket", "from": 7}, "from"),
        (7, "bodies"),
    ],
)
def test_what_the_key_may_say(tmp_path: Path, value: Any, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        configuration(tmp_path, {"tasks": [{"name": "starter_logic"}], "bodies": value})
    assert told in str(error.value) and "key@" not in str(error.value)


def test_the_key_in_its_short_form(tmp_path: Path) -> None:
    config = configuration(tmp_path, {"tasks": [{"name": "starter_logic"}], "bodies": "s3://bucket/x/"})
    bodies = config.settings.bodies
    assert bodies is not None and (bodies.place, bodies.min_bytes) == ("s3://bucket/x", 4096)
    assert configuration(tmp_path, {"tasks": [{"name": "starter_logic"}]}).settings.bodies is None


# -- the same results ------------------------------------------------------------------------------------


def results(workspace: Workspace, folder: Path, now: datetime) -> dict[str, Any]:
    """All that answers decide, but for when it was made: scores, windows, evidence and tables."""
    folder.mkdir()
    score_new(workspace, [KEY])
    scores = [
        {name: value for name, value in one.items() if name != "scored_at"}
        for one in workspace.documents.find(SCORES, sort=[("_id", 1)])
    ]
    export_parquet(workspace.documents, folder, {})
    write_bundle(workspace, KEY, folder / "evidence.zip", now=now)
    return {
        "scores": scores,
        "windows": [repr(row) for row in windows(workspace, now=now)],
        "attempts": list(workspace.documents.find(AttemptRecord.collection, sort=[("_id", 1)])),
        "table": pq.read_table(folder / "attempts.parquet").sort_by("_id").to_pylist(),
        "evidence": zipfile.ZipFile(folder / "evidence.zip").read("attempts.jsonl"),
    }


@pytest.mark.slow(minutes=0.5)
@pytest.mark.parametrize("servers", ["sqlite and a folder", "mongo and s3"])
def test_scores_and_windows_are_the_same_to_the_byte(
    servers: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    worker: FrameworkWorker,
) -> None:
    monkeypatch.setenv("LIVE_KEY", installations.SECRET)
    with installations.answering() as url:
        inside = installations.evaluated(installations.configure(tmp_path / "inside", url), worker)
        place = f"file://{tmp_path}/bodies"
        if servers != "sqlite and a folder":
            monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
            place = f"{request.getfixturevalue('s3_bucket')}/tb"
        path = installations.configure(tmp_path / "outside", url, bodies={"place": place, "min_bytes": 1})
    outside = Workspace(load_config(path))
    outside.worker = worker
    outside.datasets = open_datasets(inside.config.home, None)
    with inside, outside:
        for collection in ALL:  # the same relays; what follows of them is made anew
            if collection not in (SCORES, WINDOWS, WINDOW_ANSWERS):
                outside.documents.put_new(collection, inside.documents.find(collection))
        kept: Any = outside.documents
        raw = list(kept._documents.find(AttemptRecord.collection))
        assert sum("body" not in one for one in raw) == sum(one["body_bytes"] > 0 for one in raw) > 30
        now = datetime.now(UTC)
        first = results(inside, tmp_path / "first", now)
        second = results(outside, tmp_path / "second", now)
        assert len(first["scores"]) > 20
        for what, value in first.items():
            assert second[what] == value, what
        del inside.worker, outside.worker


@pytest.mark.slow(minutes=0.3)
def test_relays_write_bodies_outside_and_evidence_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker
) -> None:
    monkeypatch.setenv("LIVE_KEY", installations.SECRET)
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    bodies = {"place": f"file://{tmp_path}/bodies", "min_bytes": 1}
    with installations.answering() as url:
        workspace = installations.evaluated(
            installations.configure(tmp_path / "here", url, bodies=bodies), worker
        )
    with workspace:
        found = list(typed.find(workspace.documents, AttemptRecord))
        files = {path.name: gzip.decompress(path.read_bytes()) for path in tmp_path.glob("bodies/*/*/*/*.gz")}
        assert {hashlib.sha256(one.body).hexdigest() for one in found if one.body} == {
            name.removesuffix(".gz") for name in files
        }
        write_bundle(workspace, KEY, tmp_path / "evidence.zip")
        (tmp_path / "bodies").rename(tmp_path / "away")
        with pytest.raises(BodyUnavailable, match="its body is not at"):
            write_bundle(workspace, KEY, tmp_path / "again.zip")
        assert not (tmp_path / "again.zip").exists()
        del workspace.worker
