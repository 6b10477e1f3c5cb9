"""Attempts: what every relay that was sent brought, kept as evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from testbench_dagster.core.records.declaring import (
    FACT,
    Part,
    Record,
    content,
    counted,
    key,
    nested,
    queryable,
    record,
    view,
)


@nested
class BodyOutside(Part):
    """Where the body of an attempt stands outside the document store, compressed by gzip.

    The file is `place/day/ab/sha256.gz`: day is that of `finished_at` in UTC, ab what the hash begins with.
    """

    place: str = content("folder of this store in the place of `bodies`, by its URL")
    sha256: str = content("SHA-256 of the body, in hexadecimal")
    bytes: int = content("its size")


@record(
    "attempts",
    one_per="attempt",
    kind=FACT,
    indexes=(
        ("supplier", "task", "finished_at"),
        ("supplier", "finished_at"),
        ("prompt_id", "supplier"),
        ("service", "finished_at"),
        ("finished_at",),
        ("session",),
    ),
    shard_key=("supplier", "_id"),
)
class AttemptRecord(Record):
    """One attempt at a relay: declared fields, and the evidence for them."""

    id: str = key("follows from supplier, prompt, round, request, repeat and number")
    supplier: str = queryable("key of the supplier that was asked")
    service: str = queryable("its service")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    epoch: int = queryable("prompt sequence of the task, from 1")
    round: int = queryable(
        "how often the doc's prompt was asked, from 1; 0 for a gate alone, which no score rests on"
    )
    prompt_id: str = queryable("the prompt")
    position: int = queryable("place of the prompt in its sequence, from 0")
    doc_id: int = queryable("row of the doc in the task's data")
    idx: int = queryable("which request of the prompt, from 0")
    repeat: int = queryable("which sample of the request, from 0")
    attempt: int = queryable("number of the attempt at this call, from 1; 0 where its lease was lost")
    occasion: int | None = queryable(
        "which occasion at its doc, from 1; null for attempts of earlier versions", default=None
    )
    canary: bool = queryable(
        "whether it asked again what the supplier had answered before, only to see whether it answers",
        default=False,
    )
    fault: str = queryable("how it ended, by the name of the fault")
    owner: str = queryable("who answers for that fault")
    classifier: int | None = queryable("version of what decided the fault; null for the first", default=None)
    status: int | None = queryable("HTTP status, null without a response")
    finished_at: datetime = queryable("when it ended")
    latency_ms: float = queryable("from the hand-over to the transport to the end, in milliseconds")
    prompt_tokens: int | None = queryable("tokens of the prompt, as the supplier counts them")
    completion_tokens: int | None = queryable("tokens of the answer, as the supplier counts them")
    opening: str | None = queryable("how an answer at temperature 0 begins; null for all others")
    app: str | None = queryable("application that was charged, of a relay in a session")
    session: str | None = queryable("id of the session it was sent in")
    height: int | None = queryable("newest block height known when it was sent")
    lease: int | None = queryable("token of the lease under which it was sent")
    own_in_flight: int | None = queryable(
        "requests of ours to the host while it ran, itself included: the more of its beginning and its "
        "end, and 1 only if it was alone all the time; null for attempts of earlier versions",
        default=None,
    )
    answer_hash: str | None = queryable(
        "the first 16 digits of the SHA-256 of the answer's text, by which equal answers are told; null "
        "without an answer, and for attempts of earlier versions",
        default=None,
    )
    body: bytes = content(
        "the answer as received, after decompression; missing where `body_outside` says where it is",
        bulky=True,
    )
    body_outside: BodyOutside | None = content(
        "where the document store lacks it: where it is instead",
        default=None,
        exported=False,
        sparse=True,
    )
    body_bytes: int = content("its size before it was cut, in bytes")
    body_truncated: bool = content("whether it was cut at `relays.max_response_mb`")
    error: str | None = content("what went wrong, in words")
    finish_reason: str | None = content("why the answer ended, as the supplier says")
    reasoning_tokens: int | None = content(
        "those of the completion tokens that were thought, as the supplier counts them",
        default=None,
        sparse=True,
    )
    reasoning_chars: int | None = content(
        "characters that were thought, tags included; they are no part of the answer",
        default=None,
        sparse=True,
    )
    first_byte_ms: float | None = content("until the first byte of the response, in milliseconds")
    first_token_ms: float | None = content("until the first token of a streamed answer, in milliseconds")
    session_start: int | None = content("first height of the session")
    session_end: int | None = content("last height of the session")
    started_at: datetime = content("when it was handed to the transport")
    payload_sha256: str | None = content("SHA-256 of the request body as sent")
    payload_version: int | None = content("version of what built that body; null for the first", default=None)
    evidence: Mapping[str, Any] = content("what else the transport saw, under names of its own")
    host: str | None = content(
        "name of the machine that sent it; null for attempts of earlier versions", default=None, sparse=True
    )
    path: str | None = content("path of the request, relative to the supplier's base URL", exported=False)


@view(AttemptRecord)
class CallAttempt(NamedTuple):
    """How an attempt at a call ended, without its answer."""

    id: str
    service: str
    prompt_id: str
    doc_id: int
    position: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    fault: str
    finished_at: datetime
    latency_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    height: int | None
    occasion: int | None
    canary: bool


@view(AttemptRecord)
class WindowAttempt(NamedTuple):
    """What a window needs of an attempt: which docs were not all answered at once, and how reliably."""

    task: str
    task_hash: str
    prompt_id: str
    doc_id: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    fault: str
    finished_at: datetime
    latency_ms: float
    canary: bool
    lease: int | None


@view(AttemptRecord)
class DocAttempt(NamedTuple):
    """What the life of a doc follows from, of an attempt."""

    id: str
    supplier: str
    task: str
    task_hash: str
    prompt_id: str
    doc_id: int
    position: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    fault: str
    finished_at: datetime
    latency_ms: float
    lease: int | None
    occasion: int | None
    canary: bool


@view(AttemptRecord)
class PlanAttempt(NamedTuple):
    """What planning needs of an attempt."""

    prompt_id: str
    doc_id: int
    position: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    fault: str
    finished_at: datetime
    latency_ms: float
    height: int | None
    lease: int | None
    occasion: int | None
    canary: bool


@view(AttemptRecord)
class UnansweredDoc(NamedTuple):
    """Which prompt an attempt was about."""

    doc_id: int
    prompt_id: str


@view(AttemptRecord)
class AnswerTime(NamedTuple):
    """When a supplier answered, and how long it took."""

    id: str
    finished_at: datetime
    latency_ms: float


@view(AttemptRecord)
class PlainAnswer(NamedTuple):
    """How long an answer took, how long it was, and what else was in flight."""

    task: str
    latency_ms: float
    completion_tokens: int | None
    own_in_flight: int | None


@view(AttemptRecord)
class AttemptEnd(NamedTuple):
    """How and when an attempt of a supplier ended."""

    supplier: str
    fault: str
    finished_at: datetime


@view(AttemptRecord)
class RawAnswer(NamedTuple):
    """What an attempt brought, as received."""

    id: str
    idx: int
    classifier: int | None
    status: int | None
    body: bytes
    evidence: Mapping[str, Any]


@view(AttemptRecord)
class CutAnswer(NamedTuple):
    """How an attempt ended, how the answer begins, where that was kept, and what was thought before it."""

    id: str
    fault: str
    opening: str | None
    idx: int
    classifier: int | None
    reasoning_tokens: int | None
    reasoning_chars: int | None
    evidence: Mapping[str, Any]


@view(AttemptRecord)
class ShownAttemptHead(NamedTuple):
    """An attempt as people are shown it, without its answer."""

    id: str
    supplier: str
    prompt_id: str
    doc_id: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    canary: bool
    fault: str
    owner: str
    classifier: int | None
    status: int | None
    started_at: datetime
    finished_at: datetime
    latency_ms: float
    first_token_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: str | None
    evidence: Mapping[str, Any]
    payload_sha256: str | None


@view(AttemptRecord)
class ShownAttempt(NamedTuple):
    """The same with its answer."""

    id: str
    supplier: str
    prompt_id: str
    doc_id: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    canary: bool
    fault: str
    owner: str
    classifier: int | None
    status: int | None
    started_at: datetime
    finished_at: datetime
    latency_ms: float
    first_token_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: str | None
    evidence: Mapping[str, Any]
    payload_sha256: str | None
    body: bytes


@view(AttemptRecord)
class AnsweringAttempt(NamedTuple):
    """Whether an attempt answered which call of a prompt, and when."""

    id: str
    supplier: str
    prompt_id: str
    round: int
    idx: int
    repeat: int
    attempt: int
    fault: str
    finished_at: datetime


@view(AttemptRecord)
class Refusal(NamedTuple):
    """Why a request was refused, in the supplier's words."""

    prompt_id: str
    idx: int
    fault: str
    status: int | None
    body: bytes


