"""What the framework worker and the stages hand each other about tasks; imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.core.relay import Api
from testbench_dagster.core.task_flags import TaskFlags

#: Kinds of requests that a model answers with what it writes: a text, or a message with all that is in it.
GENERATED = frozenset({"generate_until", "chat"})
#: Kinds of requests that are answered by a text, pages among them. All others are by log-probabilities.
TEXT_KINDS = GENERATED | {"get"}


def form_of(api: Api, flags: TaskFlags) -> Api:
    """Which form of a task's prompts a supplier of ``api`` is sent: its own where the task has it."""
    return api if api in flags.request_forms else flags.request_forms[0]


def empty_response(request: Mapping[str, Any]) -> Any:
    """What an answer that says nothing is to a request; log-probabilities are impossible ones then."""
    if request["type"] == "chat":
        return ChatMessage().text
    return "" if request["type"] in TEXT_KINDS else (-math.inf, False)


@dataclass(frozen=True)
class TaskData:
    """What the dataset store keeps of a task: docs as JSON text by doc id, few-shot pool, flags.

    For scoring, ``docs`` may hold a subset; requests need all of them.
    """

    docs: Mapping[int, str]
    fewshot: Sequence[str]
    flags: TaskFlags


@dataclass(frozen=True)
class Registered:
    """A task as registered: its data plus what identifies it.

    ``task_hash`` stands for what requests are made of: data, templates, few-shot examples, generation
    settings. ``config_hash`` stands for the whole configuration with filters and metrics, and the framework's
    version. Where only the latter changes, stored answers keep their worth and are scored anew.
    """

    task_hash: str
    config_hash: str
    fingerprint: str
    eval_split: str
    splits: Mapping[str, int]
    doc_hashes: Sequence[str]
    fewshot_hashes: Sequence[str]
    data: TaskData


@dataclass(frozen=True)
class BuiltPrompt:
    """The requests of one doc, independent of the transport."""

    doc_id: int
    requests: list[dict[str, Any]]
    target: Any
    context_chars: int
    relayable: bool


@dataclass(frozen=True)
class Answered:
    """The answers to one doc: its requests and, per request, one response per repeat.

    A response is the text of a generation or page, the text of a
    :class:`~testbench_dagster.core.chat_message.ChatMessage` to a request of kind ``chat``, or the
    ``(logprob, greedy)`` pair of a loglikelihood request. ``target`` is that of the stored prompt: where
    questions or the letters of options are drawn, it is this epoch's.
    """

    doc_id: int
    requests: Sequence[Mapping[str, Any]]
    responses: Sequence[Sequence[Any]]
    target: Any = None


@dataclass
class DocScore:
    """Metrics of one doc by filter, or why it could not be scored.

    ``unavailable``: the error says that a service was not there which a metric asks. ``tried`` is False where
    the scorer gave up before it, as the service had not been there for others. ``stopped``: its scoring had
    to be ended, or ended the scorer's process.
    ``extracted`` is, by filter, what the metrics saw of the answer: the text that the filter extracted, or
    the index of the chosen option, bounded by :func:`~testbench_dagster.core.extracted.bounded_extract`. A
    filter of which there is no such text is left out. ``notes`` say, by filter, why code that the model wrote
    did not pass; what the code says itself is among it.
    """

    doc_id: int
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    extracted: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unavailable: bool = False
    tried: bool = True
    stopped: bool = False
