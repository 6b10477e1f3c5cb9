"""Probes of a Pocket network's suppliers: by relays that are signed here, and through a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.localnet.personas import Persona, Speed
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.service.probe import probe_services
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.pocketnet import QUICK, SERVICE, Network, pocket_network

pytestmark = pytest.mark.slow

#: An answer of 30 tokens takes 0.3 s; miners pass on what has come about every 0.1 s.
SPEED = Speed(first_token_ms=30, tokens_per_s=100)


@contextmanager
def stage(folder: Path, net: Network, **service: Any) -> Iterator[Workspace]:
    settings = {
        "simulation": True,
        "services": {SERVICE: net.service(**service)},
        "tasks": [{"name": "starter_units", "samples": 2}],
        "service_probes": {"answer_tokens": 32},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace:
        refresh_roster(workspace)
        yield workspace


def probed(workspace: Workspace, net: Network) -> list[ServiceProbeRecord]:
    key = f"{net.operator('a')}@{SERVICE}"
    report = probe_services(workspace, [DueProbe(key, "short"), DueProbe(key, "1k")])
    assert (report.problems, report.held, report.put_off, report.done) == ({}, {}, {}, 2)
    return list(typed.find(workspace.documents, ServiceProbeRecord, sort=[("started_at", 1)]))


@pytest.mark.parametrize("flavour", ["ha", "classic"])
def test_signed_relays(tmp_path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pocket_network([Persona("a", QUICK, speed=SPEED)], flavours=[flavour], hosts=1) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of("app-simulation"))
        with stage(tmp_path, net) as workspace:
            found = probed(workspace, net)
    for one in found:
        assert (one.fault, one.streamed, one.tokens_source) == ("truncated", True, "usage")
        assert (one.completion_tokens, one.own_in_flight) == (32, 1)
        # a miner that waits for the end shows no speed
        assert (one.tokens_after_first is not None) is (flavour == "ha")
        assert one.evidence["session"]["id"] and one.evidence["request_hash"]
        assert "envelope" not in one.evidence, "nothing of the body is kept"


def test_through_a_gateway(tmp_path: Path) -> None:
    with pocket_network([Persona("a", QUICK, speed=SPEED)], hosts=1) as net:
        gateway = {"url": net.gateway_url, "app_address": net.app}
        with stage(
            tmp_path, net, transport="path", apps=None, gateway=gateway, discover="ready"
        ) as workspace:
            found = probed(workspace, net)
    for one in found:
        assert (one.fault, one.streamed, one.completion_tokens) == ("truncated", True, 32)
        assert one.tokens_after_first is None, "this gateway passes streams on in one piece"
        assert one.evidence["gateway"]["supplier"]


def test_a_gateway_that_asks_twice_is_no_measure(tmp_path: Path) -> None:
    with pocket_network([Persona("a", QUICK, speed=SPEED)], hosts=1) as net:
        gateway = {"url": net.gateway_url, "app_address": net.app}
        with stage(
            tmp_path, net, transport="path", apps=None, gateway=gateway, discover="ready"
        ) as workspace:
            net.post("gateway", retries=1)
            found = probed(workspace, net)
    assert [one.own_in_flight for one in found] == [2, 2]
