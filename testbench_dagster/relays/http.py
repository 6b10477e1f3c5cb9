"""One bounded HTTP exchange with a party that is not trusted: what all transports send and receive through.

Suppliers are hostile: no redirect is followed, no cookie kept, and size (before and after decompression),
every phase's time and the header block are bounded. Endpoints that may not lie in private networks are
connected to public addresses only: the addresses a name resolves to are judged, and those judged are used.

aiohttp connects (DNS, TLS, pool) and parses; its ``ClientSession`` is left out, because what that does per
request (URL and header handling, one task and several timers) costs three times as much as all the rest.
The connector and its protocol are used as the session uses them (:mod:`.aiohttp_internals`).
"""

from __future__ import annotations

import asyncio
import socket
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from testbench_dagster.network.addresses import REMEDY, AddressRefused, is_public, refusal
from testbench_dagster.relays import aiohttp_internals
from testbench_dagster.relays.aiohttp_internals import HttpProcessingError, ResponseHandler
from testbench_dagster.relays.answers import Answer, escaped
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Attempt, Endpoint, Limits, SessionRef
from testbench_dagster.relays.payload import RequestError

#: What is kept of an answer beyond the size limit, in bytes.
TRUNCATED_EVIDENCE_BYTES = 64 * 1024
#: Longest wait a server's Retry-After may ask for, in seconds.
MAX_RETRY_AFTER_S = 60.0
_DNS_CACHE_S = 300
_MAX_TARGETS = 20_000
#: How often deadlines are looked at, in seconds: they are kept to within this.
_TICK_S = 0.05
#: Header values shorter than this are not looked for in answers (a secret is longer, a flag is not).
_MIN_SECRET_CHARS = 8
_REDACTED = b"[redacted]"
_ZLIB_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_NO_HEADERS: Mapping[str, str] = CIMultiDictProxy(CIMultiDict())


class HttpClient:
    """Connections and timers that exchanges share; they belong to the event loop of its first exchange."""

    def __init__(self) -> None:
        self._connectors: dict[bool, aiohttp.TCPConnector] = {}  # by whether private addresses are allowed
        self._deadlines = _Deadlines()
        self._outbox = _Outbox()

    async def run(self, exchange: Exchange, target: Target, body: bytes) -> None:
        """Send ``body`` to ``target`` and receive into ``exchange``; raises what goes wrong."""
        connector = self._opened(target.private_allowed)
        await exchange.run(connector, self._deadlines, self._outbox, target, body)

    async def close(self) -> None:
        """Close the connections; a later exchange would open new ones."""
        connectors, self._connectors = self._connectors, {}
        for connector in connectors.values():
            await connector.close()

    def _opened(self, private_allowed: bool) -> aiohttp.TCPConnector:
        """The connector for endpoints of one kind: they share no connection and no name resolution."""
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


@dataclass(frozen=True, slots=True)
class Target:
    """Where exchanges of one method go to, and all of them that stays the same."""

    private_allowed: bool
    connect: aiohttp.ClientRequest  # tells the connector where to; never sent itself
    timeout: aiohttp.ClientTimeout
    head: bytes  # the request up to the value of Content-Length, or all of it where it has no body
    secrets: tuple[bytes, ...]
    has_body: bool

    @classmethod
    def of(
        cls,
        url: str,
        method: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        private_allowed: bool,
        secret_headers: Mapping[str, str] | None = None,
    ) -> Target:
        """Prepare exchanges with ``url``; the values of ``secret_headers`` are blotted out of answers.

        Raises:
            RequestError: the URL is not plain http(s), or a header holds a line break.
            AddressRefused: the URL names an address that is not public, and those alone are allowed.
        """
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.user or parsed.password:
            raise RequestError("base_url must be http(s)://host/path without user name or password")
        # the connector resolves names, and takes literal addresses as they are
        reason = None if private_allowed else refusal(parsed.host)
        if reason is not None:
            raise AddressRefused(reason)
        secret_headers = secret_headers or {}
        sent = CIMultiDict(Host=parsed.host_port_subcomponent or "")
        sent.update(headers)
        sent.update(secret_headers)
        has_body = method != "GET"
        lines = [f"{name}: {value}" for name, value in sent.items()]
        if any(forbidden in line for line in lines for forbidden in "\r\n\0"):
            raise RequestError("a configured header holds a line break")
        lines = [
            f"{method} {parsed.raw_path_qs} HTTP/1.1",
            *lines,
            *(["Content-Length: "] if has_body else ["", ""]),
        ]
        # "Bearer <key>" is searched for as the bare key, which is what a server would quote
        words = {word for value in secret_headers.values() for word in value.split()}
        return cls(
            private_allowed,
            aiohttp_internals.address(method, parsed),
            aiohttp.ClientTimeout(connect=connect_s),
            "\r\n".join(lines).encode(),
            tuple(word.encode() for word in words if len(word) >= _MIN_SECRET_CHARS),
            has_body=has_body,
        )

    def message(self, body: bytes) -> bytes:
        """The request as it is sent."""
        return b"%b%d\r\n\r\n%b" % (self.head, len(body), body) if self.has_body else self.head


