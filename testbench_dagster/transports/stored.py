"""What the stored status and answer of an attempt show of its fault, whatever its record claims.

Each transport's own rules are applied again to what it stored (``stored.py`` in its package): a supplier's
answer is parsed as it was on arrival, a gateway's judged with what its headers said, a relay miner's refusal
read once more. What was seen by the relayer alone stays its word: a deadline, a broken connection, a
signature that did not hold, on which side of a session's end a relay fell. Even then status and answer bound
what it can have been.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.event_streams import is_event_stream
from testbench_dagster.transports.lenient_json import Unreadable, read_json
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.readings import reading_of

#: Faults that no relay without an answer ends in: those that status and body alone decide, and those that no
#: relay ends in at all. But a request may also be refused on our side, before it is sent.
_OF_ANSWERS = frozenset(f for f in Fault if f.row.shown_by_answer or not f.row.ways) - {Fault.CLIENT_REQUEST}
#: The words of ``outcome.describe`` for an exchange that broke while its answer was read.
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


@dataclass(frozen=True, slots=True)
class StoredSignature:
    """Who signed a stored answer, by address, and the session it was signed for."""

    signer: str
    app: str
    session: str
    session_start: int
    session_end: int


class Unsigned(Exception):
    """A stored answer should carry its supplier's signature, and has none."""


class BadSignature(Exception):
    """The signature of a stored answer does not hold; the text says why."""


def shown_by_answer(
    attempt: AttemptRecord,
    request: Mapping[str, Any],
    api: Api,
    error: str | None,
    *,
    complete: bool = False,
) -> Shown:
    """What status and body show of a supplier's own answer; ``error`` is the text its fault was given.

    ``complete``: nothing of the answer can be missing, whatever that text says.
    """
    if attempt.status is None:
        return Shown(frozenset() if attempt.body else frozenset(Fault) - _OF_ANSWERS)
    answer = parse_answer(request, api, attempt.status, attempt.body, **reading_of(attempt))
    exact = Shown(frozenset({answer.fault}), answer)
    if answer.fault.answered or complete:
        return exact
    if attempt.body_truncated:
        return Shown(frozenset({too_large_fault(request)}))
    broken = broken_fault(error)
    if broken is None or (answer.fault.owner is not Owner.SUPPLIER and _is_whole(attempt.body)):
        return exact
    return Shown(exact.faults | {broken}, answer)


def broken_fault(error: str | None) -> Fault | None:
    """The fault of an exchange that broke while its answer was read, by its text; None of any other."""
    if error is None:
        return None
    if _LATE.search(error):
        return Fault.SUPPLIER_TIMEOUT
    return Fault.SUPPLIER_PROTOCOL if _BROKEN.search(error) else None


def too_large_fault(request: Mapping[str, Any]) -> Fault:
    """The fault of an answer that was cut: a page may honestly be larger than what is kept."""
    return Fault.CLIENT_REQUEST if request.get("type") == "get" else Fault.SUPPLIER_PROTOCOL


def _is_whole(body: bytes) -> bool:
    """Whether an answer certainly came to its end."""
    if not body:
        return False
    try:
        read_json(body)
    except Unreadable:
        return is_event_stream(body) and b"[DONE]" in body[-32:]
    return True
