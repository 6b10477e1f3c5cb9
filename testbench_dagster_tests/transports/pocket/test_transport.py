"""Signed relays against simulated miners of both flavours, on loopback."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.relay import Attempt, Route
from testbench_dagster.core.remedies import remedy_of
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.pocket.names import private_key, private_key_hex
from testbench_dagster.localnet.pocket.node import NodeFaults
from testbench_dagster.localnet.supplier import Reply, json_reply
from testbench_dagster.relays.engine import relay_all
from testbench_dagster.relays.pace import PacedTransport, Pacing
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.transports.payload import as_stream, build_payload
from testbench_dagster.transports.pocket import services, transport
from testbench_dagster.transports.pocket.calls import header_bytes, signed_request
from testbench_dagster.transports.pocket.chain.client import ChainClient
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.evidence import parts_of, verify_evidence
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.messages import HttpRequest, RelayRequest, RpcType, SessionHeader
from testbench_dagster.transports.pocket.rings import RingSigner, ring_members, verify_ring
from testbench_dagster.transports.pocket.sessions import SessionBook
from testbench_dagster.transports.pocket.transport import ShannonTransport
from testbench_dagster.transports.registry import shown
from testbench_dagster_tests.transports.pocket.net import FAST, SERVICE, relay_to, setting
from testbench_dagster_tests.transports.test_routes import Proxy, listening

SLOW = Persona("sim-01", Backend("granite", latency_ms=600.0))


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


@pytest.mark.parametrize("flavour", ["classic", "ha"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_relay_is_signed_served_and_proven(flavour: str, stream: bool):
    async def body() -> None:
        async with setting(flavour) as s:
            attempt = await s.ask(stream=stream)
            assert (attempt.fault, attempt.status, attempt.error) == (Fault.OK, 200, None)
            assert attempt.text and attempt.completion_tokens
            assert attempt.body_bytes == len(attempt.body)
            assert (attempt.first_token_ms is not None) == (stream and flavour == "ha")
            (entry,) = s.accepted()
            assert attempt.evidence["request_sha256"] == entry["request_sha256"]
            assert attempt.evidence["request_hash"] == entry["request_hash"]
            assert attempt.evidence["path"] == "/v1/chat/completions"
            ref = attempt.session
            assert ref is not None
            found = (ref.app, ref.session_id, ref.start_height, ref.end_height, ref.height)
            names = ("app", "session_id", "session_start", "session_end", "height")
            assert found == tuple(entry[name] for name in names)
            assert attempt.evidence["public_key"] == s.served().key.public_key.hex()
            verify_evidence(attempt.body, attempt.evidence)
            with pytest.raises(ResponseError):
                verify_evidence(attempt.body + b" ", attempt.evidence)
            # the same question gets the same answer, streamed or not
            assert (await s.ask(stream=not stream)).text == attempt.text

    run(body)


@pytest.mark.parametrize("stream", [False, True])
def test_settings_of_a_service_are_signed_and_kept_with_the_attempt(stream: bool):
    async def body() -> None:
        async with setting("ha") as s:
            wanted = SupplierGeneration(budget=9, seed="omit", extra_body={"top_k": 1})
            attempt = await s.ask(stream=stream, generation=wanted)
            assert attempt.fault is Fault.OK
            assert attempt.evidence["generation"] == wanted.settings()
            request = relay_to(s.endpoint()).request
            payload = build_payload(request, "chat", s.endpoint().model, wanted)[1]
            sent = orjson.dumps(as_stream(payload) if stream else payload)
            assert attempt.evidence["payload_sha256"] == hashlib.sha256(sent).hexdigest()
            plain = await s.ask(1, stream=stream)
            assert plain.fault is Fault.OK and "generation" not in plain.evidence

    run(body)


# -------------------------------------------------------------------------------------- every fault

#: What becomes of each simulated fault.
SERVED = Fault.OK
CLASSIC = {
    "down": Fault.TRANSPORT,
    "reset": Fault.TRANSPORT,
    "html": Fault.UNAVAILABLE,
    "html200": Fault.SUPPLIER_PROTOCOL,
    "rate_limited": Fault.QUOTA,
    "expired": Fault.SUPPLIER_HTTP,  # in the middle of a session
    "not_in_session": Fault.SUPPLIER_HTTP,
    "not_reachable": Fault.SUPPLIER_HTTP,
    "slow_headers": SERVED,
    "slow_body": SERVED,
    "hang": Fault.SUPPLIER_TIMEOUT,
    "timeout": Fault.SUPPLIER_TIMEOUT,
    "internal": Fault.SUPPLIER_HTTP,
    "empty": Fault.SUPPLIER_PROTOCOL,
    "truncated": Fault.SUPPLIER_PROTOCOL,
    "gzip": SERVED,
    "stream_cut": Fault.TRANSPORT,
    "unterminated": SERVED,
    "backend_4xx": Fault.CREDENTIALS,
    "backend_5xx": Fault.SUPPLIER_HTTP,
    "oversized": Fault.SUPPLIER_PROTOCOL,
    "unsigned": Fault.SUPPLIER_SIGNATURE,
    "bad_signature": Fault.SUPPLIER_SIGNATURE,
    "high_s": Fault.SUPPLIER_SIGNATURE,
    "wrong_signer": Fault.SUPPLIER_SIGNATURE,
    "swapped_payload": Fault.SUPPLIER_SIGNATURE,
    "no_payload_hash": SERVED,
    "wrong_header": Fault.SUPPLIER_SIGNATURE,
    "foreign_session": Fault.SUPPLIER_SIGNATURE,
    "replay": Fault.SUPPLIER_SIGNATURE,
}
HA = {**CLASSIC, "not_reachable": Fault.UNAVAILABLE, "internal": Fault.UNAVAILABLE}
STREAMED = {**HA, "stream_cut": Fault.SUPPLIER_PROTOCOL}
EXCUSED = {Fault.TRANSPORT, Fault.QUOTA, Fault.CREDENTIALS}
#: What the miner of no accepted relay said is not paid for, and not counted either.
FREE = {
    "html",
    "expired",
    "not_in_session",
    "not_reachable",
    "internal",
    "rate_limited",
    "backend_5xx",  # unsigned from ha miners
}


@pytest.mark.parametrize(
    ("flavour", "stream", "expected"),
    [("classic", False, CLASSIC), ("ha", False, HA), ("ha", True, STREAMED)],
)
def test_every_fault_has_its_owner(flavour: str, stream: bool, expected: dict[str, Fault]):
    async def body() -> None:
        async with setting(flavour) as s:
            await s.reach(1005)
            silent = replace(FAST, first_byte_s=0.4, total_s=3)
            first = await s.ask(1000, stream=stream)
            assert first.fault is Fault.OK
            found, counted = {}, {}
            for number, kind in enumerate(expected):
                s.clear()
                s.fault(kind, seconds=0.1)
                before = s.book.left(s.served().operator)
                limits = silent if kind == "hang" else FAST
                attempt = await s.ask(number, stream=stream, limits=limits)
                counted[kind] = before - s.book.left(s.served().operator)
                found[kind] = attempt.fault
                assert (attempt.error is None) == attempt.fault.answered
                owner = Owner.NONE if attempt.fault.answered else Owner.SUPPLIER
                assert (attempt.fault.owner is owner) != (attempt.fault in EXCUSED)
                if kind == "rate_limited":  # nothing is left in this session then
                    assert before - counted[kind] == 0
                    s.clear()
                    await s.reach(s.net.chain.height + 10)
                    assert (await s.ask(2000, stream=stream)).fault is Fault.OK
            assert found == expected
            assert {kind for kind, count in counted.items() if count == 0} <= FREE

    run(body)


@pytest.mark.parametrize("flavour", ["classic", "ha"])
@pytest.mark.parametrize("stream", [False, True])
def test_no_byte_of_a_signed_answer_can_be_changed(flavour: str, stream: bool):
    """Whatever bit is flipped, it is refused: nobody on the way can alter an answer."""

    async def body() -> None:
        async with setting(flavour) as s, tampering() as proxy:
            endpoint = s.endpoint(stream=stream)
            proxy.real = endpoint.base_url
            through = replace(endpoint, base_url=proxy.url)
            s.pin()
            whole = await s.transport.send(through, relay_to(through))
            assert whole.fault is Fault.OK
            parts = parts_of(whole.body, whole.evidence)
            size = sum(map(len, parts))
            taken = Counter[Fault]()
            for place in range(0, size, max(1, size // 120)):
                proxy.flip = place
                attempt = await s.transport.send(through, relay_to(through))
                if proxy.flipped:  # this answer may be shorter
                    taken[attempt.fault] += 1
            assert set(taken) <= {Fault.SUPPLIER_SIGNATURE, Fault.SUPPLIER_PROTOCOL, Fault.SUPPLIER_HTTP}, (
                taken
            )
            assert taken[Fault.SUPPLIER_SIGNATURE] > 60

    run(body)


class Tampering:
    """Forwards what is posted to it, and flips a bit of the answer."""

    def __init__(self) -> None:
        self.real = self.url = ""
        self.flip: int | None = None
        self.flipped = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        posted = await request.read()
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.real, data=posted, headers={"Rpc-Type": "4"}) as answer,
        ):
            body = bytearray(await answer.read())
            kind = answer.headers["Content-Type"]
        self.flipped = self.flip is not None and self.flip < len(body)
        if self.flip is not None and self.flipped:
            body[self.flip] ^= 1 << self.flip % 8
        return web.Response(body=bytes(body), headers={"Content-Type": kind})


@asynccontextmanager
async def serving(handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server on loopback; yields its URL."""
    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def tampering() -> AsyncIterator[Tampering]:
    proxy = Tampering()
    async with serving(proxy.handle) as url:
        proxy.url = url
        yield proxy


