"""Bundles say which docs nobody was asked because no store holds them: so many fewer were planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import installations
from testbench_dagster_tests.stages.dispute.forging import contents, write
from testbench_dagster_tests.stages.dispute.installations import KEY, N_DOCS


@pytest.fixture(scope="module")
def with_void(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One doc of ``sums`` is larger than any store's document may be."""
    folder = tmp_path_factory.mktemp("void")
    with installations.answering() as url:
        path = installations.configure(folder, url)
        with (folder / "docs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"n": "x" * (17 << 20), "answer": "0"}) + "\n")
        opened = installations.evaluated(path, worker)
    yield opened
    del opened.worker
    opened.close()


def test_what_was_planned_follows_from_the_bundle(
    with_void: Workspace, tmp_path: Path, worker: FrameworkWorker
) -> None:
    (row,) = [r for r in windows(with_void, suppliers=[KEY], tasks=["sums"]) if r.primary]
    assert (row.n_planned, row.n_released) == (N_DOCS, N_DOCS), "all but the one"
    bundle = tmp_path / "evidence.zip"
    write_bundle(with_void, KEY, bundle)
    files = contents(bundle)
    task = json.loads(files["tasks/sums.json"])
    assert task["registration"]["n_docs"] == N_DOCS + 1
    (epoch,) = task["epochs"]
    (void,) = epoch["void"]
    assert void["doc_id"] == N_DOCS
    assert "a document may take at most" in void["reason"]
    assert "void" not in json.loads(files["tasks/starter_reading.json"])["epochs"][0]
    report = rescore(bundle, trust_code=True, worker=worker)
    assert report.equal, report.findings

    # one that hides it shows another number of planned docs
    del epoch["void"]
    hidden = write(tmp_path / "x.zip", {**files, "tasks/sums.json": json.dumps(task).encode()})
    report = rescore(hidden, trust_code=True, worker=worker)
    assert {finding.what.partition(" of ")[0] for finding in report.findings} == {"n_planned", "coverage"}
