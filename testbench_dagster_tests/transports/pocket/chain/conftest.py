"""A small chain behind real HTTP servers on loopback: both APIs of a node, and what can be wrong with one.

Protobuf is written by hand here (``message``), from the field numbers of the reference, so that the client's
schemas are checked against something that is not them.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from testbench_dagster.transports.pocket.chain import ChainClient
from testbench_dagster.transports.pocket.keys import PrivateKey

SERVICE = "llm"
Fault = Callable[["Handler"], bool]  # true: it has answered


def key(name: str) -> PrivateKey:
    return PrivateKey.from_hex(hashlib.sha256(f"test:{name}".encode()).hexdigest(), name)


def address(name: str) -> str:
    return key(name).address


APP, GATEWAY, OLD_GATEWAY = address("app"), address("gateway"), address("old gateway")


# ------------------------------------------------------------------------------------ protobuf by hand


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def message(*fields: tuple[int, str | bytes | int]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def coin_pb(coin: dict[str, str]) -> bytes:
    return message((1, coin["denom"]), (2, coin["amount"]))


RPC_TYPES = {"GRPC": 1, "WEBSOCKET": 2, "JSON_RPC": 3, "REST": 4, "COMET_BFT": 5}


def supplier_pb(supplier: dict[str, Any]) -> bytes:
    services = []
    for config in supplier["services"]:
        endpoints = [
            (
                2,
                message((1, e["url"]), (2, RPC_TYPES.get(e["rpc_type"], e["rpc_type"]))),
            )
            for e in config["endpoints"]
        ]
        services.append((4, message((1, config["service_id"]), *endpoints, (3, message((3, 100))))))
    return message(
        (1, supplier["owner_address"]),
        (2, supplier["operator_address"]),
        (3, coin_pb(supplier["stake"])),
        *services,
        (5, int(supplier["unstake_session_end_height"])),
    )


def application_pb(app: dict[str, Any]) -> bytes:
    leaving = [
        (5, message((1, int(h)), (2, message(*((2, g) for g in each["gateway_addresses"])))))
        for h, each in app["pending_undelegations"].items()
    ]
    limit = app["per_session_spend_limit"]
    return message(
        (1, app["address"]),
        (2, coin_pb(app["stake"])),
        *((3, message((1, c["service_id"]))) for c in app["service_configs"]),
        *((4, g) for g in app["delegatee_gateway_addresses"]),
        *leaving,
        (6, int(app["unstake_session_end_height"])),
        *([(8, coin_pb(limit))] if limit else []),
    )


def session_pb(session: dict[str, Any]) -> bytes:
    header = session["header"]
    packed = message(
        (1, header["application_address"]),
        (2, header["service_id"]),
        (3, header["session_id"]),
        (4, int(header["session_start_block_height"])),
        (5, int(header["session_end_block_height"])),
    )
    return message(
        (1, packed),
        (2, session["session_id"]),
        (3, 7),
        (4, 20),
        (5, application_pb(session["application"])),
        *((6, supplier_pb(s)) for s in session["suppliers"]),
    )


SHARED_NUMBERS = {
    "num_blocks_per_session": 1,
    "grace_period_end_offset_blocks": 2,
    "claim_window_open_offset_blocks": 3,
    "claim_window_close_offset_blocks": 4,
    "proof_window_open_offset_blocks": 5,
    "proof_window_close_offset_blocks": 6,
    "supplier_unbonding_period_sessions": 7,
    "application_unbonding_period_sessions": 8,
    "compute_units_to_tokens_multiplier": 9,
    "gateway_unbonding_period_sessions": 10,
    "compute_unit_cost_granularity": 11,
    "session_grid_anchor_height": 12,
    "session_number_at_anchor": 13,
}


def account_pb(account: dict[str, Any]) -> bytes:
    """The account as an Any; shapes as in ``Chain.account``."""

    def base(values: dict[str, Any]) -> bytes:
        public = values["pub_key"]
        packed = []
        if public is not None:
            data = (
                message((1, base64.b64decode(public["key"])))
                if "key" in public
                else message((1, 2))  # a threshold
            )
            packed = [(2, message((1, public["@type"]), (2, data)))]
        return message((1, values["address"]), *packed, (3, 12), (4, 34))

    kind = account["@type"]
    if "base_vesting_account" in account:
        inner = account["base_vesting_account"]["base_account"]
        vesting = message((1, base(inner)), (2, coin_pb({"denom": "upokt", "amount": "5"})))
        data = message((1, vesting), (2, 9))
    elif "base_account" in account:
        data = message((1, base(account["base_account"])), (2, "transfer"))
    else:
        data = base(account)
    return message((1, message((1, kind), (2, data))))


# ---------------------------------------------------------------------------------------------- chain


class Refusal(Exception):
    """A gRPC error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def supplier(name: str, service: str = SERVICE, **changes: Any) -> dict[str, Any]:
    endpoints = [
        {"url": f"https://{name}.example:8545", "rpc_type": "REST", "configs": []},
        {"url": f"wss://{name}.example/ws", "rpc_type": "WEBSOCKET", "configs": []},
    ]
    other = [{"url": "https://other.example", "rpc_type": "JSON_RPC", "configs": []}]
    plain = {
        "owner_address": address(f"owner of {name}"),
        "operator_address": address(name),
        "stake": {"denom": "upokt", "amount": "59500000000"},
        "services": [
            {"service_id": "eth", "endpoints": other, "rev_share": []},
            {"service_id": service, "endpoints": endpoints, "rev_share": []},
        ],
        "unstake_session_end_height": "0",
        "service_config_history": [],
    }
    return {**plain, **changes}