HOSTILE: list[tuple[int, dict[str, str], bytes]] = [
    (200, {}, b""),
    (200, {}, b'{"choices": [{"index": 0, "message": {"content": "unsigned"}}]}'),  # a backend without miner
    (200, {}, b"\x0a" * 4000),
    (200, {}, b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    (200, {"Content-Type": "text/event-stream"}, b'data: {"choices": []}\n\ndata: [DONE]\n\n'),
    (200, {"Content-Type": "text/event-stream"}, b"||POKT_STREAM||" * 1000),
    (200, {"Content-Type": "text/event-stream"}, b"x||POKT_STREAM||" * 20_000),
    (200, {"Content-Encoding": "gzip"}, b"no gzip"),
    (200, {"Content-Encoding": "br"}, b"\x8b\x03\x80"),
    (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(50_000_000), 9)),
    (200, {}, bytes(3_000_000)),
    (302, {"Location": "http://127.0.0.1:1/"}, b""),
    (503, {"Retry-After": "1"}, b"\xff\xfe" * 500),
    (403, {}, b"<html>" + b"\x1b[31m" * 100),
    (429, {"Retry-After": "7"}, b"slow down"),
    (204, {}, b""),
]


@pytest.mark.parametrize(("status", "headers", "body"), HOSTILE)
def test_hostile_answers(status: int, headers: dict[str, str], body: bytes):
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=body)

    async def main() -> None:
        async with setting("ha") as s, serving(handle) as url:
            for stream in (False, True):
                attempt = await s.ask(base_url=url, stream=stream)
                assert attempt.fault.owner in (Owner.SUPPLIER, Owner.NETWORK), attempt
                assert attempt.error and attempt.error.isprintable()
                assert len(attempt.body) <= 2**20
                assert "envelope" not in attempt.evidence
                if status == 200:
                    assert attempt.status is None and attempt.evidence["http_status"] == 200
                if status == 429:
                    assert (attempt.fault, attempt.retry_after_s) == (Fault.RATE_LIMITED, 7.0)

    run(main)


