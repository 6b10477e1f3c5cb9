"""Dagster's sensors and schedules go on when a clock that was ahead is set back, and say so."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import TickData, TickStatus
from dagster._daemon.sensor import is_under_min_interval

from testbench_dagster.defs import automation, dagster_internals, set_back
from testbench_dagster.defs.entry_points import code_origin
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.network.sensors import _report_is_due
from testbench_dagster.defs.storage import POSTGRES_ENV

DAY = 86_400.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    if request.param == "sqlite":
        monkeypatch.delenv(POSTGRES_ENV, raising=False)
    else:
        monkeypatch.setenv(POSTGRES_ENV, request.getfixturevalue("postgres_database_uri"))
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(set_back, "_told", set())
    with dg.DagsterInstance.get() as made:
        yield made


def state(name: str, kind: InstigatorType, data: object) -> dagster_internals.InstigatorState:
    repository = dagster_internals.RemoteRepositoryOrigin(code_origin(), "__repository__")
    origin = RemoteInstigatorOrigin(repository, name)
    return dagster_internals.InstigatorState(origin, kind, dagster_internals.InstigatorStatus.RUNNING, data)


def test_a_sensor_that_ticked_in_the_future_ticks_now(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    ahead, past = time.time() + 3 * DAY, time.time() - 5
    for name, at in (("late", ahead), ("right", past)):
        data = dagster_internals.SensorInstigatorData(
            last_tick_timestamp=at, min_interval=30, cursor="kept", last_tick_start_timestamp=at,
            sensor_type=SensorType.STANDARD,
        )  # fmt: skip
        instance.add_instigator_state(state(name, InstigatorType.SENSOR, data))
    with caplog.at_level(logging.WARNING, logger="dagster"):
        found = {one.instigator_name: one for one in instance.all_instigator_state()}
        instance.all_instigator_state()
    assert is_under_min_interval(found["late"], SimpleNamespace(min_interval_seconds=30)) is False
    assert is_under_min_interval(found["right"], SimpleNamespace(min_interval_seconds=30)) is True
    assert found["late"].instigator_data.cursor == "kept"
    told = [record.getMessage() for record in caplog.records if "clock that was ahead" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("late ")


def test_an_automation_sensor_compares_with_no_time_of_the_future(instance: dg.DagsterInstance) -> None:
    cursor = dagster_internals.asset_daemon_cursor_to_instigator_serialized_cursor(
        dagster_internals.AssetDaemonCursor.empty(41)
    )
    data = dagster_internals.SensorInstigatorData(
        last_tick_start_timestamp=time.time() + 3 * DAY, cursor=cursor, sensor_type=SensorType.AUTOMATION
    )
    instance.add_instigator_state(state("summaries_sensor", InstigatorType.SENSOR, data))
    (found,) = instance.all_instigator_state()
    right = dagster_internals.asset_daemon_cursor_from_instigator_serialized_cursor(
        found.instigator_data.cursor, None
    )
    assert right.evaluation_id == 41 and right.previous_condition_cursors == []
    assert found.instigator_data.last_tick_start_timestamp is None


def test_a_schedule_of_the_future_begins_now_and_catches_up_nothing(instance: dg.DagsterInstance) -> None:
    ahead = time.time() + 3 * DAY
    data = dagster_internals.ScheduleInstigatorData("0 3 * * *", ahead, ahead)
    made = state("nightly", InstigatorType.SCHEDULE, data)
    instance.add_instigator_state(made)
    for at in (time.time() - DAY, ahead):
        instance.create_tick(
            TickData(
                instigator_origin_id=made.instigator_origin_id,
                instigator_name="nightly",
                instigator_type=InstigatorType.SCHEDULE,
                status=TickStatus.SUCCESS,
                timestamp=at,
                selector_id=made.selector_id,
                run_ids=["r"],
            )
        )
    found = instance.get_instigator_state(made.instigator_origin_id, made.selector_id)
    assert found is not None
    assert time.time() - 120 < found.instigator_data.start_timestamp <= time.time()
    assert found.instigator_data.last_iteration_timestamp is None
    ticks = instance.get_ticks(made.instigator_origin_id, made.selector_id, limit=1)
    assert [tick.timestamp < time.time() for tick in ticks] == [True], "the last one of the past"


def test_a_request_whose_run_ended_in_the_future_is_made_now(monkeypatch: pytest.MonkeyPatch) -> None:
    job = dg.job(name="j")(lambda: None)
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={automation.REQUEST: "k"})
        assert automation.repeatable_requests(instance, {"k": {}}, 300) == []
        now = time.time()
        monkeypatch.setattr(automation.time, "time", lambda: now - 3 * DAY)
        (request,) = automation.repeatable_requests(instance, {"k": {}}, 300)
        assert request.run_key is not None and request.run_key.startswith("k:")


def test_a_report_of_the_future_is_due_now() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    for at, due in ((now + timedelta(days=3), True), (now, False), (now - timedelta(hours=2), True)):
        assert _report_is_due(f'{{"reported_at": "{at.isoformat()}"}}', now) == due
