"""Every kind of change to a bundle is found and named, also where the hashes were put right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.evidence.report import Finding
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stores.documents import document_id
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import (
    Records,
    contents,
    edited,
    lines,
    records,
    say,
    write,
)


def of(rows: Records, doc_id: int, task: str = "sums") -> dict[str, Any]:
    return next(row for row in rows if row["doc_id"] == doc_id and row.get("task", task) == task)


def answered(rows: Records) -> dict[str, Any]:
    return next(row for row in rows if row["fault"] == "ok" and row["task"] == "sums")


def longer_answer(rows: Records) -> None:
    say(answered(rows), "It is 12 after all.")


def better_score(rows: Records) -> None:
    of(rows, 4)["metrics"]["share"] = 1.0


def last_bit(rows: Records) -> None:
    metrics = of(rows, 4)["metrics"]
    metrics["share"] = metrics["share"] * (1 + 2**-52)


def whole_number(rows: Records) -> None:
    score = next(r for r in rows if r["task"] == "starter_reading" and 0.0 in r["metrics"].values())
    name = next(n for n, v in score["metrics"].items() if v == 0.0)
    score["metrics"][name] = 0


def other_extract(rows: Records) -> None:
    of(rows, 4)["extracted"] = "B"


def other_target(rows: Records) -> None:
    doc = of(rows, 4)
    doc["body"] = doc["body"].replace('"4"', '"5"')


def other_request(rows: Records) -> None:
    request = of(rows, 4)["requests"][0]
    request["messages"][-1]["content"] += " Be wrong."


def dropped(kind: str) -> Callable[[Records], None]:
    def drop(rows: Records) -> None:
        rows.remove(next(row for row in rows if row.get("fault", "ok") == kind and row["task"] == "sums"))

    return drop


def blamed(rows: Records) -> None:
    answered(rows).update(fault="supplier_timeout", owner="supplier", opening=None)


def excused(rows: Records) -> None:
    next(row for row in rows if row["fault"] == "supplier_http").update(fault="transport", owner="network")


def retold(rows: Records) -> None:
    next(row for row in rows if row["fault"] == "supplier_http").update(fault="rate_limited", owner="network")


def failed(rows: Records) -> dict[str, Any]:
    return next(row for row in rows if row["fault"] == "supplier_http")


def refused(rows: Records) -> None:
    """A right answer as something the supplier would not say."""
    answered(rows).update(fault="supplier_refused", owner="supplier", opening=None)


def garbled(rows: Records) -> None:
    answered(rows).update(fault="supplier_protocol", owner="supplier", error="invalid JSON", opening=None)


def ours(rows: Records) -> None:
    answered(rows).update(fault="internal", owner="internal", opening=None)


def unheard(rows: Records) -> None:
    """A right answer as one that never came, though it is there."""
    answered(rows).update(fault="transport", owner="network", status=None, opening=None)


def too_long(rows: Records) -> None:
    answered(rows).update(fault="supplier_protocol", owner="supplier", body_truncated=True, opening=None)


def late(rows: Records) -> None:
    """A failure of the supplier as another of its failures."""
    failed(rows).update(fault="supplier_timeout")


def by_gateway(rows: Records) -> None:
    failed(rows).update(fault="gateway", owner="gateway")


def excused_by_words(rows: Records) -> None:
    """The words of a connection that broke excuse nobody: what came first was an HTTP error."""
    error = "ClientOSError while reading: Connection reset by peer"
    failed(rows).update(fault="transport", owner="network", error=error)


def without_status(rows: Records) -> None:
    failed(rows).update(fault="transport", owner="network", status=None)


def of_a_miner(rows: Records) -> None:
    """What a relay miner's answer would be excused by is none in an answer over plain HTTP."""
    row = failed(rows)
    row.update(fault="budget", owner="budget", status=None)
    row["evidence"]["http_status"] = 429


def disowned_failure(rows: Records) -> None:
    row = failed(rows)
    original = {"_id": row["_id"], "attempt": 1, "fault": "ok", "error": None}
    row["evidence"]["disowned"] = original
    row.update(fault="internal", owner="internal", attempt=0, lease=1)
    row["_id"] = document_id("disowned", original["_id"], 1)


