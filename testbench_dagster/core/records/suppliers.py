"""The roster: which suppliers there are, how they are reached, what happened to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import (
    ROSTER,
    Part,
    Record,
    content,
    counted,
    key,
    nested,
    queryable,
    record,
    view,
)
from testbench_dagster.core.relay import Api, TransportName


@nested
class RosterEvent(Part):
    """Something that happened to a supplier, with what was found of it then."""

    at: datetime = content("when it was found")
    event: str = content("joined, left, returned, changed or cut")
    refresh: str | None = content("which refresh of the roster found it", default=None, sparse=True)
    height: int | None = content("block height its source told", default=None, sparse=True)
    changed: list[str] | None = content("names of the fields that changed", default=None, sparse=True)
    transport: TransportName | None = content("how it is reached", default=None, sparse=True)
    base_url: str | None = content("where it is reached", default=None, sparse=True)
    rpc_type: int | None = content("type its endpoint was staked with", default=None, sparse=True)
    api: Api | None = content("the request form it takes", default=None, sparse=True)
    model: str | None = content("the name of its model", default=None, sparse=True)
    source: str | None = content("who lists it", default=None, sparse=True)
    cut_at: datetime | None = content("of a cut: answers up to it count no more", default=None, sparse=True)
    reason: str | None = content("of a cut: why", default=None, sparse=True)
    generation: str | None = content(
        "how it is asked otherwise than tasks say, as JSON", default=None, sparse=True
    )
    price: Mapping[str, float] | None = content(
        "what a million tokens of `prompt` and `completion` cost", default=None, sparse=True
    )


@record(
    "suppliers",
    one_per="supplier",
    kind=ROSTER,
    indexes=(("status",), ("service", "status")),
    unique=(("address", "service"),),
)
class SupplierRecord(Record):
    """A supplier of the roster, those that left included."""

    id: str = key("its key, `address@service`")
    address: str = queryable("who operates it")
    service: str = queryable("what it serves")
    status: str = queryable("active or left")
    joined_at: datetime | None = queryable("when it was first found")
    left_at: datetime | None = queryable("when it was found gone, null while it is asked")
    cut_at: datetime | None = queryable("what it answered up to then came from another model")
    echo_logprobs: bool | None = queryable("whether a probe found that it echoes log-probabilities")
    probed_at: datetime | None = queryable("when that was found")
    source: str | None = queryable("who lists it", default=None)
    base_url: str | None = queryable("where it is reached", default=None)
    api: Api | None = queryable("the request form it takes", default=None)
    model: str | None = queryable("the name of its model", default=None)
    transport: TransportName | None = queryable("how it is reached, null for `direct`", default=None)
    rpc_type: int | None = queryable("type its endpoint was staked with on Pocket Network", default=None)
    stake_upokt: int | None = queryable("its stake there, in uPOKT", default=None)
    host: str | None = queryable("the machine it was staked with, as `name:port`", default=None)
    owner: str | None = queryable("who owns its stake, as an address of the chain", default=None)
    public_key: str | None = queryable("its operator's public key, in hexadecimal", default=None)
    generation: str | None = content(
        "how it is asked otherwise than tasks say, as JSON", default=None, sparse=True
    )
    price: Mapping[str, float] | None = content(
        "what a million tokens of `prompt` and `completion` cost", default=None, sparse=True
    )
    version: int | None = queryable("grows with every change of this document", default=None)
    updated_at: datetime | None = content("as of when it was found so", default=None, sparse=True)
    history: tuple[RosterEvent, ...] = content("what happened to it, the newest events")
    history_dropped: int = content("how many older events were dropped", default=0, sparse=True)


@view(SupplierRecord)
class RosterRow(NamedTuple):
    """A supplier as the roster is read."""

    id: str
    address: str
    service: str
    status: str
    joined_at: datetime | None
    left_at: datetime | None
    cut_at: datetime | None
    echo_logprobs: bool | None
    probed_at: datetime | None
    source: str | None
    base_url: str | None
    api: Api | None
    model: str | None
    transport: TransportName | None
    rpc_type: int | None
    stake_upokt: int | None
    host: str | None
    owner: str | None
    price: Mapping[str, float] | None
    public_key: str | None
    generation: str | None
    version: int | None
    updated_at: datetime | None


@view(SupplierRecord)
class SupplierCut(NamedTuple):
    """When a supplier's model last changed."""

    id: str
    cut_at: datetime | None


@view(SupplierRecord)
class SupplierId(NamedTuple):
    """That a supplier is there."""

    id: str


@view(SupplierRecord)
class SupplierSource(NamedTuple):
    """Who lists a supplier."""

    id: str
    source: str | None


@view(SupplierRecord)
class OperatorKey(NamedTuple):
    """The public key of an operator."""

    address: str
    public_key: str | None


@counted(SupplierRecord)
class SourceApi(NamedTuple):
    """Suppliers by who lists them and the request form they take."""

    source: str | None
    api: Api | None


@counted(SupplierRecord)
class SourceService(NamedTuple):
    """Suppliers by who lists them and what they serve."""

    source: str | None
    service: str
    n: int
