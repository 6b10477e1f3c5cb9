"""What people read of one doc: what a supplier was asked, what it said, what that was worth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from testbench_dagster.core.columns import Column, Unit, plain_json


class AnswerKind(StrEnum):
    """What became of a doc, as people ask for it."""

    RIGHT = "right"  # its value is the best there is
    WRONG = "wrong"  # its value is the worst there is
    GRADED = "graded"  # between them, or of a metric that has no best or worst
    FAILED = "failed"  # closed without an answer: counts as wrong
    OPEN = "open"  # waits for an answer: counts as wrong until then
    VOID = "void"  # nobody's fault but the doc's: counts nowhere
    UNSCORED = "unscored"  # answered, and no scorer has digested it


#: Kinds of docs that a scorer has given values.
SCORED = frozenset({AnswerKind.RIGHT, AnswerKind.WRONG, AnswerKind.GRADED})


@dataclass(frozen=True)
class DocAnswer:
    """What a supplier made of one doc of its window, by the task's primary metric and filter."""

    supplier: Annotated[str, Column("partition key")]
    model: Annotated[str | None, Column("model that the supplier claims to serve")]
    task: Annotated[str, Column("leaf task")]
    doc_id: Annotated[int, Column("row of the doc in the task's data")]
    kind: Annotated[
        str,
        Column("`right`, `wrong`, `graded`, `failed`, `open`, `void` or `unscored`"),
    ]
    value: Annotated[float | None, Column("value of the metric", Unit.SCORE)]
    metric: Annotated[str | None, Column("lm-eval's name of the metric")]
    filter: Annotated[str | None, Column("lm-eval's name of the filter")]
    question: Annotated[
        str | None,
        Column("what was asked: the last message, with tools and form, or the end of the text to go on with"),
    ]
    target: Annotated[str | None, Column("what was expected")]
    answer: Annotated[
        str | None, Column("what was answered, reasoning left out; tool calls in lines `name(arguments)`")
    ]
    reasoning: Annotated[str | None, Column("what was thought before, where the supplier shows it")]
    extracted: Annotated[str | None, Column("what the filter took from the answer")]
    truncated: Annotated[bool, Column("whether the answer was cut at the token limit")]
    fault: Annotated[str | None, Column("how the last attempt ended, where it did not answer")]
    owner: Annotated[str | None, Column("who answers for that fault")]
    error: Annotated[
        str | None,
        Column("what went wrong, in words: of the attempt or of the scorer, or why code did not pass"),
    ]
    attempts: Annotated[int, Column("attempts that were made at it")]
    latency_ms: Annotated[float | None, Column("how long the answer took", Unit.MILLISECONDS)]
    prompt_tokens: Annotated[int | None, Column("tokens of the prompt", Unit.TOKENS)]
    completion_tokens: Annotated[int | None, Column("tokens of the answer", Unit.TOKENS)]
    at: Annotated[datetime, Column("when it was answered, or last asked")]
    epoch: Annotated[int, Column("prompt sequence of the task, from 1")]
    round: Annotated[int, Column("how often the doc's prompt was asked, from 1")]
    prompt_id: Annotated[str | None, Column("the prompt")]
    answer_id: Annotated[str | None, Column("the answer")]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return plain_json(self)
