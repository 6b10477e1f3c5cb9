"""docs/frameworks.md: the package on that page is installed and run, as its reader would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster_tests.tasks.layouts import REPOSITORY

PAGE = REPOSITORY / "docs" / "frameworks.md"


def blocks() -> dict[str, str]:
    """The files of the page by name, and its configuration."""
    text = PAGE.read_text(encoding="utf-8")
    files = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", text, re.M | re.S))
    first = re.search(r"^```yaml\n(.*?)^```$", text, re.M | re.S)
    assert first is not None
    return {**files, "tasks": first[1]}


def installed(folder: Path, files: Mapping[str, str], project: Mapping[str, Any]) -> Path:
    """A folder for PYTHONPATH with a package in it, and its metadata as pip writes them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
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


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The page's package, installed."""
    found = blocks()
    files = {name: text for name, text in found.items() if name.startswith("roman_tasks/")}
    return installed(tmp_path / "installed", files, tomllib.loads(found["pyproject.toml"])["project"])


def environment(package: Path) -> dict[str, str]:
    """Variables of a process in which the package is installed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TESTBENCH_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(package)])}


def command(package: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(package, cwd, "-c", "from testbench_dagster.cli import main; main()", *arguments)


def python(package: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(package),
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
    """Knows Roman numerals, but for multiples of five, which it writes one too large.

    Adds with the tool it is given, but says so in words where the second number is odd.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"]
        calls: list[dict[str, Any]] = []
        if sum_ := re.search(r"What is (\d+) \+ (\d+)", question):
            a, b = int(sum_[1]), int(sum_[2])
            assert [tool["function"]["name"] for tool in body["tools"]] == ["add"]
            text = None if b % 2 == 0 else f"It is {a + b}."
            function = {"name": "add", "arguments": json.dumps({"a": a, "b": b})}
            calls = [] if text else [{"id": "1", "type": "function", "function": function}]
        elif wanted := re.search(r"Write (\d+) in", question):
            number = int(wanted[1])
            text = f"That is {_numeral(number + (number % 5 == 0))}."
        else:
            numeral = re.search(r"number is ([IVXLCDM]+)\?", question)
            text = str(next(n for n in range(1, 4000) if numeral and _numeral(n) == numeral[1]))
        message = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}
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
    assert "EQUAL: every hash, answer, score and window" in checked.stdout
    without = command(tmp_path, tmp_path, "rescore", str(bundle))
    assert "framework 'roman' is unknown" in without.stdout + without.stderr
    assert "Traceback" not in without.stderr


@pytest.mark.slow
def test_the_second_framework_draws_its_numbers_and_has_two_metrics(
    package: Path, address: str, tmp_path: Path
) -> None:
    (task,) = yaml.safe_load(blocks()["sums.yaml"])["tasks"]
    home = tmp_path / "home"
    write_config(home, address, [{**task, "samples": "all"}])
    run = command(package, home, "run")
    assert run.returncode == 0, run.stderr
    rows = json.loads(command(package, home, "scores", "--format", "json").stdout)
    by_metric = {row["metric"]: row for row in rows if row["task"] == "sums_tool"}
    assert set(by_metric) == {"exact", "called"} and by_metric["exact"]["primary"]
    bundle = tmp_path / "bundle.zip"
    made = command(package, home, "evidence", "-s", "a@s", "-t", "sums_tool", "--out", str(bundle))
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(bundle) as archive:
        prompts = [json.loads(line) for line in archive.read("prompts.jsonl").splitlines()]
    even = sum(prompt["target"]["b"] % 2 == 0 for prompt in prompts) / 40
    assert 0 < even < 1, "the seed draws odd and even numbers"
    assert {row["score"] for row in by_metric.values()} == {even}
    checked = command(package, tmp_path, "rescore", str(bundle))
    assert checked.returncode == 0 and "EQUAL: every hash" in checked.stdout, checked.stdout + checked.stderr


@pytest.mark.slow
def test_the_pages_own_tests_pass_and_the_command_prints_what_the_page_shows(
    package: Path, tmp_path: Path
) -> None:
    for name in ("test_roman.py", "test_sums.py"):
        done = python(
            package,
            tmp_path,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(package / "roman_tasks" / name),
        )
        assert done.returncode == 0, done.stdout + done.stderr
    printed = python(package, tmp_path, "-m", "testbench_dagster.testing", "roman")
    assert printed.returncode == 0, printed.stdout + printed.stderr
    (shown,) = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert printed.stdout.startswith(shown)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"most": 7}}, "options.most: 7 is no number from 10 to 3999"),
        pytest.param(
            {"options": {"least": 7}},
            "options.least means nothing to 'roman_write'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"num_fewshot": 3},
            "num_fewshot means nothing to 'roman_write' of framework 'roman'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"name": "roman_sing"},
            "no task of framework 'roman'; name one of roman_write, roman_read",
            marks=pytest.mark.slow,
        ),
        (
            {"framework": "romans"},
            "framework 'romans' is unknown; there are: lm_eval, signatures, tools, twins, fresh, roman, "
            "sums; correct",
        ),
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
