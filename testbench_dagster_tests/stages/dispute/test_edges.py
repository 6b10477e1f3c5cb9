"""Evidence of the unusual kinds: retries, leases lost, pages that are signed, epochs with published seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.relay.writer import fenced_out
from testbench_dagster.stages.sample.catalogue import refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, EPOCHS
from testbench_dagster.tasks.frameworks import Framework
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, records, write
from testbench_dagster_tests.stages.dispute.installations import (
    KEY,
    Answering,
    answering,
    configure,
    evaluated,
)


class Busy(Answering):
    """Refuses every question once, and serves a page about itself."""

    seen: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = self.rfile.peek(int(self.headers["Content-Length"]))  # type: ignore[attr-defined]
        question = json.loads(body)["messages"][-1]["content"]
        Busy.seen[question] += 1
        if Busy.seen[question] > 1:
            super().do_POST()
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(429)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"busy")

    def do_GET(self) -> None:
        data = b'{"hidden_size": 4096, "model_type": "llama"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def busy(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("busy")
    tasks = [
        {"name": "starter_reading", "samples": 6},
        {"name": "config", "framework": "signatures"},
        {"name": "identity", "framework": "signatures"},
    ]
    with answering(Busy) as url:
        workspace = evaluated(configure(folder, url, tasks=tasks, relays={"retries": 2}), worker)
        for spec in workspace.specs:
            refresh_prompts(workspace, spec, roll_before=datetime.now(UTC) + timedelta(seconds=1))
        relay_due(workspace, [KEY], force_since=datetime.now(UTC))
        score_new(workspace, [KEY])
    lost = next(workspace.documents.find(ATTEMPTS, {"task": "starter_reading", "fault": "ok"}))
    record = fenced_out(AttemptRecord.from_document({**lost, "lease": 7}))
    typed.put_new(workspace.documents, AttemptRecord, [record])
    yield workspace
    del workspace.worker
    workspace.close()


@pytest.fixture(scope="module")
def unusual(busy: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unusual") / "x.zip"
    write_bundle(busy, KEY, path)
    return path


def test_the_unusual_is_equal_too(unusual: Path, worker: FrameworkWorker) -> None:
    report = rescore(unusual, worker=worker)
    assert report.equal, list(report.lines())
    assert [t.task for t in report.tasks] == ["starter_reading", "config", "identity"]
    assert all(t.docs for t in report.tasks)
    assert {t.definition for t in report.tasks} == {"equal"}
    assert "EQUAL: every hash, answer" in report.verdict
    attempts = records(contents(unusual)["attempts.jsonl"])
    assert {0, 1, 2} <= {row["attempt"] for row in attempts}, "lost leases and retries"
    assert {row["epoch"] for row in attempts} == {1, 2}
    assert {row["fault"] for row in attempts} >= {"rate_limited", "internal", "ok"}


def test_hashes_that_a_framework_does_not_make_again_are_told(
    unusual: Path, worker: FrameworkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Framework, "identify", lambda *_: None)
    report = rescore(unusual, worker=worker)
    assert report.equal
    assert report.verdict == (
        "EQUAL: every answer, score and window is as the bundle says, but the hashes of the definition of 3 "
        "tasks were not made again: see the notes."
    )
    assert report.tasks[1].definition == "not computed: framework 'signatures' has no identify()"
    told = [note for note in report.notes if "were not made again: framework 'signatures'" in note]
    assert [note.partition(":")[0] for note in told] == ["config", "identity"]


def test_the_seed_is_told_only_when_its_epoch_is_over(unusual: Path) -> None:
    task = json.loads(contents(unusual)["tasks/starter_reading.json"])
    assert [(e["epoch"], e["seed"] is None) for e in task["epochs"]] == [(1, False), (2, True)]
    assert all(len(e["seed_sha256"]) == 64 for e in task["epochs"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_dropped_attempt_is_named_whichever_it_is(
    number: int, unusual: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def drop(rows: Records) -> None:
        rows.remove(next(r for r in rows if r["attempt"] == number and r["task"] == "starter_reading"))

    report = rescore(edited(unusual, tmp_path / "x.zip", "attempts.jsonl", drop), worker=worker)
    whats = " ".join(f.what for f in report.findings)
    assert "number of attempts" in whats
    assert ("attempt 1 is missing" in whats) == (number == 1)


def test_another_order_than_the_committed_one_is_named(
    unusual: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def reorder(seed: str) -> Path:
        files = contents(unusual)
        task = json.loads(files["tasks/starter_reading.json"])
        task["epochs"][0]["seed"] = seed
        return write(tmp_path / "x.zip", {**files, "tasks/starter_reading.json": json.dumps(task).encode()})

    report = rescore(reorder("chosen afterwards"), worker=worker)
    whats: list[Any] = [f.what for f in report.findings if f.kind == "prompt"]
    assert "hash of the seed of epoch 1" in whats and "position by the epoch's seed" in whats
    assert {f.task for f in report.findings} == {"starter_reading"}


def test_the_number_of_docs_follows_from_the_epoch_in_the_bundle(
    worker: FrameworkWorker, tmp_path: Path
) -> None:
    """An epoch wants two docs of the four that were asked: the row rests on these, here and there."""
    tasks = [{"name": "starter_reading", "samples": {"min": 2, "start": 4, "max": 6, "half_width": 0.4}}]
    with answering(Answering) as url:
        workspace = evaluated(configure(tmp_path / "home", url, tasks=tasks), worker)
    try:
        first = workspace.documents.find(EPOCHS, {"task": "starter_reading"})
        second = {**next(first), "_id": "second", "epoch": 2, "groups": 5, "variance": 0.0}
        second |= {"spread_epoch": 2, "spread_at": datetime.now(UTC), "spread_draw": "draw"}
        assert workspace.documents.put_new(EPOCHS, [second]) == 1
        path = tmp_path / "bundle.zip"
        write_bundle(workspace, KEY, path)
    finally:
        del workspace.worker
        workspace.close()
    task = json.loads(contents(path)["tasks/starter_reading.json"])
    assert [(e["epoch"], e["groups"], e["variance"]) for e in task["epochs"]] == [(1, 0, None), (2, 5, 0.0)]
    assert "spread_epoch" not in task["epochs"][0]
    assert (task["epochs"][1]["spread_epoch"], task["epochs"][1]["spread_draw"]) == (2, "draw")
    windows = json.loads(contents(path)["manifest.json"])["windows"]
    assert {(row["n"], row["n_planned"]) for row in windows} == {(2, 2)}
    report = rescore(path, worker=worker)
    assert report.equal, list(report.lines())

    task["epochs"][1]["variance"] = 0.25
    forged = contents(path) | {"tasks/starter_reading.json": json.dumps(task).encode()}
    write(tmp_path / "forged.zip", forged)
    told = list(rescore(tmp_path / "forged.zip", worker=worker).lines())
    assert any("n_planned" in line for line in told), told
