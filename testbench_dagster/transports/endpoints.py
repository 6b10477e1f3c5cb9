"""What endpoints of all transports have in common: bounds, how they are asked, and secrets from variables."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from testbench_dagster.config import Config
from testbench_dagster.config.asking import Asking, Connection
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Endpoint, Route
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.transports.tls import CaFileError, tls_context


def endpoint_of(config: Config, supplier: Supplier, *, asking: Asking | None = None, **own: Any) -> Endpoint:
    """The endpoint of a supplier: its API, model, bounds, pace and settings, and what its transport adds.

    Raises:
        ConfigError: a variable is not set, or the certificates cannot be read.
    """
    asking = asking_of(config, supplier) if asking is None else asking
    where = f"supplier {supplier.key}"
    common: dict[str, Any] = {
        "supplier": supplier.key,
        "service": supplier.service,
        "base_url": supplier.base_url,
        "api": supplier.api,
        "model": supplier.model,
        "limits": supplier.limits(config.settings.relays.limits()),
        "transport": supplier.transport,
        "generation": asking.generation,
        "route": route_of(config.base, asking, where),
        "pace": config.settings.pace_of(supplier),
    }
    own["headers"] = secret_headers(where, asking) | dict(own.get("headers", {}))
    return Endpoint(**common | own)


def asking_of(config: Config, supplier: Supplier) -> Asking:
    """How a supplier is asked, by its own block and its service's.

    Raises:
        ConfigError: its source is not trusted with the secrets of the service that it claims to be of.
    """
    own = config.supplier(supplier.key) if supplier.source == CONFIG_SOURCE else None
    asking = config.settings.asking(supplier.service, supplier.transport, own)
    if asking.secret and not supplier.trusted and config.settings.service_of(supplier.source) is None:
        raise ConfigError(
            f"supplier {supplier.key}: {supplier.source} lists it, and is not trusted with headers and "
            f"query_env of services.{supplier.service}: whoever writes that list would be sent them. Set "
            "allow_private_networks on the source if it is trusted, or list the supplier in suppliers"
        )
    return asking


def route_of(base: Path, asking: Asking, where: str) -> Route:
    """How connections are made, and what URLs carry. Raises ConfigError; the text begins with ``where``."""
    secret = tuple(
        (n, _held(f"{where}: query_env: {n}", variable)) for n, variable in asking.query_env.items()
    )
    route = connection_route(base, asking.connection, where)
    return replace(route, query=tuple(asking.query.items()), secret_query=secret)


def connection_route(base: Path, connection: Connection, where: str) -> Route:
    """How connections are made, with the proxy's URL from its variable; relative files start at ``base``.

    Raises:
        ConfigError: the variable holds no URL of a proxy, or the certificates cannot be read.
    """
    proxy, ca_file = connection.proxy, connection.ca_file
    if connection.proxy_env is not None:
        proxy = proxy_url(f"{where}: proxy_env", connection.proxy_env)
    if ca_file is not None:
        ca_file = str(base / Path(ca_file).expanduser())
        try:
            tls_context(ca_file)
        except CaFileError as error:
            raise ConfigError(f"{where}: tls.ca_file: {error}") from None
    return Route(proxy=proxy, ca_file=ca_file)


def proxy_url(where: str, variable: str) -> str:
    """The URL of a proxy that a variable holds, perhaps with user name and password.

    Raises:
        ConfigError: it is not set, or is no URL of a proxy; begins with ``where`` and never quotes it.
    """
    value = _held(where, variable)
    try:
        parts = urlsplit(value)
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed host or port
        usable = False
    if not usable or parts.path.rstrip("/") or parts.query or parts.fragment:
        raise ConfigError(
            f"{where} names {variable}, which holds no URL of an HTTP proxy; write it like "
            "http://user:password@host:port"
        )
    return value.rstrip("/")


def secret_headers(where: str, asking: Asking) -> dict[str, str]:
    """The configured headers with what their variables hold. Raises ConfigError; begins with ``where``."""
    return {name: _held(f"{where}: headers: {name}", variable) for name, variable in asking.headers.items()}


def authorization(where: str, variable: str | None, header: str | None = None) -> dict[str, str]:
    """The header with the key in a variable; none where no variable is named.

    ``header`` takes the bare key in place of ``Authorization``.

    Raises:
        ConfigError: it is not set, or holds what no header can carry; begins with ``where``.
    """
    if not variable:
        return {}
    key = _held(where, variable)
    return {"Authorization": f"Bearer {key}"} if header is None else {header: key}


def _held(where: str, variable: str) -> str:
    """What a variable holds, of which a header can carry every character."""
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"{where} names {variable}, which is not set; export it")
    if not (value.isascii() and value.isprintable()):  # a header could not carry it
        raise ConfigError(
            f"{where}: the key in {variable} holds a line break or another character no key has; "
            "export it again"
        )
    return value
