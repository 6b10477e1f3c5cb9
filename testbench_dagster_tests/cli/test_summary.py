"""The last line of ``testbench run``, which says what the stores say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.cli.summary import summary_line
from testbench_dagster.defs.local_evaluation import RunReport
from testbench_dagster.stages.tally import Tally
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.tasks.layouts import REPOSITORY

NOTHING = RunReport((), (), 1, 0, 0, seconds=4.2)
FULL = replace(
    NOTHING,
    tally=Tally(480, {"supplier": 9, "network": 3}, {("a@x", "t 1"): 9, ("b@x", "u"): 3}, 8, 2, 0, 1),
    warnings={"slow": "a@x"},
    seconds=182.0,
)


def test_it_says_everything_in_one_line() -> None:
    assert summary_line(FULL, None) == (
        "scored 480, failed 12 (supplier 9, network 3), open 8, void 2, still due 0, changes 1, "
        "checks 1 warning; 3 m 02 s; next: testbench answers -s a@x -t 't 1' --failed"
    )
    assert summary_line(NOTHING, None) == (
        "scored 0, failed 0, open 0, void 0, still due 0, changes 0, checks ok; 4 s; next: testbench scores"
    )


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (replace(NOTHING, interrupted=True), "next: testbench -c 'my file' run"),
        (replace(NOTHING, tally=Tally(still_due=3)), "next: testbench -c 'my file' run"),
        (replace(NOTHING, tally=Tally(open=3)), "next: testbench -c 'my file' run --wait"),
        (replace(NOTHING, problem="nothing was scored"), "next: testbench -c 'my file' check"),
        (
            replace(NOTHING, errors={"x": "", "y": ""}, warnings={"z": ""}),
            "checks 2 errors, 1 warning; 4 s; next: testbench -c 'my file' scores",
        ),
    ],
)
def test_what_is_next_follows_from_what_came_of_it(report: RunReport, said: str) -> None:
    assert summary_line(report, "my file").endswith(said)


CONFIGURATION = """
simulation: true
suppliers:
  - {{address: good, base_url: "{url}/good/v1", model: simulated-b, max_in_flight: 2}}
  - {{address: picky, base_url: "{url}/picky/v1", model: simulated-b, max_in_flight: 2}}
tasks: [{{name: starter_units, samples: 40}}]
planning: {{occasions_minutes: [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4], retry_minutes: 0.05}}
"""


@pytest.mark.slow(minutes=2)
def test_without_a_terminal_a_run_gives_signs_of_life_and_ends_with_the_numbers_of_the_stores(
    tmp_path: Path,
) -> None:
    from testbench_dagster.localnet.personas import Backend, Persona
    from testbench_dagster.localnet.withholding import WITHHOLDERS
    from testbench_dagster_tests.tasks.signatures.simulated import served

    slow = Backend("b", 0.7, latency_ms=900)
    personas = [Persona("good", slow), Persona("picky", slow, withholds=WITHHOLDERS["500"])]
    path, output = tmp_path / "testbench.yaml", tmp_path / "nohup.out"
    with served(personas) as net, output.open("wb") as file:
        path.write_text(CONFIGURATION.format(url=net.url), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-c", "from testbench_dagster.cli import main; main()", "run", "--wait", "3m"],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TESTBENCH_CONFIG": ""},
        )
        grew, longest, size = time.monotonic(), 0.0, 0
        while process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if output.stat().st_size > size:
                # what the interpreter needs to start is no phase of the run
                longest = max(longest, now - grew) if size else 0.0
                grew, size = now, output.stat().st_size
    said = output.read_text(encoding="utf-8").splitlines()
    assert process.returncode == 0, said
    assert longest <= 11, f"silent for {longest:.1f} s: {said}"
    assert any(
        re.match(r"relays: \d+ of 80 calls done, [\d.]+/s, about \d+ s left, \d in flight", one)
        for one in said
    )
    assert not any("\x1b" in one or "━" in one for one in said), "no bar in a file"

    summary = re.match(
        r"scored (\d+), failed (\d+) \(supplier (\d+)\), open (\d+), void 0, still due (\d+), changes 0, ",
        said[-1],
    )
    assert summary, said[-1]
    scored, failed, of_supplier, open_, due = map(int, summary.groups())
    with Workspace.open(path) as workspace:
        answers = {score["answer_id"] for score in workspace.documents.find(SCORES, {})}
        rows = {row["supplier"]: row for row in Testbench(workspace).scores().rows}
        attempts = workspace.documents.count(ATTEMPTS, {})
    assert scored == len(answers) == sum(row["n"] for row in rows.values())
    assert failed == of_supplier == rows["picky@external"]["n_failed"] > 0
    assert open_ == sum(row["n_open"] for row in rows.values()) and due == 0
    assert scored + failed + open_ == 80
    assert any(one.startswith(f"evaluation: {attempts} relays sent, ") for one in said)
    if failed:
        assert said[-1].endswith("next: testbench answers -s picky@external -t starter_units --failed")

    again = subprocess.run(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TESTBENCH_CONFIG": ""},
        timeout=120,
    )
    assert again.stderr.splitlines()[-1].startswith("scored 0, failed 0, "), "a summary is of its own run"
