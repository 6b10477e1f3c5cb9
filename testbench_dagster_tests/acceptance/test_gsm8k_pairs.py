"""GSM8K beside fresh questions by template, from the data set's file to verdict and evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster_tests.tasks.twins.make_templates import TEST_FILE

pytestmark = pytest.mark.slow

DOCS = 200
ROUTER = "sim-07@simulation"


def test_a_benchmark_router_is_better_on_gsm8k_than_on_its_twins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not TEST_FILE.exists():
        pytest.skip(f"{TEST_FILE} is absent (set TESTBENCH_SHARED)")
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    with LocalnetProcess(suppliers=8, latency_ms=2, fail_rate=0.0, questions=TEST_FILE) as network:
        source = {"url": f"{network.url}/roster", "name": "localnet", "allow_private_networks": True}
        task = {
            "name": "twins_gsm8k",
            "framework": "twins",
            "cluster": "template",
            "data": {"test": str(TEST_FILE)},
            "samples": {"min": DOCS, "max": DOCS, "half_width": None},
        }
        settings = {
            "simulation": True,
            "sampling": {"window": DOCS, "epoch_seed": 3},
            "supplier_sources": [source],
            "tasks": [task],
        }
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Testbench.open(path) as testbench:
            testbench.run()
            scores = {row["supplier"]: row for row in testbench.scores().rows}
            gaps = {row["supplier"]: row for row in testbench.twins().rows}
            testbench.evidence(ROUTER, tmp_path / "evidence.zip")
    assert len(scores) == len(gaps) == 8
    assert {(row["n"], row["status"]) for row in scores.values()} == {(DOCS, "ok")}
    assert gaps[ROUTER]["verdict"] == "better" and not gaps[ROUTER]["flagged"], "a flag takes two epochs"
    assert gaps[ROUTER]["public_share"] - gaps[ROUTER]["fresh_share"] > 0.25
    for name, row in gaps.items():
        assert row["n_pairs"] >= DOCS // 2 - 8, "at most a block of docs lacks its other half"
        if name != ROUTER:
            assert row["verdict"] != "better"
            assert abs(row["public_share"] - row["fresh_share"]) < 0.2
    report = rescore(tmp_path / "evidence.zip")
    assert report.equal, list(report.lines())
