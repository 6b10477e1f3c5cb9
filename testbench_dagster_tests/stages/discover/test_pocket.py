"""Suppliers, applications, sessions and keys of a Pocket service, from a simulated network on loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.core.bech32 import encode
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import (
    RosterReport,
    active_apis,
    active_suppliers,
    known_suppliers,
    no_suppliers_text,
    refresh_roster,
)
from testbench_dagster.stages.discover.sessions import record_chain
from testbench_dagster.stages.preconditions import require_keys
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import HEIGHTS, SESSIONS, SUPPLIERS
from testbench_dagster.transports.pocket.access import chain_client, read_chain, service_keys
from testbench_dagster.transports.pocket.chain import ChainError
from testbench_dagster.transports.pocket.chain.client import ChainClient
from testbench_dagster.transports.pocket.chain.errors import BadAnswer
from testbench_dagster.transports.registry import check_service, supplier_endpoint
from testbench_dagster_tests.pocketnet import APP, SERVICE, Network, people, pocket_network
from testbench_dagster_tests.rosters import Opener

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOURCE = f"service:{SERVICE}"
#: Tests of what is done with the chain's answers, not with the store.
on_sqlite = pytest.mark.parametrize("open_installation", ["sqlite"], indirect=True)
NOBODY = encode("pokt", bytes(20))


def refresh_sessions(workspace: Workspace, service: str, *, fresh: bool = False) -> list[Any]:
    """Read the current sessions of a service's applications and record them, as a run does."""
    reading = read_chain(workspace.config, service, fresh=fresh)
    record_chain(workspace, reading)
    return list(reading.sessions)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Four suppliers on two hosts, all in every session."""
    with pocket_network(people("a", "b", "c", "d")) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        yield net


@pytest.fixture
def open_service(open_workspace: Opener) -> Callable[..., Workspace]:
    def build(net: Network, **changes: Any) -> Workspace:
        return open_workspace(services={SERVICE: net.service(**changes)})

    return build


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def key(net: Network, name: str) -> str:
    return f"{net.operator(name)}@{SERVICE}"


def happened(net: Network, report: RosterReport) -> dict[str, str]:
    """What happened to whom, by the names of the simulation."""
    names = {key(net, name): name for name in "abcdefgh"}
    events = ("joined", "left", "changed", "returned")
    found = {event: "".join(sorted(names[k] for k in getattr(report, event))) for event in events}
    return {event: who for event, who in found.items() if who}


def documents(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {d["_id"]: d for d in workspace.documents.find(SUPPLIERS)}


# ------------------------------------------------------------------------------------------ the roster


def test_suppliers_of_the_session_join_with_what_the_chain_tells(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network, api="completions", max_relays_per_session=9)
    report = refresh_roster(workspace, T0)
    assert (report.problems, report.warnings) == ({}, {})
    assert happened(network, report) == {"joined": "abcd"} and len(report.active) == 4
    assert report.heights == {SERVICE: 1001}
    suppliers = {s.key: s for s in active_suppliers(workspace)}
    one = suppliers[key(network, "a")]
    staked = next(s for s in network.describe()["suppliers"] if s["name"] == "a")
    assert (one.address, one.service, one.source) == (network.operator("a"), SERVICE, SOURCE)
    assert (one.transport, one.rpc_type, one.stake_upokt) == ("shannon", 4, staked["stake_upokt"])
    assert one.owner is not None and one.owner.startswith("pokt") and one.owner != one.address
    assert (one.base_url, one.model) == (staked["endpoints"][0]["url"], "simulated")
    assert (one.api, one.trusted, one.api_key_env) == ("completions", True, None)
    assert active_apis(workspace) == {"completions"}
    hosts = {s.host for s in suppliers.values()}
    assert hosts == {url.removeprefix("http://") for url in network.hosts} and len(hosts) == 2
    event = documents(workspace)[one.key]["history"][0]
    assert (event["event"], event["height"], event["rpc_type"]) == ("joined", 1001, 4)
    assert documents(workspace)[one.key]["public_key"] == network.public_key("a").hex()
    again = refresh_roster(workspace, at(1))
    assert happened(network, again) == {} and not again.anything_new


def test_sessions_and_height_are_noted(network: Network, open_service: Callable[..., Workspace]) -> None:
    workspace = open_service(network)
    refresh_roster(workspace, T0)
    (session,) = workspace.documents.find(SESSIONS)
    assert session["_id"] == f"{SERVICE}/{network.app}"
    assert (session["service"], session["app"]) == (SERVICE, network.app)
    assert (session["start_height"], session["end_height"], session["height"]) == (1001, 1010, 1001)
    assert sorted(session["suppliers"]) == sorted(network.operator(n) for n in "abcd")
    assert session["at"] == T0 and len(session["session_id"]) == 64
    (height,) = workspace.documents.find(HEIGHTS)
    assert height == {"_id": SERVICE, "height": 1001, "at": T0, "blocks_per_session": 10}
    network.post("params", num_blocks_per_session=4)
    network.post("roll")
    refresh_roster(workspace, at(1))
    (later,) = workspace.documents.find(SESSIONS)
    assert (later["start_height"], later["end_height"], later["height"]) == (1011, 1014, 1011)
    assert later["session_id"] != session["session_id"]
    (height,) = workspace.documents.find(HEIGHTS)
    assert height == {"_id": SERVICE, "height": 1011, "at": at(1), "blocks_per_session": 4}


def test_who_is_in_no_session_now_has_not_left_until_it_unstakes(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocket_network(people(*"abcde"), suppliers_per_session=2) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        workspace = open_service(net)
        joined = 0
        for minute in range(30):
            report = refresh_roster(workspace, at(minute))
            joined += len(report.joined)
            assert set(happened(net, report)) <= {"joined"}, "a session that rolled is no leaving"
            assert len(report.active) == joined
            (session,) = workspace.documents.find(SESSIONS)
            assert len(session["suppliers"]) == 2
            if joined == 5:
                break
            net.post("roll")
        assert joined == 5 and minute > 1
        net.post("leave", supplier="c")
        assert happened(net, refresh_roster(workspace, at(40))) == {}, "it serves to the end of the session"
        left = []
        for minute in range(41, 46):
            net.post("roll")
            left.append(happened(net, refresh_roster(workspace, at(minute))))
        assert [event for event in left if event] == [{"left": "c"}]
        net.post("return", supplier="c")
        events: dict[str, str] = {}
        for minute in range(50, 80):
            net.post("roll")
            events |= happened(net, refresh_roster(workspace, at(minute)))
            if events:
                break
        assert events == {"returned": "c"}


@on_sqlite
def test_all_who_staked_are_known_at_once_if_so_wanted(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocket_network(people(*"abcdefg"), suppliers_per_session=2, page_cap=1) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        workspace = open_service(net, discover="staked")
        assert happened(net, refresh_roster(workspace, T0)) == {"joined": "abcdefg"}
        (session,) = workspace.documents.find(SESSIONS)
        assert len(session["suppliers"]) == 2
        net.post("leave", supplier="b")
        net.post("roll")
        net.post("roll")
        assert happened(net, refresh_roster(workspace, at(1))) == {"left": "b"}


@on_sqlite
def test_only_restricts_and_tells_of_who_is_not_staked(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    only = [network.operator("b"), NOBODY]
    workspace = open_service(network, only=only)
    report = refresh_roster(workspace, T0)
    assert happened(network, report) == {"joined": "b"}
    assert list(report.warnings) == [f"{NOBODY}@{SERVICE}"]
    assert f"only names {NOBODY}, which is not staked" in report.warnings[f"{NOBODY}@{SERVICE}"]


@on_sqlite
def test_a_node_that_cannot_be_read_retires_nobody(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    refresh_roster(workspace, T0)
    faults: list[dict[str, Any]] = [{"status": 503}, {"down": True}, {"truncate": True}, {"garbage": True}]
    for minute, fault in enumerate(faults):
        network.post("roll")
        network.post("node", **fault)
        report = refresh_roster(workspace, at(minute + 1))
        assert happened(network, report) == {} and len(report.active) == 4, fault
        assert list(report.problems) == [SOURCE]
        assert "the chain cannot be read" in report.problems[SOURCE]
        assert "its suppliers stay as they were" in report.problems[SOURCE]
    network.post("node")
    chain_client(workspace.config, SERVICE)  # the same one, which leaves a failed node alone for a while
    other = open_service(network, nodes={"rest": network.node_urls, "poll_s": 0.002})
    report = refresh_roster(other, at(9))
    assert (report.problems, len(report.active)) == ({}, 4)


def test_a_restake_elsewhere_is_a_change_another_stake_is_none(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    refresh_roster(workspace, T0)
    network.post("restake", supplier="a", stake_pokt=123_456)
    network.post("roll")
    assert happened(network, refresh_roster(workspace, at(1))) == {}
    one = next(s for s in active_suppliers(workspace) if s.key == key(network, "a"))
    assert one.stake_upokt == 123_456_000_000
    assert [e["event"] for e in documents(workspace)[one.key]["history"]] == ["joined"]
    network.post("url", supplier="a", url="http://127.0.0.2:81/x/", rpc_type="json_rpc")
    network.post("roll")
    assert happened(network, refresh_roster(workspace, at(2))) == {"changed": "a"}
    moved = next(s for s in active_suppliers(workspace) if s.key == key(network, "a"))
    assert (moved.base_url, moved.rpc_type, moved.host) == ("http://127.0.0.2:81/x", 3, "127.0.0.2:81")
    assert documents(workspace)[one.key]["history"][-1]["changed"] == ["base_url", "rpc_type"]
    assert moved.cut_at is None
    other = open_service(network, model="another")
    assert happened(network, refresh_roster(other, at(3))) == {"changed": "abcd"}
    assert {s.cut_at for s in active_suppliers(other)} == {at(3)}


@on_sqlite
def test_an_endpoint_of_the_wanted_type_is_taken_before_others(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    for rpc_type in ("json_rpc", "comet_bft", "websocket"):
        url = f"http://127.0.0.3/{rpc_type}"
        network.post("url", supplier="a", url=url, rpc_type=rpc_type, extra=True, now=True)
    network.post("url", supplier="b", url="http://127.0.0.3/any", rpc_type="websocket", now=True)

    def chosen(order: list[str]) -> dict[str, tuple[str, int | None]]:
        workspace = open_service(network, rpc_types=order)
        refresh_roster(workspace)
        return {s.address: (s.base_url, s.rpc_type) for s in active_suppliers(workspace)}

    a, b = network.operator("a"), network.operator("b")
    assert chosen(["rest", "json_rpc"])[a][1] == 4
    assert chosen(["comet_bft"])[a] == ("http://127.0.0.3/comet_bft", 5)
    last = chosen(["json_rpc", "rest"])
    assert last[a] == ("http://127.0.0.3/json_rpc", 3)
    assert last[b] == ("http://127.0.0.3/any", 2), "any http(s) URL, with the type it was staked with"


@on_sqlite
def test_endpoints_in_private_networks_are_refused_unless_allowed(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    strict = open_service(network, allow_private_networks=False)
    report = refresh_roster(strict, T0)
    assert report.active == []
    assert set(report.problems) == {key(network, n) for n in "abcd"}
    assert "private or otherwise reserved" in report.problems[key(network, "a")]
    assert "allow_private_networks" in report.problems[key(network, "a")]
    text = no_suppliers_text(strict)
    assert "services list none that can be used" in text
    network.post("url", supplier="a", url="https://miner.example", now=True)
    network.post("url", supplier="b", url="https://localhost:8443", now=True)
    network.post("url", supplier="c", url="https://me:hush@miner.example", now=True)
    network.post("url", supplier="d", url="grpc://miner.example:443", rpc_type="grpc", now=True)
    network.post("roll")
    report = refresh_roster(strict, at(1))
    assert happened(network, report) == {"joined": "a"}
    (supplier,) = active_suppliers(strict)
    assert (supplier.host, supplier.trusted) == ("miner.example:443", False)
    assert "this machine" in report.problems[key(network, "b")]
    assert "may not hold credentials" in report.problems[key(network, "c")]
    assert "hush" not in str(report.problems)
    assert "grpc: 'grpc://miner.example:443' is no http(s) URL" in report.problems[key(network, "d")]


@on_sqlite
def test_a_supplier_whose_endpoint_became_unusable_stays_as_it_was(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    refresh_roster(workspace, T0)
    before = documents(workspace)[key(network, "a")]
    network.post("url", supplier="a", url="wss://miner.example", rpc_type="websocket")
    network.post("roll")
    report = refresh_roster(workspace, at(1))
    assert happened(network, report) == {} and len(report.active) == 4
    assert list(report.problems) == [key(network, "a")]
    assert documents(workspace)[key(network, "a")]["base_url"] == before["base_url"]


def test_a_supplier_without_public_key_is_warned_of_until_it_has_one(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    network.post("account", address="c", hidden=True)
    workspace = open_service(network)
    report = refresh_roster(workspace, T0)
    assert list(report.warnings) == [key(network, "c")] and len(report.active) == 4
    assert "has no public key on the chain" in report.warnings[key(network, "c")]
    assert documents(workspace)[key(network, "c")].get("public_key") is None
    network.post("account", address="c", hidden=False)
    report = refresh_roster(workspace, at(1))
    assert report.warnings == {} and happened(network, report) == {}
    assert documents(workspace)[key(network, "c")]["public_key"] == network.public_key("c").hex()


@on_sqlite
def test_suppliers_of_a_service_that_is_no_longer_configured_leave(
    network: Network, open_service: Callable[..., Workspace], open_workspace: Opener
) -> None:
    refresh_roster(open_service(network), T0)
    without = open_workspace({"address": "own"})
    assert [s.key for s in active_suppliers(without)] == ["own@external"], "also before the refresh"
    assert active_apis(without) == {"chat"}
    gone = [s for s in known_suppliers(without) if s.source == SOURCE]
    assert {(s.status, s.trusted) for s in gone} == {("left", False)} and len(gone) == 4
    with pytest.raises(ConfigError, match=f"has no service '{SERVICE}' with it; configure it"):
        supplier_endpoint(without.config, gone[0])
    assert happened(network, refresh_roster(open_workspace(services={}), at(1))) == {"left": "abcd"}


# ---------------------------------------------------------------------------------------- applications


def app_problem(workspace: Workspace, net: Network, address: str | None = None) -> str:
    """The only problem of a refresh, which is of the application."""
    report = refresh_roster(workspace)
    assert list(report.problems) == [f"{SOURCE}: app {address or net.app}"], report
    return report.problems[f"{SOURCE}: app {address or net.app}"]


@on_sqlite
def test_an_application_that_is_not_staked_is_a_problem_and_the_others_go_on(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    apps = [{"address": NOBODY, "key_env": "TB_OTHER"}, {"address": network.app, "key_env": "TB_APP_KEY"}]
    workspace = open_service(network, apps=apps)
    assert "is not staked; stake it for simulation, or correct the address" in app_problem(
        workspace, network, NOBODY
    )
    assert len(active_suppliers(workspace)) == 4
    assert [s["app"] for s in workspace.documents.find(SESSIONS)] == [network.app]


@on_sqlite
def test_an_application_of_another_service_is_a_problem(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    other = network.address(f"{APP}-completions")
    workspace = open_service(network, apps=[{"address": other, "key_env": "TB_APP_KEY"}])
    assert "is staked for simulation-completions, not for simulation" in app_problem(
        workspace, network, other
    )
    assert active_suppliers(workspace) == []


@on_sqlite
def test_an_application_that_unstakes_is_warned_of_and_then_a_problem(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    network.post("unstake_app", app=APP)
    report = refresh_roster(workspace)
    assert "unstakes at block 1010" in report.warnings[f"{SOURCE}: app {network.app}"]
    assert len(report.active) == 4
    network.post("roll")
    assert "name another application" in app_problem(workspace, network)
    assert len(active_suppliers(workspace)) == 4, "they did not leave with it"


@on_sqlite
def test_a_service_nobody_staked_for_is_told(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocket_network([]) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        workspace = open_service(net)
        assert "nobody is staked for simulation" in app_problem(workspace, net)
        told = [f for f in check_service(workspace.config, SERVICE) if not f.ok]
        assert "0 suppliers staked" in told[0].detail


@on_sqlite
def test_an_application_without_delegation_has_a_ring_anyone_can_sign_with(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocket_network(people("a"), delegated=False) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        workspace = open_service(net)
        report = refresh_roster(workspace)
        (warning,) = report.warnings.values()
        assert "placeholder whose private key anyone can derive" in warning
        assert "delegate it to a gateway of your own" in warning
        assert (report.problems, len(report.active)) == ({}, 1)
        net.post("delegate", app=APP)
        net.post("roll")
        assert refresh_roster(workspace).warnings == {}


@on_sqlite
def test_the_gateway_that_signs_must_have_been_delegated_to(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    def using(gateway: str) -> Workspace:
        app = {"address": network.app, "gateway": gateway, "key_env": "TB_GATEWAY_KEY"}
        return open_service(network, apps=[app])

    assert refresh_roster(using(network.gateway)).problems == {}
    assert f"does not delegate to {NOBODY}" in app_problem(using(NOBODY), network)
    network.post("undelegate", app=APP)
    network.post("roll")
    assert f"does not delegate to {network.gateway}" in app_problem(using(network.gateway), network)


@on_sqlite
def test_a_gateway_without_public_key_is_left_out_of_the_ring_and_told(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    network.post("account", address="gateway", hidden=True)
    report = refresh_roster(open_service(network))
    assert report.problems == {}
    (text,) = report.warnings.values()
    assert f"delegates to {network.gateway}, which has no public key" in text and "left out" in text
    network.post("roll")
    assert refresh_roster(open_service(network, ring="self")).warnings == {}


@on_sqlite
@pytest.mark.parametrize(
    ("stake_pokt", "said"),
    [(0, "each supplier grants no relay"), (1, "each supplier grants 34 relays per session")],
)
def test_a_low_stake_is_told(
    network: Network, open_service: Callable[..., Workspace], stake_pokt: int, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("testbench_dagster.transports.pocket.applications.FEW_RELAYS", 35)
    network.post("app", name=APP, stake_pokt=stake_pokt)
    report = refresh_roster(open_service(network))
    told = report.problems if stake_pokt == 0 else report.warnings
    assert said in told[f"{SOURCE}: app {network.app}"] and "raise" in told[f"{SOURCE}: app {network.app}"]


# -------------------------------------------------------------------------------------------- sessions


@on_sqlite
def test_a_network_that_began_anew_is_no_older_reading(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    refresh_roster(workspace, T0)
    (session,) = workspace.documents.find(SESSIONS)
    later = {**session, "session_id": "before", "start_height": 5001, "end_height": 5010}
    for height, minutes, started_anew in ((1021, 9, False), (5003, 1, False), (5003, 9, True)):
        workspace.documents.upsert(SESSIONS, [later])
        workspace.documents.upsert(HEIGHTS, [{"_id": SERVICE, "height": height, "at": at(-minutes)}])
        report = refresh_roster(workspace, T0)
        assert report.heights == {SERVICE: 1001 if started_anew else height}
        (row,) = workspace.documents.find(SESSIONS)
        assert row["start_height"] == (1001 if started_anew else 5001)


@on_sqlite
def test_sessions_are_read_again_only_when_they_ended_or_so_wanted(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    (session,) = refresh_sessions(workspace, SERVICE)
    assert (session.header.application, session.header.end_height) == (network.app, 1010)
    network.post("advance", blocks=3)
    (same,) = refresh_sessions(workspace, SERVICE)
    assert same is session
    (row,) = workspace.documents.find(SESSIONS)
    assert (row["height"], row["session_id"]) == (1004, session.header.session_id)
    (fresh,) = refresh_sessions(workspace, SERVICE, fresh=True)
    assert fresh == session and fresh is not session
    network.post("roll")
    (later,) = refresh_sessions(workspace, SERVICE)
    assert later.header.start_height == 1011
    assert [row["session_id"] for row in workspace.documents.find(SESSIONS)] == [later.header.session_id]


def test_an_older_session_does_not_replace_a_later_one(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    refresh_sessions(workspace, SERVICE)
    (row,) = workspace.documents.find(SESSIONS)
    later = {**row, "session_id": "later", "start_height": 1011, "end_height": 1020, "height": 1012}
    workspace.documents.upsert(SESSIONS, [later])
    refresh_sessions(workspace, SERVICE)
    assert list(workspace.documents.find(SESSIONS)) == [later]


def test_sessions_of_applications_that_are_no_longer_configured_go(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    second = network.post("app", name="second")["address"]
    apps = [{"address": a, "key_env": "TB_APP_KEY"} for a in (network.app, second)]
    both = open_service(network, apps=apps)
    assert len(refresh_sessions(both, SERVICE)) == 2
    assert {row["app"] for row in both.documents.find(SESSIONS)} == {network.app, second}
    one = open_service(network)
    refresh_roster(one)
    assert [row["app"] for row in one.documents.find(SESSIONS)] == [network.app]


@on_sqlite
def test_without_a_node_sessions_cannot_be_read(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    workspace = open_service(network)
    network.post("node", down=True)
    with pytest.raises(ChainError, match="no node tells"):
        refresh_sessions(workspace, SERVICE)
    with pytest.raises(ConfigError, match="service 'other' is not configured"):
        refresh_sessions(workspace, "other")
    assert chain_client(workspace.config, SERVICE) is chain_client(open_service(network).config, SERVICE)


# ------------------------------------------------------------------------------------------------ keys


@on_sqlite
def test_keys_come_from_the_environment_or_from_files(
    network: Network, open_service: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = network.post("app", name="second")["address"]
    (tmp_path / "keys").mkdir()
    file = tmp_path / "keys" / "gateway"
    file.write_text(network.key_of("gateway") + "\n", encoding="utf-8")
    file.chmod(0o600)
    apps = [
        {"address": network.app, "key_env": "TB_APP_KEY"},
        {"address": second, "gateway": network.gateway, "key_file": "keys/gateway"},
    ]
    keys = service_keys(open_service(network, apps=apps).config, SERVICE)
    assert {a: (k.address, g) for a, (k, g) in keys.items()} == {
        network.app: (network.app, None),
        second: (network.gateway, network.gateway),
    }
    assert network.key_of(APP) not in repr(keys)


@on_sqlite
def test_a_key_that_cannot_be_used_is_told_without_showing_it(
    network: Network, open_service: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    secret, foreign = network.key_of(APP), network.key_of("gateway")

    def problem(**app: str) -> str:
        config = open_service(network, apps=[{"address": network.app, **app}]).config
        with pytest.raises(ConfigError) as caught:
            service_keys(config, SERVICE)
        text = str(caught.value)
        assert f"services.{SERVICE}.apps: {network.app}: " in text
        assert secret not in text and foreign not in text and secret[:8] not in text
        return text

    monkeypatch.delenv("TB_APP_KEY")
    assert "TB_APP_KEY is not set" in problem(key_env="TB_APP_KEY")
    for nonsense in (secret[:-1], f"{secret}00", "g" * 64, "0" * 64):
        monkeypatch.setenv("TB_APP_KEY", nonsense)
        assert "TB_APP_KEY" in problem(key_env="TB_APP_KEY")
    monkeypatch.setenv("TB_APP_KEY", foreign)
    text = problem(key_env="TB_APP_KEY")
    assert f"key_env TB_APP_KEY holds the key of {network.gateway}" in text
    assert f"not of the application {network.app}; name the right key or correct the address" in text
    monkeypatch.setenv("TB_APP_KEY", secret)
    assert f"not of the gateway {network.gateway}" in problem(key_env="TB_APP_KEY", gateway=network.gateway)
    assert "cannot be read" in problem(key_file="key")
    file.write_text(secret, encoding="utf-8")
    file.chmod(0o640)
    assert "chmod 600" in problem(key_file="key")


@on_sqlite
def test_a_run_does_not_begin_without_a_key(
    network: Network, open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_service(network)
    refresh_roster(workspace)
    suppliers = active_suppliers(workspace)
    assert require_keys(workspace.config, suppliers) == []
    monkeypatch.delenv("TB_APP_KEY")
    with pytest.raises(ConfigError, match=r"TB_APP_KEY is not set.*and 3 more suppliers likewise"):
        require_keys(workspace.config, suppliers)
    (problem,) = require_keys(
        workspace.config, [*suppliers, Supplier("x", "external", "http://x", "chat", "m")]
    )
    assert problem.count("TB_APP_KEY") == 1, "once for all of the service"


# ------------------------------------------------------------------------------------------- endpoints


@on_sqlite
def test_endpoints_of_native_relays(network: Network, open_service: Callable[..., Workspace]) -> None:
    workspace = open_service(
        network, stream=True, prefix="/openai/v1", relays={"total_s": 9, "max_per_host": 3}
    )
    refresh_roster(workspace)
    supplier = next(s for s in active_suppliers(workspace) if s.address == network.operator("a"))
    target = supplier_endpoint(workspace.config, supplier)
    assert (target.supplier, target.service, target.transport) == (supplier.key, SERVICE, "shannon")
    assert (target.address, target.rpc_type, target.host) == (network.operator("a"), 4, supplier.host)
    assert target.base_url in network.hosts
    assert (target.prefix, target.stream, target.private_allowed) == ("/openai/v1", True, True)
    assert (target.headers, target.model, target.api) == ({}, "simulated", "chat")
    assert (target.limits.total_s, target.limits.max_per_host, target.limits.retries) == (9, 3, 5)


@on_sqlite
def test_endpoints_through_a_gateway(
    network: Network, open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = {"url": network.gateway_url, "token_env": "TB_TOKEN", "app_address": network.app}
    block = {"transport": "path", "apps": None, "gateway": {**gateway, "rpc_type": "json_rpc"}}
    # private staked URLs do not matter: nothing is sent there
    workspace = open_service(network, **block, allow_private_networks=False)
    assert happened(network, refresh_roster(workspace)) == {"joined": "abcd"}
    assert [s["app"] for s in workspace.documents.find(SESSIONS)] == [network.app]
    supplier = next(s for s in active_suppliers(workspace) if s.address == network.operator("a"))
    assert (supplier.transport, supplier.rpc_type) == ("path", 4)
    assert supplier.host in {url.removeprefix("http://") for url in network.hosts}
    monkeypatch.delenv("TB_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"gateway.token_env names TB_TOKEN, which is not set; export it"):
        supplier_endpoint(workspace.config, supplier)
    monkeypatch.setenv("TB_TOKEN", "tok-secret")
    target = supplier_endpoint(workspace.config, supplier)
    assert (target.transport, target.base_url, target.prefix) == ("path", network.gateway_url, "/v1")
    assert (target.address, target.rpc_type, target.stream) == (network.operator("a"), 3, False)
    assert target.headers == {"Authorization": "Bearer tok-secret", "App-Address": network.app}
    assert target.private_allowed and f"http://{target.host}" == network.url
    assert "tok-secret" not in repr(target)


@on_sqlite
def test_without_nodes_a_gateway_tells_whom_it_reaches(
    network: Network, open_service: Callable[..., Workspace]
) -> None:
    block = {"transport": "path", "apps": None, "nodes": None, "gateway": {"url": network.gateway_url}}
    workspace = open_service(network, **block)
    report = refresh_roster(workspace, T0)
    assert (happened(network, report), report.problems, report.heights) == ({"joined": "abcd"}, {}, {})
    supplier = active_suppliers(workspace)[0]
    assert (supplier.transport, supplier.stake_upokt) == ("path", None)
    target = supplier_endpoint(workspace.config, supplier)
    assert (target.base_url, target.rpc_type) == (network.gateway_url, None)
    network.post("gateway", delegated=True)
    report = refresh_roster(workspace, at(1))
    assert happened(network, report) == {} and len(report.active) == 4
    assert list(report.problems) == [SOURCE] and "stay as they were" in report.problems[SOURCE]


# ----------------------------------------------------------------------------------------------- check


def found(workspace: Workspace, *, ok: bool | None = None) -> list[Finding]:
    findings = list(check_service(workspace.config, SERVICE))
    secrets = [value for name, value in os.environ.items() if name.startswith("TB_")]
    assert not any(secret in finding.detail for finding in findings for secret in secrets)
    return [finding for finding in findings if ok is None or finding.ok == ok]


@on_sqlite
def test_check_tells_what_relays_rest_on(network: Network, open_service: Callable[..., Workspace]) -> None:
    findings = found(open_service(network))
    assert all(finding.ok for finding in findings)
    node, chain, app, held = findings
    assert (node.what, node.detail) == (
        f"service {SERVICE}, node {network.url}",
        "answers (REST), at block 1001",
    )
    assert chain.detail == ("block 1001, 10 blocks per session; 4 suppliers staked, 50 per session at most")
    assert app.what == f"service {SERVICE}, app {network.app}"
    assert "stake 100,000,000,000 uPOKT" in app.detail
    assert f"delegates to {network.gateway}" in app.detail
    assert "session of blocks 1001 to 1010 (10 left) with 4 suppliers" in app.detail
    # 100,000 POKT / 50 suppliers / 4 sessions, at 1000 units of 0.14599 uPOKT
    assert f"up to {500_000_000 // 145.99:,.0f} relays per supplier and session by stake" in app.detail
    assert held.detail == "key_env TB_APP_KEY holds it; ring full"
    capped = found(open_service(network, max_relays_per_session=12))
    assert "up to 12 relays per supplier and session by max_relays_per_session, 48 in all" in capped[2].detail


@on_sqlite
def test_check_tells_of_lagging_and_dead_nodes(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocket_network(people("a"), nodes=3) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        net.post("advance", blocks=9)
        net.post("node", node=1, lag_blocks=8)
        net.post("node", node=2, catching_up=True)
        nodes = {"rest": [*net.node_urls, "http://127.0.0.1:9"], "poll_s": 0.001}
        first, lagging, behind, dead, *_ = found(open_service(net, nodes=nodes))
        assert (first.ok, first.detail) == (True, "answers (REST), at block 1010")
        for finding, said in ((lagging, "lags"), (behind, "catching up"), (dead, "reach")):
            assert (finding.ok, finding.warning) == (False, True), "another node answers"
            assert said in finding.detail, finding
        alone = open_service(net, nodes={"rest": ["http://127.0.0.1:9"]})
        told = found(alone, ok=False)
        assert [f.warning for f in told] == [False, False]
        assert "no node tells" in told[1].detail


@on_sqlite
def test_check_tells_problems_of_applications_keys_and_gateways(
    network: Network, open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    network.post("undelegate", app=APP)
    network.post("roll")
    monkeypatch.setenv("TB_APP_KEY", network.key_of("gateway"))
    warned, key_told = found(open_service(network), ok=False)
    assert warned.warning and "placeholder" in warned.detail
    assert not key_told.warning and f"not of the application {network.app}" in key_told.detail
    apps = [{"address": NOBODY, "key_env": "TB_APP_KEY"}]
    told = found(open_service(network, apps=apps), ok=False)
    assert [f.what for f in told] == [
        f"service {SERVICE}, app {NOBODY}",
        f"service {SERVICE}, key of {NOBODY}",
    ]
    assert "is not staked" in told[0].detail
    path = {"transport": "path", "apps": None, "nodes": None, "gateway": {"url": network.gateway_url}}
    reachable = found(open_service(network, **path), ok=True)
    assert "it calls 4 suppliers ready" in reachable[0].detail
    dead = {**path, "gateway": {"url": "http://127.0.0.1:9/v1"}}
    (unreachable,) = found(open_service(network, **dead))
    assert not unreachable.ok and "is not reachable" in unreachable.detail


@pytest.mark.slow
@on_sqlite
def test_the_command_check_prints_all_of_it(
    network: Network, open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(workspace: Workspace) -> tuple[int, str]:
        arguments = ["-c", str(workspace.config.path), "check", "--no-suppliers"]
        done = CliRunner().invoke(cli, arguments)
        assert os.environ["TB_APP_KEY"] not in done.output
        return done.exit_code, done.output

    code, output = check(open_service(network))
    assert code == 0, output
    assert f"ok    service {SERVICE}, node {network.url}: answers (REST), at block 1001\n" in output
    assert f"ok    service {SERVICE}, key of {network.app}: key_env TB_APP_KEY holds it" in output
    network.post("undelegate", app=APP)
    network.post("roll")
    code, output = check(open_service(network))
    assert code == 0, "a warning is no failure"
    assert f"warn  service {SERVICE}, app {network.app}: delegates to no gateway" in output
    monkeypatch.setenv("TB_APP_KEY", network.key_of("gateway"))
    code, output = check(open_service(network))
    assert code == 1
    assert f"FAIL  service {SERVICE}, key of {network.app}:" in output


# ------------------------------------------------------------------------- what fails alone, fails alone


def refuses(client: ChainClient, monkeypatch: pytest.MonkeyPatch, name: str, wait_s: float = 0.0) -> None:
    """Have a call of a client fail, or first take its time."""

    def call(*arguments: Any, **options: Any) -> Any:
        time.sleep(wait_s)
        raise BadAnswer(f"{name} is broken")

    monkeypatch.setattr(client, name, call)


@on_sqlite
@pytest.mark.parametrize("discover", ["sessions", "staked"])
@pytest.mark.parametrize("wait_s", [0.0, 2.0])
def test_without_the_list_of_who_staked_sessions_go_on(
    open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, discover: str, wait_s: float
) -> None:
    """Public nodes may not list thousands in time. Who is in a session is known all the same."""
    with pocket_network(people(*"abcde"), suppliers_per_session=2) as net:
        monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
        workspace = open_service(net, discover=discover)
        refresh_roster(workspace)
        before = {s.address for s in active_suppliers(workspace)}
        refuses(chain_client(workspace.config, SERVICE), monkeypatch, "suppliers", wait_s)
        for _ in range(40):
            net.post("roll")
            report = refresh_roster(workspace, deadline_s=3.5)
            (session,) = workspace.documents.find(SESSIONS)
            if discover == "staked" or not before.issuperset(session["suppliers"]):
                break
        else:
            pytest.fail("nobody new came into a session")
        assert session["start_height"] == net.describe()["session"]["start"]
        assert report.left == []
        assert {s.address for s in active_suppliers(workspace)} == before | set(session["suppliers"])
        assert list(report.problems) == [f"{SOURCE}: staked suppliers"]
        assert "those in no session stay as they were" in report.problems[f"{SOURCE}: staked suppliers"]


@on_sqlite
def test_an_application_that_cannot_be_read_leaves_the_others_alone(
    network: Network, open_service: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = network.post("app", name="second")
    network.post("roll")
    apps = [
        {"address": second["address"], "key_env": "TB_APP_KEY"},
        {"address": network.app, "key_env": "TB_APP_KEY"},
    ]
    workspace = open_service(network, apps=apps)
    client = chain_client(workspace.config, SERVICE)
    session, application = client.session, client.application

    def fails(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(address: str, *arguments: Any, **options: Any) -> Any:
            if address == second["address"]:
                raise BadAnswer("its answer is broken")
            return call(address, *arguments, **options)

        return wrapped

    monkeypatch.setattr(client, "session", fails(session))
    report = refresh_roster(workspace)
    assert len(report.active) == 4
    told = report.problems[f"{SOURCE}: app {second['address']}"]
    assert told.endswith("cannot be read: its answer is broken")
    monkeypatch.setattr(client, "application", fails(application))
    network.post("roll")
    assert [s.header.application for s in refresh_sessions(workspace, SERVICE)] == [network.app]
    (noted,) = workspace.documents.find(SESSIONS)
    assert (noted["app"], noted["start_height"]) == (network.app, network.describe()["session"]["start"])
