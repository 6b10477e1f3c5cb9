"""Who runs on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from testbench_dagster.coordination.processes import (
    boot_clock,
    is_running,
    is_stopped,
    machine,
    process_started,
)
from testbench_dagster_tests.coordination.workers import running, signalled, sleep_for_ever, wait_for


def test_this_process_runs():
    started = process_started(os.getpid())
    assert is_running(os.getpid(), started)
    assert is_running(os.getpid(), None)
    assert not is_stopped(os.getpid())


def test_a_reused_process_id_is_another_process():
    started = process_started(os.getpid())
    assert started is not None
    assert not is_running(os.getpid(), started + 1)


def test_a_killed_process_is_gone_before_and_after_its_parent_asks_for_it():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = process_started(child.pid)
    assert is_running(child.pid, started)
    child.kill()
    wait_for(lambda: not is_running(child.pid, started))  # a zombie: nobody has waited for it
    child.wait()
    assert not is_running(child.pid, started)
    assert process_started(child.pid) is None


def test_a_stopped_process_is_there():
    with running(sleep_for_ever) as child:
        started = process_started(child.pid)
        signalled(child, signal.SIGSTOP)
        wait_for(lambda: is_stopped(child.pid))
        assert is_running(child.pid, started)


def test_the_machine_is_the_same_for_its_processes():
    script = "from testbench_dagster.coordination.processes import boot_clock, machine; "
    script += "print(machine(), boot_clock(), sep='\\n')"
    before = boot_clock()
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    name, clock = told.splitlines()
    assert name == machine()
    assert before < float(clock) < boot_clock()


def test_the_boot_clock_goes_on():
    before = boot_clock()
    time.sleep(0.05)
    assert 0.04 < boot_clock() - before < 1
