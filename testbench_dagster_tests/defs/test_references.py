"""The asset check that tells who differs from the reference of its model, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.defs.partitions import range_tags
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.defs.one_check import Check, check_in_job, told

CHECK = dg.AssetCheckKey(dg.AssetKey("supplier_scores"), "alike_with_reference")
DIFFERS = "scores differ from the reference: -20.0 points (-31.0 to -9.1) on 240 common docs"


def record(name: str, verdict: Any, **changes: Any) -> ReferenceRecord:
    said: dict[str, Any] = {
        "id": f"{name}@external",
        "service": "external",
        "model": "m",
        "reference": "maker@external",
        "as_reference": verdict,
        "finding": "no common prompts with answers at temperature 0 yet",
        "compared_at": datetime(2026, 3, 1, tzinfo=UTC),
        "n_prompts": 60,
        "agreement": 1.0,
        "n_docs": 240,
        "difference": 0.0,
        "difference_low": -0.02,
        "difference_high": 0.02,
        "n_unanswered": 0,
        "n_whole": 240,
        "n_equal": 240,
        "n_tool_docs": 0,
        "trigger_f1": None,
        "trigger_f1_low": None,
        "trigger_f1_high": None,
        "schema_accuracy": None,
        "reference_schema_accuracy": None,
    }
    return ReferenceRecord(**{**said, **changes})


@pytest.fixture
def check() -> Iterator[Check]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", ["maker@external", "twin@external", "worse@external"])
        yield check_in_job(instance, "evaluate_suppliers", CHECK)


def test_who_differs_from_which_reference_is_told_with_by_how_much(
    open_installation: Callable[..., Workspace], check: Check
) -> None:
    addresses = [{"address": name} for name in ("worse", "twin", "newcomer")]
    workspace = open_installation({"address": "maker", "reference": True}, *addresses)
    records = [
        record("worse", "no", finding=DIFFERS, difference=-0.2, difference_low=-0.31, difference_high=-0.091),
        record("twin", "yes"),
        record("newcomer", "not yet known", difference=None, difference_low=None, n_whole=0),
        record("stranger", "no", reference="another@external"),
    ]
    typed.upsert(workspace.documents, ReferenceRecord, records)
    evaluation = check(workspace, range_tags("maker@external", "twin@external"))
    assert not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.WARN
    found = told(evaluation)
    # whichever the run was about; the stranger is on no roster
    assert found["offenders"] == {"worse@external": f"{DIFFERS} (reference: maker@external)"}
    assert [found[name] for name in ("n_offenders", "compared", "alike", "not_yet_known")] == [1, 3, 1, 1]
    lines = [line for line in found["as_reference"].splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        "| worse@external",
        "| newcomer@external",
        "| twin@external",
    ]
    cells = [cell.strip() for cell in lines[1].split(" | ")]
    assert cells[1:7] == [
        "maker@external",
        "no",
        "-20.0",
        "-31.0 to -9.1",
        "240",
        "240 of 240",
    ]
    assert not any(word in str(found) for word in ("you are", "serves", "fake"))


def test_it_passes_while_nobody_differs(open_installation: Callable[..., Workspace], check: Check) -> None:
    addresses = [{"address": name} for name in ("worse", "twin")]
    workspace = open_installation({"address": "maker", "reference": True}, *addresses)
    evaluation = check(workspace, range_tags("twin@external", "twin@external"))
    assert evaluation.passed and told(evaluation)["compared"] == 0
    typed.upsert(workspace.documents, ReferenceRecord, [record("twin", "yes"), record("worse", "no")])
    evaluation = check(workspace, range_tags("twin@external", "twin@external"))
    assert not evaluation.passed, "a run over the other hides nothing"
    assert told(evaluation)["n_suppliers_of_this_run"] == 0
    evaluation = check(workspace, range_tags("worse@external", "worse@external"))
    assert told(evaluation)["n_suppliers_of_this_run"] == 1
