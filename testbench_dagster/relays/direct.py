"""Relays over plain HTTP(S) to the supplier's OpenAI-style base URL."""

from __future__ import annotations

import hashlib

import orjson

from testbench_dagster import __version__
from testbench_dagster.relays.answers import Answer, parse_answer
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.http import Exchange, HttpClient, Target, Targets, TooLarge, describe, fault_of
from testbench_dagster.relays.messages import Attempt, Endpoint, Relay
from testbench_dagster.relays.payload import build_payload, page_path, service_root

#: Least size limit of a page, in MiB: tokenizers are larger than any answer, documents end at 16 MB.
MAX_PAGE_MB = 15.0
_HEADERS = {
    "User-Agent": f"testbench_dagster/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}
_BODY_HEADERS = {**_HEADERS, "Content-Type": "application/json"}


class DirectTransport:
    """Sends relays straight to suppliers (a :class:`~testbench_dagster.relays.messages.Transport`).

    Its connections belong to the event loop of the first :meth:`send`.
    """

    def __init__(self) -> None:
        self._http = HttpClient()
        self._targets = Targets()

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        page = relay.request.get("type") == "get"
        exchange = Exchange(endpoint.limits, least_mb=MAX_PAGE_MB if page else 0.0)
        secrets: tuple[bytes, ...] = ()
        try:
            if page:
                path, body = page_path(relay.request), b""
            else:
                path, payload = build_payload(relay.request, endpoint.api, endpoint.model)
                body = orjson.dumps(payload)
            exchange.evidence = {"path": path, "payload_sha256": hashlib.sha256(body).hexdigest()}
            target = self._target(endpoint, path, "GET" if page else "POST")
            secrets = target.secrets
            await self._http.run(exchange, target, body)
            if exchange.status is None:
                raise RuntimeError("an exchange came to its end without a status")
            answer = parse_answer(relay.request, endpoint.api, exchange.status, exchange.body)
        except Exception as exc:
            fault = fault_of(exc, exchange.phase)
            if page and isinstance(exc, TooLarge):
                fault = Fault.CLIENT_REQUEST  # a page may honestly be larger than what we keep
            answer = Answer(fault, error=describe(exc, exchange.phase))
        return exchange.attempt(answer, secrets)

    async def close(self) -> None:
        """Close the connections; a later send would open new ones."""
        self._targets.clear()
        await self._http.close()

    def _target(self, endpoint: Endpoint, path: str, method: str) -> Target:
        page = method == "GET"

        def make() -> Target:
            return Target.of(
                (service_root(endpoint.base_url) if page else endpoint.base_url.rstrip("/")) + path,
                method,
                _HEADERS if page else _BODY_HEADERS,
                secret_headers=endpoint.headers,
                connect_s=endpoint.limits.connect_s,
                private_allowed=endpoint.private_allowed,
            )

        return self._targets.get(endpoint, path, method, make=make)
