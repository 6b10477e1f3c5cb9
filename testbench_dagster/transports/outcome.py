"""What came of a relay: one exchange and the answer found in it become the attempt that is stored.

The one place where an exchange turns into an attempt, whichever transport made it.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.relay import Attempt, SessionRef
from testbench_dagster.core.remedies import LOCATION, PROXY_FAILED, PROXY_WANTS_CREDENTIALS, TLS_FAILED
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.addresses import AddressRefused
from testbench_dagster.transports.aiohttp_internals import HttpProcessingError
from testbench_dagster.transports.answers import Answer
from testbench_dagster.transports.content_encodings import BadEncoding
from testbench_dagster.transports.http import Exchange, Phase, TooLarge
from testbench_dagster.transports.readings import note_charset
from testbench_dagster.transports.redaction import redacted, redacted_body
from testbench_dagster.transports.retry_after import retry_after_s
from testbench_dagster.transports.statuses import status_line

if TYPE_CHECKING:
    from testbench_dagster.transports.plain import PlainExchange

_MAX_LOCATION_CHARS = 200
#: Errors in the header Proxy-Status (RFC 9209) that are those of a destination, and Squid's own.
_DESTINATION_FAILED = frozenset(
    {
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
    }
)
_SQUID_DESTINATION_FAILED = ("ERR_CONNECT_FAIL", "ERR_DNS_FAIL")
_PROXY_STATUS_ERROR = re.compile(r";\s*error=(\w+)")


def broke_off(exchange: Exchange) -> bool:
    """Whether an exchange broke while its answer was read, all of which may have come."""
    return (
        exchange.phase == "reading"
        and not exchange.too_large
        and broken(exchange, page=False).fault.row.owner is Owner.SUPPLIER
    )


def answer_in(
    exchange: PlainExchange,
    secrets: tuple[bytes, ...],
    judge: Callable[[int, bytes, str | None], Answer],
    without: Callable[[], Answer],
) -> tuple[Answer, bytes | None]:
    """The answer that an exchange brought, and its body without secrets where one was looked for in it.

    Args:
        exchange: what happened.
        secrets: what no answer may hold: an error text that is cut within a secret would keep the half of it.
        judge: reads the answer from status, body and charset.
        without: whose fault it is that there is no complete answer.
    """
    answer: Answer | None = None
    body: bytes | None = None
    if exchange.error is None or broke_off(exchange):
        try:
            if exchange.status is None:
                raise RuntimeError("an exchange came to its end without a status")
            body = redacted_body(exchange.body, secrets)
            charset = note_charset(exchange.evidence, exchange.headers.get("Content-Type"))
            answer = judge(exchange.status, body, charset)
        except Exception as error:  # it promises not to raise
            exchange.error = error
    # what came whole is the answer, whatever became of the connection behind its end
    if answer is None or (exchange.error is not None and not answer.fault.answered):
        answer = without()
    return answer, body


def broken(exchange: Exchange, *, page: bool) -> Answer:
    """Whose fault it is that an exchange brought no complete answer. ``page``: the request was a GET."""
    if exchange.error is None:
        raise ValueError("an exchange that came to its end is nobody's fault")
    fault = fault_of(exchange.error, exchange.phase)
    if page and isinstance(exchange.error, TooLarge):
        fault = Fault.CLIENT_REQUEST  # a page may honestly be larger than what we keep
    return Answer(fault, error=describe(exchange.error, exchange.phase))


def attempt_from(
    exchange: Exchange,
    answer: Answer,
    evidence: dict[str, Any] | None = None,
    secrets: tuple[bytes, ...] = (),
    *,
    wrapped: tuple[int, bytes] | None = None,
    with_status: bool = True,
    first_token_ms: float | None = None,
    session: SessionRef | None = None,
    searched: bytes | None = None,
) -> Attempt:
    """The attempt that an exchange and the answer found in it make.

    Args:
        exchange: what happened.
        answer: what was found in it, or its fault.
        evidence: what the attempt carries; says ``redacted`` afterwards where a secret was quoted.
        secrets: what no attempt may hold: a key that the server quoted back is redacted.
        wrapped: status and body of an answer that came wrapped in another; by default they are those of the
            exchange itself.
        with_status: whether the status is kept.
        first_token_ms: when the first text of a streamed answer came.
        session: the session of a relay on a Pocket network.
        searched: the body without secrets, where that is known.
    """
    finished = time.perf_counter()
    evidence = {} if evidence is None else evidence
    status, body = (exchange.status, exchange.body) if wrapped is None else wrapped
    error, text, reason = answer.error, answer.text, answer.finish_reason
    if secrets:
        cut = exchange.error is not None or exchange.too_large
        received = body
        body = redacted_body(body, secrets, cut=cut) if searched is None or cut else searched
        if body != received:
            evidence["redacted"] = True
        error = error and redacted(error, secrets)
        text = text and redacted(text, secrets)
        reason = reason and redacted(reason, secrets)
    if wrapped is None and exchange.status is not None and 300 <= exchange.status < 400:
        where = exchange.headers.get("Location")
        if where:  # whoever redirects may quote what it was sent
            evidence[LOCATION] = escaped(redacted(where, secrets), _MAX_LOCATION_CHARS)
    first_byte_ms = None
    if exchange.first_byte is not None:
        first_byte_ms = (exchange.first_byte - exchange.started) * 1000
    return Attempt(
        fault=answer.fault,
        started_at=exchange.started_at,
        finished_at=datetime.now(UTC),
        latency_ms=(finished - exchange.started) * 1000,
        first_byte_ms=first_byte_ms,
        first_token_ms=first_token_ms,
        status=status if with_status else None,
        body=body,
        body_bytes=exchange.body_bytes if wrapped is None else len(body),
        body_truncated=exchange.too_large,
        error=error,
        text=text,
        logprob=answer.logprob,
        greedy=answer.greedy,
        finish_reason=reason,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        reasoning_tokens=answer.reasoning_tokens,
        reasoning_chars=answer.reasoning_chars,
        retry_after_s=_retry_after_s(exchange, answer.fault, body),
        session=session,
        evidence=evidence,
    )


def _retry_after_s(exchange: Exchange, fault: Fault, body: bytes) -> float | None:
    """The wait a server asks for that did not answer; ``body`` is what it said."""
    if fault.answered or exchange.status is None:
        return None
    return retry_after_s(exchange.headers, datetime.now(UTC), limited=fault.row.paces, body=body)


def fault_of(exc: Exception, phase: Phase) -> Fault:
    """Who is to blame for an exchange that broke with ``exc`` in ``phase``."""
    if isinstance(exc, AddressRefused):
        return Fault.CLIENT_REQUEST  # we do not ask; asking again would not change that
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return Fault.GATEWAY  # nobody reached the supplier
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        if exc.status == PROXY_WANTS_CREDENTIALS:
            return Fault.CREDENTIALS
        return Fault.TRANSPORT if destination_failed(exc) else Fault.GATEWAY
    if isinstance(exc, (TooLarge, BadEncoding, HttpProcessingError)):
        return Fault.SUPPLIER_PROTOCOL
    if isinstance(exc, (aiohttp.ClientError, OSError)):  # TimeoutError is an OSError
        if phase == "connecting":
            return Fault.TRANSPORT
        if isinstance(exc, TimeoutError):
            return Fault.SUPPLIER_TIMEOUT
        return Fault.TRANSPORT if phase == "waiting" else Fault.SUPPLIER_PROTOCOL
    return Fault.INTERNAL


def destination_failed(exc: aiohttp.ClientHttpProxyError) -> bool:
    """Whether a proxy that did not connect says that it could not, as we could not without it.

    An error of the proxy's own (5xx) may as well mean that its network is down: then it says nothing of the
    supplier.
    """
    headers = CIMultiDict(exc.headers or {})
    said = _PROXY_STATUS_ERROR.findall(",".join(headers.getall("Proxy-Status", ())))
    return bool(_DESTINATION_FAILED.intersection(said)) or headers.get("X-Squid-Error", "").startswith(
        _SQUID_DESTINATION_FAILED
    )


def describe(exc: Exception, phase: Phase) -> str:
    """What went wrong, for the record: one escaped line."""
    if isinstance(exc, TooLarge):
        return "the answer exceeds the size limit"
    if isinstance(exc, TimeoutError):
        return f"deadline passed while {phase}"
    if isinstance(exc, HttpProcessingError):
        return escaped(f"invalid HTTP: {exc.message}")
    if isinstance(exc, AddressRefused):
        return escaped(f"not connected: {exc}")
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return escaped(f"{TLS_FAILED}: {exc.certificate_error}")
    if isinstance(exc, (aiohttp.ClientConnectorSSLError, ssl.SSLError)):
        return escaped(f"{TLS_FAILED}: {getattr(exc, 'os_error', exc)}")
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        return escaped(f"{PROXY_FAILED} was not reached: {exc.os_error}")
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        if exc.status == PROXY_WANTS_CREDENTIALS:
            return status_line(exc.status, b"")  # as its status alone is read again
        return escaped(f"{PROXY_FAILED} answers HTTP {exc.status} ({exc.message}) when asked to connect")
    name, detail = type(exc).__name__.lstrip("_"), str(exc)
    return escaped(f"{name} while {phase}: {detail}" if detail else f"{name} while {phase}")
