"""The control API: what it changes, what it tells, what it refuses; the demo's settings."""

import asyncio
import json

import aiohttp
import pytest

from testbench_dagster.localnet.demo import pocket_settings
from testbench_dagster.localnet.personas import default_population
from testbench_dagster.localnet.pocket.control import _from_here
from testbench_dagster.localnet.pocket.network import PocketNet
from testbench_dagster.localnet.pocket.settings import environment, how_to_use, services_block
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster_tests.localnet.pocket.client import APP, chat, people, running


def run(scenario):
    return asyncio.run(scenario())


async def refused(client, action, **fields):
    async with client.http.post(f"{client.net.url}/_sim/{action}", json=fields) as response:
        assert response.status == 400, await response.text()
        return (await response.json())["error"]["message"]


def test_blocks():
    async def scenario():
        async with running() as client:
            assert (await client.sim("advance"))["height"] == 1002
            assert (await client.sim("advance", blocks=5))["height"] == 1007
            rolled = await client.sim("roll")
            assert rolled == {"height": 1011, "session": {"start": 1011, "end": 1020, "number": 2}}
            assert (await client.sim("roll", offset=2))["height"] == 1023
            assert (await client.sim("height", height=1030))["session"]["end"] == 1030

    run(scenario)


def test_blocks_that_come_by_themselves():
    async def scenario():
        now = 0.0
        async with running(block_s=2.0, now=lambda: now) as client:
            now = 21.0
            assert (await client.get("/_sim/describe"))[1]["height"] == 1011

    run(scenario)


def test_joining_with_a_host_a_stake_and_a_type():
    async def scenario():
        async with running() as client:
            joined = await client.sim(
                "join",
                name="new",
                accuracy=1.0,
                latency_ms=0,
                host="host-2",
                stake_pokt=7,
                rpc_type="json_rpc",
            )
            assert joined["stake_upokt"] == 7_000_000
            assert (joined["host"], joined["flavour"], joined["service"]) == ("host-2", "ha", "simulation")
            assert joined["endpoints"] == []  # from the next session on
            session = (await client.get(f"/_sim/session?app={APP}"))[1]["session"]
            assert len(session["suppliers"]) == 2
            await client.sim("roll")
            assert (await client.get("/_sim/describe"))[1]["suppliers"][-1]["endpoints"] == [
                {"url": client.net.miners[1].url, "rpc_type": "JSON_RPC"}
            ]
            relay = await client.request("new", chat())
            answer = await client.post("new", relay, Rpc_Type="3")
            assert answer.verified(client.key("new")).status == 200
            assert (await client.post("new", relay, Rpc_Type="4")).status == 503
            other = await client.sim("join", api="completions", now=True)
            assert other["service"] == "simulation-completions"
            assert other["name"].startswith("sim-")
            assert (await client.get(f"/{other['name']}/v1/models"))[0] == 200
            twin = await client.sim("join", backend="good")
            assert twin["model"] == "simulated-good"

    run(scenario)


def test_moving_to_another_host_and_a_second_endpoint():
    async def scenario():
        async with running(*people(1)) as client:
            there = client.net.miners[1]
            moved = await client.sim("url", supplier="s1", host="host-2")
            assert (moved["host"], moved["from_height"]) == ("host-2", 1011)
            assert moved["endpoints"][0]["url"] == client.net.miners[0].url
            await client.sim("roll")
            assert (await client.relay("s1")).verified(client.key("s1")).status == 200
            assert client.last().host == "host-2"
            more = await client.sim(
                "url", supplier="s1", url=there.url, rpc_type="json_rpc", extra=True, now=True
            )
            assert [e["rpc_type"] for e in more["endpoints"]] == ["REST", "JSON_RPC"]
            relay = await client.request("s1", chat())
            for rpc_type in ("3", "4"):
                assert (await client.post("s1", relay, Rpc_Type=rpc_type)).status == 200

    run(scenario)


