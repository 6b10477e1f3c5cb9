"""One bounded HTTP exchange with a party that is not trusted: what all transports send and receive through.

It tells what happened and judges nothing: :mod:`.outcome` makes an attempt of it. Suppliers are hostile: no
redirect is followed, no cookie kept, and size (before and after decompression), every phase's time and the
header block are bounded. Endpoints that may not lie in private networks are connected to public addresses
only: the addresses a name resolves to are judged, and those judged are used.

aiohttp connects (DNS, TLS, pool) and parses; its ``ClientSession`` is left out, because what that does per
request (URL and header handling, one task and several timers) costs three times as much as all the rest.
The connector and its protocol are used as the session uses them (:mod:`.aiohttp_internals`).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy

from testbench_dagster.core.relay import Limits
from testbench_dagster.core.remedies import PROXY_WANTS_CREDENTIALS
from testbench_dagster.transports import aiohttp_internals
from testbench_dagster.transports.addresses import REMEDY, AddressRefused, is_public
from testbench_dagster.transports.aiohttp_internals import ResponseHandler
from testbench_dagster.transports.content_encodings import decoder_for
from testbench_dagster.transports.prepared import PreparedRequest

#: Least size limit of a page (the answer to a GET task), in MiB: tokenizers are larger than any answer,
#: documents end at 16 MB.
MAX_PAGE_MB = 15.0
#: What is kept of an answer beyond the size limit, in bytes.
TRUNCATED_EVIDENCE_BYTES = 64 * 1024
_DNS_CACHE_S = 300
#: How often deadlines are looked at, in seconds: they are kept to within this.
_TICK_S = 0.05
_NO_HEADERS: Mapping[str, str] = CIMultiDictProxy(CIMultiDict())

#: How far an exchange came.
Phase = Literal["preparing", "connecting", "waiting", "reading"]
#: Is told a piece of the decoded body, and of which exchange.
OnChunk = Callable[["Exchange", bytes], None]
#: Is told that the connection of an exchange stands, and whether it was used before.
OnConnect = Callable[["Exchange", bool], None]


class HttpClient:
    """Connections and timers that exchanges share; they belong to the event loop of its first exchange."""

    def __init__(self) -> None:
        self._connectors: dict[bool, aiohttp.TCPConnector] = {}  # by whether private addresses are allowed
        self._deadlines = _Deadlines()
        self._outbox = _Outbox()

    def run(
        self,
        exchange: Exchange,
        request: PreparedRequest,
        body: bytes,
        limits: Limits,
        *,
        page: bool = False,
        on_chunk: OnChunk | None = None,
        on_connect: OnConnect | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Send a request with this body and note in ``exchange`` what happens, also what goes wrong.

        Only cancellation of the calling task is raised. A ``page`` may be as large as :data:`MAX_PAGE_MB`.
        ``on_chunk`` is told every piece of the decoded body as it arrives, ``on_connect`` when the connection
        stands; what they raise ends the exchange.
        """
        max_mb = max(limits.max_response_mb, MAX_PAGE_MB) if page else limits.max_response_mb
        running = _Running(exchange, limits, int(max_mb * 1024 * 1024), on_chunk, on_connect)
        # a proxy is configured, hence trusted: it may lie anywhere, and resolves names itself
        connector = self._opened(request.private_allowed or request.proxied)
        # no coroutine of its own: every layer costs each time the exchange is woken
        return running.run(connector, self._deadlines, self._outbox, request, body)

    async def close(self) -> None:
        """Close the connections; a later exchange would open new ones."""
        connectors, self._connectors = self._connectors, {}
        for connector in connectors.values():
            await connector.close()

    def _opened(self, private_allowed: bool) -> aiohttp.TCPConnector:
        """The connector for endpoints of one kind: they share no connection and no name resolution.

        Within one kind, those alone share connections who have server, proxy and authorities in common.
        """
        connector = self._connectors.get(private_allowed)
        if connector is None:
            resolver = None if private_allowed else PublicResolver()
            # the engine bounds what is in flight, so the connector need not
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=_DNS_CACHE_S, resolver=resolver)
            self._connectors[private_allowed] = connector
        return connector


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()  # the system's, which holds nothing that needs closing

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name; :class:`AddressRefused` when it has addresses, but none that is public."""
        found = await self._resolver.resolve(host, port, family)
        public = [address for address in found if is_public(address["host"])]
        if found and not public:
            raise AddressRefused(f"{host} leads to {found[0]['host']}, which is no public address; {REMEDY}")
        return public

    async def close(self) -> None:
        """Nothing is to be released."""


class _Deadlines:
    """Ends exchanges whose deadline passed.

    One timer for all: a timer per phase of every request would cost more than the request.
    """

    def __init__(self) -> None:
        self._running: set[_Running] = set()
        self._ticking = False

    def add(self, running: _Running) -> None:
        self._running.add(running)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def remove(self, running: _Running) -> None:
        self._running.discard(running)

    def _tick(self) -> None:
        now = time.perf_counter()
        for late in [r for r in self._running if r.deadline <= now]:
            self._running.discard(late)
            late.expire()
        self._ticking = bool(self._running)
        if self._ticking:
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)


class _Outbox:
    """Sends what the tasks of one loop iteration have to send in one go.

    A write wakes whoever receives it, and that is half the cost of a request when it happens each time:
    measured on loopback, 60 us for writes between other work, 25 us for writes in a row.
    """

    def __init__(self) -> None:
        self._writes: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._writes:
            asyncio.get_running_loop().call_soon(self._flush)
        self._writes.append((transport, data))

    def _flush(self) -> None:
        writes, self._writes = self._writes, []
        for transport, data in writes:
            if not transport.is_closing():
                transport.write(data)


class TooLarge(Exception):
    """The answer exceeds the size limit."""


class Exchange:
    """What happened between a request being handed to a transport and its answer being complete.

    ``phase`` tells how far it came, ``error`` what ended it early, if anything did. Of the answer there are
    ``status``, ``headers``, and ``body`` as decoded: ``body_bytes`` of it came, and of one that is
    ``too_large`` the beginning is kept. ``started`` and ``first_byte`` are readings of
    ``time.perf_counter()``.
    """

    __slots__ = (
        "body",
        "body_bytes",
        "error",
        "first_byte",
        "headers",
        "phase",
        "started",
        "started_at",
        "status",
        "too_large",
    )

    def __init__(self) -> None:
        self.started_at = datetime.now(UTC)
        self.started = time.perf_counter()
        self.first_byte: float | None = None
        self.phase: Phase = "preparing"
        self.error: Exception | None = None
        self.status: int | None = None
        self.headers = _NO_HEADERS
        self.body = b""
        self.body_bytes = 0
        self.too_large = False

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since it began."""
        return (time.perf_counter() - self.started) * 1000


