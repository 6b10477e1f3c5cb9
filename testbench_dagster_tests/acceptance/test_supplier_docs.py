"""docs/suppliers.md says what is so: commands work, configurations are valid, links lead on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster_tests.acceptance.documents import (
    broken_links,
    document,
    run_blocks,
    shell_environment,
    yaml_of,
)
from testbench_dagster_tests.acceptance.harness import console_script
from testbench_dagster_tests.servers import free_port

SUPPLIERS = document("docs/suppliers.md")
#: Where the documented network listens; the test takes a free port in its place.
DOCUMENTED = "127.0.0.1:8711"
WRITTEN = re.findall(r"<<'YAML'\n(.*?)^YAML$", SUPPLIERS, re.M | re.S)


@pytest.mark.parametrize("snippet", [*yaml_of(SUPPLIERS), *WRITTEN])
def test_a_configuration_is_valid(snippet: str, tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    base = {"tasks": [{"name": "starter_logic"}]}
    path.write_text(yaml.safe_dump({**base, **yaml.safe_load(snippet)}), encoding="utf-8")
    config = load_config(path)
    assert len(task_specs(config)) == len(config.settings.tasks)


def test_links_lead_somewhere() -> None:
    assert not broken_links("docs/suppliers.md")


@pytest.mark.slow(minutes=2)
def test_the_commands_work_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    port = free_port()
    up = "testbench localnet up"
    environment = shell_environment(TESTBENCH_LOCALNET_URL=f"http://127.0.0.1:{port}")
    text = SUPPLIERS.replace(DOCUMENTED, f"127.0.0.1:{port}")
    ran = run_blocks(text, folder, environment, {up: (f"{up} --port {port} --latency-ms 5", port)})
    assert len(ran) == 5
    first, last, deceiving = ran[2], ran[3], ran[4]
    assert deceiving.out.count('"simulation": true') == 10
    (promised,) = re.findall(r"^        (generation: .*)$", SUPPLIERS, re.M)
    assert f"        {promised}" in first.out
    assert "generation: {seed: omit, stop: 4}" in first.out and "generation: {budget: 16384}" in first.out
    assert "it lists simulated-model-of-strict, not 'another-model'" in first.out
    assert "FAIL" not in last.out and "warn" not in last.out

    command = [str(console_script()), "scores", "--format", "json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    rows = {
        (row["supplier"], row["task"]): row for row in json.loads(done.stdout) if row["metric"] != "acc_norm"
    }
    for who in ("deep@external", "thinker@reasoning", "strict@external", "east@azure", "text@external"):
        row = rows[who, "starter_logic"]
        assert row["status"] == "ok" and row["n"] == 20 and row["score"] >= 0.3, row
        asked = rows[who, "starter_choice"]["status"]
        assert asked == ("ok" if who == "text@external" else "not_applicable")
