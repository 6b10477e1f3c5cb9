"""Sensors and schedules one tick at a time: what they ask for, that they ask once, within their bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import DagsterEvent, DagsterEventType

from testbench_dagster.config import load_config
from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.defs.backfills import add_backfill
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.dagster_internals import BulkActionStatus
from testbench_dagster.defs.network import sensors
from testbench_dagster.defs.operations import lost_runs
from testbench_dagster.defs.operations.alerts import alert_of, post
from testbench_dagster.defs.operations.change_alerts import change_alerts_sensor
from testbench_dagster.defs.partitions import RANGE_END, RANGE_START, range_tags
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import CHANGES, PLANS, SUPPLIERS, TAXONOMY_SUMMARIES
from testbench_dagster_tests.defs.conftest import Materialized

START, END = RANGE_START, RANGE_END


@dataclass
class Room:
    """An opened installation with its definitions and an instance of its own."""

    workspace: Workspace
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def tick(self, name: str, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate a sensor once and apply what it asks of the partitions, as the daemon does."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(
            instance=self.instance,
            repository_def=repository,
            cursor=cursor,
            resources={"workspace": self.workspace},
        )
        result = repository.get_sensor_def(name)(context)
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or ():
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions("supplier", list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition("supplier", key)
        return result

    def schedule(self, name: str, at: datetime) -> list[dg.RunRequest]:
        """Evaluate a schedule for an instant."""
        repository = self.definitions.get_repository_def()
        context = dg.build_schedule_context(
            instance=self.instance,
            repository_def=repository,
            scheduled_execution_time=at,
            resources={"workspace": self.workspace},
        )
        data = repository.get_schedule_def(name).evaluate_tick(context)
        return list(data.run_requests or ())


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Suppliers from a file that nobody relays to, one task, nothing materialized."""
    roster(tmp_path, 3)
    settings = {
        "supplier_sources": [{"file": "roster.json", "allow_private_networks": True}],
        "tasks": [{"name": "starter_logic", "samples": 5}],
        "roster": {"grace_hours": 0},
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace, dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Room(workspace, instance, build_definitions(workspace))


@pytest.fixture
def evaluated(materialized: Materialized, tmp_path: Path) -> Iterator[Room]:
    """Four suppliers with everything materialized; the instance is another one, with their partitions."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        keys = [s.key for s in materialized.workspace.config.settings.suppliers]
        instance.add_dynamic_partitions("supplier", keys)
        kept = list(materialized.workspace.documents.find(PLANS))
        yield Room(materialized.workspace, instance, build_definitions(materialized.workspace))
        materialized.workspace.documents.upsert(PLANS, kept)


def roster(folder: Path, n: int) -> None:
    suppliers = [
        {"address": f"s{i:04}", "base_url": f"http://127.0.0.1:9/{i}/v1", "model": "m"} for i in range(n)
    ]
    (folder / "roster.json").write_text(json.dumps({"suppliers": suppliers}), encoding="utf-8")


def ranges(result: dg.SensorResult) -> list[tuple[str, str]]:
    return [(r.tags[START], r.tags[END]) for r in result.run_requests or ()]


# ------------------------------------------------------------------------------------------ new_suppliers


def test_new_suppliers_get_partitions_and_nothing_is_said_twice(room: Room) -> None:
    first = room.tick("new_suppliers")
    assert list(room.instance.get_dynamic_partitions("supplier")) == [f"s{i:04}@external" for i in range(3)]
    (event,) = first.asset_events
    assert isinstance(event, dg.AssetMaterialization)
    assert (event.asset_key, event.metadata["joined"].value) == (dg.AssetKey("suppliers"), 3)
    assert first.run_requests == [], "there is nothing to ask yet: the catalog comes first"
    second = room.tick("new_suppliers", first.cursor)
    assert second.skip_reason is not None
    assert "3 suppliers, nothing new" in str(second.skip_reason.skip_message)
    assert not second.asset_events


def test_a_roster_that_is_reported_again_without_a_change_is_the_same_data(
    room: Room, tmp_path: Path
) -> None:
    def version() -> str:
        (event,) = room.tick("new_suppliers").asset_events
        assert isinstance(event, dg.AssetMaterialization)
        return str((event.tags or {})["dagster/data_version"])

    first = version()
    assert version() == first
    roster(tmp_path, 4)
    assert version() != first


def test_suppliers_join_some_at_a_tick_and_nobody_is_left_out(
    room: Room, materialized: Materialized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions faster than runs: whom a tick may not request `stale_scores` does, and nobody twice."""
    monkeypatch.setattr(sensors, "NEW_KEYS_PER_TICK", 120)
    monkeypatch.setattr(sensors, "RUNS_PER_TICK", 2)
    room.workspace.datasets = materialized.workspace.datasets  # there is something to ask
    roster(tmp_path, 300)
    cursor, there, known, asked = None, [], [], []
    for _ in range(4):
        result = room.tick("new_suppliers", cursor)
        assert len(result.run_requests or ()) <= 2
        cursor = result.cursor
        there.append(len(room.instance.get_dynamic_partitions("supplier")))
        known.append(room.workspace.documents.count(SUPPLIERS))
        asked += ranges(result)
    assert there == known == [120, 240, 300, 300]
    assert len(asked) == 2 + 2 + 2, "those who joined at the tick"
    order = list(room.instance.get_dynamic_partitions("supplier"))
    job = room.definitions.resolve_job_def("evaluate_suppliers")
    for first, last in asked:
        room.instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags=range_tags(first, last)
        )
    asked += ranges(room.tick("stale_scores"))
    covered = [key for first, last in asked for key in order[order.index(first) : order.index(last) + 1]]
    assert sorted(covered) == sorted(order), "each once"


