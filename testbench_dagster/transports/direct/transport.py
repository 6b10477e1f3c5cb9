"""Relays over plain HTTP(S) to the supplier's OpenAI-style base URL."""

from __future__ import annotations

from collections.abc import Mapping

from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.outcome import answer_in, attempt_from, broken
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
        exchange = await self._http.ask(endpoint, relay.request, relay.watch)

        def judge(status: int, body: bytes, charset: str | None) -> Answer:
            generation = endpoint.generation
            return parse_answer(
                relay.request, endpoint.api, status, body, charset=charset, generation=generation
            )

        answer, body = answer_in(
            exchange, exchange.secrets, judge, lambda: broken(exchange, page=exchange.page)
        )
        return attempt_from(exchange, answer, exchange.evidence, exchange.secrets, searched=body)

    async def close(self) -> None:
        """Close the connections; a later send would open new ones."""
        await self._http.close()
