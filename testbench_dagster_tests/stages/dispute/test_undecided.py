"""Bundles say which answers a well scorer could not digest, and who reads one tries these again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.window import Window
from testbench_dagster.evidence.report import Finding, Report
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import forging
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts

TASK, LATER = "numbers", NOW + timedelta(days=1)
NUMBERS = """task: numbers
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{n}}:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64}
process_results: !function digits.check
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""
#: Digests numbers only, no empty answer either.
DIGITS = """def check(doc, results):
    return {"right": float(int(results[0]) == int(doc["answer"]))}
"""


@dataclass
class Installation:
    """A task with a metric that takes numbers only, and answers made by hand."""

    workspace: Workspace
    folder: Path

    def __post_init__(self) -> None:
        self.facts = Facts(self.workspace)
        spec = self.workspace.spec(TASK)
        self.registration, _ = refresh_dataset(self.workspace, spec)
        refresh_prompts(self.workspace, spec)

    def answer(self, docs: Sequence[int], text: Callable[[int], str], supplier: str = ALPHA) -> None:
        for prompt in list(typed.find(self.workspace.documents, PromptRecord, {"task": TASK, "api": "chat"})):
            if prompt.doc_id in docs:
                self.facts.attempt(
                    self.registration, prompt.doc_id, supplier=supplier, prompt_id=prompt.id,
                    text=text(prompt.doc_id), position=prompt.position,
                )  # fmt: skip

    def bundle(self) -> tuple[Path, Window]:
        """The bundle of the first supplier, and its row."""
        for _ in range(2):  # what others' answers show is known the second time
            score_new(self.workspace, [ALPHA, BETA], now=LATER)
        path = self.folder / "evidence.zip"
        write_bundle(self.workspace, ALPHA, path, now=LATER)
        rows = windows(self.workspace, suppliers=[ALPHA], tasks=[TASK], now=LATER)
        return path, next(row for row in rows if row.primary)

    def checked(self, path: Path) -> Report:
        return rescore(path, worker=self.workspace.worker, trust_code=True)


@pytest.fixture
def made(tmp_path: Path, worker: FrameworkWorker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    rows = "".join(json.dumps({"n": n, "answer": str(n)}) + "\n" for n in range(8))
    (tmp_path / "docs.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/numbers.yaml").write_text(NUMBERS, encoding="utf-8")
    (tmp_path / "mine/digits.py").write_text(DIGITS, encoding="utf-8")
    settings = {
        "suppliers": [
            {"address": "alpha", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"},
            {"address": "beta", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"},
        ],
        "tasks": [{"name": TASK, "data": {"test": "docs.jsonl"}, "samples": "all"}],
        "task_paths": ["mine"],
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path), worker=worker) as workspace:
        yield Installation(workspace, tmp_path)


def numbers(report: Report) -> list[Finding]:
    """What is told of states, scores and windows; the hand-made attempts lack what else a relay leaves."""
    return [finding for finding in report.findings if finding.kind in ("state", "score", "window")]


def test_who_reads_it_comes_to_the_same_open_docs(made: Installation) -> None:
    made.answer(range(6), str)
    made.answer((6, 7), lambda doc: "seven")
    path, row = made.bundle()
    assert (row.n, row.n_open, row.score) == (6, 2, 0.75)
    records = forging.records(forging.contents(path)["undecided.jsonl"])
    assert sorted(record["doc_id"] for record in records) == [6, 7]
    report = made.checked(path)
    assert numbers(report) == []
    (task,) = report.tasks
    assert (task.windows, task.equal, task.different, task.docs) == ("equal", 6, 0, 6)
    assert not any("not scored when this was written" in note for note in report.notes)


def test_a_digested_answer_that_is_said_not_to_be_is_told(made: Installation, tmp_path: Path) -> None:
    """Else a right answer could be held open, where it counts as wrong."""
    made.answer(range(8), str)
    path, _ = made.bundle()
    taken: list[dict[str, object]] = []

    def take(rows: forging.Records) -> None:
        taken.append(rows.pop())

    def give(rows: forging.Records) -> None:
        rows += [{**row, "scorer_version": f"{row['scorer_version']}/undecided", "metrics": {}, "error": "e"}
                 for row in taken]  # fmt: skip

    forged = forging.edited(path, tmp_path / "one.zip", "scores.jsonl", take)
    forged = forging.edited(forged, tmp_path / "two.zip", "undecided.jsonl", give)
    findings = numbers(made.checked(forged))
    told = [f for f in findings if "cannot digest the answer" in f.what]
    assert [(f.doc_id, f.stored, f.recomputed) for f in told] == [(7, "open", '{"right":1.0}')]


def test_without_a_scored_answer_it_is_the_word_of_who_scored(made: Installation) -> None:
    made.answer((6, 7), lambda doc: "seven")
    made.answer((0,), str, BETA)
    path, row = made.bundle()
    assert (row.n, row.n_open) == (0, 2)
    report = made.checked(path)
    assert numbers(report) == []
    assert report.tasks[0].windows == "equal"
    assert any("2 answers are open because a scorer that was well" in note for note in report.notes)


def test_what_others_answers_show_to_be_unscorable_is_taken_on_word(made: Installation) -> None:
    made.answer(range(6), str)
    made.answer((6, 7), lambda doc: "seven")
    made.answer((6, 7), str, BETA)
    path, row = made.bundle()
    assert (row.n, row.n_open, row.n_failed) == (6, 0, 2)
    report = made.checked(path)
    assert numbers(report) == []
    assert report.tasks[0].windows == "equal"
    assert any("2 answers that are not digested here either are unscorable" in n for n in report.notes)


def test_a_bundle_that_has_no_such_file_is_read(made: Installation, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    made.answer(range(8), str)
    files = forging.contents(made.bundle()[0])
    del files["undecided.jsonl"]
    manifest = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps({**manifest, "format": 2}).encode()
    report = made.checked(forging.write(tmp_path / "old.zip", files))
    assert numbers(report) == [] and report.tasks[0].windows == "equal"
