"""Ctrl-C while a job runs in this process ends it as everywhere else."""

from __future__ import annotations

import os
import signal

import pytest

from testbench_dagster.config import load_config
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.stages.workspace import Workspace

CONFIGURATION = """
suppliers: [{address: a, base_url: "http://127.0.0.1:1/v1", model: m}]
tasks: [{name: starter_units}]
"""


def test_an_interrupted_job_is_a_keyboard_interrupt_without_dagsters_stack(tmp_path, monkeypatch):
    path = tmp_path / "testbench.yaml"
    path.write_text(CONFIGURATION)

    def interrupted(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal ends it")

    monkeypatch.setattr("testbench_dagster.defs.network.assets.refresh_roster", interrupted)
    with (
        Workspace(load_config(path)) as workspace,
        LocalRuns(workspace) as runs,
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        runs.refresh_suppliers()
    assert caught.value.__suppress_context__