class Targets:
    """Prepared targets by endpoint and what else tells them apart.

    Parsing a URL and its headers costs more than sending a request.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Endpoint, Target]] = {}

    def get(self, endpoint: Endpoint, *rest: Any, make: Callable[[], Target]) -> Target:
        """Return the target of an endpoint, made at the first time; raises what ``make`` raises."""
        key = (id(endpoint), *rest)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        target = make()
        if len(self._known) >= _MAX_TARGETS:  # a caller that makes a new Endpoint for every send
            self._known.clear()
        self._known[key] = (endpoint, target)  # the endpoint is held so that no other gets its id
        return target

    def clear(self) -> None:
        """Forget them: connections of another event loop need others."""
        self._known.clear()


class _Deadlines:
    """Ends exchanges whose deadline passed.

    One timer for all: a timer per phase of every request would cost more than the request.
    """

    def __init__(self) -> None:
        self._running: set[Exchange] = set()
        self._ticking = False

    def add(self, exchange: Exchange) -> None:
        self._running.add(exchange)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def remove(self, exchange: Exchange) -> None:
        self._running.discard(exchange)

    def _tick(self) -> None:
        now = time.perf_counter()
        for exchange in [e for e in self._running if e.deadline <= now]:
            self._running.discard(exchange)
            exchange.expire()
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


class BadEncoding(Exception):
    """The answer's content encoding is unknown or broken."""


class Exchange:
    """One request and its answer: phases, deadlines, and the bytes received so far.

    ``evidence`` is what the attempt will carry. ``on_chunk`` is told every piece of the decoded body as it
    arrives; what it raises ends the exchange. ``headers`` are those of the answer, empty before it began.
    """

    __slots__ = (
        "_content",
        "_first_byte",
        "_least_mb",
        "_limits",
        "_protocol",
        "_started",
        "_started_at",
        "body",
        "body_bytes",
        "deadline",
        "evidence",
        "headers",
        "on_chunk",
        "phase",
        "retry_after_s",
        "status",
        "too_large",
    )

    def __init__(self, limits: Limits, *, least_mb: float = 0.0) -> None:
        self._limits = limits
        self._least_mb = least_mb
        self._started_at = datetime.now(UTC)
        self._started = time.perf_counter()
        self._first_byte: float | None = None
        self._protocol: ResponseHandler | None = None
        self._content: aiohttp.StreamReader | None = None
        self.deadline = 0.0
        self.phase = "preparing"
        self.status: int | None = None
        self.body = b""
        self.body_bytes = 0
        self.too_large = False
        self.retry_after_s: float | None = None
        self.evidence: dict[str, Any] = {}
        self.headers = _NO_HEADERS
        self.on_chunk: Callable[[bytes], None] | None = None

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the exchange began."""
        return (time.perf_counter() - self._started) * 1000

    async def run(
        self,
        connector: aiohttp.TCPConnector,
        deadlines: _Deadlines,
        outbox: _Outbox,
        target: Target,
        body: bytes,
    ) -> None:
        """Send and receive; raises what goes wrong, with ``phase`` telling how far it came."""
        self.phase = "connecting"
        connection = await aiohttp_internals.connect(connector, target.connect, target.timeout)
        protocol = self._protocol = connection.protocol
        try:
            if protocol is None or protocol.transport is None:
                raise aiohttp.ServerDisconnectedError
            self.phase = "waiting"
            self._extend(self._limits.first_byte_s)
            deadlines.add(self)
            aiohttp_internals.expect_raw_answer(protocol)
            outbox.write(protocol.transport, target.message(body))
            while True:
                message, content = await aiohttp_internals.read_head(protocol)
                # interim answers (100 to 199) precede the answer; 101 would end HTTP, so it counts as one
                if not 100 <= message.code < 200 or message.code == 101:
                    break
            self.phase = "reading"
            self._content = content
            self._first_byte = time.perf_counter()
            self.status = message.code
            headers = self.headers = message.headers
            if message.code in (429, 503):
                self.retry_after_s = retry_after(headers.get("Retry-After"), datetime.now(UTC))
            await self._read(headers, content)
        except BaseException:
            connection.close()
            raise
        finally:
            deadlines.remove(self)
        connection.release()

    def _extend(self, seconds: float) -> None:
        now = time.perf_counter()
        self.deadline = min(now + seconds, self._started + self._limits.total_s)

    def expire(self) -> None:
        """End whatever the exchange waits for with TimeoutError."""
        for waited_for in (self._protocol, self._content):
            if waited_for is not None:
                waited_for.set_exception(TimeoutError())

    async def _read(self, headers: Mapping[str, str], content: aiohttp.StreamReader) -> None:
        """Collect the decoded body up to the size limit."""
        cap = int(max(self._limits.max_response_mb, self._least_mb) * 1024 * 1024)
        length = headers.get("Content-Length")
        if length is not None and length.isdecimal() and int(length[:20]) > cap:
            # announced as too large: no need to take more than what is kept
            cap = min(cap, TRUNCATED_EVIDENCE_BYTES)
        decoder = _decoder(headers.get("Content-Encoding"))
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
                    chunk = decoder.feed(chunk, cap + 1 - self.body_bytes)
                self.body_bytes += len(chunk)
                chunks.append(chunk)
                if self.on_chunk is not None:
                    self.on_chunk(chunk)
                if self.body_bytes > cap or received > cap:
                    self.too_large = True
                    raise TooLarge
            if decoder is not None and not decoder.complete:
                raise BadEncoding("the compressed body is incomplete")
        finally:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self.body = body[:TRUNCATED_EVIDENCE_BYTES] if self.too_large else body

    def attempt(
        self,
        answer: Answer,
        secrets: tuple[bytes, ...] = (),
        *,
        status: int | None = None,
        body: bytes | None = None,
        first_token_ms: float | None = None,
        session: SessionRef | None = None,
    ) -> Attempt:
        """Assemble the record; a key that the server quoted back is blotted out of it.

        ``status`` and ``body`` are those of an answer that came wrapped in another; by default they are those
        of the exchange itself.
        """
        finished = time.perf_counter()
        wrapped = body is not None
        body = self.body if body is None else body
        quoted = {"error": answer.error, "text": answer.text, "finish_reason": answer.finish_reason}
        for secret in secrets:
            if secret in body:
                body = body.replace(secret, _REDACTED)
                self.evidence["redacted"] = True
            for name, said in quoted.items():
                if said is not None:
                    quoted[name] = said.replace(secret.decode(), _REDACTED.decode())
        return Attempt(
            fault=answer.fault,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            latency_ms=(finished - self._started) * 1000,
            first_byte_ms=(self._first_byte - self._started) * 1000 if self._first_byte is not None else None,
            first_token_ms=first_token_ms,
            status=self.status if status is None else status,
            body=body,
            body_bytes=len(body) if wrapped else self.body_bytes,
            body_truncated=self.too_large,
            error=quoted["error"],
            text=quoted["text"],
            logprob=answer.logprob,
            greedy=answer.greedy,
            finish_reason=quoted["finish_reason"],
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            retry_after_s=self.retry_after_s,
            session=session,
            evidence=self.evidence,
        )


class _Decoder:
    """Bounded gzip or deflate decompression."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._zlib = zlib.decompressobj(window)
        self._begun = False

    def feed(self, data: bytes, limit: int) -> bytes:
        """Decompress at most ``limit`` bytes of output; what exceeds it is thrown away."""
        if self._zlib.eof:
            return b""
        try:
            if not self._begun and self._window == zlib.MAX_WBITS and data[0] & 0x0F != 8:
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)  # "deflate" without its zlib header
            self._begun = True
            return self._zlib.decompress(data, limit)
        except zlib.error as exc:
            raise BadEncoding(str(exc)) from exc

    @property
    def complete(self) -> bool:
        """Whether the stream came to its end (or never began)."""
        return self._zlib.eof or not self._begun


