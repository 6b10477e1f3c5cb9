"""What the commands say of service probes: what they come to, what came of them, and each attempt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from testbench_dagster.cli import cli
from testbench_dagster.localnet.run import LocalnetProcess

pytestmark = pytest.mark.slow

PRICE = {"prompt": 2.0, "completion": 10.0}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))


def run(folder: Path, suppliers: list[dict[str, Any]], *arguments: str, **blocks: Any) -> Result:
    settings = {
        "suppliers": suppliers,
        "tasks": [{"name": "starter_logic", "samples": 4}],
        "simulation": True,
        **blocks,
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return CliRunner().invoke(cli, ["-c", str(path), *arguments])


def nobody(**more: Any) -> dict[str, Any]:
    return {"base_url": "http://127.0.0.1:9/v1", "model": "m", **more}


def test_a_plan_says_what_probes_come_to_where_they_are_on(tmp_path: Path) -> None:
    suppliers = [nobody(address="a", price=PRICE), nobody(address="b")]
    done = run(tmp_path, suppliers, "plan", service_probes={"enabled": True})
    assert done.exit_code == 0, done.output
    # 8 x 1,100 tokens of prompts at 2 a million, 16 x 300 of answers at 10
    assert (
        "service probes: besides, about 32 relays a day to 2 suppliers, with prompts of 17,600 tokens; "
        "answers have up to 9,600 tokens: up to 0.0656 for the 1 with a price"
    ) in done.stderr
    assert "service probes" not in run(tmp_path, suppliers, "plan").stderr


@pytest.fixture(scope="module")
def localnet() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=2, latency_ms=2, fail_rate=0.0) as net:
        yield net


def test_probe_shows_each_attempt_and_run_what_came_of_what_was_due(
    localnet: LocalnetProcess, tmp_path: Path
) -> None:
    suppliers = [
        {key: one[key] for key in ("address", "service", "base_url", "api", "model")}
        for one in localnet.roster()
    ]
    done = run(tmp_path, suppliers, "run", "--max-relays", "0", service_probes={"enabled": True})
    assert "service:" not in done.stderr, "a cap is on all that is sent"
    on = {"service_probes": {"enabled": True, "answer_tokens": 40}}
    done = run(tmp_path, suppliers, "probe", "sim-02@simulation", "--format", "json", **on)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["supplier"], row["workload"]) for row in rows] == [
        ("sim-02@simulation", "short"),
        ("sim-02@simulation", "1k"),
    ]
    for row in rows:
        assert 0 < row["first_token_ms"] <= row["ended_ms"]
        assert (row["completion_tokens"], row["tokens_source"], row["own_in_flight"]) == (40, "usage", 1)
    assert "service: 2 of 2 probes done, 2 answered" in done.stderr
    done = run(tmp_path, suppliers, "run", **on)
    assert done.exit_code == 0, done.output
    assert "service: 2 of 2 probes done, 2 answered" in done.stderr, "the other one was due, and it alone"
    assert ", probes 2 of 2 answered, checks ok" in done.stderr
    again = run(tmp_path, suppliers, "run", **on)
    assert "service:" not in again.stderr and "probes" not in again.stderr
    # off: nothing by itself, but by hand
    assert run(tmp_path, suppliers, "probe", service_probes={"enabled": False}).exit_code == 0
    left_out = run(tmp_path, suppliers, "probe", service_probes={"services": ["!simulation"]})
    assert left_out.exit_code != 0 and "leave everybody out" in str(left_out.exception)


def test_probes_that_nobody_answers_are_told(tmp_path: Path) -> None:
    done = run(tmp_path, [nobody(address="gone")], "probe", "--format", "csv")
    assert done.exit_code == 1
    assert "service: 2 of 2 probes done, 0 answered, not: transport 2" in done.stderr
    assert "no probe was answered; `testbench check` says why" in str(done.exception)
    assert done.stdout.count("gone@external,") == 2
