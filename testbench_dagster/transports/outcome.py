"""What came of a relay: one exchange and the answer found in it become the attempt that is stored.

The one place where an exchange turns into an attempt, whichever transport made it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, SessionRef
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.addresses import AddressRefused
from testbench_dagster.transports.aiohttp_internals import HttpProcessingError
from testbench_dagster.transports.answers import Answer
from testbench_dagster.transports.http import BadEncoding, Exchange, Phase, TooLarge
from testbench_dagster.transports.retry_after import retry_after_s

_REDACTED = "[redacted]"


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
    """
    finished = time.perf_counter()
    evidence = {} if evidence is None else evidence
    status, body = (exchange.status, exchange.body) if wrapped is None else wrapped
    error, text, reason = answer.error, answer.text, answer.finish_reason
    if secrets:
        received, body = body, redacted_body(body, secrets)
        if body != received:
            evidence["redacted"] = True
        error = error and redacted(error, secrets)
        text = text and redacted(text, secrets)
        reason = reason and redacted(reason, secrets)
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
        retry_after_s=_retry_after_s(exchange, answer.fault),
        session=session,
        evidence=evidence,
    )


def _retry_after_s(exchange: Exchange, fault: Fault) -> float | None:
    """The wait a server asks for that did not answer."""
    if fault.answered or exchange.status is None:
        return None
    return retry_after_s(exchange.headers, datetime.now(UTC), limited=fault.row.paces)


def redacted(text: str, secrets: tuple[bytes, ...]) -> str:
    """The text without secrets."""
    for secret in secrets:
        text = text.replace(secret.decode(), _REDACTED)
    return text


def redacted_body(body: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """The body without secrets: an error text that is cut within one would keep the half of it."""
    for secret in secrets:
        body = body.replace(secret, _REDACTED.encode())
    return body


def fault_of(exc: Exception, phase: Phase) -> Fault:
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
    name, detail = type(exc).__name__.lstrip("_"), str(exc)
    return escaped(f"{name} while {phase}: {detail}" if detail else f"{name} while {phase}")
