"""Bundles tell what became of unanswered docs, and who reads one comes to the same states."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.evidence.report import Finding, Report
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import forging
from testbench_dagster_tests.stages.score.facts import ALPHA, NOW, Facts, configuration

TASK, OTHER = "starter_logic", "starter_units"
NOW_OF_BUNDLE = NOW + timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A bundle of one task, and what checks it."""

    path: Path
    worker: FrameworkWorker

    def checked(self, path: Path | None = None) -> Report:
        return rescore(path or self.path, worker=self.worker)


@pytest.fixture(scope="module")
def made(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Eight docs answered, one at last, one failed, one open; the witnesses are answers to another task."""
    folder = tmp_path_factory.mktemp("states")
    tasks = [{"name": name, "samples": "all"} for name in (TASK, OTHER)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESTBENCH_CACHE_DIR", str(folder / "cache"))
        with Workspace(configuration(folder, {"tasks": tasks}), worker=worker) as workspace:
            facts = Facts(workspace)
            prompts = {}
            for name in (TASK, OTHER):
                registration, _ = refresh_dataset(workspace, workspace.spec(name))
                refresh_prompts(workspace, workspace.spec(name))
                where = {"task": name, "api": "chat"}
                found = list(typed.find(workspace.documents, PromptRecord, where, sort=[("position", 1)]))
                prompts[name] = (registration, found)

            def ask(name: str, place: int, fault: Fault, minutes: float, run: int) -> None:
                registration, found = prompts[name]
                prompt = found[place]
                facts.attempt(
                    registration, prompt.doc_id, fault, NOW + timedelta(minutes=minutes), number=run,
                    lease=run, prompt_id=prompt.id, text="yes" if fault.answered else None,
                    position=prompt.position,
                )  # fmt: skip

            for place in range(8):
                ask(TASK, place, Fault.OK, 0, 1)
            for run, minutes in enumerate((0, 15, 120), 1):
                ask(TASK, 8, Fault.SUPPLIER_TIMEOUT, minutes, run)
                ask(OTHER, run, Fault.OK, minutes + 0.5, 1)
            ask(TASK, 9, Fault.TRANSPORT, 300, 4)
            ask(TASK, 10, Fault.TRANSPORT, 0, 1)
            ask(TASK, 10, Fault.OK, 15, 2)
            score_new(workspace, [ALPHA], now=NOW_OF_BUNDLE)
            path = folder / "evidence.zip"
            write_bundle(workspace, ALPHA, path, tasks=[TASK], now=NOW_OF_BUNDLE)
            yield Made(path, worker)


def numbers(report: Report) -> list[Finding]:
    """What is told of states, scores and windows; the hand-made attempts lack what else a relay leaves."""
    return [finding for finding in report.findings if finding.kind in ("state", "score", "window")]


def test_a_bundle_says_occasions_and_witnesses(made: Made) -> None:
    files = forging.contents(made.path)
    states = {line["doc_id"]: line for line in forging.records(files["states.jsonl"])}
    assert sorted((s["state"], s["fault"], s["late"]) for s in states.values()) == [
        ("failed", "supplier_timeout", False),
        ("open", "transport", False),
        ("scored", "transport", True),
    ]
    (failed,) = [line for line in states.values() if line["state"] == "failed"]
    claims = {line["id"] for line in forging.records(files["witnesses.jsonl"])}
    seen = [set(occasion["witnesses"]) & claims for occasion in failed["occasions"]]
    assert [len(ids) for ids in seen] == [1, 1, 1], "one answer to the other task near each"
    (open_,) = [line for line in states.values() if line["state"] == "open"]
    assert [occasion["witnesses"] for occasion in open_["occasions"]] == [[]]


def test_who_reads_it_comes_to_the_same(made: Made) -> None:
    report = made.checked()
    assert numbers(report) == []
    (task,) = report.tasks
    assert (task.windows, task.equal, task.different) == ("equal", 9, 0)
    assert any("witness that the supplier answered" in note for note in report.notes)


Change = Callable[[forging.Records], None]


def _say_open(rows: forging.Records) -> None:
    next(row for row in rows if row["state"] == "failed")["state"] = "open"


def _hide_a_witness(rows: forging.Records) -> None:
    rows.sort(key=lambda row: row["finished_at"])
    del rows[1]


def _make_one_up(rows: forging.Records) -> None:
    at = (NOW + timedelta(minutes=300)).isoformat()
    rows.append({"id": "made-up", "finished_at": at, "latency_ms": 1.0})


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("states.jsonl", _say_open),
        ("states.jsonl", lambda rows: rows.pop()),
        ("witnesses.jsonl", _hide_a_witness),
        ("witnesses.jsonl", _make_one_up),
    ],
)
def test_what_does_not_follow_is_told(made: Made, tmp_path: Path, file: str, change: Change) -> None:
    forged = forging.edited(made.path, tmp_path / "forged.zip", file, change)
    report = made.checked(forged)
    assert {finding.kind for finding in numbers(report)} >= {"state"}


def test_a_bundle_without_states_is_still_read(made: Made, tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    files = forging.contents(made.path)
    for name in ("states.jsonl", "witnesses.jsonl", "lane_ends.jsonl"):
        del files[name]
    manifest = json.loads(files["manifest.json"])
    del manifest["states"]
    files["manifest.json"] = json.dumps({**manifest, "format": 1}).encode()
    report = made.checked(forging.write(tmp_path / "old.zip", files))
    assert not [finding for finding in report.findings if finding.kind == "state"]
    assert any("before docs had states" in note for note in report.notes)
