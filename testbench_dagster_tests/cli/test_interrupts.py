"""Ctrl-C at a command that can stop in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.cli.evaluate import waits_text
from testbench_dagster.core.faults import Fault
from testbench_dagster.relays.report import LaneWait, Progress
from testbench_dagster_tests.tasks.layouts import REPOSITORY

SCRIPT = """
import sys, time
from testbench_dagster.cli.interrupts import stoppable

def work(stop):
    print("working", flush=True)
    if not stop.wait(60):
        raise SystemExit("nobody stopped it")
    time.sleep(float(sys.argv[1]))
    return "scored"

print(stoppable(work, lambda: print("stopping", flush=True)), flush=True)
"""


def started(seconds: float, *, ignoring: bool = False) -> subprocess.Popen[str]:
    """A process that stops within some seconds; ``ignoring`` as shells start background jobs."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignoring else signal.default_int_handler)

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=prepare,
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_asks_to_stop(which: signal.Signals) -> None:
    process = started(0.2)
    process.send_signal(which)
    assert process.communicate(timeout=30)[0] == "stopping\nscored\n"
    assert process.returncode == 0


def test_the_second_ends_it_at_once() -> None:
    process = started(60)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "stopping\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 5


def test_who_was_started_to_ignore_interrupts_ignores_them() -> None:
    process = started(0, ignoring=True)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stopping\nscored\n"


def test_children_of_who_was_started_to_ignore_signals_can_be_ended() -> None:
    """Dagster ends its copiers of output by SIGTERM, and would wait for them."""
    script = """
import signal, subprocess, sys
for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, signal.SIG_IGN)
from testbench_dagster.cli.interrupts import stoppable

def work(stop):
    said = "import time; print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", said], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.terminate()
    return child.wait(timeout=20)

print(stoppable(work, lambda: None), signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert done.stdout == f"{-signal.SIGTERM} True\n", done.stderr


def test_errors_of_the_work_are_raised() -> None:
    script = SCRIPT.replace("if not stop.wait(60):", "if True:")
    process = subprocess.run(
        [sys.executable, "-c", script, "0"], capture_output=True, text=True, cwd=REPOSITORY, timeout=60
    )
    assert process.returncode == 1 and "nobody stopped it" in process.stderr


def test_the_terminal_says_who_waits_why_and_until_when() -> None:
    until = datetime.now(UTC) + timedelta(seconds=40)
    wait = LaneWait("a@x", Fault.RATE_LIMITED, until)
    assert waits_text(Progress(1, 1, 0, 0, 1.0)) == ""
    one = waits_text(Progress(1, 1, 0, 0, 1.0, (wait,), 1, 0))
    assert one == f"waits for a@x (rate_limited) until {until.astimezone():%H:%M:%S}"
    assert waits_text(Progress(1, 1, 0, 0, 1.0, (wait,), 4, 0)) == f"{one} and 3 more"


TESTBENCH = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]
RUN = """
suppliers:
  - {{address: slow, base_url: "{url}/slow/v1", model: simulated-b}}
simulation: true
tasks: [{{name: starter_units, samples: 60}}]
relays: {{max_in_flight: 2}}
"""


@pytest.mark.slow
def test_an_interrupted_run_scores_what_is_stored_and_exits_with_130(tmp_path: Path) -> None:
    from testbench_dagster.localnet.personas import Backend, Persona
    from testbench_dagster_tests.tasks.signatures.simulated import served

    with served([Persona("slow", Backend("b", 0.7, latency_ms=300))]) as net:
        (tmp_path / "testbench.yaml").write_text(RUN.format(url=net.url))
        process = subprocess.Popen(
            [*TESTBENCH, "run"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        while net.suppliers["slow"].answered < 5:
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(2.0)
        asked = net.suppliers["slow"].requests
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert net.suppliers["slow"].requests == asked < 60
    assert "stopping: nothing is sent any more" in said
    shown = subprocess.run(
        [*TESTBENCH, "scores", "--format", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    assert '"n": ' in shown.stdout and '"n": 0' not in shown.stdout, shown.stderr
