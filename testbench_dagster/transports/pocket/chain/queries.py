"""What is asked of the chain: each query in both its forms, a REST path and a protobuf request.

Paths and messages are those of poktroll's and the Cosmos SDK's ``query.proto`` files.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

#: Suppliers asked for at once; the chain's own default is 100.
PAGE_SIZE = 1000

SHARED_PARAMS = "/pocket.shared.Query/Params"
SHARED_PARAMS_AT = "/pocket.shared.Query/ParamsAtHeight"
SESSION_PARAMS = "/pocket.session.Query/Params"
GET_SESSION = "/pocket.session.Query/GetSession"
APPLICATION = "/pocket.application.Query/Application"
SUPPLIER = "/pocket.supplier.Query/Supplier"
ALL_SUPPLIERS = "/pocket.supplier.Query/AllSuppliers"
SERVICE = "/pocket.service.Query/Service"
COMPUTE_UNITS_AT = "/pocket.service.Query/ComputeUnitsPerRelayAtHeight"
ACCOUNT = "/cosmos.auth.v1beta1.Query/Account"

_ROOT = "/pokt-network/poktroll"


@dataclass(frozen=True, slots=True)
class Query:
    """One question: what it is for (in messages), its gRPC method, its request, and the same as REST.

    ``at``: the height of whose state it is asked, None for the newest.
    """

    what: str
    method: str
    path: str
    values: Mapping[str, Any] = field(default_factory=dict)
    params: tuple[tuple[str, str], ...] = ()
    at: int | None = None

    @property
    def of_the_past(self) -> bool:
        """Whether it asks what held at a height, which not every node can tell."""
        return self.at is not None or self.method in (SHARED_PARAMS_AT, COMPUTE_UNITS_AT)


def shared_params(height: int | None = None) -> Query:
    """Ask for the shared parameters, those of now or those that held at a height."""
    if height is None:
        return Query("the shared parameters", SHARED_PARAMS, f"{_ROOT}/shared/params")
    what = f"the shared parameters at height {height}"
    return Query(what, SHARED_PARAMS_AT, f"{_ROOT}/shared/params/{height}", {"height": height})


def session_params(height: int | None = None) -> Query:
    """Ask for the parameters of sessions, those of now or of the state of an earlier block."""
    what = "the session parameters" + ("" if height is None else f" at height {height}")
    return Query(what, SESSION_PARAMS, f"{_ROOT}/session/params", at=height)


def session(application: str, service: str, height: int | None = None) -> Query:
    """Ask for the session of an application for a service, the current one or that at a height."""
    params = [("application_address", application), ("service_id", service)]
    values: dict[str, Any] = {"application_address": application, "service_id": service}
    if height is not None:
        params.append(("block_height", str(height)))
        values["block_height"] = height
    what = f"the session of {application} for {service}"
    return Query(what, GET_SESSION, f"{_ROOT}/session/get_session", values, tuple(params))


def application(address: str) -> Query:
    """Ask for a staked application."""
    path = f"{_ROOT}/application/application/{quote(address, safe='')}"
    return Query(f"application {address}", APPLICATION, path, {"address": address})


def supplier(operator: str) -> Query:
    """Ask for a staked supplier, without revenue shares and history."""
    path = f"{_ROOT}/supplier/supplier/{quote(operator, safe='')}"
    values = {"operator_address": operator, "dehydrated": True}
    return Query(f"supplier {operator}", SUPPLIER, path, values, (("dehydrated", "true"),))


def suppliers(service: str, key: bytes = b"") -> Query:
    """Ask for a page of the suppliers staked for a service; ``key`` is the ``next_key`` of the one before."""
    params = [("service_id", service), ("dehydrated", "true"), ("pagination.limit", str(PAGE_SIZE))]
    pagination: dict[str, Any] = {"limit": PAGE_SIZE}
    if key:
        params.append(("pagination.key", base64.b64encode(key).decode("ascii")))
        pagination["key"] = key
    values = {"pagination": pagination, "service_id": service, "dehydrated": True}
    what = f"the suppliers of {service}"
    return Query(what, ALL_SUPPLIERS, f"{_ROOT}/supplier/supplier", values, tuple(params))


def service(name: str, height: int | None = None) -> Query:
    """Ask for a service, as it is now or in the state of an earlier block."""
    path = f"{_ROOT}/service/service/{quote(name, safe='')}"
    what = f"service {name}" + ("" if height is None else f" at height {height}")
    return Query(what, SERVICE, path, {"id": name}, at=height)


def compute_units(name: str, height: int) -> Query:
    """Ask for the compute units that a relay of a service counted for at a height (poktroll 0.1.35)."""
    path = f"{_ROOT}/service/compute_units_per_relay/{quote(name, safe='')}/at_height/{height}"
    what = f"the compute units of {name} at height {height}"
    return Query(what, COMPUTE_UNITS_AT, path, {"serviceId": name, "blockHeight": height})


def account(address: str) -> Query:
    """Ask for an account."""
    path = f"/cosmos/auth/v1beta1/accounts/{quote(address, safe='')}"
    return Query(f"account {address}", ACCOUNT, path, {"address": address})
