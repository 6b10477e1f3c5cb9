"""Service probes and scores keep out of each other's way: the same scores, no supplier lost, budgets held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster import Testbench
from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.coordination.leases import held_suppliers
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.service.budget import probe_account
from testbench_dagster.stages.service.due import due_probes
from testbench_dagster.stages.service.probing import probe
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.operations.harness import wait_until
from testbench_dagster_tests.tasks.layouts import REPOSITORY

pytestmark = pytest.mark.slow

PROBES = {"enabled": True, "answer_tokens": 64}
OFF = {"enabled": False}


@pytest.fixture(scope="module")
def localnet() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=4, latency_ms=2, fail_rate=0.0) as net:
        yield net


def written(
    folder: Path, localnet: LocalnetProcess, probes: Mapping[str, Any], but: Sequence[str] = ()
) -> Path:
    """A configuration over the localnet, the same every time; ``but`` leaves suppliers out, by address."""
    settings = {
        "simulation": True,
        "suppliers": [
            {key: one[key] for key in ("address", "service", "base_url", "api", "model")}
            for one in localnet.roster()
            if one["address"] not in but
        ],
        "tasks": [
            *({"name": name, "samples": 12} for name in ("starter_logic", "starter_choice")),
            {"name": "identity", "framework": "signatures"},
        ],
        "taxonomies": ["builtin:starter"],
        "sampling": {"epoch_seed": 11},
        "service_probes": dict(probes),
    }
    folder.mkdir(exist_ok=True)
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


Measured = Mapping[str, Sequence[Mapping[str, Any]]]


def measured(testbench: Testbench) -> Measured:
    """Everything that scores and identity rest on, as it is exported."""
    return {
        "scores": testbench.scores().rows,
        "identity": testbench.identity().rows,
        "pairs": testbench.identity_pairs().rows,
        "changes": testbench.changes().rows,
        "abilities": testbench.taxonomies().rows,
        "items": testbench.item_matrix().rows,
    }


def as_bytes(rows: Measured, *, without: Sequence[str] = ()) -> bytes:
    return json.dumps(
        {
            name: [{key: value for key, value in row.items() if key not in without} for row in some]
            for name, some in rows.items()
        },
        sort_keys=True,
        default=str,
    ).encode()


def moments(rows: Measured) -> set[str]:
    """Columns that tell when something was, or how long it took: no two runs have the same."""
    return {
        key
        for some in rows.values()
        for row in some
        for key, value in row.items()
        if isinstance(value, datetime) or key == "since" or key.endswith(("_ms", "_at"))
    }


def differing(one: Measured, two: Measured, without: Sequence[str]) -> list[Any]:
    """The values that are not the same, for whoever reads of a failure."""
    return [
        (name, key, a.get("supplier"), a[key], b.get(key))
        for name, rows in one.items()
        for a, b in zip(rows, two[name], strict=True)
        for key in a
        if key not in without and a[key] != b.get(key)
    ]


def test_scores_windows_and_identity_are_the_same_with_probes_on_and_off(
    localnet: LocalnetProcess, tmp_path: Path
) -> None:
    """Byte for byte, but for instants and latencies: of two installations over the same suppliers.

    None of these answer alike: who stands for a group is drawn by lot, probes or not.
    """
    found = {}
    for name, probes in (("off", OFF), ("on", PROBES)):
        with Testbench.open(written(tmp_path / name, localnet, probes, but=["sim-03"])) as testbench:
            report = testbench.run()
            found[name] = measured(testbench)
            assert (report.probed is None) is (name == "off")
    assert report.probed is not None and report.probed.report.answered == 6
    assert len(found["on"]["scores"]) >= 6 and found["on"]["pairs"]
    without = sorted(moments(found["on"]))
    assert not {"score", "n", "ci_low", "value", "proxy"} & set(without)
    assert differing(found["on"], found["off"], without) == []
    assert as_bytes(found["on"], without=without) == as_bytes(found["off"], without=without)
    with Workspace.open(tmp_path / "on" / "testbench.yaml") as workspace:
        attempts = list(typed.find(workspace.documents, AttemptRecord))
        probed = list(typed.find(workspace.documents, ServiceProbeRecord))
    assert attempts and all(one.first_token_ms is None for one in attempts), "no quality relay is streamed"
    assert not any(one.body.startswith(b"data:") for one in attempts)
    assert len(probed) == 6 and all(one.streamed for one in probed)


def test_a_probe_moves_nothing_at_all(localnet: LocalnetProcess, tmp_path: Path) -> None:
    """Byte for byte, instants too: of one installation before and after it."""
    with Testbench.open(written(tmp_path / "one", localnet, PROBES)) as testbench:
        testbench.run()
        before = measured(testbench)
        assert {row["group"] for row in before["identity"] if row["role"] == "member"}, "two answer alike"
        assert testbench.probe().answered == 8
        assert as_bytes(measured(testbench)) == as_bytes(before)


def test_an_evaluation_waits_for_a_probe_and_never_loses_its_supplier(
    localnet: LocalnetProcess, tmp_path: Path
) -> None:
    """A probe of some seconds is on its way to each supplier when the evaluation begins."""
    path = written(tmp_path / "both", localnet, PROBES | {"enabled": False})
    with Testbench.open(path) as testbench:
        localnet.speed("sim-01", 2_500, 500)
        key = "sim-01@simulation"
        try:
            with Workspace.open(path) as other:
                prober = threading.Thread(target=probe, args=(other, [key]), kwargs={"only_due": False})
                prober.start()
                wait_until("the probe", lambda: key in held_suppliers(other.documents), 30, 0.02)
                report = testbench.run([key], ["starter_logic"])
                prober.join(60)
                probed = typed.count(other.documents, ServiceProbeRecord)
        finally:
            localnet.speed("sim-01")
        assert (report.left, report.problem, report.open) == ({}, "", {})
        assert report.tally.scored == 12
        assert probed == 2


KILLED = textwrap.dedent(
    """
    import sys
    from testbench_dagster.stages.service.probing import probe
    from testbench_dagster.stages.workspace import Workspace

    with Workspace.open(sys.argv[1]) as workspace:
        probe(workspace, sys.argv[2:])
    """
)


def test_killed_and_started_again_it_goes_on_within_its_budget(
    localnet: LocalnetProcess, tmp_path: Path
) -> None:
    cap = 20
    path = written(tmp_path / "killed", localnet, PROBES | {"relays_per_day": cap, "per_day": 1})
    keys = [f"sim-{n:02}@simulation" for n in range(1, 5)]
    for key in keys:
        localnet.speed(key.partition("@")[0], 300, 500)
    with Workspace.open(path) as workspace:
        documents = workspace.documents

        def stored() -> int:
            return typed.count(documents, ServiceProbeRecord)

        try:
            for wanted in (2, 5):
                process = subprocess.Popen(
                    [sys.executable, "-c", KILLED, str(path), *keys],
                    cwd=REPOSITORY,
                    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                )
                try:
                    wait_until("some probes", lambda wanted=wanted: stored() >= wanted, 120, 0.02)
                    process.send_signal(signal.SIGKILL)
                finally:
                    process.kill()
                    process.wait()
                spent = BudgetLedger(documents).spent(
                    probe_account("simulation"), period_start("day", datetime.now(UTC))
                )
                assert spent is not None and stored() <= spent <= cap
            before = stored()
            left = due_probes(workspace, keys, datetime.now(UTC))
            assert len(left) == 8 - before, "what is stored is not asked again"
            rest = probe(workspace, keys)
            assert rest.report.held == {}, "what dead processes held is taken over"
        finally:
            for key in keys:
                localnet.speed(key.partition("@")[0])
        rows = list(typed.find(documents, ServiceProbeRecord))
        assert len({(one.supplier, one.workload) for one in rows}) == len(rows) == stored()
        spent = BudgetLedger(documents).spent(
            probe_account("simulation"), period_start("day", datetime.now(UTC))
        )
        assert spent is not None and len(rows) <= spent <= cap
        assert due_probes(workspace, keys, datetime.now(UTC)) == [] or spent == cap
