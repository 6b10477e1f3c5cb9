"""The node's APIs: REST and RPC tell the same, pages have their traps, past heights, faults of nodes."""

import asyncio
import base64
import json
import time

import aiohttp
import pytest

from testbench_dagster.localnet.personas import Persona
from testbench_dagster.localnet.pocket.queries import QUERIES
from testbench_dagster.localnet.pocket.wire import PUB_KEY_TYPE, to_json
from testbench_dagster.transports.pocket.messages import SESSION_HEADER
from testbench_dagster.transports.pocket.protobuf import Field, Schema, decode_message, encode_message
from testbench_dagster_tests.localnet.pocket.client import APP, GOOD, people, running

POCKET = "/pokt-network/poktroll"


def run(scenario):
    return asyncio.run(scenario())


async def abci(client, path, height=0, **asked):
    """The decoded answer of a query over RPC, or the error's code and log."""
    query = QUERIES[path]
    data = encode_message(query.request, asked).hex()
    answer = (await client.rpc("abci_query", path=path, data=data, height=str(height), prove=False))[
        "response"
    ]
    if answer["code"]:
        return answer["code"], answer["log"]
    return decode_message(query.response, base64.b64decode(answer["value"]))


async def pages(client, service="simulation", limit=0, **headers):
    """All pages of the suppliers of a service, as lists of operators."""
    found, key = [], ""
    while True:
        params = {"service_id": service, "dehydrated": "true"}
        params |= {"pagination.limit": str(limit)} if limit else {}
        params |= {"pagination.key": key} if key else {}
        url = f"{client.net.url}{POCKET}/supplier/supplier"
        async with client.http.get(url, params=params, headers=headers) as response:
            assert response.status == 200
            answer = await response.json()
        found.append([supplier["operator_address"] for supplier in answer["supplier"]])
        key = answer["pagination"]["next_key"]
        if key is None:
            return found


def test_both_faces_tell_the_same():
    async def scenario():
        async with running(*people(3), page_cap=100) as client:
            net = client.net
            app = net.apps[APP]
            operator = net.operator("s1")
            await client.sim("undelegate", app=APP)
            questions = [
                (f"/application/application/{app.address}", "/pocket.application.Query/Application",
                 {"address": app.address}),
                ("/application/application", "/pocket.application.Query/AllApplications", {}),
                (f"/session/get_session?application_address={app.address}&service_id={app.service}",
                 "/pocket.session.Query/GetSession",
                 {"application_address": app.address, "service_id": app.service}),
                ("/supplier/supplier?service_id=simulation", "/pocket.supplier.Query/AllSuppliers",
                 {"service_id": "simulation"}),
                (f"/supplier/supplier/{operator}", "/pocket.supplier.Query/Supplier",
                 {"operator_address": operator}),
                ("/shared/params", "/pocket.shared.Query/Params", {}),
                ("/shared/params/1001", "/pocket.shared.Query/ParamsAtHeight", {"height": 1001}),
                ("/session/params", "/pocket.session.Query/Params", {}),
                ("/service/service/simulation", "/pocket.service.Query/Service", {"id": "simulation"}),
                ("/service/compute_units_per_relay/simulation/at_height/1001",
                 "/pocket.service.Query/ComputeUnitsPerRelayAtHeight",
                 {"serviceId": "simulation", "blockHeight": 1001}),
                (f"/gateway/gateway/{net.gateways['gateway']}", "/pocket.gateway.Query/Gateway",
                 {"address": net.gateways["gateway"]}),
            ]  # fmt: skip
            for path, method, asked in questions:
                status, shown = await client.get(POCKET + path)
                assert status == 200, path
                decoded = await abci(client, method, **asked)
                assert shown == to_json(QUERIES[method].response, decoded), path
            assert {method for _, method, _ in questions} | {"/cosmos.auth.v1beta1.Query/Account"} == set(
                QUERIES
            )
            pending = (await client.get(POCKET + questions[0][0]))[1]["application"]["pending_undelegations"]
            assert pending == {"1010": {"gateway_addresses": [net.gateways["gateway"]]}}

    run(scenario)