@view(AttemptRecord)
class AnswerPrefix(NamedTuple):
    """How the answer of an attempt begins: what identity compares."""

    supplier: str
    task: str
    prompt_id: str
    idx: int
    position: int
    round: int
    finished_at: datetime
    opening: str | None


@view(AttemptRecord)
class TimedCall(NamedTuple):
    """When an attempt was made, how it ended, how long it took and which answer it brought."""

    supplier: str
    task: str
    prompt_id: str
    idx: int
    repeat: int
    round: int
    attempt: int
    canary: bool
    fault: str
    finished_at: datetime
    latency_ms: float
    prompt_tokens: int | None
    completion_tokens: int | None
    own_in_flight: int | None
    answer_hash: str | None


@view(AttemptRecord)
class PlacedBody(NamedTuple):
    """How large the answer of an attempt was, and where it stands if not in the document store."""

    id: str
    body_bytes: int
    body_outside: BodyOutside | None


@view(AttemptRecord)
class AnswerBytes(NamedTuple):
    """The bytes that an attempt brought."""

    body: bytes


@view(AttemptRecord)
class SessionAttemptHead(NamedTuple):
    """An attempt in a session, with what its signature was made over but for the answer."""

    id: str
    supplier: str
    finished_at: datetime
    payload_sha256: str | None
    evidence: Mapping[str, Any]