def later(rows: Records) -> None:
    answered(rows)["finished_at"] = "2020-01-01T00:00:00.000+00:00"


def cheaper(rows: Records) -> None:
    answered(rows)["completion_tokens"] = 1


def other_hash(rows: Records) -> None:
    answered(rows)["answer_hash"] = "0" * 16


def renumbered(rows: Records) -> None:
    answered(rows)["attempt"] = 2


CASES: dict[str, tuple[str, Callable[[Records], None], str, str]] = {
    "answer": ("attempts.jsonl", longer_answer, "score", "share"),
    "score": ("scores.jsonl", better_score, "score", "share"),
    "last bit of a score": ("scores.jsonl", last_bit, "score", "share"),
    "extracted answer": ("scores.jsonl", other_extract, "score", "extracted answer, filter none"),
    "type of a score": ("scores.jsonl", whole_number, "score", ""),
    "target": ("tasks/sums.docs.jsonl", other_target, "doc", "hash of question and target"),
    "request": ("prompts.jsonl", other_request, "prompt", "id"),
    "answer dropped": ("attempts.jsonl", dropped("ok"), "attempt", "an answer that was scored is missing"),
    "failure dropped": ("attempts.jsonl", dropped("supplier_http"), "attempt", "number of attempts"),
    "score dropped": ("scores.jsonl", dropped("ok"), "score", "number of scores"),
    "answer called a failure": ("attempts.jsonl", blamed, "answer", "complete answer all the same"),
    "answer called refused": ("attempts.jsonl", refused, "answer", "complete answer all the same"),
    "answer called garbled": ("attempts.jsonl", garbled, "answer", "complete answer all the same"),
    "answer called our failure": ("attempts.jsonl", ours, "answer", "complete answer all the same"),
    "answer called lost": ("attempts.jsonl", unheard, "answer", "fault of attempt 1"),
    "answer called too large": ("attempts.jsonl", too_long, "answer", "complete answer all the same"),
    "failure called another": ("attempts.jsonl", retold, "answer", "fault of attempt 1"),
    "failure called the network's": ("attempts.jsonl", excused, "answer", "fault of attempt 1"),
    "failure called late": ("attempts.jsonl", late, "answer", "fault of attempt 1"),
    "failure called the gateway's": ("attempts.jsonl", by_gateway, "answer", "fault of attempt 1"),
    "failure excused by words": ("attempts.jsonl", excused_by_words, "answer", "fault of attempt 1"),
    "failure without its status": ("attempts.jsonl", without_status, "answer", "fault of attempt 1"),
    "failure called a miner's": ("attempts.jsonl", of_a_miner, "answer", "fault of attempt 1"),
    "failure called disowned": ("attempts.jsonl", disowned_failure, "answer", "fault of attempt 0"),
    "tokens": ("attempts.jsonl", cheaper, "answer", "completion_tokens"),
    "hash of the answer": ("attempts.jsonl", other_hash, "answer", "answer_hash of attempt 1"),
    "time": ("attempts.jsonl", later, "score", "answered_at"),
    "attempt number": ("attempts.jsonl", renumbered, "attempt", "attempt 1 is missing"),
}


def named(findings: list[Finding], kind: str, what: str) -> list[Finding]:
    return [f for f in findings if f.kind == kind and what in f.what]


