"""Bundles of other versions: an earlier one's verify, another classifier's or scorer's are unchecked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbench_dagster.core.versions import CLASSIFIER, PAYLOADS, SCORER, WINDOWS
from testbench_dagster.evidence.chain import Chain
from testbench_dagster.evidence.facts import read_manifest, read_task
from testbench_dagster.evidence.report import Report
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stores.documents import document_id
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.fixtures import b1e3080
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, lines, records, write

NEWER = CLASSIFIER.number + 1


def test_a_bundle_of_b1e3080_holds_nothing_against_anybody(worker: FrameworkWorker) -> None:
    """Its faults were decided by the first classifier."""
    report = rescore(b1e3080.BUNDLE, trust_code=True, worker=worker)
    assert report.findings == [] and report.verdict.startswith("INCOMPLETE"), list(report.lines())
    assert sum(task.attempts for task in report.tasks) == 88
    assert [note for note in report.notes if "classifier" in note] == [
        f"88 attempts were judged by classifier 1, this version has {CLASSIFIER.number}: their faults, "
        "and what rests on them, are not checked",
        "2 of those that classifier 1 called empty are ok by this version: their answers show it",
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
    assert (reading.unchecked, reading.equal, reading.windows) == (0, 18, "equal")


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


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        (lambda _: None, []),
        (overloaded, ["1 of those that classifier {} called supplier_overloaded are supplier_http"]),
        (stricter, ["1 of those that classifier {} called rate_limited are supplier_http"]),
        (graded, ["10 of those that classifier {} called ok_in_time are ok"]),
    ],
)
def test_another_classifiers_faults_are_unchecked(
    change: Callable[[dict], None],
    anew: list[str],
    bundle: Path,
    tmp_path: Path,
    worker: FrameworkWorker,
) -> None:
    path = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", newer(change))
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    assert [note for note in report.notes if "classifier" in note] == [
        f"12 attempts were judged by classifier {NEWER}, this version has {CLASSIFIER.number}: their faults, "
        "and what rests on them, are not checked",
        *(f"{note.format(NEWER)} by this version: their answers show it" for note in anew),
    ]


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_that_no_classifier_has_are_another_classifiers(
    number: int, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = edited(
        bundle, tmp_path / "x.zip", "attempts.jsonl", newer(lambda row: row.update(classifier=number))
    )
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    assert any(f"judged by classifier {number}, this version" in note for note in report.notes)


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


def of_other_requests(bundle: Path, path: Path, engine: str, scorer: int) -> Path:
    """The bundle as one whose first task asks otherwise: all ids follow from its other task hash."""
    files = contents(bundle)
    task, manifest = (json.loads(files[name]) for name in ("tasks/sums.json", "manifest.json"))
    task_hash, config_hash = "a" * 40, "b" * 64
    version = f"lm_eval-{engine}/{config_hash[:12]}/{scorer}"
    task["registration"].update(task_hash=task_hash, config_hash=config_hash, engine_version=engine)
    task["scorer_version"] = version
    now: dict[str, str] = {}
    kinds = {name: records(files[f"{name}.jsonl"]) for name in ("prompts", "attempts", "scores")}
    for kind, rows in kinds.items():
        for row in (row for row in rows if row["task"] == "sums"):
            row["task_hash"] = task_hash
            if kind == "prompts":
                named = ("task", "task_hash", "epoch", "api", "position", "doc_id", "requests")
                made = document_id("prompt", *(row[name] for name in named))
            elif kind == "attempts":
                row["prompt_id"] = now[row["prompt_id"]]
                named = ("supplier", "prompt_id", "round", "idx", "repeat", "attempt")
                made = document_id("attempt", *(row[name] for name in named))
            else:
                row["prompt_id"] = now[row["prompt_id"]]
                row["attempt_ids"] = [now[id_] for id_ in row["attempt_ids"]]
                (row["answer_id"],) = row["attempt_ids"]
                row["scorer_version"] = version
                made = document_id("score", row["answer_id"], row["filter"], version)
            now[row["_id"]] = row["_id"] = made
    kinds["states"] = records(files["states.jsonl"])
    for state in kinds["states"]:
        state["prompt_id"] = now.get(state["prompt_id"], state["prompt_id"])
        for occasion in state["occasions"]:
            occasion["witnesses"] = sorted(now.get(id_, id_) for id_ in occasion["witnesses"])
    for window in manifest["windows"]:
        if window["task"] == "sums":
            window["task_hash"] = task_hash
    changed = {"tasks/sums.json": task, "manifest.json": manifest}
    return write(
        path,
        {
            **files,
            **{name: json.dumps(value).encode() for name, value in changed.items()},
            **{f"{name}.jsonl": lines(rows) for name, rows in kinds.items()},
        },
    )


@pytest.mark.parametrize(
    ("engine", "scorer"), [(LM_EVAL_VERSION, SCORER.number + 1), ("0.0.1", SCORER.number)]
)
def test_another_scorer_may_have_another_task_hash(
    engine: str, scorer: int, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = of_other_requests(bundle, tmp_path / "x.zip", engine, scorer)
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    assert [note for note in report.notes if "scored by" in note] == [
        f"sums: scored by lm_eval-{engine}/{'b' * 12}/{scorer}, this version of testbench_dagster scores as "
        f"lm_eval-{LM_EVAL_VERSION}/{'b' * 12}/{SCORER.number}"
    ]


def test_of_the_same_scorer_another_task_hash_is_a_finding(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = of_other_requests(bundle, tmp_path / "x.zip", LM_EVAL_VERSION, SCORER.number)
    report = rescore(path, trust_code=True, worker=worker)
    assert report.verdict.startswith("DIFFERENT")
    assert {finding.what for finding in report.findings if finding.kind == "definition"} == {
        "task hash",
        "hash of the definition",
    }


def test_a_registration_with_another_lm_eval_is_unchecked_whatever_its_scores_say(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files = contents(bundle)
    task = json.loads(files["tasks/sums.json"])
    task["registration"]["engine_version"] = "0.0.1"
    path = write(tmp_path / "x.zip", {**files, "tasks/sums.json": json.dumps(task).encode()})
    report = rescore(path, trust_code=True, worker=worker)
    unchecked(report, docs=11)
    assert f"sums: registered with lm_eval 0.0.1, here is {LM_EVAL_VERSION}" in report.notes


# ---------------------------------------------------------------------------------------- requests


def test_attempts_name_what_built_their_request(bundle: Path) -> None:
    rows = records(contents(bundle)["attempts.jsonl"])
    assert {row["payload_version"] for row in rows} == {PAYLOADS.number}


def built_by(version: int | None, otherwise: bool = True) -> Callable[[Records], None]:
    """All attempts at one task as sent by another version, in other words or in the same."""

    def edit(rows: Records) -> None:
        for row in rows:
            if row["task"] == "sums":
                row["payload_version"] = version
                if otherwise:
                    row["payload_sha256"] = hashlib.sha256(row["_id"].encode()).hexdigest()

    return edit


@pytest.mark.parametrize("version", [PAYLOADS.number + 1, 0])
def test_requests_that_another_version_built_otherwise_are_unchecked(
    version: int, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", built_by(version))
    report = rescore(path, trust_code=True, worker=worker)
    sums, reading = report.tasks
    assert report.findings == [] and report.verdict.startswith("INCOMPLETE")
    assert (sums.unchecked_requests, reading.unchecked_requests) == (12, 0)
    assert sums.why == "another version built the requests of 12 attempts" and reading.why is None
    assert [(task.equal, task.windows) for task in report.tasks] == [(11, "equal"), (18, "equal")]
    assert report.notes == [
        f"the requests of 12 attempts were built by version {version} of what builds them, here is "
        f"{PAYLOADS.number}: whether they were sent as stored is not checked"
    ]


def test_requests_that_come_out_the_same_are_checked_whoever_built_them(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    path = edited(
        bundle, tmp_path / "x.zip", "attempts.jsonl", built_by(PAYLOADS.number + 1, otherwise=False)
    )
    report = rescore(path, trust_code=True, worker=worker)
    assert report.equal and report.notes == []


@pytest.mark.parametrize("version", [PAYLOADS.number, None])
def test_of_the_same_version_another_request_is_a_finding(
    version: int | None, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    assert PAYLOADS.number == 1, "attempts that name no version are those of another one now"
    path = edited(bundle, tmp_path / "x.zip", "attempts.jsonl", built_by(version))
    report = rescore(path, trust_code=True, worker=worker)
    assert report.n_findings == 12 and report.verdict.startswith("DIFFERENT")
    assert {finding.what for finding in report.findings} == {
        "hash of the request as sent of attempt 1, under every known model name"
    }


# ----------------------------------------------------------------------------------------- windows


def test_the_manifest_names_what_made_its_windows(bundle: Path) -> None:
    assert json.loads(contents(bundle)["manifest.json"])["windows_version"] == WINDOWS.number


def of_windows(bundle: Path, path: Path, version: int | None) -> Path:
    """The bundle as one whose windows follow from another formula, by an installation of that version."""
    files = contents(bundle)
    manifest = json.loads(files["manifest.json"])
    del manifest["windows_version"]
    if version is not None:
        manifest["windows_version"] = version
    for window in manifest["windows"]:
        window["ci_high"] = 0.99999
    return write(path, {**files, "manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize("version", [WINDOWS.number + 1, 0])
def test_windows_of_another_formula_are_unchecked(
    version: int, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    report = rescore(of_windows(bundle, tmp_path / "x.zip", version), trust_code=True, worker=worker)
    assert report.findings == [] and report.verdict.startswith("INCOMPLETE")
    said = f"windows by formulas of version {version}, here of version {WINDOWS.number}"
    assert [(task.equal, task.different, task.windows) for task in report.tasks] == [
        (11, 0, f"not computed: {said}"),
        (18, 0, f"not computed: {said}"),
    ]
    assert f"{said}: the published windows are not checked" in report.notes


def test_windows_of_bundles_that_name_no_version_are_those_of_the_first(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    report = rescore(of_windows(bundle, tmp_path / "x.zip", None), trust_code=True, worker=worker)
    said = f"windows by formulas of version 1, here of version {WINDOWS.number}"
    assert [task.windows for task in report.tasks] == [f"not computed: {said}"] * 2


def test_attempts_of_b1e3080_are_judged_by_another_classifier_that_differs_where_it_should() -> None:
    """Classifier 2 takes an answer without text for one, and tells overload, quota and key apart."""
    from testbench_dagster.core.records.attempts import AttemptRecord
    from testbench_dagster.core.records.prompts import PromptRecord
    from testbench_dagster.evidence.archive import BundleReader
    from testbench_dagster.evidence.records import record_of
    from testbench_dagster.transports.registry import shown

    # classifier 3 reads more bodies than 2 (transports/odd.py has them) and tells apart what a proxy on the
    # way says; of these attempts it thinks as 2 does
    assert CLASSIFIER.number in (2, 3), (
        "keep a bundle of the classifier before, and compare with the new one's"
    )
    findings: list = []
    with BundleReader(b1e3080.BUNDLE, 1 << 30) as bundle:
        manifest = read_manifest(bundle)
        tasks = {name: read_task(bundle, name) for name in manifest.tasks}
        chain = Chain(manifest.supplier, tasks, findings.append)
        prompts = {
            record["_id"]: record_of(PromptRecord, record, "prompt")
            for record in bundle.records("prompts.jsonl")
        }
        changed = set()
        for record in bundle.records("attempts.jsonl"):
            attempt = record_of(AttemptRecord, record, "attempt")
            prompt = prompts[attempt.prompt_id]
            request = prompt.requests[attempt.idx]
            found = {str(fault) for fault in shown(attempt, request, prompt.api, attempt.error).faults}
            changed |= {(attempt.fault, each) for each in {attempt.fault} & found or found}
            chain.attempt(attempt, record["body_sha256"], prompt)
    assert changed == {
        ("ok", "ok"),
        ("truncated", "truncated"),
        ("empty", "ok"),
        ("supplier_http", "supplier_http"),
        ("rate_limited", "rate_limited"),
        ("transport", "transport"),
    }
    assert findings == [] and set(chain.otherwise_classified) == {1}
