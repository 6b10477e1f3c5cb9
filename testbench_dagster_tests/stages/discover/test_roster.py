"""The roster on both stores: who joins, leaves, returns and changes, whatever the sources do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.price import Price
from testbench_dagster.stages.discover import roster as roster_module
from testbench_dagster.stages.discover.roster import (
    RosterReport,
    active_apis,
    active_suppliers,
    cut_windows,
    known_suppliers,
    refresh_roster,
    remember_echo_logprobs,
    retirable,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import HEIGHTS, PLANS, SUPPLIERS
from testbench_dagster_tests.reads import operations
from testbench_dagster_tests.rosters import PUBLIC, Opener, entry, write_roster

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
FILE = {"file": "r.json"}


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def documents(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {d["_id"]: d for d in workspace.documents.find(SUPPLIERS)}


def events(workspace: Workspace, key: str) -> list[str]:
    return [event["event"] for event in documents(workspace)[key]["history"]]


def happened(report: RosterReport) -> dict[str, list[str]]:
    names = ("joined", "left", "changed", "returned")
    return {name: sorted(getattr(report, name)) for name in names if getattr(report, name)}


# ------------------------------------------------------------------------------------ the configuration


def test_joining_changing_leaving_and_returning_is_recorded(open_workspace: Opener) -> None:
    a, b = {"address": "a"}, {"address": "b"}
    first = refresh_roster(open_workspace(a, b))
    assert first.active == ["a@external", "b@external"]
    assert happened(first) == {"joined": first.active}
    assert first.anything_new
    again = refresh_roster(open_workspace(a, b))
    assert happened(again) == {} and not again.anything_new and again.active == first.active

    changed = refresh_roster(open_workspace(b, {"address": "a", "model": "other"}))
    assert changed.active == ["b@external", "a@external"]
    assert happened(changed) == {"changed": ["a@external"]}
    gone = open_workspace(b)
    assert happened(refresh_roster(gone)) == {"left": ["a@external"]}
    left = documents(gone)["a@external"]
    assert (left["status"], left["model"]) == ("left", "other")
    assert left["left_at"] is not None
    assert happened(refresh_roster(gone)) == {}, "it leaves once"

    back = open_workspace(a, b)
    assert happened(refresh_roster(back)) == {"returned": ["a@external"]}
    found = documents(back)["a@external"]
    assert events(back, "a@external") == ["joined", "changed", "left", "returned"]
    assert (found["status"], found["left_at"], found["model"]) == ("active", None, "m")
    assert found["joined_at"] == left["joined_at"]
    assert events(back, "b@external") == ["joined"]


def test_configured_suppliers_are_active_before_the_first_refresh(open_workspace: Opener) -> None:
    workspace = open_workspace({"address": "b"}, {"address": "a", "api": "completions"}, sources=[FILE])
    found = active_suppliers(workspace)
    assert [s.key for s in found] == ["b@external", "a@external"]
    assert [(s.source, s.trusted, s.status, s.joined_at) for s in found] == [
        ("configuration", True, "active", None)
    ] * 2
    assert active_apis(workspace) == {"chat", "completions"}
    assert known_suppliers(workspace) == found


def test_who_was_taken_out_of_the_configuration_is_not_asked_even_before_a_refresh(
    open_workspace: Opener,
) -> None:
    refresh_roster(open_workspace({"address": "a"}, {"address": "b"}))
    workspace = open_workspace({"address": "b"})
    assert [s.key for s in active_suppliers(workspace)] == ["b@external"]
    (_, gone) = known_suppliers(workspace)
    assert (gone.key, gone.status) == ("a@external", "left") and gone.left_at is not None


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"base_url": "http://127.0.0.1:8/v1"},
        {"api": "completions"},
        {"generation": {"seed": "omit"}},
    ],
)
def test_only_another_model_or_way_of_asking_cuts_but_every_change_is_probed_anew(
    open_workspace: Opener, change: dict[str, Any]
) -> None:
    workspace = open_workspace({"address": "a"})
    refresh_roster(workspace, T0)
    remember_echo_logprobs(workspace, "a@external", True)
    refresh_roster(workspace, at(1))
    (same,) = active_suppliers(workspace)
    assert (same.echo_logprobs, same.cut_at) == (True, None) and same.probed_at is not None
    other = open_workspace({"address": "a", **change})
    refresh_roster(other, at(2))
    (supplier,) = active_suppliers(other)
    assert (supplier.echo_logprobs, supplier.probed_at) == (None, None)
    assert supplier.cut_at == (at(2) if {"model", "generation"} & change.keys() else None)
    assert documents(other)["a@external"]["history"][-1]["changed"] == list(change)
    refresh_roster(other, at(3))
    assert active_suppliers(other) == [supplier]


def test_another_price_is_told_and_resets_nothing(open_workspace: Opener) -> None:
    prices = [None, {"prompt": 0.5, "completion": 2}, {"prompt": 0.5, "completion": 3.0}, None]
    known: list[tuple[Any, Any]] = []
    for minute, price in enumerate(prices):
        workspace = open_workspace({"address": "a", **({"price": price} if price else {})})
        report = refresh_roster(workspace, at(minute))
        if minute == 0:
            remember_echo_logprobs(workspace, "a@external", True)
        else:
            assert happened(report) == {"changed": ["a@external"]}
        assert happened(refresh_roster(workspace, at(minute + 0.5))) == {}, "told once"
        (supplier,) = active_suppliers(workspace)
        assert (supplier.echo_logprobs, supplier.cut_at) == (True, None)
        known.append((supplier.price, documents(workspace)["a@external"]["history"][-1].get("price")))
    assert known == [
        (None, None),
        (Price(0.5, 2), {"prompt": 0.5, "completion": 2}),
        (Price(0.5, 3), {"prompt": 0.5, "completion": 3}),
        (None, None),
    ]
    history = documents(workspace)["a@external"]["history"]
    assert [event.get("changed") for event in history] == [None, ["price"], ["price"], ["price"]]


def test_a_source_may_say_the_price_and_a_wrong_one_is_told(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace({"address": "own"}, sources=[FILE])
    price = {"prompt": 1, "completion": 2.5}
    write_roster(tmp_path / "r.json", [entry("a", price=price), entry("b")])
    refresh_roster(workspace, T0)
    assert [s.price for s in active_suppliers(workspace)] == [None, Price(1, 2.5), None]
    wrong = [
        entry("a", price={"prompt": -1, "completion": 2}),
        entry("b", price={"prompt": 1}),
        entry("c", price=3),
    ]
    write_roster(tmp_path / "r.json", wrong)
    report = refresh_roster(workspace, at(1))
    assert happened(report) == {}, "who has a wrong entry stays as it was"
    assert report.problems == {
        "a@s": "r.json: suppliers[0]: price.prompt: -1 is no price per million tokens; write a number from 0 "
        "(free) to 1,000,000,000; correct it at the source",
        "b@s": "r.json: suppliers[1]: price.completion: is required but missing; correct it at the source",
        "c@s": "r.json: suppliers[2]: price: 3 is no price; write e.g. {prompt: 0.15, completion: 0.60}, per "
        "million tokens; correct it at the source",
    }
    write_roster(tmp_path / "r.json", [entry("a", price={"prompt": 2, "completion": 2}), entry("b")])
    assert happened(refresh_roster(workspace, at(2))) == {"changed": ["a@s"]}
    write_roster(tmp_path / "r.json", [entry("a"), entry("b")])
    assert happened(refresh_roster(workspace, at(3))) == {"changed": ["a@s"]}
    assert active_suppliers(workspace)[1].price is None
    write_roster(tmp_path / "r.json", [entry("b")])
    refresh_roster(workspace, at(4))
    (_, _, left) = known_suppliers(workspace)
    assert (left.key, left.price) == ("a@s", None)


def test_what_the_configuration_says_of_a_price_wins(open_workspace: Opener, tmp_path: Path) -> None:
    own = {"address": "a", "service": "s", "base_url": f"{PUBLIC}/a/v1", "model": "m"}
    workspace = open_workspace({**own, "price": {"prompt": 1, "completion": 1}}, sources=[FILE])
    write_roster(tmp_path / "r.json", [entry("a", price={"prompt": 9, "completion": 9})])
    assert refresh_roster(workspace, T0).problems == {}
    assert [s.price for s in active_suppliers(workspace)] == [Price(1, 1)]


def test_a_probe_leaves_alone_what_others_wrote_meanwhile(open_workspace: Opener) -> None:
    workspace = open_workspace({"address": "a"})
    refresh_roster(workspace)
    refresh_roster(open_workspace({"address": "b"}))
    remember_echo_logprobs(workspace, "a@external", False)
    found = documents(workspace)["a@external"]
    assert (found["status"], found["echo_logprobs"]) == ("left", False)
    assert found["probed_at"] is not None
    remember_echo_logprobs(workspace, "nobody@external", True)
    assert set(documents(workspace)) == {"a@external", "b@external"}


# ----------------------------------------------------------------------------------------------- sources


def test_a_source_lists_who_is_asked_and_its_facts_are_kept(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(
        {"address": "own"}, sources=[{**FILE, "api_key_env": "THEIR_KEY"}], budget={"relays_per_day": 9}
    )
    write_roster(tmp_path / "r.json", [entry("y", api="completions")], height=70)
    assert happened(refresh_roster(workspace, T0)) == {"joined": ["own@external", "y@s"]}
    write_roster(tmp_path / "r.json", [entry("y", api="completions"), entry("x"), entry("b")], height=71)
    report = refresh_roster(workspace, at(1))
    assert happened(report) == {"joined": ["b@s", "x@s"]}
    assert report.active == ["own@external", "y@s", "b@s", "x@s"], "configured, then by time and key"
    assert report.heights == {"s": 71} and report.problems == {}
    own, y, _, x = active_suppliers(workspace)
    assert (own.trusted, y.trusted, y.source, y.api_key_env) == (True, False, "r.json", "THEIR_KEY")
    assert (y.api, y.model, y.base_url, y.service) == (
        "completions",
        "m",
        f"{PUBLIC}/y/v1",
        "s",
    )
    assert (y.joined_at, x.joined_at, y.left_at, y.cut_at) == (T0, at(1), None, None)
    assert active_apis(workspace) == {"chat", "completions"}
    assert [h.get("height") for h in documents(workspace)["x@s"]["history"]] == [71]
    assert y.limits(workspace.config.settings.relays.limits()).retries == 5

    write_roster(tmp_path / "r.json", [entry("b"), entry("x", model="new")], height=75)
    report = refresh_roster(workspace, at(2))
    assert happened(report) == {"changed": ["x@s"], "left": ["y@s"]}
    found = documents(workspace)
    assert (found["x@s"]["cut_at"], found["x@s"]["history"][-1]["height"]) == (at(2), 75)
    assert found["y@s"]["history"][-1]["height"] == 75
    assert [s.key for s in known_suppliers(workspace)] == ["own@external", "b@s", "x@s", "y@s"]

    # back with another model: what it answered before does not count
    write_roster(tmp_path / "r.json", [entry("b"), entry("x", model="new"), entry("y", model="new")])
    assert happened(refresh_roster(workspace, at(3))) == {"returned": ["y@s"]}
    assert documents(workspace)["y@s"]["cut_at"] == at(3)


def test_a_source_that_fails_retires_nobody(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(
        sources=[FILE, {"file": "other.json", "name": "other"}], roster={"loss_share": 1}
    )
    write_roster(tmp_path / "r.json", [entry("a")])
    write_roster(tmp_path / "other.json", [entry("b")])
    refresh_roster(workspace, T0)
    for minute, text in enumerate(["", "[]", '{"suppliers": [], "height": "x"}', None], start=1):
        (tmp_path / "r.json").unlink()
        if text is not None:
            (tmp_path / "r.json").write_text(text)
        else:
            (tmp_path / "r.json").mkdir()
        report = refresh_roster(workspace, at(minute))
        assert happened(report) == {}
        assert report.active == ["a@s", "b@s"]
        assert "its suppliers stay as they were" in report.problems["r.json"]
    write_roster(tmp_path / "other.json", [])
    assert happened(refresh_roster(workspace, at(9))) == {"left": ["b@s"]}


def test_a_bad_entry_leaves_its_supplier_as_it_was(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(sources=[FILE])
    write_roster(tmp_path / "r.json", [entry("a"), entry("b")])
    refresh_roster(workspace, T0)
    bad = [entry("a", base_url="http://10.0.0.1/v1"), entry("b", model="n"), entry("new", api="x"), 5]
    write_roster(tmp_path / "r.json", bad)
    report = refresh_roster(workspace, at(1))
    assert happened(report) == {"changed": ["b@s"]}
    assert report.active == ["a@s", "b@s"]
    assert set(report.problems) == {"a@s", "new@s", "r.json: suppliers[3]"}
    assert documents(workspace)["a@s"]["base_url"] == f"{PUBLIC}/a/v1"
    write_roster(tmp_path / "r.json", [entry("b", model="n")])
    assert happened(refresh_roster(workspace, at(2))) == {"left": ["a@s"]}
    write_roster(tmp_path / "r.json", bad)
    assert happened(refresh_roster(workspace, at(3))) == {}, "who left does not return by a bad entry"


def test_the_configuration_wins_and_then_the_first_source(open_workspace: Opener, tmp_path: Path) -> None:
    sources = [FILE, {"file": "other.json"}]
    workspace = open_workspace({"address": "a", "service": "s", "model": "mine"}, sources=sources)
    write_roster(tmp_path / "r.json", [entry("a"), entry("b", model="first")])
    write_roster(tmp_path / "other.json", [entry("b", model="second"), entry("c")])
    report = refresh_roster(workspace, T0)
    assert {s.key: s.model for s in active_suppliers(workspace)} == {
        "a@s": "mine", "b@s": "first", "c@s": "m",
    }  # fmt: skip
    assert "supplier a@s is listed by configuration too" in report.problems["a@s"]
    assert "supplier b@s is listed by r.json too" in report.problems["b@s"]


def test_the_configuration_may_say_more_of_a_listed_supplier(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace({**entry("a"), "reference": True}, sources=[FILE])
    write_roster(tmp_path / "r.json", [entry("a"), entry("b")])
    report = refresh_roster(workspace, T0)
    assert (report.problems, report.active) == ({}, ["a@s", "b@s"])
    assert active_suppliers(workspace)[0].source == "configuration"
    write_roster(tmp_path / "r.json", [entry("a", model="another"), entry("b")])
    assert "supplier a@s is listed by configuration too" in refresh_roster(workspace, at(1)).problems["a@s"]


def test_moving_between_sources_is_neither_leaving_nor_joining(
    open_workspace: Opener, tmp_path: Path
) -> None:
    other = {"file": "other.json", "allow_private_networks": True}
    workspace = open_workspace(sources=[FILE, other])
    write_roster(tmp_path / "r.json", [entry("a")])
    write_roster(tmp_path / "other.json", [])
    refresh_roster(workspace, T0)
    write_roster(tmp_path / "r.json", [])
    write_roster(tmp_path / "other.json", [entry("a")])
    assert happened(refresh_roster(workspace, at(1))) == {"changed": ["a@s"]}
    (supplier,) = active_suppliers(workspace)
    assert (supplier.source, supplier.trusted, supplier.cut_at) == ("other.json", True, None)
    assert events(workspace, "a@s") == ["joined", "changed"]
    # into the configuration
    workspace = open_workspace(
        {"address": "a", "service": "s", "base_url": f"{PUBLIC}/a/v1"}, sources=[other]
    )
    write_roster(tmp_path / "other.json", [])
    assert happened(refresh_roster(workspace, at(2))) == {"changed": ["a@s"]}
    assert active_suppliers(workspace)[0].source == "configuration"


def test_another_source_does_not_take_over_while_its_own_is_away(
    open_workspace: Opener, tmp_path: Path
) -> None:
    """Else every outage of the first would cut the windows of suppliers that the second lists differently."""
    workspace = open_workspace(sources=[FILE, {"file": "other.json"}])
    write_roster(tmp_path / "r.json", [entry("a", model="first")])
    write_roster(tmp_path / "other.json", [entry("a", model="second")])
    refresh_roster(workspace, T0)
    (tmp_path / "r.json").unlink()
    assert happened(refresh_roster(workspace, at(1))) == {}
    write_roster(tmp_path / "r.json", [entry("a", api="nonsense")])
    assert happened(refresh_roster(workspace, at(2))) == {}
    assert active_suppliers(workspace)[0].model == "first"


def test_suppliers_of_a_source_that_is_no_longer_configured_leave(
    open_workspace: Opener, tmp_path: Path
) -> None:
    write_roster(tmp_path / "r.json", [entry("a")])
    refresh_roster(open_workspace(sources=[FILE]), T0)
    without = open_workspace({"address": "own"})
    assert [s.key for s in active_suppliers(without)] == ["own@external"], "also before the refresh"
    assert active_apis(without) == {"chat"}
    assert happened(refresh_roster(without, at(1))) == {"joined": ["own@external"], "left": ["a@s"]}


def test_trust_follows_the_configuration_of_now(open_workspace: Opener, tmp_path: Path) -> None:
    write_roster(tmp_path / "r.json", [entry("a", base_url="http://10.0.0.1/v1")])
    trusting = open_workspace(sources=[{**FILE, "allow_private_networks": True, "api_key_env": "K"}])
    refresh_roster(trusting, T0)
    (supplier,) = active_suppliers(trusting)
    assert (supplier.trusted, supplier.api_key_env) == (True, "K")
    (supplier,) = active_suppliers(open_workspace(sources=[FILE]))
    assert (supplier.trusted, supplier.api_key_env) == (False, None)


def test_a_roster_written_by_an_earlier_version_is_taken_over(open_workspace: Opener) -> None:
    workspace = open_workspace({"address": "a"})
    refresh_roster(workspace, T0)
    (old,) = documents(workspace).values()
    for name in ("version", "updated_at", "source", "cut_at", "probed_at"):
        del old[name]
    workspace.documents.upsert(SUPPLIERS, [old])
    assert happened(refresh_roster(workspace, at(1))) == {}
    other = open_workspace({"address": "a", "model": "n"})
    assert happened(refresh_roster(other, at(2))) == {"changed": ["a@external"]}
    assert active_suppliers(other)[0].cut_at == at(2)


# ------------------------------------------------------------------------------- heights, plans, partitions


def test_heights_never_go_down(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(sources=[FILE, {"file": "other.json"}])
    write_roster(tmp_path / "other.json", [entry("z", service="t")], height=3)
    told = []
    for minute, height in enumerate([10, 12, 11, 12, 13]):
        write_roster(tmp_path / "r.json", [entry("a"), entry("b", service="t")], height=height)
        told.append(refresh_roster(workspace, at(minute)).heights)
    assert told == [{"s": h, "t": h} for h in (10, 12, 12, 12, 13)]
    stored = {d["_id"]: (d["height"], d["at"]) for d in workspace.documents.find(HEIGHTS)}
    assert stored == {"s": (13, at(4)), "t": (13, at(4))}


def test_who_joins_returns_or_changes_is_planned_at_once(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(sources=[FILE])
    keys = ("same@s", "new@s", "changed@s", "returned@s", "gone@s")
    write_roster(tmp_path / "r.json", [entry(k[:-2]) for k in keys if k != "new@s"])
    refresh_roster(workspace, T0)
    write_roster(tmp_path / "r.json", [entry("same"), entry("changed"), entry("gone")])
    refresh_roster(workspace, at(1))
    later = T0 + timedelta(days=9)
    plan = {"service": "s", "planned_at": T0, "due_at": later, "failures": 0}
    workspace.documents.put_new(PLANS, [{"_id": key, **plan} for key in keys])
    now_there = [entry("same"), entry("changed", api="completions"), entry("new"), entry("returned")]
    write_roster(tmp_path / "r.json", now_there)
    refresh_roster(workspace, at(2))
    due = {d["_id"]: d["due_at"] for d in workspace.documents.find(PLANS)}
    assert due == {
        "same@s": later, "gone@s": later, "new@s": at(2), "changed@s": at(2), "returned@s": at(2),
    }  # fmt: skip


def test_partitions_are_kept_for_the_grace_period(open_workspace: Opener, tmp_path: Path) -> None:
    workspace = open_workspace(sources=[FILE], roster={"grace_hours": 2})
    write_roster(tmp_path / "r.json", [entry("a"), entry("b"), entry("c")])
    refresh_roster(workspace, T0)
    write_roster(tmp_path / "r.json", [entry("c")])
    refresh_roster(workspace, at(60))
    assert retirable(workspace, at(179)) == []
    assert retirable(workspace, at(180)) == ["a@s", "b@s"]
    write_roster(tmp_path / "r.json", [entry("b"), entry("c")])
    refresh_roster(workspace, at(170))
    assert retirable(workspace, at(180)) == ["a@s"]


def test_the_history_of_one_that_comes_and_goes_stays_bounded(
    open_workspace: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster_module, "HISTORY_EVENTS", 4)
    workspace = open_workspace(sources=[FILE], roster={"loss_share": 1})
    for minute in range(7):
        write_roster(tmp_path / "r.json", [entry("a")] if minute % 2 == 0 else [])
        refresh_roster(workspace, at(minute))
    (found,) = documents(workspace).values()
    assert [h["at"] for h in found["history"]] == [at(m) for m in (3, 4, 5, 6)]
    assert (found["history_dropped"], found["joined_at"], found["status"]) == (3, T0, "active")


# ------------------------------------------------------------------------------------------ side by side


def together(number: int, work: Callable[[int], RosterReport]) -> list[RosterReport]:
    """Run in threads that start at the same moment."""
    barrier = threading.Barrier(number)
    reports: list[RosterReport] = []
    errors: list[BaseException] = []

    def run(n: int) -> None:
        try:
            barrier.wait(10)
            reports.append(work(n))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    return reports


def test_refreshes_side_by_side_record_everything_once(open_workspace: Opener, tmp_path: Path) -> None:
    """Workspaces of their own, as other processes have."""
    workspaces = [open_workspace(sources=[FILE], roster={"loss_share": 1}) for _ in range(4)]
    n = 12
    phases: list[tuple[str, list[dict[str, Any]]]] = [
        ("joined", [entry(f"a{i}") for i in range(n)]),
        ("changed", [entry(f"a{i}", model="n") for i in range(n)]),
        ("left", []),
        ("returned", [entry(f"a{i}", model="n") for i in range(n)]),
        ("changed", [entry(f"a{i}", model="n", api="completions") for i in range(n)]),
    ]
    keys = sorted(f"a{i}@s" for i in range(n))
    for event, entries in phases:
        write_roster(tmp_path / "r.json", entries)
        reports = together(4, lambda n: refresh_roster(workspaces[n]))
        told = Counter(key for report in reports for key in getattr(report, event))
        assert told == Counter(keys), event
        assert {name for report in reports for name in happened(report)} == {event}
        time.sleep(0.002)  # times are kept to the millisecond
    for key in keys:
        assert events(workspaces[0], key) == [event for event, _ in phases]


def test_an_older_reading_does_not_undo_what_a_newer_one_recorded(
    open_workspace: Opener, tmp_path: Path
) -> None:
    """As when one process read its sources before, and writes after, another did both."""
    workspace = open_workspace(sources=[FILE], roster={"loss_share": 1})
    write_roster(tmp_path / "r.json", [entry("a")])
    refresh_roster(workspace, at(1))
    write_roster(tmp_path / "r.json", [])
    assert happened(refresh_roster(workspace, at(0.9))) == {}
    assert happened(refresh_roster(workspace, at(1.1))) == {"left": ["a@s"]}
    write_roster(tmp_path / "r.json", [entry("a")])
    assert happened(refresh_roster(workspace, at(1) - timedelta(hours=1))) == {"returned": ["a@s"]}, (
        "an hour is no reading: the other's clock is wrong"
    )


_CHILD = """
import sys
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.workspace import Workspace
with Workspace.open(sys.argv[1]) as workspace:
    print("ready", flush=True)
    for line in sys.stdin:
        report = refresh_roster(workspace)
        print(*report.joined, *report.left, *report.returned, flush=True)