def test_personas_change_on_relays_and_on_plain_http_alike():
    async def scenario():
        async with running() as client:

            async def both():
                answer = (await client.relay("s1")).verified(client.key("s1"))
                url = f"{client.net.url}/s1/v1/chat/completions"
                async with client.http.post(url, data=chat()) as response:
                    plain = response.status, await response.read()
                texts = [
                    json.loads(body)["choices"][0]["message"]["content"]
                    for status, body in ((answer.status, answer.body), plain)
                    if status == 200
                ]
                return answer.status, plain[0], texts

            status, plain, texts = await both()
            assert (status, plain, texts[0]) == (200, 200, texts[1])
            await client.sim("swap", supplier="s1", accuracy=0.0)
            _, _, wrong = await both()
            assert wrong[0] == wrong[1] != texts[0]
            await client.sim("tools", supplier="s1", kind="calls_as_text")
            for net in (client.net.backends, client.net.plain):
                assert net.suppliers["s1"].persona.tool_use == "calls_as_text"
            await client.sim("fail", supplier="s1", mode="500")
            assert (await both())[:2] == (500, 500)

    run(scenario)


def test_apps_and_their_stakes():
    async def scenario():
        async with running() as client:
            more = await client.sim("app", name="another", stake_pokt=3)
            assert PrivateKey.from_hex(more["private_key"]).address == more["address"]
            client.app = client.signer = "another"
            assert (await client.relay("s1")).verified(client.key("s1")).status == 200
            told = await client.sim("unstake_app", app="another")
            assert told["last_height"] == 1010
            await client.sim("roll")
            client.app = APP
            first = await client.session()
            assert first.application != more["address"]
            _, shown = await client.get(f"/_sim/session?app={APP}&height=1003")
            assert shown["session"]["header"]["session_end_block_height"] == "1010"
            _, gone = await client.get("/_sim/session?app=another")
            assert "is not active" in gone["error"]["message"]

    run(scenario)


def test_what_is_told():
    async def scenario():
        async with running() as client:
            await client.relay("s1")
            await client.sim("budget", supplier="s2", relays=0)
            await client.relay("s2")
            _, ledger = await client.get("/_sim/ledger")
            _, refusals = await client.get("/_sim/refusals?since=0")
            assert (ledger["last"], refusals["last"]) == (2, 2)
            assert [r["outcome"] for r in ledger["relays"] + refusals["relays"]] == ["ok", "rate_limited"]
            assert (await client.get("/_sim/ledger?since=1"))[1]["relays"] == []
            counts = (await client.get("/_sim/counts"))[1]["suppliers"]
            assert counts[client.net.operator("s1")]["accepted"] == {"ok": 1}
            assert counts[client.net.operator("s2")]["refused"] == {"rate_limited": 1}
            description = (await client.get("/_sim/describe"))[1]
            assert description["simulation"] is True
            assert [s["budget"] for s in description["suppliers"]] == [None, 0]
            assert description["gateway"]["url"].endswith("/gateway/v1")
            async with client.http.get(
                description["gateway"]["url"].replace("/v1", "/ready/simulation")
            ) as ready:
                assert (await ready.json())["ready"] is True
            for supplier in description["suppliers"]:
                async with client.http.get(supplier["plain_url"] + "/models") as models:
                    assert models.status == 200
            assert description["apps"][0]["address"] == client.net.apps[APP].address

    run(scenario)


def test_the_gateway_can_be_set():
    async def scenario():
        async with running() as client:
            told = await client.sim("gateway", status=503, delegated=True, hedge="hedge_won", retries=2)
            assert (told["delegated"], told["faults"]["status"]) == (True, 503)
            assert (told["faults"]["hedge"], told["faults"]["retries"]) == ("hedge_won", 2)
            assert (await client.sim("gateway"))["faults"]["status"] is None

    run(scenario)


