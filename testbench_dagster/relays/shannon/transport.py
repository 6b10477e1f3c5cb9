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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from testbench_dagster.network.chain.errors import ChainError
from testbench_dagster.relays.answers import Answer, parse_answer
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.http import Exchange, HttpClient, Target, Targets, TooLarge, describe, fault_of
from testbench_dagster.relays.messages import Attempt, Endpoint, Limits, Relay, SessionRef
from testbench_dagster.relays.payload import RequestError
from testbench_dagster.relays.shannon import faults
from testbench_dagster.relays.shannon.calls import USER_AGENT, Call, header_bytes
from testbench_dagster.relays.shannon.errors import ResponseError
from testbench_dagster.relays.shannon.evidence import envelope_of
from testbench_dagster.relays.shannon.messages import HttpResponse, RelayResponse, SessionHeader
from testbench_dagster.relays.shannon.responses import read_response, verify_response
from testbench_dagster.relays.shannon.services import ServiceDesk, ShannonService, Unready
from testbench_dagster.relays.shannon.streams import SEPARATOR, PartSplitter

__all__ = ["ShannonService", "ShannonTransport"]

#: Parts of one streamed answer. Miners send one every 100 ms or more: these last eight minutes.
MAX_PARTS = 5_000
_PARTS_AT_ONCE = 64
#: Least size limit of a page, in MiB, as of direct relays.
MAX_PAGE_MB = 15.0
#: After an answer 503 with and without the RPC type, it is not tried without again for so long, in seconds.
RPC_TYPE_AGAIN_S = 60.0
_MAX_KNOWN = 20_000  # URLs that something is known of
_STREAM_TYPES = ("text/event-stream", "application/x-ndjson")
#: Faults that follow from an HTTP status.
_BY_STATUS = (Fault.SUPPLIER_HTTP, Fault.RATE_LIMITED, Fault.CLIENT_REQUEST)

_log = logging.getLogger(__name__)


