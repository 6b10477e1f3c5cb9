"""Suppliers of a simulated network that do not answer, among others that do: times compressed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.lanes import STOPPED, LaneEndRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.relays.report import LaneEnding, Progress
from testbench_dagster.stages import check
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.plan_cache import evaluation_problems
from testbench_dagster.stages.relay import relay as stage
from testbench_dagster.stages.relay import scoring
from testbench_dagster.stages.relay.relay import RelayReport, relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts, stale_tasks
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.tasks.signatures.simulated import installed, served

DOCS = 24
TASK = {"name": "starter_units", "samples": DOCS}
#: A minute of waiting becomes half a second.
COMPRESSED = {"planning": {"occasions_minutes": [0, 0.125, 1, 6, 12, 24, 36]}, "relays": {"max_in_flight": 4}}
BACKEND = Backend("b", 0.7, latency_ms=2)


def key(name: str) -> str:
    return f"{name}@simulation"


@contextmanager
def network(folder: Path, *personas: Persona, **blocks: Any) -> Iterator[tuple[Workspace, Localnet]]:
    """An installation over these suppliers, with its catalogue."""
    with served(personas) as net, installed(folder, net, [TASK], **{**COMPRESSED, **blocks}) as workspace:
        refresh_roster(workspace)
        for spec in stale_tasks(workspace, workspace.specs):
            refresh_dataset(workspace, spec)
            refresh_prompts(workspace, spec)
        yield workspace, net


def relayed(workspace: Workspace, **options: Any) -> RelayReport:
    return relay_due(workspace, [s.key for s in active_suppliers(workspace)], **options)


def failing(name: str, mode: str) -> Persona:
    return Persona(name, BACKEND, failures={mode: 1.0})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "fault", "why"),
    [
        ("401", Fault.CREDENTIALS, "it refuses our key or quota"),
        ("quota", Fault.QUOTA, "it refuses our key or quota"),
        ("400", Fault.CLIENT_REQUEST, "it refuses every request"),
        ("503", Fault.UNAVAILABLE, "no answer in "),
    ],
)
def test_who_refuses_us_is_left_and_told_of(tmp_path: Path, mode: str, fault: Fault, why: str) -> None:
    with network(tmp_path, failing("bad", mode), Persona("good", BACKEND)) as (workspace, _):
        report = relayed(workspace)
        assert report.relays.suppliers[key("good")].answered == DOCS
        assert set(report.left) == {key("bad")}
        told = report.left[key("bad")]
        assert told.startswith(why) and f"({fault.value}): {fault.row.remedy}" in told
        [end] = typed.find(workspace.documents, LaneEndRecord)
        assert (end.supplier, end.service, end.fault, end.why) == (
            key("bad"),
            "simulation",
            fault.value,
            told,
        )
        asked = {a.doc_id for a in typed.find(workspace.documents, AttemptRecord, {"supplier": key("bad")})}
        [left] = end.left
        assert left.task == "starter_units" and left.epoch == left.round == 1
        assert not asked & set(left.doc_ids) and len(asked) + len(left.doc_ids) == DOCS
        assert left.positions == sorted(left.positions)
        assert report.relays.suppliers[key("bad")].abandoned == len(left.doc_ids)
        told_later = evaluation_problems(workspace, [key("bad"), key("good")])
        assert set(told_later) == {key("bad")} and fault.value in told_later[key("bad")]
        findings = {finding.what: finding for finding in check.findings(workspace)}
        last = findings[f"last evaluation of {key('bad')}"]
        assert last.warning and fault.value in last.detail
        assert f"last evaluation of {key('good')}" not in findings


def test_a_restart_in_mid_run_costs_no_doc(tmp_path: Path) -> None:
    """Twenty seconds, compressed to a sixth of one."""
    with network(tmp_path, Persona("a", replace(BACKEND, latency_ms=10))) as (workspace, net):
        supplier = net.suppliers["a"]
        well = supplier.persona

        def restart() -> None:
            while supplier.answered < 5:
                time.sleep(0.002)
            supplier.persona = replace(well, failures={"503": 1.0})
            time.sleep(20 / 120)
            supplier.persona = well

        thread = threading.Thread(target=restart)
        thread.start()
        report = relayed(workspace)
        thread.join()
        assert report.relays.total.answered == DOCS and not report.left
        assert report.relays.total.faults[Fault.UNAVAILABLE] >= 1
        attempts = list(typed.find(workspace.documents, AttemptRecord))
        assert {a.doc_id for a in attempts if a.fault == "ok" and not a.canary} == {
            a.doc_id for a in attempts
        }


@pytest.mark.slow
def test_others_are_scored_when_their_turns_end_and_the_run_ends_soon_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight suppliers, one of which only answers 429, and asks for a second each time.

    A minute becomes two and a half seconds, and the ten of an outage beside others that work twenty-five.
    While the scorer works the run is held up.
    """
    monkeypatch.setattr(scoring, "TOGETHER_S", 0.01)
    others = [f"s{n}" for n in range(7)]
    personas = [failing("limited", "429"), *(Persona(name, BACKEND) for name in others)]
    planning = {"occasions_minutes": [0, 0.5, 5, 30, 60, 120, 180]}
    with network(tmp_path, *personas, planning=planning) as (workspace, _):
        held_s = 0.0
        seen: list[Progress] = []
        scored_during_the_run: set[str] = set()

        def watch(progress: Progress) -> None:
            nonlocal held_s
            seen.append(progress)
            if progress.working == 0 and progress.waits and not scored_during_the_run:
                began = time.monotonic()
                wait_for_scores(workspace, others, scored_during_the_run)
                held_s += time.monotonic() - began

        report = relayed(workspace, score_ended=True, on_progress=watch)
        assert scored_during_the_run == {key(name) for name in others}
        ended = {name: report.relays.lanes[key(name)].ended_at for name in others}
        limited = report.relays.lanes[key("limited")]
        assert limited.end is LaneEnding.LEFT and limited.fault is Fault.RATE_LIMITED
        for name in others:
            scores = list(typed.find(workspace.documents, ScoreRecord, {"supplier": key(name)}))
            assert len({score.doc_id for score in scores}) == DOCS
        later = (limited.ended_at - max(ended.values())).total_seconds()
        assert later - held_s < 20, "a minute, compressed"
        assert {wait.supplier for p in seen for wait in p.waits} == {key("limited")}
        assert {wait.fault for p in seen for wait in p.waits} == {Fault.RATE_LIMITED}


