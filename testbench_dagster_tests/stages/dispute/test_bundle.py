"""What goes into a bundle, that it is the same from every store, and that it proves itself elsewhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.applicability import Applicability
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.price import Price
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.evidence.records import plain, restored
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import canonical_json
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import contents, records
from testbench_dagster_tests.stages.dispute.installations import HELPER, KEY, N_DOCS, SECRET, SUMS, on_servers
from testbench_dagster_tests.tasks.layouts import REPOSITORY

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


def fresh_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that has nothing but an empty home."""
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_bundle_holds_every_fact(workspace: Workspace, bundle: Path) -> None:
    files = contents(bundle)
    manifest = json.loads(files["manifest.json"])
    assert manifest["tasks"] == ["sums", "starter_reading"]
    assert set(manifest["files"]) == set(files) - {"manifest.json"}
    attempts = {row["_id"]: row for row in records(files["attempts.jsonl"])}
    for stored in workspace.documents.find(ATTEMPTS, {"supplier": KEY}):
        told = attempts.pop(stored["_id"])
        assert base64.b64decode(told["body_base64"]) == stored["body"]
        assert (told["fault"], told["status"], told["error"]) == (
            stored["fault"],
            stored["status"],
            stored["error"],
        )
        assert datetime.fromisoformat(told["finished_at"]) == stored["finished_at"]
    assert attempts == {}
    faults = {row["fault"] for row in records(files["attempts.jsonl"])}
    assert faults >= {"ok", "truncated", "supplier_http"}, "failures included"
    assert len(records(files["scores.jsonl"])) == workspace.documents.count(SCORES)
    docs = records(files["tasks/sums.docs.jsonl"])
    assert [json.loads(doc["body"])["answer"] for doc in docs] == [str(i) for i in range(N_DOCS)]
    published = [row for row in manifest["windows"] if row["task"] == "sums" and row["primary"]]
    (row,) = (w for w in windows(workspace, suppliers=[KEY], tasks=["sums"]) if w.primary)
    assert [(w["n"], w["score"]) for w in published] == [(row.n, row.score)] and row.n > 5
    assert manifest["versions"]["lm_eval"] and manifest["versions"]["python"]


def test_what_is_no_longer_asked_has_its_evidence_still(
    workspace: Workspace, tmp_path: Path, worker: FrameworkWorker
) -> None:
    """The answers verify; the window says that the configuration does not ask it, here as elsewhere."""
    nobody = Applicability(suppliers=(f"!{KEY}",))
    specs = [replace(spec, applies=nobody) if spec.name == "sums" else spec for spec in workspace.specs]
    path = tmp_path / "evidence.zip"
    write_bundle(workspace.with_specs(specs), KEY, path)
    files = contents(path)
    assert json.loads(files["tasks/sums.json"])["spec"]["asked"] is False
    assert "asked" not in json.loads(files["tasks/starter_reading.json"])["spec"]
    rows = [row for row in json.loads(files["manifest.json"])["windows"] if row["task"] == "sums"]
    assert {(row["status"], row["n"]) for row in rows} == {("not_applicable", 0)}
    report = rescore(path, trust_code=True, worker=worker)
    assert report.equal, report.verdict
    assert {task.task: (task.equal, task.windows) for task in report.tasks}["sums"] == (11, "equal")


