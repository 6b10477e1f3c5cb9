"""Answers over a Pocket network carry the supplier's own signature: a bundle proves them without a chain."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.pocketnet import SERVICE, Network, people, pocket_network
from testbench_dagster_tests.stages.dispute.forging import Records, edited

TASK = "starter_units"


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with pocket_network(people("one", "two"), hosts=2) as made:
        yield made


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "streamed"])
def bundle(
    request: pytest.FixtureRequest,
    net: Network,
    worker: FrameworkWorker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """Ten docs asked of both suppliers, one behind each kind of miner; the bundle of the second (HA)."""
    folder = tmp_path_factory.mktemp("signed")
    path = folder / "testbench.yaml"
    settings = {
        "services": {SERVICE: net.service(stream=request.param)},
        "tasks": [{"name": TASK, "samples": 10}],
        "simulation": True,
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TB_APP_KEY", net.key_of("app-simulation"))
        workspace = Workspace(load_config(path))
        workspace.worker = worker
        refresh_roster(workspace)
        for spec in workspace.specs:
            refresh_dataset(workspace, spec)
            refresh_prompts(workspace, spec)
        key = f"{net.operator('two')}@{SERVICE}"
        report = relay_due(workspace, [f"{net.operator('one')}@{SERVICE}", key])
        assert report.relays is not None and report.relays.total.final == 20
        score_new(workspace, [key])
    out = folder / "bundle.zip"
    write_bundle(workspace, key, out)
    yield out
    workspace.documents.close()
    workspace.datasets.close()


def findings(path: Path, worker: FrameworkWorker) -> tuple[list[str], list[str]]:
    report = rescore(path, worker=worker)
    return [finding.what for finding in report.findings], report.notes


def test_every_answer_is_proven(bundle: Path, worker: FrameworkWorker) -> None:
    found, notes = findings(bundle, worker)
    assert found == []
    assert any(note.startswith("10 answers carry the supplier's own signature") for note in notes)


def said(rows: Records) -> None:
    """One letter of the answer is another one, the hash of the raw answer put right."""
    body = base64.b64decode(rows[3]["body_base64"])
    at = re.search(rb'"content":"[^"]', body)
    assert at is not None
    letter = b"7" if body[at.end() - 1 : at.end()] != b"7" else b"8"
    changed = body[: at.end() - 1] + letter + body[at.end() :]
    rows[3]["body_base64"] = base64.b64encode(changed).decode()
    rows[3]["body_sha256"] = hashlib.sha256(changed).hexdigest()


def unsigned(rows: Records) -> None:
    del rows[3]["evidence"]["envelope"]


def other_session(rows: Records) -> None:
    rows[3]["session"] = "0" * 64


def other_key(rows: Records) -> None:
    rows[3]["evidence"]["public_key"] = "02" + rows[3]["evidence"]["public_key"][2:-2] + "00"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (said, "signature of attempt 1 does not hold"),
        (unsigned, "attempt 1 lacks the supplier's signature"),
        (other_session, "session of attempt 1"),
        (other_key, "signature of attempt 1 does not hold"),
    ],
)
def test_what_the_supplier_did_not_sign_is_named(
    bundle: Path, worker: FrameworkWorker, tmp_path: Path, change: Callable[[Records], None], named: str
) -> None:
    found, _ = findings(edited(bundle, tmp_path / "changed.zip", "attempts.jsonl", change), worker)
    assert named in found


def test_the_signer_has_to_be_the_supplier(
    bundle: Path, worker: FrameworkWorker, tmp_path: Path, net: Network
) -> None:
    """An answer that another supplier signed, put under this one's name with all that belongs to it."""

    def borrowed(rows: Records) -> None:
        rows[3]["evidence"]["public_key"] = net.public_key("one").hex()

    found, _ = findings(edited(bundle, tmp_path / "changed.zip", "attempts.jsonl", borrowed), worker)
    assert "signature of attempt 1 does not hold" in found
