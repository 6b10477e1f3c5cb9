"""Relay miners: both flavours, what they refuse and how, what they sign, what the ledger says."""

import asyncio
import hashlib
import json
from dataclasses import replace

import pytest

from testbench_dagster.localnet.personas import Persona
from testbench_dagster.transports.pocket.messages import HttpResponse, RelayResponse
from testbench_dagster.transports.pocket.responses import read_response, verify_response
from testbench_dagster.transports.pocket.streams import SEPARATOR, PartSplitter
from testbench_dagster_tests.localnet.pocket.client import APP, DOCS, GOOD, chat, people, running

CLASSIC, HA = "s1", "s2"


def said(answer, flavour):
    """Codespace and code of a classic refusal, status and text of an HA one."""
    if flavour == HA:
        return answer.status, json.loads(answer.body)["error"]
    assert answer.status == 200
    error = answer.relay.error
    assert answer.relay.signature == b""
    assert answer.relay.payload == error.message.encode()
    return (error.codespace, error.code), error.message


def run(scenario):
    return asyncio.run(scenario())


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_a_relay_is_answered_signed_and_written_down(supplier):
    async def scenario():
        async with running() as client:
            answer = await client.relay(supplier)
            http = answer.verified(client.key(supplier))
            text = json.loads(http.body)["choices"][0]["message"]["content"]
            assert DOCS[0]["answer"] in text
            assert http.status == 200
            assert http.headers["Content-Type"] == ("application/json",)
            assert answer.relay.payload_hash == hashlib.sha256(answer.relay.payload).digest()
            # by the key of anyone else it does not verify
            with pytest.raises(ValueError, match="signature"):
                verify_response(
                    answer.relay, answer.sent.header, client.key("s1" if supplier == HA else "s2")
                )
            _, plain = 0, (await plain_text(client, supplier))
            assert plain == text
            (entry,) = client.net.ledger.since(0, accepted=True)
            assert entry["supplier"] == answer.sent.supplier
            assert entry["request_hash"] == answer.sent.signable_hash().hex()
            assert entry["request_sha256"] == hashlib.sha256(answer.posted).hexdigest()
            assert entry["session_id"] == answer.sent.header.session_id
            assert (entry["height"], entry["outcome"], entry["cost"]) == (1001, "ok", 145.99)
            assert (answer.headers.get("Connection") == "close") == (supplier == CLASSIC)

    run(scenario)


async def plain_text(client, name):
    async with client.http.post(f"{client.net.url}/{name}/v1/chat/completions", data=chat()) as response:
        return (await response.json())["choices"][0]["message"]["content"]


def test_pages_and_models_are_relayed():
    async def scenario():
        async with running() as client:
            for path in ("/pokt/tokenizer", "/pokt/config", "/v1/models"):
                answer = await client.post(CLASSIC, await client.request(CLASSIC, path=path, method="GET"))
                http = answer.verified(client.key(CLASSIC))
                status, plain = await client.get(f"/{CLASSIC}{path}")
                assert (http.status, json.loads(http.body)) == (status, plain)
                assert status == 200
            answer = await client.relay(CLASSIC, path="/elsewhere")
            assert answer.verified(client.key(CLASSIC)).status == 404

    run(scenario)


