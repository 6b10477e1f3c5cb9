"""Bundles of other versions: an earlier one's verify, another classifier's or scorer's are unchecked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbench_dagster.core.versions import CLASSIFIER, SCORER, WINDOWS
from testbench_dagster.evidence.chain import Chain
from testbench_dagster.evidence.facts import read_manifest, read_task
from testbench_dagster.evidence.report import Report
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stores.documents import document_id
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.fixtures import b1e3080
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, lines, records, write

NEWER = CLASSIFIER.number + 1


def test_a_bundle_of_b1e3080_is_equal(worker: FrameworkWorker) -> None:
    report = rescore(b1e3080.BUNDLE, trust_code=True, worker=worker)
    assert report.equal, list(report.lines())
    assert sum(task.attempts for task in report.tasks) == 88
    assert [note for note in report.notes if "rest on the word" in note] == [
        "2 failed attempts (timeouts, broken connections) rest on the word of who relayed: their answers "
        "cannot show it"
    ]


def test_what_b1e3080_published_with_another_meaning_is_named_and_not_compared(
    worker: FrameworkWorker,
) -> None:
    notes = rescore(b1e3080.BUNDLE, trust_code=True, worker=worker).notes
    assert [note for note in notes if "its windows are" in note] == [
        f"its windows are of version 1, this one makes {WINDOWS.number}: latency_ms had another meaning and "
        "is not compared"
    ]


def test_scores_without_the_extracted_answer_are_equal(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    """As earlier versions stored them."""

    def forget(rows: Records) -> None:
        assert {row.pop("extracted") is not None for row in rows} == {True}

    path = edited(bundle, tmp_path / "x.zip", "scores.jsonl", forget)
    assert rescore(path, trust_code=True, worker=worker).equal


def with_manifest(bundle: Path, path: Path, change: Callable[[dict], None]) -> Path:
    """The bundle with another manifest."""
    files = contents(bundle)
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return write(path, {**files, "manifest.json": json.dumps(manifest).encode()})


def test_latencies_rest_on_the_deadline_the_bundle_names(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def shorter(manifest: dict) -> None:
        assert manifest["windows_version"] == WINDOWS.number
        assert manifest["supplier"]["deadline_s"] == 120.0
        manifest["supplier"]["deadline_s"] = 60

    report = rescore(with_manifest(bundle, tmp_path / "x.zip", shorter), trust_code=True, worker=worker)
    assert {finding.what.partition(" of ")[0] for finding in report.findings} == {"latency_ms"}
    (first, *_) = report.findings
    assert "120000.0" in str(first.stored) and "60000.0" in str(first.recomputed)


def test_windows_of_a_newer_version_are_not_computed(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def newer_windows(manifest: dict) -> None:
        manifest["windows_version"] = WINDOWS.number + 1

    report = rescore(with_manifest(bundle, tmp_path / "x.zip", newer_windows), trust_code=True, worker=worker)
    wanted = f"not computed: made by version {WINDOWS.number + 1}, here is {WINDOWS.number}"
    assert {task.windows for task in report.tasks} == {wanted}
    assert report.findings == [] and not report.equal


def test_attempts_name_their_classifier(bundle: Path) -> None:
    rows = records(contents(bundle)["attempts.jsonl"])
    assert {row["classifier"] for row in rows} == {CLASSIFIER.number}


def unchecked(report: Report, docs: int) -> None:
    """The first task could not be checked, and nothing is held against anybody."""
    sums, reading = report.tasks
    assert report.findings == [] and report.n_findings == 0
    assert report.verdict.startswith("INCOMPLETE") and not report.equal
    assert (sums.unchecked, sums.equal, sums.different) == (docs, 11 - docs, 0)
    assert sums.windows == "not computed" and sums.why
    assert (reading.unchecked, reading.equal, reading.windows) == (0, 17, "equal")


def newer(change: Callable[[dict], None] = lambda _: None) -> Callable[[Records], None]:
    """All attempts at one task as of a classifier that decides otherwise."""

    def edit(rows: Records) -> None:
        for row in rows:
            if row["task"] == "sums":
                row["classifier"] = NEWER
                change(row)

    return edit


def overloaded(row: dict) -> None:
    """A fault that this version does not know."""
    if row["fault"] == "supplier_http":
        row.update(fault="supplier_overloaded", owner="weather")


def stricter(row: dict) -> None:
    """What was a failure of one kind is one of another kind, as after a changed mapping."""
    if row["fault"] == "supplier_http":
        row.update(fault="rate_limited", owner="network")


def graded(row: dict) -> None:
    """Even answers may have another name."""
    if row["fault"] == "ok":
        row.update(fault="ok_in_time")


@pytest.mark.parametrize("change", [lambda _: None, overloaded, stricter, graded])
def test_another_classifiers_faults_are_unchecked(
    change: Callable[[dict], None], bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", newer(change))
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    assert [note for note in report.notes if "classifier" in note] == [
        f"12 attempts were judged by classifier {NEWER}, this version has {CLASSIFIER.number}: their faults, "
        "and what rests on them, are not checked"
    ]


def test_what_our_classifier_judged_is_checked_beside_it(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def one(rows: Records) -> None:
        next(row for row in rows if row["task"] == "sums" and row["fault"] == "ok")["classifier"] = NEWER

    report = rescore(
        edited(bundle, tmp_path / "x.zip", "attempts.jsonl", one), trust_code=True, worker=worker
    )
    unchecked(report, docs=1)


def test_the_chain_of_hashes_holds_for_every_classifier(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def swapped(row: dict) -> None:
        row["body_sha256"] = "0" * 64

    path = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", newer(swapped))
    report = rescore(path, trust_code=True, worker=worker)
    assert report.verdict.startswith("DIFFERENT")
    assert {finding.what for finding in report.findings} == {"hash of the raw answer of attempt 1"}


def of_scorer(bundle: Path, path: Path, number: int, better: bool = False) -> Path:
    """The bundle as one whose scores of one task were made by a scorer of another number."""
    files = contents(bundle)
    task = json.loads(files["tasks/sums.json"])
    version = task["scorer_version"].rpartition("/")[0] + f"/{number}"
    task["scorer_version"] = version
    rows = records(files["scores.jsonl"])
    for row in rows:
        if row["task"] == "sums":
            row["scorer_version"] = version
            row["_id"] = document_id("score", row["answer_id"], row["filter"], version)
            if better:
                row["metrics"]["share"] = 1.0
    return write(path, {**files, "tasks/sums.json": json.dumps(task).encode(), "scores.jsonl": lines(rows)})


@pytest.mark.parametrize("better", [False, True])
def test_another_scorers_scores_are_unchecked(
    better: bool, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = of_scorer(bundle, tmp_path / "x.zip", SCORER.number + 1, better)
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    (note,) = [note for note in report.notes if "scored by" in note]
    assert f"/{SCORER.number + 1}, this version" in note and note.endswith(f"/{SCORER.number}")


def test_every_attempt_of_b1e3080_is_classified_as_it_was() -> None:
    """While the number of the classifier stays, it comes to the same: whatever else became of its source."""
    from testbench_dagster.core.records.attempts import AttemptRecord
    from testbench_dagster.core.records.prompts import PromptRecord
    from testbench_dagster.evidence.archive import BundleReader
    from testbench_dagster.evidence.records import record_of

    assert CLASSIFIER.number == 1, "keep a bundle of the classifier before, and compare with the new one's"
    findings: list = []
    with BundleReader(b1e3080.BUNDLE, 1 << 30) as bundle:
        manifest = read_manifest(bundle)
        tasks = {name: read_task(bundle, name) for name in manifest.tasks}
        chain = Chain(manifest.supplier, tasks, findings.append)
        prompts = {
            record["_id"]: record_of(PromptRecord, record, "prompt")
            for record in bundle.records("prompts.jsonl")
        }
        faults = set()
        for record in bundle.records("attempts.jsonl"):
            attempt = record_of(AttemptRecord, record, "attempt")
            faults.add(str(attempt.fault))
            chain.attempt(attempt, record["body_sha256"], prompts[attempt.prompt_id])
    assert faults == {"ok", "truncated", "empty", "supplier_http", "rate_limited", "transport"}
    assert findings == [] and chain.witnessed == 2 and not chain.otherwise_classified
