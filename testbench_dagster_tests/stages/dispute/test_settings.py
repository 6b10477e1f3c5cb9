"""Bundles of a supplier that is asked otherwise than its tasks say: they verify, and say how."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from testbench_dagster.evidence import layout
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import installations
from testbench_dagster_tests.stages.dispute.forging import Records, contents, edited, records, write

SETTINGS: dict[str, Any] = {
    "token_field": "max_completion_tokens",
    "budget": 1000,
    "effort": "low",
    "temperature": 0,
    "seed": "omit",
    "stop": 3,
    "extra_body": {"provider": {"order": ["a", "b"], "$x": 1.5}, "top_k": 1},
}
HEADER = "org-of-ours-0123456789"


class Strict(installations.Answering):
    """Answers by rule, and remembers where it was asked."""

    paths: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.paths.append(self.path)
        super().do_POST()


@pytest.fixture(scope="module")
def asked_otherwise(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch, installations.answering(Strict) as url:
        patch.setenv("ORG", HEADER)
        service = {
            "transport": "direct",
            "generation": SETTINGS,
            "headers": {"X-Org": "ORG"},
            "query": {"api-version": "1"},
        }
        path = installations.configure(folder, url, services={"external": service})
        opened = installations.evaluated(path, worker)
        bundle = folder / "evidence.zip"
        write_bundle(opened, installations.KEY, bundle)
        yield bundle
        del opened.worker
        opened.close()


def test_it_verifies_and_holds_no_secret(asked_otherwise: Path, worker: FrameworkWorker) -> None:
    report = rescore(asked_otherwise, trust_code=True, worker=worker)
    assert report.equal, list(report.lines())
    (note,) = [note for note in report.notes if "asked otherwise" in note]
    assert '"budget":1000' in note
    files = contents(asked_otherwise)
    attempts = records(files["attempts.jsonl"])
    assert {row["path"] for row in attempts} == {"/chat/completions"}
    kept = b"".join(files.values())
    assert HEADER.encode() not in kept and b"api-version" not in kept
    assert set(Strict.paths) == {"/v1/chat/completions?api-version=1"}


def test_whoever_changes_the_settings_in_it_is_found_out(
    asked_otherwise: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    def other(rows: Records) -> None:
        for row in rows:
            if row["evidence"].get("generation"):
                row["evidence"]["generation"]["budget"] = 2000

    report = rescore(
        edited(asked_otherwise, tmp_path / "x.zip", "attempts.jsonl", other), trust_code=True, worker=worker
    )
    assert {finding.what.partition(" of ")[0] for finding in report.findings} == {"hash"}


@pytest.mark.parametrize("said", [1, {"nonsense": 1}, {"budget": "x"}, {"extra_body": {"prompt": ""}}])
def test_settings_that_there_are_not_are_told(
    asked_otherwise: Path, tmp_path: Path, worker: FrameworkWorker, said: Any
) -> None:
    def other(rows: Records) -> None:
        rows[0]["evidence"]["generation"] = said

    report = rescore(
        edited(asked_otherwise, tmp_path / "x.zip", "attempts.jsonl", other), trust_code=True, worker=worker
    )
    assert any("settings that attempt" in finding.what for finding in report.findings)


def test_other_settings_cut_and_are_published(worker: FrameworkWorker, tmp_path: Path) -> None:
    from testbench_dagster.config import load_config
    from testbench_dagster.stages.discover.roster import known_suppliers, refresh_roster
    from testbench_dagster.stages.rank.ranking import leaderboard

    with installations.answering() as url:
        path = installations.configure(tmp_path, url)
        first = installations.evaluated(path, worker)
        assert [entry.asked_with for entry in leaderboard(first)] == [None]
        del first.worker
        first.close()
        settings = yaml.safe_load(path.read_text())
        settings["suppliers"][0]["generation"] = {"budget": 16384}
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        with Workspace(load_config(path)) as second:
            report = refresh_roster(second)
            assert report.changed == [installations.KEY]
            (supplier,) = known_suppliers(second)
            assert supplier.cut_at is not None
            (entry,) = leaderboard(second)
            assert json.loads(entry.asked_with or "") == {"budget": 16384}
            assert not refresh_roster(second).anything_new


def test_named_docs_are_shown_to_be_all_that_were_asked(worker: FrameworkWorker, tmp_path: Path) -> None:
    """In every epoch those that it named; a position by the seed of all docs, or of others, is found out."""
    named = [{"ids": [11, 2, 9]}, {"ids": [2, 4]}]
    with installations.answering() as url:
        for samples in named:
            data = {"test": "docs.jsonl"}
            tasks = [{"name": "sums", "data": data, "samples": samples}]
            opened = installations.evaluated(installations.configure(tmp_path, url, tasks=tasks), worker)
            bundle = tmp_path / "evidence.zip"
            write_bundle(opened, installations.KEY, bundle)
            rows = windows(opened, suppliers=[installations.KEY])
            assert {row.n + row.n_failed + row.n_open for row in rows} == {len(samples["ids"])}
            del opened.worker
            opened.close()
    report = rescore(bundle, trust_code=True, worker=worker)
    assert report.equal, list(report.lines())
    files = contents(bundle)
    assert {row["doc_id"] for row in records(files["prompts.jsonl"])} == {2, 4, 9, 11}
    file = layout.task_file("sums")
    task = json.loads(files[file])
    assert [line["doc_ids"] for line in task["epochs"]] == [[2, 9, 11], [2, 4]]
    assert task["spec"]["samples"]["ids"] == [2, 4]
    task["epochs"][0]["doc_ids"] = list(range(installations.N_DOCS))
    forged = write(tmp_path / "forged.zip", {**files, file: json.dumps(task).encode()})
    said = "\n".join(rescore(forged, trust_code=True, worker=worker).lines())
    assert "position by the epoch's seed" in said
