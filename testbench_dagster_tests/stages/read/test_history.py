"""History: snapshots of every version, days without one, and changes of a supplier's model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.history import HistoryPoint
from testbench_dagster.core.snapshot_rows import SnapshotRow, pack_rows
from testbench_dagster.stages.discover.roster import cut_windows, refresh_roster
from testbench_dagster.stages.read.history import history
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import SUPPLIER_SNAPSHOTS
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts, configuration

TASKS = ("starter_logic", "starter_units")
TODAY = datetime.now(UTC).date()


@pytest.fixture(params=["sqlite", "mongo"])
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    settings = {"tasks": [{"name": name} for name in TASKS], "taxonomies": ["builtin:starter"]}
    with Workspace(configuration(tmp_path, settings)) as opened:
        yield opened


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def noon(days: int) -> datetime:
    day = ago(days)
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def snapshot(workspace: Workspace, days: int, scores: dict[str, float], **more: Any) -> None:
    """A snapshot of a day, as this version packs it."""
    rows = [
        SnapshotRow(
            task, None, None, "exact_match", "none", score, score - 0.1, score + 0.1, 50, 2, 10.0, 20.0
        )
        for task, score in scores.items()
    ]
    document = {
        "_id": f"snapshot-{days}",
        "supplier": ALPHA,
        "day": ago(days).isoformat(),
        "taken_at": noon(days - 1),
        "rows": pack_rows(rows),
        **more,
    }
    workspace.documents.upsert(SUPPLIER_SNAPSHOTS, [document])


def course(points: list[HistoryPoint], task: str = TASKS[0]) -> list[tuple[str, float | None, str, bool]]:
    return [(p.day, p.score, p.source, p.cut) for p in points if p.task == task]


def test_a_snapshot_that_was_taken_is_a_point_of_every_score(workspace: Workspace) -> None:
    facts, now = Facts(workspace), datetime.now(UTC)
    registration = facts.registration(TASKS[0])
    for doc in range(8):
        facts.score(registration, doc, float(doc < 6), at=now, latency_ms=40.0)
    refresh_summaries(workspace, [ALPHA])
    take_snapshots(workspace, TODAY)
    points = history(workspace, ALPHA)
    [point] = [p for p in points if p.task == TASKS[0]]
    assert (point.day, point.supplier, point.metric, point.filter) == (
        TODAY.isoformat(),
        ALPHA,
        "exact_match",
        "none",
    )
    assert (point.score, point.n, point.n_failed, point.source, point.cut) == (0.75, 8, 0, "snapshot", False)
    assert point.ci_low is not None and point.ci_high is not None
    assert 0.3 < point.ci_low < 0.75 < point.ci_high < 1
    nodes = {p.node: p.score for p in points if p.taxonomy == "starter"}
    assert nodes["reasoning"] == 0.75
    assert all(p.task is None and p.metric is None for p in points if p.taxonomy == "starter")
    assert history(workspace, "beta@external") == []
    # of named tasks the nodes are left out
    assert {p.task for p in history(workspace, ALPHA, tasks=[TASKS[0]])} == {TASKS[0]}
    assert history(workspace, ALPHA, tasks=[TASKS[1]]) == []
    # and of wanted scores all others
    wanted = {(TASKS[0], None, None), (None, "starter", "reasoning")}
    some = history(workspace, ALPHA, series=wanted)
    assert some == [p for p in points if (p.task, p.taxonomy, p.node) in wanted] and len(some) == 2


def test_snapshots_of_earlier_versions_are_read(workspace: Workspace) -> None:
    window = {
        "task": TASKS[0],
        "metric": "exact_match",
        "filter": "none",
        "score": 0.5,
        "ci_low": 0.25,
        "ci_high": 0.75,
        "n": 12,
        "latency_ms": {"p50": 7.5, "p95": 9.0},
        "errors": {},
    }
    node = {
        "node": "overall",
        "status": "ok",
        "score": 0.5,
        "se": 0.1,
        "ci_low": 0.3,
        "ci_high": 0.7,
        "weights": {},
        "n_tasks": 1,
        "n_measured": 1,
        "coverage": 1.0,
        "min_n": 12,
        "missing": [],
        "n": 12,
        "errors": 3,
    }
    unknown = {**node, "node": "unknown", "score": None}
    old = {
        "_id": "old",
        "supplier": ALPHA,
        "day": ago(9).isoformat(),
        "taken_at": noon(8),
        "windows": [window, {**window, "task": TASKS[1], "score": None, "n": 0}],
        "summaries": [
            {
                "taxonomy": "starter",
                "summarized_at": noon(9),
                "score": 0.5,
                "root": "overall",
                "nodes": {"overall": node, "unknown": unknown},
            }
        ],
    }
    workspace.documents.upsert(SUPPLIER_SNAPSHOTS, [old])
    of_task, of_node = history(workspace, ALPHA)
    assert (of_task.task, of_task.score, of_task.n, of_task.n_failed) == (TASKS[0], 0.5, 12, 0)
    assert (of_task.p50_ms, of_task.p95_ms, of_task.ci_low) == (7.5, 9.0, 0.25)
    assert (of_node.taxonomy, of_node.node, of_node.score, of_node.n_failed) == ("starter", "overall", 0.5, 3)


def test_days_without_a_snapshot_have_the_mean_of_what_was_answered(workspace: Workspace) -> None:
    facts = Facts(workspace)
    registration = facts.registration(TASKS[0])
    for days, values in ((5, [1.0, 0.0]), (4, [1.0]), (3, [0.0]), (1, [1.0, 1.0, 1.0, 0.0])):
        for doc, value in enumerate(values):
            facts.score(registration, days * 10 + doc, value, at=noon(days), latency_ms=10.0 * (doc + 1))
    # neither what only a gate asked nor what the scorer could not digest is in a mean
    facts.score(registration, 90, 0.0, at=noon(4), round_=0)
    facts.score(registration, 91, at=noon(4), error="broken")
    snapshot(workspace, 3, {TASKS[0]: 0.6})
    points = history(workspace, ALPHA, tasks=[TASKS[0]])
    assert course(points) == [
        (ago(5).isoformat(), 0.5, "daily_mean", False),
        (ago(4).isoformat(), 1.0, "daily_mean", False),
        (ago(3).isoformat(), 0.6, "snapshot", False),
        (ago(1).isoformat(), 0.75, "daily_mean", False),
    ]
    last = points[-1]
    assert (last.n, last.n_failed, last.p50_ms, last.p95_ms) == (4, None, 20.0, 40.0)
    assert last.ci_low is not None and 0.2 < last.ci_low < 0.75
    assert course(history(workspace, ALPHA, fill=False)) == [(ago(3).isoformat(), 0.6, "snapshot", False)]
    some = history(workspace, ALPHA, since=ago(4), until=ago(2))
    assert [p.day for p in some] == [ago(4).isoformat(), ago(3).isoformat()]


def test_the_first_day_after_a_change_of_the_model_is_marked(workspace: Workspace) -> None:
    facts = Facts(workspace)
    registration = facts.registration(TASKS[0])
    for days in (6, 5, 2, 1):
        snapshot(workspace, days, {TASKS[0]: 0.5})
    snapshot(workspace, 1, {TASKS[0]: 0.5, TASKS[1]: 0.4})
    facts.score(registration, 0, 1.0, at=noon(0))
    refresh_roster(workspace)
    assert cut_windows(workspace, ALPHA, noon(3), "another model")
    points = history(workspace, ALPHA)
    assert [(p[0], p[3]) for p in course(points)] == [
        (ago(6).isoformat(), False),
        (ago(5).isoformat(), False),
        (ago(2).isoformat(), True),
        (ago(1).isoformat(), False),
        (ago(0).isoformat(), False),
    ]
    # nothing was known of it before, so nothing of it became void
    assert [p[3] for p in course(points, TASKS[1])] == [False]


def test_a_cut_that_only_a_snapshot_remembers_is_marked(workspace: Workspace) -> None:
    snapshot(workspace, 2, {TASKS[0]: 0.5})
    snapshot(workspace, 1, {TASKS[0]: 0.9}, cut_at=noon(1))
    assert [p[3] for p in course(history(workspace, ALPHA, fill=False))] == [False, True]


def test_a_task_that_is_not_configured_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="task 'gsm8k' is not configured"):
        history(workspace, ALPHA, tasks=["gsm8k"])


def test_a_stored_snapshot_of_a_hundred_tasks_is_below_its_share_of_a_year(workspace: Workspace) -> None:
    """8 GB a year at 5,000 suppliers is 4.4 kB each day."""
    scores = {f"leaderboard_subject_{i * 7919 % 997}": (i * 37 % 101) / 101 for i in range(100)}
    snapshot(workspace, 1, scores)
    [document] = workspace.documents.find(SUPPLIER_SNAPSHOTS)
    assert len(bson.encode(document)) < 4_400
