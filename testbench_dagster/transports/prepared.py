"""Requests made ready once and sent often: where they go, by which way, and all that stays the same."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from testbench_dagster.core.relay import STRAIGHT, Endpoint, Route
from testbench_dagster.transports import aiohttp_internals
from testbench_dagster.transports.addresses import AddressRefused, refusal
from testbench_dagster.transports.payload import RequestError
from testbench_dagster.transports.tls import CaFileError, tls_context

_MAX_PREPARED = 20_000
#: Values shorter than this are not looked for in answers (a secret is longer, a flag is not).
_MIN_SECRET_CHARS = 8
#: Headers of which every word is a secret by itself: a scheme and the credentials.
_SCHEMED = ("authorization", "proxy-authorization")


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Where exchanges of one method go to, and all of their request that stays the same.

    ``proxied``: they go through an HTTP proxy.
    """

    private_allowed: bool
    connect: aiohttp.ClientRequest  # tells the connector where to; never sent itself
    timeout: aiohttp.ClientTimeout
    head: bytes  # the request up to the value of Content-Length, or all of it where it has no body
    secrets: tuple[bytes, ...]
    has_body: bool
    proxied: bool = False

    @classmethod
    def from_url(
        cls,
        url: str,
        method: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        private_allowed: bool,
        secret_headers: Mapping[str, str] | None = None,
        route: Route = STRAIGHT,
    ) -> PreparedRequest:
        """Prepare exchanges with ``url``; what is secret of headers and route is redacted in answers.

        Through a proxy, http URLs are asked for in absolute form, and https URLs by a tunnel (CONNECT).

        Raises:
            RequestError: the URL is not plain http(s), a header holds a line break, or the certificates of
                the route cannot be read.
            AddressRefused: the URL names an address that is not public, and those alone are allowed.
        """
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.user or parsed.password:
            raise RequestError("base_url must be http(s)://host/path without user name or password")
        # the connector resolves names, and takes literal addresses as they are
        reason = None if private_allowed else refusal(parsed.host)
        if reason is not None:
            raise AddressRefused(reason)
        if route.query or route.secret_query:
            parsed = parsed.extend_query([*route.query, *route.secret_query])
        secret_headers = secret_headers or {}
        host = parsed.host_port_subcomponent or ""
        target = parsed.raw_path_qs
        sent = CIMultiDict(Host=host)
        sent.update(headers)
        sent.update(secret_headers)
        if route.proxy is not None and parsed.scheme == "http":
            target = f"http://{host}{target}"
            if (credentials := _credentials(route.proxy)) is not None:
                sent["Proxy-Authorization"] = credentials
        has_body = method != "GET"
        lines = [f"{name}: {value}" for name, value in sent.items()]
        if any(forbidden in line for line in lines for forbidden in "\r\n\0"):
            raise RequestError("a configured header holds a line break")
        lines = [f"{method} {target} HTTP/1.1", *lines, *(["Content-Length: "] if has_body else ["", ""])]
        return cls(
            private_allowed,
            _address(method, parsed, route),
            aiohttp.ClientTimeout(connect=connect_s),
            "\r\n".join(lines).encode(),
            secrets_of(secret_headers, route),
            has_body=has_body,
            proxied=route.proxy is not None,
        )

    def message(self, body: bytes) -> bytes:
        """The request as it is sent."""
        return b"%b%d\r\n\r\n%b" % (self.head, len(body), body) if self.has_body else self.head


class PreparedRequests:
    """Prepared requests by endpoint and what else tells them apart.

    Parsing a URL and its headers costs more than sending a request.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Endpoint, PreparedRequest]] = {}

    def get(self, endpoint: Endpoint, *rest: Any, make: Callable[..., PreparedRequest]) -> PreparedRequest:
        """Return the request to an endpoint, made (of endpoint and rest) at the first time.

        Raises what ``make`` raises.
        """
        key = (id(endpoint), *rest)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        request = make(endpoint, *rest)
        if len(self._known) >= _MAX_PREPARED:  # a caller that makes a new Endpoint for every send
            self._known.clear()
        self._known[key] = (endpoint, request)  # the endpoint is held so that no other gets its id
        return request

    def clear(self) -> None:
        """Forget them: connections of another event loop need others."""
        self._known.clear()


def secrets_of(headers: Mapping[str, str], route: Route = STRAIGHT) -> tuple[bytes, ...]:
    """What no answer may be kept with, the longest first: secret headers, parameters, the proxy's password.

    "Bearer <key>" is searched for as the bare key, which is what a server would quote; parameters also as
    they stand in a URL.
    """
    words: set[str] = set()
    for name, value in headers.items():
        words.update(value.split() if name.lower() in _SCHEMED else [value.strip()])
    for _, value in route.secret_query:
        as_sent = URL.build(query={"": value}).raw_query_string.removeprefix("=")
        words.update((value, as_sent, quote(value, safe=""), quote_plus(value)))
    if route.proxy is not None:
        proxy = URL(route.proxy)
        words.update(filter(None, (proxy.password, proxy.raw_password, _credentials(route.proxy, bare=True))))
    found = {word for word in words if len(word) >= _MIN_SECRET_CHARS}
    # of two that contain each other the longer one goes first, or its rest would stay
    return tuple(word.encode() for word in sorted(found, key=lambda word: (-len(word), word)))


def _address(method: str, url: URL, route: Route) -> aiohttp.ClientRequest:
    """Where the connector connects to: without path and query, so that no error can quote them."""
    if route == STRAIGHT:
        return aiohttp_internals.address(method, url.origin())
    try:
        context = None if route.ca_file is None else tls_context(route.ca_file)
    except CaFileError as error:
        raise RequestError(f"tls.ca_file: {error}") from None
    proxy = None if route.proxy is None else URL(route.proxy)
    return aiohttp_internals.address(method, url.origin(), context=context, proxy=proxy)


def _credentials(proxy: str, *, bare: bool = False) -> str | None:
    """The value of Proxy-Authorization, or only what is encoded in it; None without a user name."""
    url = URL(proxy)
    if url.user is None:
        return None
    encoded = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return encoded if bare else f"Basic {encoded}"
