"""Service probes in Dagster: what is due in one run, partitions of who was probed, the sensor, the check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.partitions import KIND_TAG, PROBES, range_tags, suppliers_in_flight
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.defs.conftest import starter_settings
from testbench_dagster_tests.defs.test_automation import Room
from testbench_dagster_tests.stages.service.probes import stored_probe

ASSET = dg.AssetKey("service_probes")
QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SIM = [f"sim-{n:02}@simulation" for n in range(1, 5)]


@pytest.fixture
def open_room(tmp_path: Path) -> Iterator[Callable[..., Room]]:
    """An installation whose roster has partitions; nothing else is materialized."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        opened: list[Workspace] = []

        def build(settings: dict[str, Any]) -> Room:
            path = tmp_path / "testbench.yaml"
            path.write_text(yaml.safe_dump(settings), encoding="utf-8")
            workspace = Workspace(load_config(path))
            opened.append(workspace)
            room = Room(workspace, instance, build_definitions(workspace))
            job = room.definitions.resolve_job_def("refresh_suppliers")
            assert job.execute_in_process(instance=instance, run_config=QUIET).success
            return room

        yield build
        for workspace in opened:
            workspace.close()


def nobody_there(n: int, **blocks: Any) -> dict[str, Any]:
    """Suppliers that are not there, for what sends nothing."""
    suppliers = [
        {"address": f"s{i}", "base_url": f"http://127.0.0.1:9/{i}/v1", "model": "m"} for i in range(n)
    ]
    probes = {"enabled": True, **blocks.pop("service_probes", {})}
    return {
        "suppliers": suppliers,
        "tasks": [{"name": "starter_logic", "samples": 5}],
        "service_probes": probes,
        **blocks,
    }


def probed(room: Room, first: str, last: str, **tags: str) -> dg.ExecuteInProcessResult:
    job = room.definitions.resolve_job_def("probe_service")
    return job.execute_in_process(
        instance=room.instance, tags={**range_tags(first, last), **tags}, run_config=QUIET
    )


def why(result: dg.SensorResult) -> str:
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message or ""


def materialized(room: Room) -> set[str]:
    return room.instance.get_materialized_partitions(ASSET)


def seen(room: Room, partition: str) -> dict[str, Any]:
    records = room.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=ASSET, asset_partitions=[partition]), limit=1
    ).records
    assert records[0].asset_materialization is not None
    return {name: value.value for name, value in records[0].asset_materialization.metadata.items()}


def test_a_run_probes_what_is_due_and_shows_who_was_probed(
    open_room: Callable[..., Room], localnet: LocalnetProcess
) -> None:
    settings = starter_settings(localnet) | {"service_probes": {"enabled": True, "answer_tokens": 32}}
    room = open_room(settings | {"board": {"url": "https://board.example.org"}})
    documents, now = room.workspace.documents, datetime.now(UTC)
    for workload in ("short", "1k"):
        stored_probe(documents, SIM[0], now, workload)
    stored_probe(documents, SIM[2], now, "1k")
    before = localnet.stats()
    result = probed(room, SIM[0], SIM[2])
    assert result.success
    assert materialized(room) == {SIM[1], SIM[2]}, "neither who is fresh nor who is no part of the run"
    asked = {
        address: stats["requests"] - before[address]["requests"]
        for address, stats in localnet.stats().items()
    }
    assert asked == {"sim-01": 0, "sim-02": 2, "sim-03": 1, "sim-04": 0}
    own = seen(room, SIM[1])
    assert (own["attempts"], own["answered"], own["outcomes"]) == (2, 2, "truncated 2")
    assert own["board"] == f"https://board.example.org/supplier/{SIM[1]}"
    assert "short" in own["probes"] and "1k" in own["probes"]
    assert own["uptime"] == 1.0
    assert seen(room, SIM[2])["attempts"] == 1
    assert typed.count(documents, AttemptRecord) == 0, "probes are no attempts at docs"
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("probes_answered", True)
    # at once again: nothing is due
    assert probed(room, SIM[0], SIM[2]).success
    assert typed.count(documents, ServiceProbeRecord) == 6
    forced = probed(room, SIM[0], SIM[0], **{"testbench/force": "true"})
    assert forced.success
    assert typed.count(documents, ServiceProbeRecord) == 8


