"""Service probes: what streamed requests made for the purpose told of a supplier's speed and reach."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from testbench_dagster.core.records.declaring import (
    FACT,
    Record,
    content,
    counted,
    key,
    queryable,
    record,
    view,
)


@record(
    "service_probes",
    one_per="attempt at a service probe",
    kind=FACT,
    indexes=(
        ("supplier", "workload", "finished_at"),
        ("service", "finished_at"),
        ("workload", "finished_at"),
        ("finished_at",),
    ),
    shard_key=("supplier", "_id"),
)
class ServiceProbeRecord(Record):
    """One attempt at a service probe: how fast an answer came that enters no score.

    Times are milliseconds since the request was handed to the transport, connecting included; null where
    that event did not happen or could not be seen (an answer that was not streamed has no first token).
    """

    id: str = key("drawn at random")
    supplier: str = queryable("key of the supplier that was asked")
    service: str = queryable("its service")
    workload: str = queryable("name of the workload: how long the prompt and the answer are")
    fault: str = queryable("how it ended, by the name of the fault")
    owner: str = queryable("who answers for that fault")
    started_at: datetime = queryable("when it was handed to the transport")
    finished_at: datetime = queryable("when it ended")
    streamed: bool = queryable("whether the answer was asked for, and came, as an event stream")
    own_in_flight: int = queryable(
        "most requests of ours to the host at one time while it ran, itself included; above 1 it enters no "
        "percentile"
    )
    first_token_ms: float | None = queryable("until the first token, thoughts included")
    first_answer_ms: float | None = queryable("until the first token of the answer itself")
    ended_ms: float = queryable("until the end of the exchange")
    completion_tokens: int | None = queryable("tokens of the answer, thoughts included")
    tokens_source: str | None = queryable("`usage` as the supplier counts them, or `estimated` from the text")
    tokens_after_first: int | None = content(
        "those of the tokens that came after the read that brought the first one, by their share of the "
        "text: over `last_token_ms - first_token_ms` they are the output speed; null where all came at once",
        default=None,
    )
    found: bool | None = queryable(
        "whether the answer held what was hidden in the prompt; null of workloads that hide nothing",
        default=None,
    )
    status: int | None = content("HTTP status, null without a response")
    connect_ms: float | None = content("until the connection stood; 0 where one was used again")
    connection_reused: bool | None = content("whether a connection was used again; null where not seen")
    first_event_ms: float | None = content("until the first event of the stream")
    last_token_ms: float | None = content("until the last token, thoughts included")
    events: int | None = content("events of the stream")
    prompt_tokens: int | None = content("tokens of the prompt, as the supplier counts them")
    sent_tokens: int = content("tokens of the prompt as we estimate them: 4 bytes a token")
    reasoning_tokens: int | None = content(
        "those of the tokens that were thought, as the supplier counts them"
    )
    cached_tokens: int | None = content("tokens of the prompt that the supplier says it had kept from before")
    left_out: list[str] = content(
        "options of the request that the supplier refuses and was asked without, such as `stream_options`"
    )
    finish_reason: str | None = content("why the answer ended, as the supplier says")
    text: str | None = content("the answer, put together; cut at 4,000 characters")
    text_sha256: str | None = content("SHA-256 of the whole answer in UTF-8")
    error: str | None = content("what went wrong, in words")
    evidence: Mapping[str, Any] = content("what else the transport saw, under names of its own")


@counted(ServiceProbeRecord)
class NewestProbe(NamedTuple):
    """When a supplier's probes with a workload last ended in a fault."""

    supplier: str
    workload: str
    fault: str
    max_finished_at: datetime


@counted(ServiceProbeRecord)
class FaultOfProbe(NamedTuple):
    """Attempts at service probes per supplier and how they ended."""

    supplier: str
    fault: str
    n: int


@view(ServiceProbeRecord)
class ProbeTimes(NamedTuple):
    """What service quality follows from, of a probe."""

    workload: str
    fault: str
    owner: str
    finished_at: datetime
    streamed: bool
    own_in_flight: int
    first_token_ms: float | None
    first_answer_ms: float | None
    last_token_ms: float | None
    ended_ms: float
    completion_tokens: int | None
    tokens_after_first: int | None
    reasoning_tokens: int | None
    tokens_source: str | None
    prompt_tokens: int | None
    sent_tokens: int
    found: bool | None
    evidence: Mapping[str, Any]


@counted(ServiceProbeRecord)
class ProbesOfSupplier(NamedTuple):
    """Probes by supplier."""

    supplier: str
    n: int


@view(ServiceProbeRecord)
class CountedPrompt(NamedTuple):
    """How long a prompt was, as we estimate it and as the supplier counts it."""

    sent_tokens: int
    prompt_tokens: int | None
