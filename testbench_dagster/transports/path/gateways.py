"""PATH gateways beside their relays: whom they can reach, and whether they are set up for evaluation.

``GET /ready/<service>?detailed=true`` lists the endpoints in the sessions of a gateway's applications,
``GET /config`` what it was configured with; both stand beside ``/v1``, not under it (PATH at 5ff2e27e, July
2026). A gateway in delegated mode has no sessions of its own, so it lists nobody. What it tells of block
heights are those of the service's own chain, not of Pocket's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from testbench_dagster.config import (
    SERVICE_SOURCE,
    THROUGH_GATEWAY,
    GatewayConfig,
    ServiceConfig,
    SupplierConfig,
)
from testbench_dagster.config.asking import merged
from testbench_dagster.core.bech32 import is_address
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import STRAIGHT, Route
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.discovery import MAX_BYTES, Entry, Listing, SourceError, bearer, fetch
from testbench_dagster.transports.endpoints import route_of, secret_headers
from testbench_dagster.transports.payload import service_root
from testbench_dagster.transports.pocket.messages import RpcType
from testbench_dagster.transports.redaction import redacted_body

#: Seconds one question to a gateway may take, unless told otherwise.
ASK_WITHIN_S = 10.0
_MAX_PROBLEMS = 100  # told of one listing
_SHOWN_CHARS = 80
_SAID_CHARS = 200
# what a gateway in delegated mode says when it is asked for sessions without being told an application
_WANTS_APPLICATION = ("no HTTP headers supplied", "HTTP header App-Address")


@dataclass(frozen=True)
class Access:
    """What a gateway is asked with: its token and configured headers, and how it is connected to."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    route: Route = STRAIGHT

    @classmethod
    def to_gateway(cls, service: str, config: ServiceConfig, base: Path) -> Access:
        """That of a service, from the environment; relative files start at ``base``.

        Raises:
            SourceError: a variable is not set or holds what nothing can carry, or a file cannot be read.
        """
        asking, where = merged(config), f"services.{service}"
        try:
            headers = secret_headers(where, asking)
            route = route_of(base, asking, where)
        except ConfigError as error:
            raise SourceError(f"cannot be asked: {error}") from None
        token = bearer(_gateway(config).token_env)
        if asking.key_header is not None and token:
            token = {asking.key_header: token["Authorization"].removeprefix("Bearer ")}
        return cls(headers | token, route)


@dataclass(frozen=True)
class ReadySource:
    """The suppliers a PATH gateway can reach now: those in the sessions of its applications.

    Relative files of its configuration start at ``base``.
    """

    service: str
    config: ServiceConfig
    timeout_s: float = ASK_WITHIN_S
    base: Path = Path()

    def read(self, deadline: float) -> Listing:
        """Ask the gateway before ``deadline`` (``time.monotonic()`` seconds).

        Raises:
            SourceError: it cannot be asked in time, knows no session for the service, or lists nobody. It
                does the last whenever its own look-up fails, so that says nothing of who left.
        """
        gateway = _gateway(self.config)
        access = Access.to_gateway(self.service, self.config, self.base)
        seconds = min(self.timeout_s, deadline - time.monotonic())
        return self.listing(Readiness.ask(gateway, self.service, seconds, access))

    def listing(self, readiness: Readiness) -> Listing:
        """The suppliers a gateway says are ready. Raises SourceError as :meth:`read` does."""
        if not readiness.has_session:
            raise SourceError(f"has no session for {self.service}{readiness.said}{readiness.remedy}")
        if not readiness.endpoints:
            raise SourceError(f"lists no endpoint for {self.service}{readiness.said}; ask again later")
        gateway = _gateway(self.config)
        hosts: dict[str, str | None] = {}
        problems: dict[str, str] = {}
        for position, endpoint in enumerate(readiness.endpoints):
            try:
                address, host = _endpoint(endpoint)
            except ValueError as error:
                if len(problems) < _MAX_PROBLEMS:
                    what = f"{SERVICE_SOURCE}{self.service}: endpoints[{position}]"
                    problems[what] = f"{what}: {error}"
                continue
            if address is not None and (self.config.only is None or address in self.config.only):
                hosts[address] = hosts.get(address) or host
        try:
            entries = [self._entry(gateway, address, host) for address, host in hosts.items()]
        except ValidationError as error:  # of the configuration, so of all alike
            raise SourceError(f"cannot be used: {escaped(error.errors()[0]['msg'])}") from None
        return Listing(entries, problems=problems)

    def _entry(self, gateway: GatewayConfig, address: str, host: str | None) -> Entry:
        supplier = SupplierConfig(
            address=address,
            service=self.service,
            base_url=gateway.url,
            api=self.config.api,
            model=self.config.model,
        )
        rpc_type = None if gateway.rpc_type is None else int(RpcType[gateway.rpc_type.upper()])
        return Entry(supplier, transport=THROUGH_GATEWAY.transport, rpc_type=rpc_type, host=host)