def test_completions_with_logprobs_over_relays():
    async def scenario():
        async with running(Persona("s1", GOOD, "completions")) as client:
            client.app = client.signer = "app-simulation-completions"
            body = json.dumps({"prompt": "a b", "echo": True, "logprobs": 1, "max_tokens": 1}).encode()
            answer = await client.relay("s1", body=body, path="/v1/completions")
            choice = json.loads(answer.verified(client.key("s1")).body)["choices"][0]
            assert len(choice["logprobs"]["tokens"]) == 3

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
@pytest.mark.parametrize(
    ("change", "classic", "ha", "text", "outcome"),
    [
        ({"session_id": "00" * 32}, ("relay_authenticator", 1), 403, "mismatch", "session_mismatch"),
        ({"end_height": 1011}, ("relay_authenticator", 1), 403, "mismatch", "session_mismatch"),
        ({"end_height": 900, "start_height": 891}, ("relay_authenticator", 1), 403, "expired", "expired"),
        ({"start_height": 0}, ("relay_authenticator", 1), 400, "implausible", "implausible"),
        ({"start_height": 10**9, "end_height": 10**9 + 9}, ("relay_authenticator", 1), 400, "implausible",
         "implausible"),
        ({"service": "elsewhere"}, ("relayer_proxy", 3), 404, "elsewhere", "unknown_service"),
        ({"application": "pokt1nobody"}, ("undefined", 1), 403, "not found", "no_app"),
    ],
)  # fmt: skip
def test_session_headers_that_are_refused(supplier, change, classic, ha, text, outcome):
    async def scenario():
        async with running() as client:
            header = replace(await client.session(), **change)
            answer = await client.relay(supplier, header=header)
            code, message = said(answer, supplier)
            assert code == (ha if supplier == HA else classic)
            assert text in message
            assert client.last().outcome == outcome
            assert not client.last().accepted
            assert client.net.backends.stats()["suppliers"][supplier]["requests"] == 0
            if supplier == CLASSIC:
                assert answer.relay.header == header

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_signatures_are_verified(supplier):
    async def scenario():
        async with running() as client:
            relay = await client.request(supplier, chat())
            signature = bytearray(relay.signature)
            signature[10] ^= 1
            forged = await client.post(supplier, replace(relay, signature=bytes(signature)))
            assert said(forged, supplier)[0] == (403 if supplier == HA else ("rings", 3))
            for garbage in (b"", b"\0" * 4, b"\x7f" * 199):
                answer = await client.post(supplier, replace(relay, signature=garbage))
                assert said(answer, supplier)[0] == (403 if supplier == HA else ("rings", 2))
            # signed well, but by somebody else
            client.signer = "stranger"
            answer = await client.relay(supplier)
            code, message = said(answer, supplier)
            assert code == (403 if supplier == HA else ("rings", 3))
            assert "does not match" in message
            # signed well, but for another payload
            swapped = replace(relay, payload=relay.payload + b"\0")
            assert (await client.post(supplier, swapped)).status == (403 if supplier == HA else 200)
            assert [r.accepted for r in client.net.ledger.relays] == [False] * 6
            client.signer = "gateway"  # the app delegates to it
            assert (await client.relay(supplier)).verified(client.key(supplier)).status == 200

    run(scenario)


def test_the_placeholder_signs_for_apps_without_gateway():
    from testbench_dagster.transports.pocket.keys import _placeholder
    from testbench_dagster.transports.pocket.rings import RingSigner

    async def scenario(delegated):
        async with running(delegated=delegated) as client:
            relay = await client.request(CLASSIC, chat())
            stranger = _placeholder()
            ring = RingSigner(stranger, [client.key(APP), stranger.public_key])
            answer = await client.post(CLASSIC, replace(relay, signature=ring.sign(relay.signable_hash())))
            return answer.relay.error is None

    assert asyncio.run(scenario(False))
    assert not asyncio.run(scenario(True))


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_garbage_and_strangers(supplier):
    async def scenario():
        async with running() as client:
            url = client.net.find(supplier)[0].url
            for posted in (b"\xff\xff", b"\x0a\x00", b"<html>"):
                answer = await client.post_raw(url, posted)
                if supplier == HA:
                    assert answer.status == 400
                else:
                    assert (answer.relay.error.codespace, answer.relay.error.code) == ("relayer_proxy", 14)
            relay = await client.request(supplier, chat())
            unknown = client.sign(replace(relay, supplier=client.net.operator("nobody"), signature=b""))
            answer = await client.post_raw(url, unknown.encode(), unknown)
            assert said(answer, supplier)[0] == (503 if supplier == HA else ("relayer_proxy", 9))
            # another's host does not serve it either
            other = next(m for m in client.net.miners if m.url != url)
            assert (await client.post_raw(other.url, relay.encode(), relay)).status in (200, 503)
            assert client.last().outcome == "not_reachable"
            async with client.http.get(url) as response:
                assert response.status == 405

    run(scenario)


