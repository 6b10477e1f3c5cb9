"""Relays to suppliers on a Pocket network, signed by an application's key, answers verified.

A relay is one POST of a ``RelayRequest`` to the URL the supplier staked; the ``RelayResponse`` wraps the
backend's HTTP response, which is judged like any other answer. Signing and verifying take a third of a
millisecond and are done in the event loop; what asks the chain runs in threads, and not once per relay.

Towards miners and backends relays look like any Go gateway's: who evaluates should not be told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import aiohttp

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Limits, Relay, SessionRef
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.addresses import AddressRefused
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.content_encodings import COMPRESSIONS
from testbench_dagster.transports.http import Exchange, HttpClient
from testbench_dagster.transports.outcome import attempt_from, broken, describe, fault_of
from testbench_dagster.transports.payload import RequestError, answer_tokens
from testbench_dagster.transports.pocket import faults
from testbench_dagster.transports.pocket.calls import USER_AGENT, Call, header_bytes
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.evidence import envelope_of
from testbench_dagster.transports.pocket.messages import HttpResponse, RelayResponse, SessionHeader
from testbench_dagster.transports.pocket.responses import read_response, verify_response
from testbench_dagster.transports.pocket.services import ServiceContext, ShannonService, Unready
from testbench_dagster.transports.pocket.streams import SEPARATOR, PartSplitter
from testbench_dagster.transports.prepared import PreparedRequest, PreparedRequests, secrets_of
from testbench_dagster.transports.readings import note_charset
from testbench_dagster.transports.redaction import redacted_body

__all__ = ["ShannonService", "ShannonTransport"]

#: Parts of one streamed answer. Miners send one every 100 ms or more: these last eight minutes.
MAX_PARTS = 5_000
_PARTS_AT_ONCE = 64
#: After an answer 503 with and without the RPC type, it is not tried without again for so long, in seconds.
RPC_TYPE_AGAIN_S = 60.0
_MAX_KNOWN = 20_000  # URLs that something is known of
_STREAM_TYPES = ("text/event-stream", "application/x-ndjson")

_log = logging.getLogger(__name__)


class ShannonTransport:
    """Sends relays to suppliers on a Pocket network.

    A :class:`~testbench_dagster.core.relay.Transport`.

    It belongs to the event loop of the first :meth:`send`, which also starts a task per service that keeps
    its sessions current; :meth:`close` ends it.
    """

    def __init__(self, services: Mapping[str, ShannonService]) -> None:
        self._http = HttpClient()
        self._services = {name: ServiceContext(service) for name, service in services.items()}
        self._prepared = PreparedRequests()
        self._untyped: set[str] = set()  # URLs that want no RPC type
        self._typed: dict[str, float] = {}  # URLs that are not tried without it, and until when

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        try:
            return await self._send(endpoint, relay)
        except Exception as exc:  # whatever it is, it is ours
            _log.exception("relay to %s", endpoint.supplier)
            return _unsent(Fault.INTERNAL, f"{type(exc).__name__} in the transport")

    async def close(self) -> None:
        """End the watching of sessions and close the connections; a later send would begin anew."""
        self._prepared.clear()
        for service in self._services.values():
            await service.close()
        await self._http.close()

    # -- one relay -------------------------------------------------------------------------------------

    async def _send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        service = self._services.get(endpoint.service)
        if service is None:
            return _unsent(Fault.INTERNAL, f"service {endpoint.service!r} has no applications")
        operator, book = endpoint.address, service.book
        service.watch()
        try:
            session, signer, key = await service.prepared(operator)
        except Unready as exc:
            return _unsent(exc.fault, str(exc))
        header = session.header
        stream = service.stream or endpoint.stream
        routes = service.routes.of(endpoint, session)
        noted = len(routes) > 1 or routes[0] is not endpoint  # else the roster says where it went
        calls = (
            Call.from_relay(route, relay, header, signer, stream=stream, noted=noted) for route in routes
        )
        try:
            call = next(calls)
        except RequestError as exc:
            book.give_back(header.session_id, operator)
            return _unsent(Fault.CLIENT_REQUEST, str(exc), header)
        return await self._call(service, call, calls, key)

    async def _call(self, service: ServiceContext, call: Call, others: Iterator[Call], key: bytes) -> Attempt:
        """Make the exchange and judge it; whatever no miner accepted is given back to the budget.

        ``others``: the same relay to other endpoints of the supplier.
        """
        book, header, operator = service.book, call.header, call.endpoint.address
        ref = SessionRef(
            header.application, header.session_id, header.start_height, header.end_height, book.height()
        )
        sent = True
        # the proxy's password: what stands between us and the miner may quote it
        secrets = (*service.secrets, *secrets_of({}, call.endpoint.route))
        try:
            call, exchange = await self._reached(service, call, others)
            sent = exchange.phase in ("waiting", "reading")
            if exchange.error is not None:
                return _attempt(call, exchange, _broken(call, exchange), ref, secrets)
            outcome = await self._judged(service, call, exchange, key, ref)
            sent = outcome.served
            if outcome.answers:
                if redacted_body(outcome.body, service.secrets) is not outcome.body:
                    _log.error(
                        "%s knows the key that signs for %s and sent it back: whoever has it spends the "
                        "application's stake; undelegate or unstake, and use another key",
                        call.endpoint.supplier,
                        ref.app,
                    )
                if redacted_body(outcome.body, secrets) is outcome.body:  # without it nothing would prove it
                    call.evidence["envelope"] = {"parts": envelope_of(outcome.parts, outcome.answers)}
                return attempt_from(
                    exchange,
                    outcome.answer,
                    call.evidence,
                    secrets,
                    wrapped=(outcome.answers[0].status, outcome.body),
                    first_token_ms=call.first_token_ms,
                    session=ref,
                )
            return _attempt(call, exchange, outcome.answer, ref, secrets)
        finally:
            if not sent:
                book.give_back(header.session_id, operator)

    async def _reached(
        self, service: ServiceContext, call: Call, others: Iterator[Call]
    ) -> tuple[Call, Exchange]:
        """Post the relay where a connection can be made: what nobody received is still one relay.

        All of it has the time of one attempt.
        """
        exchange = await self._exchange(call)
        missed: list[dict[str, str]] = []
        while (error := _unconnected(exchange)) is not None:
            left_s = _limits(call).total_s - exchange.elapsed_ms / 1000
            following = next(others, None) if left_s > 0 else None
            if following is None:
                service.routes.failed(call.endpoint)
                break
            missed.append({"base_url": call.endpoint.base_url, "error": error})
            call = following
            exchange = await self._exchange(call, since=exchange)
        else:
            service.routes.answered(call.endpoint)
        if missed:
            call.evidence["unreached"] = missed
        return call, exchange

    async def _exchange(self, call: Call, since: Exchange | None = None) -> Exchange:
        """Post the relay, again without its RPC type if the miner has no backend for that.

        ``since``: the exchange with which the attempt began.
        """
        url, limits = call.endpoint.base_url, _limits(call)
        typed = call.endpoint.rpc_type is not None and url not in self._untyped
        exchange = await self._post(call, limits, typed=typed, since=since)
        now = time.monotonic()
        refused = exchange.error is None and exchange.status == 503
        if not typed or not refused or now < self._typed.get(url, now):
            return exchange
        # Nothing was accepted, so this is still one relay. It has what is left of the first one's time; what
        # it waits for its turn at the supplier's pace is none of that.
        left_s = limits.total_s - exchange.elapsed_ms / 1000
        if left_s <= 0 or not (call.further is None or await call.further()):
            return exchange
        exchange = await self._post(call, replace(limits, total_s=left_s), typed=False)
        call.evidence["rpc_type_omitted"] = True
        if exchange.status is None or exchange.status == 503:
            if len(self._typed) >= _MAX_KNOWN:
                self._typed.clear()
            self._typed[url] = now + RPC_TYPE_AGAIN_S
        elif len(self._untyped) < _MAX_KNOWN:
            self._untyped.add(url)
        return exchange

    async def _post(
        self, call: Call, limits: Limits, *, typed: bool, since: Exchange | None = None
    ) -> Exchange:
        """One exchange."""
        exchange = Exchange()
        if since is not None:
            exchange.started, exchange.started_at = since.started, since.started_at
        try:
            request = self._prepared.get(call.endpoint, typed, call.streamed, make=_request)
        except Exception as error:
            exchange.error = error
            return exchange
        if not call.streamed and call.watch is None:
            await self._http.run(exchange, request, call.message, limits, page=call.page)
            return exchange
        call.begin()
        await self._http.run(
            exchange,
            request,
            call.message,
            limits,
            page=call.page,
            on_chunk=call.listen if call.streamed else None,
            on_connect=None if call.watch is None else call.connected,
        )
        call.end(exchange)
        return exchange

    # -- judging ---------------------------------------------------------------------------------------

    async def _judged(
        self, service: ServiceContext, call: Call, exchange: Exchange, key: bytes, ref: SessionRef
    ) -> _Outcome:
        """Say whose fault a complete HTTP answer is, or what it answers."""
        if exchange.status is None:
            raise RuntimeError("an exchange came to its end without a status")
        raw = exchange.body
        if exchange.status != 200 and not _is_stream(exchange):
            return await self._refused(service, call, faults.of_status(exchange.status, raw), ref)
        try:
            parts = _split(raw) if _is_stream(exchange) else [raw]
            responses = [read_response(part) for part in parts]
            error = next((r.error for r in responses if r.error is not None), None)
            if error is not None:
                return await self._refused(service, call, faults.of_miner_error(error), ref)
            try:
                answers = await _verified(responses, call.header, key)
            except ResponseError as exc:
                other = None
                if exc.reason == "signature":
                    other = await service.other_key(call.endpoint.address, key)
                if other is None:
                    raise
                key = other
                answers = await _verified(responses, call.header, key)
            body = _body(answers)
            if not call.page and service.replays.caught(
                responses[0].signature, call.question, call.began, answers[0], body, call.endpoint.api
            ):
                raise ResponseError("signature", "replayed: it was the answer to another question before")
        except ResponseError as exc:
            verdict = faults.of_response_error(exc)
            return _Outcome(Answer(verdict.fault, error=verdict.error))
        call.evidence["public_key"] = key.hex()
        call.evidence["session_header"] = header_bytes(call.header)
        charset = note_charset(call.evidence, _content_type(answers[0]))
        answer = parse_answer(
            call.request,
            call.endpoint.api,
            answers[0].status,
            body,
            charset=charset,
            generation=call.endpoint.generation,
        )
        return _Outcome(answer, parts, answers, body)

    async def _refused(
        self, service: ServiceContext, call: Call, verdict: faults.Verdict, ref: SessionRef
    ) -> _Outcome:
        """A miner did not serve: find out about the session, or note that it grants no more."""
        fault, error, header = verdict.fault, verdict.error, call.header
        if verdict.session:
            service.book.invalidate(header.session_id)
            with contextlib.suppress(ChainError):
                await service.refreshed()
            known = service.book.failure is None  # otherwise nobody can tell
            fault = faults.session_fault(header, ref.height, service.book.height() if known else None)
        elif verdict.used_up:
            service.book.exhaust(header.session_id, call.endpoint.address)
        return _Outcome(Answer(fault, error=error), served=fault.row.worked_on)


@dataclass(slots=True)
class _Outcome:
    """What came of a complete HTTP answer. ``served``: a miner may charge for it."""

    answer: Answer
    parts: list[bytes] | tuple[()] = ()
    answers: list[HttpResponse] | tuple[()] = ()
    body: bytes = b""
    served: bool = True


def _request(endpoint: Endpoint, typed: bool, streamed: bool) -> PreparedRequest:
    """Prepare requests to an endpoint; raises :class:`RequestError` or ``AddressRefused``."""
    headers = {
        "User-Agent": USER_AGENT,
        "Content-Type": "application/json",
        # compressed in pieces, a stream could not be read as it comes
        "Accept-Encoding": "identity" if streamed else "gzip",
    }
    if typed:
        headers["Rpc-Type"] = str(endpoint.rpc_type)
    try:
        return PreparedRequest.from_url(
            endpoint.base_url,
            "POST",
            headers,
            connect_s=endpoint.limits.connect_s,
            private_allowed=endpoint.private_allowed,
            route=endpoint.route,
        )
    except ValueError as exc:  # RequestError is one, too
        raise RequestError(f"the staked URL is none to post to: {exc}") from None


def _limits(call: Call) -> Limits:
    """The bounds of a relay: of its endpoint, for an answer as long as it may be."""
    return call.endpoint.limits.for_answer(answer_tokens(call.request, call.endpoint.generation))


def _unconnected(exchange: Exchange) -> str | None:
    """Why no connection was made, in a line; None where one was, or where it is our own mistake."""
    error = exchange.error
    if error is None or exchange.phase not in ("preparing", "connecting"):
        return None
    unreached = fault_of(error, "connecting") is Fault.TRANSPORT
    # a proxy that failed may yet reach another endpoint
    failed = isinstance(error, aiohttp.ClientHttpProxyError) and error.status >= 500
    if isinstance(error, AddressRefused) or unreached or failed:
        return describe(error, exchange.phase)
    return None


def _is_stream(exchange: Exchange) -> bool:
    kind = exchange.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in _STREAM_TYPES or exchange.body.endswith(SEPARATOR)


def _split(raw: bytes) -> list[bytes]:
    """Cut a streamed body into parts. Raises :class:`ResponseError`."""
    splitter = PartSplitter()
    parts = splitter.feed(raw)
    rest = splitter.finish()
    if rest is not None:
        parts.append(rest)
    if not parts:
        raise ResponseError("empty", "the stream has no part")
    if len(parts) > MAX_PARTS:
        raise ResponseError(
            "unmarshal", f"the stream has {counted(len(parts), 'part')}; {MAX_PARTS} are allowed"
        )
    return parts


async def _verified(responses: list[RelayResponse], header: SessionHeader, key: bytes) -> list[HttpResponse]:
    """Verify every part, letting the loop breathe. Raises :class:`ResponseError`."""
    answers = []
    for number, response in enumerate(responses, 1):
        answers.append(verify_response(response, header, key))
        if number % _PARTS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return answers


def _body(answers: list[HttpResponse]) -> bytes:
    """The backend's body. Raises :class:`ResponseError` if its parts do not belong together."""
    if any(answer.status != answers[0].status for answer in answers):
        raise ResponseError("payload", "the parts of the stream have different HTTP statuses")
    for name, values in answers[0].headers.items():
        if name.lower() == "content-encoding":
            for compression in COMPRESSIONS.intersection(
                v.strip().lower() for v in ",".join(values).split(",")
            ):
                raise ResponseError("payload", f"content encoding {compression!r} was not asked for")
    return answers[0].body if len(answers) == 1 else b"".join(answer.body for answer in answers)


