"""A node of the simulated chain: its REST API, its CometBFT RPC API, and what can be wrong with a node.

REST: ``/pokt-network/poktroll/…`` and ``/cosmos/…`` with JSON as the gRPC gateway writes it. RPC: ``/status``
and ``POST /`` with ``abci_query``, ``status`` or ``health``. ``x-cosmos-block-height`` (REST) or ``height``
(RPC) asks for the state of an earlier block.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from testbench_dagster.localnet.pocket import wire
from testbench_dagster.localnet.pocket.chain import Chain, QueryError
from testbench_dagster.localnet.pocket.queries import BY_HEIGHT, QUERIES, View
from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.protobuf import decode_message, encode_message

#: Chain id of the simulation.
NETWORK = "pocket-simulation"

_BIRTH = datetime(2026, 1, 1, tzinfo=UTC)
_HTTP_OF_GRPC = {3: 400, 5: 404, 12: 501, 13: 500}
# cosmos-sdk baseapp, gRPCErrorToSDKError: what becomes of a gRPC status in abci_query
_SDK_OF_GRPC = {3: (18, "invalid request"), 5: (22, "key not found")}
_SDK_OTHER = (6, "unknown request")
_GRPC_NAMES = {3: "InvalidArgument", 5: "NotFound", 13: "Internal"}

_POCKET = "/pokt-network/poktroll/"


@dataclass(frozen=True, slots=True)
class NodeFaults:
    """What is wrong with a node: HTTP ``status`` for everything, ``lag_blocks`` behind, ``slow_s`` to answer.

    ``truncate`` breaks JSON off in the middle, ``garbage`` answers with a web page, ``down`` closes
    connections without an answer, ``no_history`` refuses earlier heights as pruned nodes do, ``old`` knows no
    queries for what held at a height.
    """

    status: int | None = None
    lag_blocks: int = 0
    catching_up: bool = False
    slow_s: float = 0.0
    truncate: bool = False
    garbage: bool = False
    down: bool = False
    no_history: bool = False
    old: bool = False


class Node:
    """One node on the chain; several may look at one chain, each with faults of its own."""

    def __init__(self, chain: Chain, page_cap: int = 1000) -> None:
        self.chain = chain
        self.page_cap = page_cap
        self.faults = NodeFaults()
        self.asked = 0

    @property
    def height(self) -> int:
        """The height this node has reached."""
        return max(1, self.chain.height - self.faults.lag_blocks)

    def describe(self) -> dict[str, Any]:
        """Height, faults, and how much it was asked."""
        return {"height": self.height, "asked": self.asked, "faults": asdict(self.faults)}

    async def handle(self, request: web.BaseRequest) -> web.Response | None:
        """Answer a question to the node; None for a path that is none of a node's."""
        path = request.path
        rest = path.startswith((_POCKET, "/cosmos/"))
        if not rest and path not in ("/", "/status", "/health"):
            return None
        self.asked += 1
        faults = self.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if faults.down:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if faults.status is not None:
            return web.Response(status=faults.status, text="simulated failure of the node")
        if faults.garbage:
            return web.Response(text="<html><body>It works!</body></html>", content_type="text/html")
        if rest:
            return self._send(*self._rest(request))
        return self._send(*await self._rpc(request))

    def _send(self, status: int, payload: Any, headers: Mapping[str, str] | None = None) -> web.Response:
        body = orjson.dumps(payload)
        if self.faults.truncate:
            body = body[: len(body) // 2]
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    def _view(self, asked: str | None) -> View:
        """What a question for that height sees; "0" or None is the newest. Raises QueryError."""
        newest = self.height
        try:
            height = int(asked or 0)
        except ValueError:
            raise QueryError(3, f"invalid height header {asked!r}") from None
        if height < 0 or height > newest:
            text = "cannot query with height in the future; please provide a valid height"
            raise QueryError(3, f"{text}: {height} > {newest}")
        if height and height < newest and (self.faults.no_history or height < self.chain.first):
            raise QueryError(3, f"failed to load state at height {height}; version does not exist (pruned)")
        return View(self.chain, height or newest, self.page_cap)

    # ---------------------------------------------------------------------------------------- REST

    def _rest(self, request: web.BaseRequest) -> tuple[int, Any, Mapping[str, str]]:
        try:
            view = self._view(request.headers.get("x-cosmos-block-height"))
            headers = {"Grpc-Metadata-X-Cosmos-Block-Height": str(view.height)}
            if request.method != "GET":
                return 501, {"code": 12, "message": "Method Not Allowed", "details": []}, {}
            return 200, self._route(view, request.path, request.query), headers
        except QueryError as error:
            status = _HTTP_OF_GRPC.get(error.code, 500)
            return status, {"code": error.code, "message": str(error), "details": []}, {}

    def _route(self, view: View, path: str, query: Mapping[str, str]) -> Any:
        if path == "/cosmos/base/tendermint/v1beta1/blocks/latest":
            return self._block(view.height)
        if path == "/cosmos/base/tendermint/v1beta1/syncing":
            return {"syncing": self.faults.catching_up}
        folder, _, name = path.rpartition("/")
        if folder == "/cosmos/auth/v1beta1/accounts":
            return {"account": wire.account_json(view.chain.account(name, view.height))}
        parts = path.removeprefix(_POCKET).split("/") if path.startswith(_POCKET) else []
        match parts:
            case ["shared", "params"]:
                return self._json(view, "/pocket.shared.Query/Params", {})
            case ["shared", "params", height]:
                return self._json(view, "/pocket.shared.Query/ParamsAtHeight", {"height": _whole(height)})
            case ["session", "params"]:
                return self._json(view, "/pocket.session.Query/Params", {})
            case ["session", "get_session"]:
                asked = {
                    "application_address": query.get("application_address", ""),
                    "service_id": query.get("service_id", ""),
                    "block_height": _whole(query.get("block_height") or "0"),
                }
                return self._json(view, "/pocket.session.Query/GetSession", asked)
            case ["application", "application"]:
                gateway = query.get("delegatee_gateway_address", "")
                asked = {"pagination": _page(query), "delegatee_gateway_address": gateway}
                return self._json(view, "/pocket.application.Query/AllApplications", asked)
            case ["application", "application", address]:
                return self._json(view, "/pocket.application.Query/Application", {"address": address})
            case ["supplier", "supplier"]:
                asked = {
                    "pagination": _page(query),
                    "dehydrated": query.get("dehydrated") == "true",
                    **{n: query.get(n, "") for n in ("service_id", "operator_address", "owner_address")},
                }
                return self._json(view, "/pocket.supplier.Query/AllSuppliers", asked)
            case ["supplier", "supplier", operator]:
                asked = {"operator_address": operator, "dehydrated": query.get("dehydrated") == "true"}
                return self._json(view, "/pocket.supplier.Query/Supplier", asked)
            case ["service", "service", service]:
                return self._json(view, "/pocket.service.Query/Service", {"id": service})
            case ["service", "compute_units_per_relay", service, "at_height", height]:
                asked = {"serviceId": service, "blockHeight": _whole(height)}
                return self._json(view, "/pocket.service.Query/ComputeUnitsPerRelayAtHeight", asked)
            case ["gateway", "gateway", address]:
                return self._json(view, "/pocket.gateway.Query/Gateway", {"address": address})
        raise QueryError(12, "Not Implemented")

    def _json(self, view: View, method: str, asked: dict[str, Any]) -> Any:
        if self.faults.old and method in BY_HEIGHT:
            raise QueryError(12, "Not Implemented")
        query = QUERIES[method]
        return wire.to_json(query.response, query.answer(view, asked))

    def _block(self, height: int) -> dict[str, Any]:
        header = {"chain_id": NETWORK, "height": str(height), "time": _time_of(height)}
        block_hash = base64.b64encode(self.chain.block_hash(height)).decode()
        block = {"header": header, "data": {"txs": []}}
        return {"block_id": {"hash": block_hash}, "block": block, "sdk_block": block}

    # ----------------------------------------------------------------------------------------- RPC

    async def _rpc(self, request: web.BaseRequest) -> tuple[int, Any]:
        if request.path == "/status" and request.method == "GET":
            return 200, _result(-1, self._status())
        if request.path == "/health" and request.method == "GET":
            return 200, _result(-1, {})
        if request.method != "POST" or request.path != "/":
            return 404, _rpc_error(-1, -32601, "Method not found")
        try:
            call = orjson.loads(await request.content.read())
            number, method, params = call.get("id", -1), call["method"], call.get("params") or {}
        except (ValueError, AttributeError, KeyError):
            return 500, _rpc_error(None, -32700, "Parse error. Invalid JSON")
        if method == "status":
            return 200, _result(number, self._status())
        if method == "health":
            return 200, _result(number, {})
        if method != "abci_query" or not isinstance(params, dict):
            return 200, _rpc_error(number, -32601, "Method not found")
        try:
            data = bytes.fromhex(params.get("data") or "")
        except (ValueError, TypeError):
            return 200, _rpc_error(number, -32602, "Invalid params: data is no hexadecimal text")
        return 200, _result(number, {"response": self._abci(params, data)})

    def _status(self) -> dict[str, Any]:
        height = self.height
        sync = {
            "latest_block_hash": self.chain.block_hash(height).hex().upper(),
            "latest_block_height": str(height),
            "latest_block_time": _time_of(height),
            "earliest_block_height": str(self.chain.first),
            "catching_up": self.faults.catching_up,
        }
        return {"node_info": {"network": NETWORK, "moniker": "simulation"}, "sync_info": sync}

    def _abci(self, params: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        path = str(params.get("path") or "")
        query = None if self.faults.old and path in BY_HEIGHT else QUERIES.get(path)
        answer: dict[str, Any] = {
            "code": 0, "log": "", "info": "", "index": "0", "key": None, "value": None, "proofOps": None,
            "height": str(self.height), "codespace": "",
        }  # fmt: skip
        if query is None:
            return answer | {"code": 6, "codespace": "sdk", "log": f"unknown query path: {path}"}
        try:
            view = self._view(str(params.get("height") or "0"))
            values = query.answer(view, decode_message(query.request, data))
            encoded = encode_message(query.response, values)
        except CodecError as error:
            return answer | {"code": 18, "codespace": "sdk", "log": f"{error}: invalid request"}
        except QueryError as error:
            code, registered = _SDK_OF_GRPC.get(error.code, _SDK_OTHER)
            name = _GRPC_NAMES.get(error.code, "Unknown")
            log = f"rpc error: code = {name} desc = {error}: {registered}"
            return answer | {"code": code, "codespace": "sdk", "log": log}
        return answer | {"height": str(view.height), "value": base64.b64encode(encoded).decode()}


def _result(number: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def _rpc_error(number: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message, "data": ""}}


def _time_of(height: int) -> str:
    return (_BIRTH + timedelta(minutes=height)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise QueryError(3, f"type mismatch, parameter: {text!r} is no whole number") from None


def _page(query: Mapping[str, str]) -> dict[str, Any]:
    """The ``PageRequest`` of a query string. Raises QueryError."""
    try:
        key = base64.b64decode(query.get("pagination.key", ""), validate=True)
    except binascii.Error:
        raise QueryError(3, "parsing field pagination.key: illegal base64 data") from None
    return {
        "key": key,
        "offset": _whole(query.get("pagination.offset") or "0"),
        "limit": _whole(query.get("pagination.limit") or "0"),
        "count_total": query.get("pagination.count_total") == "true",
    }