def test_bodies_that_are_too_long(monkeypatch):
    monkeypatch.setattr("testbench_dagster.localnet.pocket.miner.MAX_BODY", 1000)

    async def scenario():
        async with running() as client:
            urls = [miner.url for miner in client.net.miners]
            classic, ha = [await client.post_raw(url, b"\0" * 1001) for url in urls]
            assert (classic.relay.error.code, ha.status) == (13, 413)

    run(scenario)


def test_rpc_types():
    async def scenario():
        async with running() as client:
            # as staked, unsaid, and another: HA has no backend for that, classic does not mind
            for supplier in (CLASSIC, HA):
                relay = await client.request(supplier, chat())
                assert (await client.post(supplier, relay, Rpc_Type="4")).status == 200
                assert (await client.post(supplier, relay)).status == 200
                other = await client.post(supplier, relay, Rpc_Type="3")
                assert other.status == (503 if supplier == HA else 200)
            assert client.last().outcome == "no_backend"
            # staked as JSON_RPC, though the operator only has a REST backend
            await client.sim("url", supplier=HA, rpc_type="json_rpc", backends=["rest"], now=True)
            relay = await client.request(HA, chat())
            assert (await client.post(HA, relay, Rpc_Type="3")).status == 503

    run(scenario)


# ------------------------------------------------------------------------------------------ sessions


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_a_session_is_served_to_the_end_of_its_grace(supplier):
    async def scenario():
        async with running(blocks_per_session=10, grace=3) as client:
            old = await client.session()
            assert (old.start_height, old.end_height) == (1001, 1010)
            outcomes = []
            for height in (1001, 1010, 1011, 1013, 1014):
                await client.sim("height", height=height)
                answer = await client.relay(supplier, header=old)
                outcomes.append((client.last().height, client.last().outcome))
            assert outcomes == [(1001, "ok"), (1010, "ok"), (1011, "ok"), (1013, "ok"), (1014, "expired")]
            assert "session expired" in said(answer, supplier)[1]
            new = await client.session()
            assert new.start_height == 1011
            assert new.session_id != old.session_id
            await client.relay(supplier, header=new)
            assert client.last().outcome == "ok"

    run(scenario)


def test_a_host_that_is_behind_or_ahead():
    async def scenario():
        async with running(blocks_per_session=10, grace=0) as client:
            old = await client.session()
            await client.sim("height", height=1011)
            await client.sim("host", host="host-1", lag_blocks=1)
            new = await client.session()
            behind = await client.relay(CLASSIC, header=new)
            assert said(behind, CLASSIC)[0] == ("relay_authenticator", 1)
            assert "mismatch" in behind.relay.error.message
            assert (await client.relay(CLASSIC, header=old)).relay.error is None
            await client.sim("host", host="host-2", lag_blocks=-10)
            ahead = await client.relay(HA, header=new)
            assert said(ahead, HA) == (403, "session expired, expecting: 1020, got: 1021: invalid session in "
                                            "relayer request")  # fmt: skip

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_leaving_in_and_after_a_session(supplier):
    async def scenario():
        async with running(*people(3)) as client:
            header = await client.session()
            await client.sim("leave", supplier=supplier)
            assert (await client.relay(supplier, header=header)).verified(client.key(supplier)).status == 200
            await client.sim("roll")
            new = await client.session()
            answer = await client.relay(supplier, header=new)
            assert said(answer, supplier)[0] == (403 if supplier == HA else ("relay_authenticator", 2))
            # the session it was in is served in its grace
            assert (await client.relay(supplier, header=header)).verified(client.key(supplier)).status == 200
            # gone at once: the session stays, without it
            await client.sim("return", supplier=supplier, now=True)
            assert (await client.relay(supplier)).verified(client.key(supplier)).status == 200
            await client.sim("advance")
            await client.sim("leave", supplier=supplier, now=True)
            assert await client.session() == new
            answer = await client.relay(supplier, header=new)
            assert said(answer, supplier)[0] == (403 if supplier == HA else ("relay_authenticator", 2))

    run(scenario)


