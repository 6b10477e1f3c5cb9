"""A comparison of everybody looks at members where something may be new, and misses nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.identity import GradedAnswer
from testbench_dagster.stages.identify import splits
from testbench_dagster.stages.identify.identify import detect_changes, refresh_identity
from testbench_dagster.stages.plan.planner import PROXY_FAILURES
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, PLANS, SPLITS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, key, stored
from testbench_dagster_tests.stages.identify.town import LOGIC, Open, Town, merged, withheld
from testbench_dagster_tests.stages.score.facts import Facts

NAMES = ("a1", "a2", "a3")
LATER = NOW + 900 * HOUR
Looked = Callable[[Town, datetime], set[str]]
#: What the stores are asked for here is tested on both of them in ``stores`` and in ``test_splits``.
pytestmark = pytest.mark.parametrize("open_installation", ["sqlite"], indirect=True)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    """Compares everybody; returns of whom scores were read to compare them with their proxies'."""
    read: set[str] = set()
    plain = splits.read_graded

    def spy(workspace: Workspace, suppliers: Sequence[Supplier], now: datetime) -> Any:
        read.update(supplier.address for supplier in suppliers)
        return plain(workspace, suppliers, now)

    monkeypatch.setattr(splits, "read_graded", spy)

    def compare(place: Town, now: datetime) -> set[str]:
        read.clear()
        refresh_identity(place.workspace, now=now)
        return set(read)

    return compare


def grouped(town: Open) -> tuple[Town, str, str, str]:
    """Three twins that were grouped twenty hours ago: the proxy, which stays, and two members."""
    place = town(*NAMES)
    proxy = merged(place, *NAMES)
    place.workspace.documents.amend(IDENTITY_GROUPS, {key(name): {"rotates_at": LATER} for name in NAMES})
    member, other = sorted({*NAMES} - {proxy})
    return place, proxy, member, other


def wrong(task: str, doc: int) -> bool:
    return False


def split_off(place: Town) -> set[str]:
    return {one["supplier"].partition("@")[0] for one in place.workspace.documents.find(SPLITS)}


def test_nobody_is_looked_at_of_whom_nothing_is_new(town: Open, looked: Looked) -> None:
    place, proxy, member, other = grouped(town)
    assert looked(place, NOW - 18 * HOUR) == set(), "what was answered before they were grouped counts not"
    place.docs(member, range(50, 55), NOW - 10 * HOUR)
    assert looked(place, NOW - 8 * HOUR) == {member, proxy}
    assert looked(place, NOW - 6 * HOUR) == set()
    place.docs(proxy, range(50, 55), NOW - 5 * HOUR)
    assert looked(place, NOW - 3 * HOUR) == {proxy, member, other}
    assert looked(place, NOW) == set()
    assert split_off(place) == set()


def test_what_an_evaluation_that_was_killed_left_is_found(town: Open) -> None:
    place, proxy, member, _ = grouped(town)
    place.docs(proxy, range(50, 70), NOW - 10 * HOUR)
    refresh_identity(place.workspace, now=NOW - 8 * HOUR)
    place.docs(member, range(50, 70), NOW - 6 * HOUR, right=wrong, text="other")
    refresh_identity(place.workspace, now=NOW - 4 * HOUR)
    assert split_off(place) == {member}


def test_answers_that_are_scored_late_are_found(town: Open) -> None:
    place, proxy, member, _ = grouped(town)
    place.docs(proxy, range(50, 70), NOW - 15 * HOUR)
    refresh_identity(place.workspace, now=NOW - 8 * HOUR)
    late = NOW - 5 * HOUR
    place.docs(member, range(50, 70), NOW - 15 * HOUR, right=wrong, text="other", scored_at=late)
    refresh_identity(place.workspace, now=NOW)
    assert split_off(place) == {member}


def test_scores_that_were_written_while_others_were_compared_are_found(town: Open) -> None:
    """They are dated a little before the comparison, which read the scores before they were there."""
    place, proxy, member, _ = grouped(town)
    place.docs(proxy, range(50, 70), NOW - 15 * HOUR)
    refresh_identity(place.workspace, now=NOW - 8 * HOUR)
    late = NOW - 8 * HOUR - timedelta(minutes=20)
    place.docs(member, range(50, 70), NOW - 15 * HOUR, right=wrong, text="other", scored_at=late)
    refresh_identity(place.workspace, now=NOW)
    assert split_off(place) == {member}