@dataclass
class Chain:
    """What all nodes agree on; everything as REST writes it."""

    height: int = 103
    blocks_per_session: int = 20
    pages: list[list[dict[str, Any]]] = field(default_factory=lambda: [[supplier("s1"), supplier("s2")]])
    app: dict[str, Any] = field(
        default_factory=lambda: {
            "address": APP,
            "stake": {"denom": "upokt", "amount": "1000000000"},
            "service_configs": [{"service_id": SERVICE}],
            "delegatee_gateway_addresses": [GATEWAY],
            "pending_undelegations": {
                "120": {"gateway_addresses": [OLD_GATEWAY, GATEWAY]},
                "80": {"gateway_addresses": [address("long gone")]},
            },
            "unstake_session_end_height": "0",
            "pending_transfer": None,
            "per_session_spend_limit": {"denom": "upokt", "amount": "7000000"},
            "service_config_history": [],
        }
    )
    shared: dict[str, str] = field(
        default_factory=lambda: {
            "num_blocks_per_session": "20",
            "grace_period_end_offset_blocks": "10",
            "claim_window_open_offset_blocks": "10",
            "claim_window_close_offset_blocks": "4",
            "proof_window_open_offset_blocks": "0",
            "proof_window_close_offset_blocks": "4",
            "supplier_unbonding_period_sessions": "504",
            "application_unbonding_period_sessions": "504",
            "compute_units_to_tokens_multiplier": "145990",
            "gateway_unbonding_period_sessions": "504",
            "compute_unit_cost_granularity": "1000000",
            "session_grid_anchor_height": "41",
            "session_number_at_anchor": "3",
        }
    )
    suppliers_per_session: str = "50"
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    card: bytes = b'{"apis":["openai-chat-completions"]}'
    session_error: str = ""

    def __post_init__(self) -> None:
        for name in ("app", "gateway", "s1", "s2"):
            self.accounts[address(name)] = account(name)

    def bounds(self, height: int) -> tuple[int, int]:
        start = 41 + (height - 41) // self.blocks_per_session * self.blocks_per_session
        return start, start + self.blocks_per_session - 1

    def session(self, app: str, service: str, height: int, now: int) -> dict[str, Any]:
        if self.session_error:
            raise Refusal(13, self.session_error)
        if height > now:
            raise Refusal(
                13,
                f"block height {height} is ahead of the last committed block height {now}: "
                "error during session hydration",
            )
        if app != APP:
            raise Refusal(
                13,
                f'could not find app with address "{app}" at height {height}: application for session not '
                "found not found ",
            )
        start, end = self.bounds(height or now)
        session_id = hashlib.sha3_256(f"{app}.{service}.{start}".encode()).hexdigest()
        members = [
            {**s, "services": [c for c in s["services"] if c["service_id"] == service]}
            for page in self.pages
            for s in page
            if s["operator_address"]
        ]
        return {
            "header": {
                "application_address": app,
                "service_id": service,
                "session_id": session_id,
                "session_start_block_height": str(start),
                "session_end_block_height": str(end),
            },
            "session_id": session_id,
            "session_number": "7",
            "num_blocks_per_session": "20",
            "application": self.app,
            "suppliers": members,
        }

    def page(self, page_key: bytes) -> tuple[list[dict[str, Any]], bytes]:
        number = int(page_key[3:] or b"0") if page_key else 0
        more = number + 1 < len(self.pages)
        return self.pages[number], b"\xfb\xff\xfe%d" % (number + 1) if more else b""


