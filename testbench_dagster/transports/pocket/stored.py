"""What a stored answer of a relay miner shows of its fault, where no verified answer was found in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbench_dagster.core.errors import ShannonError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.transports.answers import Answer
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.evidence import verify_evidence
from testbench_dagster.transports.pocket.faults import (
    Verdict,
    of_miner_error,
    of_response_error,
    of_status,
)
from testbench_dagster.transports.pocket.keys import address_of
from testbench_dagster.transports.pocket.messages import SessionHeader
from testbench_dagster.transports.pocket.responses import read_response
from testbench_dagster.transports.pocket.streams import PartSplitter
from testbench_dagster.transports.stored import (
    BadSignature,
    Shown,
    StoredSignature,
    broken_fault,
    too_large_fault,
)

#: What may be wrong with a relay miner's answer that can be read: its signature, its payload, the key.
_UNVERIFIED = frozenset({Fault.SUPPLIER_SIGNATURE, Fault.SUPPLIER_PROTOCOL, Fault.NODE})
#: A miner that rejects a session is excused around the session's ends; which it was, the chain knew.
_SESSION = frozenset({Fault.ROLLOVER, Fault.SUPPLIER_HTTP})


def shown_by_miner(
    attempt: AttemptRecord, status: int, request: Mapping[str, Any], error: str | None
) -> Shown:
    """What an attempt shows that a miner answered with an HTTP ``status``, unsigned or not signed well."""
    body = attempt.body
    if attempt.body_truncated:
        return Shown(frozenset({too_large_fault(request)}))

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
    if attempt.evidence.get("redacted"):  # a redacted answer cannot be read any more
        faults |= _UNVERIFIED
    broken = broken_fault(error)
    if broken is not None:
        faults.add(broken)
    return Shown(frozenset(faults), answer)


def verified_signature(attempt: AttemptRecord) -> StoredSignature:
    """Verify what a signed answer rests on, and say who signed it for which session.

    Raises:
        BadSignature: it does not hold, or the evidence is malformed.
    """
    try:
        verify_evidence(attempt.body, attempt.evidence)
        header = SessionHeader.decode(bytes(attempt.evidence["session_header"]))
        signer = address_of(bytes.fromhex(attempt.evidence["public_key"]))
    except (ShannonError, LookupError, TypeError, ValueError) as error:
        raise BadSignature(str(error)) from None
    return StoredSignature(
        signer, header.application, header.session_id, header.start_height, header.end_height
    )


def _read(body: bytes, *, refused: bool) -> Iterator[Verdict | None]:
    """The verdicts on a miner's answer, whole and as a stream of parts; None where it can be read.

    Of an HTTP error (``refused``) only a stream is read so, and only one that can be.
    """
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