@dataclass(frozen=True)
class GatewayReport:
    """What :func:`check_gateway` found.

    ``suppliers`` are those it can reach now. None where the gateway does not tell: ``knows_service``,
    ``delegated`` (its mode), ``retries`` (how often it repeats a relay) and ``hedges``. PATH up to July 2026
    never tells ``hedges``; then only the answers to relays show it. ``problems`` keep relays from being
    scored, ``warnings`` distort them.
    """

    reachable: bool
    knows_service: bool | None = None
    suppliers: int = 0
    delegated: bool | None = None
    retries: int | None = None
    hedges: bool | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_gateway(
    service: str, config: ServiceConfig, timeout_s: float = ASK_WITHIN_S, base: Path = Path()
) -> GatewayReport:
    """Ask the gateway of a service how it is set up; for ``testbench check``.

    Never raises for what the gateway does. Each of the two questions may take ``timeout_s`` seconds.
    """
    gateway = _gateway(config)
    try:
        access = Access.to_gateway(service, config, base)
        readiness = Readiness.ask(gateway, service, timeout_s, access)
    except SourceError as error:
        return GatewayReport(reachable=False, problems=(str(error),))
    settings = GatewaySettings.ask(gateway, service, timeout_s, access)
    knows = settings.knows_service
    if knows is None and readiness.has_session:
        knows = True
    problems, warnings = settings.judge(gateway, service)
    listed = {address for address, _ in _usable(readiness.endpoints) if address is not None}
    if not readiness.has_session and knows is not False:
        if settings.delegated is not True:
            problems.append(f"it has no session for {service}{readiness.said}{readiness.remedy}")
        elif config.discovery == "ready":
            problems.append(
                "it is in delegated mode, in which gateways list nobody; add nodes and use "
                "discover: sessions or staked"
            )
    return GatewayReport(
        reachable=True,
        knows_service=knows,
        suppliers=len(listed),
        delegated=settings.delegated,
        retries=settings.retries,
        hedges=settings.hedges,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


# ----------------------------------------------------------------------------------------------- asking


def _gateway(config: ServiceConfig) -> GatewayConfig:
    if config.gateway is None:
        raise SourceError("names no gateway; add gateway: {url: 'https://host/v1'}")
    return config.gateway


def _ask(
    gateway: GatewayConfig, page: str, seconds: float, access: Access, statuses: tuple[int, ...] = (200,)
) -> Any:
    """The JSON of one of a gateway's pages. Raises SourceError, which never quotes the token."""
    url, route = service_root(gateway.url) + page, access.route
    try:
        _, body = asyncio.run(fetch(url, access.headers, seconds, statuses=statuses, route=route))
    except TimeoutError:
        raise SourceError(f"gave no complete answer within {max(seconds, 0):.1f} s") from None
    if len(body) > MAX_BYTES:
        raise SourceError(f"answers with more than {MAX_BYTES // 2**20} MB")
    from testbench_dagster.transports.prepared import secrets_of  # with aiohttp: 0.2 s

    try:
        return orjson.loads(redacted_body(body, secrets_of(access.headers, route)))
    except orjson.JSONDecodeError as error:
        raise SourceError(f"gives no valid JSON: {escaped(str(error))}; is it a PATH gateway?") from None


@dataclass(frozen=True)
class Readiness:
    """What ``/ready/<service>`` says: whether there is a session, its endpoints as listed, what is wrong."""

    has_session: bool
    endpoints: Sequence[Any] = ()
    error: str = ""

    @classmethod
    def ask(cls, gateway: GatewayConfig, service: str, seconds: float, access: Access) -> Readiness:
        """Ask the gateway. Raises SourceError."""
        # 503 is how it says "not ready", and what it knows stands there all the same
        return cls.from_answer(
            _ask(gateway, f"/ready/{service}?detailed=true", seconds, access, (200, 503)), service
        )

    @classmethod
    def from_answer(cls, told: Any, service: str) -> Readiness:
        """Take the answer apart. Raises SourceError for one that has another form."""
        services = told.get("services") if isinstance(told, dict) else None
        found = services.get(service) if isinstance(services, dict) else None
        if not isinstance(found, dict):
            raise SourceError(f"does not tell of {service} at /ready/{service}; is it a PATH gateway?")
        endpoints = found.get("endpoints") or []
        if not isinstance(endpoints, list):
            raise SourceError("lists endpoints in another form than PATH does")
        error = found.get("error")
        return cls(found.get("has_session") is True, endpoints, error if isinstance(error, str) else "")

    @property
    def said(self) -> str:
        """What is wrong, to follow a message."""
        return f" ({escaped(self.error, _SAID_CHARS)})" if self.error else ""

    @property
    def remedy(self) -> str:
        """What to do about a session that is not there, to follow a message."""
        if any(words in self.error for words in _WANTS_APPLICATION):
            return "; gateways in delegated mode list nobody: add nodes and use discover: sessions or staked"
        return "; configure and stake an application for it at the gateway"


def _endpoint(endpoint: Any) -> tuple[str | None, str | None]:
    """Supplier and host of a listed endpoint, both None of the gateway's own fallbacks. Raises ValueError."""
    if not isinstance(endpoint, dict):
        raise ValueError("is no object")
    if endpoint.get("is_fallback") is True:
        return None, None
    address = endpoint.get("supplier_address")
    if not isinstance(address, str) or not is_address(address):
        raise ValueError(f"supplier_address {escaped(repr(address)[:500], _SHOWN_CHARS)} is no address")
    url = endpoint.get("url")
    return address, _host(url) if isinstance(url, str) else None


def _usable(endpoints: Sequence[Any]) -> Iterator[tuple[str | None, str | None]]:
    for endpoint in endpoints:
        try:
            yield _endpoint(endpoint)
        except ValueError:
            continue


def _host(url: str) -> str | None:
    """The host of a staked URL; None of one that is no URL. Nothing is ever sent there."""
    if len(url) > 2048 or not (url.isascii() and url.isprintable()):
        return None
    try:
        return host_of(url) if urlsplit(url).scheme in ("http", "https") else None
    except ValueError:  # of the port
        return None


@dataclass(frozen=True)
class GatewaySettings:
    """What ``/config`` says of a gateway and one service; None where it says nothing."""

    delegated: bool | None = None
    services: tuple[str, ...] | None = None
    knows_service: bool | None = None
    rpc_types: tuple[str, ...] = ()
    retries: int | None = None
    hedges: bool | None = None
    fallback: bool = False
    load_test: bool = False

    @classmethod
    def ask(cls, gateway: GatewayConfig, service: str, seconds: float, access: Access) -> GatewaySettings:
        """Ask; a gateway may well hide this page, so nothing is raised."""
        try:
            return cls.from_answer(_ask(gateway, "/config", seconds, access), service)
        except SourceError:
            return cls()

    @classmethod
    def from_answer(cls, told: Any, service: str) -> GatewaySettings:
        """Take the answer apart; what has another form than PATH's says nothing."""
        if not isinstance(told, dict):
            return cls()
        mode = told.get("gateway_mode")
        listed = told.get("services")
        blocks = {
            block["id"]: block
            for block in (listed if isinstance(listed, list) else [])
            if isinstance(block, dict) and isinstance(block.get("id"), str)
        }
        block = blocks.get(service, {})
        types = block.get("rpc_types")
        retry = block.get("retry_config")
        retry = retry if isinstance(retry, dict) else {}
        count = retry.get("max_retries")
        count = count if isinstance(count, int) and not isinstance(count, bool) else None
        fallback = block.get("fallback")
        return cls(
            delegated=mode.lower() == "delegated" if isinstance(mode, str) else None,
            services=tuple(blocks) if blocks else None,
            knows_service=service in blocks if blocks else None,
            rpc_types=tuple(t for t in types if isinstance(t, str)) if isinstance(types, list) else (),
            retries=0 if retry.get("enabled") is False else count,
            hedges=_is_positive(retry["hedge_delay"]) if "hedge_delay" in retry else None,
            fallback=isinstance(fallback, dict) and fallback.get("enabled") is True,
            load_test=told.get("load_testing_mode") is True,
        )

    def judge(self, gateway: GatewayConfig, service: str) -> tuple[list[str], list[str]]:
        """Problems and warnings."""
        problems, warnings = [], []
        if self.knows_service is False:
            known = escaped(", ".join(self.services or ()), _SAID_CHARS)
            problems.append(f"it is not configured for {service}, but for {known}")
        if self.delegated and gateway.app_address is None:
            problems.append("it is in delegated mode and wants to know the application; set app_address")
        if self.delegated is False and gateway.app_address is not None:
            warnings.append("it uses its own applications and ignores app_address; remove that")
        if gateway.rpc_type is not None and self.rpc_types and gateway.rpc_type not in self.rpc_types:
            known = escaped(", ".join(self.rpc_types), _SAID_CHARS)
            problems.append(f"rpc_type {gateway.rpc_type} is not allowed for {service}; it allows {known}")
        if self.load_test:
            problems.append("it is in load testing mode, in which no supplier of the network answers")
        if self.hedges:
            warnings.append(f"it hedges: set hedge_delay of {service} to 0 there")
        if self.retries:
            warnings.append(
                f"it repeats relays up to {self.retries} times: switch retries of {service} off there"
            )
        if self.fallback:
            warnings.append(f"it has fallbacks for {service}, which are no suppliers: switch them off there")
        return problems, warnings


def _is_positive(duration: Any) -> bool:
    """Whether a duration, as a number or as Go writes it ("500ms", "0s"), is more than nothing."""
    if isinstance(duration, str):
        return any(digit in duration for digit in "123456789")
    return isinstance(duration, (int, float)) and duration > 0