def test_who_was_evaluated_meanwhile_is_not_asked_for_a_first_time(
    room: Room, materialized: Materialized, tmp_path: Path
) -> None:
    room.workspace.datasets = materialized.workspace.datasets
    plan = {"service": "external", "planned_at": datetime.now(UTC), "due_at": None, "failures": 0}
    room.workspace.documents.put_new(PLANS, [{"_id": "s0001@external", **plan}])
    keys = ["s0000@external", "s0002@external"]
    assert ranges(room.tick("new_suppliers")) == [(key, key) for key in keys]


def partitions(room: Room) -> set[str]:
    return set(room.instance.get_dynamic_partitions("supplier"))


def test_who_left_loses_the_partition_while_others_are_in_flight(room: Room, tmp_path: Path) -> None:
    """Under constant load some run is always under way."""
    roster(tmp_path, 8)
    room.tick("new_suppliers")
    job = room.definitions.resolve_job_def("evaluate_suppliers")

    def start(first: str, last: str) -> dg.DagsterRun:
        return room.instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags=range_tags(f"{first}@external", f"{last}@external")
        )

    start("s0000", "s0002")
    ends_there = start("s0005", "s0006")
    roster(tmp_path, 6)
    room.tick("new_suppliers")
    assert partitions(room) == {f"s{i:04}@external" for i in range(7)}, "one is dropped, one a run ends at"
    room.instance.report_run_canceled(ends_there)
    room.tick("new_suppliers")
    assert partitions(room) == {f"s{i:04}@external" for i in range(6)}
    roster(tmp_path, 7)
    room.tick("new_suppliers")
    assert "s0006@external" in partitions(room), "it returned"


def test_a_backfill_that_has_not_ended_keeps_its_partitions(room: Room, tmp_path: Path) -> None:
    """It may not have submitted their runs yet."""
    roster(tmp_path, 8)
    room.tick("new_suppliers")
    keys = [f"s{i:04}@external" for i in (1, 6)]
    backfill = add_backfill(room.instance, room.workspace, keys, title="by hand", tags={})
    roster(tmp_path, 6)
    room.tick("new_suppliers")
    assert partitions(room) == {f"s{i:04}@external" for i in range(7)}
    known = room.instance.get_backfill(backfill)
    assert known is not None
    room.instance.update_backfill(known.with_status(BulkActionStatus.CANCELED))
    room.tick("new_suppliers")
    assert partitions(room) == {f"s{i:04}@external" for i in range(6)}


def test_an_empty_list_is_told_by_the_tick_and_retires_nobody(room: Room, tmp_path: Path) -> None:
    cursor = room.tick("new_suppliers").cursor
    roster(tmp_path, 0)
    result = room.tick("new_suppliers", cursor)
    assert result.skip_reason is not None
    told = str(result.skip_reason.skip_message)
    assert "3 suppliers, nothing new" in told
    assert "roster.json: lists none of the 3 suppliers known of it, which is not believed yet" in told
    assert len(partitions(room)) == 3