def test_json_is_as_nodes_write_it():
    async def scenario():
        async with running() as client:
            _, answer = await client.get(f"{POCKET}/supplier/supplier/{client.net.operator('s1')}")
            supplier = answer["supplier"]
            assert supplier["stake"]["denom"] == "upokt"
            assert supplier["unstake_session_end_height"] == "0"
            (service,) = supplier["services"]
            assert service["endpoints"] == [
                {"url": client.net.miners[0].url, "rpc_type": "REST", "configs": []}
            ]
            assert service["rev_share"][0]["rev_share_percentage"] == "100"
            assert supplier["service_config_history"][0]["activation_height"] == "1001"
            _, listed = await client.get(f"{POCKET}/supplier/supplier?dehydrated=true")
            assert listed["supplier"][0]["service_config_history"] == []
            assert listed["supplier"][0]["services"][0]["rev_share"] == []
            assert listed["pagination"] == {"next_key": None, "total": "0"}
            _, service = await client.get(f"{POCKET}/service/service/simulation")
            assert service["service"]["metadata"] is None
            assert service["service"]["compute_units_per_relay"] == "1000"

    run(scenario)


@pytest.mark.parametrize("shape", ["base", "module", "vesting"])
def test_accounts_in_their_shapes(shape):
    any_schema = Schema("Any", Field(1, "type_url", "string"), Field(2, "value", "bytes"))
    account = Schema("BaseAccount", Field(1, "address", "string"), Field(2, "pub_key", "message", any_schema))
    vesting = Schema("BaseVestingAccount", Field(1, "base_account", "message", account))
    holders = {
        "base": account,
        "module": Schema("ModuleAccount", Field(1, "base_account", "message", account)),
        "vesting": Schema("Vesting", Field(1, "base_vesting_account", "message", vesting)),
    }

    async def scenario():
        async with running() as client:
            told = await client.sim("account", address="s1", shape=shape)
            operator = client.net.operator("s1")
            assert told == {"address": operator, "shape": shape, "hidden": False}
            _, shown = await client.get(f"/cosmos/auth/v1beta1/accounts/{operator}")
            packed = (await abci(client, "/cosmos.auth.v1beta1.Query/Account", address=operator))["account"]
            values = decode_message(holders[shape], packed["value"])
            shown = shown["account"]
            assert shown["@type"] == packed["type_url"]
            if shape == "vesting":
                shown, values = shown["base_vesting_account"], values["base_vesting_account"]
            if shape != "base":
                shown, values = shown["base_account"], values["base_account"]
            assert (shown["address"], values["address"]) == (operator, operator)
            assert shown["pub_key"]["@type"] == values["pub_key"]["type_url"] == PUB_KEY_TYPE
            key = decode_message(Schema("PubKey", Field(1, "key", "bytes")), values["pub_key"]["value"])[
                "key"
            ]
            assert base64.b64decode(shown["pub_key"]["key"]) == key == client.key("s1")
            await client.sim("account", address="s1", hidden=True)
            _, shown = await client.get(f"/cosmos/auth/v1beta1/accounts/{operator}")
            assert "'pub_key': None" in str(shown)

    run(scenario)


def test_status_and_newest_block():
    async def scenario():
        async with running() as client:
            await client.sim("advance", blocks=4)
            status, answer = await client.get("/status")
            sync = answer["result"]["sync_info"]
            assert (status, sync["latest_block_height"], sync["catching_up"]) == (200, "1005", False)
            assert (await client.rpc("status"))["sync_info"] == sync
            assert await client.rpc("health") == {}
            _, block = await client.get("/cosmos/base/tendermint/v1beta1/blocks/latest")
            assert block["block"]["header"]["height"] == "1005"
            assert block["block"]["header"]["chain_id"] == "pocket-simulation"

    run(scenario)


