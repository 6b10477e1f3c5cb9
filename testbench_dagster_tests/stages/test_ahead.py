"""A clock that was ahead and has been set back: told in a line, and nothing waits for its dates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.stages.ahead import dated_ahead
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, GATING, NOW, Stage
from testbench_dagster_tests.stages.sample.epochs import stored_epoch
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA
from testbench_dagster_tests.stages.service.probes import stored_probe

AHEAD = NOW + timedelta(days=3)
AGO = NOW - timedelta(days=1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return Stage(tmp_path, {})


def test_evidence_dated_ahead_is_asked_again_and_told(made: Stage) -> None:
    made.answered(GATING, range(DOCS), at=AGO)
    made.answered(GATED, range(DOCS), at=AHEAD)
    (supplier,) = [one for one in active_suppliers(made.workspace) if one.key == ALPHA]
    plan = Planner(made.workspace, now=NOW).plan(supplier)
    assert plan.tasks[GATING].state == "fresh"
    assert plan.tasks[GATED].state == "due" and len(plan.tasks[GATED].plan.due) == DOCS
    told = dated_ahead(made.workspace, NOW)
    assert told is not None and told.startswith(f"{DOCS} attempts are dated ahead of this machine")
    assert f"{AHEAD:%Y-%m-%d %H:%M} UTC" in told and "NTP" in told
    assert dated_ahead(made.workspace, AHEAD) is None
    clock = next(one for one in findings(made.workspace, suppliers=False) if one.what == "clock")
    assert (clock.detail, clock.ok, clock.warning) == (dated_ahead(made.workspace, NOW), False, True)


def test_a_small_skew_is_none(made: Stage) -> None:
    made.answered(GATED, range(DOCS), at=NOW + timedelta(seconds=30))
    (supplier,) = [one for one in active_suppliers(made.workspace) if one.key == ALPHA]
    assert Planner(made.workspace, now=NOW).plan(supplier).tasks[GATED].state == "fresh"
    assert dated_ahead(made.workspace, NOW) is None


def test_what_is_dated_right_takes_the_place_of_what_is_dated_ahead(made: Stage) -> None:
    registration = made.registrations[GATED]
    for doc in range(4):
        made.facts.score(registration, doc, 0.0, AHEAD)

    def score(now=NOW) -> tuple[float | None, int]:
        (row,) = [
            row
            for row in windows(made.workspace, suppliers=[ALPHA], now=now)
            if row.primary and row.task == GATED
        ]
        return row.score, row.n

    assert score() == (0.0, 4), "the evidence is kept until there is other"
    for doc in range(4):
        made.facts.score(registration, doc, 1.0, AGO, round_=2)
    assert score() == (1.0, 4), "and shadows nothing until its date comes"


def test_a_plan_made_by_a_clock_that_was_ahead_is_due_now(made: Stage) -> None:
    for key in (ALPHA, BETA):
        for task in (GATED, GATING):
            made.answered(task, range(DOCS), supplier=key, at=AGO)
    refresh_plans(made.workspace, active_suppliers(made.workspace), AHEAD)
    assert {one.key for one in due_suppliers(made.workspace, NOW)} == {ALPHA, BETA}
    assert "2 plans are" in (dated_ahead(made.workspace, NOW) or "")
    refresh_plans(made.workspace, active_suppliers(made.workspace), NOW)
    assert due_suppliers(made.workspace, NOW) == [] and dated_ahead(made.workspace, NOW) is None


def test_a_supplier_that_failed_in_the_future_is_tried_now(made: Stage) -> None:
    present = datetime.now(UTC)  # which progress is dated by
    refresh_plans(made.workspace, active_suppliers(made.workspace), present)
    record_progress(made.workspace, [], {ALPHA: "no answer"})
    (supplier,) = [one for one in active_suppliers(made.workspace) if one.key == ALPHA]
    before = present - timedelta(days=3)
    for now, rests in ((present, True), (before, False)):
        due_at = Planner(made.workspace, now=now).plan(supplier).due_at
        assert due_at is not None and (due_at > now) == rests


def test_a_day_that_was_spent_in_the_future_is_not_spent_today(made: Stage) -> None:
    from testbench_dagster.coordination.pace import DayLedger
    from testbench_dagster.core.pace import Pace

    days, pace = DayLedger(made.workspace.documents), Pace("p", requests_per_day=4)
    while days.grant(pace, AHEAD)[1]:
        pass
    assert days.left(pace, AHEAD) == 0
    assert days.left(pace, NOW) == 4 and days.renews_at(pace, NOW) == NOW


def test_tokens_that_were_granted_in_the_future_do_not_count_now(made: Stage) -> None:
    from testbench_dagster.coordination.pace import PaceLedger
    from testbench_dagster.core.pace import Pace

    pace = Pace("p", tokens_per_minute=100)
    ledger: Callable[..., PaceLedger] = lambda at: PaceLedger(  # noqa: E731
        made.workspace.documents, clock=at.timestamp
    )
    assert ledger(AHEAD).grant(pace, 0, 100).tokens == 100
    assert ledger(AHEAD).grant(pace, 0, 100).tokens == 0
    assert ledger(NOW).grant(pace, 0, 100).tokens == 100


def test_epochs_and_probes_are_told_with_the_rest(open_installation: Callable[..., Workspace]) -> None:
    workspace = open_installation({"address": "a"})
    stored_epoch(workspace.documents, "starter_logic", 1, AGO)
    stored_probe(workspace.documents, "a@external", AGO)
    assert dated_ahead(workspace, NOW) is None
    stored_epoch(workspace.documents, "starter_logic", 2, AHEAD)
    told = dated_ahead(workspace, NOW)
    assert told is not None and told.startswith("1 epoch is dated ahead") and f"{AHEAD:%Y-%m-%d}" in told
    for hour in range(2):
        stored_probe(workspace.documents, "a@external", AHEAD + timedelta(hours=hour))
    told = dated_ahead(workspace, NOW)
    assert told is not None and told.startswith("1 epoch and 2 service probes are dated ahead")