def test_a_broken_source_costs_nobody_the_partition(room: Room, tmp_path: Path) -> None:
    cursor = room.tick("new_suppliers").cursor
    (tmp_path / "roster.json").write_text("{", encoding="utf-8")
    result = room.tick("new_suppliers", cursor)
    assert result.skip_reason is not None
    assert len(room.instance.get_dynamic_partitions("supplier")) == 3


# ------------------------------------------------------------------------------ stale_catalog, stale_scores


def test_a_catalogue_that_is_not_there_is_asked_for_once(room: Room) -> None:
    first, second = room.tick("stale_catalog"), room.tick("stale_catalog")
    assert ranges(first) == [("starter_logic", "starter_logic")]
    assert first.run_requests[0].run_key == second.run_requests[0].run_key
    job = room.definitions.resolve_job_def("refresh_catalog")
    room.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert room.tick("stale_catalog").skip_reason is not None, "while one is under way none is asked for"


def test_a_catalogue_that_failed_is_tried_again_a_while_after_that_run(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = room.tick("stale_catalog").run_requests
    failed = fail(room, "refresh_catalog", request)
    waiting = room.tick("stale_catalog")
    assert waiting.skip_reason is not None
    assert "starter_logic came to nothing" in str(waiting.skip_reason.skip_message)
    monkeypatch.setattr("testbench_dagster.defs.catalog.sensors._RETRY_S", 0)
    first, second = room.tick("stale_catalog"), room.tick("stale_catalog")
    assert first.run_requests[0].run_key == second.run_requests[0].run_key == f"{request.run_key}:{failed}"
    again = fail(room, "refresh_catalog", first.run_requests[0])
    assert room.tick("stale_catalog").run_requests[0].run_key == f"{request.run_key}:{again}"


def fail(room: Room, job: str, request: dg.RunRequest) -> str:
    """A run that a request asked for, failed a moment ago."""
    run = room.instance.create_run_for_job(
        room.definitions.resolve_job_def(job), status=dg.DagsterRunStatus.STARTED, tags=request.tags
    )
    room.instance.report_run_failed(run)
    return run.run_id


def test_a_complete_catalogue_is_left_alone(evaluated: Room) -> None:
    assert evaluated.tick("stale_catalog").skip_reason is not None


def test_nothing_is_due_after_an_evaluation(evaluated: Room) -> None:
    result = evaluated.tick("stale_scores")
    assert result.skip_reason is not None, result


def make_due(room: Room, *keys: str) -> None:
    for key in keys:
        past = datetime.now(UTC) - timedelta(seconds=1)
        assert room.workspace.documents.claim(PLANS, {"_id": key}, {"due_at": past}) is not None


def test_due_suppliers_are_asked_for_in_one_range_with_an_idempotent_key(evaluated: Room) -> None:
    make_due(evaluated, "sim-01@simulation", "sim-03@simulation")
    first, second = evaluated.tick("stale_scores"), evaluated.tick("stale_scores")
    assert ranges(first) == [("sim-01@simulation", "sim-03@simulation")], "the fresh one between is no cut"
    assert [r.run_key for r in first.run_requests] == [r.run_key for r in second.run_requests]
    assert first.run_requests[0].tags["dagster/priority"] == "-1"
    # planned anew, and due again: that is another request
    evaluated.workspace.documents.claim(
        PLANS, {"_id": "sim-01@simulation"}, {"planned_at": datetime.now(UTC) + timedelta(seconds=5)}
    )
    assert evaluated.tick("stale_scores").run_requests[0].run_key != first.run_requests[0].run_key


def test_due_suppliers_whose_run_came_to_nothing_are_asked_for_a_while_after_it(
    evaluated: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_due(evaluated, "sim-01@simulation")
    (request,) = evaluated.tick("stale_scores").run_requests
    failed = fail(evaluated, "evaluate_suppliers", request)
    waiting = evaluated.tick("stale_scores")
    assert waiting.skip_reason is not None
    assert "1 supplier is due; the last runs" in str(waiting.skip_reason.skip_message)
    retry_minutes = evaluated.workspace.config.settings.planning.retry_minutes
    later = time.time() + retry_minutes * 60 + 1
    monkeypatch.setattr("testbench_dagster.defs.automation.time", SimpleNamespace(time=lambda: later))
    assert evaluated.tick("stale_scores").run_requests[0].run_key == f"{request.run_key}:{failed}"


def test_a_supplier_in_flight_is_not_asked_for_and_no_range_runs_over_it(evaluated: Room) -> None:
    make_due(evaluated, "sim-01@simulation", "sim-02@simulation", "sim-03@simulation")
    job = evaluated.definitions.resolve_job_def("evaluate_suppliers")
    evaluated.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "sim-02@simulation"}
    )
    asked = ranges(evaluated.tick("stale_scores"))
    assert asked == [("sim-01@simulation",) * 2, ("sim-03@simulation",) * 2]