def test_errors_on_both_faces():
    async def scenario():
        async with running() as client:
            app = client.net.apps[APP].address
            session = f"{POCKET}/session/get_session"
            for path, status, code, text in (
                (f"{POCKET}/application/application/pokt1x", 404, 5, "not found"),
                (f"{POCKET}/supplier/supplier/pokt1x", 404, 5, "not found"),
                ("/cosmos/auth/v1beta1/accounts/pokt1x", 404, 5, "not found"),
                (f"{POCKET}/service/service/none", 404, 5, "service not found"),
                (f"{POCKET}/gateway/gateway/none", 404, 5, "gateway not found"),
                (session, 400, 3, "application_address"),
                (
                    f"{session}?application_address=pokt1x&service_id=simulation",
                    500,
                    13,
                    "could not find app with address",
                ),
                (
                    f"{session}?application_address={app}&service_id=other",
                    500,
                    13,
                    "not staked for service ID",
                ),
                (
                    f"{session}?application_address={app}&service_id=simulation&block_height=1002",
                    500,
                    13,
                    "ahead of the last",
                ),
                (
                    f"{session}?application_address={app}&service_id=simulation&block_height=x",
                    400,
                    3,
                    "whole",
                ),
                (f"{POCKET}/shared/params/5000", 400, 3, "5000"),
                (f"{POCKET}/supplier/supplier?pagination.key=%%%", 400, 3, "base64"),
                (f"{POCKET}/supplier/supplier?pagination.key=AAAA", 400, 3, "pagination key"),
                (f"{POCKET}/elsewhere", 501, 12, "Not Implemented"),
            ):
                got, answer = await client.get(path)
                assert (got, answer["code"]) == (status, code), path
                assert text in answer["message"]
                assert answer["details"] == []
            code, log = await abci(client, "/pocket.application.Query/Application", address="pokt1x")
            assert (code, "NotFound" in log) == (22, True)
            code, log = await abci(
                client,
                "/pocket.session.Query/GetSession",
                application_address="pokt1x",
                service_id="simulation",
            )
            assert code == 6
            assert "could not find app with address" in log
            unknown = await client.rpc("abci_query", path="/no.Such/Query", data="")
            assert (unknown["response"]["code"], unknown["response"]["value"]) == (6, None)
            assert (await client.rpc("abci_query", path="/pocket.shared.Query/Params", data="zz"))[
                "code"
            ] == -32602
            broken = await client.rpc("abci_query", path="/pocket.session.Query/GetSession", data="ff")
            assert broken["response"]["code"] == 18
            assert (await client.rpc("nothing"))["code"] == -32601
            async with client.http.post(client.net.url, data=b"{") as response:
                assert (await response.json())["error"]["code"] == -32700

    run(scenario)


# --------------------------------------------------------------------------------------- pagination


def test_pages_are_short_and_name_some_twice():
    async def scenario():
        async with running(*people(9), page_cap=4) as client:
            for supplier in ("s1", "s2"):  # restaked: named twice
                await client.sim("restake", supplier=supplier, stake_pokt=5)
            for supplier in ("s3", "s4", "s5"):
                await client.sim("leave", supplier=supplier, now=True)
            found = await pages(client, limit=1000)
            names = {client.net.operator(f"s{n}") for n in (1, 2, 6, 7, 8, 9)}
            flat = [operator for page in found for operator in page]
            assert set(flat) == names
            assert len(flat) > len(names)
            assert all(len(page) <= 4 for page in found)
            assert any(len(page) < 4 for page in found[:-1]), "short pages in the middle"
            for supplier in ("s6", "s7", "s8", "s9"):
                await client.sim("leave", supplier=supplier, now=True)
            assert [] in (await pages(client, limit=1))[:-1], "empty pages though more follow"

    run(scenario)


def test_the_key_of_a_page_must_be_quoted():
    async def scenario():
        async with running(*people(9), page_cap=4) as client:
            _, answer = await client.get(f"{POCKET}/supplier/supplier")
            key = answer["pagination"]["next_key"]
            assert {"+", "/"} <= set(key)
            status, _ = await client.get(
                f"{POCKET}/supplier/supplier?pagination.key=" + key.replace("+", " ")
            )
            assert status == 400
            both = {"key": base64.b64decode(key), "offset": 1}
            assert (await abci(client, "/pocket.supplier.Query/AllSuppliers", pagination=both))[0] == 18
            page = await abci(
                client,
                "/pocket.supplier.Query/AllSuppliers",
                pagination={"offset": 1, "limit": 2, "count_total": True},
            )
            assert len(page["supplier"]) == 2
            assert page["pagination"]["total"] >= 9

    run(scenario)


