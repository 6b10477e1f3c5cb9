"""Scores: what the scorer of a task made of each answer."""

from __future__ import annotations

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

#: How the error of a score begins whose answer kills the scorer by itself, again and again: the supplier's.
UNSCORABLE = "unscorable: "


@record(
    "scores",
    one_per="answer and filter",
    kind=FACT,
    indexes=(
        ("answer_id",),
        ("supplier", "task", "answered_at"),
        ("answered_at",),
        ("scored_at", "answered_at"),
    ),
    shard_key=("supplier", "_id"),
)
class ScoreRecord(Record):
    """The metrics of one answer after one filter."""

    id: str = key("follows from answer, filter and scorer version")
    supplier: str = queryable("key of the supplier that answered")
    service: str = queryable("its service")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    epoch: int = queryable("prompt sequence of the task, from 1")
    round: int = queryable(
        "how often the doc's prompt was asked, from 1; 0 for a gate alone, which no score rests on"
    )
    position: int = queryable("place of the prompt in its sequence, from 0")
    doc_id: int = queryable("row of the doc in the task's data")
    filter: str = queryable("name of the filter")
    answer_id: str = queryable("id of the answer: of its attempt, or derived from its several attempts")
    answered_at: datetime = queryable("when the last of its calls was answered")
    calls: int = queryable("calls that it took")
    scorer_version: str = queryable(
        "what computed the score: framework, configuration, our own revision; with `/undecided` behind it no "
        "score: the scorer was well, could not digest the answer, and tries again"
    )
    metrics: dict[str, Any] = content("values by metric; empty where the scorer failed")
    error: str | None = content(
        "why the scorer could not digest the answer; `unscorable: …` where that is the answer's doing"
    )
    extracted: str | None = content(
        "what the metrics saw: the text that the filter extracted, in multiple choice the index of the "
        "chosen option; beyond 1,000 characters its beginning and the SHA-256 of the whole; null where "
        "nothing is extracted, where the scorer failed, and in scores of earlier versions",
        default=None,
    )
    note: str | None = content(
        "why code that the model wrote did not pass, in the sandbox's words and its own; null of all else",
        default=None,
        sparse=True,
    )
    prompt_id: str = content("the prompt")
    attempt_ids: list[str] = content("the attempts that brought the answer, by request and repeat")
    truncated: bool = content("whether one of them was cut")
    latency_ms: float = content("sum of their latencies, in milliseconds")
    prompt_tokens: int | None = content("sum of their prompt tokens")
    completion_tokens: int | None = content("sum of their completion tokens")
    scored_at: datetime = queryable("when it was scored")


@record(
    "empty_scores",
    one_per="doc and filter",
    kind=FACT,
    indexes=(("task", "task_hash", "scorer_version", "doc_id"),),
)
class EmptyScoreRecord(Record):
    """What a scorer makes of an empty answer to a doc: what a failed doc counts as in corpus metrics."""

    id: str = key("follows from task, doc, filter and scorer version")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    doc_id: int = queryable("row of the doc in the task's data")
    filter: str = queryable("name of the filter")
    scorer_version: str = queryable("what computed the score: framework, configuration, our own revision")
    metrics: dict[str, Any] = content(
        "values by metric; of a choice between options for one in which the right one is least likely"
    )
    error: str | None = content("why the scorer cannot digest an empty answer")
    scored_at: datetime = content("when it was scored")


@view(EmptyScoreRecord)
class EmptyScore(NamedTuple):
    """What a failed doc counts as."""

    doc_id: int
    filter: str
    metrics: dict[str, Any]
    error: str | None


@view(ScoreRecord)
class ScoredAnswer(NamedTuple):
    """What a window needs of a score."""

    task: str
    task_hash: str
    epoch: int
    round: int
    position: int
    doc_id: int
    filter: str
    answer_id: str
    answered_at: datetime
    scorer_version: str
    metrics: dict[str, Any]
    error: str | None
    truncated: bool
    prompt_tokens: int | None
    completion_tokens: int | None