@view(AttemptRecord)
class SessionAttempt(NamedTuple):
    """The same with its answer."""

    id: str
    supplier: str
    finished_at: datetime
    payload_sha256: str | None
    evidence: Mapping[str, Any]
    body: bytes


@view(AttemptRecord)
class AttemptOfSupplier(NamedTuple):
    """Whom an attempt asked."""

    id: str
    supplier: str


@view(AttemptRecord)
class AttemptHead(NamedTuple):
    """What an evidence bundle is ordered by."""

    id: str
    prompt_id: str
    doc_id: int
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int


@view(AttemptRecord)
class AttemptId(NamedTuple):
    """That an attempt is there."""

    id: str


@view(AttemptRecord)
class AttemptDoc(NamedTuple):
    """Which doc an attempt was about."""

    doc_id: int


@view(AttemptRecord)
class AttemptedDoc(NamedTuple):
    """Whom an attempt asked about which doc."""

    supplier: str
    task: str
    doc_id: int


@counted(AttemptRecord)
class AttemptsOfSupplier(NamedTuple):
    """Attempts per supplier."""

    supplier: str
    n: int


@counted(AttemptRecord)
class AttemptsOfSupplierAtTask(NamedTuple):
    """Attempts per supplier and task."""

    supplier: str
    task: str
    n: int


@counted(AttemptRecord)
class AttemptsOfTask(NamedTuple):
    """Attempts per task and what its requests were made of."""

    task: str
    task_hash: str
    n: int


@counted(AttemptRecord)
class FaultCount(NamedTuple):
    """Attempts per supplier and how they ended."""

    supplier: str
    fault: str
    n: int


@counted(AttemptRecord, hourly=["finished_at"])
class FaultsOfHour(NamedTuple):
    """Attempts by how and in which hour they ended."""

    finished_at: datetime
    fault: str
    n: int


@counted(AttemptRecord, hourly=["finished_at"])
class TokensOfHour(NamedTuple):
    """Attempts by how and in which hour they ended, with the tokens that they took."""

    finished_at: datetime
    fault: str
    n: int
    sum_prompt_tokens: int | None
    sum_completion_tokens: int | None


@counted(AttemptRecord)
class TokensOfSupplier(NamedTuple):
    """Attempts per supplier, with the tokens that they took."""

    supplier: str
    n: int
    sum_prompt_tokens: int | None
    sum_completion_tokens: int | None


@counted(AttemptRecord)
class OwnerCount(NamedTuple):
    """Attempts per supplier, how they ended and who is said to answer for it."""

    supplier: str
    fault: str
    owner: str
    n: int