class _Running:
    """An exchange while it lasts: its deadlines, and what it waits for."""

    __slots__ = (
        "_cap",
        "_content",
        "_exchange",
        "_limits",
        "_on_chunk",
        "_on_connect",
        "_protocol",
        "deadline",
    )

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        cap: int,
        on_chunk: OnChunk | None,
        on_connect: OnConnect | None,
    ) -> None:
        self._exchange = exchange
        self._limits = limits
        self._cap = cap  # bytes of the body
        self._on_chunk = on_chunk
        self._on_connect = on_connect
        self._protocol: ResponseHandler | None = None
        self._content: aiohttp.StreamReader | None = None
        self.deadline = 0.0

    async def run(
        self,
        connector: aiohttp.TCPConnector,
        deadlines: _Deadlines,
        outbox: _Outbox,
        request: PreparedRequest,
        body: bytes,
    ) -> None:
        """Send and receive; notes what goes wrong."""
        exchange = self._exchange
        try:
            exchange.phase = "connecting"
            if self._on_connect is None:
                connection = await aiohttp_internals.connect(connector, request.connect, request.timeout)
            else:
                connection, reused = await aiohttp_internals.connect_seen(
                    connector, request.connect, request.timeout
                )
                self._on_connect(exchange, reused)
            protocol = self._protocol = connection.protocol
            try:
                if protocol is None or protocol.transport is None:
                    raise aiohttp.ServerDisconnectedError
                exchange.phase = "waiting"
                self._extend(self._limits.first_byte_s)
                deadlines.add(self)
                aiohttp_internals.expect_raw_answer(protocol)
                outbox.write(protocol.transport, request.message(body))
                while True:
                    message, content = await aiohttp_internals.read_head(protocol)
                    # interim answers (100 to 199) precede the answer; 101 would end HTTP, so it counts as one
                    if not 100 <= message.code < 200 or message.code == 101:
                        break
                exchange.phase = "reading"
                self._content = content
                exchange.first_byte = time.perf_counter()
                exchange.status = message.code
                headers = exchange.headers = message.headers
                await self._read(headers, content)
            except BaseException:
                connection.close()
                raise
            finally:
                deadlines.remove(self)
            connection.release()
        except aiohttp.ClientHttpProxyError as error:
            exchange.error = error
            if error.status == PROXY_WANTS_CREDENTIALS:  # says it all, as where it answers in between
                exchange.status = error.status
        except Exception as error:
            exchange.error = error

    def _extend(self, seconds: float) -> None:
        now = time.perf_counter()
        self.deadline = min(now + seconds, self._exchange.started + self._limits.total_s)

    def expire(self) -> None:
        """End whatever the exchange waits for with TimeoutError."""
        for waited_for in (self._protocol, self._content):
            if waited_for is not None:
                waited_for.set_exception(TimeoutError())

    async def _read(self, headers: Mapping[str, str], content: aiohttp.StreamReader) -> None:
        """Collect the decoded body up to the size limit."""
        exchange, cap = self._exchange, self._cap
        length = headers.get("Content-Length")
        if length is not None and length.isdecimal() and int(length[:20]) > cap:
            # announced as too large: no need to take more than what is kept
            cap = min(cap, TRUNCATED_EVIDENCE_BYTES)
        decoder = decoder_for(headers.get("Content-Encoding"))
        chunks: list[bytes] = []
        received = 0
        try:
            while True:
                if not content.is_eof():
                    self._extend(self._limits.idle_s)
                chunk = await content.readany()
                if not chunk:
                    break
                received += len(chunk)
                if decoder is not None:
                    chunk = decoder.feed(chunk, cap + 1 - exchange.body_bytes)
                exchange.body_bytes += len(chunk)
                chunks.append(chunk)
                if self._on_chunk is not None:
                    self._on_chunk(exchange, chunk)
                if exchange.body_bytes > cap or received > cap:
                    exchange.too_large = True
                    raise TooLarge
                if content.at_eof() and content.exception() is None:
                    break  # else asked once more, which tells what went wrong
            if decoder is not None:
                rest = decoder.finish()
                exchange.body_bytes += len(rest)
                chunks.append(rest)
        finally:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            exchange.body = body[:TRUNCATED_EVIDENCE_BYTES] if exchange.too_large else body
