"""Relays over plain HTTP(S) to the supplier's OpenAI-style base URL."""

from __future__ import annotations

from collections.abc import Mapping

from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.outcome import attempt_from, broken
from testbench_dagster.transports.payload import service_root
from testbench_dagster.transports.plain import PlainHttp


class _Addressing:
    """To the supplier itself; pages lie beside its API."""

    def root(self, endpoint: Endpoint, *, page: bool) -> str:
        return service_root(endpoint.base_url) if page else endpoint.base_url.rstrip("/")

    def prefix(self, endpoint: Endpoint, *, page: bool) -> str:
        return ""

    def headers(self, endpoint: Endpoint) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return {}, endpoint.headers


class DirectTransport:
    """Sends relays straight to suppliers (a :class:`~testbench_dagster.core.relay.Transport`).

    Its connections belong to the event loop of the first :meth:`send`.
    """

    def __init__(self) -> None:
        self._http = PlainHttp(_Addressing())

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        exchange = await self._http.ask(endpoint, relay.request)
        if exchange.error is None:
            try:
                assert exchange.status is not None  # it is complete
                answer = parse_answer(relay.request, endpoint.api, exchange.status, exchange.body)
            except Exception as error:  # it promises not to raise
                exchange.error = error
        if exchange.error is not None:
            answer = broken(exchange, page=exchange.page)
        return attempt_from(exchange, answer, exchange.evidence, exchange.secrets)

    async def close(self) -> None:
        """Close the connections; a later send would open new ones."""
        await self._http.close()
