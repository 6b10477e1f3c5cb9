"""One relay to a supplier, built and signed, and what is noted while its answer arrives."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from testbench_dagster.core.generation import EVIDENCE
from testbench_dagster.core.prompt import GENERATED
from testbench_dagster.core.relay import Endpoint, FurtherTurn, Relay
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.transports.event_streams import EventStream, StreamError
from testbench_dagster.transports.http import Exchange
from testbench_dagster.transports.payload import (
    as_stream,
    asked_otherwise,
    build_payload,
    page_path,
    service_root,
)
from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.messages import (
    HttpRequest,
    HttpResponse,
    RelayResponse,
    SessionHeader,
)
from testbench_dagster.transports.pocket.rings import RingSigner
from testbench_dagster.transports.pocket.streams import PartSplitter
from testbench_dagster.transports.stream_listener import StreamListener

#: Relays look like any Go gateway's: suppliers should not tell apart who evaluates them.
USER_AGENT = "Go-http-client/1.1"
_MAX_HEARD = 256  # parts without text; then when it began is not known
_HEADERS = {
    "Content-Type": ["application/json"],
    "Accept": ["application/json"],
    "Accept-Encoding": ["identity"],  # otherwise miners pass on what we accept from them
    "User-Agent": [USER_AGENT],
}
_STREAM_HEADERS = {**_HEADERS, "Accept": ["text/event-stream"]}
_PAGE_HEADERS = {name: values for name, values in _HEADERS.items() if name != "Content-Type"}


@dataclass(slots=True)
class Call:
    """A relay ready to be posted.

    ``message`` is what is posted, ``question`` the hash of what the backend is asked, ``began`` a reading of
    the monotonic clock. ``further`` is waited for before it is posted again.
    """

    endpoint: Endpoint
    request: Mapping[str, Any]
    header: SessionHeader
    message: bytes
    question: bytes
    evidence: dict[str, Any]
    page: bool
    streamed: bool
    further: FurtherTurn | None = None
    began: float = field(default_factory=time.monotonic)
    first_token_ms: float | None = None
    watch: StreamWatch | None = None
    _splitter: PartSplitter | None = None
    _stream: EventStream | None = None
    _listener: StreamListener | None = None
    _heard: int = 0

    @classmethod
    def from_relay(
        cls,
        endpoint: Endpoint,
        relay: Relay,
        header: SessionHeader,
        signer: RingSigner,
        *,
        stream: bool,
        noted: bool = False,
    ) -> Call:
        """Build and sign it; ``stream`` asks for an event stream where the request is for text.

        What the relay's watch says goes before that.

        ``noted``: its evidence says which URL it went to.

        Raises:
            RequestError: the request does not fit the endpoint's API.
        """
        request, watch = relay.request, relay.watch
        kind = request.get("type")
        if watch is not None:
            stream = watch.stream
        page, streamed = kind == "get", stream and kind in GENERATED
        otherwise = None
        base = endpoint.base_url + endpoint.prefix
        if page:
            path, body = page_path(request), b""
            inner = _request_head("GET", service_root(base) + path, streamed=False)
        else:
            api, generation = endpoint.api, endpoint.generation
            api_path, payload = build_payload(request, api, endpoint.model, generation)
            otherwise = asked_otherwise(request, api, generation)
            path = endpoint.prefix + api_path
            if streamed:
                payload = as_stream(payload, usage=watch is None or watch.usage)
            body = orjson.dumps(payload)
            inner = _request_head("POST", base + api_path, streamed=streamed) + _field(4, body)
        digest, message = signed_request(header, endpoint.address, inner, signer)
        asked = hashlib.sha256(body)
        evidence: dict[str, Any] = {
            "path": path,
            "payload_sha256": asked.hexdigest(),
            "request_hash": digest.hex(),
            "request_sha256": hashlib.sha256(message).hexdigest(),
        }
        if otherwise is not None:
            evidence[EVIDENCE] = otherwise
        if noted:
            evidence["base_url"] = endpoint.base_url
        call = cls(
            endpoint, request, header, message, asked.digest(), evidence, page, streamed, relay.further
        )
        call.watch = watch
        return call

    def begin(self) -> None:
        """It is posted now, perhaps once more: what is heard is heard anew."""
        self._heard, self.first_token_ms = 0, None
        self._splitter = self._stream = self._listener = None
        if self.streamed:
            self._splitter, self._stream = PartSplitter(), EventStream(self.endpoint.api)
        if self.watch is not None:
            self._listener = StreamListener(self.watch, self.endpoint.api)

    def connected(self, exchange: Exchange, reused: bool) -> None:
        """The connection to the miner stands: told where it is watched."""
        if self._listener is not None:
            self._listener.connected(exchange, reused)

    def end(self, exchange: Exchange) -> None:
        """All has arrived that will; what follows the last separator is a part, too."""
        if self._listener is None:
            return
        rest = None if self._splitter is None else self._splitter.finish()
        if rest is not None:
            with contextlib.suppress(CodecError):
                payload = RelayResponse.decode(rest).payload
                self._listener.feed(HttpResponse.decode(payload).body, exchange.elapsed_ms)
        self._listener.finish()

    def listen(self, exchange: Exchange, chunk: bytes) -> None:
        """Note when the first text arrives; what is wrong with a part is said when all are there."""
        if self._splitter is None or self._stream is None:
            return
        try:
            parts = self._splitter.feed(chunk)
            self._heard += len(parts)
            for part in parts:
                response = RelayResponse.decode(part)
                body = HttpResponse.decode(response.payload).body
                if self._listener is None:
                    self._stream.feed(body)
                else:
                    self._listener.feed(body, exchange.elapsed_ms)
        except (CodecError, StreamError):
            self._splitter = None
            return
        if self._listener is not None:
            return  # it hears all of it
        if self._stream.text_begun:
            self.first_token_ms = exchange.elapsed_ms
        if self._stream.text_begun or self._heard > _MAX_HEARD:
            self._splitter = None


def signed_request(
    header: SessionHeader, supplier: str, payload: bytes, signer: RingSigner
) -> tuple[bytes, bytes]:
    """Return a ``RelayRequest``'s hash that was signed, and its bytes with the signature.

    The same as those of ``RelayRequest``, put together from what does not change with every relay.
    """
    before, after, last = _field(1, header_bytes(header)), _field(3, supplier.encode()), _field(2, payload)
    digest = hashlib.sha256(_field(1, before + after) + last).digest()
    return digest, _field(1, before + _field(2, signer.sign(digest)) + after) + last


@lru_cache(maxsize=1024)
def header_bytes(header: SessionHeader) -> bytes:
    """Return the bytes of a session's header."""
    return header.encode()


@lru_cache(maxsize=4096)
def _request_head(method: str, url: str, *, streamed: bool) -> bytes:
    """All of the inner request but its body, which comes last."""
    headers = _PAGE_HEADERS if method == "GET" else _STREAM_HEADERS if streamed else _HEADERS
    return HttpRequest(method, url, headers).encode()


def _field(number: int, data: bytes) -> bytes:
    """A field that has a length; without data it is left out, as proto3 wants it."""
    if not data:
        return b""
    size = len(data)
    lengths = bytearray()
    while size > 127:
        lengths.append(size & 127 | 128)
        size >>= 7
    lengths.append(size)
    return b"%c%b%b" % (number << 3 | 2, bytes(lengths), data)