def test_lists_by_service_owner_and_gateway():
    async def scenario():
        async with running(*people(2), Persona("c", GOOD, "completions")) as client:
            net = client.net
            assert [o for page in await pages(client, "simulation-completions") for o in set(page)] == [
                net.operator("c")
            ]
            assert {o for page in await pages(client, "") for o in page} == {
                net.operator(n) for n in ("s1", "s2", "c")
            }
            _, mine = await client.get(f"{POCKET}/supplier/supplier?operator_address={net.operator('s2')}")
            assert [s["operator_address"] for s in mine["supplier"]] == [net.operator("s2")]
            gateway = net.gateways["gateway"]
            _, apps = await client.get(
                f"{POCKET}/application/application?delegatee_gateway_address={gateway}"
            )
            assert len(apps["applications"]) == 2
            _, none = await client.get(f"{POCKET}/application/application?delegatee_gateway_address=pokt1x")
            assert none["applications"] == []

    run(scenario)


# ---------------------------------------------------------------------------------------- the past


def test_earlier_heights_on_both_faces():
    async def scenario():
        async with running() as client:
            operator = client.net.operator("s1")
            stake = (await client.get(f"{POCKET}/supplier/supplier/{operator}"))[1]["supplier"]["stake"][
                "amount"
            ]
            header = await client.session()
            await client.sim("roll")
            await client.sim("restake", supplier="s1", stake_pokt=1)
            await client.sim("leave", supplier="s2", now=True)
            path = f"{POCKET}/supplier/supplier/{operator}"
            _, now = await client.get(path)
            assert now["supplier"]["stake"]["amount"] == "1000000"
            _, then = await client.get(path, **{"x-cosmos-block-height": "1001"})
            assert then["supplier"]["stake"]["amount"] == stake
            told = await abci(client, "/pocket.supplier.Query/Supplier", 1001, operator_address=operator)
            assert told["supplier"]["stake"]["amount"] == stake
            assert client.net.operator("s2") in (await pages(client, **{"x-cosmos-block-height": "1010"}))[0]
            assert await client.session(1005) == header
            app = client.net.apps[APP]
            told = await abci(
                client,
                "/pocket.session.Query/GetSession",
                1004,
                application_address=app.address,
                service_id=app.service,
            )
            assert told["session"]["header"] == decode_message(SESSION_HEADER, header.encode())
            for height, status in (("1012", 400), ("1000", 400), ("x", 400), ("0", 200), ("-3", 400)):
                assert (await client.get(path, **{"x-cosmos-block-height": height}))[0] == status, height
            assert (await abci(client, "/pocket.shared.Query/Params", 2000))[0] == 18
            async with client.http.get(client.net.url + path, headers={"x-cosmos-block-height": "1001"}) as r:
                assert r.headers["Grpc-Metadata-X-Cosmos-Block-Height"] == "1001"

    run(scenario)


def test_parameters_of_earlier_heights():
    async def scenario():
        async with running() as client:
            told = await client.sim("params", num_blocks_per_session=4, grace_period_end_offset_blocks=1)
            assert told["from_height"] == 1011
            await client.sim("height", height=1013)
            for path, blocks, anchor in (("", "4", "1011"), ("/1010", "10", "1001"), ("/1011", "4", "1011")):
                _, answer = await client.get(f"{POCKET}/shared/params{path}")
                params = answer["params"]
                shown = params["num_blocks_per_session"], params["session_grid_anchor_height"]
                assert shown == (blocks, anchor)
            assert (await client.session()).end_height == 1014

    run(scenario)


