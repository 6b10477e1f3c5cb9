"""What the framework worker and the stages hand each other about tasks; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbench_dagster.core.task_flags import TaskFlags

#: Output types that every supplier can be asked, each in the form of its own API.
ANY_API = frozenset({"generate_until", "get"})


def request_shape(api: str, request: Mapping[str, Any]) -> str:
    """The form of a stored request: API, kind and the names of its parameters, whatever their values.

    What a supplier cannot take of a form it takes of no request of that form.
    """
    return " ".join((api, str(request["type"]), *sorted(request.get("generation") or ())))


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

    A response is the text of a generation or page, or the ``(logprob, greedy)`` pair of a loglikelihood
    request.
    """

    doc_id: int
    requests: Sequence[Mapping[str, Any]]
    responses: Sequence[Sequence[Any]]


@dataclass
class DocScore:
    """Metrics of one doc by filter, or why it could not be scored.

    ``extracted`` is, by filter, what the metrics saw of the answer: the text that the filter extracted, or
    the index of the chosen option, bounded by :func:`~testbench_dagster.core.extracted.bounded_extract`. A
    filter of which there is no such text is left out.
    """

    doc_id: int
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    extracted: dict[str, str] = field(default_factory=dict)
