"""Every row of the PATH transport's table, against a gateway on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.bech32 import encode
from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.relay import Attempt, Endpoint, Limits, Relay, Route, SessionRef
from testbench_dagster.transports.path.transport import (
    GatewayHeaders,
    PathTransport,
    SessionLookup,
    gateway_headers,
    judge,
)
from testbench_dagster.transports.payload import RequestError, build_payload
from testbench_dagster_tests.endpoints import FAST, chat_body, relay

MINE, OTHER, APP = (encode("pokt", bytes([n]) * 20) for n in (1, 2, 3))
TOKEN = "sk-gateway-0123456789"
NAMED = {"X-Supplier-Address": MINE, "X-Suppliers-Tried": MINE, "X-Retry-Count": "0"}
TRIED = {"X-Suppliers-Tried": MINE, "X-Retry-Count": "0"}
NOBODY = {"X-Suppliers-Tried": "", "X-Retry-Count": "0"}
NO_ENDPOINT = "no valid endpoints available for service: service llm"
NOOP = "no-op qos service error: no responses received from any service endpoints"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Says:
    """A gateway's answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(NAMED))
    body: bytes = field(default_factory=chat_body)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(status=self.status, headers=self.headers, body=self.body)


@dataclass
class Asked:
    """What a gateway was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def endpoint(url: str = "http://127.0.0.1:1/v1", limits: Limits = FAST, **changes: Any) -> Endpoint:
    plain = Endpoint(
        f"{MINE}@llm",
        "llm",
        url,
        "chat",
        "m",
        limits,
        {"Authorization": f"Bearer {TOKEN}"},
        transport="path",
        address=MINE,
        prefix="/v1",
    )
    return replace(plain, **changes)


def send(
    handler: Handler,
    *,
    times: int = 1,
    sent: Relay | None = None,
    sessions: SessionLookup | None = None,
    **changes: Any,
) -> tuple[Attempt, list[Asked]]:
    """Send through one transport to a gateway; the last attempt, and what the gateway was asked."""
    asked: list[Asked] = []

    async def main() -> Attempt:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            asked.append(Asked(request.method, request.raw_path, dict(request.headers), await request.read()))
            return await handler(request)

        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        transport = PathTransport(sessions)
        try:
            target = endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", **changes)
            for n in range(times):
                attempt = await transport.send(target, sent or relay(n))
            return attempt
        finally:
            await transport.close()
            await runner.cleanup()

    return asyncio.run(main()), asked


# --------------------------------------------------------------------------------------------- requests


def test_a_relay_as_path_wants_it() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "App-Address": APP}
    attempt, (asked,) = send(Says(), headers=headers, rpc_type=4)
    assert attempt.fault is Fault.OK and attempt.text == "fine"
    assert (asked.method, asked.path) == ("POST", "/v1/v1/chat/completions")  # PATH takes one /v1 off
    sent = {name.lower(): value for name, value in asked.headers.items()}
    assert sent["target-service-id"] == "llm"
    assert sent["target-suppliers"] == MINE
    assert sent["app-address"] == APP
    assert sent["rpc-type"] == "rest"
    assert sent["authorization"] == f"Bearer {TOKEN}"
    _, payload = build_payload(relay().request, "chat", "m")
    assert orjson.loads(asked.body) == payload
    assert attempt.evidence["path"] == "/v1/chat/completions"
    assert attempt.evidence["gateway"] == {
        "requested": MINE,
        "supplier": MINE,
        "suppliers_tried": [MINE],
        "retry_count": 0,
    }
    assert "hedged" not in attempt.evidence
    assert "redacted" not in attempt.evidence


def test_settings_headers_and_parameters_of_a_service_reach_its_gateway() -> None:
    attempt, (asked,) = send(
        Says(),
        headers={"api-key": TOKEN, "X-Org": "org-of-ours-1"},
        generation=SupplierGeneration(budget=100, stop="client"),
        route=Route(query=(("tenant", "t"),), secret_query=(("sig", "s3cret-value"),)),
    )
    assert attempt.fault is Fault.OK
    assert asked.path == "/v1/v1/chat/completions?tenant=t&sig=s3cret-value"
    assert (asked.headers["api-key"], asked.headers["X-Org"]) == (TOKEN, "org-of-ours-1")
    said = orjson.loads(asked.body)
    assert said["max_tokens"] == 116 and "stop" not in said
    assert attempt.evidence["generation"] == {"budget": 100, "stop": "client"}
    assert attempt.evidence["payload_sha256"] == hashlib.sha256(asked.body).hexdigest()
    assert "s3cret" not in repr(attempt) and "org-of-ours" not in repr(attempt)


def test_what_is_not_configured_is_not_sent() -> None:
    _, (asked,) = send(Says(), headers={}, prefix="")
    assert asked.path == "/v1/chat/completions"
    assert not {"rpc-type", "app-address", "authorization"} & {name.lower() for name in asked.headers}


def test_pages_stand_beside_the_prefix() -> None:
    page = replace(relay(), request={"type": "get", "idx": 0, "path": "/pokt/config"})
    attempt, (asked,) = send(Says(body=b'{"b": 1, "a": 2}'), sent=page, prefix="/some/where/v1")
    assert (asked.method, asked.path, asked.body) == ("GET", "/v1/some/where/pokt/config", b"")
    assert (attempt.fault, attempt.text) == (Fault.OK, '{"a":2,"b":1}')
    assert attempt.evidence["path"] == "/some/where/pokt/config"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"address": ""}, "names no supplier"),
        ({"address": f"{MINE},{OTHER}"}, "names no supplier"),
        ({"address": f"{MINE}\r\nX: y"}, "names no supplier"),
        ({"rpc_type": 1}, "rpc_type 1"),
    ],
)
def test_headers_that_cannot_be_meant(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        gateway_headers(endpoint(**changes))
    attempt, asked = send(Says(), **changes)
    assert (attempt.fault, asked) == (Fault.INTERNAL, [])


# ---------------------------------------------------------------------------------------------- answers


def noop(error: str) -> bytes:
    return json.dumps({"error": error, "msg": NOOP}).encode()


ROWS = {
    "named": (Says(), Fault.OK, None),
    "named, cut": (Says(body=chat_body("x", "length")), Fault.TRUNCATED, None),
    "named, empty": (Says(body=chat_body("")), Fault.OK, None),
    "named, garbage": (Says(body=b"<html>"), Fault.SUPPLIER_PROTOCOL, "invalid JSON"),
    "named, error": (Says(500, NAMED, b"boom"), Fault.SUPPLIER_HTTP, "HTTP 500: boom"),
    "named, 404": (Says(404, NAMED, b"no model"), Fault.CREDENTIALS, "no model"),
    "named, 451": (Says(451, NAMED, b""), Fault.SUPPLIER_REFUSED, "451"),
    "named, 504": (Says(504, NAMED, b"late"), Fault.SUPPLIER_TIMEOUT, "late"),
    "named, signature": (Says(403, NAMED, b"invalid ring signature"), Fault.GATEWAY, "ring signature"),
    "named, redirect": (Says(302, {**NAMED, "Location": "/v1"}, b""), Fault.SUPPLIER_HTTP, "302"),
    "another": (Says(headers={**NAMED, "X-Supplier-Address": OTHER}), Fault.GATEWAY, f"answered by {OTHER}"),
    "another, limited": (Says(429, {"X-Supplier-Address": OTHER}, b""), Fault.GATEWAY, OTHER),
    "another, error": (Says(500, {"X-Supplier-Address": OTHER}, b""), Fault.GATEWAY, OTHER),
    "several": (Says(headers={"X-Supplier-Address": f"{MINE},{OTHER}"}), Fault.GATEWAY, OTHER),
    "named, others tried": (
        Says(headers={**NAMED, "X-Suppliers-Tried": f"{OTHER},{MINE}", "X-Retry-Count": "1"}),
        Fault.GATEWAY,
        f"tried {OTHER} too",
    ),
    "others tried, error": (Says(500, {"X-Suppliers-Tried": OTHER}, b""), Fault.GATEWAY, OTHER),
    "nobody named": (Says(headers=TRIED), Fault.GATEWAY, "does not say who answered"),
    "nobody named, silent": (Says(200, TRIED, b""), Fault.GATEWAY, "without a body"),
    "no headers at all": (Says(headers={}), Fault.GATEWAY, "does not say who answered"),
    "tried, error": (Says(500, TRIED, b"CUDA"), Fault.SUPPLIER_HTTP, "HTTP 500: CUDA"),
    "tried, 504": (Says(504, TRIED, b""), Fault.SUPPLIER_TIMEOUT, "504"),
    "tried, bad request": (Says(400, TRIED, b"too long"), Fault.CLIENT_REQUEST, "too long"),
    "tried, limited": (Says(429, TRIED, b"session relay limit reached"), Fault.RATE_LIMITED, "relay limit"),
    "tried, signature": (Says(403, TRIED, b"invalid ring signature"), Fault.GATEWAY, "ring signature"),
    "tried, session edge": (Says(403, TRIED, b"Session expired"), Fault.ROLLOVER, "Session expired"),
    "tried, timeout in words": (
        Says(500, TRIED, noop("relay: timeout waiting for endpoint response")),
        Fault.SUPPLIER_TIMEOUT,
        "supplier timed out",
    ),
    "tried, other words": (
        Says(500, TRIED, noop("relay: nil supplier public key")),
        Fault.GATEWAY,
        "public key",
    ),
    "tried, json-rpc": (Says(500, TRIED, b'{"jsonrpc": "2.0", "error": {}}'), Fault.GATEWAY, "jsonrpc"),
    "no session": (Says(500, NOBODY, noop(NO_ENDPOINT)), Fault.ROLLOVER, "no endpoint of the supplier"),
    "no application": (
        Says(500, NOBODY, noop("ZERO owned apps found for service")),
        Fault.GATEWAY,
        "ZERO owned apps",
    ),
    "no service": (Says(400, NOBODY, b'{"code":400,"message":"no service ID"}'), Fault.GATEWAY, "service ID"),
    "not let in": (Says(401, {}, b"Unauthorized"), Fault.GATEWAY, "Unauthorized"),
    "limited": (Says(429, {"Retry-After": "3"}, b""), Fault.RATE_LIMITED, "429"),
    "bad gateway": (Says(502, {}, b"<html>nginx"), Fault.GATEWAY, "nginx"),
    "unavailable": (Says(503, {}, b""), Fault.GATEWAY, "503"),
    "too late": (Says(504, {}, b"upstream timed out"), Fault.GATEWAY, "504"),
    "moved": (Says(302, {"Location": "/v1"}, b""), Fault.GATEWAY, "302"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_table(row: str) -> None:
    says, fault, error = ROWS[row]
    attempt, asked = send(says)
    assert attempt.fault is fault, attempt
    assert len(asked) == 1  # nothing is repeated, and no redirect followed
    assert attempt.status == says.status and attempt.body == says.body
    assert attempt.evidence["gateway"]["requested"] == MINE
    if error is None:
        assert attempt.error is None and attempt.text is not None
    else:
        assert error in (attempt.error or "")
        assert attempt.text is None
    if "Retry-After" in says.headers:
        assert attempt.retry_after_s == 3


def test_who_answered_instead_is_on_record() -> None:
    attempt, _ = send(ROWS["another"][0])
    assert attempt.evidence["gateway"]["supplier"] == OTHER
    assert chat_body() == attempt.body  # the answer is kept, though it counts for nobody


def test_a_gateway_that_tried_others_asked_twice() -> None:
    attempt, _ = send(Says(headers={**NAMED, "X-Suppliers-Tried": f"{MINE},{OTHER}"}))
    assert attempt.fault is Fault.GATEWAY and attempt.evidence["hedged"] is True


def test_a_second_supplier_in_a_header_of_its_own_is_seen() -> None:
    async def twice(request: web.BaseRequest) -> web.StreamResponse:
        response = await Says()(request)
        response.headers.add("X-Supplier-Address", OTHER)
        return response

    attempt, _ = send(twice)
    assert attempt.fault is Fault.GATEWAY and OTHER in (attempt.error or "")


ADDRESSES = st.sampled_from(["", MINE, OTHER, f"{MINE},{OTHER}"])
BODIES = st.sampled_from([chat_body(), b"", b"no", noop(NO_ENDPOINT), noop("context deadline exceeded")])
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 403, 404, 429, 451, 500, 502, 503, 504, 599])


@settings(max_examples=500, deadline=None)
@given(
    supplier=ADDRESSES,
    tried=st.lists(st.sampled_from([MINE, OTHER]), unique=True),
    status=STATUSES,
    body=BODIES | st.binary(),
)
def test_nobody_is_blamed_or_credited_for_another(
    supplier: str, tried: list[str], status: int, body: bytes
) -> None:
    told = GatewayHeaders(supplier, tuple(tried))
    answer = judge(told, endpoint(), relay().request, status, body)
    if answer.fault.answered:
        assert supplier == MINE and OTHER not in tried
    else:
        assert answer.error
    if answer.fault.owner is Owner.SUPPLIER:
        assert OTHER not in tried and (supplier == MINE or (not supplier and tried == [MINE]))
    assert answer.text is None or answer.fault.answered


# ------------------------------------------------------------------------------------ hedges and retries


def test_a_hedge_that_leaves_no_doubt_is_scored_noted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    headers = {**NAMED, "X-Hedge-Result": "primary_won", "X-Retry-Count": "2"}
    with caplog.at_level(logging.WARNING):
        attempt, _ = send(Says(headers=headers), times=3)
    assert attempt.fault is Fault.OK
    assert attempt.evidence["hedged"] is True
    assert attempt.evidence["gateway"]["hedge_result"] == "primary_won"
    assert attempt.evidence["gateway"]["retry_count"] == 2
    (record,) = caplog.records
    assert "service llm" in record.getMessage() and "hedge_delay" in record.getMessage()


@pytest.mark.parametrize("result", ["primary_only", "no_hedge"])
def test_a_race_that_was_not_run_only_warns(result: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        attempt, _ = send(Says(headers={**NAMED, "X-Hedge-Result": result}), times=2)
    assert attempt.fault is Fault.OK and "hedged" not in attempt.evidence
    (record,) = caplog.records
    assert "hedges relays that take long" in record.getMessage()


def test_nothing_is_told_of_a_gateway_that_asks_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        send(Says(), times=2)
    assert caplog.records == []


# ---------------------------------------------------------------------------------------------- sessions


def test_the_session_is_that_of_the_lookup() -> None:
    session = SessionRef(APP, "5e55", 41, 60, 47)
    asked = []

    def lookup(service: str, session_id: str) -> SessionRef | None:
        asked.append((service, session_id))
        return session if session_id == "5e55" else None

    told = {**NAMED, "X-App-Address": APP, "X-Session-ID": "5e55"}
    attempt, _ = send(Says(headers=told), sessions=lookup)
    assert attempt.session == session and asked == [("llm", "5e55")]
    assert attempt.evidence["gateway"]["session_id"] == "5e55"
    assert attempt.evidence["gateway"]["app"] == APP
    for changed in ({"X-App-Address": OTHER}, {"X-Session-ID": "other"}, {"X-App-Address": ""}):
        attempt, _ = send(Says(headers={**told, **changed}), sessions=lookup)
        assert attempt.session is None and attempt.fault is Fault.OK
    assert send(Says(headers=told))[0].session is None  # without heights it is not complete


# ----------------------------------------------------------------------------------- what goes wrong below


def test_an_unreachable_gateway_is_nobody_elses_fault() -> None:
    async def main() -> Attempt:
        transport = PathTransport()
        try:
            return await transport.send(endpoint("http://127.0.0.1:1/v1"), relay())
        finally:
            await transport.close()

    attempt = asyncio.run(main())
    assert attempt.fault is Fault.GATEWAY and "connecting" in (attempt.error or "")


def test_a_silent_gateway() -> None:
    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    attempt, _ = send(hang, limits=replace(FAST, first_byte_s=0.2))
    assert attempt.fault is Fault.GATEWAY and attempt.error == "deadline passed while waiting"


async def reset(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={**NAMED, "Content-Length": "500"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    return await reset(request)


async def packed(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(headers={**NAMED, "Content-Encoding": "br"}, body=b"\x8b")


@pytest.mark.parametrize("handler", [reset, half, packed])
def test_what_breaks_between_us_and_the_gateway_is_its_fault(handler: Handler) -> None:
    attempt, _ = send(handler)
    assert attempt.fault is Fault.GATEWAY and attempt.error


def test_an_answer_that_is_too_large_is_the_suppliers_where_it_is_named() -> None:
    large = b"x" * 2_000_000
    attempt, _ = send(Says(body=large))
    assert attempt.fault is Fault.SUPPLIER_PROTOCOL and attempt.body_truncated
    assert attempt.evidence["gateway"]["supplier"] == MINE
    assert send(Says(headers=TRIED, body=large))[0].fault is Fault.GATEWAY
    attempt, _ = send(Says(headers={"X-Supplier-Address": OTHER}, body=large))
    assert attempt.fault is Fault.GATEWAY and OTHER in (attempt.error or "")


def test_a_page_that_is_too_large_is_not_held_against_it() -> None:
    page = replace(relay(), request={"type": "get", "idx": 0, "path": "/pokt/tokenizer"})
    attempt, _ = send(Says(body=b" " * 16_000_000), sent=page)
    assert attempt.fault is Fault.CLIENT_REQUEST


def test_private_gateways_are_refused_unless_allowed() -> None:
    attempt, asked = send(Says(), private_allowed=False)
    assert attempt.fault is Fault.CLIENT_REQUEST and asked == []
    assert "private" in (attempt.error or "") and attempt.status is None


# ------------------------------------------------------------------------------------------------ secrets


def test_the_token_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    quoted = {
        "X-Supplier-Address": f"{MINE}{TOKEN}",
        "X-Suppliers-Tried": f"{TOKEN},{MINE}",
        "X-Hedge-Result": TOKEN,
        "X-Session-ID": TOKEN,
        "X-App-Address": TOKEN,
    }
    # PATH in delegated mode quotes the whole request; the cut of the text falls into the token
    body = b"&{Header:map[Authorization:[Bearer " + TOKEN.encode() + b"]]}: no app" + b"." * 300
    with caplog.at_level(logging.DEBUG):
        for headers in (quoted, NOBODY, TRIED, NAMED):
            for start in (b"", b"." * 220):
                for status in (200, 400, 403, 500):
                    attempt, (asked,) = send(Says(status, headers, start + body))
                    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
                    kept = repr((attempt.evidence, attempt.error, attempt.body, attempt.text))
                    assert TOKEN[:12] not in kept
                    assert "[redacted]" in kept
    assert caplog.records
    assert TOKEN[:12] not in caplog.text
    assert TOKEN not in repr(endpoint())


def test_addresses_are_no_secrets() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "app-address": APP}
    attempt, (asked,) = send(Says(400, {**NOBODY, "X-App-Address": APP}, APP.encode()), headers=headers)
    assert asked.headers["App-Address"] == APP
    assert attempt.evidence["gateway"]["app"] == APP and APP in (attempt.error or "")


def test_told_is_bounded_and_printable() -> None:
    told = GatewayHeaders.from_headers(
        {
            "x-supplier-address": "\udc80\x1b" + "a" * 5000,
            "X-SUPPLIERS-TRIED": ", ".join(f"pokt1{n}" for n in range(1000)),
            "X-Retry-Count": "9" * 50,
        }
    )
    assert len(told.supplier) <= 200 and told.supplier.isprintable()
    assert len(told.tried) == 16
    assert told.retries is None
    json.dumps(told.evidence()).encode()
