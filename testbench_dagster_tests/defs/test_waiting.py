"""What a run leaves open, what it says of it, and how it stays for the later occasions; times compressed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.defs.local_evaluation import WallClock, _clock_time, _stay, evaluate
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.plan.open_docs import (
    OpenDocs,
    next_attempt,
    what_they_count_as,
    who_is_open,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster_tests.defs.conftest import starter_settings

DOCS = 6
GAP = timedelta(seconds=3)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def workspace(localnet: LocalnetProcess, tmp_path: Path) -> Iterator[Workspace]:
    """Two suppliers; what fails is asked again three seconds later."""
    settings = starter_settings(localnet, DOCS)
    settings["suppliers"] = settings["suppliers"][:2]
    settings["tasks"] = settings["tasks"][:1]
    compressed = [0, 0.05, 0.1, 0.2, 0.5, 1, 3]
    settings["planning"] = {"occasions_minutes": compressed, "retry_minutes": 0.05}
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as opened:
        yield opened
    for supplier in settings["suppliers"]:
        localnet.fail(supplier["address"], rate=0.0)


@pytest.mark.slow
def test_an_outage_leaves_docs_open_and_whoever_waits_gets_them(
    localnet: LocalnetProcess, workspace: Workspace
) -> None:
    down, up = (supplier.key for supplier in workspace.config.settings.suppliers)
    localnet.fail(down.partition("@")[0])
    notes: list[str] = []
    first = evaluate(workspace, on_note=notes.append)
    assert first.open.keys() == {down} and first.problem == ""
    docs = first.open[down]
    told = re.match(
        rf"evaluation: {docs} docs are open: {docs} of {down} "
        r"\(supplier_http x (\d+)(?:, (\d+) not asked yet)?\); ",
        notes[-1],
    )
    assert told, notes[-1]
    failed, not_asked = (int(number or 0) for number in told.groups())
    assert failed >= 1 and failed + not_asked == docs
    assert "they count as wrong until they close. Run again " in notes[-1]
    assert notes[-1].endswith("stay with `testbench run --wait`, or leave it to `testbench up`")

    localnet.fail(down.partition("@")[0], rate=0.0)
    notes.clear()
    stayed = evaluate(workspace, wait=timedelta(minutes=2), on_note=notes.append)
    assert (stayed.open, stayed.next_at) == ({}, None)
    rows = {row["supplier"]: row for row in Testbench(workspace).scores().rows}
    assert {key: (row["n"], row["n_failed"], row["n_open"]) for key, row in rows.items()} == {
        down: (DOCS, 0, 0),
        up: (DOCS, 0, 0),
    }, "nothing is lost, nobody is blamed"
    attempts = list(workspace.documents.find(ATTEMPTS, {"supplier": down, "canary": False}))
    ended = {a["prompt_id"]: a["finished_at"] for a in attempts if a["occasion"] == 1 and a["fault"] != "ok"}
    again = [a for a in attempts if a["occasion"] > 1]
    assert again and len(ended) == failed
    assert all(a["finished_at"] >= ended[a["prompt_id"]] + GAP for a in again), "never before its occasion"
    assert workspace.documents.count(ATTEMPTS, {"supplier": up, "canary": False}) == DOCS


@pytest.mark.slow
def test_a_restart_of_a_moment_in_mid_run_costs_nothing(
    localnet: LocalnetProcess, workspace: Workspace
) -> None:
    address = workspace.config.settings.suppliers[0].address
    timers: list[threading.Timer] = []

    def restarts(progress: Any) -> None:
        if progress.sent >= 3 and not timers:
            localnet.fail(address)
            timers.append(threading.Timer(0.3, localnet.fail, (address,), {"rate": 0.0}))
            timers[0].start()

    report = evaluate(workspace, wait=timedelta(minutes=2), on_progress=restarts)
    timers[0].join()
    assert report.open == {}
    for row in Testbench(workspace).scores().rows:
        assert (row["n"], row["n_failed"], row["n_open"], row["status"]) == (DOCS, 0, 0, "ok")


# ------------------------------------------------------------------------------------- the wait alone


class FakeClock(WallClock):
    """Time that passes only by being slept through."""

    def __init__(self) -> None:
        self.at = NOW
        self.slept: list[datetime] = []

    def now(self) -> datetime:
        return self.at

    def sleep_until(self, at: datetime, stop: threading.Event) -> None:
        self.slept.append(at)
        self.at = max(self.at, at)


class Passes:
    """Evaluations that only note who was evaluated when."""

    def __init__(self, clock: FakeClock, left: int | None = None) -> None:
        self.clock, self.left, self.stop = clock, left, threading.Event()
        self.made: list[tuple[datetime, list[str]]] = []

    def go(self, keys: list[str]) -> None:
        self.made.append((self.clock.now(), keys))

    def refresh_summaries(self) -> None:
        pass


def stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: list[list[OpenDocs]], **options: Any
) -> tuple[Passes, FakeClock, list[str]]:
    """Stay while the open docs are one state after the other."""
    clock, notes = FakeClock(), list[str]()
    passes = Passes(clock, options.pop("left", None))
    if options.pop("stopped", False):
        passes.stop.set()
    until = options.pop("until", None)
    told = iter([*states, []])
    monkeypatch.setattr("testbench_dagster.defs.local_evaluation.open_docs", lambda *_: next(told))
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "starter_logic"}]}), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        _stay(workspace, passes, ["a", "b"], ["t"], until, notes.append, clock)  # type: ignore[arg-type]
    return passes, clock, notes


def minutes(n: float) -> datetime:
    return NOW + timedelta(minutes=n)


def test_it_wakes_at_the_earliest_occasion_for_those_that_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = OpenDocs("a", 2, {"transport": 2}, minutes(15)), OpenDocs("b", 1, {}, minutes(120))
    passes, clock, notes = stay(tmp_path, monkeypatch, [[a, b], [b]])
    assert passes.made == [(minutes(15), ["a"]), (minutes(120), ["b"])]
    assert clock.slept == [minutes(15), minutes(120)]
    assert "3 docs are open: 2 of a (transport x 2), 1 of b (Ctrl-C ends the wait)" in notes[0]
    assert "1 doc is open: 1 of b" in notes[1]


@pytest.mark.parametrize("options", [{"until": minutes(14)}, {"left": 0}, {"stopped": True}])
def test_it_ends_when_the_next_occasion_is_too_late_or_nothing_may_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    passes, clock, _ = stay(tmp_path, monkeypatch, [[OpenDocs("a", 1, {}, minutes(15))]] * 2, **options)
    assert (passes.made, clock.slept) == ([], [])


def test_what_is_due_and_was_not_asked_is_looked_at_a_while_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may hold the supplier: no busy loop."""
    passes, _, _ = stay(tmp_path, monkeypatch, [[OpenDocs("a", 1, {}, NOW)]] * 2)
    assert passes.made == [(minutes(5), ["a"]), (minutes(10), ["a"])]