def account(name: str, shape: str = "base", *, has_key: bool = True, key_of: str = "") -> dict[str, Any]:
    public = {
        "@type": "/cosmos.crypto.secp256k1.PubKey",
        "key": base64.b64encode(key(key_of or name).public_key).decode(),
    }
    base = {
        "address": address(name),
        "pub_key": public if has_key else None,
        "account_number": "12",
        "sequence": "34",
    }
    if shape == "base":
        return {"@type": "/cosmos.auth.v1beta1.BaseAccount", **base}
    if shape == "module":
        return {
            "@type": "/cosmos.auth.v1beta1.ModuleAccount",
            "base_account": base,
            "name": "transfer",
            "permissions": [],
        }
    if shape == "multisig":
        base["pub_key"] = {"@type": "/cosmos.crypto.multisig.LegacyAminoPubKey", "threshold": "2"}
        return {"@type": "/cosmos.auth.v1beta1.BaseAccount", **base}
    if shape == "base vesting":
        return {"@type": "/cosmos.vesting.v1beta1.BaseVestingAccount", "base_account": base, "end_time": "9"}
    return {
        "@type": "/cosmos.vesting.v1beta1.ContinuousVestingAccount",
        "base_vesting_account": {"base_account": base, "original_vesting": [], "end_time": "9"},
        "start_time": "9",
    }


# ----------------------------------------------------------------------------------------------- nodes


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the node it belongs to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        node = self.server.node
        parts = urlsplit(self.path)
        node.note(parts.path, self)
        if node.fault is not None and node.fault(self):
            return
        if parts.path.endswith("/status"):
            self.reply(200, {"jsonrpc": "2.0", "id": -1, "result": node.status()})
            return
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            self.reply(200, node.rest(unquote(parts.path), asked), {node.height_header: str(node.height)})
        except Refusal as error:
            status = {3: 400, 5: 404, 12: 501}.get(error.code, 500)
            self.reply(status, {"code": error.code, "message": str(error), "details": []})

    def do_POST(self) -> None:
        node = self.server.node
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path, data = call["params"]["path"], bytes.fromhex(call["params"]["data"])
        node.note(path, self)
        if node.fault is not None and node.fault(self):
            return
        plain = {"code": 0, "log": "", "info": "", "index": "0", "key": None, "value": None}
        try:
            value = base64.b64encode(node.abci(path, data)).decode()
            answer = {**plain, "value": value, "height": str(node.height), "codespace": ""}
        except Refusal as error:
            code, registered = {5: (22, "key not found"), 3: (18, "invalid request")}.get(
                error.code, (6, "unknown request")
            )
            name = {5: "NotFound", 3: "InvalidArgument"}.get(error.code, "Internal")
            log = f"rpc error: code = {name} desc = {error}: {registered}"
            answer = {**plain, "code": code, "codespace": "sdk", "log": log, "height": "0"}
        self.reply(200, {"jsonrpc": "2.0", "id": call["id"], "result": {"response": answer}})

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    node: Node

    def handle_error(self, *args: object) -> None:
        pass  # clients hang up on purpose here