# --------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("flavour", ["classic", "ha"])
def test_a_session_that_ended_is_followed_by_the_next(flavour: str):
    async def body() -> None:
        async with setting(flavour, grace=2, poll_s=30.0) as s:
            s.book._min_refresh_s = 0.0  # blocks come by hand here, faster than any chain
            first = await s.ask(1)
            s.net.chain.clock.reach(1012)  # its grace; nobody has told us
            late = await s.ask(2)
            assert late.fault is Fault.OK and late.session == first.session
            s.net.chain.clock.reach(1013)
            over = await s.ask(3)
            assert over.fault is Fault.ROLLOVER and any(over.fault.row.in_run) and over.error
            again = await s.ask(3)
            assert again.fault is Fault.OK and again.session is not None
            assert (again.session.start_height, again.session.height) == (1011, 1013)
            ends = {entry["session_end"] + 2 - entry["height"] for entry in s.accepted()}
            assert min(ends) >= 0

    run(body)


@pytest.mark.parametrize("flavour", ["classic", "ha"])
@pytest.mark.parametrize(
    ("height", "lag", "fault"),
    [
        (1010, -1, Fault.ROLLOVER),  # the miner has seen a block more, and the session's end
        (1001, 1, Fault.ROLLOVER),  # the miner has not seen the session's first block
        (1002, 2, Fault.ROLLOVER),
        (1005, 0, Fault.OK),
        (1006, 8, Fault.SUPPLIER_HTTP),  # its node hangs
        (1006, -8, Fault.SUPPLIER_HTTP),
    ],
)
def test_miners_at_other_heights(flavour: str, height: int, lag: int, fault: Fault):
    """Around the ends of a session nobody is to blame; well within, the miner follows no chain."""

    async def body() -> None:
        async with setting(flavour, grace=0) as s:
            await s.reach(1011)
            await s.reach(1010 + height - 1000)
            s.net.miners[0].lag_blocks = lag
            attempt = await s.ask()
            assert attempt.fault is fault, attempt
            # what a miner says about the session has it asked for again, and used again
            assert (await s.ask(1)).fault is fault

    run(body)


def test_sessions_roll_over_while_relays_run():
    """Blocks by the clock; the watcher alone keeps up: nothing is lost, nothing sent outside its session."""

    async def body() -> None:
        async with setting("ha", 2, block_s=0.1, blocks_per_session=8, grace=3, poll_s=0.05) as s:
            s.book._min_refresh_s = 0.02
            names = ["sim-01", "sim-02"]
            attempts: list[Attempt] = []
            endpoints = [s.endpoint(name) for name in names]
            loop = asyncio.get_running_loop()
            until, number = loop.time() + 2.5, 0

            async def relay() -> None:
                nonlocal number
                while loop.time() < until:
                    number += 1
                    endpoint = endpoints[number % 2]
                    attempts.append(await s.transport.send(endpoint, relay_to(endpoint, number)))
                    await asyncio.sleep(0.01)

            await asyncio.gather(*(relay() for _ in range(3)))
            sent = [a.evidence["request_sha256"] for a in attempts]
            ledger = s.accepted()
            assert {a.fault for a in attempts} <= {Fault.OK, Fault.ROLLOVER}
            answered = sorted(a.evidence["request_sha256"] for a in attempts if a.fault is Fault.OK)
            assert answered == sorted(entry["request_sha256"] for entry in ledger)
            assert len(set(sent)) == len(sent)
            assert all(e["session_start"] <= e["height"] <= e["session_end"] + 3 for e in ledger)
            assert len({entry["session_id"] for entry in ledger}) >= 3
            # a new session is used while it lasts, not only once the miners refuse the old one
            timely = {entry["session_id"] for entry in ledger if entry["height"] <= entry["session_end"]}
            assert len(timely) >= 2

    run(body)