def test_the_clock_is_looked_at_until_the_time_has_come_or_it_is_told_to_stop() -> None:
    clock, stop = WallClock(), threading.Event()
    at = clock.now() + timedelta(seconds=0.05)
    clock.sleep_until(at, stop)
    assert clock.now() >= at
    stop.set()
    clock.sleep_until(clock.now() + timedelta(days=9), stop)


def test_open_docs_are_told_in_a_line() -> None:
    rows = [OpenDocs(f"s{n}", 5 - n, {"transport": 1}, minutes(n) if n else None) for n in range(5)]
    assert who_is_open(rows) == (
        "15 docs are open: 5 of s0 (transport x 1), 4 of s1 (transport x 1), 3 of s2 (transport x 1), "
        "3 of 2 others"
    )
    behind = OpenDocs("s", 9, {"unavailable": 5}, None, left=4)
    assert who_is_open([behind]) == "9 docs are open: 9 of s (unavailable x 5, 4 not asked yet)"
    assert next_attempt(rows) == minutes(1)
    assert next_attempt(rows[:1]) is None


@pytest.mark.parametrize(
    ("docs", "kept", "told"),
    [
        (1, 0, "it counts as wrong until it closes"),
        (5, 0, "they count as wrong until they close"),
        (1, 1, "its earlier outcome counts until it closes"),
        (5, 5, "their earlier outcomes count until they close"),
        (5, 4, "1 counts as wrong until closed, the earlier outcomes of 4 count until then"),
        (5, 1, "4 count as wrong until closed, the earlier outcome of 1 counts until then"),
    ],
)
def test_what_open_docs_count_as_is_told(docs: int, kept: int, told: str) -> None:
    assert what_they_count_as([OpenDocs("a", docs, kept=kept)]) == told
    rest = [OpenDocs("a", 1, kept=min(1, kept)), OpenDocs("b", docs - 1, kept=kept - min(1, kept))]
    assert what_they_count_as(rest) == told


def test_what_our_own_faults_hold_up_counts_against_nobody() -> None:
    """Requests that nobody could be sent, say: no supplier has to answer for them."""
    own = OpenDocs("a", 3, {}, None, ours=3)
    assert who_is_open([own]) == "3 docs are open: 3 of a (3 by our own fault)"
    assert what_they_count_as([own]).startswith("3 are held up by us and count against nobody")
    both = [OpenDocs("a", 1, {}, None, ours=1), OpenDocs("b", 2, {"transport": 2}, None)]
    told = what_they_count_as(both)
    assert told.startswith("1 is held up by us and counts against nobody")
    assert told.endswith("the others: they count as wrong until they close")


@pytest.mark.slow
def test_a_forced_doc_without_an_answer_keeps_its_earlier_outcome_and_the_run_says_so(
    localnet: LocalnetProcess, workspace: Workspace
) -> None:
    key = workspace.config.settings.suppliers[0].key
    testbench = Testbench(workspace)
    testbench.run([key])
    (before,) = testbench.scores(suppliers=[key]).rows
    localnet.fail(key.partition("@")[0])
    notes: list[str] = []
    forced = evaluate(workspace, [key], force=True, on_note=notes.append)
    (after,) = testbench.scores(suppliers=[key]).rows
    assert forced.open[key] > 0
    assert (after["score"], after["n_open"], after["status"]) == (before["score"], 0, before["status"])
    assert "earlier outcome" in notes[-1] and "wrong" not in notes[-1], notes[-1]


def test_times_are_told_as_a_clock_shows_them_and_never_too_early() -> None:
    now = datetime(2026, 3, 1, 12, 0, 30).astimezone()
    assert _clock_time(now + timedelta(seconds=10.2), now) == "12:00:41"
    assert _clock_time(now + timedelta(minutes=15), now) == "12:16"
    assert _clock_time(now + timedelta(days=2), now) == "2026-03-03 12:01"
