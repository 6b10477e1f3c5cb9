"""What the stored status and answer of an attempt show of its fault, whatever its record claims.

Each transport's own rules are applied again to what it stored: a supplier's answer is parsed as it was on
arrival, a gateway's judged with what its headers said, a relay miner's refusal read once more. What was seen
by the relayer alone stays its word: a deadline, a broken connection, a signature that did not hold, on which
side of a session's end a relay fell. Even then status and answer bound what it can have been.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.event_streams import is_event_stream
from testbench_dagster.transports.path.transport import GatewayHeaders, judge
from testbench_dagster.transports.payload import Api

if TYPE_CHECKING:
    from testbench_dagster.transports.pocket.faults import Verdict

#: Faults that there are only with an answer.
_OF_ANSWERS = frozenset(
    {
        Fault.OK,
        Fault.TRUNCATED,
        Fault.EMPTY,
        Fault.SUPPLIER_HTTP,
        Fault.SUPPLIER_REFUSED,
        Fault.RATE_LIMITED,
    }
)
#: What may be wrong with a relay miner's answer that can be read: its signature, its payload, the key.
_UNVERIFIED = frozenset({Fault.SUPPLIER_SIGNATURE, Fault.SUPPLIER_PROTOCOL, Fault.NODE})
#: A miner that rejects a session is excused around the session's ends; which it was, the chain knew.
_SESSION = frozenset({Fault.ROLLOVER, Fault.SUPPLIER_HTTP})
#: The words of ``relays.http.describe`` for an exchange that broke while its answer was read.
_LATE = re.compile(r"(?:^|: )deadline passed while reading$")
_BROKEN = re.compile(r"(?:^|: )(?:invalid HTTP: |\w+ while reading(?:: |$))")


@dataclass(frozen=True, slots=True)
class Shown:
    """The ``faults`` that an attempt with this evidence can have had.

    ``answer`` is what status and body are classified as by themselves; None where they hold no answer that
    can be.
    """

    faults: frozenset[Fault]
    answer: Answer | None = None


def shown(attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None) -> Shown:
    """What the evidence of an attempt at a request shows; ``error`` is the text that it was given."""
    evidence, status, body = attempt.evidence, attempt.status, attempt.body
    http_status = evidence.get("http_status")
    if isinstance(http_status, int) and attempt.session is not None and "request_hash" in evidence:
        return _of_miner(http_status, body, attempt, request, error)
    if status is None:
        return Shown(frozenset() if body else frozenset(Fault) - _OF_ANSWERS)
    if "gateway" in evidence:
        return _of_gateway(attempt, status, request, api, error)
    answer = parse_answer(request, api, status, body)
    exact = Shown(frozenset({answer.fault}), answer)
    if answer.fault.answered or "public_key" in evidence:  # signed: nothing is missing
        return exact
    if attempt.body_truncated:
        return Shown(frozenset({_too_large(request)}))
    broken = broken_fault(error)
    if broken is None or (answer.fault.owner is not Owner.SUPPLIER and _is_whole(body)):
        return exact
    return Shown(exact.faults | {broken}, answer)


def broken_fault(error: str | None) -> Fault | None:
    """The fault of an exchange that broke while its answer was read, by its text; None of any other."""
    if error is None:
        return None
    if _LATE.search(error):
        return Fault.SUPPLIER_TIMEOUT
    return Fault.SUPPLIER_PROTOCOL if _BROKEN.search(error) else None


def _too_large(request: Mapping[str, Any]) -> Fault:
    # a page may honestly be larger than what is kept
    return Fault.CLIENT_REQUEST if request.get("type") == "get" else Fault.SUPPLIER_PROTOCOL


def _is_whole(body: bytes) -> bool:
    """Whether an answer certainly came to its end."""
    if not body:
        return False
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return is_event_stream(body) and b"[DONE]" in body[-32:]
    return True


def _of_gateway(
    attempt: AttemptRecord, status: int, request: Mapping[str, Any], api: Api, error: str | None
) -> Shown:
    said = attempt.evidence["gateway"]
    said = said if isinstance(said, Mapping) else {}
    told = GatewayHeaders.from_evidence(said)
    address = str(said.get("requested", ""))
    endpoint = Endpoint(attempt.supplier, attempt.service, "", api, "", transport="path", address=address)
    answer = judge(told, endpoint, request, status, attempt.body)
    faults = {answer.fault}
    if attempt.body_truncated:
        return Shown(frozenset({Fault.GATEWAY, _too_large(request)}))
    if broken_fault(error) is not None and not answer.fault.answered:
        faults.add(Fault.GATEWAY)
    return Shown(frozenset(faults), answer)


def _of_miner(
    status: int, body: bytes, attempt: AttemptRecord, request: Mapping[str, Any], error: str | None
) -> Shown:
    """An answer of a relay miner that was not signed, or not well."""
    from testbench_dagster.transports.pocket.faults import of_status  # with its codecs: 0.1 s

    if attempt.body_truncated:
        return Shown(frozenset({_too_large(request)}))

    def possible(verdict: Verdict) -> frozenset[Fault]:
        return _SESSION if verdict.session else frozenset({verdict.fault})

    answer = None
    faults: set[Fault] = set()
    if status != 200:
        verdict = of_status(status, body)
        faults |= possible(verdict)
        answer = None if verdict.session else Answer(verdict.fault, error=verdict.error)
    for found in _read(body, refused=status != 200):
        faults |= _UNVERIFIED if found is None else possible(found)
    if attempt.evidence.get("redacted"):  # with a key blotted out of it nothing can be read any more
        faults |= _UNVERIFIED
    broken = broken_fault(error)
    if broken is not None:
        faults.add(broken)
    return Shown(frozenset(faults), answer)


def _read(body: bytes, *, refused: bool) -> Iterator[Verdict | None]:
    """The verdicts on a miner's answer, whole and as a stream of parts; None where it can be read.

    Of an HTTP error (``refused``) only a stream is read so, and only one that can be.
    """
    from testbench_dagster.transports.pocket.errors import ResponseError
    from testbench_dagster.transports.pocket.faults import of_miner_error, of_response_error
    from testbench_dagster.transports.pocket.responses import read_response
    from testbench_dagster.transports.pocket.streams import PartSplitter

    splitter = PartSplitter()
    parts = splitter.feed(body)
    rest = splitter.finish()
    stream = parts if rest is None else [*parts, rest]
    for reading in [stream] if refused else [[body], stream]:
        try:
            errors = [read_response(part).error for part in reading]
        except ResponseError as problem:
            if not refused:
                yield of_response_error(problem)
            continue
        if errors:
            first = next((said for said in errors if said is not None), None)
            yield None if first is None else of_miner_error(first)
