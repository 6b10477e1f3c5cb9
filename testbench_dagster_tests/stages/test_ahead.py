"""A clock that was ahead and has been set back: told in a line, and nothing waits for its dates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.planning.due import CallOutcome
from testbench_dagster.stages.ahead import dated_ahead
from testbench_dagster.stages.attempts import history
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import active_suppliers, cut_windows, cuts_of, refresh_roster
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.plan.planner import Planner, _absent_until
from testbench_dagster.stages.relay.capabilities import _echo_is_known
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.tally import Tallying
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
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


def test_what_was_sampled_in_the_future_is_no_newest_sample(made: Stage) -> None:
    """Beside one of now: else a schedule would be over at every look, until that date is reached."""
    made.answered(GATED, range(2), at=AGO)
    made.answered(GATED, range(2, 4), at=AHEAD)
    registration = made.registrations[GATED]
    found = history(
        made.workspace.documents,
        ALPHA,
        GATED,
        registration.task_hash,
        epoch=1,
        began=AGO,
        since=AGO - timedelta(days=35),
        now=NOW,
    )
    assert found.last_at == AGO


def test_a_doc_closed_in_the_future_was_closed_last_at_a_date_that_is_right(made: Stage) -> None:
    registration = made.registrations[GATED]
    for round_, at in ((1, AHEAD), (2, AGO)):
        made.facts.attempt(registration, 0, at=at, round_=round_)
    found = history(
        made.workspace.documents,
        ALPHA,
        GATED,
        registration.task_hash,
        epoch=2,
        began=NOW,
        since=AGO - timedelta(days=35),
        now=NOW,
    )
    (closed,) = found.closed_earlier({}, {prompt: 1 for prompt, _ in found.earlier}).values()
    assert (closed.at, closed.round) == (AGO, 2)


def test_who_was_put_off_in_the_future_is_not_when_it_is_planned_again(made: Stage) -> None:
    present = datetime.now(UTC)  # which progress is dated by
    before = present - timedelta(days=3)
    refresh_plans(made.workspace, active_suppliers(made.workspace), present)
    record_progress(made.workspace, [], {}, put_off=[ALPHA])
    refresh_plans(made.workspace, active_suppliers(made.workspace), before)
    (supplier,) = [one for one in active_suppliers(made.workspace) if one.key == ALPHA]
    due_at = Planner(made.workspace, now=before).plan(supplier).due_at
    assert due_at is not None and due_at <= before


def test_an_absent_page_that_was_asked_for_in_the_future_rests_as_since(made: Stage) -> None:
    absent = partial(CallOutcome, "p", 0, 0, 1, next(fault for fault in Fault if fault.row.denies_page))
    rests = _absent_until([absent(AGO)], NOW)
    assert rests is not None and _absent_until([absent(AHEAD), absent(AGO)], NOW) == rests
    assert _absent_until([absent(AHEAD)], NOW) is None


def test_a_run_tells_nothing_of_what_happened_in_the_future(made: Stage) -> None:
    registration = made.registrations[GATED]
    tally = Tallying(made.workspace, [ALPHA], [GATED])
    ahead = datetime.now(UTC) + timedelta(days=30)
    made.facts.fail(registration, 0, at=ahead)
    assert tally.end().n_failed == 0
    made.facts.fail(registration, 1, at=datetime.now(UTC) + timedelta(seconds=1))
    assert tally.end().n_failed == 1


def test_a_cut_dated_ahead_is_one_of_now(open_installation: Callable[..., Workspace]) -> None:
    """Else nothing that is answered until then would count, and all be asked again and again."""
    workspace = open_installation({"address": "a"})
    refresh_roster(workspace, AGO)
    assert cut_windows(workspace, "a@external", AHEAD, "it changed")
    for now in (NOW, NOW + timedelta(hours=1)):
        (supplier,) = refresh_roster(workspace, now).known
        assert supplier.cut_at == NOW, "moved once"
    assert cuts_of(workspace, "a@external") == [NOW, AHEAD], "the history tells of both"
    assert cut_windows(workspace, "a@external", NOW + timedelta(minutes=1), "it changed again")


def test_what_a_probe_found_in_the_future_is_probed_again(
    open_installation: Callable[..., Workspace],
) -> None:
    workspace = open_installation({"address": "a"})
    refresh_roster(workspace, AGO)
    present = datetime.now(UTC)
    for probed_at, known in ((present, True), (present + timedelta(days=30), False)):
        typed.claim(
            workspace.documents,
            SupplierRecord,
            {"_id": "a@external"},
            echo_logprobs=False,
            probed_at=probed_at,
        )
        (supplier,) = active_suppliers(workspace)
        assert _echo_is_known(supplier) is known
