"""Ctrl-C at a command that can stop in order."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from testbench_dagster.cli import main
from testbench_dagster.cli.interrupts import INTERRUPTED
from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.stores.datasets import open_datasets
from testbench_dagster.stores.documents import open_documents, typed
from testbench_dagster_tests.tasks.layouts import REPOSITORY
from testbench_dagster_tests.tasks.own_framework import written

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
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130, "its work takes a minute"


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
    assert "stopping: nothing is sent any more" in said and "Traceback" not in said
    summary = re.match(
        r"interrupted: scored (\d+), failed 0, open 0, void 0, still due (\d+), ", said.splitlines()[-1]
    )
    assert summary, said
    assert said.endswith("next: testbench run\n")
    shown = subprocess.run(
        [*TESTBENCH, "scores", "--format", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    [row] = json.loads(shown.stdout)
    scored, due = map(int, summary.groups())
    assert (row["n"], row["n_planned"]) == (scored, scored + due) and scored >= 5


@pytest.mark.slow
def test_on_a_terminal_ctrl_c_reaches_all_processes_and_only_the_bar_and_the_summary_are_seen(
    tmp_path: Path,
) -> None:
    from testbench_dagster.localnet.personas import Backend, Persona
    from testbench_dagster_tests.tasks.signatures.simulated import served

    with served([Persona("slow", Backend("b", 0.7, latency_ms=300))]) as net:
        (tmp_path / "testbench.yaml").write_text(RUN.format(url=net.url))
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "TERM": "xterm"}
            os.execve(sys.executable, [*TESTBENCH, "run"], environment)  # noqa: S606  this Python
        seen, sent, deadline = b"", False, time.monotonic() + 240
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    seen += os.read(terminal, 65536)
                except OSError:  # everybody who wrote to it has ended
                    break
            if not sent and net.suppliers["slow"].answered >= 8:
                os.write(terminal, b"\x03")
                sent = True
        _, status = os.waitpid(pid, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert os.waitstatus_to_exitcode(status) == 130, text
    assert "Traceback" not in text and "KeyboardInterrupt" not in text
    assert re.search(r"relays .*\d+/60 .*/s, \d in flight", text), "the bar is seen while relays run"
    assert re.search(r"interrupted: scored \d+, failed 0, ", text.splitlines()[-1] or text.splitlines()[-2])


def test_an_interrupt_that_nobody_waits_for_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("testbench_dagster.cli.init.starter_text", interrupted)
    monkeypatch.setattr(sys, "argv", ["testbench", "-c", os.devnull + "/none.yaml", "init"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED == 130
    assert capsys.readouterr().err.endswith("interrupted\n")


@pytest.mark.slow
def test_an_endless_task_is_named_and_the_first_interrupt_ends_it(tmp_path: Path) -> None:
    """Nothing of it is stored; the next run begins with it anew."""
    package, home, stores = written(tmp_path / "lib"), tmp_path / "home", tmp_path / "stores"
    home.mkdir()
    (home / "testbench.yaml").write_text(
        "suppliers: [{address: a, service: s, base_url: 'http://127.0.0.1:9/v1', model: m}]\n"
        "tasks: [{name: endless, framework: own, options: {hang: register, sleep: true}}]\n",
        encoding="utf-8",
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TESTBENCH_")}
    run = subprocess.Popen(
        [sys.executable, "-c", "from testbench_dagster.cli import main; main()", "run"],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **kept,
            "TESTBENCH_HOME": str(stores),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(package)]),
        },
    )
    assert run.stderr is not None
    said = ""
    while "waits for" not in said:
        said = run.stderr.readline()
        assert said, "it ended without a word"
    assert "waits for task 'endless', register() of framework 'own'" in said
    (child,) = children(run.pid)
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=60)[1]
    assert run.returncode == INTERRUPTED
    assert "interrupted while waiting for task 'endless'" in rest and "Traceback" not in rest
    assert not Path(f"/proc/{child}").exists()
    with closing(open_datasets(stores, None)) as datasets, closing(open_documents(stores, None)) as documents:
        assert datasets.tasks() == []
        assert not list(typed.find(documents, SetAsideRecord))


def children(pid: int) -> list[int]:
    """The frameworks' processes among those that a process started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text(encoding="ascii").split()):
            if b"tasks.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
