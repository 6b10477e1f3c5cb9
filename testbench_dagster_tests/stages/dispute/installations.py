"""Installations with real evidence: tasks of the starter and one of their own, asked over HTTP, and scored.

A supplier that answers by rule: mostly right, wrong at times, and with every kind of failure that leaves
evidence of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.datasets import open_datasets
from testbench_dagster.stores.documents import open_documents
from testbench_dagster.stores.documents.collections import ALL
from testbench_dagster.tasks.worker import FrameworkWorker

KEY = "live@external"
SECRET = "sk-evidence-tests-0123456789"
N_DOCS = 12
SUMS = """task: sums
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{n}}:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64}
process_results: !function helper.check
metric_list: [{metric: share, aggregation: mean, higher_is_better: true}]
"""
HELPER = """import random
import numpy as np


def check(doc, results):
    # floats without a short decimal form, and draws: what a second machine must reproduce to the last bit
    share = (int(doc["n"]) + 1) / 7 / (len(results[0]) or 1)
    return {"share": share, "drawn": random.random() + float(np.random.random())}
"""


class Answering(BaseHTTPRequestHandler):
    """Chat completions by rule, from the number in the question."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        number = sum(question.encode()) % 13
        choice: dict[str, Any] = {
            "message": {"content": f"It is {number}.\nAnswer: B"},
            "finish_reason": "stop",
        }
        status = 200
        if number == 3:
            status = 500
        elif number == 5:
            choice["message"]["content"] = ""
        elif number == 7:
            choice["finish_reason"] = "length"
        elif number == 8:
            choice["message"]["content"] = f"told {self.headers.get('Authorization')}"
        answer = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
        data = b"broken" if status != 200 else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(handler: type[Answering] = Answering) -> Iterator[str]:
    """Yield the base URL of the supplier."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def configure(folder: Path, url: str, **settings: Any) -> Path:
    """Write a configuration with the tasks of these tests."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps({"n": i, "answer": str(i)}) + "\n" for i in range(N_DOCS))
    (folder / "docs.jsonl").write_text(rows, encoding="utf-8")
    (folder / "mine/deeper").mkdir(parents=True, exist_ok=True)
    (folder / "mine/sums.yaml").write_text(SUMS, encoding="utf-8")
    (folder / "mine/helper.py").write_text(HELPER, encoding="utf-8")
    (folder / "mine/deeper/unrelated.yaml").write_text(
        "task: unrelated\ninclude: nowhere\n", encoding="utf-8"
    )
    path = folder / "testbench.yaml"
    supplier = {"address": "live", "base_url": url, "model": "m-1", "api": "chat", "api_key_env": "LIVE_KEY"}
    path.write_text(
        yaml.safe_dump(
            {
                "suppliers": [supplier],
                "tasks": [
                    {"name": "sums", "data": {"test": "docs.jsonl"}, "samples": "all"},
                    {"name": "starter_reading", "samples": 20},
                ],
                "task_paths": ["mine"],
                "sampling": {"window": 30, "epoch_seed": 7},
                "relays": {"retries": 0},
                # a minute of waiting becomes a quarter of a second
                "planning": {"occasions_minutes": [0, 0.06, 0.5, 3, 6, 12, 18]},
                **settings,
            },
            sort_keys=False,
        ),
        encoding="utf-8",
    )
    return path


def evaluated(path: Path, worker: FrameworkWorker) -> Workspace:
    """Open an installation, register its tasks, ask its supplier and score the answers."""
    workspace = Workspace(load_config(path))
    workspace.worker = worker
    refresh_roster(workspace)
    for spec in workspace.specs:
        refresh_dataset(workspace, spec)
        refresh_prompts(workspace, spec)
    relay_due(workspace, [KEY])
    score_new(workspace, [KEY])
    return workspace


@contextmanager
def on_servers(workspace: Workspace, mongo_uri: str, postgres_uri: str) -> Iterator[Workspace]:
    """The same installation with the same facts on MongoDB and PostgreSQL."""
    other = Workspace(load_config(workspace.config.path))
    other.documents = open_documents(workspace.config.home, mongo_uri)
    other.datasets = open_datasets(workspace.config.home, postgres_uri)
    with other:
        for collection in ALL:
            other.documents.put_new(collection, workspace.documents.find(collection))
        for registration in workspace.datasets.tasks():
            docs = workspace.datasets.docs(registration.task_hash)
            other.datasets.register(registration, docs, workspace.datasets.fewshot(registration.task_hash))
        yield other