def test_delegations_end_with_their_session():
    async def scenario():
        async with running() as client:
            client.signer = "gateway"
            header = await client.session()
            await client.sim("undelegate", app=APP, gateway="gateway")
            assert (await client.relay(CLASSIC, header=header)).relay.error is None
            await client.sim("roll")
            assert (await client.relay(CLASSIC, header=header)).relay.error is None  # grace
            assert (await client.relay(CLASSIC)).relay.error.codespace == "rings"
            await client.sim("delegate", app=APP, gateway="second")
            client.signer = "second"
            assert (await client.relay(CLASSIC)).relay.error is None

    run(scenario)


# ------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_budgets_are_per_supplier_and_session(supplier):
    async def scenario():
        async with running(*people(4)) as client:
            await client.sim("budget", supplier=supplier, relays=2)
            for _ in range(3):
                answer = await client.relay(supplier)
            code, message = said(answer, supplier)
            assert code == (429 if supplier == HA else ("relayer_proxy", 7))
            assert "session relay limit reached" in message
            assert [r.accepted for r in client.net.ledger.relays] == [True, True, False]
            other = "s3" if supplier == CLASSIC else "s4"
            assert (await client.relay(other)).verified(client.key(other)).status == 200
            await client.sim("roll")
            assert (await client.relay(supplier)).verified(client.key(supplier)).status == 200
            await client.sim("budget", supplier=supplier)
            for _ in range(3):
                assert (await client.relay(supplier)).verified(client.key(supplier)).status == 200

    run(scenario)


def test_the_budget_follows_from_the_stake():
    async def scenario():
        # 40,000 upokt for 10 suppliers and ceil((3+10+0+10)/10)+1 = 4 sessions: 1,000 for 6 relays of 145.99
        async with running(app_stake=40_000, suppliers_per_session=10, grace=3) as client:
            outcomes = []
            for _ in range(8):
                await client.relay(CLASSIC)
                outcomes.append(client.last().outcome)
            assert outcomes == ["ok"] * 6 + ["rate_limited"] * 2
            assert client.net.ledger.counts()[client.net.operator(CLASSIC)]["cost"] == pytest.approx(875.94)

    run(scenario)


def test_what_is_not_paid_is_given_back():
    async def scenario():
        async with running() as client:
            await client.sim("budget", supplier=HA, relays=1)
            await client.sim("fault", supplier=HA, kind="backend_5xx", times=1)
            assert (await client.relay(HA)).status == 500
            assert (client.last().accepted, client.last().cost) == (True, 0)
            assert (await client.relay(HA)).status == 200
            assert (await client.relay(HA)).status == 429

    run(scenario)


@pytest.mark.parametrize("supplier", [CLASSIC, HA])
def test_optimistic_miners_serve_first_and_look_later(supplier):
    async def scenario():
        async with running(validation="optimistic") as client:
            client.signer = "stranger"
            answer = await client.relay(supplier)
            assert answer.verified(client.key(supplier)).status == 200
            assert client.last().outcome == "served:ring_signature"
            assert client.net.ledger.since(0, accepted=True) == []
            client.signer = APP
            await client.relay(supplier)
            assert client.last().outcome == "ok"
            expired = replace(await client.session(), start_height=891, end_height=900)
            assert said(await client.relay(supplier, header=expired), supplier)[0] != 200

    run(scenario)


# ------------------------------------------------------------------------------------------- backends


