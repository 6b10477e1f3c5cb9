"""What the chain can be asked, by gRPC method; both APIs of a node answer through :func:`run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from testbench_dagster.localnet.pocket import wire
from testbench_dagster.localnet.pocket.chain import Chain, QueryError
from testbench_dagster.transports.pocket.protobuf import Field, Schema

Values = dict[str, Any]

#: Methods that nodes have only since they keep a history of what they answer.
BY_HEIGHT = (
    "/pocket.shared.Query/ParamsAtHeight",
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight",
)
#: Entries of a page when a request does not say.
DEFAULT_LIMIT = 100

# makes keys whose base64 has "+", "/" and "=", which clients must quote
_KEY_PREFIX = b"\xfb\xff\xfe"


@dataclass(frozen=True, slots=True)
class View:
    """What one question sees: the chain at ``height``, by a node that gives at most ``page_cap`` a page."""

    chain: Chain
    height: int
    page_cap: int


@dataclass(frozen=True, slots=True)
class Query:
    """A method of the chain: its messages, and what answers it."""

    request: Schema
    response: Schema
    answer: Callable[[View, Values], Values]


def paged(entries: Sequence[Any], request: Values | None, cap: int) -> tuple[Sequence[Any], Values]:
    """One page of entries as they lie in the store, and the ``PageResponse``.

    Raises QueryError for a key that is none.
    """
    page = request or {}
    limit = min(page.get("limit") or DEFAULT_LIMIT, cap)
    at = page.get("offset") or 0
    key = page.get("key") or b""
    if key:
        if at:
            raise QueryError(3, "invalid request, either offset or key is expected, got both")
        if not key.startswith(_KEY_PREFIX) or len(key) != len(_KEY_PREFIX) + 5:
            raise QueryError(3, "invalid pagination key")
        at = int.from_bytes(key[len(_KEY_PREFIX) :], "big")
    end = at + limit
    next_key = _KEY_PREFIX + end.to_bytes(5, "big") if end < len(entries) else b""
    total = len(entries) if page.get("count_total") and not key else 0
    return entries[at:end], {"next_key": next_key, "total": total}


def _application(view: View, asked: Values) -> Values:
    _need(asked, "address")
    return {"application": wire.app_values(view.chain.app(asked["address"], view.height))}


def _applications(view: View, asked: Values) -> Values:
    apps = view.chain.apps(view.height)
    if gateway := asked.get("delegatee_gateway_address"):
        apps = [app for app in apps if gateway in app.gateways]
    shown, page = paged(apps, asked.get("pagination"), view.page_cap)
    return {"applications": [wire.app_values(app) for app in shown], "pagination": page}


def _session(view: View, asked: Values) -> Values:
    _need(asked, "application_address")
    _need(asked, "service_id")
    height = asked.get("block_height") or view.height
    if height < 0:
        raise QueryError(3, f"invalid block height for session: {height}")
    session = view.chain.session(asked["application_address"], asked["service_id"], height, view.height)
    return {"session": wire.session_values(session)}


def _suppliers(view: View, asked: Values) -> Values:
    """A page of suppliers, cut out of offers before those not in force are left out of it.

    So pages are short or empty though more follow, and a supplier that restaked is on several.
    """
    service, height = asked.get("service_id"), view.height
    offers = [offer for offer in view.chain.offers() if not service or offer.service == service]
    cut, page = paged(offers, asked.get("pagination"), view.page_cap)
    operators = dict.fromkeys(offer.operator for offer in cut if offer.active(height))
    only = asked.get("operator_address"), asked.get("owner_address")
    shown = []
    for operator in operators:
        if view.chain.stake(operator, height) is None:
            continue
        supplier = view.chain.supplier(operator, height)
        if all(
            not want or want == got for want, got in zip(only, (operator, supplier.stake.owner), strict=True)
        ):
            shown.append(wire.supplier_values(supplier, dehydrated=bool(asked.get("dehydrated"))))
    return {"supplier": shown, "pagination": page}


def _supplier(view: View, asked: Values) -> Values:
    _need(asked, "operator_address")
    supplier = view.chain.supplier(asked["operator_address"], view.height)
    return {"supplier": wire.supplier_values(supplier, dehydrated=bool(asked.get("dehydrated")))}


def _shared_params(view: View, asked: Values) -> Values:
    return {"params": wire.shared_params_values(view.chain.shown_params(view.height))}


def _shared_params_at(view: View, asked: Values) -> Values:
    height = asked.get("height") or view.height
    if not 0 < height <= view.height:
        raise QueryError(3, f"height {height} is not between 1 and {view.height}")
    return {"params": wire.shared_params_values(view.chain.params(height))}


def _session_params(view: View, asked: Values) -> Values:
    shown = view.chain.shown_params(view.height)
    return {"params": {"num_suppliers_per_session": shown.num_suppliers_per_session}}


def _service(view: View, asked: Values) -> Values:
    return {"service": wire.service_values(view.chain.service(asked.get("id") or "", view.height))}


def _compute_units_at(view: View, asked: Values) -> Values:
    _need(asked, "serviceId")
    height = asked.get("blockHeight") or 0
    if height < 0:
        raise QueryError(3, "block height must be non-negative")
    return {"computeUnitsPerRelay": view.chain.compute_units(asked["serviceId"], height)}


def _gateway(view: View, asked: Values) -> Values:
    stake = view.chain.gateway_stake(asked.get("address") or "", view.height)
    return {"gateway": {"address": asked["address"], "stake": wire.coin(stake)}}


def _account(view: View, asked: Values) -> Values:
    _need(asked, "address")
    return {"account": wire.account_any(view.chain.account(asked["address"], view.height))}


def _need(asked: Values, name: str) -> None:
    if not asked.get(name):
        raise QueryError(3, f"{name} cannot be empty")


def _strings(name: str, *names: str) -> Schema:
    return Schema(name, *(Field(number, each, "string") for number, each in enumerate(names, start=1)))


_PAGED = Field(2, "pagination", "message", wire.PAGE_RESPONSE)


def _response(name: str, schema: Schema) -> Schema:
    return Schema(f"{name} response", Field(1, name, "message", schema))


QUERIES: dict[str, Query] = {
    "/pocket.application.Query/Application": Query(
        _strings("QueryGetApplicationRequest", "address"),
        _response("application", wire.APPLICATION),
        _application,
    ),
    "/pocket.application.Query/AllApplications": Query(
        Schema(
            "QueryAllApplicationsRequest",
            Field(1, "pagination", "message", wire.PAGE_REQUEST),
            Field(2, "delegatee_gateway_address", "string"),
        ),
        Schema(
            "QueryAllApplicationsResponse",
            Field(1, "applications", "message", wire.APPLICATION, repeated=True),
            _PAGED,
        ),
        _applications,
    ),
    "/pocket.session.Query/GetSession": Query(
        Schema(
            "QueryGetSessionRequest",
            Field(1, "application_address", "string"),
            Field(2, "service_id", "string"),
            Field(3, "block_height", "int64"),
        ),
        _response("session", wire.SESSION),
        _session,
    ),
    "/pocket.session.Query/Params": Query(
        Schema("QueryParamsRequest"), _response("params", wire.SESSION_PARAMS), _session_params
    ),
    "/pocket.supplier.Query/AllSuppliers": Query(
        Schema(
            "QueryAllSuppliersRequest",
            Field(1, "pagination", "message", wire.PAGE_REQUEST),
            Field(2, "service_id", "string"),
            Field(3, "operator_address", "string"),
            Field(4, "owner_address", "string"),
            Field(5, "dehydrated", "bool"),
        ),
        Schema(
            "QueryAllSuppliersResponse",
            Field(1, "supplier", "message", wire.SUPPLIER, repeated=True),
            _PAGED,
        ),
        _suppliers,
    ),
    "/pocket.supplier.Query/Supplier": Query(
        Schema(
            "QueryGetSupplierRequest", Field(1, "operator_address", "string"), Field(2, "dehydrated", "bool")
        ),
        _response("supplier", wire.SUPPLIER),
        _supplier,
    ),
    "/pocket.shared.Query/Params": Query(
        Schema("QueryParamsRequest"), _response("params", wire.SHARED_PARAMS), _shared_params
    ),
    "/pocket.shared.Query/ParamsAtHeight": Query(
        Schema("QueryParamsAtHeightRequest", Field(1, "height", "int64")),
        _response("params", wire.SHARED_PARAMS),
        _shared_params_at,
    ),
    "/pocket.service.Query/Service": Query(
        _strings("QueryGetServiceRequest", "id"), _response("service", wire.SERVICE), _service
    ),
    "/pocket.service.Query/ComputeUnitsPerRelayAtHeight": Query(
        Schema(
            "QueryComputeUnitsPerRelayAtHeightRequest",
            Field(1, "serviceId", "string"),
            Field(2, "blockHeight", "int64"),
        ),
        Schema("QueryComputeUnitsPerRelayAtHeightResponse", Field(1, "computeUnitsPerRelay", "uint64")),
        _compute_units_at,
    ),
    "/pocket.gateway.Query/Gateway": Query(
        _strings("QueryGetGatewayRequest", "address"), _response("gateway", wire.GATEWAY), _gateway
    ),
    "/cosmos.auth.v1beta1.Query/Account": Query(
        _strings("QueryAccountRequest", "address"), _response("account", wire.ANY), _account
    ),
}
