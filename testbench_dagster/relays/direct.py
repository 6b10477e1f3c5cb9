"""Relays over plain HTTP(S) to the supplier's OpenAI-style base URL.

Suppliers are hostile: no redirect is followed, no cookie kept, and size (before and after decompression),
every phase's time and the header block are bounded. One aiohttp session serves all suppliers; it belongs to
the event loop of the first :meth:`DirectTransport.send`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict
from yarl import URL

from testbench_dagster import __version__
from testbench_dagster.relays.answers import Answer, escaped, parse_answer
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Attempt, Endpoint, Limits, Relay
from testbench_dagster.relays.payload import build_payload

#: What is kept of an answer beyond the size limit, in bytes.
TRUNCATED_EVIDENCE_BYTES = 64 * 1024
#: Longest wait a server's Retry-After may ask for, in seconds.
MAX_RETRY_AFTER_S = 60.0
_USER_AGENT = f"testbench_dagster/{__version__}"
_DNS_CACHE_S = 300
#: Header values shorter than this are not looked for in answers (a secret is longer, a flag is not).
_MIN_SECRET_CHARS = 8
_REDACTED = b"[redacted]"
_ZLIB_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class DirectTransport:
    """Sends relays straight to suppliers (a :class:`~testbench_dagster.relays.messages.Transport`)."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._targets: dict[int, _Target] = {}

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        exchange = _Exchange(endpoint.limits)
        try:
            target = self._target(endpoint)
            path, payload = build_payload(relay.request, endpoint.api, endpoint.model)
            body = orjson.dumps(payload)
            exchange.evidence = {"path": path, "payload_sha256": hashlib.sha256(body).hexdigest()}
            await exchange.run(self._opened(), target, path, body)
        except Exception as exc:
            answer = Answer(_fault_of(exc, exchange.phase), error=_describe(exc, exchange))
        else:
            answer = exchange.answer(relay, endpoint)
        return exchange.attempt(answer, self._secrets(endpoint))

    async def close(self) -> None:
        """Close the connections; a later send would open new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, ttl_dns_cache=_DNS_CACHE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_NO_TIMEOUT,  # each exchange keeps its own deadlines
                auto_decompress=False,  # done here, with a bound
                raise_for_status=False,
                trust_env=False,
            )
        return self._session

    def _target(self, endpoint: Endpoint) -> _Target:
        """Return URL and headers of the endpoint, prepared once (parsing them costs more than sending)."""
        target = self._targets.get(id(endpoint))
        if target is None or target.endpoint is not endpoint:
            if len(self._targets) > 10_000:  # a caller that makes a new Endpoint for every send
                self._targets.clear()
            target = self._targets[id(endpoint)] = _Target.of(endpoint)
        return target

    def _secrets(self, endpoint: Endpoint) -> tuple[bytes, ...]:
        target = self._targets.get(id(endpoint))
        return target.secrets if target is not None else ()


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_CURRENT: ContextVar[_Exchange | None] = ContextVar("testbench_exchange", default=None)


class _Connector(aiohttp.TCPConnector):
    """Tells the exchange of the running task when it has its connection."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        exchange = _CURRENT.get()
        if exchange is not None:
            exchange.connected()
        return connection


@dataclass(frozen=True, slots=True)
class _Target:
    """What stays the same for all relays to one endpoint."""

    endpoint: Endpoint  # held so that its id stays taken
    urls: dict[str, URL]
    headers: CIMultiDict[str]
    secrets: tuple[bytes, ...]

    @classmethod
    def of(cls, endpoint: Endpoint) -> _Target:
        headers = CIMultiDict(
            {
                "User-Agent": _USER_AGENT,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
            }
        )
        headers.update(endpoint.headers)
        # "Bearer <key>" is searched for as the bare key, which is what a server would quote
        words = {word for value in endpoint.headers.values() for word in value.split()}
        secrets = tuple(word.encode() for word in words if len(word) >= _MIN_SECRET_CHARS)
        return cls(endpoint, {}, headers, secrets)

    def url(self, path: str) -> URL:
        url = self.urls.get(path)
        if url is None:
            url = self.urls[path] = URL(self.endpoint.base_url.rstrip("/") + path)
        return url


class _TooLarge(Exception):
    """The answer exceeds the size limit."""


class _BadEncoding(Exception):
    """The answer's content encoding is unknown or broken."""


