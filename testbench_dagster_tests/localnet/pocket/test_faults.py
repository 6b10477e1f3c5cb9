"""Every fault as a client sees it, on both flavours; when faults fire."""

import asyncio
import hashlib
import json
import ssl
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from testbench_dagster.localnet.personas import Persona
from testbench_dagster.localnet.pocket.faults import CHAIN, ENVELOPE, KINDS, REFUSALS, FaultRule, Faults
from testbench_dagster.transports.pocket.errors import CodecError, ResponseError
from testbench_dagster.transports.pocket.messages import RelayResponse
from testbench_dagster.transports.pocket.responses import verify_response
from testbench_dagster.transports.pocket.secp256k1 import N
from testbench_dagster.transports.pocket.streams import PartSplitter
from testbench_dagster_tests.localnet.pocket.client import GOOD, chat, people, running

CLASSIC, HA = "s1", "s2"
SHORT = aiohttp.ClientTimeout(total=0.4)


def run(scenario):
    return asyncio.run(scenario())


async def faulty(client, supplier, kind, **options):
    await client.sim("fault", supplier=supplier, kind=kind, **options)
    answer = await client.relay(supplier, body=options.pop("body", None))
    assert client.last().outcome == kind
    return answer


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
@pytest.mark.parametrize("kind", ["down", "reset", "stream_cut"])
def test_broken_connections(supplier, kind):
    async def scenario():
        async with running() as client:
            await client.sim("fault", supplier=supplier, kind=kind)
            with pytest.raises(aiohttp.ClientError):
                await client.relay(supplier)
            assert client.last().outcome == kind
            await client.sim("clear", supplier=supplier)
            assert (await client.relay(supplier)).status == 200

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
@pytest.mark.parametrize(
    ("kind", "classic", "ha", "accepted"),
    [
        ("rate_limited", ("relayer_proxy", 7), 429, False),
        ("expired", ("relay_authenticator", 1), 403, False),
        ("not_in_session", ("relay_authenticator", 2), 403, False),
        ("not_reachable", ("relayer_proxy", 9), 503, False),
        ("timeout", ("relayer_proxy", 10), 504, True),
        ("internal", ("relayer_proxy", 5), 502, True),
    ],
)
def test_errors_a_miner_tells(supplier, kind, classic, ha, accepted):
    async def scenario():
        async with running() as client:
            answer = await faulty(client, supplier, kind)
            assert client.last().accepted == accepted
            if supplier == HA:
                assert (answer.status, list(json.loads(answer.body))) == (ha, ["error"])
                return
            error = answer.relay.error
            assert (answer.status, answer.relay.signature) == (200, b"")
            assert (error.codespace, error.code) == classic
            assert error.description
            assert answer.relay.payload.decode() == error.message
            assert answer.relay.header == answer.sent.header
            with pytest.raises(ResponseError, match="relay miner"):
                answer.verified(client.key(supplier))

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_web_pages_in_place_of_answers(supplier):
    async def scenario():
        async with running() as client:
            bad = await faulty(client, supplier, "html", times=1)
            assert (bad.status, bad.headers["Content-Type"].split(";")[0]) == (502, "text/html")
            await client.sim("clear", supplier=supplier)
            good = await faulty(client, supplier, "html200")
            assert good.status == 200
            with pytest.raises(ResponseError, match="no RelayResponse"):
                _ = good.relay

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_answers_that_go_wrong_on_the_way(supplier):
    async def scenario():
        async with running() as client:
            key = client.key(supplier)
            empty = await faulty(client, supplier, "empty")
            assert (empty.status, empty.body) == (200, b"")
            await client.sim("clear", supplier=supplier)
            with pytest.raises(ResponseError, match="no RelayResponse"):
                _ = (await faulty(client, supplier, "truncated")).relay
            await client.sim("clear", supplier=supplier)
            packed = await faulty(client, supplier, "gzip")
            assert packed.headers["Content-Encoding"] == "gzip"
            assert packed.verified(key).status == 200
            await client.sim("clear", supplier=supplier)
            for kind in ("slow_headers", "slow_body"):
                began = time.monotonic()
                answer = await faulty(client, supplier, kind, seconds=0.2)
                assert answer.verified(key).status == 200
                assert time.monotonic() - began >= 0.2
                await client.sim("clear", supplier=supplier)
            assert {r.accepted for r in client.net.ledger.relays} == {True}

    run(scenario)


