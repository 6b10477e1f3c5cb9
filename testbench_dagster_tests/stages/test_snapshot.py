"""Daily snapshots: what they hold, and that those of days that are over are never changed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.snapshot_rows import unpack_rows
from testbench_dagster.stages import snapshot as module
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.snapshot import begin_history, take_snapshots
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import SUPPLIER_SNAPSHOTS, SUPPLIERS
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASKS = ("starter_logic", "starter_units")
DAY = date(2026, 3, 1)


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    settings = {"tasks": [{"name": name} for name in TASKS], "taxonomies": ["builtin:starter"]}
    with Workspace(configuration(tmp_path, settings)) as opened:
        yield opened


def stored(workspace: Workspace, **where: Any) -> dict[str, dict[str, Any]]:
    return {d["supplier"]: d for d in workspace.documents.find(SUPPLIER_SNAPSHOTS, where or None)}


def test_a_snapshot_holds_the_primary_windows_and_the_summaries(workspace: Workspace) -> None:
    facts, now = Facts(workspace), datetime.now(UTC)
    metrics = {"exact_match": "mean", "other": "mean"}
    registration = facts.registration("starter_logic", metrics=metrics, filters=("first", "second"))
    for doc in range(8):
        values = {"exact_match": float(doc < 6), "other": 0.0}
        facts.score(registration, doc, at=now, metrics={"first": values, "second": values})
    refresh_summaries(workspace, [ALPHA])
    assert take_snapshots(workspace, DAY) == 2
    snapshot = stored(workspace)[ALPHA]
    assert snapshot["day"] == "2026-03-01"
    assert now <= snapshot["taken_at"] <= datetime.now(UTC)
    rows = unpack_rows(snapshot["rows"])
    [first] = [r for r in rows if r.task is not None]
    assert (first.task, first.metric, first.filter, first.n) == ("starter_logic", "exact_match", "first", 8)
    (row,) = (w for w in windows(workspace, suppliers=[ALPHA], tasks=["starter_logic"]) if w.primary)
    assert first.score == row.score == 0.75
    assert (first.ci_low, first.ci_high) == pytest.approx((row.ci_low, row.ci_high), rel=1e-6)
    assert (first.p50_ms, first.p95_ms) == pytest.approx((row.latency_ms["p50"], row.latency_ms["p95"]))
    nodes = {r.node: r.score for r in rows if r.taxonomy == "starter"}
    assert nodes["reasoning"] == 0.75
    assert None not in nodes.values(), "what has no score is no row"
    assert unpack_rows(stored(workspace)[BETA]["rows"]) == []


def test_a_snapshot_once_taken_stays(workspace: Workspace) -> None:
    facts, now = Facts(workspace), datetime.now(UTC)
    registration = facts.registration("starter_logic")
    facts.score(registration, 0, 1.0, at=now)
    assert take_snapshots(workspace, DAY, suppliers=[ALPHA]) == 1
    before = stored(workspace)
    facts.score(registration, 1, 0.0, at=now)
    assert take_snapshots(workspace, DAY) == 1, "the other one was missing"
    after = stored(workspace)
    assert after[ALPHA] == before[ALPHA]
    assert sorted(after) == [ALPHA, BETA]
    assert take_snapshots(workspace, DAY) == 0
    assert take_snapshots(workspace, date(2026, 3, 2)) == 2
    [row] = unpack_rows(stored(workspace, day="2026-03-02")[ALPHA]["rows"])
    assert row.score == 0.5
    assert workspace.documents.count(SUPPLIER_SNAPSHOTS) == 4


def test_until_its_day_is_over_a_snapshot_is_replaced(workspace: Workspace) -> None:
    facts, now = Facts(workspace), datetime.now(UTC)
    registration = facts.registration("starter_logic")
    facts.score(registration, 0, 1.0, at=now)
    assert begin_history(workspace, [ALPHA, BETA]) == 2
    assert begin_history(workspace, [ALPHA, BETA]) == 0, "they have begun"
    facts.score(registration, 1, 0.0, at=now)
    assert take_snapshots(workspace, now.date(), [ALPHA]) == 1
    [row] = unpack_rows(stored(workspace)[ALPHA]["rows"])
    assert row.score == 0.5
    tomorrow = now + timedelta(days=1)
    facts.score(registration, 2, 0.0, at=now)
    assert take_snapshots(workspace, now.date(), now=tomorrow) == 2
    facts.score(registration, 3, 0.0, at=now)
    assert take_snapshots(workspace, now.date(), now=tomorrow) == 0, "the day is over"
    [row] = unpack_rows(stored(workspace)[ALPHA]["rows"])
    assert row.score == pytest.approx(1 / 3, rel=1e-6)
    assert workspace.documents.count(SUPPLIER_SNAPSHOTS) == 2


def test_suppliers_that_left_have_none(workspace: Workspace) -> None:
    document = {
        "_id": "gone@external",
        "address": "gone",
        "service": "external",
        "status": "left",
        "joined_at": datetime.now(UTC),
        "left_at": datetime.now(UTC),
        "base_url": "http://127.0.0.1:9/v1",
        "api": "chat",
        "model": "m",
        "transport": "direct",
        "source": "configuration",
        "history": [],
    }
    workspace.documents.upsert(SUPPLIERS, [document])
    assert take_snapshots(workspace, DAY) == 2
    assert take_snapshots(workspace, DAY, suppliers=["gone@external", "unknown@external"]) == 0
    assert sorted(stored(workspace)) == [ALPHA, BETA]


def test_memory_does_not_grow_with_the_suppliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOGETHER", 10)
    peaks = []
    for count in (40, 160):
        folder = tmp_path / str(count)
        folder.mkdir()
        suppliers = [
            {"address": f"s{i}", "base_url": "http://127.0.0.1:9/v1", "model": "m"} for i in range(count)
        ]
        settings = {"suppliers": suppliers, "tasks": [{"name": name} for name in TASKS]}
        (folder / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(folder / "testbench.yaml")) as workspace:
            facts, now = Facts(workspace), datetime.now(UTC)
            registration = facts.registration("starter_logic")
            for i in range(count):
                for doc in range(5):
                    facts.score(registration, doc, at=now, supplier=f"s{i}@external")
            take_snapshots(workspace, DAY, suppliers=["s0@external"])
            tracemalloc.start()
            assert take_snapshots(workspace, DAY) == count - 1
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (160 - 40) < 1_500, "bytes a supplier: who it is, and none of its rows"