class _Exchange:
    """One request and its answer: phases, deadlines, and the bytes received so far."""

    __slots__ = (
        "_deadline",
        "_first_byte",
        "_limits",
        "_started",
        "_started_at",
        "_timeout",
        "body",
        "body_bytes",
        "evidence",
        "phase",
        "retry_after_s",
        "status",
        "too_large",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started_at = datetime.now(UTC)
        self._started = time.perf_counter()
        self._first_byte: float | None = None
        self._deadline = 0.0
        self._timeout: asyncio.Timeout | None = None
        self.phase = "preparing"
        self.status: int | None = None
        self.body = b""
        self.body_bytes = 0
        self.too_large = False
        self.retry_after_s: float | None = None
        self.evidence: dict[str, Any] = {}

    async def run(self, session: aiohttp.ClientSession, target: _Target, path: str, body: bytes) -> None:
        """Send and receive; raises what goes wrong, with ``phase`` telling how far it came."""
        limits = self._limits
        now = asyncio.get_running_loop().time()
        self._deadline = now + limits.total_s
        self.phase = "connecting"
        _CURRENT.set(self)
        async with asyncio.timeout_at(min(now + limits.connect_s, self._deadline)) as self._timeout:
            response = await session.request(
                "POST",
                target.url(path),
                data=BytesPayload(body, content_type="application/json"),
                headers=target.headers,
                allow_redirects=False,
            )
            self.phase = "reading"
            self._first_byte = time.perf_counter()
            self.status = response.status
            try:
                if response.status in (429, 503):
                    self.retry_after_s = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
                await self._read(response)
            finally:
                # leaves a fully read answer's connection to the pool and drops any other
                response.close()

    def connected(self) -> None:
        """Start the first-byte deadline; the connector calls this."""
        self.phase = "waiting"
        self._extend(self._limits.first_byte_s)

    def _extend(self, seconds: float) -> None:
        assert self._timeout is not None
        now = asyncio.get_running_loop().time()
        self._timeout.reschedule(min(now + seconds, self._deadline))

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        """Collect the decoded body up to the size limit."""
        cap = int(self._limits.max_response_mb * 1024 * 1024)
        if (response.content_length or 0) > cap:
            # announced as too large: no need to take more than what is kept
            cap = min(cap, TRUNCATED_EVIDENCE_BYTES)
        decoder = _decoder(response.headers.get("Content-Encoding"))
        content = response.content
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
                if self.body_bytes > cap or received > cap:
                    self.too_large = True
                    raise _TooLarge
            if decoder is not None and not decoder.complete:
                raise _BadEncoding("the compressed body is incomplete")
        finally:
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self.body = body[:TRUNCATED_EVIDENCE_BYTES] if self.too_large else body

    def answer(self, relay: Relay, endpoint: Endpoint) -> Answer:
        """Parse the complete answer."""
        assert self.status is not None
        try:
            return parse_answer(relay.request, endpoint.api, self.status, self.body)
        except Exception as exc:  # a malformed stored request: ours, and no reason to stop the others
            return Answer(Fault.INTERNAL, error=escaped(f"{type(exc).__name__}: {exc}"))

    def attempt(self, answer: Answer, secrets: tuple[bytes, ...]) -> Attempt:
        """Assemble the record; a key that the server quoted back is blotted out of it."""
        finished = time.perf_counter()
        body, error = self.body, answer.error
        for secret in secrets:
            if secret in body:
                body = body.replace(secret, _REDACTED)
                self.evidence["redacted"] = True
            if error is not None:
                error = error.replace(secret.decode(), _REDACTED.decode())
        return Attempt(
            fault=answer.fault,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            latency_ms=(finished - self._started) * 1000,
            first_byte_ms=(self._first_byte - self._started) * 1000 if self._first_byte is not None else None,
            status=self.status,
            body=body,
            body_bytes=self.body_bytes,
            body_truncated=self.too_large,
            error=error,
            text=answer.text,
            logprob=answer.logprob,
            greedy=answer.greedy,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            retry_after_s=self.retry_after_s,
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
            raise _BadEncoding(str(exc)) from exc

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
        raise _BadEncoding(f"content encoding {escaped(name, 40)!r} was not asked for and is not known")
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


def _fault_of(exc: Exception, phase: str) -> Fault:
    """Who is to blame for an exchange that broke with ``exc`` in ``phase``."""
    if isinstance(exc, (_TooLarge, _BadEncoding)):
        return Fault.SUPPLIER_PROTOCOL
    if isinstance(exc, aiohttp.InvalidURL):
        return Fault.INTERNAL
    if isinstance(exc, aiohttp.ClientResponseError):
        # not about the status: aiohttp's form for a status line or headers it cannot accept
        return Fault.SUPPLIER_PROTOCOL
    if isinstance(exc, TimeoutError) and phase != "preparing":
        return Fault.TRANSPORT if phase == "connecting" else Fault.SUPPLIER_TIMEOUT
    if isinstance(exc, (aiohttp.ClientError, OSError)):
        if phase == "reading":
            return Fault.SUPPLIER_PROTOCOL
        if phase in ("connecting", "waiting"):
            return Fault.TRANSPORT
    return Fault.INTERNAL


def _describe(exc: Exception, exchange: _Exchange) -> str:
    if isinstance(exc, _TooLarge):
        return "the answer exceeds the size limit"
    if isinstance(exc, TimeoutError):
        return f"deadline passed while {exchange.phase}"
    if isinstance(exc, aiohttp.ClientResponseError):
        return escaped(f"invalid HTTP: {exc.message}")
    detail = str(exc)
    name = type(exc).__name__.lstrip("_")
    return escaped(f"{name} while {exchange.phase}: {detail}" if detail else f"{name} while {exchange.phase}")
