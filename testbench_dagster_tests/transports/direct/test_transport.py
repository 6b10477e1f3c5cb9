"""Every row of the fault table against a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from testbench_dagster import __version__
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.relay import FOLLOWING, Attempt, Endpoint
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.http import TRUNCATED_EVIDENCE_BYTES
from testbench_dagster.transports.payload import answer_tokens
from testbench_dagster_tests.endpoints import FAST, Supplier, chat_body, endpoint, relay


def send(target: Endpoint, times: int = 1) -> Attempt:
    """Send ``times`` times over one transport and return the last attempt."""

    async def main() -> Attempt:
        transport = DirectTransport()
        try:
            for n in range(times):
                attempt = await transport.send(target, relay(n))
            return attempt
        finally:
            await transport.close()

    return asyncio.run(main())


def test_answer_with_evidence(supplier: Supplier):
    attempt = send(endpoint(supplier.url("ok"), Authorization="Bearer sk-secret-123"), times=3)
    assert attempt.fault is Fault.OK
    assert (attempt.text, attempt.status, attempt.body) == ("fine", 200, chat_body())
    assert attempt.body_bytes == len(chat_body()) and not attempt.body_truncated
    assert (attempt.prompt_tokens, attempt.completion_tokens) == (3, 2)
    assert 0 < attempt.first_byte_ms <= attempt.latency_ms
    assert attempt.started_at <= attempt.finished_at and attempt.started_at.tzinfo is UTC
    assert attempt.evidence["path"] == "/chat/completions" and len(attempt.evidence["payload_sha256"]) == 64
    assert supplier.headers["Authorization"] == "Bearer sk-secret-123"
    assert supplier.headers["User-Agent"] == f"testbench_dagster/{__version__}"
    assert supplier.calls["ok"] == 3


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        ("length", Fault.TRUNCATED),
        ("filtered", Fault.SUPPLIER_REFUSED),
        ("error200", Fault.SUPPLIER_PROTOCOL),
        ("deep", Fault.SUPPLIER_PROTOCOL),
        ("brotli", Fault.SUPPLIER_PROTOCOL),
        ("badgzip", Fault.SUPPLIER_PROTOCOL),
        ("redirect", Fault.SUPPLIER_HTTP),
        ("status/500", Fault.SUPPLIER_HTTP),
        ("status/503", Fault.UNAVAILABLE),
        ("status/404", Fault.CREDENTIALS),
        ("status/429", Fault.RATE_LIMITED),
        ("status/451", Fault.SUPPLIER_REFUSED),
        ("status/204", Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_valid_http(supplier: Supplier, behaviour: str, fault: Fault):
    attempt = send(endpoint(supplier.url(behaviour)))
    assert attempt.fault is fault, attempt
    assert attempt.status is not None
    if fault is not Fault.TRUNCATED:
        assert attempt.error
        assert attempt.error.isprintable()


def test_redirects_are_not_followed(supplier: Supplier):
    assert send(endpoint(supplier.url("redirect"))).status == 302
    assert supplier.calls["ok"] == 0


@pytest.mark.parametrize("behaviour", ["gzip", "deflate"])
def test_unasked_compression_is_undone(supplier: Supplier, behaviour: str):
    attempt = send(endpoint(supplier.url(behaviour)))
    assert (attempt.fault, attempt.text, attempt.body) == (Fault.OK, "packed", chat_body("packed"))


@pytest.mark.parametrize("behaviour", ["huge", "announced", "bomb"])
def test_oversized_answers_are_cut(supplier: Supplier, behaviour: str):
    attempt = send(endpoint(supplier.url(behaviour)))
    assert attempt.fault is Fault.SUPPLIER_PROTOCOL
    assert attempt.body_truncated
    assert len(attempt.body) <= TRUNCATED_EVIDENCE_BYTES
    # no more than the limit and one read is ever taken
    assert attempt.body_bytes <= 1024 * 1024 + 2**20


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        ("reset", Fault.TRANSPORT),
        ("close", Fault.TRANSPORT),
        ("partial", Fault.SUPPLIER_PROTOCOL),
        ("badline", Fault.SUPPLIER_PROTOCOL),
        ("bigheader", Fault.SUPPLIER_PROTOCOL),
        ("switch", Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_broken_http(supplier: Supplier, behaviour: str, fault: Fault):
    attempt = send(endpoint(supplier.raw_url(behaviour)))
    assert attempt.fault is fault, attempt
    assert attempt.error


@pytest.mark.parametrize(
    ("behaviour", "limits"),
    [
        ("slowheaders", {"first_byte_s": 0.4}),
        ("interim", {"first_byte_s": 0.4}),
        ("idle", {"idle_s": 0.4}),
        ("drip", {"total_s": 0.6}),
    ],
)
def test_deadlines_after_connecting(supplier: Supplier, behaviour: str, limits: dict[str, float]):
    started = time.monotonic()
    attempt = send(endpoint(supplier.raw_url(behaviour), replace(FAST, **limits)))
    assert attempt.fault is Fault.SUPPLIER_TIMEOUT, attempt
    assert 0.3 < time.monotonic() - started < 8  # without that deadline 10 s, and for "drip" for ever
    if behaviour == "idle":
        assert attempt.body == b'{"choices": ['


def test_hanging_server(supplier: Supplier):
    attempt = send(endpoint(supplier.url("hang"), replace(FAST, first_byte_s=0.3)))
    assert (attempt.fault, attempt.status) == (Fault.SUPPLIER_TIMEOUT, None)


def test_refused_connection():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    attempt = send(endpoint(f"http://127.0.0.1:{port}/v1"))
    assert attempt.fault is Fault.TRANSPORT and attempt.status is None


def test_unresolvable_host():
    assert send(endpoint("http://no-such-host.invalid/v1")).fault is Fault.TRANSPORT


def test_connect_timeout():
    """A listener whose backlog is full lets further connections hang."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        target = endpoint(f"http://127.0.0.1:{full.getsockname()[1]}/v1", replace(FAST, connect_s=0.4))
        attempt = send(target)
        for filler in fillers:
            filler.close()
    assert attempt.fault is Fault.TRANSPORT
    assert "connecting" in attempt.error


