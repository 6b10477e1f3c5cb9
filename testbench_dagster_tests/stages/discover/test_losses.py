"""Sources that leave out many at once: who stays, for how long, what is told; on both stores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.losses import FEW, Look, is_sudden
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import SOURCE_LOSSES
from testbench_dagster_tests.rosters import Opener, entry, write_roster

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
FILE = {"file": "r.json"}
N = 20


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., None]:
    def write(numbers: range | list[int] | set[int]) -> None:
        write_roster(tmp_path / "r.json", [entry(f"a{i:02}") for i in numbers])

    return write


def keys(workspace: Workspace) -> set[int]:
    return {int(s.address[1:]) for s in active_suppliers(workspace)}


@pytest.mark.parametrize("answer", [[], range(5), range(N - FEW - 1)])
def test_who_is_left_out_all_at_once_stays_until_it_is_confirmed(
    open_workspace: Opener, listed: Callable[..., None], answer: range | list[int]
) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    listed(answer)
    for minute in (1, 2, 3, 30, 60):
        report = refresh_roster(workspace, at(minute))
        assert report.left == [] and len(report.active) == N
        told = report.problems["r.json"]
        missing = "lists none of" if not answer else f"leaves out {N - len(answer)} of"
        assert told.startswith(f"r.json: {missing} the {N} suppliers known of it, which is not believed yet")
        assert "since 2026-05-01 12:01 UTC" in told and "roster.loss_share: 1" in told
        assert report.doubted == {"r.json": told}
    report = refresh_roster(workspace, at(61))
    assert len(report.left) == N - len(answer) and report.problems == {}
    assert keys(workspace) == set(answer)
    assert not list(workspace.documents.find(SOURCE_LOSSES))


def test_time_alone_confirms_nothing(open_workspace: Opener, listed: Callable[..., None]) -> None:
    """As where nobody looked between two commands, a day apart."""
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    listed([])
    day = 24 * 60
    assert refresh_roster(workspace, at(day)).left == []
    assert refresh_roster(workspace, at(2 * day)).left == []
    assert len(refresh_roster(workspace, at(3 * day)).left) == N


def test_looks_within_seconds_are_one(open_workspace: Opener, listed: Callable[..., None]) -> None:
    """As by an hourly cron of `testbench run`, which looks twice: two blips are no three looks."""
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    listed([])
    for minute in (60, 60.1, 130, 130.1, 130.2):
        assert refresh_roster(workspace, at(minute)).left == []
    assert "(2 so far, since 2026-05-01 13:00 UTC)" in refresh_roster(workspace, at(131)).problems["r.json"]
    listed(range(N))
    assert refresh_roster(workspace, at(140)).problems == {}
    listed([])
    for minute in (190, 190.1, 250, 250.1):
        assert refresh_roster(workspace, at(minute)).left == [], "it begins anew"
    assert len(refresh_roster(workspace, at(310)).left) == N


def test_looks_of_a_clock_that_was_ahead_are_none(
    open_workspace: Opener, listed: Callable[..., None]
) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    listed([])
    for minute in (1, 30 * 24 * 60, 61, 100):  # the second is of a clock that is set back then
        assert refresh_roster(workspace, at(minute)).left == []
    assert len(refresh_roster(workspace, at(121)).left) == N, "nor do they keep anybody"


def test_a_source_that_lists_them_again_is_as_before(
    open_workspace: Opener, listed: Callable[..., None], tmp_path: Path
) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    for minute in range(0, 100, 20):  # every other answer is empty, or none
        listed([])
        assert refresh_roster(workspace, at(minute + 1)).left == []
        (tmp_path / "r.json").write_text("nonsense")
        assert "its suppliers stay" in refresh_roster(workspace, at(minute + 2)).problems["r.json"]
        listed(range(N))
        report = refresh_roster(workspace, at(minute + 3))
        assert (report.left, report.problems) == ([], {})


def test_pages_that_change_retire_nobody_who_is_on_one_of_them(
    open_workspace: Opener, listed: Callable[..., None]
) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    for look in range(8):
        listed(range(5) if look % 2 else range(5, 10))
        report = refresh_roster(workspace, at(10 * look + 1))
        assert {int(key[1:3]) for key in report.left} <= set(range(10, N))
    assert keys(workspace) == set(range(10)), "nobody ever saw the others again"


def test_a_few_leave_at_once_and_a_stream_of_them_is_a_loss_too(
    open_workspace: Opener, listed: Callable[..., None]
) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(N))
    refresh_roster(workspace, T0)
    listed(range(2, N))
    assert len(refresh_roster(workspace, at(1)).left) == 2
    listed(range(FEW, N))
    assert len(refresh_roster(workspace, at(2)).left) == FEW - 2, "as many as may always leave"
    listed(range(FEW + 1, N))
    assert refresh_roster(workspace, at(3)).left == []
    assert len(refresh_roster(workspace, at(62)).left) == 1, "those who left before are an hour ago"


def test_what_the_operator_takes_out_leaves_at_once(
    open_workspace: Opener, listed: Callable[..., None]
) -> None:
    listed(range(N))
    a, b = {"address": "a"}, {"address": "b"}
    refresh_roster(open_workspace(a, b, sources=[FILE]), T0)
    report = refresh_roster(open_workspace(sources=[FILE]), at(1))
    assert sorted(report.left) == ["a@external", "b@external"]
    without = open_workspace(a)
    report = refresh_roster(without, at(2))
    assert len(report.left) == N
    assert "r.json is no longer configured" in report.warnings["supplier_sources"]


def test_the_operator_may_believe_it_at_once(open_workspace: Opener, listed: Callable[..., None]) -> None:
    listed(range(N))
    refresh_roster(open_workspace(sources=[FILE]), T0)
    listed([])
    assert refresh_roster(open_workspace(sources=[FILE]), at(1)).left == []
    believing = open_workspace(sources=[FILE], roster={"loss_share": 1})
    assert len(refresh_roster(believing, at(2)).left) == N
    assert not list(believing.documents.find(SOURCE_LOSSES))


def test_check_tells_it(open_workspace: Opener, listed: Callable[..., None]) -> None:
    workspace = open_workspace(sources=[FILE])
    listed(range(3))
    refresh_roster(workspace)
    listed([])
    found = {one.what: one for one in findings(workspace)}
    assert not found["roster r.json"].ok
    assert "lists none of the 3 suppliers known of it" in found["roster r.json"].detail


def test_what_is_sudden() -> None:
    def look(known: int, missing: int, gone: int = 0) -> Look:
        return Look(known, [str(i) for i in range(missing)], gone)

    assert is_sudden(look(1, 1), 0.2) and is_sudden(look(2, 2), 0.2), "all of them, however few"
    assert not is_sudden(look(FEW + 1, FEW), 0.2) and is_sudden(look(FEW + 2, FEW + 1), 0.2)
    assert not is_sudden(look(100, 20), 0.2) and is_sudden(look(100, 21), 0.2)
    assert is_sudden(look(90, 11, gone=10), 0.2) and not is_sudden(look(90, 10, gone=10), 0.2)
    assert not is_sudden(look(0, 0, gone=9), 0) and not is_sudden(look(5, 5), 1)
    assert is_sudden(look(50, FEW + 1), 0) and not is_sudden(look(50, FEW), 0)