def test_suppliers_outside_of_sessions_wait():
    async def body() -> None:
        async with setting("classic", 3) as s:
            endpoint = s.endpoint("sim-01")
            assert (await s.transport.send(endpoint, relay_to(endpoint))).fault is Fault.OK
            s.net.chain.unstake_supplier(endpoint.address, at_once=True)
            await s.reach(1011)
            attempt = await s.transport.send(endpoint, relay_to(endpoint, 1))
            assert attempt.fault is Fault.ROLLOVER
            assert attempt.error == "the supplier is in no current session"
            assert attempt.session is None and attempt.status is None
            assert len(s.net.ledger.relays) == 1  # nothing was posted
            assert (await s.ask(2, "sim-02")).fault is Fault.OK

    run(body)


def test_an_application_without_session_is_named():
    async def body() -> None:
        async with setting("classic") as s:
            s.net.chain.unstake_app(next(iter(s.service.keys)))
            await s.reach(1200)
            attempt = await s.ask()
            assert attempt.fault is Fault.ROLLOVER
            assert attempt.error is not None and "no current session (" in attempt.error

    run(body)


# ------------------------------------------------------------------------------------------ nodes


def test_while_no_node_answers_nothing_is_begun_and_what_is_known_goes_on():
    async def body() -> None:
        async with setting("classic") as s:
            s.net.nodes[0].faults = NodeFaults(status=500)
            attempt = await s.ask()
            assert (attempt.fault, attempt.session) == (Fault.NODE, None)
            assert attempt.error is not None and "node" in attempt.error
            s.net.nodes[0].faults = NodeFaults()
            await asyncio.sleep(0.2)  # nodes that fail are left alone for a moment
            assert (await s.ask(1)).fault is Fault.OK
            s.net.nodes[0].faults = NodeFaults(down=True)
            await asyncio.sleep(0.3)
            assert s.book.failure is not None
            assert (await s.ask(2)).fault is Fault.OK
            # a miner that speaks of the session now is not to blame: nobody can tell
            s.fault("expired")
            assert (await s.ask(3)).fault is Fault.ROLLOVER

    run(body)


def test_the_chain_is_not_asked_for_every_relay():
    async def body() -> None:
        async with setting("ha", 2, poll_s=60.0) as s:
            await s.ask(0)
            asked = s.net.nodes[0].asked
            endpoints = [s.endpoint("sim-01"), s.endpoint("sim-02")]
            attempts = await asyncio.gather(
                *(s.transport.send(e, relay_to(e, n)) for n in range(100) for e in endpoints)
            )
            assert {a.fault for a in attempts} == {Fault.OK}
            assert s.net.nodes[0].asked - asked <= 1  # the other supplier's public key, once

    run(body)


def test_without_public_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch):
    """No answer could be verified: no stake is burnt for it, and nobody is to blame."""
    monkeypatch.setattr(services, "KEY_AGAIN_S", 0.2)

    async def body() -> None:
        async with setting("classic") as s:
            s.fault("null_pubkey")
            for number in range(3):
                attempt = await s.ask(number)
                assert attempt.fault is Fault.NODE and attempt.error is not None
                assert "no public key" in attempt.error
            assert not s.net.ledger.relays
            left = s.book.left(s.served().operator)
            assert left == 0 and not s.book.reserve(s.served().operator)
            s.clear()
            await asyncio.sleep(0.25)
            assert (await s.ask(4)).fault is Fault.OK

    run(body)


class Mistaken:
    """A chain client that at first tells a wrong public key of one account."""

    def __init__(self, real: Any, address: str, wrong: bytes) -> None:
        self._real, self._address, self._wrong = real, address, wrong
        self.fresh = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def public_key(self, address: str, *, fresh: bool = False) -> bytes | None:
        self.fresh += fresh
        if address == self._address and not fresh:
            return self._wrong
        found: bytes | None = self._real.public_key(address, fresh=fresh)
        return found


def test_a_public_key_that_does_not_fit_is_asked_for_once_more():
    async def body() -> None:
        async with setting("classic") as s:
            wrong = private_key(0, "somebody").public_key
            client = Mistaken(s.client, s.served().operator, wrong)
            other = ShannonTransport({SERVICE: replace(s.service, client=client)})
            try:
                endpoint = s.endpoint()
                assert (await other.send(endpoint, relay_to(endpoint))).fault is Fault.OK
                assert client.fresh == 1
                s.fault("wrong_signer")
                for number in range(1, 6):
                    attempt = await other.send(endpoint, relay_to(endpoint, number))
                    assert attempt.fault is Fault.SUPPLIER_SIGNATURE
                assert client.fresh == 1  # forged answers do not have the node asked each time
            finally:
                await other.close()

    run(body)