def _content_type(answer: HttpResponse) -> str | None:
    found = (values for name, values in answer.headers.items() if name.lower() == "content-type")
    return next((values[0] for values in found if values), None)


def _broken(call: Call, exchange: Exchange) -> Answer:
    """Whose fault it is that there is no complete answer."""
    answer = broken(exchange, page=call.page)
    if isinstance(exchange.error, RequestError):  # what is staked is no URL to post to
        answer = replace(answer, fault=Fault.CLIENT_REQUEST)
    return answer


def _attempt(
    call: Call, exchange: Exchange, answer: Answer, ref: SessionRef, secrets: tuple[bytes, ...]
) -> Attempt:
    """The record of a relay without a verified answer: the body is what came from the miner.

    Its status is kept only where judging that body by it comes to the same fault, as is done again whenever
    evidence is checked.
    """
    status, shown = exchange.status, True
    if status is not None:
        call.evidence["http_status"] = status
        judged_by_it = answer.fault.row.shown_by_answer
        shown = status != 200 and (not judged_by_it or _same(call, status, exchange.body, answer))
    return attempt_from(exchange, answer, call.evidence, secrets, with_status=shown, session=ref)


def _same(call: Call, status: int, body: bytes, answer: Answer) -> bool:
    asked = call.endpoint.generation
    found = parse_answer(call.request, call.endpoint.api, status, body, generation=asked)
    return found.fault is answer.fault


def _unsent(fault: Fault, error: str, header: SessionHeader | None = None) -> Attempt:
    """The record of a relay that was not sent."""
    ref = None
    if header is not None:
        ref = SessionRef(header.application, header.session_id, header.start_height, header.end_height, None)
    return attempt_from(Exchange(), Answer(fault, error=error), session=ref)