"""


@pytest.mark.slow
def test_refreshes_of_several_processes_record_everything_once(
    open_workspace: Opener, tmp_path: Path
) -> None:
    workspace = open_workspace(sources=[FILE], roster={"loss_share": 1})
    keys = sorted(f"a{i}@s" for i in range(40))
    command = [sys.executable, "-c", _CHILD, str(workspace.config.path)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for present in (True, False, True):
            write_roster(tmp_path / "r.json", [entry(k[:-2]) for k in keys] if present else [])
            for child in children:
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            told = [key for child in children if child.stdout for key in child.stdout.readline().split()]
            assert sorted(told) == keys
    finally:
        for child in children:
            child.communicate()
    assert all(events(workspace, key) == ["joined", "left", "returned"] for key in keys)


@pytest.mark.slow
def test_five_thousand_suppliers_take_few_operations_of_the_store(
    open_workspace: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_workspace(sources=[FILE])
    refresh_roster(workspace)  # makes the collections
    write_roster(tmp_path / "r.json", [entry(f"a{i}") for i in range(5000)], height=1)
    for expected in (5000, 0):
        asked = operations(workspace.documents, monkeypatch)
        report = refresh_roster(workspace)
        assert (len(report.joined), len(report.active)) == (expected, 5000)
        assert asked.total() <= 10, asked


# ------------------------------------------------------------------------------------------ detected changes


def test_a_detected_change_cuts_once_and_only_forward(open_workspace: Opener) -> None:
    workspace = open_workspace({"address": "a"}, {"address": "b"})
    refresh_roster(workspace)
    later, far = at(10), datetime.now(UTC) + timedelta(days=9)
    workspace.documents.upsert(
        PLANS,
        [{"_id": "a@external", "service": "external", "planned_at": T0, "due_at": far, "failures": 0}],
    )
    assert cut_windows(workspace, "a@external", at(5), "other answers")
    assert not cut_windows(workspace, "a@external", at(5), "again")
    assert not cut_windows(workspace, "a@external", at(4), "earlier")
    assert cut_windows(workspace, "a@external", later, "and again")
    assert not cut_windows(workspace, "nobody@external", later, "unknown")
    assert {s.key: s.cut_at for s in known_suppliers(workspace)} == {"a@external": later, "b@external": None}
    assert events(workspace, "a@external") == ["joined", "cut", "cut"]
    history = documents(workspace)["a@external"]["history"]
    assert (history[1]["cut_at"], history[1]["reason"]) == (at(5), "other answers")
    (plan,) = workspace.documents.find(PLANS)
    assert plan["due_at"] < far, "its plan is looked at now"


def test_a_refresh_keeps_a_detected_cut(open_workspace: Opener) -> None:
    workspace = open_workspace({"address": "a"})
    refresh_roster(workspace)
    cut_windows(workspace, "a@external", at(5), "other answers")
    assert happened(
        refresh_roster(open_workspace({"address": "a", "base_url": "http://127.0.0.1:8/v1"}))
    ) == {"changed": ["a@external"]}
    (supplier,) = known_suppliers(workspace)
    assert supplier.cut_at == at(5)