def test_what_answers_cost_is_no_evidence(
    workspace: Workspace, tmp_path: Path, worker: FrameworkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices are the operator's: who checks a bundle has none, and finds the same windows."""
    path = tmp_path / "evidence.zip"
    with monkeypatch.context() as patch:

        def at_a_price(*given: Any) -> list[Supplier]:
            return [replace(one, price=Price(1.0, 2.0)) for one in named_suppliers(*given)]

        patch.setattr("testbench_dagster.stages.score.windows.named_suppliers", at_a_price)
        rows = windows(workspace, suppliers=[KEY], tasks=["sums"])
        priced = {row.to_json()["cost"] is not None for row in rows if not row.n_unmetered and row.n}
        write_bundle(workspace, KEY, path)
    assert priced == {True}
    for row in json.loads(contents(path)["manifest.json"])["windows"]:
        assert "n_unmetered" in row and not {"cost", "cost_per_1000_right"} & set(row)
    report = rescore(path, trust_code=True, worker=worker)
    assert report.equal, report.verdict


def test_only_the_definitions_that_scoring_needs_go_in(bundle: Path) -> None:
    files = contents(bundle)
    own = {name: data.decode() for name, data in files.items() if name.startswith("definitions/")}
    assert own == {"definitions/0/sums.yaml": SUMS, "definitions/0/helper.py": HELPER}


def test_nothing_secret_goes_in(workspace: Workspace, bundle: Path) -> None:
    everything = b"\n".join(contents(bundle).values())
    bodies = [base64.b64decode(r["body_base64"]) for r in records(contents(bundle)["attempts.jsonl"])]
    everything += b"\n".join(bodies)
    assert any(b"told Bearer [" in body for body in bodies), "the supplier did quote the key"
    supplier = workspace.config.settings.suppliers[0]
    for secret in (SECRET, base64.b64encode(SECRET.encode()).decode()[:20], supplier.base_url, "LIVE_KEY"):
        assert secret.encode() not in everything
    assert str(workspace.config.base).encode() not in everything


def test_equal_facts_give_equal_bytes(workspace: Workspace, tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    sealed = [write_bundle(workspace, KEY, path, now=NOW).sha256 for path in (one, two)]
    assert one.read_bytes() == two.read_bytes()
    assert sealed[0] == sealed[1]


@pytest.mark.slow
def test_mongodb_and_postgresql_give_the_same_bundle_and_floats(
    workspace: Workspace, tmp_path: Path, mongo_database_uri: str, postgres_database_uri: str
) -> None:
    with on_servers(workspace, mongo_database_uri, postgres_database_uri) as other:
        write_bundle(other, KEY, tmp_path / "mongo.zip", now=NOW)
    write_bundle(workspace, KEY, tmp_path / "embedded.zip", now=NOW)
    assert (tmp_path / "mongo.zip").read_bytes() == (tmp_path / "embedded.zip").read_bytes()
    done = fresh_process(
        tmp_path / "empty", "rescore", str(tmp_path / "mongo.zip"), "--trust-code", "--format", "json"
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["n_findings"]) == (0, "equal", 0), done.stderr
    assert {t["task"]: (t["equal"], t["windows"]) for t in report["tasks"]} == {
        "sums": (11, "equal"),
        "starter_reading": (18, "equal"),
    }


def test_a_bundle_is_equal_on_a_machine_that_knows_nothing(bundle: Path, tmp_path: Path) -> None:
    done = fresh_process(tmp_path / "empty", "rescore", str(bundle), "--trust-code")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        done.stdout.splitlines()[-1] == "EQUAL: every hash, answer, score and window is as the bundle says."
    )
    assert "testbench.yaml" not in os.listdir(tmp_path / "empty")
    assert not (tmp_path / "empty/.testbench").exists()


def test_single_docs_can_be_exported(workspace: Workspace, tmp_path: Path, worker: FrameworkWorker) -> None:
    write_bundle(workspace, KEY, tmp_path / "few.zip", tasks=["sums"], docs=[4, 6])
    files = contents(tmp_path / "few.zip")
    assert {row["doc_id"] for row in records(files["attempts.jsonl"])} == {4, 6}
    assert [row["doc_id"] for row in records(files["tasks/sums.docs.jsonl"])] == [0, 4, 6]
    report = rescore(tmp_path / "few.zip", trust_code=True, worker=worker)
    (verdict,) = report.tasks
    assert (report.n_findings, verdict.equal, verdict.docs) == (0, 2, 2)
    assert verdict.windows == "not computed: the bundle holds a part of the docs" and not report.equal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"supplier": "nobody@external"}, "is not on the roster; on it are: live@external"),
        ({"tasks": ["gsm8k"]}, "task 'gsm8k' is not configured"),
        ({"tasks": ["sums"], "docs": [999]}, "never asked"),
        ({"docs": [4, 999]}, "was never asked doc 999"),
    ],
)
def test_what_cannot_be_exported_is_said(
    workspace: Workspace, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_bundle(workspace, **{"supplier": KEY, "out": tmp_path / "no.zip", **arguments})
    assert os.listdir(tmp_path) == []


def test_a_file_appears_whole_or_not_at_all(workspace: Workspace, tmp_path: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    (tmp_path / "there.zip").write_bytes(b"an earlier one")
    with pytest.raises(KeyboardInterrupt):
        write_bundle(workspace, KEY, tmp_path / "there.zip", on_progress=interrupted)
    assert os.listdir(tmp_path) == ["there.zip"]
    assert (tmp_path / "there.zip").read_bytes() == b"an earlier one"
    with pytest.raises(StoreError, match="choose another --out"):
        write_bundle(workspace, KEY, tmp_path / "no/such/folder.zip")


def test_progress_ends_at_the_number_of_attempts(workspace: Workspace, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_bundle(workspace, KEY, tmp_path / "x.zip", on_progress=lambda *seen: told.append(seen))
    total = workspace.documents.count(ATTEMPTS, {"supplier": KEY})
    assert told == [(n, total) for n in range(1, total + 1)]


@pytest.mark.slow
def test_the_command_writes_and_says_what_it_wrote(workspace: Workspace, tmp_path: Path) -> None:
    config = str(workspace.config.path)
    out = str(tmp_path / "e.zip")
    done = fresh_process(
        tmp_path / "a", "--config", config, "evidence", "--supplier", KEY, "--task", "sums", "--out", out
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{N_DOCS} attempts, 11 scores, {N_DOCS} docs" in done.stdout
    assert f"sha256 of its manifest: {rescore(out).sha256}" in done.stdout
    missing = fresh_process(tmp_path / "b", "--config", config, "evidence", "--supplier", KEY)
    assert (missing.returncode, missing.stdout) == (2, "") and "--out" in missing.stderr


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$time"), inner),
)


@given(_VALUES)
@settings(max_examples=40)
def test_every_stored_value_survives(value: Any) -> None:
    again = restored(json.loads(json.dumps(plain(value))), "here")
    assert canonical_json(plain(again)) == canonical_json(plain(value))
    assert type(again) is type(value)


def test_files_of_a_bundle_carry_no_date_and_no_owner(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as file:
        assert {(i.date_time, i.create_system, i.external_attr) for i in file.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 3, 0o644 << 16)
        }


def test_the_reference_lists_the_fields_of_a_check(bundle: Path, worker: FrameworkWorker) -> None:
    from testbench_dagster_tests.acceptance.test_docs import documented_keys

    report = rescore(bundle, worker=worker)
    assert documented_keys("Fields of `testbench rescore --format json`") == set(report.to_json())