@pytest.mark.parametrize(
    ("mode", "classic", "ha"),
    [
        ("500", 500, 500),
        ("429", 429, 429),
        ("timeout", ("relayer_proxy", 10), 504),
        ("reset", ("relayer_proxy", 5), 502),
        ("error200", 200, 200),
    ],
)
def test_failures_of_the_backend(mode, classic, ha):
    async def scenario():
        async with running() as client:
            for host in ("host-1", "host-2"):
                await client.sim("host", host=host, timeout_s=0.1)
            for supplier, expected in ((CLASSIC, classic), (HA, ha)):
                await client.sim("fail", supplier=supplier, mode=mode)
                answer = await client.relay(supplier)
                assert client.last().accepted
                if supplier == HA and expected >= 500:
                    assert answer.status == expected
                    assert list(json.loads(answer.body)) == ["error"]
                elif isinstance(expected, tuple):
                    assert (answer.relay.error.codespace, answer.relay.error.code) == expected
                else:
                    assert answer.verified(client.key(supplier)).status == expected
            stats = client.net.backends.stats()["suppliers"]
            assert [stats[s]["failed"] for s in (CLASSIC, HA)] == [{mode: 1}] * 2

    run(scenario)


# ---------------------------------------------------------------------------------------- streaming


def streamed_text(body):
    events = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])


def test_ha_streams_in_signed_parts_and_classic_buffers():
    async def scenario():
        slow = replace(GOOD, latency_ms=500)
        async with running(Persona("s1", slow), Persona("s2", slow)) as client:
            plain = await plain_text(client, HA)
            body = chat(stream=True, stream_options={"include_usage": True})
            buffered = (await client.relay(CLASSIC, body=body)).verified(client.key(CLASSIC))
            assert buffered.headers["Content-Type"] == ("text/event-stream",)
            assert streamed_text(buffered.body) == plain
            answer = await client.relay(HA, body=body)
            assert answer.headers["Content-Type"] == "text/event-stream"
            splitter = PartSplitter()
            parts = splitter.feed(answer.body)
            assert splitter.finish() is None
            assert answer.body.count(SEPARATOR) == len(parts) > 2
            bodies = []
            for part in parts:
                http = verify_response(RelayResponse.decode(part), answer.sent.header, client.key(HA))
                assert (http.status, http.headers) == (200, {})
                bodies.append(http.body)
            assert streamed_text(b"".join(bodies)) == plain
            assert client.last().streamed
            assert b"".join(bodies).count(b'"usage"') == 1

    run(scenario)


def test_errors_of_streams_are_plain_answers():
    async def scenario():
        async with running() as client:
            answer = await client.relay(HA, body=chat(stream=True, n=0))
            http = answer.verified(client.key(HA))
            assert (http.status, http.headers["Content-Type"]) == (400, ("application/json",))

    run(scenario)


# ------------------------------------------------------------------------------------------- ledger


def test_the_ledger_holds_every_relay_once_and_in_order():
    async def scenario():
        async with running(*people(4)) as client:
            answers = await asyncio.gather(
                *(client.relay(f"s{1 + number % 4}", number % 8) for number in range(40))
            )
            ledger = client.net.ledger.since(0, accepted=True)
            assert sorted(e["request_sha256"] for e in ledger) == sorted(
                hashlib.sha256(a.posted).hexdigest() for a in answers
            )
            assert [e["seq"] for e in ledger] == list(range(1, 41))
            assert [e["seq"] for e in client.net.ledger.since(30, accepted=True)] == list(range(31, 41))
            assert client.net.ledger.since(0, accepted=False) == []
            assert all(isinstance(read_response(a.body), RelayResponse) for a in answers)
            assert all(isinstance(a.verified(client.key(s)), HttpResponse) for a, s in
                       zip(answers, ["s1", "s2", "s3", "s4"] * 10, strict=True))  # fmt: skip

    run(scenario)


def test_a_client_that_leaves_is_written_down():
    async def scenario():
        async with running(Persona("s1", replace(GOOD, latency_ms=5000))) as client:
            task = asyncio.create_task(client.relay("s1"))
            while not client.net.ledger.relays:
                await asyncio.sleep(0.01)
            task.cancel()
            while client.last().outcome == "in_flight":
                await asyncio.sleep(0.01)
            assert (client.last().outcome, client.last().accepted) == ("cancelled", True)
            assert client.last().cost == 0

    run(scenario)