def wait_for_scores(workspace: Workspace, names: list[str], found: set[str]) -> None:
    """Hold the run up until the suppliers have scores: they get them while one is still waited for."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(found) < len(names):
        found.update(
            score.supplier for score in typed.find(workspace.documents, ScoreRecord) if score.error is None
        )
        time.sleep(0.05)


def test_a_failure_of_the_scoring_costs_no_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "TOGETHER_S", 0.0)
    tried = threading.Event()

    def broken(*_: Any, **__: Any) -> None:
        tried.set()
        raise OSError("the scorer is ill")

    monkeypatch.setattr(scoring, "score_new", broken)
    slow = Persona("slow", replace(BACKEND, latency_ms=30))
    with network(tmp_path, Persona("quick", BACKEND), slow) as (workspace, _):
        report = relayed(workspace, score_ended=True)
        assert tried.is_set() and report.relays.total.answered == 2 * DOCS
        assert typed.count(workspace.documents, AttemptRecord) == 2 * DOCS


def test_a_run_that_is_told_to_stop_keeps_what_it_has(tmp_path: Path) -> None:
    with network(tmp_path, Persona("a", replace(BACKEND, latency_ms=30))) as (workspace, net):
        workspace.stop = threading.Event()

        def stop() -> None:
            while net.suppliers["a"].answered < 3:
                time.sleep(0.005)
            assert workspace.stop is not None
            workspace.stop.set()

        thread = threading.Thread(target=stop)
        thread.start()
        report = relayed(workspace)
        thread.join()
        assert report.relays.interrupted
        counts = report.relays.suppliers[key("a")]
        assert 3 <= counts.answered == typed.count(workspace.documents, AttemptRecord) < DOCS
        assert not report.left, "docs that we did not ask are no fault of its"
        assert not list(typed.find(workspace.documents, LaneEndRecord))


@pytest.mark.slow
def test_who_holds_what_it_would_lose_until_the_run_is_stopped_gains_nothing(tmp_path: Path) -> None:
    """Its calls in flight were asked, and others answered meanwhile: they are open."""
    limits = {"max_in_flight": DOCS, "first_byte_s": 60, "total_s": 60}
    withholds = (Withholding(("timeout",), "wrong"),)
    holder = Persona("a", Backend("b", 0.6, latency_ms=2), withholds=withholds)
    # where neither of the first two calls is answered nothing else is asked for a minute: docs are drawn anew
    assert any(_held_and_stopped(tmp_path / str(draw), holder, limits) for draw in range(20))


def _held_and_stopped(folder: Path, holder: Persona, limits: dict[str, int]) -> bool:
    folder.mkdir()
    with network(folder, holder, relays=limits) as (workspace, net):
        workspace.stop = threading.Event()
        began = time.monotonic()

        def stop() -> None:
            seen = -1
            while net.suppliers["a"].answered > seen or (seen <= 0 and time.monotonic() < began + 10):
                seen = net.suppliers["a"].answered
                time.sleep(0.5)
            assert workspace.stop is not None
            workspace.stop.set()

        thread = threading.Thread(target=stop)
        thread.start()
        report = relayed(workspace, score_ended=True)
        thread.join()
        if not net.suppliers["a"].answered:
            return False
        assert report.relays.interrupted and not report.left
        answered = report.relays.suppliers[key("a")].answered
        assert 0 < answered < DOCS
        score_new(workspace, [key("a")])
        (row,) = (row for row in windows(workspace, suppliers=[key("a")]) if row.primary)
        [end] = typed.find(workspace.documents, LaneEndRecord)
        held = sum(len(part.doc_ids) for part in end.left)
        assert (end.fault, held > 1) == (STOPPED.value, True)
        assert (row.status, row.n, row.n_open) == ("partial", answered, held)
        assert row.score_answered == 1.0 and row.score == answered / (answered + held)
        # they are asked by the next run, and are open no more once they are answered
        net.suppliers["a"].persona = replace(holder, withholds=())
        workspace.stop = None
        assert relayed(workspace, score_ended=True).relays.suppliers[key("a")].answered == DOCS - answered
        score_new(workspace, [key("a")])
        (row,) = (row for row in windows(workspace, suppliers=[key("a")]) if row.primary)
        assert (row.status, row.n, row.n_open, row.n_late) == ("ok", DOCS, 0, 0)
        return True


@pytest.mark.slow
def test_scored_answers_are_written_under_the_runs_own_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Heartbeat | None] = []

    def noted(*_: Any, heartbeat: Heartbeat | None = None, **__: Any) -> None:
        beats.append(heartbeat)

    monkeypatch.setattr(scoring, "score_new", noted)
    monkeypatch.setattr(scoring, "TOGETHER_S", 0.0)
    slow = Persona("slow", replace(BACKEND, latency_ms=30))
    with network(tmp_path, Persona("quick", BACKEND), slow) as (workspace, _):
        with Heartbeat(workspace.documents, f"run-{datetime.now(UTC):%f}") as heartbeat:
            workspace.heartbeat = heartbeat
            relayed(workspace, score_ended=True)
        assert beats and all(beat is heartbeat for beat in beats)


def test_the_times_of_a_run_scale_with_the_occasions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from testbench_dagster.relays import engine

    seen: list[float] = []
    run = engine.run_relays

    def watched(*args: Any, **options: Any) -> Any:
        seen.append(options["patience"].alone_s)
        return run(*args, **options)

    monkeypatch.setattr(engine, "run_relays", watched)
    with network(tmp_path, Persona("a", BACKEND)) as (workspace, _):
        relayed(workspace, max_relays=1)
    assert stage.PATIENCE.alone_s == 60.0 and seen[-1] == pytest.approx(0.5)