# ----------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("flavour", ["classic", "ha"])
def test_a_budget_that_a_miner_says_is_used_up_is_its_word_and_ends_with_the_session(flavour: str):
    async def body() -> None:
        async with setting(flavour) as s:
            s.served().budget = 3  # the miner grants less than the stake would
            faults = [(await s.ask(number)).fault for number in range(6)]
            assert faults == [Fault.OK] * 3 + [Fault.QUOTA] + [Fault.BUDGET] * 2
            assert len(s.accepted()) == 3 and len(s.refused()) == 1  # then we know
            await s.reach(1011)
            assert (await s.ask(7)).fault is Fault.OK

    run(body)


def test_a_price_that_changes_within_a_session_holds_from_the_next():
    """Who starts in the middle of a session counts as its miners do, though nodes show the new price."""

    async def body() -> None:
        async with setting("classic", app_stake=2_000_000) as s:
            await s.learn()
            miner, operator = s.net.miners[0], s.served().operator
            header = s.book.sessions()[0].header
            before = s.book.left(operator)
            await s.reach(1003)
            chain = s.net.chain
            known = chain.service(SERVICE)
            chain.add_service(replace(known, compute_units_per_relay=known.compute_units_per_relay // 4))
            chain.change_params(
                compute_units_to_tokens_multiplier=chain.params(1).compute_units_to_tokens_multiplier // 2
            )
            await s.reach(1004)
            with ChainClient(rest=s.net.node_urls, timeout_s=3) as client:
                late = SessionBook(client, SERVICE, [*s.service.keys], poll_s=0.05)
                await asyncio.to_thread(late.refresh)
                assert late.left(operator) == before == miner.limit(s.served(), header, 1004)
                await s.reach(1011)
                following = s.book.sessions()[0].header
                after = s.book.left(operator)
                assert after == miner.limit(s.served(), following, 1011)
                assert after > 7 * before

    run(body)


def test_the_stake_bounds_relays_before_the_miner_does():
    async def body() -> None:
        # at 100 compute units a relay costs some upokt: a stake for few of them
        async with setting("classic", app_stake=2_000) as s:
            await s.learn()
            operator = s.served().operator
            granted = s.book.left(operator)
            miner = s.net.miners[0]
            header = s.book.sessions()[0].header
            assert granted == miner.limit(s.served(), header, 1001)
            assert 0 <= granted < 100
            attempts = [await s.ask(number) for number in range(granted + 2)]
            assert [a.fault for a in attempts] == [Fault.OK] * granted + [Fault.BUDGET] * 2
            assert attempts[-1].error == "no relay is left for the supplier in this session"
            assert not s.refused()

    run(body)


# -------------------------------------------------------------------------------- keys and rings


@pytest.mark.parametrize("ring", ["full", "self"])
@pytest.mark.parametrize("key", ["app", "gateway"])
@pytest.mark.parametrize("delegated", [True, False])
def test_rings(ring: str, key: str, delegated: bool):
    """Every way to sign is accepted; a gateway can sign only for those that delegate to it."""

    async def body() -> None:
        async with setting("classic", ring=ring, key=key, delegated=delegated) as s:
            app, gateway = private_key(s.net.seed, f"app-{SERVICE}"), private_key(s.net.seed, "gateway")
            await s.learn()
            (session,) = s.book.sessions()
            if key == "gateway" and not delegated:
                attempt = await s.ask()
                assert attempt.fault is Fault.INTERNAL and attempt.error is not None
                assert f"does not delegate to gateway {gateway.address}" in attempt.error
                assert not s.net.ledger.relays
                return
            assert (await s.ask()).fault is Fault.OK
            signer = await asyncio.to_thread(services.ring_signer, s.service, session)
            with_gateway = delegated and (ring == "full" or key == "gateway")
            assert set(signer.ring) == {app.public_key, *([gateway.public_key] if with_gateway else [])}
            assert len(signer.ring) == 2

    run(body)


def test_members_without_public_key_are_left_out_of_the_ring():
    async def body() -> None:
        async with setting("classic") as s:
            s.net.chain.set_public_key(s.net.gateways["gateway"], None)
            assert (await s.ask()).fault is Fault.OK

    run(body)


def test_a_key_of_another_account_signs_nothing():
    async def body() -> None:
        async with setting("classic") as s:
            app = next(iter(s.service.keys))
            other = private_key(0, "somebody else")
            for keys in ({app: (other, None)}, {}):
                wrong = ShannonTransport({SERVICE: replace(s.service, keys=keys)})
                endpoint = s.endpoint()
                attempt = await wrong.send(endpoint, relay_to(endpoint))
                await wrong.close()
                assert attempt.fault is Fault.INTERNAL and attempt.error is not None
                assert app in attempt.error and other.secret().hex() not in attempt.error
            assert not s.net.ledger.relays

    run(body)


def test_keys_appear_nowhere(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)

    async def body() -> None:
        async with setting("ha") as s:
            secret = private_key_hex(s.net.seed, f"app-{SERVICE}")
            seen: list[Any] = [await s.ask(), await s.ask(1, base_url="http://127.0.0.1:1")]
            s.fault("expired")
            seen += [await s.ask(2), s.service, s.transport, s.book, vars(s.transport)]
            (desk,) = s.transport._services.values()
            seen += [vars(desk)]
            raw = bytes.fromhex(secret)
            for each in seen:
                text = repr(each)
                assert secret not in text and str(int(secret, 16)) not in text and repr(raw)[2:-1] not in text
            assert secret not in caplog.text

    run(body)


def test_what_is_posted_is_the_canonical_message():
    key = PrivateKey(b"\x07" * 32)
    signer = RingSigner(key, [key.public_key] * 2)
    header = SessionHeader(key.address, "svc", "ab" * 32, 101, 2**40)
    for size in (0, 1, 127, 128, 16_383, 16_384, 300_000):
        payload = bytes(size)
        digest, message = signed_request(header, "pokt1supplier", payload, signer)
        sent = RelayRequest.decode(message)
        assert (sent.header, sent.supplier, sent.payload) == (header, "pokt1supplier", payload)
        assert sent.encode() == message and sent.signable_hash() == digest
        assert verify_ring(digest, sent.signature) and set(ring_members(sent.signature)) == {key.public_key}
    assert header_bytes(header) == header.encode()


# --------------------------------------------------------------------------------- HTTP towards miners


class Recorder:
    """A stand-in for a miner that remembers what it was sent and always answers the same."""

    def __init__(self, status: int = 502) -> None:
        self.status = status
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        return web.Response(status=self.status, text='{"error":"service temporarily unavailable"}')


@pytest.mark.parametrize("stream", [False, True])
def test_requests_do_not_tell_who_asks(stream: bool):
    async def body() -> None:
        recorder = Recorder()
        async with setting("ha") as s, serving(recorder.handle) as url:
            await s.ask(base_url=url, stream=stream)
            (headers,), (message,) = recorder.headers, recorder.bodies
            assert headers["Content-Type"] == "application/json" and headers["Rpc-Type"] == "4"
            relay = RelayRequest.decode(message)
            inner = HttpRequest.decode(relay.payload)
            assert (inner.method, inner.url) == ("POST", url + "/v1/chat/completions")
            assert relay.supplier == s.served().operator
            assert inner.headers["User-Agent"] == (headers["User-Agent"],)
            assert set(inner.headers) >= {"Accept", "Accept-Encoding", "Content-Type", "User-Agent"}
            assert b"testbench" not in message.lower() and "testbench" not in str(headers).lower()
            assert (b'"stream":true' in inner.body) == stream
            assert (b'"include_usage":true' in inner.body) == stream

    run(body)


def test_a_miner_without_that_rpc_type_is_asked_without_it():
    async def body() -> None:
        async with setting("ha") as s:
            s.served().rpc_types = (RpcType.JSON_RPC,)
            first = await s.ask()
            assert first.fault is Fault.OK and first.evidence["rpc_type_omitted"] is True
            assert (len(s.accepted()), len(s.refused())) == (1, 1)
            assert first.evidence["request_sha256"] == s.accepted()[0]["request_sha256"]
            second = await s.ask(1)
            assert second.fault is Fault.OK and len(s.refused()) == 1  # known from then on

    run(body)


@pytest.mark.parametrize("tunnel", [True, False])
def test_a_proxy_that_wants_credentials_is_not_the_miners_fault(tunnel: bool) -> None:
    password = "hunter2hunter2"
    proxy = Proxy(wants="Basic no", quotes=True)

    async def body() -> None:
        async with setting("ha") as s, listening(proxy):
            await s.ask()
            left = s.book.left(s.served().operator)
            route = Route(proxy=f"http://me:{password}@127.0.0.1:{proxy.port}")
            url = "https://miner.test" if tunnel else "http://miner.test"
            attempt = await s.ask(1, base_url=url, route=route)
            assert (attempt.fault, attempt.status) == (Fault.CREDENTIALS, 407)
            assert "the proxy answers HTTP 407" in (attempt.error or "") and "proxy_env" in remedy_of(attempt)
            assert password not in f"{attempt}{attempt.body!r}"
            assert s.book.left(s.served().operator) == left  # nothing of that is charged
            stored = attempt_record(relay_to(s.endpoint()), 1, attempt)
            seen = shown(stored, relay_to(s.endpoint()).request, "chat", attempt.error)
            assert Fault.CREDENTIALS in seen.faults  # others too where something was redacted

    run(body)


@pytest.mark.parametrize("bounds", [{"requests_per_minute": 60}, {"requests_per_day": 20}])
@pytest.mark.parametrize("in_run", [True, False])
def test_a_relay_that_is_posted_again_is_two_requests_of_the_pace(
    bounds: dict[str, int], in_run: bool, tmp_path: Path
) -> None:
    minute_s, suppliers = 3.0, 6

    async def body() -> None:
        async with setting("ha", suppliers, hosts=suppliers) as s:
            names = [f"sim-{number:02d}" for number in range(1, suppliers + 1)]
            work = []
            for name in names:
                s.served(name).rpc_types = (RpcType.JSON_RPC,)
                endpoint = s.endpoint(name, pace=Pace("account:key", **bounds))
                work.append((endpoint, [relay_to(endpoint)]))
            with closing(SqliteDocuments(tmp_path / "documents.sqlite3")) as documents:
                ledger = PaceLedger(documents, minute_s=minute_s)
                pacing = Pacing(ledger, DayLedger(documents))
                began = ledger.now()
                if in_run:
                    report = await relay_all(work, s.transport, lambda *_: None, pacing=pacing)
                    assert report.total.answered == suppliers
                else:
                    paced = PacedTransport(s.transport, pacing)
                    asked = [paced.send(endpoint, relay) for endpoint, (relay,) in work]
                    assert {attempt.fault for attempt in await asyncio.gather(*asked)} == {Fault.OK}
                pacing.close()
                day = DayLedger(documents).left(work[0][0].pace, datetime.now(UTC))
            at = sorted(relay.at.timestamp() for relay in s.net.ledger.relays)
            assert len(at) == 2 * suppliers
            if "requests_per_day" in bounds:
                assert day == 20 - 2 * suppliers
            else:
                gap_s = ledger.gap_s(work[0][0].pace)
                assert at[-1] - began >= (len(at) - 1) * gap_s

    run(body)


def test_a_relay_that_may_not_be_posted_again_today_is_left_as_it_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with setting("ha") as s:
            s.served().rpc_types = (RpcType.JSON_RPC,)
            endpoint = s.endpoint(pace=Pace("account:key", requests_per_day=1))
            with closing(SqliteDocuments(tmp_path / "documents.sqlite3")) as documents:
                pacing = Pacing.over(documents)
                work = [(endpoint, [relay_to(endpoint)])]
                report = await relay_all(work, s.transport, lambda *_: None, pacing=pacing)
                assert report.total.faults == {Fault.UNAVAILABLE: 1}
                pacing.close()
            assert len(s.net.ledger.relays) == 1

    run(body)


def test_a_miner_that_is_unavailable_is_not_asked_twice_each_time():
    async def body() -> None:
        recorder = Recorder(503)
        async with setting("ha") as s, serving(recorder.handle) as url:
            operator = s.served().operator
            for number in range(3):
                attempt = await s.ask(number, base_url=url)
                assert (attempt.fault, attempt.status) == (Fault.UNAVAILABLE, 503)
            assert [headers.get("Rpc-Type") for headers in recorder.headers] == ["4", None, "4", "4"]
            assert len(set(recorder.bodies[:2])) == 1  # one relay, posted again
            before = s.book.left(operator)
            await s.ask(4, base_url=url, rpc_type=None)
            assert "Rpc-Type" not in recorder.headers[-1]
            assert s.book.left(operator) == before  # nothing of that is charged

    run(body)


@pytest.mark.parametrize(
    ("changes", "fault", "said"),
    [
        ({"private_allowed": False}, Fault.CLIENT_REQUEST, "127.0.0.1 is a private"),
        ({"base_url": "http://localhost:9", "private_allowed": False}, Fault.CLIENT_REQUEST, "this machine"),
        ({"base_url": "ws://127.0.0.1:9"}, Fault.CLIENT_REQUEST, "staked URL"),
        ({"base_url": "http://user:pw@127.0.0.1:9"}, Fault.CLIENT_REQUEST, "staked URL"),
        ({"base_url": "http://127.0.0.1:99999"}, Fault.CLIENT_REQUEST, "staked URL"),
        ({"base_url": "http://[::1"}, Fault.CLIENT_REQUEST, "staked URL"),
        ({"base_url": "http://127.0.0.1:1"}, Fault.TRANSPORT, "connect"),
        ({"api": "completions"}, Fault.CLIENT_REQUEST, "prompt"),
    ],
)
def test_what_cannot_be_sent_is_not_charged(changes: dict[str, Any], fault: Fault, said: str):
    async def body() -> None:
        async with setting("classic") as s:
            await s.learn()
            before = s.book.left(s.served().operator)
            attempt = await s.ask(**changes)
            assert attempt.fault is fault and attempt.error is not None and said in attempt.error, attempt
            assert "pw" not in attempt.error
            assert s.book.left(s.served().operator) == before
            assert not s.net.ledger.relays

    run(body)


def test_https_without_tls_is_a_matter_of_transport():
    async def body() -> None:
        async with setting("classic") as s:
            url = s.endpoint().base_url.replace("http:", "https:")
            assert (await s.ask(base_url=url)).fault is Fault.TRANSPORT

    run(body)


# ------------------------------------------------------------------------------------------ streams


def test_the_first_token_is_timed_while_the_answer_streams():
    async def body() -> None:
        async with setting("ha", people=[SLOW]) as s:
            attempt = await s.ask(stream=True)
            assert attempt.fault is Fault.OK
            parts = attempt.evidence["envelope"]["parts"]
            assert len(parts) >= 3
            assert sum(part[1] for part in parts) == len(attempt.body)
            verify_evidence(attempt.body, attempt.evidence)
            assert attempt.first_byte_ms is not None and attempt.first_token_ms is not None
            assert attempt.first_byte_ms <= attempt.first_token_ms < attempt.latency_ms - 100
            whole = await s.ask(stream=False)
            assert whole.text == attempt.text and whole.first_token_ms is None

    run(body)


def test_a_service_may_ask_all_its_miners_for_streams():
    async def body() -> None:
        async with setting("ha", stream=True) as s:
            attempt = await s.ask()
            assert attempt.fault is Fault.OK and attempt.first_token_ms is not None
            assert attempt.body.startswith(b"data: ")

    run(body)


def test_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "MAX_PARTS", 2)

    async def body() -> None:
        async with setting("ha", people=[SLOW]) as s:
            attempt = await s.ask(stream=True)
            assert attempt.fault is Fault.SUPPLIER_PROTOCOL
            assert attempt.error is not None and "2 are allowed" in attempt.error

    run(body)


# ---------------------------------------------------------------------------------- other requests


def test_pages_of_the_backend_can_be_relayed():
    async def body() -> None:
        async with setting("classic") as s:
            endpoint = s.endpoint()
            relay = relay_to(endpoint)
            relay.request = {"type": "get", "idx": 0, "path": "/pokt/config"}
            attempt = await s.transport.send(endpoint, relay)
            assert attempt.fault is Fault.OK and attempt.text is not None and "model_type" in attempt.text
            assert attempt.evidence["path"] == "/pokt/config"
            again = await s.transport.send(endpoint, relay)  # pages are the same every time
            assert again.fault is Fault.OK

    run(body)


def test_an_unknown_service_is_our_mistake():
    async def body() -> None:
        async with setting("classic") as s:
            endpoint = s.endpoint(service="other")
            attempt = await s.transport.send(endpoint, relay_to(endpoint))
            assert attempt.fault is Fault.INTERNAL
            assert attempt.error == "service 'other' has no applications"

    run(body)


def test_the_same_question_may_get_the_same_answer():
    """Asked again, as after a failure: an answer from a cache is no replay."""

    async def body() -> None:
        async with setting("classic") as s:
            assert (await s.ask(1)).fault is Fault.OK
            s.fault("replay")
            assert (await s.ask(1)).fault is Fault.OK
            assert (await s.ask(2)).fault is Fault.SUPPLIER_SIGNATURE

    run(body)


# ------------------------------------------------------------------------------------------ the loop


def test_cancellation_is_raised_and_ends_nothing_else():
    async def body() -> None:
        async with setting("ha", 2) as s:
            s.fault("hang")
            task = asyncio.create_task(s.ask())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await s.ask(1, "sim-02")).fault is Fault.OK

    run(body)


