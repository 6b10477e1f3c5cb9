"""From what nodes answer to what the chain knows, with every field checked.

Two kinds of oddity are told apart. What only a broken node or proxy would say (a missing header, a session
of another application, no address where one must be) is a :class:`BadAnswer`, and another node is asked.
What anyone may write into the chain by staking (a strange URL) is left out, or one supplier could blind us to
all others.
"""

from __future__ import annotations

import re
from typing import Any

from testbench_dagster.core.errors import ShannonError
from testbench_dagster.transports.pocket.chain.errors import BadAnswer
from testbench_dagster.transports.pocket.chain.fields import MAX_INT64, MAX_UINT64, Record, shown, whole_key
from testbench_dagster.transports.pocket.chain.types import (
    Application,
    ChainSupplier,
    ServiceInfo,
    Session,
    SharedParams,
    SupplierEndpoint,
)
from testbench_dagster.transports.pocket.messages import RpcType, SessionHeader

#: What a service is called on the chain (poktroll ``IsValidServiceId``).
SERVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,42}", re.ASCII)
#: Longest endpoint URL taken, in characters.
MAX_URL_CHARS = 2048
#: Blocks one session may last: a week of blocks of a second.
MAX_SESSION_BLOCKS = 604_800
_SESSION_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_URL = re.compile(r"[\x21-\x7e]+", re.ASCII)
_NEXT_KEY_BYTES = 1024
_CARD_BYTES = 256 * 1024  # poktroll MaxServiceMetadataSizeBytes
_KEY_TYPE = "/cosmos.crypto.secp256k1.PubKey"
_PUBLIC_KEY_BYTES = 33


def read_shared_params(answer: Any) -> SharedParams:
    """Take shared parameters from ``{"params": …}``."""
    params = Record(answer, "answer").record("params")
    offsets = {
        name: params.whole(name, 0, MAX_SESSION_BLOCKS)
        for name in (
            "grace_period_end_offset_blocks",
            "claim_window_open_offset_blocks",
            "claim_window_close_offset_blocks",
            "proof_window_open_offset_blocks",
            "proof_window_close_offset_blocks",
        )
    }
    return SharedParams(
        num_blocks_per_session=params.whole("num_blocks_per_session", 1, MAX_SESSION_BLOCKS, None),
        **offsets,
        compute_units_to_tokens_multiplier=params.whole("compute_units_to_tokens_multiplier"),
        # chains from before the parameter existed count in whole uPOKT
        compute_unit_cost_granularity=params.whole("compute_unit_cost_granularity") or 1,
        session_grid_anchor_height=params.whole("session_grid_anchor_height"),
        session_number_at_anchor=params.whole("session_number_at_anchor"),
    )


def read_suppliers_per_session(answer: Any) -> int:
    """Take the number of suppliers per session from ``{"params": …}``."""
    return Record(answer, "answer").record("params").whole("num_suppliers_per_session", 1, 2**31 - 1, None)


def read_application(answer: Any, address: str) -> Application:
    """Take the application that was asked for from ``{"application": …}``."""
    return _application(Record(answer, "answer").record("application"), address)


def read_session(answer: Any, application: str, service: str) -> Session:
    """Take the session that was asked for from ``{"session": …}``."""
    session = Record(answer, "answer").record("session")
    header = session.record("header")
    for name, asked in (("application_address", application), ("service_id", service)):
        if header.text(name) != asked:
            raise header.bad(name, f"is not the {asked} that was asked for")
    session_id = header.text("session_id")
    if not _SESSION_ID.fullmatch(session_id):
        raise header.bad("session_id", "is no session id")
    if session.text("session_id") not in ("", session_id):
        raise session.bad("session_id", "differs from that of the header")
    start = header.whole("session_start_block_height", 1, MAX_INT64 - MAX_SESSION_BLOCKS, None)
    end = header.whole("session_end_block_height", start + 1, start + MAX_SESSION_BLOCKS, None)
    members: dict[str, ChainSupplier] = {}
    for record in session.records("suppliers"):
        supplier = read_supplier(record, service)
        members.setdefault(supplier.operator, supplier)
    return Session(
        SessionHeader(application, service, session_id, start, end),
        tuple(members.values()),
        _application(session.record("application"), application),
    )


def read_suppliers(answer: Any, service: str) -> tuple[list[ChainSupplier], bytes]:
    """Take one page of suppliers and the key of the next (empty: the last) from ``{"supplier": […], …}``."""
    page = Record(answer, "answer")
    # an index entry without its supplier comes as an empty one
    entries = [r for r in page.records("supplier") if r.text("operator_address")]
    staked = [read_supplier(r, service) for r in entries if is_staked_for(r, service)]
    pagination = page.optional("pagination")
    return staked, b"" if pagination is None else pagination.binary("next_key", _NEXT_KEY_BYTES)


