"""Evidence of log-probabilities: what a stored answer 200 shows is computed again, not taken on trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbench_dagster.core.versions import CLASSIFIER
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests import echoing
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, records

KEY = "merged_twice@external"


@pytest.fixture(scope="module")
def evidence(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a supplier whose tokenizer merges across the boundary in two of six docs."""
    folder = tmp_path_factory.mktemp("echoes")
    path = folder / "evidence.zip"
    with echoing.echoing() as (root, _):
        urls = {"merged_twice": f"{root}/merged_twice/v1"}
        config = echoing.installation(folder / "own", urls, tasks=["echoes"])
        workspace = echoing.measured(config, worker)
    with workspace:
        write_bundle(workspace, KEY, path)
        del workspace.worker
    return path


def test_faults_and_scores_follow_from_the_answers(evidence: Path, worker: FrameworkWorker) -> None:
    faults = [row["fault"] for row in records(contents(evidence)["attempts.jsonl"])]
    assert {"ok", "unsupported"} == set(faults)
    report = rescore(evidence, trust_code=True, worker=worker)
    assert report.equal, list(report.lines())
    assert not any("cannot show it" in note for note in report.notes)


def test_a_straddling_answer_that_is_called_something_else_is_told(
    evidence: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def forge(rows: Records) -> None:
        row = next(row for row in rows if row["fault"] == "unsupported")
        row.update(fault="supplier_protocol", owner="supplier")

    report = rescore(
        edited(evidence, tmp_path / "x.zip", "attempts.jsonl", forge), trust_code=True, worker=worker
    )
    assert [(f.kind, f.stored, f.recomputed) for f in report.findings if f.kind == "answer"] == [
        ("answer", "supplier_protocol", "unsupported")
    ]


def test_what_an_earlier_classifier_called_broken_is_looked_at_again(
    evidence: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def reclassify(rows: Records) -> None:
        for row in rows:
            row["classifier"] = CLASSIFIER.number - 1
            if row["fault"] == "unsupported":
                row.update(fault="supplier_protocol", owner="supplier")

    path = edited(evidence, tmp_path / "x.zip", "attempts.jsonl", reclassify)
    straddling = sum(row["fault"] == "supplier_protocol" for row in records(contents(path)["attempts.jsonl"]))
    report = rescore(path, trust_code=True, worker=worker)
    assert report.findings == [] and report.verdict.startswith("INCOMPLETE")
    assert straddling > 0
    earlier = f"{straddling} of those that classifier {CLASSIFIER.number - 1} called supplier_protocol"
    assert f"{earlier} are unsupported by this version: their answers show it" in report.notes
