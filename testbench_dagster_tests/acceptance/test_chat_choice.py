"""Choices on chat from testbench.yaml to scores: suppliers that know, guess, ramble, and one that echoes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from testbench_dagster_tests.tasks.chat_choice.stock import mmlu
from testbench_dagster_tests.tasks.layouts import REPOSITORY
from testbench_dagster_tests.tasks.quiz import jsonl

DOCS = 60


class _Models(BaseHTTPRequestHandler):
    """Adds up, by the model's name: states the form, rambles, or says A; wrong on sums that end in seven."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "messages" not in body:
            self._answer(400, {"error": {"message": "echo is not supported with logprobs"}})
            return
        asked = body["messages"][-1]["content"]
        sums = re.search(r"How much is (\d+) plus (\d+)\?", asked)
        if sums is None:
            text = "Pardon?"
        else:
            total = int(sums[1]) + int(sums[2])
            total += total % 10 == 7
            letter = re.search(rf"^([A-Z])\) {total}$", asked, re.M)
            text = {
                "formal": f"ANSWER: {letter[1]}" if letter else "none",
                "rambling": f"It makes {total}. So the right option is {letter[1] if letter else None}.",
                "parrot": "ANSWER: A",
            }[body["model"]]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        self._answer(200, {"choices": [choice]})

    def _answer(self, status: int, body: object) -> None:
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Models)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def command(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TESTBENCH_")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_who_chats_is_asked_letters_and_scored_by_them(address: str, tmp_path: Path) -> None:
    data = {
        "test": jsonl(tmp_path / "test.jsonl", [mmlu(i) for i in range(DOCS)]),
        "dev": jsonl(tmp_path / "dev.jsonl", [mmlu(1000 + i) for i in range(5)]),
    }
    names = ("formal", "rambling", "parrot")
    suppliers = [
        *({"address": name, "service": "s", "base_url": address, "model": name} for name in names),
        {"address": "echo", "service": "s", "base_url": address, "model": "m", "api": "completions"},
    ]
    task = {"name": "mmlu_abstract_algebra", "data": data, "num_fewshot": 2, "samples": "all"}
    home = tmp_path / "home"
    home.mkdir()
    home.joinpath("testbench.yaml").write_text(
        yaml.safe_dump({"suppliers": suppliers, "tasks": [task], "choices_on_chat": True}), encoding="utf-8"
    )
    ran = command(home, "run")
    scores = command(home, "scores", "--format", "json")
    assert scores.returncode == 0, ran.stdout + ran.stderr + scores.stderr
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = {
        (row["supplier"], row["filter"], row["metric"]): row
        for row in json.loads(scores.stdout)
        if row["task"] == "mmlu_abstract_algebra~chat"
    }
    shown = {key: (row["n"], row["score"]) for key, row in rows.items()}
    right = 0.9  # six of sixty sums end in seven
    for name, strict, formal in (("formal", right, 1.0), ("rambling", 0.0, 0.0)):
        assert shown[f"{name}@s", "flexible", "letter_acc"] == (DOCS, right)
        assert shown[f"{name}@s", "flexible", "answered_letter"] == (DOCS, 1.0)
        assert shown[f"{name}@s", "strict", "letter_acc"] == (DOCS, strict)
        assert shown[f"{name}@s", "strict", "answered_letter"] == (DOCS, formal)
    n, guessed = shown["parrot@s", "flexible", "letter_acc"]
    assert n == DOCS and 0.25 - 3 * 0.056 < guessed < 0.25 + 3 * 0.056
    primary = {key for key, row in rows.items() if row["primary"] and row["n"]}
    assert primary == {(f"{name}@s", "flexible", "letter_acc") for name in names}
    assert all(not row["n"] for (supplier, *_), row in rows.items() if supplier == "echo@s")
    bundle = tmp_path / "bundle.zip"
    made = command(
        home, "evidence", "-s", "rambling@s", "-t", "mmlu_abstract_algebra~chat", "--out", str(bundle)
    )
    assert made.returncode == 0, made.stderr
    checked = command(tmp_path, "rescore", str(bundle))
    assert checked.returncode == 0, checked.stdout + checked.stderr