def test_tls_failure(supplier: Supplier):
    attempt = send(endpoint(supplier.url("ok").replace("http:", "https:")))
    assert attempt.fault is Fault.TRANSPORT


def test_keys_never_reach_the_record(supplier: Supplier):
    target = endpoint(supplier.url("quotes"), Authorization="Bearer sk-secret-123")
    attempt = send(target)
    assert attempt.fault is Fault.CREDENTIALS
    assert "sk-secret-123" not in repr(attempt) and "sk-secret" not in repr(target)
    assert b"[redacted]" in attempt.body and attempt.evidence["redacted"]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://127.0.0.1/v1", {}),
        ("http://user:pw@127.0.0.1/v1", {}),
        ("http://127.0.0.1:1/v1", {"X-A": "a\r\nX-B: b"}),
    ],
)
def test_our_own_mistakes_are_internal(url: str, headers: dict[str, str]):
    attempt = send(endpoint(url, FAST, **headers))
    assert attempt.fault is Fault.INTERNAL
    assert "pw" not in attempt.error


def test_requests_that_do_not_fit_the_api_are_internal(supplier: Supplier):
    async def main() -> Attempt:
        transport = DirectTransport()
        unfit = relay()
        unfit.request = {"type": "loglikelihood", "idx": 0, "context": "a", "continuation": "b"}
        attempt = await transport.send(endpoint(supplier.url("ok")), unfit)
        await transport.close()
        return attempt

    assert asyncio.run(main()).fault is Fault.INTERNAL


def test_cancellation_is_not_swallowed(supplier: Supplier):
    async def main() -> None:
        transport = DirectTransport()
        task = asyncio.create_task(transport.send(endpoint(supplier.url("hang")), relay()))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()

    asyncio.run(main())


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_retry_after_is_recorded(supplier: Supplier):
    assert send(endpoint(supplier.url("limited"))).retry_after_s == 0.2


@pytest.mark.parametrize(
    ("following", "tokens", "fault"),
    [
        (FOLLOWING, 200, Fault.OK),
        (FOLLOWING, 4, Fault.SUPPLIER_TIMEOUT),
        ((), 200, Fault.SUPPLIER_TIMEOUT),
    ],
)
def test_deadlines_follow_the_limit_of_the_answer(following: tuple[str, ...], tokens: int, fault: Fault):
    """A server that does not stream says nothing before it ends: 200 tokens may take ten seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.6)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(chat_body()))
        await asyncio.sleep(0.4)
        writer.write(chat_body())

    async def main() -> Attempt:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limits = replace(FAST, first_byte_s=0.3, idle_s=0.25, total_s=0.5, following=frozenset(following))
        asked = relay()
        asked.request = {**asked.request, "generation": {"max_gen_toks": tokens}}
        transport = DirectTransport()
        try:
            return await transport.send(endpoint(f"http://127.0.0.1:{port}", limits), asked)
        finally:
            await transport.close()
            server.close()

    assert asyncio.run(main()).fault is fault


def test_a_budget_lengthens_deadlines_too():
    asked = relay().request
    assert answer_tokens(asked) == 16
    assert answer_tokens(asked, SupplierGeneration(budget=1000)) == 1016
    assert answer_tokens({"type": "generate_until", "generation": {}}) == 256
    assert answer_tokens({"type": "generate_until", "generation": {"max_gen_toks": "many"}}) == 0
    assert answer_tokens({"type": "loglikelihood"}, SupplierGeneration(budget=1000)) == 1
    assert answer_tokens({"type": "get", "path": "/x"}) == 0
