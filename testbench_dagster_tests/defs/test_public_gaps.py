"""The asset check that tells who is better on public questions than on fresh ones of the kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from testbench_dagster.defs.partitions import range_tags
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.defs.one_check import Check, check_in_job, told
from testbench_dagster_tests.public_gaps import CONFIGURED, FOUND, TASK, flagged, gap, paired, store

CHECK = dg.AssetCheckKey(dg.AssetKey("identity_groups"), "public_not_special")


@pytest.fixture
def check() -> Iterator[Check]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield check_in_job(instance, "refresh_identity", CHECK)


@pytest.mark.parametrize("open_installation", ["sqlite"], indirect=True)
def test_who_is_flagged_is_told_and_nobody_else(
    open_installation: Callable[..., Workspace], check: Check
) -> None:
    addresses = [{"address": name} for name in ("parrot", "once", "honest", "newcomer")]
    workspace = open_installation(*addresses, tasks=[CONFIGURED])
    assert check(workspace, {}).passed, "where nothing was asked"
    paired(workspace)
    once = {"verdict": "better", "p": 0.004, "finding": FOUND}
    store(
        workspace,
        flagged("parrot"),
        gap("once", **once),
        gap("honest"),
        gap("honest", epoch=2, flagged=True),  # what an earlier epoch said is over
        gap("newcomer", verdict="no verdict", p=None, excess=None, excess_low=None, why="4 peers"),
        flagged("stranger"),  # on no roster
    )
    evaluation = check(workspace, range_tags("honest@external", "honest@external"))
    assert not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.WARN
    found = told(evaluation)
    assert list(found["offenders"]) == [f"parrot@external {TASK}"]
    said = found["offenders"][f"parrot@external {TASK}"]
    among = "in two of its last 4 epochs with a verdict"
    assert said == f"better on public questions than on fresh ones of the kind {among}; epoch 3: {FOUND}"
    counts = ("n_offenders", "compared", "better", "not_better", "no_verdict")
    assert [found[name] for name in counts] == [1, 4, 2, 1, 1]
    lines = [line for line in found["public_and_fresh"].splitlines() if line.startswith("| ")]
    first = [line.split(" | ")[0] for line in lines[1:]]
    assert first == ["| parrot@external", "| once@external", "| honest@external", "| newcomer@external"]
    assert [cell.strip().replace("\\", "") for cell in lines[1].split(" | ")][1:10] == [
        TASK, "3", "better", "yes", "98.0%", "61.0%", "+0.02", "+2.91", "+1.80",
    ]  # fmt: skip
    assert not any(word in str(found) for word in ("cheat", "fraud", "memoris", "leak"))
