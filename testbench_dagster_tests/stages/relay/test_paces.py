"""Suppliers with a pace over the whole stage: what is sent, what stays due, what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.relays.report import LaneEnding, Progress
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.open_docs import open_docs
from testbench_dagster.stages.plan.paces import used_up
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.relay.probe import probe_suppliers
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.tasks.signatures.simulated import installed, prepared, served

TASK = {"name": "starter_units", "samples": 8}
BACKEND = Backend("b", 0.7, latency_ms=1)


def key(name: str) -> str:
    return f"{name}@simulation"


@contextmanager
def network(
    folder: Path, paces: dict[str, dict[str, Any]], *personas: Persona
) -> Iterator[tuple[Workspace, Localnet]]:
    limits: Any = {name: {"pace": pace} for name, pace in paces.items()}
    with served(personas) as net, installed(folder, net, [TASK], limits=limits) as workspace:
        prepared(workspace)
        yield workspace, net


def keys(workspace: Workspace) -> list[str]:
    return [supplier.key for supplier in active_suppliers(workspace)]


def test_a_day_holds_the_rest_up_and_leaves_nothing_open(tmp_path: Path) -> None:
    with network(
        tmp_path, {"free": {"requests_per_day": 5}}, Persona("free", BACKEND), Persona("paid", BACKEND)
    ) as (workspace, net):
        report = relay_due(workspace, keys(workspace))
        assert net.suppliers["free"].requests == 5 and net.suppliers["paid"].requests == 8
        assert report.left == {} and report.failed == {}
        assert report.relays.lanes[key("free")].end in (LaneEnding.DONE, LaneEnding.CAPPED)
        roster = active_suppliers(workspace)
        refresh_plans(workspace, roster)
        assert open_docs(workspace, keys(workspace), ["starter_units"]) == []
        now = datetime.now(UTC)
        assert [one.key for one in due_suppliers(workspace, now)] == []
        later = now + timedelta(hours=25)
        assert [one.key for one in due_suppliers(workspace, later)] == [key("free")]
        (told,) = used_up(workspace, roster, now)
        assert told.startswith(f"{key('free')} is asked at its pace of 5 requests a day, which is used up")
        # nothing is sent to it before
        assert relay_due(workspace, keys(workspace)).relays.total.sent == 0
        assert net.suppliers["free"].requests == 5


def test_probes_count_as_all_requests_do(tmp_path: Path) -> None:
    persona = Persona("free", BACKEND, api="completions")
    with network(tmp_path, {"free": {"requests_per_day": 2}}, persona) as (workspace, net):
        roster = active_suppliers(workspace)
        for _ in range(2):  # a question, the list of models, and more
            (found,) = asyncio.run(probe_suppliers(workspace, roster))
            assert found.ok and "not asked: its pace of 2 requests a day is used up until" in found.detail
        assert 1 <= net.suppliers["free"].requests <= 2
        before = net.suppliers["free"].requests
        assert relay_due(workspace, keys(workspace)).relays.total.sent == 0
        assert net.suppliers["free"].requests == before


@pytest.mark.slow
def test_a_free_tier_is_measured_slowly_and_never_says_429(tmp_path: Path) -> None:
    tier = (Withholding(("429",), "rate", after=5, for_s=5.0),)
    seen: list[Progress] = []
    free = Persona("free", BACKEND, withholds=tier)
    with network(tmp_path, {"free": {"requests_per_minute": 60}}, free) as (workspace, net):
        report = relay_due(workspace, keys(workspace), on_progress=seen.append)
        assert report.relays.total.faults == {Fault.OK: 8}
        assert net.suppliers["free"].stats()["failed"] == {}
    paces = {lane.words for progress in seen for lane in progress.paces}
    assert paces == {"60 requests a minute"}
    twin = tmp_path / "twin"
    twin.mkdir()
    with network(twin, {}, free) as (workspace, net):
        relay_due(workspace, keys(workspace), max_relays=8)
        assert net.suppliers["free"].stats()["failed"]["429"] > 0
