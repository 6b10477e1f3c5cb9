"""Relays as plain HTTP: the request lm-eval would send, posted as it is, and pages by GET.

Suppliers that are reached directly and gateways are asked alike; they differ in where requests go and in a
few headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from testbench_dagster import __version__
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, EVIDENCE
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.transports.http import Exchange, HttpClient
from testbench_dagster.transports.payload import (
    answer_tokens,
    as_stream,
    asked_otherwise,
    build_payload,
    page_path,
)
from testbench_dagster.transports.prepared import PreparedRequest, PreparedRequests
from testbench_dagster.transports.stream_listener import StreamListener

_HEADERS = {
    "User-Agent": f"testbench_dagster/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}
_BODY_HEADERS = {**_HEADERS, "Content-Type": "application/json"}


class Addressing(Protocol):
    """Where plain requests to an endpoint go, and what they say beside the usual headers."""

    def root(self, endpoint: Endpoint, *, page: bool) -> str:
        """The URL that the path is put behind."""
        ...

    def prefix(self, endpoint: Endpoint, *, page: bool) -> str:
        """What the path begins with."""
        ...

    def headers(self, endpoint: Endpoint) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Further headers: those anybody may see, and those with secrets, which are redacted in answers.

        Raises:
            RequestError: the endpoint cannot be named in headers.
        """
        ...


class PlainExchange(Exchange):
    """What happened to one plain request, with what its attempt carries.

    ``page``: it was a GET. ``evidence`` and ``secrets`` are those of
    :func:`~testbench_dagster.transports.outcome.attempt_from`.
    """

    __slots__ = ("evidence", "page", "secrets")

    def __init__(self, *, page: bool) -> None:
        super().__init__()
        self.page = page
        self.evidence: dict[str, Any] = {}
        self.secrets: tuple[bytes, ...] = ()


class PlainHttp:
    """Makes plain requests; its connections belong to the event loop of the first."""

    def __init__(self, addressing: Addressing) -> None:
        self._http = HttpClient()
        self._addressing = addressing
        self._prepared = PreparedRequests()

    async def ask(
        self, endpoint: Endpoint, request: Mapping[str, Any], watch: StreamWatch | None = None
    ) -> PlainExchange:
        """Send a request of a prompt (see :class:`~testbench_dagster.core.relay.Relay`) once.

        With a ``watch`` it is sent as that says, and told of there. Only cancellation of the calling task is
        raised.
        """
        page = request.get("type") == "get"
        exchange = PlainExchange(page=page)
        try:
            if page:
                path, body, otherwise = page_path(request), b"", None
            else:
                api, generation = endpoint.api, endpoint.generation
                path, payload = build_payload(request, api, endpoint.model, generation)
                if watch is not None and watch.stream:
                    payload = as_stream(payload, usage=watch.usage)
                body = orjson.dumps(payload)
                plainly = generation is AS_THE_TASK_SAYS
                otherwise = None if plainly else asked_otherwise(request, api, generation)
            path = self._addressing.prefix(endpoint, page=page) + path
            exchange.evidence = {"path": path, "payload_sha256": hashlib.sha256(body).hexdigest()}
            if otherwise is not None:
                exchange.evidence[EVIDENCE] = otherwise
            prepared = self._prepared.get(endpoint, path, page, make=self._request)
        except Exception as error:
            exchange.error = error
            return exchange
        exchange.secrets = prepared.secrets
        limits = endpoint.limits
        if limits.following:
            limits = limits.for_answer(answer_tokens(request, endpoint.generation))
        if watch is None:
            await self._http.run(exchange, prepared, body, limits, page=page)
            return exchange
        listener = StreamListener(watch, endpoint.api)
        await self._http.run(
            exchange,
            prepared,
            body,
            limits,
            page=page,
            on_chunk=listener.listen if watch.stream else None,
            on_connect=listener.connected,
        )
        listener.finish()
        return exchange

    async def close(self) -> None:
        """Close the connections; a later request would open new ones."""
        self._prepared.clear()
        await self._http.close()

    def _request(self, endpoint: Endpoint, path: str, page: bool) -> PreparedRequest:
        told, secret = self._addressing.headers(endpoint)
        return PreparedRequest.from_url(
            self._addressing.root(endpoint, page=page) + path,
            "GET" if page else "POST",
            {**(_HEADERS if page else _BODY_HEADERS), **told},
            secret_headers=secret,
            connect_s=endpoint.limits.connect_s,
            private_allowed=endpoint.private_allowed,
            route=endpoint.route,
        )