@pytest.mark.parametrize("case", CASES)
def test_a_change_is_named_although_the_hashes_were_put_right(
    case: str, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    name, change, kind, what = CASES[case]
    report = rescore(edited(bundle, tmp_path / "forged.zip", name, change), trust_code=True, worker=worker)
    assert named(report.findings, kind, what), [str(f) for f in report.findings]
    assert not named(report.findings, "file", "")
    assert not report.equal and report.verdict.startswith("DIFFERENT")
    docs = {f.doc_id for f in report.findings if f.kind != "window" and f.doc_id is not None}
    assert len(docs) == 1, "nothing else is accused"


def test_a_change_without_the_hashes_names_the_file_too(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    forged = edited(bundle, tmp_path / "forged.zip", "attempts.jsonl", longer_answer, sealed=False)
    report = rescore(forged, trust_code=True, worker=worker)
    assert [f.what for f in report.findings if f.kind == "file"] == ["hash of attempts.jsonl"]
    (score,) = named(report.findings, "score", "share")
    before = of(records(contents(bundle)["scores.jsonl"]), score.doc_id or 0)["metrics"]["share"]
    assert score.stored == repr(before) and score.recomputed not in (None, score.stored)


def test_a_failure_that_becomes_nobodys_fault_changes_the_window(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    """Beside the answer that shows the failure, the published numbers say otherwise."""
    report = rescore(
        edited(bundle, tmp_path / "x.zip", "attempts.jsonl", excused), trust_code=True, worker=worker
    )
    assert named(report.findings, "window", "errors of ")


@pytest.mark.parametrize(("field", "value"), [("score", 0.5), ("n", 10), ("ci_low", None), ("errors", {})])
def test_a_published_number_that_does_not_follow_is_named(
    field: str, value: Any, bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files = contents(bundle)
    manifest = json.loads(files["manifest.json"])
    row = next(r for r in manifest["windows"] if r["task"] == "starter_reading")
    assert row[field] != value
    row[field] = value
    files["manifest.json"] = json.dumps(manifest).encode()
    report = rescore(write(tmp_path / "x.zip", files), trust_code=True, worker=worker)
    (finding,) = report.findings
    assert (finding.kind, finding.task) == ("window", "starter_reading") and field in finding.what


def test_a_published_window_that_was_left_out_is_missed(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files = contents(bundle)
    manifest = json.loads(files["manifest.json"])
    manifest["windows"] = [row for row in manifest["windows"] if row["task"] != "sums"]
    files["manifest.json"] = json.dumps(manifest).encode()
    report = rescore(write(tmp_path / "x.zip", files), trust_code=True, worker=worker)
    assert named(report.findings, "window", "share, none is missing")


def test_an_edited_definition_is_not_the_registered_one(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files = contents(bundle)
    helper = files["definitions/0/helper.py"]
    files["definitions/0/helper.py"] = helper.replace(b"/ 7", b"/ 9")
    report = rescore(write(tmp_path / "x.zip", files), trust_code=True, worker=worker)
    assert named(report.findings, "definition", "hash of the definition")
    assert len(named(report.findings, "score", "share")) == 11


def test_bundled_code_runs_only_when_it_is_trusted(
    bundle: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    files, mark = contents(bundle), tmp_path / "ran"
    files["definitions/0/helper.py"] += f"\nopen({str(mark)!r}, 'w').close()\n".encode()
    forged = write(tmp_path / "x.zip", files)
    report = rescore(forged, worker=worker)
    sums, reading = report.tasks
    assert (sums.unchecked, sums.equal) == (11, 0) and "--trust-code" in (sums.why or "")
    assert (reading.equal, reading.windows) == (18, "equal")
    assert report.verdict.startswith("INCOMPLETE") and not report.equal and not mark.exists()
    rescore(forged, trust_code=True, worker=worker)
    assert mark.exists()


def test_the_verdict_of_a_task_counts_its_docs(bundle: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    report = rescore(
        edited(bundle, tmp_path / "x.zip", "scores.jsonl", better_score), trust_code=True, worker=worker
    )
    sums, reading = report.tasks
    assert (sums.docs, sums.equal, sums.different, sums.failed, sums.attempts) == (11, 10, 1, 1, 12)
    assert sums.windows == "equal", "the published number is that of the true score"
    assert (reading.docs, reading.equal, reading.different, reading.failed) == (18, 18, 0, 2)


def test_records_of_others_are_refused(bundle: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    def another(rows: Records) -> None:
        rows[0]["supplier"] = "other@external"

    report = rescore(
        edited(bundle, tmp_path / "x.zip", "attempts.jsonl", another), trust_code=True, worker=worker
    )
    assert named(report.findings, "attempt", "of another supplier")


def test_texts_of_a_bundle_are_shown_escaped(bundle: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    files = contents(bundle)
    rows = records(files["scores.jsonl"])
    of(rows, 4)["metrics"]["\x1b[31mred"] = 1.0
    report = rescore(
        write(tmp_path / "x.zip", {**files, "scores.jsonl": lines(rows)}), trust_code=True, worker=worker
    )
    shown = "\n".join(report.lines())
    assert "red, filter none" in shown and "\x1b" not in shown
