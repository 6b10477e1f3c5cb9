"""Answers of a model that reasons, in a charset of its own: what is told of them is the same elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.score.remarks import empty_answers, who_is_cut_short
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, records, write
from testbench_dagster_tests.stages.dispute.installations import (
    KEY,
    Answering,
    answering,
    configure,
    evaluated,
)

GENERATION = {"max_tokens": 77, "system": "Überlege kurz.", "think_end_token": "<done>", "stop": ["\n\n"]}


class Thinking(Answering):
    """Thinks in the text, in a field, or until the limit, and answers in Latin 1."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["messages"][0] == {"role": "system", "content": GENERATION["system"]}
        assert (body["max_tokens"], body["stop"]) == (77, ["\n\n"])
        number = sum(body["messages"][-1]["content"].encode()) % 4
        message: dict[str, Any] = {"content": f"hm<think><done> Löffel {number}"}
        reason = "stop"
        if number == 1:
            message = {"content": f"Löffel {number}", "reasoning_content": "hm " * 9}
        elif number == 2:
            message, reason = {"content": None, "reasoning_content": "hm " * 40}, "length"
        usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
        answer = {
            "choices": [{"message": message, "finish_reason": reason}],
            "usage": usage,
            "x": float("nan"),
        }
        data = json.dumps(answer, ensure_ascii=False).encode("latin-1")
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=ISO-8859-1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def thought(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    tasks = [{"name": "sums", "data": {"test": "docs.jsonl"}, "samples": "all", "generation": GENERATION}]
    with answering(Thinking) as url:
        workspace = evaluated(configure(tmp_path_factory.mktemp("thought"), url, tasks=tasks), worker)
    yield workspace
    del workspace.worker
    workspace.close()


def test_what_was_thought_is_counted_and_is_no_part_of_the_answer(thought: Workspace) -> None:
    found = list(typed.find(thought.documents, AttemptRecord))
    assert {attempt.fault for attempt in found} == {"ok", "truncated"}
    for attempt in found:
        assert attempt.reasoning_tokens == 7 and (attempt.reasoning_chars or 0) > 5
        assert attempt.evidence["charset"] == "iso8859-1"
        assert attempt.opening in ("", "Löffel 0", "Löffel 1", "Löffel 3")
        assert (attempt.opening == "") == (attempt.fault == "truncated")


def test_a_bundle_of_them_is_equal_elsewhere(
    thought: Workspace, worker: FrameworkWorker, tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    write_bundle(thought, KEY, path)
    report = rescore(path, trust_code=True, worker=worker)
    assert report.equal, list(report.lines())
    assert json.loads(contents(path)["tasks/sums.json"])["spec"]["generation"] == GENERATION

    def lies(rows: Records) -> None:
        for row in rows:
            row["reasoning_chars"] = 1

    forged = edited(path, tmp_path / "y.zip", "attempts.jsonl", lies)
    whats = {finding.what for finding in rescore(forged, trust_code=True, worker=worker).findings}
    assert any(what.startswith("reasoning_chars of ") for what in whats), whats

    def without_charset(rows: Records) -> None:
        for row in rows:
            row["evidence"].pop("charset")

    forged = edited(path, tmp_path / "z.zip", "attempts.jsonl", without_charset)
    assert not rescore(forged, trust_code=True, worker=worker).equal, "it would read other texts"

    files = contents(path)
    task = json.loads(files["tasks/sums.json"])
    task["spec"]["generation"] = {**GENERATION, "system": "Be wrong."}
    write(tmp_path / "w.zip", {**files, "tasks/sums.json": json.dumps(task).encode()})
    report = rescore(tmp_path / "w.zip", trust_code=True, worker=worker)
    assert not report.equal, "another way to ask is another task"
    assert records(files["prompts.jsonl"])[0]["requests"][0]["think_end_token"] == "<done>"


class Hiding(Thinking):
    """Leaves the whole answer in the field of the reasoning."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"content": "", "reasoning_content": "It is 3."}
        data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_answers_that_are_left_in_the_reasoning_are_told_of(worker: FrameworkWorker, tmp_path: Path) -> None:
    """They are scored as lm-eval scores them, as nothing; but not in silence."""
    tasks = [{"name": "starter_reading", "samples": 6}]
    with answering(Hiding) as url:
        workspace = evaluated(configure(tmp_path, url, tasks=tasks), worker)
    try:
        (row,) = [row for row in windows(workspace, suppliers=[KEY]) if row.primary]
        assert (row.n, row.score, row.truncated) == (6, 0.0, 0)
        told = empty_answers(workspace, [row])[KEY, "starter_reading"]
        assert told.startswith("6 of the newest 6 answers are empty though the model reasoned")
    finally:
        del workspace.worker
        workspace.close()


def test_one_finding_says_what_to_set(thought: Workspace) -> None:
    rows = [row for row in windows(thought, suppliers=[KEY]) if row.primary]
    remarks = empty_answers(thought, rows)
    ((subject, told),) = remarks.items()
    assert subject == (KEY, "sums")
    n = sum(a.fault == "truncated" for a in typed.find(thought.documents, AttemptRecord))
    assert told == (
        f"{n} of 12 answers are empty, cut at our token limit of 77 while the model was reasoning: set "
        "generation: {budget: 16384} for the supplier, or generation: {max_tokens: ...} for the task"
    )
    assert who_is_cut_short(remarks) == [f"answers of {KEY} to sums: {told}"]
    several = {(f"s{n}@x", task): told for n in range(5) for task in ("a", "b")}
    lines = who_is_cut_short(several)
    assert len(lines) == 4 and lines[0].startswith("answers of s0@x to a (and so with 1 further task): ")
    assert lines[3].startswith("answers of 2 more suppliers end before they begin")
