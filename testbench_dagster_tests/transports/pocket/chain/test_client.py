"""What the client returns: the same by both APIs, through every trap in what nodes answer."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.transports.pocket.chain import (
    BadAnswer,
    ChainClient,
    ChainError,
    ChainSupplier,
    NotFound,
    SessionUnavailable,
    SupplierEndpoint,
)
from testbench_dagster.transports.pocket.chain import client as client_module
from testbench_dagster_tests.transports.pocket.chain.conftest import (
    APP,
    GATEWAY,
    OLD_GATEWAY,
    SERVICE,
    Chain,
    MakeClient,
    MakeNode,
    Node,
    Refusal,
    account,
    address,
    key,
    supplier,
)

APIS = pytest.mark.parametrize("api", ["rest", "rpc"])


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


def client_of(make_client: MakeClient, node: Node, api: str, **options: Any) -> ChainClient:
    return make_client(node, **options) if api == "rest" else make_client(rpc=(node,), **options)


# --------------------------------------------------------------------------------------------- answers


@APIS
def test_what_the_chain_says_arrives_whole(
    make_client: MakeClient, node: Node, chain: Chain, api: str
) -> None:
    client = client_of(make_client, node, api)
    status = client.status()
    assert (status.height, status.catching_up) == (103, False)

    shared = client.shared_params()
    assert (shared.num_blocks_per_session, shared.grace_period_end_offset_blocks) == (20, 10)
    assert (shared.claim_window_open_offset_blocks, shared.proof_window_close_offset_blocks) == (10, 4)
    assert shared.compute_units_to_tokens_multiplier == 145990
    assert (shared.session_grid_anchor_height, shared.session_number_at_anchor) == (41, 3)
    assert client.shared_params(height=77).grace_period_end_offset_blocks == 77
    assert client.suppliers_per_session() == 50

    app = client.application(APP)
    assert (app.address, app.stake_upokt, app.services) == (APP, 1_000_000_000, (SERVICE,))
    assert app.gateways == (GATEWAY,)
    assert app.pending_undelegations == {120: (OLD_GATEWAY, GATEWAY), 80: (address("long gone"),)}
    assert app.spend_limit_upokt == 7_000_000

    session = client.session(APP, SERVICE)
    header = session.header
    assert (header.application, header.service, header.start_height, header.end_height) == (
        APP,
        SERVICE,
        101,
        120,
    )
    assert len(header.session_id) == 64
    assert session.application == app
    expected = ChainSupplier(
        operator=address("s1"),
        owner=address("owner of s1"),
        stake_upokt=59_500_000_000,
        endpoints=(
            SupplierEndpoint("https://s1.example:8545", 4),
            SupplierEndpoint("wss://s1.example/ws", 2),
        ),
    )
    assert session.suppliers[0] == expected and len(session.suppliers) == 2
    assert client.session(APP, SERVICE, height=77).header.start_height == 61

    assert client.suppliers(SERVICE) == list(session.suppliers)
    assert client.supplier(address("s1"), SERVICE) == expected
    service = client.service(SERVICE)
    assert (service.name, service.compute_units_per_relay, service.card) == (
        "Language models",
        1500,
        chain.card,
    )
    assert client.public_key(address("s1")) == key("s1").public_key


def test_both_faces_give_equal_results(make_client: MakeClient, node: Node, chain: Chain) -> None:
    odd = supplier("odd", unstake_session_end_height="140", stake={"denom": "upokt", "amount": "0"})
    odd["services"][1]["endpoints"] = [{"url": "grpc://odd.example", "rpc_type": 77}]
    chain.pages = [[supplier("s1")], [], [odd, supplier("s1")]]
    by_rest, by_rpc = make_client(node), make_client(rpc=(node,))
    for ask in (
        lambda c: c.height(),
        lambda c: c.shared_params(),
        lambda c: c.shared_params(height=55),
        lambda c: c.suppliers_per_session(),
        lambda c: c.application(APP),
        lambda c: c.session(APP, SERVICE),
        lambda c: c.session(APP, SERVICE, height=60),
        lambda c: c.suppliers(SERVICE),
        lambda c: c.supplier(address("odd"), SERVICE),
        lambda c: c.service(SERVICE),
        lambda c: c.public_key(address("gateway")),
        lambda c: c.public_key(address("nobody")),
    ):
        assert ask(by_rest) == ask(by_rpc)
    assert node.count("Query/") and node.count("poktroll")


def test_rest_comes_before_rpc(make_client: MakeClient, make_node: MakeNode) -> None:
    rest, rpc = make_node(), make_node()
    make_client(rest, rpc=(rpc,)).application(APP)
    assert rest.count("application") and not rpc.count("Query/")


def test_paths_and_parameters_of_a_node_url_are_kept(make_client: MakeClient, node: Node) -> None:
    client = make_client(f"{node.url}/some/prefix/?tier=1")
    client.suppliers(SERVICE)
    assert node.targets[-1].startswith("/some/prefix/pokt-network/poktroll/supplier/supplier?tier=1&")


# ------------------------------------------------------------------------------------------- suppliers


@APIS
def test_pages_may_be_short_or_empty_and_operators_come_again(
    make_client: MakeClient, node: Node, chain: Chain, api: str
) -> None:
    gone = supplier("gone")
    gone["operator_address"] = gone["owner_address"] = ""
    gone["services"] = []
    chain.pages = [
        [],
        [supplier("s1"), gone],
        [],
        [supplier("s2"), supplier("s1")],
        [supplier("s3", service="another")],
        [],
    ]
    client = client_of(make_client, node, api)
    found = client.suppliers(SERVICE)
    assert [s.operator for s in found] == [address("s1"), address("s2")]
    assert node.count("supplier/supplier") + node.count("AllSuppliers") == len(chain.pages)
    if api == "rest":
        assert "pagination.key=%2B%2F%2FyMQ" not in node.targets[-1]  # the last page's, not the first's
        assert any("pagination.key=%2B%2F%2F%2B" in t for t in node.targets), "base64 must be quoted"


def test_pages_that_do_not_end_are_refused(
    make_client: MakeClient, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(node)
    seen: list[bytes] = []

    def circle(page_key: bytes) -> tuple[list[dict[str, Any]], bytes]:
        seen.append(page_key)
        return [], b"again"

    node.chain.page = circle  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match=r"next_key '616761696e' comes again"):
        client.suppliers(SERVICE)
    assert len(seen) == 2

    monkeypatch.setattr(client_module, "MAX_PAGES", 7)
    node.chain.page = lambda page_key: ([], b"%d" % (int(page_key or b"0") + 1))  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match="more than 7 pages"):
        client.suppliers(SERVICE)

    monkeypatch.setattr(client_module, "MAX_SUPPLIERS", 1)
    node.chain.page = lambda page_key: ([supplier("a"), supplier("b")], b"x")  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match="more than 1 suppliers of llm"):
        client.suppliers(SERVICE)

    monkeypatch.setattr(client_module, "LISTING_TIMEOUTS", 0)
    monkeypatch.setattr(client_module, "MAX_SUPPLIERS", 100)
    with pytest.raises(ChainError, match="takes longer than 0 s for all pages"):
        client.suppliers(SERVICE)


def test_endpoints_are_those_of_the_service_with_all_their_types(
    make_client: MakeClient, node: Node, chain: Chain
) -> None:
    odd = supplier("odd")
    odd["services"][1]["endpoints"] = [
        {"url": "https://a.example", "rpc_type": "REST"},
        {"url": "https://a.example", "rpc_type": "REST"},
        {"url": "https://b.example", "rpc_type": 3},
        {"url": "https://b2.example", "rpc_type": "3"},
        {"url": "https://c.example", "rpc_type": "TELEPATHY"},
        {"url": "https://d.example"},
        {"url": "https://evil\n.example", "rpc_type": "REST"},
        {"url": "https://päth.example", "rpc_type": "REST"},
        {"url": "https://e.example/" + "x" * 3000, "rpc_type": "REST"},
        {"url": "", "rpc_type": "REST"},
        {"url": None, "rpc_type": "REST"},
    ]
    chain.pages = [[odd]]
    (found,) = make_client(node).suppliers(SERVICE)
    assert found.endpoints == (
        SupplierEndpoint("https://a.example", 4),
        SupplierEndpoint("https://b.example", 3),
        SupplierEndpoint("https://b2.example", 3),
        SupplierEndpoint("https://c.example", 0),
        SupplierEndpoint("https://d.example", 0),
    )


@APIS
def test_a_supplier_of_other_services_is_not_found(make_client: MakeClient, node: Node, api: str) -> None:
    client = client_of(make_client, node, api)
    with pytest.raises(NotFound, match=f"{address('s1')} is not staked for gpt"):
        client.supplier(address("s1"), "gpt")
    with pytest.raises(NotFound, match="the chain has no supplier"):
        client.supplier(address("nobody"), SERVICE)


# -------------------------------------------------------------------------------------------- accounts


@APIS
@pytest.mark.parametrize("shape", ["base", "module", "base vesting", "vesting"])
def test_a_key_is_found_in_accounts_of_all_shapes(
    make_client: MakeClient, node: Node, chain: Chain, api: str, shape: str
) -> None:
    client = client_of(make_client, node, api)
    chain.accounts[address("s1")] = account("s1", shape, has_key=False)
    assert client.public_key(address("s1")) is None
    chain.accounts[address("s1")] = account("s1", shape)
    assert client.public_key(address("s1")) == key("s1").public_key, "that there was none is not remembered"
    chain.accounts.clear()
    assert client.public_key(address("s1")) == key("s1").public_key, "a key is remembered for ever"
    assert client.public_key(address("s1"), fresh=True) is None
    assert client.public_key(address("s1")) == key("s1").public_key


@APIS
def test_accounts_without_a_usable_key(make_client: MakeClient, node: Node, chain: Chain, api: str) -> None:
    client = client_of(make_client, node, api)
    chain.accounts[address("s1")] = account("s1", "multisig")
    assert client.public_key(address("s1")) is None
    assert client.public_key(address("never heard of")) is None


@APIS
def test_a_node_cannot_pass_off_a_wrong_key(
    make_client: MakeClient, node: Node, chain: Chain, api: str
) -> None:
    client = client_of(make_client, node, api)
    chain.accounts[address("s1")] = account("s1", key_of="s2")
    with pytest.raises(BadAnswer, match=f"is not the public key of {address('s1')}"):
        client.public_key(address("s1"))
    chain.accounts[address("s1")] = account("s2")
    with pytest.raises(BadAnswer, match=r"is not the pokt1[a-z0-9]+ that was asked for"):
        client.public_key(address("s1"))


def test_bytes_that_are_no_key_are_refused(make_client: MakeClient, node: Node, chain: Chain) -> None:
    broken = account("s1")
    chain.accounts[address("s1")] = broken
    client = make_client(node)
    for value in ("", "AAAA", base64.b64encode(b"\x02" + b"\xff" * 32).decode(), "!!", 7):
        broken["pub_key"]["key"] = value
        with pytest.raises(BadAnswer, match=r"pub_key\.key"):
            client.public_key(address("s1"))


def test_an_account_of_unknown_kind_is_told(make_client: MakeClient, node: Node, chain: Chain) -> None:
    chain.accounts[address("s1")] = {**account("s1"), "@type": "/future.Account"}
    with pytest.raises(BadAnswer, match=r"'/future\.Account', which is no known kind"):
        make_client(rpc=(node,)).public_key(address("s1"))
    assert make_client(node).public_key(address("s1")) == key("s1").public_key  # JSON tells its fields' names


# ------------------------------------------------------------------------------------------- refusals

REFUSALS = [
    (
        f'could not find app with address "{APP}" at height 9: application for session not found not found ',
        "app_not_found",
    ),
    (
        f'application "{APP}" not staked for service ID "llm": application in session not staked for '
        "requested service",
        "app_not_staked",
    ),
    (
        "could not find suppliers for service llm at height 9: no suppliers not found for session",
        "no_suppliers",
    ),
    (f'application "{APP}" is not active for session abc: application is not active', "app_inactive"),
    (
        "block height 9 is ahead of the last committed block height 8: error during session hydration",
        "height_ahead",
    ),
    ("invalid service ID: error during session hydration", "other"),
]


@APIS
@pytest.mark.parametrize(("text", "reason"), REFUSALS)
def test_why_there_is_no_session_is_told_apart(
    make_client: MakeClient, node: Node, chain: Chain, api: str, text: str, reason: str
) -> None:
    chain.session_error = text
    with pytest.raises(SessionUnavailable, match=f"no session of {APP} for llm") as caught:
        client_of(make_client, node, api).session(APP, SERVICE)
    assert caught.value.reason == reason
    assert isinstance(caught.value, ChainError) and isinstance(caught.value, TestbenchError)


@APIS
def test_what_does_not_exist_is_not_found(make_client: MakeClient, node: Node, api: str) -> None:
    client = client_of(make_client, node, api)
    with pytest.raises(NotFound, match=f"the chain has no application {address('s1')}"):
        client.application(address("s1"))
    with pytest.raises(NotFound, match="the chain has no service gpt"):
        client.service("gpt")
    assert not [report for report in client.nodes() if report.problem], "an answer, no fault of the node"


@APIS
def test_a_node_that_does_not_know_the_query_is_at_fault(
    make_client: MakeClient, node: Node, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rest(self: Node, path: str, asked: dict[str, str]) -> Any:
        if "latest" in path:
            return {"block": {"header": {"height": "103"}}}
        raise Refusal(5, "Not Found")  # what some gateways say of paths they do not know

    def abci(self: Node, path: str, data: bytes) -> bytes:
        raise Refusal(12, f"unknown query path: {path}")

    monkeypatch.setattr(Node, "rest", rest)
    monkeypatch.setattr(Node, "abci", abci)
    with pytest.raises(ChainError, match="no node tells account") as caught:
        client_of(make_client, node, api).public_key(APP)
    assert not isinstance(caught.value, NotFound)


# ------------------------------------------------------------------------------------- wrong sessions


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("application_address", address("s1"), "is not the pokt1[a-z0-9]+ that was asked for"),
        ("service_id", "gpt", "service_id 'gpt' is not the llm that was asked for"),
        ("session_id", "", "session_id '' is no session id"),
        ("session_id", "a b", "session_id 'a b' is no session id"),
        ("session_id", "f" * 64, "differs from that of the header"),
        ("session_start_block_height", "0", r"session_start_block_height '?0'? is not in 1 to"),
        ("session_start_block_height", "-5", "session_start_block_height"),
        ("session_start_block_height", 1.5, "session_start_block_height 1.5 is no whole number"),
        ("session_start_block_height", True, "session_start_block_height True is no whole number"),
        ("session_start_block_height", "９", "is no whole number"),
        ("session_end_block_height", "101", "session_end_block_height '?101'? is not in 102 to"),
        ("session_end_block_height", "9223372036854775807", "session_end_block_height"),
        ("session_end_block_height", None, "session_end_block_height None is no whole number"),
    ],
)
def test_headers_that_make_no_sense_are_refused(
    make_client: MakeClient, node: Node, chain: Chain, field: str, value: Any, said: str
) -> None:
    right = chain.session(APP, SERVICE, 0, 103)
    right["header"][field] = value
    chain.session = lambda *asked: right  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match=said):
        make_client(node).session(APP, SERVICE)


def test_a_supplier_is_in_a_session_once(make_client: MakeClient, node: Node, chain: Chain) -> None:
    right = chain.session(APP, SERVICE, 0, 103)
    right["suppliers"] = [*right["suppliers"], *right["suppliers"]]
    chain.session = lambda *asked: right  # type: ignore[method-assign]
    members = make_client(node).session(APP, SERVICE).suppliers
    assert [s.operator for s in members] == [address("s1"), address("s2")]


@pytest.mark.parametrize("field", ["header", "application"])
def test_sessions_without_their_parts_are_refused(
    make_client: MakeClient, node: Node, chain: Chain, field: str
) -> None:
    right = chain.session(APP, SERVICE, 0, 103)
    right[field] = None
    chain.session = lambda *asked: right  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match=f"answer.session.{field} is None"):
        make_client(node).session(APP, SERVICE)


def test_a_session_of_other_heights_than_asked_is_refused(
    make_client: MakeClient, node: Node, chain: Chain
) -> None:
    right = chain.session(APP, SERVICE, 0, 103)
    chain.session = lambda *asked: right  # type: ignore[method-assign]
    with pytest.raises(BadAnswer, match="101 to 120 are not the heights of a session at 60"):
        make_client(node).session(APP, SERVICE, height=60)


def test_a_coin_of_another_kind_is_refused(make_client: MakeClient, node: Node, chain: Chain) -> None:
    chain.app["stake"] = {"denom": "mact", "amount": "5"}
    with pytest.raises(BadAnswer, match=r"answer\.application\.stake\.denom 'mact' is not upokt"):
        make_client(node).application(APP)


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize("value", ["", "pokt1", APP[:-1] + "x", APP.upper(), "cosmos1abc", "a/../b", None, 7])
def test_no_address_is_asked_for_that_cannot_be_one(make_client: MakeClient, node: Node, value: Any) -> None:
    client = make_client(node)
    for ask in (client.application, client.public_key):
        with pytest.raises(ChainError, match="is no Pocket address; give one that starts with pokt1"):
            ask(value)
    with pytest.raises(ChainError, match="is no Pocket address"):
        client.supplier(value, SERVICE)
    with pytest.raises(ChainError, match="is no Pocket address"):
        client.session(value, SERVICE)
    assert not node.asked


@pytest.mark.parametrize("value", ["", "a b", "x" * 43, "a/b", "ä", None])
def test_no_service_is_asked_for_that_cannot_be_one(make_client: MakeClient, node: Node, value: Any) -> None:
    client = make_client(node)
    for ask in (client.suppliers, client.service):
        with pytest.raises(ChainError, match="is no service id; give 1 to 42"):
            ask(value)
    assert not node.asked


@pytest.mark.parametrize("height", [0, -1, 104, 2**70])
def test_no_height_is_asked_for_that_is_not_there_yet(
    make_client: MakeClient, node: Node, height: int
) -> None:
    client = make_client(node)
    with pytest.raises(ChainError, match="is not in 1 to 103"):
        client.shared_params(height=height)
    with pytest.raises(ChainError, match="is not in 1 to 103"):
        client.session(APP, SERVICE, height=height)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node.example:1317",
        "ftp://node.example",
        "http://",
        "http://a b/",
        "http://n:99999",
        "http://n/#x",
    ],
)
def test_urls_that_cannot_be_asked_are_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match=r"nodes\.rpc"):
        ChainClient(rpc=[url])


def test_a_client_needs_a_node_and_hides_its_credentials() -> None:
    with pytest.raises(ConfigError, match="list at least one under rest or rpc"):
        ChainClient()
    with pytest.raises(ConfigError) as caught:
        ChainClient(rest=["http://me:hunter2@node.example/k3y?token=t0k#x"])
    assert "node.example" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("hunter2", "k3y", "t0k"))