def read_one_supplier(answer: Any, operator: str, service: str) -> ChainSupplier | None:
    """Take the supplier that was asked for from ``{"supplier": …}``; None if not staked for ``service``."""
    record = Record(answer, "answer").record("supplier")
    if record.text("operator_address") != operator:
        raise record.bad("operator_address", f"is not the {operator} that was asked for")
    return read_supplier(record, service) if is_staked_for(record, service) else None


def is_staked_for(supplier: Record, service: str) -> bool:
    """Whether a supplier's record has a configuration of the service."""
    return any(config.text("service_id") == service for config in supplier.records("services"))


def read_supplier(supplier: Record, service: str) -> ChainSupplier:
    """Take a supplier from its record, with its endpoints of one service."""
    endpoints = [
        SupplierEndpoint(url, _rpc_type(endpoint))
        for config in supplier.records("services")
        if config.text("service_id") == service
        for endpoint in config.records("endpoints")
        if (url := _url(endpoint)) is not None
    ]
    return ChainSupplier(
        operator=supplier.address("operator_address"),
        owner=supplier.address("owner_address", optional=True),
        stake_upokt=supplier.upokt("stake") or 0,
        endpoints=tuple(dict.fromkeys(endpoints)),
        unstake_session_end_height=supplier.whole("unstake_session_end_height"),
    )


def read_service(answer: Any, name: str) -> ServiceInfo:
    """Take the service that was asked for from ``{"service": …}``."""
    service = Record(answer, "answer").record("service")
    if service.text("id") != name:
        raise service.bad("id", f"is not the {name} that was asked for")
    metadata = service.optional("metadata")
    return ServiceInfo(
        id=name,
        name=service.text("name"),
        compute_units_per_relay=service.whole("compute_units_per_relay", 0, MAX_UINT64),
        card=b"" if metadata is None else metadata.binary("card", _CARD_BYTES),
    )


def read_compute_units(answer: Any) -> int:
    """Take the compute units of a relay from ``{"computeUnitsPerRelay": …}``."""
    return Record(answer, "answer").whole("computeUnitsPerRelay", 0, MAX_UINT64)


def read_account(answer: Any, address: str) -> bytes | None:
    """Take an account's public key (33 bytes, compressed secp256k1) from ``{"account": …}``.

    None if it has none yet, which is so until it has signed a transaction, or one of another kind (of several
    signers, for example). The address is a hash of the key, so no node can pass off a wrong one.
    """
    account = Record(answer, "answer").record("account")
    for name in ("base_account", "base_vesting_account"):
        inner = account.optional(name)
        if inner is not None:
            account = inner if name == "base_account" else inner.record("base_account")
            break
    if account.text("address") != address:
        raise account.bad("address", f"is not the {address} that was asked for")
    public_key = account.optional("pub_key")
    if public_key is None or public_key.text("@type") not in ("", _KEY_TYPE):
        return None
    key = public_key.binary("key", _PUBLIC_KEY_BYTES)
    if len(key) != _PUBLIC_KEY_BYTES or not _belongs(key, address):
        raise BadAnswer(f"{public_key.where}.key {shown(key.hex())} is not the public key of {address}")
    return key


def _belongs(key: bytes, address: str) -> bool:
    from testbench_dagster.transports.pocket.keys import address_of  # loads the curve library

    try:
        return address_of(key) == address
    except ShannonError:
        return False


def _application(record: Record, address: str) -> Application:
    if record.text("address") != address:
        raise record.bad("address", f"is not the {address} that was asked for")
    leaving = record.optional("pending_undelegations")
    pending = {}
    if leaving is not None:
        for key in leaving.values:
            height = whole_key(key, leaving.where)
            gateways = Record(leaving.values[key], f"{leaving.where}[{height}]")
            pending[height] = gateways.addresses("gateway_addresses")
    return Application(
        address=address,
        stake_upokt=record.upokt("stake") or 0,
        services=tuple(map(_service_id, record.records("service_configs"))),
        gateways=record.addresses("delegatee_gateway_addresses"),
        pending_undelegations=pending,
        unstake_session_end_height=record.whole("unstake_session_end_height"),
        spend_limit_upokt=record.upokt("per_session_spend_limit") or None,  # zero lifts it
    )


def _service_id(config: Record) -> str:
    name = config.text("service_id")
    if not SERVICE_ID.fullmatch(name):
        raise config.bad("service_id", "is no service id")
    return name


def _url(endpoint: Record) -> str | None:
    url = endpoint.text("url", limit=MAX_INT64)
    return url if len(url) <= MAX_URL_CHARS and _URL.fullmatch(url) else None


def _rpc_type(endpoint: Record) -> int:
    value = endpoint.values.get("rpc_type")
    if isinstance(value, str) and not value.isdecimal():
        return int(RpcType.__members__.get(value, 0))  # UNKNOWN_RPC, and types that came later
    return endpoint.whole("rpc_type", -(2**31), 2**31 - 1)
