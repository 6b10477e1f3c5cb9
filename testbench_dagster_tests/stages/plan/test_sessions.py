"""Suppliers that no session lets be reached wait: nothing is asked or lost, and sensors leave them alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbench_dagster.config import Settings
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import record_progress, refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.sessions import Sessions, heard_since
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import PLANS
from testbench_dagster_tests.stages.plan.stage import GATED, GATING, Stage

SERVICE = "text-generation"
APP = "pokt1mrqt5f7qh8uxs27cjm9t7v9e74a9vvdnq5jva4"
ADDRESS = "operator"
KEY = f"{ADDRESS}@{SERVICE}"
NOW = datetime.now(UTC)


def supplier(**changes: Any) -> Supplier:
    return Supplier(
        ADDRESS, SERVICE, "http://127.0.0.1:9", "chat", "m", **{"transport": "shannon", **changes}
    )


def session(start: int, end: int, suppliers: list[str], app: str = APP) -> SessionRecord:
    return SessionRecord(
        id=f"{SERVICE}/{app}",
        service=SERVICE,
        app=app,
        session_id=f"session {start}",
        start_height=start,
        end_height=end,
        suppliers=suppliers,
        height=start,
        at=datetime.now(UTC),
    )


def chain(height: int, blocks: int = 10, at: datetime | None = None) -> HeightRecord:
    """A chain that told of its newest block at an instant, just now by default."""
    return HeightRecord(id=SERVICE, height=height, at=at or datetime.now(UTC), blocks_per_session=blocks)


def waiting(height: int, *rows: SessionRecord, spent_until: int | None = None) -> str | None:
    sessions = Sessions({SERVICE: rows}, {SERVICE: chain(height)})
    return sessions.waiting(supplier(), spent_until)


@pytest.mark.parametrize(
    ("height", "operators", "spent_until", "expected"),
    [
        (101, [ADDRESS], None, None),
        (110, [ADDRESS], None, None),
        (111, [ADDRESS], None, "no current session of the service's applications is known"),
        (105, ["other"], None, "in no session of our applications; the next begins at block 111"),
        (105, [ADDRESS], 110, "its relays of this session are used up; the next begins at block 111"),
        (105, [ADDRESS], 104, None),
        # of a test network that began anew at a lower height
        (105, [ADDRESS], 9110, None),
    ],
)
def test_who_waits_and_why(
    height: int, operators: list[str], spent_until: int | None, expected: str | None
) -> None:
    found = waiting(height, session(101, 110, operators), spent_until=spent_until)
    assert found is None if expected is None else (found or "").startswith(expected)


def test_one_session_of_several_applications_is_enough() -> None:
    rows = [session(101, 110, ["other"]), session(101, 110, [ADDRESS], app="another")]
    assert waiting(105, *rows) is None
    assert "in no session" in (waiting(105, rows[0]) or "")


def test_only_relays_on_the_network_need_a_session() -> None:
    nothing = Sessions({}, {})
    assert nothing.waiting(supplier(transport="direct")) is None
    assert nothing.waiting(supplier()) is not None
    known = Sessions({SERVICE: (session(101, 110, ["other"]),)}, {SERVICE: chain(105)})
    assert known.waiting(supplier(transport="direct")) is None


def test_a_gateway_is_asked_unless_its_applications_are_known() -> None:
    through = supplier(transport="path")
    assert Sessions({}, {}).waiting(through) is None
    rows = (session(101, 110, ["other"]),)
    assert "in no session" in (Sessions({SERVICE: rows}, {SERVICE: chain(105)}).waiting(through) or "")
    assert Sessions({SERVICE: rows}, {SERVICE: chain(115)}).waiting(through) is None, "that was long ago"


@pytest.mark.parametrize(
    ("every_s", "enabled", "minutes", "waits"),
    [(60, True, 9, False), (60, True, 11, True), (600, True, 29, False), (600, True, 31, True),
     (60, False, 600, False)],
)  # fmt: skip
def test_a_chain_that_stands_still_is_waited_for(
    every_s: int, enabled: bool, minutes: int, waits: bool
) -> None:
    """No node answers, or the chain is halted: relays would go nowhere. Unless nobody looks, by choice."""
    sensor = {"every_s": every_s, "enabled": enabled}
    settings = Settings.model_validate(
        {"tasks": [{"name": GATED}], "suppliers": [], "automation": {"new_suppliers": sensor}}
    )
    since = heard_since(settings, NOW + timedelta(minutes=minutes))
    rows = (session(101, 110, [ADDRESS]),)
    known = Sessions({SERVICE: rows}, {SERVICE: chain(105, at=NOW)}, since)
    told = known.waiting(supplier())
    assert (told is not None) is waits
    assert told is None or told.startswith(f"the chain told of no block since {NOW:%Y-%m-%d %H:%M}")
    assert known.waiting(supplier(transport="path")) is None, "its gateway may know better"


@pytest.fixture
def made(request: pytest.FixtureRequest, stage: Any) -> Stage:
    """An installation with one supplier on a chain at height 105, in the session of blocks 101 to 110."""
    service = {
        "transport": "shannon",
        "model": "m",
        "nodes": {"rest": ["http://127.0.0.1:9"]},
        "apps": [{"address": APP, "key_env": "NO_KEY_IS_READ"}],
    }
    found: Stage = stage({"suppliers": [], "services": {SERVICE: service}, **getattr(request, "param", {})})
    found.facts.on_roster(
        KEY, source=f"service:{SERVICE}", transport="shannon", rpc_type=4, stake_upokt=1, host="h"
    )
    typed.upsert(found.workspace.documents, HeightRecord, [chain(105)])
    typed.upsert(found.workspace.documents, SessionRecord, [session(101, 110, [ADDRESS])])
    return found


def states(stage: Stage) -> dict[str, tuple[str, int]]:
    (found,) = active_suppliers(stage.workspace)
    plan = Planner(stage.workspace).plan(found)
    return {name: (d.state, len(d.plan.due)) for name, d in plan.tasks.items()}


def test_what_is_due_waits_for_a_session_and_is_due_in_it(made: Stage) -> None:
    documents = made.workspace.documents
    assert {state for state, _ in states(made).values()} == {"due"}
    typed.upsert(documents, SessionRecord, [session(101, 110, ["other"])])
    assert states(made) == {GATED: ("waiting", 0), GATING: ("waiting", 0)}
    (found,) = active_suppliers(made.workspace)
    plan = Planner(made.workspace).plan(found)
    assert plan.n_calls == 0 and plan.reason == "nothing is due (2 waiting)"
    assert plan.tasks[GATED].reason == "in no session of our applications; the next begins at block 111"
    refresh_plans(made.workspace, [found])
    assert due_suppliers(made.workspace) == [], "sensors leave it alone"
    typed.upsert(documents, HeightRecord, [chain(111)])
    assert due_suppliers(made.workspace) == [], "the next session is not known yet"
    typed.upsert(documents, SessionRecord, [session(111, 120, [ADDRESS])])
    assert [w.key for w in due_suppliers(made.workspace)] == [KEY]
    assert {state for state, _ in states(made).values()} == {"due"}


def test_who_has_used_up_its_session_waits_for_the_next(made: Stage) -> None:
    (found,) = active_suppliers(made.workspace)
    refresh_plans(made.workspace, [found])
    assert [w.key for w in due_suppliers(made.workspace)] == [KEY]
    record_progress(made.workspace, [KEY], {}, spent={KEY: 110})
    assert due_suppliers(made.workspace) == []
    assert {state for state, _ in states(made).values()} == {"waiting"}
    refresh_plans(made.workspace, [found])
    kept = made.workspace.documents.get(PLANS, KEY)
    assert kept is not None
    assert (kept["session_spent_until"], kept["tasks"][GATED]["state"]) == (110, "waiting")
    typed.upsert(made.workspace.documents, HeightRecord, [chain(111)])
    typed.upsert(made.workspace.documents, SessionRecord, [session(111, 120, [ADDRESS])])
    assert [w.key for w in due_suppliers(made.workspace)] == [KEY]


def test_a_used_up_session_is_no_failure_and_no_success(made: Stage) -> None:
    record_progress(made.workspace, [], {KEY: "did not answer"})
    record_progress(made.workspace, [], {}, spent={KEY: 110})
    kept = made.workspace.documents.get(PLANS, KEY)
    assert kept is not None
    assert (kept["failures"], kept["session_spent_until"]) == (1, 110)


def test_who_could_not_be_asked_is_looked_at_again_a_while_later(made: Stage) -> None:
    (found,) = active_suppliers(made.workspace)
    record_progress(made.workspace, [], {}, put_off={KEY})
    refresh_plans(made.workspace, [found])
    now = datetime.now(UTC)
    assert due_suppliers(made.workspace, now + timedelta(minutes=4)) == []
    assert [w.key for w in due_suppliers(made.workspace, now + timedelta(minutes=5))] == [KEY]
    plan = Planner(made.workspace).plan(found)
    assert plan.n_calls and plan.due_at is not None and plan.due_at > now
    record_progress(made.workspace, [KEY], {})
    refresh_plans(made.workspace, [found])
    assert [w.key for w in due_suppliers(made.workspace)] == [KEY], "it was asked: that is over"


@pytest.mark.parametrize("made", [{"budget": {"relays_per_day": 8}}], indirect=True)
def test_who_waits_takes_no_part_in_the_days_budget(made: Stage) -> None:
    """It is due and cannot be asked: what it would ask is left to those that can."""
    for name in ("absent", "new"):
        made.facts.on_roster(
            f"{name}@{SERVICE}", source=f"service:{SERVICE}", transport="shannon", rpc_type=4, stake_upokt=1
        )
    suppliers = {s.address: s for s in active_suppliers(made.workspace)}
    typed.upsert(made.workspace.documents, SessionRecord, [session(101, 110, [ADDRESS, "absent"])])
    refresh_plans(made.workspace, [suppliers["absent"]])
    kept = made.workspace.documents.get(PLANS, f"absent@{SERVICE}")
    assert kept is not None and kept["due_calls"] > 8
    assert Planner(made.workspace).shared_plans([suppliers[ADDRESS]]).quotas == {KEY: 4}
    typed.upsert(made.workspace.documents, SessionRecord, [session(101, 110, [ADDRESS])])
    assert Planner(made.workspace).shared_plans([suppliers[ADDRESS]]).quotas == {KEY: 8}


def test_sessions_are_as_long_as_the_chain_says(made: Stage) -> None:
    """`schedule: {every: 1, unit: session}` counts the chain's blocks, not those of `planning`."""
    (found,) = active_suppliers(made.workspace)
    assert Planner(made.workspace).facts(found).blocks_per_session == 10
    typed.upsert(made.workspace.documents, HeightRecord, [chain(105, blocks=60)])
    facts = Planner(made.workspace).facts(replace(found, joined_at=NOW - timedelta(days=1)))
    assert facts.blocks_per_session == 60
