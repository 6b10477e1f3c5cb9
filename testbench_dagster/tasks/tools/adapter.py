"""Registers, asks and scores tasks with tools and structured answers; runs in the framework's worker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.ids import canonical_json
from testbench_dagster.core.offers import with_shared_offers
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.tasks.adapter import TaskAdapter, identified, registered
from testbench_dagster.tasks.local_data import read_rows
from testbench_dagster.tasks.tools.bfcl import converted_rows, is_bfcl
from testbench_dagster.tasks.tools.calls import MAX_CALLS, UnreadableJson, read_message, strict_json
from testbench_dagster.tasks.tools.metrics import (
    CALLED,
    EXACT,
    JSON_VALID,
    SCHEMA_VALID,
    TRIGGERED,
    call_metrics,
    json_metrics,
)
from testbench_dagster.tasks.tools.rows import Row, checked_row, wanted_calls, wants_json
from testbench_dagster.tasks.tools.schemas import Schemas, problem_of
from testbench_dagster.tasks.tools.starter import read_docs
from testbench_dagster.tasks.tools.version import TOOLS_REQUESTS, TOOLS_VERSION

FILTER = "none"
#: Tokens that an answer may have where the task does not say: several calls with their arguments.
MAX_TOKENS = 1024
#: Splits of ``data:``: the questions, and in a file of their own the answers to BFCL's.
QUESTIONS, ANSWERS = "test", "answers"


class Tools(TaskAdapter):
    """The framework's adapter."""

    def register(self, spec: TaskSpec) -> Registered:
        """Read a task's rows, check them and describe the task."""
        rows = _rows(spec)
        metrics = _metrics(spec, rows)
        return registered(
            spec,
            rows,
            asked=_asked(spec),
            scored=TOOLS_VERSION,
            version=TOOLS_VERSION,
            metrics={name: _metric_flags(name, metrics) for name in metrics},
            filters=[FILTER],
            output_type="chat",
            forms=["chat"],
            eval_split=QUESTIONS,
        )

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the request of each doc; the same in every epoch."""
        built = []
        for doc_id in sorted(set(doc_ids)):
            row: dict[str, Any] = json.loads(data.docs[doc_id])
            request = _request(spec, row)
            with_shared_offers([request])  # so each is handed over once
            chars = sum(len(message["content"]) for message in request["messages"])
            chars += sum(len(canonical_json(request[part])) for part in _FORMS if part in request)
            built.append(BuiltPrompt(doc_id, [request], row["gold"], chars, True))
        return built

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
        """Score answered docs, one after the other in the order given."""
        return _scored(data, ((answer.doc_id, answer.responses[0][0]) for answer in answers))

    def score_empty(self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered]) -> Iterator[DocScore]:
        """Score an answer without words and calls to each doc."""
        return _scored(data, ((doc.doc_id, None) for doc in asked))

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
        """The hashes that a registration of rows with this fingerprint gets here."""
        return identified(spec, data.flags, fingerprint, asked=_asked(spec), scored=TOOLS_VERSION)


#: What of a request tells a supplier in which form to answer.
_FORMS = ("tools", "response_format")


def _rows(spec: TaskSpec) -> list[dict[str, Any]]:
    if spec.data is None:
        return read_docs(spec.leaf)
    if QUESTIONS not in spec.data:
        raise TaskInputError(
            f"task {spec.name!r}: data: gives {', '.join(spec.data)}, but no {QUESTIONS}: <file> with rows"
        )
    if unknown := sorted(spec.data.keys() - {QUESTIONS, ANSWERS}):
        raise TaskInputError(
            f"task {spec.name!r}: data: gives {unknown[0]}, which means nothing to tasks with tools; give "
            f"{QUESTIONS}, and {ANSWERS} for the answers to questions of BFCL"
        )
    path = Path(spec.data[QUESTIONS])
    rows = read_rows(path, spec.where)
    if any(map(is_bfcl, rows)):
        answers = read_rows(Path(spec.data[ANSWERS])) if ANSWERS in spec.data else None
        rows = list(converted_rows(rows, answers, str(path)))
    elif ANSWERS in spec.data:
        raise TaskInputError(
            f"task {spec.name!r}: data: gives {ANSWERS}, but {path} holds no questions of BFCL, whose "
            "answers stand in a file of their own; remove it"
        )
    checked = [checked_row(row, f"{path}: row {n}", problem_of) for n, row in enumerate(rows, 1)]
    if len({wants_json(row) for row in checked}) > 1:
        raise TaskInputError(
            f"{path}: some rows have tools, others a schema; make two tasks of them, their metrics differ"
        )
    return checked


def _metrics(spec: TaskSpec, rows: Sequence[Row]) -> list[str]:
    """The metrics of a task, the main one first."""
    if wants_json(rows[0]):
        return [EXACT, JSON_VALID, SCHEMA_VALID]
    known = [wanted_calls(row) is not None for row in rows]
    if all(known):
        return [EXACT, TRIGGERED, SCHEMA_VALID, CALLED]
    if not any(known):  # any call will do
        return [TRIGGERED, SCHEMA_VALID, CALLED]
    raise TaskInputError(
        f"task {spec.name!r}: gold.calls is null in some rows, so that any call will do, and not in others; "
        "make two tasks of them, their metrics differ"
    )


def _metric_flags(metric: str, metrics: Sequence[str]) -> MetricFlags:
    of_calls = metric == SCHEMA_VALID and TRIGGERED in metrics
    return MetricFlags(aggregation="mean", higher_is_better=True, binary=True, of_some_docs=of_calls or None)


def _asked(spec: TaskSpec) -> list[Any]:
    """What decides the requests beside the rows."""
    return [TOOLS_REQUESTS, _generation(spec)]


def _generation(spec: TaskSpec) -> dict[str, Any]:
    return spec.generation.over({"until": [], "max_gen_toks": MAX_TOKENS, "temperature": 0})


def _request(spec: TaskSpec, row: Mapping[str, Any]) -> dict[str, Any]:
    messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    if spec.generation.system is not None:
        messages = [{"role": "system", "content": spec.generation.system}, *messages]
    request = {"type": "chat", "idx": 0, "messages": messages, "generation": _generation(spec)}
    if wants_json(row):
        form = {"name": row.get("schema_name", "answer"), "strict": True, "schema": row["schema"]}
        request["response_format"] = {"type": "json_schema", "json_schema": form}
    elif row["tools"]:
        request["tools"] = [{"type": "function", "function": tool} for tool in row["tools"]]
        request["tool_choice"] = "auto"
    if spec.generation.think_end_token is not None:
        request["think_end_token"] = spec.generation.think_end_token
    return request


def _scored(data: TaskData, answers: Iterable[tuple[int, object]]) -> Iterator[DocScore]:
    schemas = Schemas()
    rows: dict[int, dict[str, Any]] = {}  # several suppliers answer the same docs
    for doc_id, response in answers:
        if doc_id not in rows:
            rows[doc_id] = json.loads(data.docs[doc_id])
            with_shared_offers([rows[doc_id]])  # each schema is looked at once
        yield _score(rows[doc_id], doc_id, response, schemas)


def _score(row: Mapping[str, Any], doc_id: int, response: object, schemas: Schemas) -> DocScore:
    try:
        message = read_message(response)
    except ValueError as error:
        return DocScore(doc_id, error=str(error)[:300])
    if wants_json(row):
        metrics, shown = json_metrics(row, message, schemas.is_valid), message.content or ""
    else:
        metrics, shown = call_metrics(row, message, schemas.is_valid), _shown(message, row.get("names", {}))
    return DocScore(doc_id, {FILTER: dict(metrics)}, extracted={FILTER: bounded_extract(shown)})


def _shown(message: ChatMessage, names: Mapping[str, str]) -> str:
    """The calls of an answer as JSON, tools by the names of the data; arguments that are none as texts."""
    calls = []
    for call in message.tool_calls[:MAX_CALLS]:
        try:
            arguments: Any = strict_json(call.arguments)
        except UnreadableJson:
            arguments = call.arguments
        calls.append({"name": names.get(call.name, call.name), "arguments": arguments})
    return json.dumps(calls, sort_keys=True, ensure_ascii=False)