def test_hanging():
    async def scenario():
        async with running() as client:
            await client.sim("fault", supplier=CLASSIC, kind="hang")
            relay = await client.request(CLASSIC, chat())
            url = client.net.find(CLASSIC)[0].url
            with pytest.raises(asyncio.TimeoutError):
                async with client.http.post(url, data=relay.encode(), timeout=SHORT):
                    pass
            await asyncio.sleep(0.05)
            last = client.last()
            assert (last.outcome, last.accepted, last.cost) == ("hang", True, 0)

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_backends_that_fail(supplier):
    async def scenario():
        async with running() as client:
            key = client.key(supplier)
            assert (await faulty(client, supplier, "backend_4xx")).verified(key).status == 404
            await client.sim("clear", supplier=supplier)
            answer = await faulty(client, supplier, "backend_5xx")
            if supplier == CLASSIC:
                assert answer.verified(key).status == 500
            else:
                assert (answer.status, list(json.loads(answer.body))) == (500, ["error"])
            assert client.last().cost == 0
            await client.sim("clear", supplier=supplier)
            big = (await faulty(client, supplier, "oversized", megabytes=3)).verified(key)
            assert len(big.body) > 3_000_000
            assert json.loads(big.body)["choices"]

    run(scenario)


WRONG = {
    "unsigned": "unsigned",
    "bad_signature": "signature",
    "high_s": "signature",
    "wrong_signer": "signature",
    "swapped_payload": "payload_hash",
    "wrong_header": "session_header",
    "foreign_session": "session_header",
}


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
@pytest.mark.parametrize("kind", WRONG)
def test_envelopes_that_prove_nothing(supplier, kind):
    async def scenario():
        async with running() as client:
            answer = await faulty(client, supplier, kind)
            key, relay = client.key(supplier), answer.relay
            with pytest.raises(ResponseError) as error:
                answer.verified(key)
            assert error.value.reason == WRONG[kind]
            # the rest is right, so that nothing but the fault can be what was found
            if kind in ("wrong_header", "foreign_session"):
                assert verify_response(relay, relay.header, key).status == 200
            if kind == "swapped_payload":
                with pytest.raises(ResponseError) as forged:
                    verify_response(replace(relay, payload_hash=b""), relay.header, key)
                assert forged.value.reason == "signature"
                assert b"forged" in relay.payload
            if kind == "high_s":
                s = N - int.from_bytes(relay.signature[32:], "big")
                low = replace(relay, signature=relay.signature[:32] + s.to_bytes(32, "big"))
                assert verify_response(low, relay.header, key).status == 200

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_answers_of_old_miners_are_valid(supplier):
    async def scenario():
        async with running() as client:
            answer = await faulty(client, supplier, "no_payload_hash")
            assert answer.relay.payload_hash == b""
            assert answer.verified(client.key(supplier)).status == 200

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_replays_are_of_another_session_if_there_was_one(supplier):
    async def scenario():
        async with running() as client:
            first = await client.relay(supplier, 0)
            await client.sim("fault", supplier=supplier, kind="replay")
            same = await client.relay(supplier, 1)
            assert same.body == first.body  # nothing in the protocol tells
            await client.sim("roll")
            later = await client.relay(supplier, 1)
            assert later.body == first.body
            with pytest.raises(ResponseError) as error:
                later.verified(client.key(supplier))
            assert error.value.reason == "session_header"

    run(scenario)


# ------------------------------------------------------------------------------------------- streams


def streaming(kind):
    """Parts, what follows the last separator, and the client, of a stream with a fault."""

    async def scenario():
        slow = replace(GOOD, latency_ms=350)
        async with running(Persona("s1", slow), Persona("s2", slow)) as client:
            await client.sim("fault", supplier=HA, kind=kind, seconds=0.4)
            relay = await client.request(HA, chat(stream=True))
            began, raw = time.monotonic(), b""
            try:
                async with client.http.post(client.net.find(HA)[0].url, data=relay.encode()) as response:
                    async for part in response.content.iter_any():
                        raw += part
                clean = True
            except aiohttp.ClientPayloadError:
                clean = False
            splitter = PartSplitter()
            parts = splitter.feed(raw)
            took, tail = time.monotonic() - began, splitter.finish()
            return parts, tail, clean, took, relay, client.key(HA), client.last()

    return asyncio.run(scenario())


def test_streams_without_their_end():
    parts, tail, clean, _, relay, key, last = streaming("unterminated")
    assert clean
    assert parts
    assert verify_response(RelayResponse.decode(tail), relay.header, key).body.endswith(b"[DONE]\n\n")
    assert last.outcome == "unterminated"
    parts, tail, clean, *_ = streaming("stream_cut")
    assert not clean
    assert parts
    with pytest.raises(CodecError):
        RelayResponse.decode(tail)


def test_streams_with_parts_that_are_wrong():
    parts, tail, clean, _, relay, key, _ = streaming("bad_signature")
    assert (tail, clean) == (None, True)
    for part in parts:
        with pytest.raises(ResponseError, match="signature"):
            verify_response(RelayResponse.decode(part), relay.header, key)
    parts, tail, *_ = streaming("truncated")
    assert tail is None
    with pytest.raises(CodecError):
        RelayResponse.decode(parts[-1])
    assert streaming("empty")[0] == []
    slow = streaming("slow_body")
    assert slow[3] > 0.7
    assert all(verify_response(RelayResponse.decode(p), slow[4].header, slow[5]) for p in slow[0])


