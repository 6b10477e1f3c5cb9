"""CometBFT RPC API of a node (port 26657): ``/status``, and every gRPC query through ``abci_query``.

Protobuf field numbers of poktroll's and the Cosmos SDK's .proto files; answers become the dicts that REST
gives, so that both are read by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from testbench_dagster.core.text import escaped
from testbench_dagster.transports.pocket.chain import queries
from testbench_dagster.transports.pocket.chain.error_mapping import (
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    refused,
)
from testbench_dagster.transports.pocket.chain.errors import BadAnswer, NodeFault
from testbench_dagster.transports.pocket.chain.fields import MAX_INT64, Record, shown
from testbench_dagster.transports.pocket.chain.node_api import Answer, Tip, joined, parsed
from testbench_dagster.transports.pocket.chain.queries import Query
from testbench_dagster.transports.pocket.chain.transfer import MAX_BYTES, Outcome, Reply, Request
from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.messages import SESSION_HEADER
from testbench_dagster.transports.pocket.protobuf import Field, Schema, decode_message, encode_message

_MAX_FIELDS = 2_000_000  # a page of 1000 suppliers has some 50,000
#: Cosmos SDK ``types/errors``, codespace "sdk" → gRPC: what queries' errors become (``gRPCErrorToSDKError``).
_SDK_CODES = {22: NOT_FOUND, 18: INVALID_ARGUMENT}

_COIN = Schema("Coin", Field(1, "denom", "string"), Field(2, "amount", "string"))
_PAGE_REQUEST = Schema("PageRequest", Field(1, "key", "bytes"), Field(3, "limit", "uint64"))
_PAGE_RESPONSE = Schema("PageResponse", Field(1, "next_key", "bytes"), Field(2, "total", "uint64"))
_ANY = Schema("Any", Field(1, "type_url", "string"), Field(2, "value", "bytes"))
_SHARED_PARAMS = Schema(
    "shared.Params",
    Field(1, "num_blocks_per_session", "uint64"),
    Field(2, "grace_period_end_offset_blocks", "uint64"),
    Field(3, "claim_window_open_offset_blocks", "uint64"),
    Field(4, "claim_window_close_offset_blocks", "uint64"),
    Field(5, "proof_window_open_offset_blocks", "uint64"),
    Field(6, "proof_window_close_offset_blocks", "uint64"),
    Field(9, "compute_units_to_tokens_multiplier", "uint64"),
    Field(11, "compute_unit_cost_granularity", "uint64"),
    Field(12, "session_grid_anchor_height", "uint64"),
    Field(13, "session_number_at_anchor", "uint64"),
)
_SESSION_PARAMS = Schema("session.Params", Field(3, "num_suppliers_per_session", "uint64"))
_APPLICATION_CONFIG = Schema("ApplicationServiceConfig", Field(1, "service_id", "string"))
_UNDELEGATING = Schema("UndelegatingGatewayList", Field(2, "gateway_addresses", "string", repeated=True))
_APPLICATION = Schema(
    "Application",
    Field(1, "address", "string"),
    Field(2, "stake", "message", _COIN),
    Field(3, "service_configs", "message", _APPLICATION_CONFIG, repeated=True),
    Field(4, "delegatee_gateway_addresses", "string", repeated=True),
    Field(5, "pending_undelegations", "map", _UNDELEGATING, key="uint64"),
    Field(6, "unstake_session_end_height", "uint64"),
    Field(8, "per_session_spend_limit", "message", _COIN),
)
_ENDPOINT = Schema("SupplierEndpoint", Field(1, "url", "string"), Field(2, "rpc_type", "enum"))
_SUPPLIER_CONFIG = Schema(
    "SupplierServiceConfig",
    Field(1, "service_id", "string"),
    Field(2, "endpoints", "message", _ENDPOINT, repeated=True),
)
_SUPPLIER = Schema(
    "Supplier",
    Field(1, "owner_address", "string"),
    Field(2, "operator_address", "string"),
    Field(3, "stake", "message", _COIN),
    Field(4, "services", "message", _SUPPLIER_CONFIG, repeated=True),
    Field(5, "unstake_session_end_height", "uint64"),
)
_SESSION = Schema(
    "Session",
    Field(1, "header", "message", SESSION_HEADER),
    Field(2, "session_id", "string"),
    Field(5, "application", "message", _APPLICATION),
    Field(6, "suppliers", "message", _SUPPLIER, repeated=True),
)
_METADATA = Schema("Metadata", Field(1, "card", "bytes"))
_SERVICE = Schema(
    "Service",
    Field(1, "id", "string"),
    Field(2, "name", "string"),
    Field(3, "compute_units_per_relay", "uint64"),
    Field(5, "metadata", "message", _METADATA),
)
_BASE_ACCOUNT = Schema("BaseAccount", Field(1, "address", "string"), Field(2, "pub_key", "message", _ANY))
_WITH_BASE = Schema("account", Field(1, "base_account", "message", _BASE_ACCOUNT))
_WITH_VESTING = Schema("account", Field(1, "base_vesting_account", "message", _WITH_BASE))
_PUBLIC_KEY = Schema("PubKey", Field(1, "key", "bytes"))
#: Account types by where their base account is (cosmos.auth, cosmos.vesting).
_ACCOUNTS = {
    "/cosmos.auth.v1beta1.BaseAccount": _BASE_ACCOUNT,
    "/cosmos.auth.v1beta1.ModuleAccount": _WITH_BASE,
    "/cosmos.vesting.v1beta1.BaseVestingAccount": _WITH_BASE,
    "/cosmos.vesting.v1beta1.ContinuousVestingAccount": _WITH_VESTING,
    "/cosmos.vesting.v1beta1.DelayedVestingAccount": _WITH_VESTING,
    "/cosmos.vesting.v1beta1.PeriodicVestingAccount": _WITH_VESTING,
    "/cosmos.vesting.v1beta1.PermanentLockedAccount": _WITH_VESTING,
}


_NO_ACCOUNT: dict[str, Any] = {"address": "", "pub_key": None}


def _response(name: str, inner: Schema) -> Schema:
    return Schema(f"Query{name}Response", Field(1, name, "message", inner))


_PARAMS_RESPONSES = (_response("params", _SHARED_PARAMS), _response("params", _SESSION_PARAMS))
#: Request and response of each query.
_MESSAGES: dict[str, tuple[Schema, Schema]] = {
    queries.SHARED_PARAMS: (Schema("QueryParamsRequest"), _PARAMS_RESPONSES[0]),
    queries.SHARED_PARAMS_AT: (
        Schema("QueryParamsAtHeightRequest", Field(1, "height", "int64")),
        _PARAMS_RESPONSES[0],
    ),
    queries.SESSION_PARAMS: (Schema("QueryParamsRequest"), _PARAMS_RESPONSES[1]),
    queries.GET_SESSION: (
        Schema(
            "QueryGetSessionRequest",
            Field(1, "application_address", "string"),
            Field(2, "service_id", "string"),
            Field(3, "block_height", "int64"),
        ),
        _response("session", _SESSION),
    ),
    queries.APPLICATION: (
        Schema("QueryGetApplicationRequest", Field(1, "address", "string")),
        _response("application", _APPLICATION),
    ),
    queries.SUPPLIER: (
        Schema(
            "QueryGetSupplierRequest", Field(1, "operator_address", "string"), Field(2, "dehydrated", "bool")
        ),
        _response("supplier", _SUPPLIER),
    ),
    queries.ALL_SUPPLIERS: (
        Schema(
            "QueryAllSuppliersRequest",
            Field(1, "pagination", "message", _PAGE_REQUEST),
            Field(2, "service_id", "string"),
            Field(5, "dehydrated", "bool"),
        ),
        Schema(
            "QueryAllSuppliersResponse",
            Field(1, "supplier", "message", _SUPPLIER, repeated=True),
            Field(2, "pagination", "message", _PAGE_RESPONSE),
        ),
    ),
    queries.SERVICE: (
        Schema("QueryGetServiceRequest", Field(1, "id", "string")),
        _response("service", _SERVICE),
    ),
    queries.COMPUTE_UNITS_AT: (
        Schema(
            "QueryComputeUnitsPerRelayAtHeightRequest",
            Field(1, "serviceId", "string"),
            Field(2, "blockHeight", "int64"),
        ),
        Schema("QueryComputeUnitsPerRelayAtHeightResponse", Field(1, "computeUnitsPerRelay", "uint64")),
    ),
    queries.ACCOUNT: (
        Schema("QueryAccountRequest", Field(1, "address", "string")),
        _response("account", _ANY),
    ),
}


class AbciApi:
    """Asks a node by its RPC."""

    name = "RPC"

    def __init__(self, url: str) -> None:
        self.url = url

    def status_requests(self) -> Sequence[Request]:
        """Ask for ``/status``."""
        return (Request(joined(self.url, "/status")),)

    def read_status(self, outcomes: Sequence[Outcome]) -> Tip:
        """Read it."""
        (outcome,) = outcomes
        if isinstance(outcome, NodeFault):
            raise outcome
        result = _result(outcome)
        sync, info = result.record("sync_info"), result.optional("node_info")
        return Tip(
            sync.whole("latest_block_height", 1, MAX_INT64, None),
            sync.flag("catching_up"),
            "" if info is None else info.text("network", 100),
        )

    def request(self, query: Query) -> Request:
        """Return the query as a call of ``abci_query``."""
        data = encode_message(_MESSAGES[query.method][0], query.values)
        params = {"path": query.method, "data": data.hex(), "height": str(query.at or 0), "prove": False}
        call = {"jsonrpc": "2.0", "id": 1, "method": "abci_query", "params": params}
        return Request(joined(self.url, ""), orjson.dumps(call))

    def read(self, query: Query, reply: Reply) -> Answer:
        """Return the decoded answer, or raise what its code and log mean."""
        response = _result(reply).record("response")
        code = response.whole("code", 0, 2**32 - 1)
        if code:
            log = response.text("log", limit=MAX_BYTES)
            sdk = response.text("codespace") == "sdk"
            raise refused(query, _SDK_CODES.get(code, INTERNAL) if sdk else INTERNAL, log)
        height = response.whole("height") or None
        try:
            value = decode_message(
                _MESSAGES[query.method][1], response.binary("value", MAX_BYTES), max_fields=_MAX_FIELDS
            )
            if query.method == queries.ACCOUNT:
                value = {"account": _account(value["account"])}
        except CodecError as error:
            raise BadAnswer(f"{response.where}.value is not the answer it must be: {error}") from None
        return Answer(value, height)


def _result(reply: Reply) -> Record:
    """Return the result of a JSON-RPC reply. Raises :class:`NodeFault` if it is an error."""
    if reply.status == 500:  # CometBFT's status for errors it explains in the body
        reply = Reply(200, reply.body) if reply.body.lstrip()[:1] == b"{" else reply
    answer = Record(parsed(reply), "answer")
    error = answer.optional("error")
    if error is not None:
        told = " ".join(t for t in (error.text("message"), error.text("data", MAX_BYTES)) if t)
        raise NodeFault(f"refuses it: {escaped(told)}")
    return answer.record("result")


def _account(packed: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a packed account as REST writes it."""
    if packed is None:
        return None
    kind = packed["type_url"]
    if kind not in _ACCOUNTS:
        raise BadAnswer(f"answer.account is of type {shown(kind)}, which is no known kind of account")
    account = decode_message(_ACCOUNTS[kind], packed["value"])
    base = account
    while "address" not in base:
        base = base.get("base_vesting_account") or base.get("base_account") or dict(_NO_ACCOUNT)
    key = base["pub_key"]
    if key is not None:
        base["pub_key"] = {"@type": key["type_url"]}
        if key["type_url"] == "/cosmos.crypto.secp256k1.PubKey":
            base["pub_key"]["key"] = decode_message(_PUBLIC_KEY, key["value"])["key"]
    return account