def test_prices_show_at_once_and_hold_from_the_next_session():
    async def scenario():
        async with running() as client:
            await client.sim("height", height=1004)
            assert (await client.sim("params", compute_units_to_tokens_multiplier=7))["from_height"] == 1011
            told = await client.sim("service", service="simulation", compute_units_per_relay=5)
            assert told["from_height"] == 1011
            units = f"{POCKET}/service/compute_units_per_relay/simulation/at_height"

            async def prices(path: str, at: str, **headers: str) -> tuple[str, str]:
                _, shared = await client.get(f"{POCKET}/shared/params{path}", **headers)
                _, known = await client.get(at, **headers)
                price = known["service"]["compute_units_per_relay"] if "service" in known else None
                found = price or known["computeUnitsPerRelay"]
                return shared["params"]["compute_units_to_tokens_multiplier"], found

            old, new = ("145990", "1000"), ("7", "5")
            now = f"{POCKET}/service/service/simulation"
            assert await prices("", now) == new
            assert await prices("/1004", f"{units}/1004") == old
            assert await prices("", now, **{"x-cosmos-block-height": "1003"}) == old
            await client.sim("height", height=1011)
            assert await prices("/1011", f"{units}/1011") == new
            assert await prices("/1010", f"{units}/1010") == old
            await client.sim("node", old=True)
            assert (await client.get(f"{units}/1011"))[0] == 501
            assert (await client.get(f"{POCKET}/shared/params/1011"))[0] == 501
            assert (await abci(client, "/pocket.shared.Query/ParamsAtHeight", height=1011))[0] == 6

    run(scenario)


# ------------------------------------------------------------------------------------ faults of nodes


def test_nodes_that_are_behind():
    async def scenario():
        async with running() as client:
            await client.sim("height", height=1012)
            await client.sim("node", lag_blocks=3, catching_up=True)
            _, answer = await client.get("/status")
            assert answer["result"]["sync_info"]["latest_block_height"] == "1009"
            assert answer["result"]["sync_info"]["catching_up"] is True
            assert (await client.session()).end_height == 1010
            app = client.net.apps[APP].address
            query = f"application_address={app}&service_id=simulation&block_height=1012"
            assert (await client.get(f"{POCKET}/session/get_session?{query}"))[0] == 500
            await client.sim("node")
            assert (await client.session()).end_height == 1020

    run(scenario)


def test_nodes_that_fail():
    async def scenario():
        async with running() as client:
            await client.sim("node", status=503)
            async with client.http.get(client.net.url + "/status") as response:
                assert response.status == 503
            await client.sim("node", truncate=True)
            for path in ("/status", f"{POCKET}/shared/params"):
                async with client.http.get(client.net.url + path) as response:
                    with pytest.raises(ValueError, match="char"):
                        json.loads(await response.read())
            await client.sim("node", garbage=True)
            async with client.http.get(client.net.url + "/status") as response:
                assert (response.status, response.content_type) == (200, "text/html")
            await client.sim("node", down=True)
            with pytest.raises(aiohttp.ClientError):
                await client.get("/status")
            await client.sim("node", slow_s=0.2)
            began = time.monotonic()
            assert (await client.get("/status"))[0] == 200
            assert time.monotonic() - began >= 0.2
            await client.sim("advance")
            await client.sim("node", no_history=True)
            assert (await client.get(f"{POCKET}/shared/params", **{"x-cosmos-block-height": "1001"}))[
                0
            ] == 400

    run(scenario)


def test_several_nodes_on_one_chain():
    async def scenario():
        async with running(nodes=2) as client:
            first, second = client.net.node_urls
            await client.sim("node", node=0, status=500)
            async with client.http.get(first + "/status") as response:
                assert response.status == 500
            async with client.http.get(second + "/status") as response:
                assert response.status == 200
            async with client.http.get(second + "/_sim/describe") as response:
                assert response.status == 404
            description = (await client.get("/_sim/describe"))[1]
            assert [node["rest"] for node in description["nodes"]] == [first, second]
            assert description["nodes"][0]["faults"]["status"] == 500

    run(scenario)
