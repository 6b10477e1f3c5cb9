"""A PATH gateway in front of the simulated network, and what can be wrong with one.

``/v1/<path>`` relays (one ``/v1`` is taken off), ``/ready/<service>?detailed=true`` lists endpoints,
``/config`` tells how it is set up; all below the path the gateway is mounted at. Headers, texts and their
traps are those of PATH at 5ff2e27e (July 2026): a supplier is named only of answers that are taken for good,
an error is passed on without its name, and a supplier that gives nothing becomes HTTP 200 without a body.
Asked for nobody in particular, it takes the first supplier of the session.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args

import orjson
from aiohttp import web

from testbench_dagster.localnet.pocket.chain import Chain, Offer, QueryError, Session
from testbench_dagster.localnet.supplier import BrokenConnection, Reply

Hedge = Literal["primary_only", "no_hedge", "primary_won", "hedge_won"]

_RACED = ("primary_won", "hedge_won")
_NOOP = "no-op qos service error: no responses received from any service endpoints"


class GatewayNet(Protocol):
    """What a gateway needs of the network behind it."""

    @property
    def chain(self) -> Chain:
        """The chain whose sessions it reads."""
        ...

    async def respond(self, operator: str, method: str, path: str, body: bytes) -> Reply:
        """What a supplier's backend answers; ``path`` without slash in front, such as ``v1/models``.

        Raises:
            BrokenConnection: the connection to it breaks.
        """
        ...


@dataclass(frozen=True, slots=True)
class GatewayFaults:
    """What is wrong with a gateway.

    HTTP ``status`` for every relay, as a proxy in front of it gives (429 with ``retry_after_s``).
    ``other_supplier`` answers from another supplier than the one asked for, ``nameless`` leaves out
    ``X-Supplier-Address``, ``hedge`` is the outcome of every race (``primary_won`` and ``hedge_won`` ask two
    suppliers), ``retries`` further requests are made to the same supplier, ``timeout_s`` is how long a
    supplier is waited for. ``says_timeout`` has it tell of timeouts and broken connections in words, ``down``
    closes connections without an answer.
    """

    status: int | None = None
    retry_after_s: int | None = None
    other_supplier: bool = False
    nameless: bool = False
    hedge: Hedge | None = None
    retries: int = 0
    timeout_s: float = 120.0
    says_timeout: bool = False
    down: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError naming the field that a caller's JSON got wrong."""
        for name, low, high in (("status", 400, 599), ("retry_after_s", 0, 3600), ("retries", 0, 10)):
            value = getattr(self, name)
            optional = value is None and name != "retries"
            if not optional and not (type(value) is int and low <= value <= high):
                raise ValueError(f"{name} is {value!r}; want a whole number from {low} to {high}")
        for name in ("other_supplier", "nameless", "says_timeout", "down"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; want true or false")
        if self.hedge is not None and self.hedge not in get_args(Hedge):
            raise ValueError(f"hedge is {self.hedge!r}; choose from {', '.join(get_args(Hedge))}")
        if type(self.timeout_s) not in (int, float) or not 0 < self.timeout_s <= 3600:
            raise ValueError(f"timeout_s is {self.timeout_s!r}; want more than 0 and at most 3600 seconds")


@dataclass(slots=True)
class _Relay:
    """One relay under way, and what the headers of its answer will tell."""

    service: str
    method: str
    path: str
    body: bytes
    tried: list[str]
    hedge: str | None = None
    retries: int = 0

    def headers(self) -> dict[str, str]:
        """What is told of every relay, even one that failed."""
        told = {
            "X-Archival-Request": "false",
            "X-Retry-Count": str(self.retries),
            "X-Suppliers-Tried": ",".join(self.tried),
        }
        return told if self.hedge is None else {**told, "X-Hedge-Result": self.hedge}


class _Refused(Exception):
    """The gateway answers itself."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class GatewayServer:
    """The gateway; its applications are all that stake for a service, or in delegated mode the one asked for.

    With ``token`` it wants to see that bearer token. ``faults`` may be exchanged at any time; ``relayed``
    counts the requests each supplier got through it.
    """

    def __init__(
        self,
        net: GatewayNet,
        *,
        mount: str = "",
        delegated: bool = False,
        token: str | None = None,
        rpc_types: Sequence[str] = ("rest", "json_rpc"),
    ) -> None:
        self._net = net
        self._mount = mount.rstrip("/")
        self._token = token
        self._rpc_types = tuple(rpc_types)
        self.delegated = delegated
        self.faults = GatewayFaults()
        self.relayed: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        """How it is set up, its faults, and how much it relayed."""
        return {
            "delegated": self.delegated,
            "faults": asdict(self.faults),
            "relayed": dict(self.relayed),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer whatever is asked of the gateway."""
        path = request.path.removeprefix(self._mount)
        if self.faults.down:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401, text="Unauthorized")
        if path == "/v1" or path.startswith("/v1/"):
            return await self._relayed(request, path.removeprefix("/v1"))
        if request.method == "GET" and path.startswith("/ready/"):
            return self._ready(path.removeprefix("/ready/"), request.query.get("detailed") == "true")
        if request.method == "GET" and path == "/config":
            return _json(200, self._config())
        return web.Response(status=404, text="404 page not found\n")

    # --------------------------------------------------------------------------------------- relays

    async def _relayed(self, request: web.BaseRequest, path: str) -> web.Response:
        if self.faults.status is not None:
            wait = self.faults.retry_after_s
            headers = {} if wait is None else {"Retry-After": str(wait)}
            return web.Response(status=self.faults.status, headers=headers, text="simulated gateway failure")
        service = request.headers.get("Target-Service-Id", "")
        body = await request.content.read()
        relay = _Relay(service, request.method, path.lstrip("/"), body, [], self.faults.hedge)
        try:
            return await self._send(request.headers, relay)
        except _Refused as refused:
            return web.Response(
                status=refused.status,
                body=refused.body,
                headers=relay.headers(),
                content_type="application/json",
            )

    async def _send(self, headers: Mapping[str, str], relay: _Relay) -> web.Response:
        self._check(headers, relay.service)
        wanted = [each.strip() for each in headers.get("Target-Suppliers", "").split(",") if each.strip()]
        listed = self._endpoints(self._sessions(relay.service, headers))
        primary = next((each for each in listed if not wanted or each in wanted), None)
        if primary is None:
            raise _noop(f"no valid endpoints available for service: service {relay.service}")
        other = next((each for each in listed if each != primary), primary)
        if self.faults.other_supplier:
            primary, other = other, primary
        reply = await self._ask(primary, relay)
        if self.faults.hedge in _RACED:
            second = await self._ask(other, relay)
            if self.faults.hedge == "hedge_won":
                primary, reply = other, second
        for _ in range(self.faults.retries):
            relay.retries += 1
            reply = await self._ask(primary, relay)
        told = relay.headers()
        if reply is None:
            # nothing to pass on: a status of its own is never set, so it is the default
            return web.Response(status=200, headers=told)
        if 200 <= reply.status < 300:
            told["X-App-Address"] = listed[primary].header.application
            told["X-Session-ID"] = listed[primary].header.session_id
            if not self.faults.nameless:
                told["X-Supplier-Address"] = primary
        # it buffers streams
        body = b"".join([each async for each in reply.paced()]) if reply.events else reply.body
        return web.Response(status=reply.status, headers=told, body=body, content_type="text/plain")

    async def _ask(self, operator: str, relay: _Relay) -> Reply | None:
        """What the supplier answers, None where that is nothing."""
        self.relayed[operator] += 1
        if operator not in relay.tried:
            relay.tried.append(operator)
        try:
            async with asyncio.timeout(self.faults.timeout_s):
                return await self._net.respond(operator, relay.method, relay.path, relay.body)
        except TimeoutError:
            problem = "timeout waiting for endpoint response"
        except BrokenConnection:
            problem = "HTTP relay request failed: unexpected EOF"
        if self.faults.says_timeout:
            where = f"relay: error sending relay for service {relay.service} endpoint {operator}"
            raise _noop(f"{where}: {problem}")
        return None

    def _check(self, headers: Mapping[str, str], service: str) -> None:
        """Refuse what no supplier has to be asked for."""
        if not service:
            text = "no service ID provided in 'Target-Service-Id' header: no service ID provided"
            raise _Refused(400, orjson.dumps({"code": 400, "message": text}))
        known = [*self._net.chain.services]
        if service not in known:
            data = {"service_id": service, "available_services": known}
            raise _invalid(f"Service '{service}' is not configured", data)
        asked = headers.get("RPC-Type")
        if asked is not None and asked not in self._rpc_types:
            data = {
                "service_id": service,
                "detected_type": asked,
                "allowed_rpc_types": list(self._rpc_types),
            }
            raise _invalid(f"RPC type '{asked}' is not supported by service '{service}'", data)

    def _sessions(self, service: str, headers: Mapping[str, str] | None) -> list[Session]:
        """The current sessions it may use. Raises _Refused where there are none."""
        chain = self._net.chain
        height = chain.height
        if self.delegated:
            app = (headers or {}).get("App-Address")
            if not app:
                # PATH quotes the whole request here, headers with secrets included
                quoted = dict(headers) if headers is not None else None
                text = "error getting the selected app from the HTTP request"
                missing = "a target app must be supplied as HTTP header App-Address"
                if headers is None:
                    missing = "no HTTP headers supplied"
                raise _noop(f"{text}: &{{Header:{quoted}}}: getAppAddrFromHTTPReq: {missing}. ")
            apps = [app]
        else:
            apps = [app.address for app in chain.apps(height) if app.service == service]
        sessions = []
        problem = "ZERO owned apps found for service"
        for app in apps:
            try:
                session = chain.session(app, service, height)
                if self.delegated and not session.app.gateways:
                    raise _noop(f"gateway does not have delegation for app: {app}")
                sessions.append(session)
            except QueryError as error:
                problem = f"error getting a session from the full node for app: {error}"
        if not sessions:
            raise _noop(problem)
        return sessions

    def _endpoints(self, sessions: Sequence[Session]) -> dict[str, Session]:
        """A session for each supplier in any of them."""
        found: dict[str, Session] = {}
        for session in sessions:
            for supplier in session.suppliers:
                found.setdefault(supplier.stake.operator, session)
        return found

    # ---------------------------------------------------------------------------------------- pages

    def _ready(self, service: str, detailed: bool) -> web.Response:
        info: dict[str, Any] = {"ready": False, "endpoint_count": 0, "has_session": False}
        try:
            sessions = self._sessions(service, None)
        except _Refused as refused:
            info["error"] = orjson.loads(refused.body)["error"]
        else:
            offers = {
                supplier.stake.operator: supplier.offers[0]
                for session in sessions
                for supplier in session.suppliers
            }
            info |= {"ready": bool(offers), "endpoint_count": len(offers), "has_session": True}
            if detailed and offers:
                info["endpoints"] = [_details(operator, offer) for operator, offer in offers.items()]
        ready = info["ready"]
        return _json(200 if ready else 503, {"ready": ready, "services": {service: info}})

    def _config(self) -> dict[str, Any]:
        retry = {"enabled": self.faults.retries > 0, "max_retries": self.faults.retries}
        services = [
            {"id": service, "type": "passthrough", "rpc_types": list(self._rpc_types), "retry_config": retry}
            for service in self._net.chain.services
        ]
        return {"gateway_mode": "delegated" if self.delegated else "centralized", "services": services}


def _details(operator: str, offer: Offer) -> dict[str, Any]:
    url = offer.endpoints[0].url
    return {
        "address": f"{operator}-{url}",
        "supplier_address": operator,
        "url": url,
        "is_fallback": False,
        "reputation": {"score": 80, "success_count": 0, "error_count": 0},
        "rpc_types": [endpoint.rpc_type.name.lower() for endpoint in offer.endpoints],
    }


def _noop(error: str) -> _Refused:
    """How services without checks of their own tell that no supplier answered."""
    return _Refused(500, orjson.dumps({"error": error, "msg": _NOOP}))


def _invalid(message: str, data: Mapping[str, Any]) -> _Refused:
    error = {"code": -32600, "message": message, "data": dict(data)}
    return _Refused(400, orjson.dumps({"jsonrpc": "2.0", "error": error, "id": None}))


def _json(status: int, payload: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(payload), content_type="application/json")