def test_closing_ends_what_was_started():
    async def body() -> None:
        async with setting("ha") as s:
            before = asyncio.all_tasks()
            await s.ask()
            assert len(asyncio.all_tasks()) > len(before)
            await s.transport.close()
            await asyncio.sleep(0)
            ours = [t for t in asyncio.all_tasks() - before if "shannon" in repr(t.get_coro())]
            assert not ours
            assert (await s.ask(1)).fault is Fault.OK  # begins anew

    run(body)


def test_a_mistake_of_ours_costs_one_relay(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret details")

    async def body() -> None:
        async with setting("classic") as s:
            with monkeypatch.context() as patch:
                patch.setattr(transport, "read_response", broken)
                attempt = await s.ask()
            assert (attempt.fault, attempt.error) == (Fault.INTERNAL, "RuntimeError in the transport")
            assert (await s.ask(1)).fault is Fault.OK

    run(body)


@pytest.mark.parametrize("signed", [True, False])
def test_a_key_that_comes_back_is_blotted_out_and_told(signed: bool, caplog: pytest.LogCaptureFixture):
    """Whoever knows our key may say it: no answer is kept with it, and the log says that it is lost."""

    async def body() -> None:
        async with setting("ha" if signed else "classic") as s:
            secret = private_key_hex(s.net.seed, f"app-{SERVICE}")
            said = {"choices": [{"message": {"content": f"I know {secret}"}, "finish_reason": "stop"}]}

            async def respond(method: str, path: str, body: bytes) -> Reply:
                return json_reply(said if signed else {"error": {"message": f"no, {secret.upper()}"}})

            s.served().backend.respond = respond  # type: ignore[method-assign]
            if not signed:
                s.fault("unsigned")
            attempt = await s.ask()
            kept = repr(attempt).encode() + attempt.body
            assert secret.encode() not in kept and secret.upper().encode() not in kept
            assert attempt.evidence["redacted"] is True and "envelope" not in attempt.evidence
            if signed:
                assert (attempt.fault, attempt.text) == (Fault.OK, "I know [redacted]")
                assert "use another key" in caplog.text and secret not in caplog.text
            else:
                assert attempt.fault is Fault.SUPPLIER_SIGNATURE

    run(body)