class Node:
    """A node on the chain; ``fault`` sees each request first."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.lag = 0
        self.catching_up = False
        self.chain_id = "pocket-test"
        self.fault: Fault | None = None
        self.height_header = "Grpc-Metadata-X-Cosmos-Block-Height"
        self.has_syncing = True
        self.asked: Counter[str] = Counter()
        self.authorization: set[str | None] = set()
        self.targets: list[str] = []
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.node = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def height(self) -> int:
        return self.chain.height - self.lag

    def note(self, path: str, handler: Handler) -> None:
        with self._lock:
            self.asked[path] += 1
            self.authorization.add(handler.headers.get("Authorization"))
            self.targets.append(handler.path)

    def count(self, part: str) -> int:
        with self._lock:
            return sum(number for path, number in self.asked.items() if part in path)

    def status(self) -> dict[str, Any]:
        return {
            "node_info": {"network": self.chain_id, "moniker": "test"},
            "sync_info": {"latest_block_height": str(self.height), "catching_up": self.catching_up},
        }

    def _account(self, name: str) -> dict[str, Any]:
        if name not in self.chain.accounts:
            raise Refusal(5, f"account {name} not found")
        return self.chain.accounts[name]

    def _supplier(self, operator: str) -> dict[str, Any]:
        for page in self.chain.pages:
            for each in page:
                if each["operator_address"] == operator:
                    return each
        raise Refusal(5, f'supplier with operator address: "{operator}": supplier not found')

    def _app(self, name: str) -> dict[str, Any]:
        if name != APP:
            raise Refusal(5, f"app address: {name}: application not found")
        return self.chain.app

    def rest(self, path: str, asked: dict[str, str]) -> Any:
        chain, parts = self.chain, path.strip("/").split("/")
        if "tendermint" in parts:
            if parts[-1] == "syncing" and self.has_syncing:
                return {"syncing": self.catching_up}
            if parts[-1] == "latest":
                return {"block": {"header": {"height": str(self.height), "chain_id": self.chain_id}}}
            raise Refusal(12, "Not Implemented")
        match parts[-3:]:
            case ["poktroll", "shared", "params"]:
                return {"params": chain.shared}
            case ["shared", "params", past]:
                return {"params": {**chain.shared, "grace_period_end_offset_blocks": past}}
            case ["poktroll", "session", "params"]:
                return {"params": {"num_suppliers_per_session": chain.suppliers_per_session}}
            case [_, "session", "get_session"]:
                height = int(asked.get("block_height", 0))
                return {
                    "session": chain.session(
                        asked["application_address"], asked["service_id"], height, self.height
                    )
                }
            case ["application", "application", name]:
                return {"application": self._app(name)}
            case ["poktroll", "supplier", "supplier"]:
                page, next_key = chain.page(base64.b64decode(asked.get("pagination.key", "")))
                encoded = base64.b64encode(next_key).decode() if next_key else None
                return {"supplier": page, "pagination": {"next_key": encoded, "total": "0"}}
            case ["supplier", "supplier", operator]:
                return {"supplier": self._supplier(operator)}
            case ["service", "service", name]:
                return {"service": self.service(name)}
            case ["v1beta1", "accounts", name]:
                return {"account": self._account(name)}
        raise Refusal(12, "Not Implemented")

    def service(self, name: str) -> dict[str, Any]:
        if name != SERVICE:
            raise Refusal(5, f'service ID not found: "{name}"')
        return {
            "id": name,
            "name": "Language models",
            "compute_units_per_relay": "1500",
            "owner_address": address("owner"),
            "metadata": {"card": base64.b64encode(self.chain.card).decode()},
        }

    def abci(self, path: str, data: bytes) -> bytes:
        asked = fields(data)
        chain = self.chain
        text = {n: v.decode("utf-8", "replace") for n, v in asked.items() if isinstance(v, bytes)}
        match path:
            case "/pocket.shared.Query/Params":
                pairs = [(n, int(chain.shared[name])) for name, n in SHARED_NUMBERS.items()]
                return message((1, message(*pairs)))
            case "/pocket.shared.Query/ParamsAtHeight":
                height = asked[1]
                assert isinstance(height, int)
                changed = {**chain.shared, "grace_period_end_offset_blocks": str(height)}
                return message((1, message(*((n, int(changed[name])) for name, n in SHARED_NUMBERS.items()))))
            case "/pocket.session.Query/Params":
                return message((1, message((3, int(chain.suppliers_per_session)))))
            case "/pocket.session.Query/GetSession":
                height = asked.get(3, 0)
                assert isinstance(height, int)
                return message((1, session_pb(chain.session(text[1], text[2], height, self.height))))
            case "/pocket.application.Query/Application":
                return message((1, application_pb(self._app(text[1]))))
            case "/pocket.supplier.Query/AllSuppliers":
                assert text[2] == SERVICE and asked[5] == 1
                pagination = fields(asked[1] if isinstance(asked[1], bytes) else b"")
                assert pagination[3] == 1000
                page_key = pagination.get(1, b"")
                assert isinstance(page_key, bytes)
                page, next_key = chain.page(page_key)
                return message(*((1, supplier_pb(s)) for s in page), (2, message((1, next_key))))
            case "/pocket.supplier.Query/Supplier":
                return message((1, supplier_pb(self._supplier(text[1]))))
            case "/pocket.service.Query/Service":
                service = self.service(text[1])
                return message(
                    (
                        1,
                        message(
                            (1, service["id"]),
                            (2, service["name"]),
                            (3, int(service["compute_units_per_relay"])),
                            (4, service["owner_address"]),
                            (5, message((1, chain.card))),
                        ),
                    )
                )
            case "/cosmos.auth.v1beta1.Query/Account":
                return account_pb(self._account(text[1]))
        raise Refusal(12, f"unknown query path: {path}")


def fields(data: bytes) -> dict[int, bytes | int]:
    """Fields of a message by number; the last of each."""
    found: dict[int, bytes | int] = {}
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = read()
        if tag & 7 == 0:
            found[tag >> 3] = read()
        else:
            size = read()
            found[tag >> 3] = data[at : at + size]
            at += size
    return found


class Clock:
    """Seconds in the test's hands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


