"""The identity stage on both stores: groups, proxies and changes from stored attempts and scores."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptEnd
from testbench_dagster.core.records.identity import KEPT_FIELDS, IdentityGroupRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.window import Window
from testbench_dagster.identity import Change
from testbench_dagster.scoring.reliability import Minutes, availability
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import (
    active_suppliers,
    cut_windows,
    known_suppliers,
    refresh_roster,
)
from testbench_dagster.stages.identify import identify, reading
from testbench_dagster.stages.identify.identify import detect_changes, record_changes, refresh_identity
from testbench_dagster.stages.identify.reading import read_availability
from testbench_dagster.stages.identify.views import change_rows, identity_rows, many_cuts, pair_rows
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.read.supplier import supplier_page
from testbench_dagster.stages.score.groups import identity_groups, members_of
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, CHANGES, IDENTITY_GROUPS, PLANS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, answer, key, stored
from testbench_dagster_tests.stages.score.facts import Facts

TASK = "starter_reading"
NAMES = ("a1", "a2", "a3", "b1", "c1")
TASKS = [
    {"name": TASK, "samples": {"min": 5, "max": 50, "half_width": None}},
    {"name": "identity", "framework": "signatures"},
]
Opener = Callable[..., Workspace]


@pytest.fixture
def open_workspace(open_installation: Callable[..., Workspace]) -> Opener:
    """Opens the installation with suppliers of these names, the roster refreshed."""

    def build(names: Sequence[str] = NAMES, **blocks: Any) -> Workspace:
        workspace = open_installation(*({"address": name} for name in names), tasks=TASKS, **blocks)
        refresh_roster(workspace)
        return workspace

    return build


def row_of(workspace: Workspace, name: str) -> Window:
    return next(r for r in windows(workspace, suppliers=[key(name)], now=NOW) if r.task == TASK and r.primary)


def put_off(workspace: Workspace, name: str) -> None:
    """A cached plan that wants nothing for long."""
    later = NOW + 900 * HOUR
    plan = {"_id": key(name), "service": "external", "failures": 0, "planned_at": NOW, "due_at": later}
    workspace.documents.upsert(PLANS, [plan])


def everybody(workspace: Workspace, prompts: range = range(60)) -> None:
    for name in NAMES:
        answer(workspace, name, prompts, name[0], NOW - 48 * HOUR)


def test_twins_are_grouped_and_one_stands_for_the_others(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    report = refresh_identity(workspace, now=NOW)
    groups = stored(workspace)
    twins = [key(n) for n in ("a1", "a2", "a3")]
    assert groups["a1"]["members"] == groups["a2"]["members"] == groups["a3"]["members"] == twins
    assert [report.groups[g] for g in report.groups] == [twins]
    proxy = groups["a1"]["proxy"]
    assert proxy in twins
    assert {d["proxy"] for n, d in groups.items() if n[0] == "a"} == {proxy}
    roles = {name: d["role"] for name, d in groups.items()}
    assert sorted(roles.values()) == ["alone", "alone", "member", "member", "proxy"]
    assert (roles["b1"], roles["c1"]) == ("alone", "alone")
    assert groups["b1"]["members"] == [key("b1")]
    rotates_at = groups["a1"]["rotates_at"]
    assert rotates_at > NOW
    # its time is drawn, and may be over within the hour
    again = refresh_identity(workspace, now=min(NOW + HOUR, rotates_at - timedelta(seconds=1)))
    assert stored(workspace)["a2"]["proxy"] == proxy, "it stays until its time is over"
    assert stored(workspace)["a2"]["group"] == groups["a2"]["group"]
    assert stored(workspace)["a2"]["since"] == groups["a2"]["since"]
    assert again.changes == []


def test_a_term_drawn_by_a_clock_that_was_ahead_is_drawn_anew(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    far = NOW + timedelta(days=100_000)
    group = {"group": stored(workspace)["a1"]["group"]}
    placed = list(typed.find(workspace.documents, IdentityGroupRecord, group))
    assert len(placed) == 3
    for compared_at, stays in ((NOW, True), (far, False)):
        made = [replace(one, rotates_at=far, compared_at=compared_at) for one in placed]
        typed.upsert(workspace.documents, IdentityGroupRecord, made)
        refresh_identity(workspace, now=NOW)
        assert (stored(workspace)["a1"]["rotates_at"] == far) is stays


def test_groups_are_the_same_however_many_are_read_and_written_at_a_time(
    open_workspace: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_workspace()
    everybody(workspace)
    for name in ("b1", "c1"):
        answer(workspace, name, range(60, 120), "b", NOW - 40 * HOUR)
    refresh_identity(workspace, now=NOW)
    told = {name: (one["group"], one["members"], one["reason"]) for name, one in stored(workspace).items()}
    workspace.documents.purge(IDENTITY_GROUPS, {"service": "external"})
    monkeypatch.setattr(identify, "_SUPPLIERS", 1)
    monkeypatch.setattr(identify, "_RECORDS", 1)
    refresh_identity(workspace, now=NOW)
    assert told == {
        name: (one["group"], one["members"], one["reason"]) for name, one in stored(workspace).items()
    }


def test_groups_whose_writing_was_cut_short_are_made_anew(open_workspace: Opener) -> None:
    """Some members tell the group as it is, others as it was: that names nobody in two groups."""
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    whole = stored(workspace)
    (before,) = workspace.documents.find(IDENTITY_GROUPS, {"_id": key("a3")})
    workspace.documents.upsert(IDENTITY_GROUPS, [before | {"members": [key("a3"), key("a2")]}])
    refresh_identity(workspace, now=NOW)
    assert stored(workspace)["a3"]["members"] == whole["a3"]["members"]


def test_a_record_names_some_members_and_whoever_asks_is_told_all(
    open_workspace: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW - HOUR)
    shown = identity_rows(workspace, [key(name) for name in NAMES])
    page = supplier_page(workspace, key("a3"), now=NOW).to_json()["identity"]
    twins = [key(name) for name in ("a1", "a2", "a3")]
    assert page["members"] == twins and page.keys().isdisjoint({"n_members", "watched_at", "watched_as"})
    monkeypatch.setattr(identify, "MEMBERS_TOLD", 2)
    report = refresh_identity(workspace, now=NOW)
    assert [*report.groups.values()] == [twins]
    (before,) = workspace.documents.find(IDENTITY_GROUPS, {"_id": key("a3")})
    assert (before["members"], before["n_members"]) == (twins[:2], 3)
    # who left, and was in the group when it was compared before, is no member
    left = before | {"_id": key("a0"), "compared_at": NOW - HOUR}
    workspace.documents.upsert(IDENTITY_GROUPS, [left])
    told = [{**row, "compared_at": None} for row in identity_rows(workspace, [key(name) for name in NAMES])]
    moving = {"rotates_at", "proxy", "role"}
    assert told == [{**row, "compared_at": None} for row in shown] and not moving.isdisjoint(told[0])
    assert supplier_page(workspace, key("a3"), now=NOW).to_json()["identity"] == page | {
        "compared_at": NOW.isoformat()
    }
    records = {one.id: one for one in typed.find(workspace.documents, IdentityGroupRecord)}
    found = members_of(workspace.documents, [*records.values()])
    assert found[key("a1")] is found[key("a2")] and found[key("b1")] == [key("b1")]
    # the groups were made anew between the two reads
    workspace.documents.amend(IDENTITY_GROUPS, {name: {"compared_at": NOW + HOUR} for name in twins})
    assert members_of(workspace.documents, [records[key("a1")]]) == {key("a1"): twins}


def test_records_of_earlier_versions_name_all_members(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    shown = identity_rows(workspace, [key(name) for name in NAMES])
    old = [
        {name: value for name, value in one.items() if name not in KEPT_FIELDS}
        for one in workspace.documents.find(IDENTITY_GROUPS)
    ]
    workspace.documents.purge(IDENTITY_GROUPS, {"service": "external"})
    workspace.documents.upsert(IDENTITY_GROUPS, old)
    assert identity_rows(workspace, [key(name) for name in NAMES]) == shown
    groups = identity_groups(workspace.documents, [key(name) for name in NAMES])
    assert {name.partition("@")[0] for name in groups} == {"a1", "a2", "a3"}
    assert refresh_identity(workspace, now=NOW + HOUR).splits == []


def test_only_where_somebody_is_elected_the_store_counts_who_was_available(
    open_workspace: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, asked = open_workspace(), list[set[str]]()
    everybody(workspace)

    def spy(workspace: Workspace, suppliers: set[str], now: datetime) -> Mapping[str, float]:
        asked.append({name.partition("@")[0] for name in suppliers})
        return read_availability(workspace, suppliers, now)

    monkeypatch.setattr(identify, "read_availability", spy)
    refresh_identity(workspace, now=NOW)
    later = {key(name): {"rotates_at": NOW + 900 * HOUR} for name in NAMES}
    workspace.documents.amend(IDENTITY_GROUPS, later)
    refresh_identity(workspace, now=NOW + HOUR)
    over = {key(name): {"rotates_at": NOW + HOUR} for name in NAMES}
    workspace.documents.amend(IDENTITY_GROUPS, over)
    refresh_identity(workspace, now=NOW + 2 * HOUR)
    assert asked == [{"a1", "a2", "a3"}, set(), {"a1", "a2", "a3"}]


@pytest.mark.parametrize("seed", range(3))
def test_the_store_counts_the_availability_that_attempts_one_by_one_have(
    open_workspace: Opener, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    workspace, draw = open_workspace(), random.Random(seed)
    monkeypatch.setattr(reading, "_COUNTED", 2)
    for name in NAMES:
        for round_ in range(draw.randrange(12)):
            fault = draw.choice([*Fault]).value
            start = NOW - timedelta(minutes=draw.randrange(9 * 24 * 60), seconds=draw.randrange(60))
            answer(workspace, name, range(draw.randrange(1, 9)), "a", start, round_=round_ + 1, fault=fault)
            if draw.random() < 0.7:  # within one minute, answered or not
                for number in range(draw.randrange(1, 7)):
                    other = draw.choice(["ok", fault])
                    again = round_ * 10 + number + 100
                    answer(workspace, name, range(1), "a", start, round_=again, fault=other)
    minutes: dict[str, Minutes] = {}
    for attempt in workspace.documents.find(ATTEMPTS, {"finished_at": {"gt": NOW - timedelta(days=7)}}):
        ended = AttemptEnd(attempt["supplier"], attempt["fault"], attempt["finished_at"])
        minutes.setdefault(ended.supplier, Minutes()).add(ended)
    plain = {supplier: availability([counts.packed()]) for supplier, counts in minutes.items()}
    expected = {supplier: share for supplier, share in plain.items() if share is not None}
    assert read_availability(workspace, [key(name) for name in NAMES], NOW) == expected and expected


def test_the_availability_of_an_election_is_that_of_minutes_of_the_last_week(open_workspace: Opener) -> None:
    workspace = open_workspace()
    answer(workspace, "a1", range(3), "a", NOW - 48 * HOUR)
    for number in range(20):  # a burst within one minute
        answer(workspace, "a1", range(1), "a", NOW - 24 * HOUR, round_=number + 9, fault="supplier_http")
    answer(workspace, "a2", range(2), "a", NOW - 24 * HOUR)
    answer(workspace, "a2", range(2, 9), "a", NOW - 8 * 24 * HOUR, fault="supplier_http")
    answer(workspace, "a3", range(2), "a", NOW - 24 * HOUR, fault="internal")
    assert read_availability(workspace, [key("a1"), key("a2"), key("b1")], NOW) == {
        key("a1"): 3 / 4,
        key("a2"): 1.0,
    }


def test_the_planner_asks_members_audits_and_probes_only(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    proxy = stored(workspace)["a1"]["proxy"]
    planner = Planner(workspace, now=NOW)
    for supplier in active_suppliers(workspace):
        stands = planner.facts(supplier).proxy
        expected = proxy if supplier.address[0] == "a" and supplier.key != proxy else None
        assert stands == expected


def test_nobody_stands_for_a_changed_model(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    member = next(s for s in active_suppliers(workspace) if stored(workspace)[s.address]["role"] == "member")
    assert Planner(workspace, now=NOW).facts(member).proxy is not None
    cut_windows(workspace, member.key, NOW - HOUR, "declared")
    assert Planner(workspace, now=NOW).facts(member).proxy is None


def test_a_dead_proxy_is_replaced_and_stands_for_nobody_meanwhile(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    first = stored(workspace)["a1"]["proxy"]
    workspace.documents.upsert(
        PLANS, [{"_id": first, "service": "external", "failures": 3, "planned_at": NOW, "due_at": NOW}]
    )
    member = next(s for s in active_suppliers(workspace) if s.address[0] == "a" and s.key != first)
    assert Planner(workspace, now=NOW).facts(member).proxy is None
    refresh_identity(workspace, now=NOW + HOUR)
    second = stored(workspace)["a1"]["proxy"]
    assert second != first
    assert second.startswith("a")


def test_the_more_available_member_is_elected(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    for name in ("a1", "a3"):
        answer(workspace, name, range(100, 130), "a", NOW - 20 * HOUR, fault="supplier_http", task=TASK)
    refresh_identity(workspace, now=NOW)
    assert stored(workspace)["a1"]["proxy"] == key("a2")


def test_who_left_is_forgotten(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    smaller = open_workspace(("a1", "a2", "b1"))
    refresh_identity(smaller, now=NOW + HOUR)
    assert set(stored(smaller)) == {"a1", "a2", "b1"}
    assert stored(smaller)["a1"]["members"] == [key("a1"), key("a2")]


def test_answers_before_a_cut_are_no_evidence(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    cut_windows(workspace, key("a2"), NOW - HOUR, "another model, it says")
    refresh_identity(workspace, now=NOW)
    groups = stored(workspace)
    assert groups["a2"]["role"] == "alone"
    assert groups["a2"]["n_prompts"] == 0
    assert groups["a1"]["members"] == [key("a1"), key("a3")]


def test_a_swap_is_found_in_repeats_dated_by_answers_and_cuts(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    for name in NAMES:
        answer(workspace, name, range(40), name[0], NOW - 30 * HOUR, round_=2)
    assert detect_changes(workspace, [key(n) for n in NAMES], now=NOW) == []
    swapped_at = NOW - 10 * HOUR
    answer(workspace, "a2", range(12), "other", swapped_at, round_=3)
    (change,) = detect_changes(workspace, [key("a2")], now=NOW)
    assert (change.supplier, change.kind, change.cut) == (key("a2"), "repeat", True)
    assert change.at == swapped_at
    assert change.detected_at == NOW
    assert change.before_at is not None and change.before_at < swapped_at < change.seen_at < NOW
    (supplier,) = [s for s in active_suppliers(workspace) if s.address == "a2"]
    assert supplier.cut_at == swapped_at - timedelta(milliseconds=1)
    groups = stored(workspace)
    assert groups["a2"]["role"] == "alone", "the groups are made anew at once"
    assert groups["a1"]["members"] == [key("a1"), key("a3")]
    assert detect_changes(workspace, [key(n) for n in NAMES], now=NOW + HOUR) == []
    assert [row["supplier"] for row in change_rows(workspace, None)] == [key("a2")]
    assert change_rows(workspace, [key("a1")]) == []


def test_a_member_that_leaves_its_groups_answers_is_found_without_repeats(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    answer(workspace, "a3", range(40), "a", NOW - 20 * HOUR, round_=2)
    swapped_at = NOW - 5 * HOUR
    for name in ("a1", "a2", "a3"):
        answer(workspace, name, range(60, 80), "z" if name == "a3" else "a", swapped_at)
    report = refresh_identity(workspace, now=NOW)
    (change,) = report.changes
    assert (change.supplier, change.kind, change.at) == (key("a3"), "group", swapped_at)
    assert not change.cut, "only others' answers tell so far"
    assert stored(workspace)["a1"]["members"] == [key("a1"), key("a2")]
    assert stored(workspace)["a3"]["role"] == "alone" and stored(workspace)["a3"]["split_at"]
    assert refresh_identity(workspace, now=NOW + HOUR).changes == []
    answer(workspace, "a3", range(20), "z", NOW + HOUR, round_=3)
    (change,) = detect_changes(workspace, [key("a3")], now=NOW + 2 * HOUR)
    assert (change.kind, change.cut) == ("repeat", True), "its own repeats decide"


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("sybils", [("a2",), ("a2", "a3")])
def test_who_is_copied_keeps_its_window_when_its_copies_change(
    open_workspace: Opener, sybils: tuple[str, ...], repeats: bool
) -> None:
    workspace = open_workspace()
    for name in ("a1", *sybils):
        answer(workspace, name, range(60), "a", NOW - 48 * HOUR)
    refresh_identity(workspace, now=NOW - 30 * HOUR)
    assert len(stored(workspace)["a1"]["members"]) == 1 + len(sybils)
    for name in ("a1", *sybils):
        answer(workspace, name, range(60, 90), "a" if name == "a1" else "z", NOW - 5 * HOUR)
    if repeats:
        answer(workspace, "a1", range(60), "a", NOW - 4 * HOUR, round_=2)
    refresh_identity(workspace, now=NOW)
    assert stored(workspace)["a1"]["members"] == [key("a1")]
    assert all(s.cut_at is None for s in active_suppliers(workspace))
    changed = {row["supplier"] for row in change_rows(workspace, None)}
    assert not repeats or changed == {key(name) for name in sybils}


def score_daily(
    facts: Facts, registration: Registration, name: str, shares: Sequence[float], start: datetime, seed: int
) -> None:
    """A doc an hour, half of them asked before once there are a hundred: right with the share of its hour.

    Whoever repeats a doc answers it as before, unless the share changed.
    """
    draw = random.Random(seed)
    said: dict[int, tuple[float, float]] = {}
    rounds: dict[int, int] = {}
    new = iter(range(10_000))
    for hour, share in enumerate(shares):
        doc = draw.choice(sorted(said)) if hour > 100 and draw.random() < 0.5 else next(new)
        value, as_of = said.get(doc, (0.0, -1.0))
        if as_of != share:
            value = float(draw.random() < share)
            said[doc] = value, share
        rounds[doc] = rounds.get(doc, 0) + 1
        facts.score(registration, doc, value, start + hour * HOUR, supplier=key(name), round_=rounds[doc])


def test_a_swap_that_scores_show_cuts_the_window_and_has_its_plan_made_anew(
    open_workspace: Opener,
) -> None:
    workspace = open_workspace()
    facts = Facts(workspace)
    registration = facts.registration(TASK, n_docs=400)
    start = NOW - 300 * HOUR
    score_daily(facts, registration, "b1", [0.9] * 230 + [0.3] * 70, start, 5)
    score_daily(facts, registration, "c1", [0.9] * 300, start, 6)
    put_off(workspace, "b1")
    keys = [key("b1"), key("c1")]
    assert row_of(workspace, "b1").n == 50, "as many docs as everybody is asked"
    (change,) = detect_changes(workspace, keys, now=NOW)
    assert (change.supplier, change.kind, change.task, change.cut) == (key("b1"), "score", None, True)
    swapped_at = start + 230 * HOUR
    assert change.before_at is not None
    assert change.before_at < swapped_at <= change.at < change.seen_at <= NOW
    assert change.before_at > swapped_at - 40 * HOUR and change.at < swapped_at + 25 * HOUR
    assert (change.direction, change.certain, change.detected_at) == ("down", True, NOW)
    assert change.rate_after < 0.5 < change.null_rate
    assert f"its mean score over {TASK} is" in change.reason, "all that it is asked"
    # what it answered before counts no more
    (supplier,) = [s for s in active_suppliers(workspace) if s.address == "b1"]
    assert supplier.cut_at == change.at - timedelta(milliseconds=1)
    row = row_of(workspace, "b1")
    assert row.first_sample_at is not None and row.first_sample_at > change.at
    assert 0 < row.n < 70
    # and its plan is looked at now
    plan = workspace.documents.get(PLANS, key("b1"))
    assert plan is not None and plan["due_at"] <= datetime.now(UTC)
    assert detect_changes(workspace, keys, now=NOW) == []
    assert workspace.documents.count(CHANGES) == 1


def test_many_tasks_are_one_stream(open_workspace: Opener) -> None:
    """Of five tasks each has too few docs to show anything by itself."""
    names = ["starter_reading", "starter_arithmetic", "t3", "t4", "t5"]
    workspace = open_workspace()
    facts = Facts(workspace)
    tasks = [facts.registration(name, n_docs=400) for name in names]
    workspace = workspace.with_specs([replace(workspace.spec(TASK), name=name) for name in names])
    draw, start = random.Random(1), NOW - 500 * HOUR
    for hour in range(500):
        value = float(draw.random() < (0.9 if hour < 400 else 0.3))
        facts.score(tasks[hour % 5], hour // 5, value, start + hour * HOUR, supplier=key("b1"))
    (change,) = detect_changes(workspace, [key("b1")], now=NOW)
    assert (change.kind, change.direction, change.task) == ("score", "down", None)
    assert change.at >= start + 400 * HOUR


def test_failed_docs_are_a_fall(open_workspace: Opener) -> None:
    """Who begins to leave docs unanswered delivers less, whatever it scores on the others."""
    workspace = open_workspace()
    facts = Facts(workspace)
    registration = facts.registration(TASK, n_docs=400)
    draw, start = random.Random(2), NOW - 300 * HOUR
    for hour in range(300):
        if hour >= 200 and hour % 2:
            facts.fail(registration, hour, at=start + hour * HOUR, supplier=key("b1"))
        else:
            value = float(draw.random() < 0.95)
            facts.score(registration, hour, value, start + hour * HOUR, supplier=key("b1"))
    found = [c for c in detect_changes(workspace, [key("b1")], now=NOW) if c.kind == "score"]
    assert [(c.direction, c.at >= start + 200 * HOUR) for c in found] == [("down", True)]


def test_hard_docs_of_one_burst_that_come_last_are_no_change(open_workspace: Opener) -> None:
    """Two hundred docs asked within a second: a third is hard, takes half a minute and is mostly wrong."""
    workspace = open_workspace()
    facts = Facts(workspace)
    registration = facts.registration(TASK, n_docs=400)
    draw = random.Random(3)
    asked = NOW - 2 * HOUR
    for doc in range(200):
        hard = draw.random() < 1 / 3
        took = 30_000.0 + doc if hard else 500.0
        at = asked + timedelta(milliseconds=5 * doc + took)
        value = float(draw.random() < (0.1 if hard else 1.0))
        facts.score(registration, doc, value, at, supplier=key("b1"), latency_ms=took)
    assert detect_changes(workspace, [key("b1")], now=NOW) == []


def test_a_change_of_scores_that_does_not_cut_is_told_once(open_workspace: Opener) -> None:
    """However its dates move with what is answered afterwards; and it cuts once the configuration says so."""
    workspace = open_workspace(identity={"cut_on": ["repeat"]})
    facts = Facts(workspace)
    registration = facts.registration(TASK, n_docs=400)
    start = NOW - 400 * HOUR
    score_daily(facts, registration, "b1", [0.9] * 250 + [0.3] * 150, start, 5)
    (change,) = detect_changes(workspace, [key("b1")], now=NOW - 40 * HOUR)
    assert change.cut is False
    assert detect_changes(workspace, [key("b1")], now=NOW) == []
    for hour in range(30):
        facts.score(registration, hour, 0.0, NOW + hour * HOUR, supplier=key("b1"), round_=99)
    assert detect_changes(workspace, [key("b1")], now=NOW + 40 * HOUR) == []
    assert all(s.cut_at is None for s in active_suppliers(workspace))
    cutting = open_workspace()
    detect_changes(cutting, [key("b1")], now=NOW + 40 * HOUR)
    assert [s.cut_at is not None for s in active_suppliers(cutting) if s.address == "b1"] == [True]


def test_changes_that_earlier_versions_stored_are_read(open_workspace: Opener) -> None:
    """They name the task whose scores moved."""
    workspace = open_workspace()
    at = NOW - 40 * HOUR
    workspace.documents.put_new(
        CHANGES,
        [
            {
                "_id": "old",
                "supplier": key("b1"),
                "service": "external",
                "kind": "score",
                "task": TASK,
                "at": at,
                "detected_at": at + HOUR,
                "seen_at": at + HOUR,
                "cut": True,
                "reason": f"since then its mean score on {TASK} is 0.30 over 20 docs, before at least 0.80",
                "before_at": at - HOUR,
                "log_e": 17.0,
                "arl": 1e7,
                "observations": 170,
                "since_change": 20,
                "null_rate": 0.8,
                "rate_after": 0.3,
                "direction": "down",
                "certain": True,
            }
        ],
    )
    (row,) = change_rows(workspace, None)
    assert (row["task"], row["kind"]) == (TASK, "score")


def test_what_the_configuration_does_not_cut_on_is_reported_only(open_workspace: Opener) -> None:
    workspace = open_workspace(identity={"cut_on": ["score"]})
    everybody(workspace)
    answer(workspace, "b1", range(40), "b", NOW - 30 * HOUR, round_=2)
    answer(workspace, "b1", range(15), "other", NOW - 10 * HOUR, round_=3)
    (change,) = detect_changes(workspace, [key("b1")], now=NOW)
    assert change.cut is False
    assert all(s.cut_at is None for s in active_suppliers(workspace))
    assert detect_changes(workspace, [key("b1")], now=NOW + HOUR) == []
    assert workspace.documents.count(CHANGES) == 1


def test_rows_for_people(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    rows = identity_rows(workspace, [key(n) for n in NAMES])
    assert [r["supplier"] for r in rows[:3]] == [key("a1"), key("a2"), key("a3")], "large groups first"
    assert rows[0]["n_members"] == 3
    assert isinstance(rows[0]["since"], str)
    pairs = pair_rows(workspace, None)
    assert len(pairs) == 10
    assert {(p["a"], p["b"]) for p in pairs[:3]} == {
        (key("a1"), key("a2")), (key("a1"), key("a3")), (key("a2"), key("a3"))
    }  # fmt: skip
    assert all(p["same_group"] and p["relation"] == "same stack" for p in pairs[:3])
    assert all(not p["same_group"] and p["relation"] == "different" for p in pairs[3:])
    [pair] = pair_rows(workspace, [key("a1"), key("b1")])
    models = {supplier.key: supplier.model for supplier in known_suppliers(workspace)}
    assert (pair["model_a"], pair["model_b"]) == (models[pair["a"]], models[pair["b"]])


def test_who_has_its_window_voided_again_and_again_is_told(open_workspace: Opener) -> None:
    workspace = open_workspace()
    everybody(workspace)
    refresh_identity(workspace, now=NOW)
    seen = Change(
        key("a1"), "repeat", NOW - 9 * HOUR, None, NOW - 8 * HOUR, 12.0, 1e5, "openings",
        40, 12, 0.9, 0.0, "down", certain=True, wording="it answers otherwise",
    )  # fmt: skip
    record_changes(workspace, [seen, replace(seen, kind="score", at=NOW - 7 * HOUR)], NOW)
    record_changes(workspace, [replace(seen, at=NOW - timedelta(days=200))], NOW)
    assert many_cuts(workspace, NOW) == {}, "one, one that scores show, and one of long ago"
    record_changes(workspace, [replace(seen, at=NOW - 5 * HOUR)], NOW)
    assert list(many_cuts(workspace, NOW)) == [key("a1")]
    rows = {row["supplier"]: row["n_cuts"] for row in identity_rows(workspace, [key("a1"), key("a2")])}
    assert rows == {key("a1"): 2, key("a2"): 0}
    told = [f for f in findings(workspace, suppliers=False) if f.what == f"changes of {key('a1')}"]
    assert [(f.ok, f.warning) for f in told] == [(False, True)]