class ShannonTransport:
    """Sends relays to suppliers on a Pocket network.

    A :class:`~testbench_dagster.relays.messages.Transport`.

    It belongs to the event loop of the first :meth:`send`, which also starts a task per service that keeps
    its sessions current; :meth:`close` ends it.
    """

    def __init__(self, services: Mapping[str, ShannonService]) -> None:
        self._http = HttpClient()
        self._services = {name: ServiceDesk(service) for name, service in services.items()}
        self._targets = Targets()
        self._untyped: set[str] = set()  # URLs that want no RPC type
        self._typed: dict[str, float] = {}  # URLs that are not tried without it, and until when

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        try:
            return await self._send(endpoint, relay)
        except Exception as exc:  # whatever it is, it is ours
            _log.exception("relay to %s", endpoint.supplier)
            return _unsent(endpoint, Fault.INTERNAL, f"{type(exc).__name__} in the transport")

    async def close(self) -> None:
        """End the watching of sessions and close the connections; a later send would begin anew."""
        self._targets.clear()
        for service in self._services.values():
            await service.close()
        await self._http.close()

    # -- one relay -------------------------------------------------------------------------------------

    async def _send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        service = self._services.get(endpoint.service)
        if service is None:
            return _unsent(endpoint, Fault.INTERNAL, f"service {endpoint.service!r} has no applications")
        operator, book = endpoint.address, service.book
        service.watch()
        try:
            session, signer, key = await service.prepared(operator)
        except Unready as exc:
            return _unsent(endpoint, exc.fault, str(exc))
        header = session.header
        try:
            call = Call.of(endpoint, relay, header, signer, stream=service.stream or endpoint.stream)
        except RequestError as exc:
            book.give_back(header.session_id, operator)
            return _unsent(endpoint, Fault.CLIENT_REQUEST, str(exc), header)
        return await self._call(service, call, key)

    async def _call(self, service: ServiceDesk, call: Call, key: bytes) -> Attempt:
        """Make the exchange and judge it; whatever no miner accepted is given back to the budget."""
        book, header, operator = service.book, call.header, call.endpoint.address
        ref = SessionRef(
            header.application, header.session_id, header.start_height, header.end_height, book.height()
        )
        sent, secrets = True, service.secrets
        try:
            exchange, problem = await self._exchange(call)
            sent = exchange.phase in ("waiting", "reading")
            if problem is not None:
                return _attempt(call, exchange, problem, ref, secrets)
            outcome = await self._judged(service, call, exchange, key, ref)
            sent = outcome.served
            if outcome.answers:
                if any(secret in outcome.body for secret in secrets):  # kept without it: nothing proves that
                    _log.error(
                        "%s knows the key that signs for %s and sent it back: whoever has it spends the "
                        "application's stake; undelegate or unstake, and use another key",
                        call.endpoint.supplier,
                        ref.app,
                    )
                else:
                    exchange.evidence["envelope"] = {"parts": envelope_of(outcome.parts, outcome.answers)}
                return exchange.attempt(
                    outcome.answer,
                    secrets,
                    status=outcome.answers[0].status,
                    body=outcome.body,
                    first_token_ms=call.first_token_ms,
                    session=ref,
                )
            return _attempt(call, exchange, outcome.answer, ref, secrets)
        finally:
            if not sent:
                book.give_back(header.session_id, operator)

    async def _exchange(self, call: Call) -> tuple[Exchange, Answer | None]:
        """Post the relay, again without its RPC type if the miner has no backend for that."""
        url, limits = call.endpoint.base_url, call.endpoint.limits
        typed = call.endpoint.rpc_type is not None and url not in self._untyped
        exchange, problem = await self._post(call, limits, typed=typed)
        now = time.monotonic()
        if not typed or problem is not None or exchange.status != 503 or now < self._typed.get(url, now):
            return exchange, problem
        # Nothing was accepted, so this is still one relay. It has what is left of the first one's time.
        left_s = limits.total_s - exchange.elapsed_ms / 1000
        if left_s <= 0:
            return exchange, problem
        exchange, problem = await self._post(call, replace(limits, total_s=left_s), typed=False)
        exchange.evidence["rpc_type_omitted"] = True
        if exchange.status is None or exchange.status == 503:
            if len(self._typed) >= _MAX_KNOWN:
                self._typed.clear()
            self._typed[url] = now + RPC_TYPE_AGAIN_S
        elif len(self._untyped) < _MAX_KNOWN:
            self._untyped.add(url)
        return exchange, problem

    async def _post(self, call: Call, limits: Limits, *, typed: bool) -> tuple[Exchange, Answer | None]:
        """One exchange; what went wrong with it, if it has no complete answer."""
        exchange = Exchange(limits, least_mb=MAX_PAGE_MB if call.page else 0.0)
        exchange.evidence = dict(call.evidence)
        if call.streamed:
            exchange.on_chunk = partial(call.listen, exchange)
        try:
            target = self._target(call.endpoint, typed=typed, streamed=call.streamed)
            await self._http.run(exchange, target, call.message)
        except Exception as exc:
            fault = fault_of(exc, exchange.phase)
            if isinstance(exc, RequestError):  # what is staked is no URL to post to
                fault = Fault.CLIENT_REQUEST
            elif isinstance(exc, TooLarge) and call.page:
                fault = Fault.CLIENT_REQUEST  # a page may honestly be larger than what we keep
            return exchange, Answer(fault, error=describe(exc, exchange.phase))
        return exchange, None

    def _target(self, endpoint: Endpoint, *, typed: bool, streamed: bool) -> Target:
        """Return the prepared target; raises :class:`RequestError` or ``AddressRefused``."""

        def make() -> Target:
            headers = {
                "User-Agent": USER_AGENT,
                "Content-Type": "application/json",
                # compressed in pieces, a stream could not be read as it comes
                "Accept-Encoding": "identity" if streamed else "gzip",
            }
            if typed:
                headers["Rpc-Type"] = str(endpoint.rpc_type)
            try:
                return Target.of(
                    endpoint.base_url,
                    "POST",
                    headers,
                    connect_s=endpoint.limits.connect_s,
                    private_allowed=endpoint.private_allowed,
                )
            except ValueError as exc:  # RequestError is one, too
                raise RequestError(f"the staked URL is none to post to: {exc}") from None

        return self._targets.get(endpoint, typed, streamed, make=make)

    # -- judging ---------------------------------------------------------------------------------------

    async def _judged(
        self, service: ServiceDesk, call: Call, exchange: Exchange, key: bytes, ref: SessionRef
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
        exchange.evidence["public_key"] = key.hex()
        exchange.evidence["session_header"] = header_bytes(call.header)
        answer = parse_answer(call.request, call.endpoint.api, answers[0].status, body)
        return _Outcome(answer, parts, answers, body)

    async def _refused(
        self, service: ServiceDesk, call: Call, verdict: faults.Verdict, ref: SessionRef
    ) -> _Outcome:
        """A miner did not serve: find out about the session, or note that it grants no more."""
        fault, error, header = verdict.fault, verdict.error, call.header
        if verdict.session:
            service.book.doubt(header.session_id)
            with contextlib.suppress(ChainError):
                await service.refreshed()
            known = service.book.failure is None  # otherwise nobody can tell
            fault = faults.session_fault(header, ref.height, service.book.height() if known else None)
        elif fault is Fault.BUDGET:
            service.book.exhaust(header.session_id, call.endpoint.address)
        return _Outcome(Answer(fault, error=error), served=fault is Fault.SUPPLIER_TIMEOUT)


@dataclass(slots=True)
class _Outcome:
    """What came of a complete HTTP answer. ``served``: a miner may charge for it."""

    answer: Answer
    parts: list[bytes] | tuple[()] = ()
    answers: list[HttpResponse] | tuple[()] = ()
    body: bytes = b""
    served: bool = True


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
        raise ResponseError("unmarshal", f"the stream has {len(parts)} parts; {MAX_PARTS} are allowed")
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
        if name.lower() == "content-encoding" and any(
            v.strip().lower() not in ("", "identity") for v in values
        ):
            raise ResponseError("payload", f"content encoding {values[0][:40]!r} was not asked for")
    return answers[0].body if len(answers) == 1 else b"".join(answer.body for answer in answers)


def _attempt(
    call: Call, exchange: Exchange, answer: Answer, ref: SessionRef, secrets: tuple[bytes, ...]
) -> Attempt:
    """The record of a relay without a verified answer: the body is what came from the miner.

    Its status is kept only where judging that body by it comes to the same fault, as is done again whenever
    evidence is checked.
    """
    status = exchange.status
    if status is not None:
        exchange.evidence["http_status"] = status
        exchange.status = None
        if status != 200 and (answer.fault not in _BY_STATUS or _same(call, status, exchange.body, answer)):
            exchange.status = status
    return exchange.attempt(answer, secrets, session=ref)


def _same(call: Call, status: int, body: bytes, answer: Answer) -> bool:
    return parse_answer(call.request, call.endpoint.api, status, body).fault is answer.fault


def _unsent(endpoint: Endpoint, fault: Fault, error: str, header: SessionHeader | None = None) -> Attempt:
    """The record of a relay that was not sent."""
    ref = None
    if header is not None:
        ref = SessionRef(header.application, header.session_id, header.start_height, header.end_height, None)
    return Exchange(endpoint.limits).attempt(Answer(fault, error=error), session=ref)
