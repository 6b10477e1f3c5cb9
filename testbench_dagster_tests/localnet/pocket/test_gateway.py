"""The simulated PATH gateway over the simulated network, asked by what asks real ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import web

from testbench_dagster.config import ServiceConfig
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Limits
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.pocket.gateway import GatewayFaults, GatewayServer
from testbench_dagster.localnet.pocket.network import MODEL, PocketNet
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.discovery import SourceError
from testbench_dagster.transports.path.gateways import ReadySource, check_gateway
from testbench_dagster.transports.path.transport import PathTransport
from testbench_dagster_tests.endpoints import FAST, relay

T = TypeVar("T")
SERVICE = "simulation"
QUICK = Backend("quick", latency_ms=0)
TOKEN = "sk-gateway-secret-1"
PEOPLE = (
    Persona("good", QUICK),
    Persona("twin", QUICK),
    Persona("broken", QUICK, failures={"500": 1.0}),
    Persona("busy", QUICK, failures={"429": 1.0}),
    Persona("rude", QUICK, failures={"reset": 1.0}),
    Persona("mute", QUICK, failures={"timeout": 1.0}),
    Persona("vague", QUICK, failures={"garbage": 1.0}),
)


def on_network(
    work: Callable[[PocketNet], Awaitable[T]], people: Sequence[Persona] = PEOPLE, **options: Any
) -> T:
    async def main() -> T:
        async with PocketNet(people, block_s=None, **options) as net:
            return await work(net)

    return asyncio.run(main())


def endpoint(net: PocketNet, name: str = "good", *, limits: Limits = FAST, **headers: str) -> Endpoint:
    return Endpoint(
        f"{name}@{SERVICE}",
        SERVICE,
        f"{net.url}/gateway/v1",
        "chat",
        MODEL,
        limits,
        headers,
        transport="path",
        address=net.operator(name),
        prefix="/v1",
    )


@asynccontextmanager
async def path() -> AsyncIterator[PathTransport]:
    transport = PathTransport()
    try:
        yield transport
    finally:
        await transport.close()


async def attempt(net: PocketNet, name: str = "good", n: int = 0, **options: Any) -> Attempt:
    async with path() as transport:
        return await transport.send(endpoint(net, name, **options), relay(n))


# ------------------------------------------------------------------------------------------------ relays


def test_answers_are_those_of_plain_http() -> None:
    async def work(net: PocketNet) -> None:
        direct = DirectTransport()
        plain = Endpoint("good@s", "s", f"{net.url}/good/v1", "chat", "simulated-quick", FAST)
        async with path() as transport:
            for n in range(5):
                through = await transport.send(endpoint(net), relay(n))
                straight = await direct.send(plain, relay(n))
                assert through.fault is straight.fault and through.fault.answered
                assert through.text and through.text == straight.text
        await direct.close()
        assert net.gateway.relayed == {net.operator("good"): 5}

    on_network(work)


def test_the_headers_tell_supplier_session_and_application() -> None:
    async def work(net: PocketNet) -> None:
        app = net.apps[f"app-{SERVICE}"].address
        told = (await attempt(net)).evidence["gateway"]
        session = net.chain.session(app, SERVICE, net.chain.height)
        good = net.operator("good")
        assert told == {
            "requested": good,
            "supplier": good,
            "suppliers_tried": [good],
            "retry_count": 0,
            "session_id": session.header.session_id,
            "app": app,
        }
        net.chain.clock.advance(10)
        assert (await attempt(net)).evidence["gateway"]["session_id"] != session.header.session_id

    on_network(work)


def test_one_v1_is_taken_off() -> None:
    async def work(net: PocketNet) -> None:
        headers = {"Target-Service-Id": SERVICE, "Target-Suppliers": net.operator("good")}
        ask = {"model": "simulated", "messages": [{"role": "user", "content": "hello"}]}
        async with httpx.AsyncClient(base_url=f"{net.url}/gateway", headers=headers) as client:
            assert (await client.post("/v1/v1/chat/completions", json=ask)).status_code == 200
            once = await client.post("/v1/chat/completions", json=ask)
            assert once.status_code == 404 and "/chat/completions is not served" in once.text
            assert "X-Supplier-Address" not in once.headers  # errors go without a name
            assert once.headers["X-Suppliers-Tried"] == net.operator("good")
            streamed = await client.post("/v1/v1/chat/completions", json={**ask, "stream": True})
            assert streamed.headers["X-Supplier-Address"] == net.operator("good")
            assert streamed.text.endswith("data: [DONE]\n\n") and "Content-Length" in streamed.headers
            page = await client.get("/v1/pokt/config")
            assert page.json()["simulation"] is True

    on_network(work)


@pytest.mark.parametrize(
    ("name", "fault", "status"),
    [
        ("broken", Fault.SUPPLIER_HTTP, 500),
        ("busy", Fault.RATE_LIMITED, 429),
        ("rude", Fault.GATEWAY, 200),  # PATH does not say that a connection broke
        ("vague", Fault.SUPPLIER_PROTOCOL, 200),
    ],
)
def test_suppliers_that_fail(name: str, fault: Fault, status: int) -> None:
    async def work(net: PocketNet) -> None:
        found = await attempt(net, name)
        assert (found.fault, found.status) == (fault, status)
        assert found.evidence["gateway"]["suppliers_tried"] == [net.operator(name)]

    on_network(work)


@pytest.mark.parametrize(("in_words", "fault"), [(False, Fault.GATEWAY), (True, Fault.SUPPLIER_TIMEOUT)])
def test_a_supplier_that_is_too_slow(in_words: bool, fault: Fault) -> None:
    async def work(net: PocketNet) -> None:
        net.gateway.faults = GatewayFaults(timeout_s=0.1, says_timeout=in_words)
        assert (await attempt(net, "mute")).fault is fault

    on_network(work)


@pytest.mark.parametrize(
    ("faults", "fault", "said"),
    [
        (GatewayFaults(other_supplier=True), Fault.GATEWAY, "answered by"),
        (GatewayFaults(nameless=True), Fault.GATEWAY, "does not say who answered"),
        (GatewayFaults(hedge="hedge_won"), Fault.GATEWAY, "answered by"),
        (GatewayFaults(hedge="primary_won"), Fault.GATEWAY, "too"),
        (GatewayFaults(status=502), Fault.GATEWAY, "HTTP 502"),
        (GatewayFaults(status=504), Fault.GATEWAY, "HTTP 504"),
        (GatewayFaults(status=429, retry_after_s=7), Fault.RATE_LIMITED, "HTTP 429"),
        (GatewayFaults(down=True), Fault.GATEWAY, "waiting"),
    ],
)
def test_gateways_that_misbehave(faults: GatewayFaults, fault: Fault, said: str) -> None:
    async def work(net: PocketNet) -> None:
        net.gateway.faults = faults
        found = await attempt(net)
        assert found.fault is fault and said in (found.error or "")
        assert found.text is None
        assert found.retry_after_s == faults.retry_after_s
        assert bool(found.evidence.get("hedged")) is (faults.hedge is not None)
        net.gateway.faults = GatewayFaults()
        assert (await attempt(net)).fault is Fault.OK

    on_network(work, PEOPLE[:2])


@pytest.mark.parametrize(
    ("faults", "hedged", "asked"),
    [
        (GatewayFaults(retries=2), True, 3),
        (GatewayFaults(hedge="primary_only"), False, 1),
        (GatewayFaults(hedge="no_hedge"), False, 1),
    ],
)
def test_what_leaves_no_doubt_is_scored(faults: GatewayFaults, hedged: bool, asked: int) -> None:
    async def work(net: PocketNet) -> None:
        net.gateway.faults = faults
        found = await attempt(net)
        assert found.fault is Fault.OK
        assert ("hedged" in found.evidence) is hedged
        assert net.gateway.relayed[net.operator("good")] == asked

    on_network(work)


def test_who_is_in_no_session_waits() -> None:
    async def work(net: PocketNet) -> None:
        app = net.apps[f"app-{SERVICE}"].address
        inside = net.chain.session(app, SERVICE, net.chain.height).suppliers[0].stake.operator
        faults = {p.address: (await attempt(net, p.address)).fault for p in PEOPLE[:2]}
        for name, fault in faults.items():
            assert (fault is Fault.OK) is (net.operator(name) == inside)
            assert fault in (Fault.OK, Fault.ROLLOVER)
        assert Fault.ROLLOVER in faults.values()

    on_network(work, suppliers_per_session=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Target-Service-Id": ""}, "no service ID"),
        ({"Target-Service-Id": "nonsense"}, "is not configured"),
        ({"RPC-Type": "comet_bft"}, "is not supported"),
    ],
)
def test_what_no_supplier_is_asked_for(changes: dict[str, str], said: str) -> None:
    async def work(net: PocketNet) -> None:
        headers = {"Target-Service-Id": SERVICE, **changes}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{net.url}/gateway/v1/v1/models", headers=headers, json={})
        assert answer.status_code == 400 and said in answer.text
        assert answer.headers["X-Suppliers-Tried"] == "" and answer.headers["X-Retry-Count"] == "0"
        assert not net.gateway.relayed

    on_network(work)


# ----------------------------------------------------------------------------------------------- modes


def test_delegated_mode_wants_the_application_and_quotes_secrets() -> None:
    async def work(net: PocketNet) -> None:
        net.gateway.delegated = True
        app = net.apps[f"app-{SERVICE}"].address
        secret = {"Authorization": f"Bearer {TOKEN}"}
        found = await attempt(net, **secret)
        assert found.fault is Fault.GATEWAY and "App-Address" in found.body.decode()
        assert b"[redacted]" in found.body and TOKEN not in repr(found)
        found = await attempt(net, **secret, **{"App-Address": app})
        assert found.fault is Fault.OK and found.evidence["gateway"]["app"] == app
        other = net.apps[f"app-{SERVICE}-completions"].address
        assert (await attempt(net, **{"App-Address": other})).fault is Fault.GATEWAY
        net.chain.undelegate(app, net.gateways["gateway"])
        found = await attempt(net, **{"App-Address": app})
        assert found.fault is Fault.GATEWAY and "does not have delegation" in (found.error or "")

    on_network(work)


def test_a_gateway_with_a_token_of_its_own() -> None:
    async def work(net: PocketNet) -> None:
        face = GatewayServer(net, token=TOKEN)
        runner = web.ServerRunner(web.Server(face.handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            async with path() as transport:
                for headers, fault in (
                    ({}, Fault.GATEWAY),
                    ({"Authorization": f"Bearer {TOKEN}x"}, Fault.GATEWAY),
                    ({"Authorization": f"Bearer {TOKEN}"}, Fault.OK),
                ):
                    plain = endpoint(net)
                    target = Endpoint(
                        plain.supplier,
                        SERVICE,
                        url,
                        "chat",
                        MODEL,
                        FAST,
                        headers,
                        address=plain.address,
                        prefix="/v1",
                    )
                    assert (await transport.send(target, relay())).fault is fault
        finally:
            await runner.cleanup()

    on_network(work)


# ----------------------------------------------------------------------------------------- listings


def service(net: PocketNet, **gateway: Any) -> ServiceConfig:
    return ServiceConfig(transport="path", model=MODEL, gateway={"url": f"{net.url}/gateway/v1", **gateway})


def test_ready_lists_who_is_in_the_session() -> None:
    async def work(net: PocketNet) -> None:
        app = net.apps[f"app-{SERVICE}"].address
        session = net.chain.session(app, SERVICE, net.chain.height)
        source = ReadySource(SERVICE, service(net))
        listing = await asyncio.to_thread(source.read, time.monotonic() + 5)
        assert {e.config.address for e in listing.entries} == {s.stake.operator for s in session.suppliers}
        assert len(listing.entries) == 3
        hosts = {e.host for e in listing.entries}
        assert hosts <= {miner.url.removeprefix("http://") for miner in net.miners}
        report = await asyncio.to_thread(check_gateway, SERVICE, service(net, rpc_type="rest"))
        assert (report.reachable, report.knows_service, report.suppliers) == (True, True, 3)
        assert (report.problems, report.warnings, report.retries) == ((), (), 0)
        net.gateway.faults = GatewayFaults(retries=3)
        report = await asyncio.to_thread(check_gateway, SERVICE, service(net))
        assert report.retries == 3 and "up to 3 times" in report.warnings[0]

    on_network(work, suppliers_per_session=3)


def test_ready_of_delegated_and_unknown() -> None:
    async def work(net: PocketNet) -> None:
        config = service(net)
        with pytest.raises(SourceError, match="ZERO owned apps"):
            await asyncio.to_thread(ReadySource("nonsense", config).read, time.monotonic() + 5)
        report = await asyncio.to_thread(check_gateway, "nonsense", config)
        assert report.knows_service is False and "not configured for nonsense" in report.problems[0]
        net.gateway.delegated = True
        with pytest.raises(SourceError, match="delegated mode list nobody"):
            await asyncio.to_thread(ReadySource(SERVICE, config).read, time.monotonic() + 5)
        report = await asyncio.to_thread(check_gateway, SERVICE, config)
        assert report.delegated is True and len(report.problems) == 2

    on_network(work)


# ------------------------------------------------------------------------------------------- control


def test_faults_are_switched_over_the_control_face() -> None:
    async def work(net: PocketNet) -> None:
        async with httpx.AsyncClient(base_url=net.url) as client:
            answer = await client.post("/_sim/gateway", json={"nameless": True, "delegated": False})
            assert answer.json()["faults"]["nameless"] is True
            assert (await attempt(net)).fault is Fault.GATEWAY
            answer = await client.post("/_sim/gateway", json={"retries": "many"})
            assert answer.status_code == 400 and "retries is 'many'" in answer.text
            await client.post("/_sim/gateway", json={})
            assert net.gateway.faults == GatewayFaults()
            assert (await client.get("/_sim/describe")).json()["gateway"]["relayed"]

    on_network(work)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": 200}, "status is 200"),
        ({"status": True}, "status is True"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": None}, "retries is None"),
        ({"retry_after_s": 1.5}, "retry_after_s is 1.5"),
        ({"nameless": 1}, "nameless is 1"),
        ({"hedge": "won"}, "hedge is 'won'"),
        ({"hedge": ["primary_won"]}, "hedge is "),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
    ],
)
def test_faults_that_make_no_sense(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GatewayFaults(**wrong)


def test_nothing_else_is_there() -> None:
    async def work(net: PocketNet) -> None:
        async with httpx.AsyncClient(base_url=f"{net.url}/gateway") as client:
            assert (await client.get("/nothing")).status_code == 404
            assert (await client.get("/v1x")).status_code == 404

    on_network(work)
