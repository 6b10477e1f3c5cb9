"""A simulated relay miner: one host, several suppliers behind it, errors in the shapes of its flavour.

``classic`` (poktroll's ``pocketd relayminer``) answers everything with HTTP 200, errors as an unsigned
``RelayResponse`` with ``relay_miner_error``, buffers streams and closes connections. ``ha``
(pocket-relay-miner) answers errors with an HTTP status and ``{"error": …}``, and passes event streams on as
signed parts. Signatures are verified and made for real. With validation ``optimistic`` the backend answers
before signature and session are looked at; a relay that fails then is not paid.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from testbench_dagster.localnet.pocket.chain import Chain, QueryError, Session
from testbench_dagster.localnet.pocket.envelopes import Served, batches, seal
from testbench_dagster.localnet.pocket.faults import REFUSALS, FaultRule
from testbench_dagster.localnet.pocket.ledger import IN_FLIGHT, Ledger, Relay
from testbench_dagster.localnet.pocket.problems import (
    BAD_RING,
    BAD_SIGNATURE,
    CLAIMED,
    EXPIRED,
    IMPLAUSIBLE,
    INTERNAL,
    NO_APP,
    NO_BACKEND,
    NOT_IN_SESSION,
    NOT_REACHABLE,
    OTHER_SESSION,
    RATE_LIMITED,
    TIMEOUT,
    TOO_LARGE,
    UNKNOWN_SERVICE,
    UNMARSHAL,
    Problem,
    ProblemError,
)
from testbench_dagster.localnet.server import HOST, reset
from testbench_dagster.localnet.supplier import BrokenConnection, Reply
from testbench_dagster.transports.pocket.errors import CodecError, RingError
from testbench_dagster.transports.pocket.keys import PLACEHOLDER_PUBLIC_KEY
from testbench_dagster.transports.pocket.messages import (
    HttpRequest,
    HttpResponse,
    MinerError,
    RelayRequest,
    RelayResponse,
    SessionHeader,
)
from testbench_dagster.transports.pocket.rings import ring_members, verify_ring
from testbench_dagster.transports.pocket.streams import SEPARATOR

Flavour = Literal["classic", "ha"]
Validation = Literal["eager", "optimistic"]

#: Longest request body, bytes.
MAX_BODY = 20_000_000

# sessions further from now than this are refused as nonsense
_PLAUSIBLE_BLOCKS = 100_000

_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


class RelayMiner:
    """One host. ``lag_blocks`` is how far it is behind the chain (negative: ahead)."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        ledger: Ledger,
        flavour: Flavour,
        *,
        validation: Validation = "eager",
        timeout_s: float | None = None,
    ) -> None:
        """``timeout_s`` None is the flavour's default: 10 s for classic, 30 s for ha."""
        self.name = name
        self.chain = chain
        self.ledger = ledger
        self.flavour: Flavour = flavour
        self.validation: Validation = validation
        self.timeout_s = timeout_s or (10.0 if flavour == "classic" else 30.0)
        self.lag_blocks = 0
        self.suppliers: dict[str, Served] = {}
        self.url = ""
        self._spent: Counter[tuple[str, str, str]] = Counter()
        self._runner: web.ServerRunner | None = None

    @property
    def height(self) -> int:
        """The height this host has seen."""
        return max(1, self.chain.height - self.lag_blocks)

    @property
    def up(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    async def start(self, port: int = 0) -> None:
        """Listen; again on the port it had, once it had one."""
        if self._runner is not None:
            return
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        port = urlsplit(self.url).port or port
        try:
            await web.TCPSite(runner, HOST, port, backlog=4096).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.url = f"http://{HOST}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def describe(self) -> dict[str, Any]:
        """What it is and who is behind it."""
        return {
            "name": self.name,
            "url": self.url,
            "flavour": self.flavour,
            "validation": self.validation,
            "timeout_s": self.timeout_s,
            "lag_blocks": self.lag_blocks,
            "up": self.up,
            "suppliers": [served.name for served in self.suppliers.values()],
        }

    # ------------------------------------------------------------------------------------ one relay

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return self._finish(web.Response(status=405, text="relays are posted"))
        posted = await self._read(request)
        try:
            if posted is None:
                raise ProblemError(TOO_LARGE.saying(f"more than {MAX_BODY} bytes"))
            relay = RelayRequest.decode(posted)
        except CodecError as error:
            return self._say(UNMARSHAL.saying(str(error)), None)
        except ProblemError as error:
            return self._say(error.problem, None)
        entry = self._enter(relay, posted)
        try:
            return await self._serve(request, relay, entry)
        except ProblemError as error:
            entry.outcome = error.problem.outcome
            return self._say(error.problem, relay.header)
        except BrokenConnection:
            reset(request)
            return web.Response(status=500)
        except (asyncio.CancelledError, ConnectionError):
            if entry.outcome in (IN_FLIGHT, "ok"):
                entry.outcome = "cancelled"
            raise

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """The body, None if it is too long."""
        parts, size = [], 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > MAX_BODY:
                return None
            parts.append(part)
        return b"".join(parts)

    def _enter(self, relay: RelayRequest, posted: bytes) -> Relay:
        header = relay.header
        return self.ledger.open(
            supplier=relay.supplier,
            app=header.application,
            service=header.service,
            session_id=header.session_id,
            session_start=header.start_height,
            session_end=header.end_height,
            height=self.height,
            host=self.name,
            flavour=self.flavour,
            request_hash=relay.signable_hash().hex(),
            request_sha256=hashlib.sha256(posted).hexdigest(),
        )

    async def _serve(self, request: web.BaseRequest, relay: RelayRequest, entry: Relay) -> web.StreamResponse:
        served = self._supplier(relay)
        attempt = served.sent[entry.request_hash]
        served.sent[entry.request_hash] += 1
        fault = served.faults.pick(entry.request_hash, attempt, entry.height)
        if fault is not None and fault.kind == "replay" and not served.kept:
            fault = None  # nothing was answered yet
        if fault is not None and fault.kind in REFUSALS:
            entry.outcome = fault.kind
            return self._refuse(request, fault, relay)
        self._rpc_type(request, served)
        self._timely(relay.header, entry.height)
        if self.validation == "eager":
            self._valid(relay, served, entry)
        account = self._spend(relay, served, entry)
        entry.accepted = True
        entry.cost = float(self._cost(relay))
        paid = False
        try:
            response = await self._answer(request, relay, served, entry, fault)
            paid = not entry.outcome.startswith("backend_5")
        finally:
            if not paid:
                entry.cost = 0.0
                self._spent[account] -= 1
        if self.validation == "optimistic":
            try:
                self._valid(relay, served, entry)
            except ProblemError as error:
                if paid:
                    self._spent[account] -= 1
                entry.accepted, entry.cost = False, 0.0
                entry.outcome = f"served:{error.problem.outcome}"
        return response

    # ---------------------------------------------------------------------------------- validation

    def _supplier(self, relay: RelayRequest) -> Served:
        served = self.suppliers.get(relay.supplier)
        if served is None:
            raise ProblemError(NOT_REACHABLE.saying(f"supplier {relay.supplier!r} is not handled here"))
        if relay.header.service != served.service:
            raise ProblemError(UNKNOWN_SERVICE.saying(f"service {relay.header.service!r}"))
        return served

    def _rpc_type(self, request: web.BaseRequest, served: Served) -> None:
        """HA has backends per type, and a default one; classic falls back to its default."""
        given = request.headers.get("Rpc-Type")
        if self.flavour == "ha" and given and given not in {str(int(each)) for each in served.rpc_types}:
            raise ProblemError(NO_BACKEND.saying(f"RPC type {given}"))

    def _timely(self, header: SessionHeader, height: int) -> None:
        start, end = header.start_height, header.end_height
        if not 1 <= start < end or abs(start - height) > _PLAUSIBLE_BLOCKS or end - start > _PLAUSIBLE_BLOCKS:
            raise ProblemError(IMPLAUSIBLE.saying(f"implausible session heights {start} to {end}"))
        grace = self.chain.params(end).grace_period_end_offset_blocks
        if height > end + grace:
            raise ProblemError(EXPIRED.saying(f"session expired, expecting: {end}, got: {height}"))

    def _valid(self, relay: RelayRequest, served: Served, entry: Relay) -> None:
        """Ring, signature, session header, membership, in the miners' order."""
        header = relay.header
        at = min(entry.height, header.end_height)
        try:
            app = self.chain.app(header.application, at)
        except QueryError as error:
            raise ProblemError(NO_APP.saying(str(error))) from None
        try:
            members = set(ring_members(relay.signature))
        except RingError as error:
            raise ProblemError(BAD_RING.saying(f"error deserializing ring signature: {error}")) from None
        allowed = self.chain.signer_keys(app, header.end_height, at, PLACEHOLDER_PUBLIC_KEY)
        if not members <= allowed:
            text = "ring signature in the relay request does not match the expected one for the app"
            raise ProblemError(BAD_SIGNATURE.saying(f"{text} {header.application}"))
        if not verify_ring(bytes.fromhex(entry.request_hash), relay.signature):
            raise ProblemError(BAD_SIGNATURE.saying("relay request signature is invalid"))
        session = self._session(header, at)
        if session.header != header:
            text = f"session ID mismatch, expecting: {session.header.session_id}, got: {header.session_id}"
            raise ProblemError(OTHER_SESSION.saying(text))
        if not session.has(served.operator):
            raise ProblemError(NOT_IN_SESSION.saying(f"supplier {served.operator}"))

    def _session(self, header: SessionHeader, at: int) -> Session:
        try:
            return self.chain.session(header.application, header.service, at, max(at, self.height))
        except QueryError as error:
            raise ProblemError(NO_APP.saying(str(error))) from None

    def limit(self, served: Served, header: SessionHeader, height: int) -> int:
        """Relays one supplier accepts from an application in a session, by what held as that began.

        A session lies between two changes of parameters, so those of its end are the same.
        """
        if served.budget is not None:
            return served.budget
        params = self.chain.params(header.start_height)
        cost = params.relay_cost(self.chain.compute_units(served.service, header.start_height))
        stake = self.chain.app(header.application, min(height, header.end_height)).stake
        return int(params.session_budget(stake) / cost) if cost else 2**62

    def _spend(self, relay: RelayRequest, served: Served, entry: Relay) -> tuple[str, str, str]:
        header = relay.header
        account = served.operator, header.application, header.session_id
        try:
            limit = self.limit(served, header, entry.height)
        except QueryError as error:
            raise ProblemError(NO_APP.saying(str(error))) from None
        if self._spent[account] >= limit:
            raise ProblemError(RATE_LIMITED.saying("session relay limit reached"))
        self._spent[account] += 1
        return account

    def _cost(self, relay: RelayRequest) -> Any:
        start = relay.header.start_height
        return self.chain.params(start).relay_cost(self.chain.compute_units(relay.header.service, start))

    # ----------------------------------------------------------------------------------- answering

    async def _answer(
        self,
        request: web.BaseRequest,
        relay: RelayRequest,
        served: Served,
        entry: Relay,
        fault: FaultRule | None,
    ) -> web.StreamResponse:
        kind = "" if fault is None else fault.kind
        if fault is not None:
            if kind == "hang":
                entry.outcome = kind
                await asyncio.sleep(3600)
            if kind == "slow_headers":
                await asyncio.sleep(fault.seconds)
            if kind in ("timeout", "internal"):
                raise ProblemError(CLAIMED[kind])
        reply = await self._backend(relay, served, entry, fault)
        if reply.forged and fault is None:
            fault, kind = _FORGED, _FORGED.kind
        # before anything is sent, so that whoever has the answer finds it written down
        failed = reply.status >= 500
        entry.outcome = f"backend_{reply.status}" if failed and kind != "backend_5xx" else kind or "ok"
        if reply.events and self.flavour == "ha":
            entry.streamed = True
            return await self._stream(request, relay, served, reply, fault, entry)
        if reply.events:
            body = b"".join([each async for each in reply.paced()])
            reply = replace(reply, body=body, events=())
        if failed and self.flavour == "ha":
            return self._json(reply.status, f"backend returned status {reply.status}")
        if kind == "empty":
            return self._finish(web.Response(body=b"", content_type="application/octet-stream"))
        headers = {"Content-Type": [reply.content_type], **{n: [v] for n, v in reply.headers.items()}}
        http = HttpResponse(reply.status, headers, reply.body)
        answer = seal(self.chain, relay, served, http, kind)
        if kind == "truncated":
            answer = answer[: len(answer) // 2]
        headers_out = {}
        if kind == "gzip":
            answer = gzip.compress(answer)
            headers_out["Content-Encoding"] = "gzip"
        if kind == "stream_cut":
            raise BrokenConnection
        if fault is not None and kind == "slow_body":
            return await self._drip(request, answer, fault.seconds)
        content = "application/octet-stream" if self.flavour == "classic" else "application/x-protobuf"
        return self._finish(web.Response(body=answer, headers=headers_out, content_type=content))

    async def _backend(
        self, relay: RelayRequest, served: Served, entry: Relay, fault: FaultRule | None
    ) -> Reply:
        """What the model behind the supplier answers, or the fault that stands for it."""
        try:
            inner = HttpRequest.decode(relay.payload)
        except CodecError as error:
            raise ProblemError(UNMARSHAL.saying(f"payload: {error}")) from None
        if fault is not None and fault.kind == "backend_4xx":
            return Reply(404, b'{"error":{"message":"model not found (simulated)","type":"not_found"}}')
        if fault is not None and fault.kind == "backend_5xx":
            return Reply(500, b'{"error":{"message":"out of memory (simulated)","type":"server_error"}}')
        path = urlsplit(inner.url).path.lstrip("/")
        try:
            async with asyncio.timeout(self.timeout_s):
                reply = await served.backend.respond(inner.method, path, inner.body)
        except TimeoutError:
            text = f"no answer within {self.timeout_s:g} s"
            raise ProblemError(TIMEOUT.saying(text)) from None
        except BrokenConnection:
            entry.outcome = "broken"
            raise ProblemError(replace(INTERNAL, outcome="broken").saying("connection reset")) from None
        if fault is not None and fault.kind == "oversized":
            padding = b" " * int(fault.megabytes * 1_000_000)
            if reply.events:
                return replace(reply, events=(*reply.events, b": " + padding + b"\n\n"))
            return replace(reply, body=reply.body + padding)
        return reply

    async def _stream(
        self,
        request: web.BaseRequest,
        relay: RelayRequest,
        served: Served,
        reply: Reply,
        fault: FaultRule | None,
        entry: Relay,
    ) -> web.StreamResponse:
        """HA's streams: batches of the backend's events, each in a signed envelope of its own."""
        kind = "" if fault is None else fault.kind
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        await response.prepare(request)
        if kind == "empty":
            await response.write_eof()
            return response
        parts = [part async for part in batches(reply)] if kind in _WHOLE_FIRST else None
        sent = 0
        async for body in _replayed(parts) if parts is not None else batches(reply):
            answer = seal(self.chain, relay, served, HttpResponse(reply.status, {}, body), kind)
            sent += 1
            last = parts is not None and sent == len(parts)
            if kind == "truncated" and last:
                answer = answer[: len(answer) // 2]
            if kind == "stream_cut" and last:
                await response.write(answer[: len(answer) // 2])
                await asyncio.sleep(0.05)  # what was written must leave before the connection breaks
                raise BrokenConnection
            if kind == "unterminated" and last:
                await response.write(answer)
                break
            await response.write(answer + SEPARATOR)
            if fault is not None and kind == "slow_body" and parts is not None:
                await asyncio.sleep(fault.seconds / len(parts))
        await response.write_eof()
        return response

    async def _drip(self, request: web.BaseRequest, answer: bytes, seconds: float) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"
        response.content_length = len(answer)
        await response.prepare(request)
        pieces = 10
        size = -(-len(answer) // pieces)
        for start in range(0, len(answer), size):
            if start:
                await asyncio.sleep(seconds / (pieces - 1))
            await response.write(answer[start : start + size])
        await response.write_eof()
        return response

    # ------------------------------------------------------------------------------------ refusing

    def _refuse(self, request: web.BaseRequest, fault: FaultRule, relay: RelayRequest) -> web.Response:
        if fault.kind == "reset":
            raise BrokenConnection
        if fault.kind == "down":
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=500)
        if fault.kind in ("html", "html200"):
            status = 502 if fault.kind == "html" else 200
            return self._finish(web.Response(body=_HTML, status=status, content_type="text/html"))
        return self._say(CLAIMED[fault.kind], relay.header)

    def _say(self, problem: Problem, header: SessionHeader | None) -> web.Response:
        """An error in the flavour's shape."""
        message = f"{problem.message}: {problem.description}" if problem.message else problem.description
        if self.flavour == "ha":
            return self._json(problem.status, message)
        error = MinerError(problem.codespace, problem.code, problem.description, message)
        answer = RelayResponse(header, b"", message.encode(), error)
        return self._finish(web.Response(body=answer.encode(), content_type="application/octet-stream"))

    def _json(self, status: int, text: str) -> web.Response:
        body = orjson.dumps({"error": text})
        return self._finish(web.Response(body=body, status=status, content_type="application/json"))

    def _finish(self, response: web.Response) -> web.Response:
        if self.flavour == "classic":
            response.force_close()
        return response


# what a supplier asks for that is to be signed wrongly
_FORGED = FaultRule("bad_signature")
# faults that need to know which part is the last
_WHOLE_FIRST = ("truncated", "stream_cut", "unterminated", "slow_body")


async def _replayed(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