@pytest.mark.parametrize(
    ("action", "fields", "said"),
    [
        ("dance", {}, "no action 'dance'"),
        ("advance", {"blocks": 0}, "blocks"),
        ("advance", {"steps": 1}, "steps is no field"),
        ("height", {"height": 5}, "does not go back"),
        ("height", {}, "height must be given"),
        ("params", {}, "nothing changes"),
        ("params", {"num_blocks_per_session": 0}, "num_blocks_per_session"),
        ("leave", {"supplier": "nobody"}, "nobody's name or address"),
        ("return", {"supplier": "s1"}, "is staked"),
        ("join", {"name": "s1"}, "taken"),
        ("join", {"name": "n", "host": "host-9"}, "host-1, host-2"),
        ("join", {"name": "n", "rpc_type": "smoke"}, "rest"),
        ("restake", {"supplier": "s1"}, "stake_pokt must be given"),
        ("fault", {"supplier": "s1", "kind": "sabotage"}, "choose from"),
        ("fault", {"supplier": "s1", "kind": "tls", "rate": 0.5}, "on or off"),
        ("fault", {"supplier": "s1"}, "kind must be given"),
        ("url", {"supplier": "s1", "backends": ["smoke"]}, "backends must be a list"),
        ("delegate", {"app": "nobody"}, "app-simulation"),
        ("undelegate", {"app": APP, "gateway": "pokt1x"}, "does not delegate"),
        ("account", {"address": "pokt1x"}, "not found"),
        ("host", {"host": "host-1", "timeout_s": 0}, "timeout_s"),
        ("node", {"node": 3}, "node must be"),
        ("node", {"status": 200}, "status"),
        ("swap", {"supplier": "s1"}, "backend or accuracy"),
        ("gateway", {"status": 200}, "status"),
        ("gateway", {"hedge": "lost"}, "primary_won"),
        ("gateway", {"speed": 1}, "speed is no field"),
    ],
)
def test_what_is_refused(action, fields, said):
    async def scenario():
        async with running() as client:
            before = (await client.get("/_sim/describe"))[1]
            assert said in await refused(client, action, **fields)
            after = (await client.get("/_sim/describe"))[1]
            assert after == before

    run(scenario)


def test_other_pages_types_and_callers_are_refused():
    async def scenario():
        async with running() as client:
            status, answer = await client.get("/_sim/elsewhere")
            assert (status, "describe" in answer["error"]["message"]) == (400, True)
            assert (await client.get("/_sim/ledger?since=-1"))[0] == 400
            async with client.http.post(client.net.url + "/_sim/roll", data=b"{}") as response:
                assert response.status == 400
                assert "Content-Type" in await response.text()
            for body in (b"[", b"[]"):
                headers = {"Content-Type": "application/json"}
                async with client.http.post(
                    client.net.url + "/_sim/roll", data=body, headers=headers
                ) as response:
                    assert response.status == 400
            async with client.http.post(client.net.url + "/control/join", json={}) as response:
                assert "/_sim/" in await response.text()
            assert client.net.chain.height == 1001

    run(scenario)
    assert [_from_here(each) for each in ("127.0.0.1", "::1", "10.0.0.1", "", None)] == [
        True, True, False, False, False
    ]  # fmt: skip


def test_networks_that_cannot_be():
    for options in ({"hosts": 0}, {"nodes": 0}, {"flavours": ()}, {"page_cap": 0}, {"blocks_per_session": 0}):
        with pytest.raises(ValueError, match=r"at least|want"):
            PocketNet(people(), **options)


def test_settings_hold_no_key():
    async def scenario():
        async with PocketNet(default_population(6)) as net, aiohttp.ClientSession():
            return net.describe()

    description = run(scenario)
    settings = pocket_settings(description)
    assert list(settings["services"]) == ["simulation", "simulation-completions"]
    keys = environment(description)
    for app in description["apps"]:
        assert keys[app["key_env"]] == app["private_key"]
        assert app["private_key"] not in json.dumps(settings)
        assert f"export {app['key_env']}={app['private_key']}" in how_to_use(description)
    # the two of one backend have a reference, asked directly under the name that it has there
    (maker,) = settings["suppliers"]
    granite = [s for s in description["suppliers"] if s["model"] == maker["model"]]
    assert len(granite) == 2 and maker["base_url"] == granite[0]["plain_url"]
    assert maker["reference"] == [settings["services"]["simulation"]["model"]] and maker["api"] == "chat"
    description["suppliers"] = [s for s in description["suppliers"] if s["api"] == "chat"]
    assert list(services_block(description)) == ["simulation"]
    description["suppliers"] = granite[:1]
    assert "suppliers" not in pocket_settings(description), "nobody to compare a reference with"