@pytest.mark.parametrize(
    "record",
    [
        {"watched_at": None, "watched_as": None},
        {"watched_as": "of other tasks"},
        {"watched_at": NOW - timedelta(days=8)},
        {"compared_at": NOW + 40 * HOUR},
    ],
    ids=["of earlier code", "other tasks", "long ago", "by a clock that was set back"],
)
def test_all_is_looked_at_where_that_does_not_hold_which_was_compared(
    town: Open, record: dict[str, Any]
) -> None:
    place, proxy, member, _ = grouped(town)
    refresh_identity(place.workspace, now=NOW - 10 * HOUR)
    place.docs(proxy, range(50, 70), NOW - 15 * HOUR)
    place.docs(member, range(50, 70), NOW - 15 * HOUR, right=wrong, text="other")
    refresh_identity(place.workspace, now=NOW - 8 * HOUR)
    assert split_off(place) == set(), "no fact is dated so much earlier than it is written"
    place.workspace.documents.amend(IDENTITY_GROUPS, {key(name): record for name in NAMES})
    refresh_identity(place.workspace, now=NOW - 6 * HOUR)
    assert split_off(place) == {member}


def test_with_another_proxy_members_are_compared_by_all_they_answered(town: Open, looked: Looked) -> None:
    place, _, member, other = grouped(town)
    place.docs(other, range(50, 70), NOW - 15 * HOUR)
    place.docs(member, range(50, 70), NOW - 15 * HOUR, right=wrong, text="other")
    assert looked(place, NOW - 12 * HOUR) == {*NAMES} and split_off(place) == set()
    over = {key(name): {"rotates_at": NOW - 11 * HOUR} for name in NAMES}
    place.workspace.documents.amend(IDENTITY_GROUPS, over)
    plan = {"_id": key(member), "service": "external", "failures": PROXY_FAILURES, "planned_at": NOW}
    place.workspace.documents.upsert(PLANS, [plan | {"due_at": LATER}])
    assert looked(place, NOW - 10 * HOUR) == set()
    assert stored(place.workspace)[member]["proxy"] == key(other)
    assert looked(place, NOW - 8 * HOUR) == {*NAMES} and split_off(place) == {member}


def test_docs_that_are_left_unanswered_are_looked_at_as_long_as_they_may_come_or_go(
    town: Open, looked: Looked
) -> None:
    place, proxy, member, _ = grouped(town)
    place.docs(proxy, range(50, 70), NOW - 14 * HOUR, tasks=[LOGIC])
    looked(place, NOW - 12 * HOUR)
    refused = next(fault for fault in Fault if fault.row.closes is Closing.REFUSED)
    Facts(place.workspace).fail(place.tasks[LOGIC], 50, refused, NOW - 10 * HOUR, supplier=key(member))
    assert looked(place, NOW - 8 * HOUR) == {member, proxy}
    assert looked(place, NOW - 6 * HOUR) == {member, proxy}, "it may turn out to be refused to all"
    withheld(place, member, range(51, 70), NOW - 5 * HOUR)
    refresh_identity(place.workspace, now=NOW)
    assert split_off(place) == {member}


def test_of_a_large_group_an_evaluated_member_is_compared_without_the_others(
    town: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, proxy, member, other = grouped(town)
    monkeypatch.setattr(splits, "_RECORDS", 3)
    place.docs(proxy, range(50, 70), NOW - 10 * HOUR)
    place.docs(member, range(50, 70), NOW - 10 * HOUR, right=wrong, text="other")
    read: list[str] = []
    plain = splits.find_divergence

    def spy(own: Sequence[GradedAnswer], *rest: Any) -> Any:
        read.extend({one.supplier for one in own})
        return plain(own, *rest)

    monkeypatch.setattr(splits, "find_divergence", spy)
    detect_changes(place.workspace, [key(proxy)], now=NOW - 8 * HOUR)
    assert (read, split_off(place)) == ([], set()), "of so many others the comparison of everybody looks at"
    detect_changes(place.workspace, [key(member)], now=NOW - 8 * HOUR)
    assert split_off(place) == {member}
    (split,) = place.workspace.documents.find(SPLITS)
    assert split["apart_from"] == sorted([key(proxy), key(other)])