def test_the_check_names_the_worst_of_all_whoever_was_probed(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(5))
    documents, now = room.workspace.documents, datetime.now(UTC)
    for n, faults in enumerate(
        (
            [Fault.OK] * 8 + [Fault.TRANSPORT] * 2,  # a fifth is borne
            [Fault.OK] * 2 + [Fault.SUPPLIER_HTTP] * 2,
            [Fault.TRANSPORT] * 3,
            [Fault.OK] * 2 + [Fault.RATE_LIMITED] * 4,  # asked too often, which is no fault of its own
            [Fault.TRANSPORT] * 2,  # too few to say anything
        )
    ):
        for minutes, fault in enumerate(faults):
            stored_probe(documents, f"s{n}@external", now - timedelta(minutes=minutes), fault=fault)
    for _ in range(9):
        stored_probe(documents, "s3@external", now - timedelta(hours=25), fault=Fault.TRANSPORT)
        stored_probe(documents, "left@external", now, fault=Fault.TRANSPORT)
    for key in [f"s{n}@external" for n in range(4)]:  # nothing is due: nobody is asked
        for workload in ("short", "1k"):
            stored_probe(documents, key, now + timedelta(seconds=1), workload)
    (check,) = probed(room, "s0@external", "s0@external").get_asset_check_evaluations()
    offenders = check.metadata["offenders"].value
    assert list(offenders) == ["s2@external", "s1@external"], "the worst first, of whatever run"
    assert offenders["s2@external"] == "3 of 5 probes failed: transport 3"
    assert offenders["s1@external"] == "2 of 6 probes failed: supplier_http 2"
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["suppliers_probed"].value == 5


def test_the_sensor_asks_for_one_run_over_all_that_is_due(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(30))
    documents, now = room.workspace.documents, datetime.now(UTC)
    keys = [f"s{i}@external" for i in range(30)]
    for key in (*keys[:3], *keys[5:20], *keys[25:]):
        for workload in ("short", "1k"):
            stored_probe(documents, key, now, workload)
    (request,) = room.tick("service_probes").run_requests or ()
    assert {name: request.tags[name] for name in range_tags("", "")} == range_tags(keys[3], keys[24])
    assert request.tags["dagster/priority"] == "-1", "what people start by hand goes first"
    assert request.run_key is not None and request.run_key.startswith("probes:")
    again = room.tick("service_probes").run_requests or ()
    assert [one.run_key for one in again] == [request.run_key], "asked again, it is the same request"


def test_the_sensor_waits_for_its_last_run(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(3))
    (request,) = room.tick("service_probes").run_requests or ()
    job = room.definitions.resolve_job_def("probe_service")

    def run(status: dg.DagsterRunStatus) -> dg.DagsterRun:
        tags = {**request.tags, KIND_TAG: PROBES}
        return room.instance.create_run_for_job(job, status=status, tags=tags)

    run(dg.DagsterRunStatus.STARTED)
    result = room.tick("service_probes")
    assert not result.run_requests
    assert "not done yet" in why(result)
    # those whom it may be about are evaluated all the same, but keep their partitions
    order = list(room.instance.get_dynamic_partitions("supplier"))
    assert suppliers_in_flight(room.instance, order) == set()
    assert suppliers_in_flight(room.instance, order, probed=True) == set(order)


def test_the_sensor_does_not_ask_for_the_same_in_vain_every_minute(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(3))
    (request,) = room.tick("service_probes").run_requests or ()
    job = room.definitions.resolve_job_def("probe_service")
    room.instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS, tags=dict(request.tags))
    result = room.tick("service_probes")
    assert not result.run_requests
    assert "ended less than 300 s ago" in why(result)
    # another one that falls due is another request
    stored_probe(room.workspace.documents, "s0@external", datetime.now(UTC), "short")
    assert room.tick("service_probes").run_requests


def test_who_is_evaluated_is_left_to_the_next_tick(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(1))
    documents = room.workspace.documents
    with (
        Heartbeat(documents, "an evaluation") as heartbeat,
        SupplierLeases(documents, heartbeat) as leases,
    ):
        leases.acquire(["s0@external"])
        assert why(room.tick("service_probes")) == "nothing is due"
    assert room.tick("service_probes").run_requests


@pytest.mark.parametrize("enabled", [False, True])
def test_the_sensor_runs_where_probes_are_on(open_room: Callable[..., Room], enabled: bool) -> None:
    room = open_room(nobody_there(1, service_probes={"enabled": enabled}))
    sensor = room.definitions.get_repository_def().get_sensor_def("service_probes")
    running = sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert running is enabled
    result = room.tick("service_probes")
    assert bool(result.run_requests) is enabled
    if not enabled:
        assert why(result) == "service_probes.enabled is false"


def test_the_sensor_can_be_switched_off_alone(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(1, automation={"service_probes": {"enabled": False, "every_s": 30}}))
    sensor = room.definitions.get_repository_def().get_sensor_def("service_probes")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.minimum_interval_seconds == 30


def test_the_columns_of_the_asset_are_those_of_its_collection(open_room: Callable[..., Room]) -> None:
    room = open_room(nobody_there(1))
    metadata = room.definitions.resolve_asset_graph().get(ASSET).metadata
    names = [column.name for column in metadata["dagster/column_schema"].schema.columns]
    assert names == [one.name for one in ServiceProbeRecord.fields]
    assert json.loads(json.dumps(names))[0] == "_id"
