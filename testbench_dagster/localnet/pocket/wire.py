"""Shapes of the chain's answers: one dict per message, as protobuf and as the JSON of a node's REST API.

Field numbers of poktroll and cosmos-sdk (``session/types.proto``, ``application/types.proto``,
``shared/supplier.proto``, ``shared/service.proto``, their ``query.proto``; ``cosmos/auth``). Written down
apart from the platform's chain client on purpose: one mistake cannot hide in both.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from testbench_dagster.localnet.pocket.chain import (
    Account,
    App,
    Offer,
    Params,
    Service,
    Session,
    StakedSupplier,
)
from testbench_dagster.transports.pocket.messages import SESSION_HEADER, RpcType
from testbench_dagster.transports.pocket.protobuf import Field, Schema, encode_message

Values = dict[str, Any]

COIN = Schema("Coin", Field(1, "denom", "string"), Field(2, "amount", "string"))
PAGE_REQUEST = Schema(
    "PageRequest",
    Field(1, "key", "bytes"),
    Field(2, "offset", "uint64"),
    Field(3, "limit", "uint64"),
    Field(4, "count_total", "bool"),
    Field(5, "reverse", "bool"),
)
PAGE_RESPONSE = Schema("PageResponse", Field(1, "next_key", "bytes"), Field(2, "total", "uint64"))

_ENDPOINT = Schema(
    "SupplierEndpoint",
    Field(1, "url", "string"),
    Field(2, "rpc_type", "enum"),
    Field(3, "configs", "message", Schema("ConfigOption", Field(2, "value", "string")), repeated=True),
)
_OFFER = Schema(
    "SupplierServiceConfig",
    Field(1, "service_id", "string"),
    Field(2, "endpoints", "message", _ENDPOINT, repeated=True),
    Field(
        3,
        "rev_share",
        "message",
        Schema(
            "ServiceRevenueShare", Field(1, "address", "string"), Field(3, "rev_share_percentage", "uint64")
        ),
        repeated=True,
    ),
)
_UPDATE = Schema(
    "ServiceConfigUpdate",
    Field(1, "operator_address", "string"),
    Field(2, "service", "message", _OFFER),
    Field(3, "activation_height", "int64"),
    Field(4, "deactivation_height", "int64"),
)
SUPPLIER = Schema(
    "Supplier",
    Field(1, "owner_address", "string"),
    Field(2, "operator_address", "string"),
    Field(3, "stake", "message", COIN),
    Field(4, "services", "message", _OFFER, repeated=True),
    Field(5, "unstake_session_end_height", "uint64"),
    Field(6, "service_config_history", "message", _UPDATE, repeated=True),
)
APPLICATION = Schema(
    "Application",
    Field(1, "address", "string"),
    Field(2, "stake", "message", COIN),
    Field(
        3,
        "service_configs",
        "message",
        Schema("ApplicationServiceConfig", Field(1, "service_id", "string")),
        repeated=True,
    ),
    Field(4, "delegatee_gateway_addresses", "string", repeated=True),
    Field(
        5,
        "pending_undelegations",
        "map",
        Schema("UndelegatingGatewayList", Field(2, "gateway_addresses", "string", repeated=True)),
        key="uint64",
    ),
    Field(6, "unstake_session_end_height", "uint64"),
    Field(7, "pending_transfer", "message", Schema("PendingTransfer", Field(1, "destination", "string"))),
)
SESSION = Schema(
    "Session",
    Field(1, "header", "message", SESSION_HEADER),
    Field(2, "session_id", "string"),
    Field(3, "session_number", "int64"),
    Field(4, "num_blocks_per_session", "int64"),
    Field(5, "application", "message", APPLICATION),
    Field(6, "suppliers", "message", SUPPLIER, repeated=True),
)
_SHARED_NAMES = (
    "num_blocks_per_session",
    "grace_period_end_offset_blocks",
    "claim_window_open_offset_blocks",
    "claim_window_close_offset_blocks",
    "proof_window_open_offset_blocks",
    "proof_window_close_offset_blocks",
    "supplier_unbonding_period_sessions",
    "application_unbonding_period_sessions",
    "compute_units_to_tokens_multiplier",
    "gateway_unbonding_period_sessions",
    "compute_unit_cost_granularity",
    "session_grid_anchor_height",
    "session_number_at_anchor",
)
SHARED_PARAMS = Schema(
    "shared.Params", *(Field(number, name, "uint64") for number, name in enumerate(_SHARED_NAMES, start=1))
)
SESSION_PARAMS = Schema("session.Params", Field(3, "num_suppliers_per_session", "uint64"))
SERVICE = Schema(
    "Service",
    Field(1, "id", "string"),
    Field(2, "name", "string"),
    Field(3, "compute_units_per_relay", "uint64"),
    Field(4, "owner_address", "string"),
    Field(5, "metadata", "message", Schema("Metadata", Field(1, "card", "bytes"))),
)
GATEWAY = Schema("Gateway", Field(1, "address", "string"), Field(2, "stake", "message", COIN))
_PUB_KEY = Schema("PubKey", Field(1, "key", "bytes"))
ANY = Schema("Any", Field(1, "type_url", "string"), Field(2, "value", "bytes"))
BASE_ACCOUNT = Schema(
    "BaseAccount",
    Field(1, "address", "string"),
    Field(2, "pub_key", "message", ANY),
    Field(3, "account_number", "uint64"),
    Field(4, "sequence", "uint64"),
)
MODULE_ACCOUNT = Schema(
    "ModuleAccount",
    Field(1, "base_account", "message", BASE_ACCOUNT),
    Field(2, "name", "string"),
    Field(3, "permissions", "string", repeated=True),
)
_BASE_VESTING = Schema("BaseVestingAccount", Field(1, "base_account", "message", BASE_ACCOUNT))
VESTING_ACCOUNT = Schema(
    "ContinuousVestingAccount", Field(1, "base_vesting_account", "message", _BASE_VESTING)
)

PUB_KEY_TYPE = "/cosmos.crypto.secp256k1.PubKey"
_ACCOUNT_TYPES = {
    "base": ("/cosmos.auth.v1beta1.BaseAccount", BASE_ACCOUNT),
    "module": ("/cosmos.auth.v1beta1.ModuleAccount", MODULE_ACCOUNT),
    "vesting": ("/cosmos.vesting.v1beta1.ContinuousVestingAccount", VESTING_ACCOUNT),
}


def coin(amount: int) -> Values:
    """An amount of upokt."""
    return {"denom": "upokt", "amount": str(amount)}


def app_values(app: App) -> Values:
    """An application."""
    return {
        "address": app.address,
        "stake": coin(app.stake),
        "service_configs": [{"service_id": app.service}],
        "delegatee_gateway_addresses": list(app.gateways),
        "pending_undelegations": {
            height: {"gateway_addresses": list(gateways)}
            for height, gateways in app.pending_undelegations.items()
        },
        "unstake_session_end_height": app.unstake_session_end_height,
        "pending_transfer": None,
    }


def _offer_values(offer: Offer, *, dehydrated: bool = True) -> Values:
    return {
        "service_id": offer.service,
        "endpoints": [
            {"url": endpoint.url, "rpc_type": int(endpoint.rpc_type), "configs": []}
            for endpoint in offer.endpoints
        ],
        "rev_share": [] if dehydrated else [{"address": offer.operator, "rev_share_percentage": 100}],
    }


def supplier_values(supplier: StakedSupplier, *, dehydrated: bool = False, history: bool = True) -> Values:
    """A supplier; ``dehydrated`` leaves out shares and history, as the chain does."""
    stake = supplier.stake
    updates = [
        {
            "operator_address": offer.operator,
            "service": _offer_values(offer, dehydrated=False),
            "activation_height": offer.since,
            "deactivation_height": 0 if offer.until is None else offer.until + 1,
        }
        for offer in supplier.offers
    ]
    return {
        "owner_address": stake.owner,
        "operator_address": stake.operator,
        "stake": coin(stake.amount),
        "services": [_offer_values(offer, dehydrated=dehydrated) for offer in supplier.offers],
        "unstake_session_end_height": stake.unstake_session_end_height,
        "service_config_history": [] if dehydrated or not history else updates,
    }


def session_values(session: Session) -> Values:
    """A session."""
    return {
        "header": session.header.values(),
        "session_id": session.header.session_id,
        "session_number": session.number,
        "num_blocks_per_session": session.num_blocks,
        "application": app_values(session.app),
        "suppliers": [supplier_values(each, history=False) for each in session.suppliers],
    }


def shared_params_values(params: Params) -> Values:
    """Parameters of the module shared."""
    return {
        **{name: getattr(params, name) for name in _SHARED_NAMES if hasattr(params, name)},
        "supplier_unbonding_period_sessions": 1,
        "application_unbonding_period_sessions": 1,
        "gateway_unbonding_period_sessions": 1,
        "session_grid_anchor_height": params.anchor_height,
        "session_number_at_anchor": params.anchor_number,
    }


def service_values(service: Service) -> Values:
    """A service."""
    return {
        "id": service.id,
        "name": service.name,
        "compute_units_per_relay": service.compute_units_per_relay,
        "owner_address": service.owner,
        "metadata": {"card": service.card} if service.card else None,
    }


def _base_account(account: Account, pub_key: Any) -> Values:
    return {
        "address": account.address,
        "pub_key": pub_key,
        "account_number": account.number,
        "sequence": 0 if account.public_key is None else 1,
    }


def _in_shape(account: Account, base: Values) -> Values:
    if account.shape == "module":
        return {"base_account": base, "name": "simulation", "permissions": []}
    if account.shape == "vesting":
        return {"base_vesting_account": {"base_account": base}}
    return base


def account_any(account: Account) -> Values:
    """An account as protobuf has it: any type, as bytes."""
    key = account.public_key
    packed = (
        None if key is None else {"type_url": PUB_KEY_TYPE, "value": encode_message(_PUB_KEY, {"key": key})}
    )
    type_url, schema = _ACCOUNT_TYPES[account.shape]
    return {
        "type_url": type_url,
        "value": encode_message(schema, _in_shape(account, _base_account(account, packed))),
    }


def account_json(account: Account) -> Values:
    """An account as JSON has it."""
    key = account.public_key
    shown = None if key is None else {"@type": PUB_KEY_TYPE, "key": base64.b64encode(key).decode()}
    base = to_json(BASE_ACCOUNT, {**_base_account(account, None)}) | {"pub_key": shown}
    return {"@type": _ACCOUNT_TYPES[account.shape][0], **_in_shape(account, base)}


def to_json(schema: Schema, values: Mapping[str, Any]) -> Values:
    """A message as a node's REST API shows it: every field, 64-bit numbers as text, bytes in base64."""
    return {each.name: _field_json(each, values.get(each.name, each.default())) for each in schema.fields}


def _field_json(each: Field, value: Any) -> Any:
    if each.repeated:
        return [_one_json(each, item) for item in value or ()]
    if each.kind == "map":
        return {
            str(key): to_json(each.message, item) if each.message else item for key, item in value.items()
        }
    return _one_json(each, value)


def _one_json(each: Field, value: Any) -> Any:
    if each.message is not None:  # of the kind "message", as Field checks
        return None if value is None else to_json(each.message, value)
    if each.kind == "bytes":
        return base64.b64encode(value).decode() if value else None
    if each.kind == "enum":
        return RpcType(value).name if value else "UNKNOWN_RPC"
    return str(value) if each.kind in ("int64", "uint64") else value