# ----------------------------------------------------------------------------------------- the chain


def test_faults_on_the_chain_come_and_go():
    async def scenario():
        async with running() as client:
            operator = client.net.operator(HA)
            await client.sim("fault", supplier=HA, kind="null_pubkey")
            _, shown = await client.get(f"/cosmos/auth/v1beta1/accounts/{operator}")
            assert shown["account"]["pub_key"] is None
            answer = await client.relay(HA)
            with pytest.raises(ResponseError) as error:
                answer.verified(None)
            assert error.value.reason == "no_public_key"
            await client.sim("fault", supplier=HA, kind="tls")
            path = f"/pokt-network/poktroll/supplier/supplier/{operator}"
            _, staked = await client.get(path)
            (endpoint,) = staked["supplier"]["services"][0]["endpoints"]
            assert endpoint["url"] == client.net.miners[1].url.replace("http", "https")
            with pytest.raises((aiohttp.ClientConnectorSSLError, ssl.SSLError)):
                await client.post_raw(endpoint["url"], answer.posted)
            session = client.net.chain.session(
                client.net.apps["app-simulation"].address, "simulation", client.net.chain.height
            )
            assert [s.offers[0].endpoints[0].url for s in session.suppliers
                    if s.stake.operator == operator] == [endpoint["url"]]  # fmt: skip
            await client.sim("clear", supplier=HA)
            _, staked = await client.get(path)
            assert staked["supplier"]["services"][0]["endpoints"][0]["url"] == client.net.miners[1].url
            _, shown = await client.get(f"/cosmos/auth/v1beta1/accounts/{operator}")
            assert shown["account"]["pub_key"]["key"]

    run(scenario)


def test_a_host_that_is_down_refuses_connections_and_comes_back_where_it_was():
    async def scenario():
        async with running() as client:
            url = client.net.find(HA)[0].url
            relay = await client.request(HA, chat())
            assert (await client.sim("host", host="host-2", up=False))["up"] is False
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.post(HA, relay)
            assert (await client.sim("host", host="host-2", up=True))["url"] == url
            assert (await client.post(HA, relay)).verified(client.key(HA)).status == 200

    run(scenario)


# ------------------------------------------------------------------------------------ when they fire


def test_every_fault_is_named_and_tested_here():
    text = Path(__file__).read_text("utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
    assert set(WRONG) | {"no_payload_hash", "replay"} == set(ENVELOPE)
    assert set(REFUSALS) & set(ENVELOPE) == set()


def test_schedules():
    faults = Faults(0, "s")
    faults.set([FaultRule("empty", from_height=5, until_height=6, after=1, times=2)])
    fired = [faults.pick(f"r{n}", 0, height) is not None for n, height in enumerate((4, 5, 5, 5, 5, 7))]
    assert fired == [False, False, True, True, False, False]
    assert faults.describe() == [{"kind": "empty", "rate": 1.0, "fired": 2}]
    faults.set([*faults.rules, FaultRule("html", from_height=9)])  # one more: the counts go on
    assert faults.pick("r", 0, 5) is None
    assert faults.pick("r", 0, 9).kind == "html"
    faults.set([FaultRule("unsigned", rate=0.0), FaultRule("empty"), FaultRule("html")])
    assert faults.pick("r", 0, 1).kind == "empty"


def test_draws_follow_the_relay_not_the_order():
    names = [hashlib.sha256(bytes([n])).hexdigest() for n in range(200)]

    def drawn(order, attempt=0):
        faults = Faults(3, "s", [FaultRule("empty", rate=0.3)])
        return {name: faults.pick(name, attempt, 1) is not None for name in order}

    assert drawn(names) == drawn(reversed(names))
    assert 40 < sum(drawn(names).values()) < 80
    assert drawn(names) != drawn(names, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "sabotage"}, "no fault"),
        ({"kind": "down", "rate": 1.5}, "share"),
        ({"kind": "slow_body", "seconds": -1}, "negative"),
        ({"kind": "oversized", "megabytes": 1000}, "megabytes"),
        *(({"kind": kind, "rate": 0.5}, "on or off") for kind in CHAIN),
        ({"kind": "tls", "times": 3}, "on or off"),
    ],
)
def test_rules_that_cannot_be(fields, said):
    with pytest.raises(ValueError, match=said):
        FaultRule(**fields)


def test_draws_on_the_wire():
    async def scenario():
        async with running(*people(2)) as client:
            await client.sim("fault", supplier=CLASSIC, kind="html200", rate=0.5)
            outcomes = []
            for number in range(16):
                await client.relay(CLASSIC, number % 8)
                outcomes.append(client.last().outcome)
            assert {"ok", "html200"} == set(outcomes)

    run(scenario)