def _decoder(encoding: str | None) -> _Decoder | None:
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return None
    window = _ZLIB_WINDOW.get(name)
    if window is None:
        raise BadEncoding(f"content encoding {escaped(name, 40)!r} was not asked for and is not known")
    return _Decoder(window)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds a Retry-After header asks to wait, within 0 to 60; None without a usable one."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    if seconds != seconds:  # NaN
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def fault_of(exc: Exception, phase: str) -> Fault:
    """Who is to blame for an exchange that broke with ``exc`` in ``phase``."""
    if isinstance(exc, AddressRefused):
        return Fault.CLIENT_REQUEST  # we do not ask; asking again would not change that
    if isinstance(exc, (TooLarge, BadEncoding, HttpProcessingError)):
        return Fault.SUPPLIER_PROTOCOL
    if isinstance(exc, (aiohttp.ClientError, OSError)):  # TimeoutError is an OSError
        if phase == "connecting":
            return Fault.TRANSPORT
        if isinstance(exc, TimeoutError):
            return Fault.SUPPLIER_TIMEOUT
        return Fault.TRANSPORT if phase == "waiting" else Fault.SUPPLIER_PROTOCOL
    return Fault.INTERNAL


def describe(exc: Exception, phase: str) -> str:
    """What went wrong, for the record: one escaped line."""
    if isinstance(exc, TooLarge):
        return "the answer exceeds the size limit"
    if isinstance(exc, TimeoutError):
        return f"deadline passed while {phase}"
    if isinstance(exc, HttpProcessingError):
        return escaped(f"invalid HTTP: {exc.message}")
    if isinstance(exc, AddressRefused):
        return escaped(f"not connected: {exc}")
    name, detail = type(exc).__name__.lstrip("_"), str(exc)
    return escaped(f"{name} while {phase}: {detail}" if detail else f"{name} while {phase}")