def test_a_missing_plan_is_due(evaluated: Room) -> None:
    evaluated.workspace.documents.purge(PLANS, {"_id": "sim-04@simulation"})
    assert ranges(evaluated.tick("stale_scores")) == [("sim-04@simulation",) * 2]


def test_what_is_asked_for_can_be_run(evaluated: Room) -> None:
    """The request's own tags, fed into a real run: nothing is due in truth, so nothing is sent."""
    make_due(evaluated, "sim-01@simulation", "sim-02@simulation")
    (request,) = evaluated.tick("stale_scores").run_requests
    job = evaluated.definitions.resolve_job_def("evaluate_suppliers")
    result = job.execute_in_process(instance=evaluated.instance, tags=request.tags)
    assert result.success
    (relays, *_) = result.asset_materializations_for_node("relay_responses")
    assert (relays.metadata["suppliers"].value, relays.metadata["sent"].value) == (2, 0)
    assert evaluated.tick("stale_scores").skip_reason is not None, "it was planned anew"


# ------------------------------------------------------------------------------------------------ lost_runs


def started(room: Room) -> dg.DagsterRun:
    run = room.instance.create_run_for_job(room.definitions.resolve_job_def("evaluate_suppliers"))
    event = DagsterEvent(DagsterEventType.PIPELINE_START.value, run.job_name)
    room.instance.report_dagster_event(event, run.run_id)
    return run


def test_a_run_without_a_heartbeat_is_failed_at_the_second_look(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_runs, "_GRACE_S", 0.0)
    lost, living = started(room), started(room)
    with Heartbeat(room.workspace.documents, living.run_id):
        first = room.tick("lost_runs")
        assert status(room, lost) is dg.DagsterRunStatus.STARTED, (
            "one that is just ending has no heartbeat either"
        )
        room.tick("lost_runs", first.cursor)
        assert status(room, lost) is dg.DagsterRunStatus.FAILURE
        assert status(room, living) is dg.DagsterRunStatus.STARTED


def test_a_run_that_has_just_started_is_left_alone(room: Room) -> None:
    run = started(room)
    room.tick("lost_runs", room.tick("lost_runs").cursor)
    assert status(room, run) is dg.DagsterRunStatus.STARTED


