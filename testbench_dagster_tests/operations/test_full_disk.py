"""The disk runs full in the middle of a run, at one stage after another: each time it is told in a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster_tests.namespaces import python_on_small_disk, require_namespaces

pytestmark = pytest.mark.slow(minutes=2)


#: What a run that is not quiet says besides: of little space before it begins, and how far it is.
SAID = ("warning: TESTBENCH_HOME ", "catalog: ", "evaluation: ", "scoring: ", "relays: ")


@pytest.mark.parametrize("size_kb", [1_500, 2_500, 4_000, 5_000])
def test_a_run_whose_disk_fills_says_so(tmp_path: Path, size_kb: int) -> None:
    require_namespaces()
    small = tmp_path / "small"
    small.mkdir()
    with LocalnetProcess(suppliers=3, latency_ms=5, fail_rate=0.0) as localnet:
        settings = {
            "simulation": True,
            "supplier_sources": [
                {"url": f"{localnet.url}/roster", "name": "localnet", "allow_private_networks": True}
            ],
            "tasks": [
                {"name": name, "samples": {"min": 100, "max": 100, "half_width": None}}
                for name in ("starter_logic", "starter_units")
            ],
        }
        setup = {"testbench.yaml": yaml.safe_dump(settings)}
        arguments = ["-m", "testbench_dagster_tests.cli.saying", json.dumps(setup), json.dumps(["run"])]
        done = python_on_small_disk(small, size_kb, *arguments, environment=os.environ, cwd=small)
    assert done.returncode == 0, done.stderr
    code, _, err = json.loads(done.stdout)
    assert code == 1 and "Traceback" not in err, err
    *before, last = err.splitlines()
    others = [line for line in before if line.strip() and not line.startswith(SAID)]
    assert not others, f"it is told in one line: {others}"
    assert last.startswith("error: ") and "its disk is full (" in last and f"left in {small}" in last, err
    assert "free some space there, or set TESTBENCH_HOME to a folder on another disk" in last
