"""docs/frameworks.md: the package on that page is installed and run, as its reader would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from testbench_dagster_tests.tasks.layouts import REPOSITORY

PAGE = REPOSITORY / "docs" / "frameworks.md"


def blocks() -> dict[str, str]:
    """The files of the page by name, and its configuration."""
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", text, re.M | re.S)
    (tasks,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)
    return {**dict(files), "tasks": tasks}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with the page's package in it, and its metadata as pip writes them."""
    folder = tmp_path / "installed"
    found = blocks()
    for name in ("roman_tasks/plug.py", "roman_tasks/adapter.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found[name], encoding="utf-8")
    project = tomllib.loads(found["pyproject.toml"])["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    info.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def command(package: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TESTBENCH_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(package)])
    return subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def write_config(folder: Path, base_url: str, tasks: list[dict[str, object]]) -> None:
    supplier = {"address": "a", "service": "s", "base_url": base_url, "model": "m"}
    folder.mkdir(exist_ok=True)
    folder.joinpath("testbench.yaml").write_text(
        yaml.safe_dump({"suppliers": [supplier], "tasks": tasks}), encoding="utf-8"
    )


class _Romans(BaseHTTPRequestHandler):
    """Knows Roman numerals, but for multiples of five, which it writes one too large."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"]
        if wanted := re.search(r"Write (\d+) in", question):
            number = int(wanted[1])
            text = f"That is {_numeral(number + (number % 5 == 0))}."
        else:
            numeral = re.search(r"number is ([IVXLCDM]+)\?", question)
            text = str(next(n for n in range(1, 4000) if numeral and _numeral(n) == numeral[1]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        answer = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Nothing."""


def _numeral(number: int) -> str:
    tens = ["", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"]
    ones = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    return ["", "C", "CC"][number // 100] + tens[number // 10 % 10] + ones[number % 10]


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Romans)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_framework_of_the_page_is_found_asked_and_scored(
    package: Path, address: str, tmp_path: Path
) -> None:
    tasks = yaml.safe_load(blocks()["tasks"])["tasks"]
    home = tmp_path / "home"
    write_config(home, address, [{**task, "samples": "all"} for task in tasks])
    run = command(package, home, "run")
    assert run.returncode == 0, run.stderr
    scores = json.loads(command(package, home, "scores", "--format", "json").stdout)
    rows = {row["task"]: row for row in scores if row["primary"]}
    assert {name: (row["n"], row["score"]) for name, row in rows.items()} == {
        "roman_write": (100, 0.8),
        "roman_read": (200, 1.0),
    }
    assert {row["framework"] for row in rows.values()} == {"roman"}
    bundle = tmp_path / "bundle.zip"
    made = command(package, home, "evidence", "-s", "a@s", "-t", "roman_write", "--out", str(bundle))
    assert made.returncode == 0, made.stderr
    checked = command(package, tmp_path, "rescore", str(bundle))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    without = command(tmp_path, tmp_path, "rescore", str(bundle))
    assert "framework 'roman' is unknown" in without.stdout + without.stderr
    assert "Traceback" not in without.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"most": 7}}, "options.most: 7 is no number from 10 to 3999"),
        ({"options": {"least": 7}}, "options.least means nothing to 'roman_write'"),
        ({"num_fewshot": 3}, "num_fewshot means nothing to 'roman_write' of framework 'roman'"),
        ({"name": "roman_sing"}, "no task of framework 'roman'; name one of roman_write, roman_read"),
        ({"framework": "romans"}, "framework 'romans' is unknown; there are: lm_eval, signatures"),
    ],
)
def test_what_is_wrong_with_its_configuration_is_told(
    package: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    home = tmp_path / "home"
    write_config(home, "http://127.0.0.1:9/v1", [{"name": "roman_write", "framework": "roman", **changes}])
    done = command(package, home, "plan")
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())