def status(room: Room, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = room.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


# ------------------------------------------------------------------------------------------------ schedules

NIGHT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def test_the_night_evaluates_everyone_in_batches(evaluated: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBENCH_SUPPLIERS_PER_RUN", "3")
    requests = evaluated.schedule("nightly_evaluation", NIGHT)
    assert [(r.tags[START], r.tags[END]) for r in requests] == [
        ("sim-01@simulation", "sim-03@simulation"),
        ("sim-04@simulation", "sim-04@simulation"),
    ]
    again = evaluated.schedule("nightly_evaluation", NIGHT)
    other = evaluated.schedule("nightly_evaluation", NIGHT + timedelta(days=1))
    assert [r.run_key for r in again] == [r.run_key for r in requests]
    assert not {r.run_key for r in other} & {r.run_key for r in requests}


def test_summaries_that_grew_a_day_old_are_refreshed(evaluated: Room) -> None:
    assert evaluated.schedule("hourly_summaries", datetime.now(UTC)) == []
    (request,) = evaluated.schedule("hourly_summaries", datetime.now(UTC) + timedelta(hours=25))
    assert (request.tags[START], request.tags[END]) == ("sim-01@simulation", "sim-04@simulation")
    before = {d["_id"]: d for d in evaluated.workspace.documents.find(TAXONOMY_SUMMARIES)}
    job = evaluated.definitions.resolve_job_def("refresh_abilities")
    assert job.execute_in_process(instance=evaluated.instance, tags=request.tags).success
    after = {d["_id"]: d for d in evaluated.workspace.documents.find(TAXONOMY_SUMMARIES)}
    assert all(after[i]["summarized_at"] > before[i]["summarized_at"] for i in before)


def test_a_day_is_snapshotted_after_its_end(evaluated: Room) -> None:
    now = datetime.now(UTC)
    assert evaluated.schedule("daily_snapshots", now) == [], "nobody was evaluated by the day before"
    (request,) = evaluated.schedule("daily_snapshots", now + timedelta(days=1))
    today = now.strftime("%Y-%m-%d")
    assert request.partition_key == today
    job = evaluated.definitions.resolve_job_def("take_snapshots")
    result = job.execute_in_process(instance=evaluated.instance, partition_key=today)
    (event,) = result.asset_materializations_for_node("supplier_snapshots")
    assert event.metadata["suppliers"].value == 4


def days_of(definitions: dg.Definitions) -> list[str]:
    """The partitions of the daily asset."""
    partitions = definitions.resolve_asset_graph().get(dg.AssetKey("supplier_snapshots")).partitions_def
    assert partitions is not None
    return list(partitions.get_partition_keys())


def test_history_has_partitions_from_first_use_on(evaluated: Room) -> None:
    """Not of days before it, on which nobody could have taken a snapshot."""
    now = datetime.now(UTC)
    day = {n: (now - timedelta(days=n)).strftime("%Y-%m-%d") for n in range(4)}
    assert days_of(build_definitions(evaluated.workspace)) == [day[0]]
    take_snapshots(evaluated.workspace, (now - timedelta(days=3)).date(), now=now - timedelta(days=3))
    later = build_definitions(evaluated.workspace)
    assert days_of(later) == [day[3], day[2], day[1], day[0]]
    job = later.resolve_job_def("take_snapshots")
    with pytest.raises(Exception, match="only today and yesterday can be taken"):
        job.execute_in_process(instance=evaluated.instance, partition_key=day[2])


def test_definitions_write_nothing(room: Room) -> None:
    """Loading a code location creates no store."""
    home = room.workspace.config.home
    before = sorted(home.rglob("*"))
    assert days_of(build_definitions(room.workspace)) == [datetime.now(UTC).strftime("%Y-%m-%d")]
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
def test_epochs_roll_once_a_week_whatever_is_repeated(room: Room) -> None:
    tick = datetime.now(UTC)
    job = room.definitions.resolve_job_def("refresh_catalog")
    (request,) = room.schedule("weekly_epochs", tick - timedelta(days=7))
    first = run_epochs(room, job, request)
    assert first == (1, None), "the first epoch begins with the first refresh"
    (request,) = room.schedule("weekly_epochs", datetime.now(UTC))
    second = run_epochs(room, job, request)
    assert second[0] == 2
    assert second[1] is not None, "the seed of the epoch before is revealed"
    assert run_epochs(room, job, request)[0] == 2


def run_epochs(room: Room, job: Any, request: dg.RunRequest) -> tuple[int, str | None]:
    result = job.execute_in_process(instance=room.instance, tags=request.tags, run_config=request.run_config)
    (event,) = result.asset_materializations_for_node("sampled_prompts")
    row = [cell.strip() for cell in event.metadata["sequences"].value.splitlines()[2].split("|")]
    assert len(row[6]) == 64, "the whole commitment"
    return int(row[2]), None if row[7] == "–" else row[7]


# -------------------------------------------------------------------------------------------------- alerts


def test_a_failed_run_is_told_to_the_webhook(webhook: HTTPServer) -> None:
    run = dg.DagsterRun(job_name="evaluate_suppliers", tags=range_tags("a@x", "b@x"))
    alert = alert_of(run, "it\nbroke " + "x" * 2000)
    url = f"http://127.0.0.1:{webhook.server_address[1]}/secret-path"
    assert post(url, alert) is None
    (taken,) = webhook.taken  # type: ignore[attr-defined]
    assert (taken["job"], taken["run_id"], taken["partitions"]) == (
        "evaluate_suppliers",
        run.run_id,
        "a@x...b@x",
    )
    assert taken["message"].startswith("it broke x")
    assert len(taken["message"]) == 1000
    webhook.answer = 500  # type: ignore[attr-defined]
    assert post(url, alert) == "HTTP 500"
    problem = post("http://127.0.0.1:9/secret-path", alert)
    assert problem is not None
    assert "secret-path" not in problem
    assert post("no url at all", alert) is not None


def change(key: str, detected_at: datetime, cut: bool = True) -> dict[str, Any]:
    return {
        "_id": f"change-{key}",
        "supplier": f"{key}@x",
        "service": "x",
        "kind": "repeats",
        "task": None,
        "at": datetime(2026, 5, 1, 12, 30, tzinfo=UTC),
        "detected_at": detected_at,
        "cut": cut,
        "reason": "11 of 12 answers differ from those before",
    }


def test_a_detected_change_is_told_once_and_again_only_where_the_webhook_failed(
    room: Room, webhook: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANGE_HOOK", f"http://127.0.0.1:{webhook.server_address[1]}/secret-path")
    sensor = change_alerts_sensor(AutomationSettings(alert_webhook_env="CHANGE_HOOK"))
    documents = room.workspace.documents
    cursor: str | None = None

    def tick() -> str:
        nonlocal cursor
        context = dg.build_sensor_context(
            instance=room.instance, cursor=cursor, resources={"workspace": room.workspace}
        )
        told = sensor(context)
        cursor = context.cursor
        return told.skip_message

    assert tick() == "nothing new"
    now = datetime.now(UTC)
    documents.put_new(CHANGES, [change("a", now), change("b", now, cut=False)])
    assert tick() == "2 changes told"
    assert tick() == "nothing new"
    taken = webhook.taken  # type: ignore[attr-defined]
    assert sorted(t["supplier"] for t in taken) == ["a@x", "b@x"]
    text = {t["supplier"]: t["text"] for t in taken}
    assert text["a@x"].startswith(
        "testbench: a@x answers differently since 2026-05-01 12:30 UTC (repeats): 11"
    )
    assert text["a@x"].endswith("its window was cut there")
    assert text["b@x"].endswith("reported only")

    webhook.answer = 500  # type: ignore[attr-defined]
    # recorded by a process whose clock is a little behind
    documents.put_new(CHANGES, [change("c", now - timedelta(minutes=2))])
    assert "HTTP 500" in tick()
    assert "secret-path" not in tick()
    webhook.answer = 204  # type: ignore[attr-defined]
    assert tick() == "1 change told"
    assert tick() == "nothing new"


def test_without_a_webhook_nobody_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHANGE_HOOK", raising=False)
    context = dg.build_sensor_context(instance=room.instance, resources={"workspace": room.workspace})
    assert "names no variable" in change_alerts_sensor(AutomationSettings())(context).skip_message
    named = change_alerts_sensor(AutomationSettings(alert_webhook_env="CHANGE_HOOK"))
    assert "CHANGE_HOOK, which is not set" in named(context).skip_message


def test_summaries_are_made_once_an_hour_of_whatever_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new installation is measured once, and is then quiet until the night."""
    settings = {"tasks": [{"name": "starter_logic"}]}
    (tmp_path / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    definitions, cursor, both = build_definitions(), None, {"identity_groups", "leaderboard"}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", ["a@s", "never asked@s"])

        def refreshed(hour: int, minute: int) -> set[str]:
            nonlocal cursor
            # in the past, for what is reported here is of the present
            at = datetime(2025, 1, 1, hour, minute, tzinfo=UTC)
            result = dg.evaluate_automation_conditions(
                definitions, instance, cursor=cursor, evaluation_time=at
            )
            cursor = result.cursor
            return {name for name in both if result.get_num_requested(dg.AssetKey(name))}

        def made(*assets: str, partition: str | None = None) -> None:
            for asset in assets:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))

        def evaluated() -> None:
            made("relay_responses", "supplier_scores", "taxonomy_summaries", partition="a@s")

        assert refreshed(9, 1) == set()
        evaluated()
        assert refreshed(9, 2) == both, "the first time at once"
        made(*both)
        assert refreshed(9, 3) == set()
        evaluated()
        assert refreshed(9, 4) == refreshed(9, 59) == set()
        assert refreshed(10, 0) == both, "before the hour, and quiet since"
        evaluated()
        made(*both)
        assert refreshed(10, 1) == refreshed(10, 2) == set()
        assert refreshed(11, 0) == both, "came when these were just made"
        made(*both)
        assert refreshed(11, 1) == refreshed(12, 0) == refreshed(13, 0) == set(), "nothing new"
        evaluated()
        assert refreshed(13, 20) == both