@view(ScoreRecord)
class ScoredText(NamedTuple):
    """The same, and what was extracted of the answer."""

    task: str
    task_hash: str
    epoch: int
    round: int
    position: int
    doc_id: int
    filter: str
    answer_id: str
    answered_at: datetime
    scorer_version: str
    metrics: dict[str, Any]
    error: str | None
    truncated: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    extracted: str | None


@view(ScoreRecord)
class DatedScore(NamedTuple):
    """The metrics of an answer, of which doc, and when it was asked for."""

    supplier: str
    task: str
    task_hash: str
    epoch: int
    round: int
    doc_id: int
    filter: str
    answered_at: datetime
    latency_ms: float
    scorer_version: str
    metrics: dict[str, Any]
    error: str | None


@view(ScoreRecord)
class DayScore(NamedTuple):
    """The metrics of an answer, and when it came, for the mean of a day."""

    task: str
    task_hash: str
    round: int
    filter: str
    answered_at: datetime
    calls: int
    latency_ms: float
    scorer_version: str
    metrics: dict[str, Any]
    error: str | None


@view(ScoreRecord)
class GradedScore(NamedTuple):
    """What an answer to a doc was taken for, for comparing suppliers."""

    supplier: str
    doc_id: int
    epoch: int
    answered_at: datetime
    metrics: dict[str, Any]
    error: str | None
    extracted: str | None


@view(ScoreRecord)
class ShownScore(NamedTuple):
    """A score as people are shown it beside its answer."""

    id: str
    metrics: dict[str, Any]
    error: str | None
    extracted: str | None
    note: str | None
    truncated: bool


@view(ScoreRecord)
class ScoredId(NamedTuple):
    """That an answer was scored."""

    answer_id: str


@view(ScoreRecord)
class ScoredTask(NamedTuple):
    """That an answer to a task was scored, and what its requests were made of."""

    task: str
    task_hash: str


@view(ScoreRecord)
class ScoredSupplier(NamedTuple):
    """That a supplier has an answer scored."""

    supplier: str
    prompt_id: str
    error: str | None


@view(ScoreRecord)
class ScoredAttempts(NamedTuple):
    """Which attempts brought an answer that was scored."""

    supplier: str
    round: int
    prompt_id: str
    attempt_ids: list[str]
    error: str | None


@view(ScoreRecord)
class UndecidedDoc(NamedTuple):
    """The doc of an answer that the scorer could not digest."""

    task: str
    doc_id: int
    epoch: int
    round: int


@view(ScoreRecord)
class ScoredDoc(NamedTuple):
    """That somebody has an answer to a doc scored."""

    supplier: str
    doc_id: int
    error: str | None


@view(ScoreRecord)
class ScoreEvidence(NamedTuple):
    """What an answer that was scored rests on."""

    attempt_ids: list[str]


@view(ScoreRecord)
class CutScore(NamedTuple):
    """Whether the token limit cut an answer, and what the answer rests on."""

    doc_id: int
    answered_at: datetime
    prompt_id: str
    attempt_ids: list[str]
    truncated: bool


@view(ScoreRecord)
class ScoreHead(NamedTuple):
    """What an evidence bundle is ordered by."""

    id: str
    doc_id: int
    answer_id: str
    filter: str
    answered_at: datetime


@counted(ScoreRecord)
class ScoredCalls(NamedTuple):
    """Calls behind the scores of a task by what computed them."""

    task: str
    task_hash: str
    scorer_version: str
    filter: str
    sum_calls: int


@counted(ScoreRecord)
class ScoredAnswers(NamedTuple):
    """Answers to a task with a score, by filter and what computed it."""

    task: str
    task_hash: str
    scorer_version: str
    filter: str
    n: int


@counted(ScoreRecord)
class ScoresOfSupplier(NamedTuple):
    """Scores per supplier."""

    supplier: str
    n: int


@counted(ScoreRecord, hourly=["answered_at"])
class ScoresOfHour(NamedTuple):
    """Scores by the hour in which their answers came."""

    answered_at: datetime
    n: int
