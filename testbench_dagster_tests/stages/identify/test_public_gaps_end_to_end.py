"""Real relays and Dagster runs: who has the public questions by heart is found in two epochs, nobody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.core.pairs import is_public
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.archive import BundleReader
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.sample.catalogue import refresh_prompts, stale_tasks
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

pytestmark = pytest.mark.slow
TASK = "twins_starter"
#: Share of the questions that each answers rightly; the parrot knows all public ones besides.
ABILITIES = {"parrot": 0.6, **{f"honest-{n}": (0.5, 0.65, 0.8)[n % 3] for n in range(9)}}


class Town:
    """Suppliers that answer what the prompts of an installation ask."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, bool]] = {}  # by question its answer, and whether it is public
        town = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = town.answer(self.path.split("/")[1], asked["messages"][-1]["content"])
                message = {"role": "assistant", "content": said}
                choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
                body = json.dumps({"object": "chat.completion", "model": "m", "choices": choices}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def learn(self, workspace: Workspace) -> None:
        """What is asked, and which half of its pair it is."""
        seeds = {one.epoch: one.seed for one in typed.find(workspace.documents, EpochRecord, {"task": TASK})}
        for prompt in typed.find(workspace.documents, PromptRecord, {"task": TASK}):
            question = prompt.requests[0]["messages"][-1]["content"]
            self.known[question] = (str(prompt.target), is_public(seeds[prompt.epoch], prompt.doc_id))

    def answer(self, name: str, question: str) -> str:
        answer, public = self.known.get(question, ("I cannot say", False))
        chance = int.from_bytes(sha256(f"{name}:{question}".encode()).digest()[:4], "big") / 2**32
        if chance < ABILITIES[name] or (name == "parrot" and public):
            return f"The answer is {answer}."
        return "The answer is 77777 or nothing."


@pytest.fixture
def town() -> Iterator[Town]:
    place = Town()
    yield place
    place.server.shutdown()


def settings(town: Town) -> Mapping[str, Any]:
    base = f"http://127.0.0.1:{town.server.server_address[1]}"
    return {
        "tasks": [
            {
                "name": TASK,
                "framework": "twins",
                "samples": {"max": 320, "half_width": None},
                "cluster": "template",
            }
        ],
        "sampling": {"epoch_seed": 7, "window": 320},
        "suppliers": [
            {"address": name, "base_url": f"{base}/{name}/v1", "model": name, "api": "chat"}
            for name in ABILITIES
        ],
    }


def test_who_knows_the_public_questions_by_heart_is_flagged_in_two_epochs(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings(town)), encoding="utf-8")
    found: list[dict[str, str]] = []
    with Workspace(load_config(path)) as workspace, LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        keys = [s.key for s in workspace.config.settings.suppliers]
        for epoch in (1, 2):
            before = datetime.now(UTC)
            if epoch == 1:
                runs.refresh_catalog(stale_tasks(workspace, workspace.specs))
            else:
                for spec in workspace.specs:
                    refresh_prompts(workspace, spec, roll_before=before)
            town.learn(workspace)
            runs.evaluate(keys)
            runs.refresh_summaries()
            rows = Testbench(workspace).twins().rows
            assert {row["epoch"] for row in rows} == {epoch}
            assert all(row["n_pairs"] == 160 and row["n_open"] == 0 for row in rows)
            found.append({row["supplier"]: row["verdict"] for row in rows})
            flagged = {row["supplier"] for row in rows if row["flagged"]}
            assert flagged == (set() if epoch == 1 else {"parrot@external"})
        bundle = tmp_path / "evidence.zip"
        Testbench(workspace).evidence("parrot@external", bundle, tasks=[TASK])
    check_bundle(bundle)
    for verdicts in found:
        assert {key for key, said in verdicts.items() if said == "better"} == {"parrot@external"}
    shown = CliRunner().invoke(cli, ["-c", str(path), "twins", "--json"])
    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.stdout)
    assert rows[0]["supplier"] == "parrot@external" and rows[0]["flagged"] is True
    assert rows[0]["finding"].startswith("better on public questions than on fresh ones of the kind: ")


def check_bundle(path: Path) -> None:
    """The bundle is whole, and tells by itself which half of a pair each doc of the first epoch was."""
    report = rescore(path)
    assert report.checked and not report.findings, report.findings
    with BundleReader(path) as bundle:
        task = bundle.json(layout.task_file(TASK))
        seed = next(line["seed"] for line in task["epochs"] if line["epoch"] == 1)
        assert next(line["seed"] for line in task["epochs"] if line["epoch"] == 2) is None, "secret as yet"
        lines = bundle.records(layout.docs_file(TASK))
        docs = {line["doc_id"]: json.loads(line["body"]) for line in lines}
        prompts = [line for line in bundle.records(layout.PROMPTS) if line["epoch"] == 1]
        assert len(prompts) == 320
        for prompt in prompts:
            asked = prompt["requests"][0]["messages"][-1]["content"]
            public = f"Question: {docs[prompt['doc_id']]['question']}\nAnswer:" == asked
            assert public is is_public(seed, prompt["doc_id"])