MakeNode = Callable[..., Node]
MakeClient = Callable[..., ChainClient]


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_node(chain: Chain) -> Iterator[MakeNode]:
    made: list[Node] = []

    def make(**state: Any) -> Node:
        node = Node(chain)
        for name, value in state.items():
            assert hasattr(node, name)
            setattr(node, name, value)
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture
def make_client(clock: Clock) -> Iterator[MakeClient]:
    made: list[ChainClient] = []

    def make(*rest: Node | str, rpc: tuple[Node | str, ...] = (), **options: Any) -> ChainClient:
        urls = [[n if isinstance(n, str) else n.url for n in nodes] for nodes in (rest, rpc)]
        client = ChainClient(rest=urls[0], rpc=urls[1], **{"timeout_s": 5.0, "clock": clock, **options})
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


# ---------------------------------------------------------------------------------------------- faults


def http_status(status: int, headers: dict[str, str] | None = None, body: bytes = b"oops") -> Fault:
    def fault(handler: Handler) -> bool:
        handler.send(status, body, headers)
        return True

    return fault


def cut_off(handler: Handler) -> bool:
    handler.send(200, b'{"block": {"header": {"height": "1')
    return True


def web_page(handler: Handler) -> bool:
    handler.send(200, b"<html><body>It works!</body></html>", {"Content-Type": "text/html"})
    return True


def hang_up(handler: Handler) -> bool:
    handler.close_connection = True
    handler.connection.close()
    return True


def short_body(handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"block"')
    handler.wfile.flush()
    return hang_up(handler)


def hang(handler: Handler) -> bool:
    """Say nothing while the node runs."""
    handler.server.node.stopped.wait(60)
    return hang_up(handler)


def slow_by(seconds: float) -> Fault:
    def fault(handler: Handler) -> bool:
        time.sleep(seconds)
        return False

    return fault


def drip_headers(handler: Handler) -> bool:
    _drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x")
    return True


def drip_body(handler: Handler) -> bool:
    _drip(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ")
    return True


def _drip(handler: Handler, head: bytes, drop: bytes) -> None:
    """Never silent for long and never done, while the node runs."""
    handler.wfile.write(head)
    for _ in range(1500):
        handler.wfile.write(drop)
        handler.wfile.flush()
        if handler.server.node.stopped.wait(0.04):
            break
    hang_up(handler)


def only(part: str, fault: Fault) -> Fault:
    """A fault of some paths only."""

    def some(handler: Handler) -> bool:
        return part in handler.path and fault(handler)

    return some
