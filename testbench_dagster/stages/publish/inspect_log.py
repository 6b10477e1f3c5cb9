"""Logs that Inspect reads: a ``.eval`` file per supplier and task, written by us.

The file is a zip of JSON: ``_journal/start.json`` says what was run, ``samples/<id>_epoch_1.json`` is a doc,
``summaries.json`` the list of them, ``header.json`` what came out. Inspect's own package is not needed; it
would bring 37 others along. One sample is in memory at a time, and the list of summaries on disk.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from testbench_dagster import __version__
from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.core.doc_answer import AnswerKind, DocAnswer
from testbench_dagster.core.ids import document_id
from testbench_dagster.core.period import ALWAYS, Period
from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.failures import higher_is_better
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.publish.interchange import ODD_DATA, as_json, file_name
from testbench_dagster.stages.read.answers import AnsweredTask, answered_tasks
from testbench_dagster.stages.read.shown import ToldDoc
from testbench_dagster.stages.read.texts import options_of, reasoning_text
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import whole_file, writing
from testbench_dagster.transports.answers import Answer

_VERSION = 2  # of Inspect's format
_EPOCH = 1
#: Characters of a text in the list of samples; the sample has all of it.
_SUMMARY_CHARS = 1_000
#: Bytes of the list of samples that are in memory; beyond, it lies on disk until it is written.
_SUMMARY_BYTES = 4 * 1024 * 1024
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
#: What Inspect calls the ends of answers; it knows no others.
_REASONS = {
    "stop": "stop",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_CORRECT, _INCORRECT = "C", "I"
#: Between these a zip can date what is in it.
_FIRST_DATE, _LAST_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
#: Columns of a window that become metrics of a log, as they are called there.
_COLUMNS = ("score", "ci_low", "ci_high", "score_answered", "se")

_log = logging.getLogger(__name__)


def write_inspect_logs(
    workspace: Workspace,
    out: Path,
    suppliers: Sequence[Supplier],
    tasks: Sequence[TaskSpec],
    period: Period = ALWAYS,
    now: datetime | None = None,
) -> dict[Path, int]:
    """Write a log for each supplier and task that has docs in the period; return the samples per file.

    A log of an unchanged window has the same name and takes the place of the last one.

    Raises:
        StoreError: a file cannot be written.
    """
    now = now or datetime.now(UTC)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    written = {}
    for task in answered_tasks(workspace, suppliers, tasks, period, now):
        if not task.docs:
            continue
        row = None
        if period == ALWAYS:  # what a window says is of all its docs
            [(_, rows)] = primary_windows(workspace, [task.supplier], now, [task.spec.name])
            row = next((one for one in rows if one.task == task.spec.name), None)
        log = _Log(task, row, period)
        path = out / log.name
        with whole_file(path) as partial:
            written[path] = log.write(partial)
    return written


@dataclass
class _Totals:
    """Numbers of one metric after one filter, for its mean."""

    n: int = 0
    sum: float = 0.0

    def add(self, value: Any) -> None:
        if isinstance(value, (int, float)) and math.isfinite(value):
            self.n, self.sum = self.n + 1, self.sum + value


@dataclass
class _Log:
    """One log while it is written."""

    task: AnsweredTask
    row: Window | None
    period: Period
    totals: dict[str, _Totals] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    completed: int = 0

    def __post_init__(self) -> None:
        task = self.task
        self.model = task.supplier.model or task.supplier.key
        self.started, self.ended = min(doc.at for doc in task.docs), max(doc.at for doc in task.docs)
        self.metric, self.filter = primary_pair(task.spec, task.registration)
        self.several = len(task.registration.flags.filters) > 1
        # a letter says right or wrong, and one graded doc makes the metric something else
        kinds = {doc.kind for doc in task.docs}
        rises = higher_is_better(task.registration, self.metric)
        self.letters = rises and not task.spec.signs and AnswerKind.GRADED not in kinds
        # a part of a window does not take the place of the whole
        bounds = [] if self.period == ALWAYS else [bound and _time(bound) for bound in self.period]
        self.id = document_id("inspect", task.supplier.key, task.spec.name, *bounds)[:22]

    @property
    def name(self) -> str:
        """As Inspect calls its logs: date, task and id, parted by underscores."""
        date = _time(self.started).replace(":", "-").replace("+", "-")
        task = file_name(self.task.spec.name).replace("_", "-")
        return f"{date}_{task}_{self.id}.eval"

    def write(self, path: Path) -> int:
        """Write the whole log to a path; return its samples."""
        spec, n = self._spec(), 0
        with (
            ZipFile(path, "w", ZIP_DEFLATED) as archive,
            tempfile.SpooledTemporaryFile(max_size=_SUMMARY_BYTES) as summaries,
        ):
            plan = {"name": "plan", "steps": [], "config": {}}
            self._put(archive, "_journal/start.json", {"version": _VERSION, "eval": spec, "plan": plan})
            for told in self.task.told():
                text, summary = self._safely(told)
                archive.writestr(self._entry(f"samples/{told.row.doc_id}_epoch_{_EPOCH}.json"), text)
                summaries.write(b",\n" if n else b"[")
                summaries.write(as_json(summary))
                n += 1
            summaries.write(b"]" if n else b"[]")
            summaries.seek(0)
            with archive.open(self._entry("summaries.json"), "w", force_zip64=True) as member:
                shutil.copyfileobj(summaries, member)
            header = {
                "version": _VERSION,
                "status": "success",
                "eval": spec,
                "plan": plan,
                "results": self._results(n),
                "stats": {
                    "started_at": _time(self.started),
                    "completed_at": _time(self.ended),
                    "model_usage": {self.model: dict(self.usage)} if self.usage else {},
                    "role_usage": {},
                },
            }
            self._put(archive, "header.json", header)
        return n

    def _entry(self, name: str) -> ZipInfo:
        # dated by what is in it: the same window gives the same bytes
        at = self.ended.timetuple()[:6]
        entry = ZipInfo(name, min(max(at, _FIRST_DATE), _LAST_DATE))
        entry.compress_type = ZIP_DEFLATED
        return entry

    def _put(self, archive: ZipFile, name: str, value: Mapping[str, Any]) -> None:
        archive.writestr(self._entry(name), as_json(value))

    def _spec(self) -> dict[str, Any]:
        supplier, spec, registration = self.task.supplier, self.task.spec, self.task.registration
        return {
            "eval_id": self.id,
            "run_id": self.id,
            "created": _time(self.started),
            "task": spec.name,
            "task_id": self.id,
            "task_version": registration.flags.version,
            "task_attribs": {},
            "task_args": {},
            "task_args_passed": {},
            "solver_args_passed": {},
            "tags": [supplier.key],
            "dataset": {
                "name": spec.name,
                "samples": len(self.task.docs),
                "sample_ids": [doc.doc_id for doc in self.task.docs],
            },
            "model": self.model,
            "model_generate_config": {},
            "model_args": {"supplier": supplier.key, "api": supplier.api},
            "config": {},
            "packages": {
                "testbench_dagster": __version__,
                registration.framework: registration.engine_version,
            },
            "metadata": {
                "supplier": supplier.key,
                "service": supplier.service,
                "metric": self.metric,
                "filter": self.filter,
                "task_hash": registration.task_hash,
            },
        }

    # -- samples ------------------------------------------------------------------------------------------

    def _safely(self, told: ToldDoc) -> tuple[bytes, dict[str, Any]]:
        """A doc as JSON, and its summary; where its data cannot be shown, a sample that says so."""
        try:
            sample = self._sample(told)
            text = as_json(sample)
        except ODD_DATA as error:
            row = told.row
            why = f"{type(error).__name__}: {escaped(str(error))}"
            _log.warning("doc %d of task %r cannot be shown as a sample: %s", row.doc_id, row.task, why)
            sample = self._frame(row, "", f"this doc cannot be shown: {why}")
            text = as_json(sample)
        scores = sample.get("scores")
        for name, score in (scores or {}).items():
            number = {_CORRECT: 1.0, _INCORRECT: 0.0}.get(score["value"]) if self.letters else None
            if not isinstance(score["value"], (list, dict)):
                self.totals.setdefault(name, _Totals()).add(score["value"] if number is None else number)
        for used in sample["model_usage"].values():
            for name, count in used.items():
                self.usage[name] = self.usage.get(name, 0) + count
        self.completed += "error" not in sample
        return text, _summary(sample, told.row.question)

    def _sample(self, told: ToldDoc) -> dict[str, Any]:
        row = told.row
        requests = () if told.prompt is None else told.prompt.requests
        asked = _input(requests, row.question)
        sample = self._frame(row, asked, _error(row))
        if options := options_of(requests, self.task.registration.flags):
            sample["choices"] = list(options)
        tools = requests[0].get("tools") if requests else None
        if tools:
            sample["metadata"]["tools"] = tools
        choices = self._choices(told, requests)
        said = [choices[0]["message"]] if choices else []
        if len(choices) > 1:  # all samples of the answer in one message, as people are shown them
            said = [{"role": "assistant", "content": row.answer or ""}]
        before = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
        sample["messages"] = [*before, *said]
        usage = _usage(row)
        sample["output"] = {
            "model": self.model,
            "choices": choices,
            "completion": _completion(choices[0]["message"]) if choices else "",
        }
        if usage:
            sample["output"]["usage"] = usage
            sample["model_usage"] = {self.model: usage}
        if scores := dict(self._scores(told)):
            sample["scores"] = scores
        if told.attempts:
            sample["started_at"] = _time(min(one.started_at for one in told.attempts))
        return sample

    def _frame(self, row: DocAnswer, asked: str | list[dict[str, Any]], error: str | None) -> dict[str, Any]:
        sample: dict[str, Any] = {
            "id": row.doc_id,
            "epoch": _EPOCH,
            "input": asked,
            "target": row.target or "",
            "messages": [],
            "output": {"model": self.model, "choices": [], "completion": ""},
            "metadata": {
                "kind": row.kind,
                "value": row.value,
                "extracted": row.extracted,
                "fault": row.fault,
                "owner": row.owner,
                "attempts": row.attempts,
                "prompt_sequence": row.epoch,
                "round": row.round,
                "prompt_id": row.prompt_id,
                "answer_id": row.answer_id,
            },
            "store": {},
            "events": [],
            "model_usage": {},
            "role_usage": {},
            "completed_at": _time(row.at),
            "attachments": {},
        }
        if row.latency_ms is not None:
            sample["total_time"] = row.latency_ms / 1000
        if error is not None:
            sample["error"] = {"message": error, "traceback": "", "traceback_ansi": ""}
        return sample

    def _choices(self, told: ToldDoc, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers to the calls of a prompt; log-probabilities are one answer, a line per option."""
        kinds = {request.get("type") for request in requests}
        if not kinds <= TEXT_KINDS:
            if told.row.answer is None:
                return []
            message = self._message(told.row.answer, None, ())
            return [{"message": message, "stop_reason": "stop"}]
        return [self._choice(requests[idx], answer) for idx, _, answer in told.said]

    def _choice(self, request: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        text, calls, reason = answer.text or "", list[dict[str, Any]](), answer.finish_reason
        if request.get("type") == "chat":
            try:
                message = ChatMessage.read(text)
            except ValueError:
                pass  # it stands there as it came
            else:
                text = message.content or ""
                calls = [
                    _call(f"call_{number}", call.name, call.arguments)
                    for number, call in enumerate(message.tool_calls)
                ]
                reason = reason or message.finish_reason
        known = _REASONS.get(reason or "", "unknown")
        if answer.fault.row.cut_short:
            known = "max_tokens"
        elif calls and known == "unknown":
            known = "tool_calls"
        reasoning = reasoning_text([(0, 0, answer)])
        return {"message": self._message(text, reasoning, calls), "stop_reason": known}

    def _message(self, text: str, reasoning: str | None, calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
        content: str | list[dict[str, Any]] = text
        if reasoning:
            content = [{"type": "reasoning", "reasoning": reasoning}, {"type": "text", "text": text}]
        message = {"role": "assistant", "content": content, "source": "generate", "model": self.model}
        return {**message, "tool_calls": list(calls)} if calls else message

    def _scores(self, told: ToldDoc) -> Iterator[tuple[str, dict[str, Any]]]:
        """By metric what the scorer gave, the primary one first: the viewer shows that."""
        found: list[tuple[tuple[str, str], dict[str, Any]]] = []
        for by, score in told.scores.items():
            if score.error is not None:
                continue
            for metric, raw in score.metrics.items():
                if (value := _value(raw)) is None:
                    continue
                extracted = told.row.extracted if by == self.filter else score.extracted
                made = {"value": value, "answer": extracted, "history": []}
                found.append(((metric, by), made))
        primary = (self.metric, self.filter)
        for pair, made in sorted(found, key=lambda one: one[0] != primary):
            if pair == primary and self.letters and made["value"] in (0, 1):
                made["value"] = _CORRECT if made["value"] else _INCORRECT
            yield self._score_name(*pair), made

    def _score_name(self, metric: str, by: str) -> str:
        return f"{metric},{by}" if self.several else metric

    # -- results ------------------------------------------------------------------------------------------

    def _results(self, n: int) -> dict[str, Any]:
        """What came out by metric; of the primary one as the window says, failed docs as wrong ones."""
        scores = []
        primary = self._score_name(self.metric, self.filter)
        for name in sorted({primary, *self.totals}, key=lambda one: (one != primary, one)):
            metrics: dict[str, Any] = {}
            totals = self.totals.get(name, _Totals())
            if totals.n:
                metrics["score_answered"] = totals.sum / totals.n
            if name == primary and self.row is not None:
                of_window = {column: getattr(self.row, column) for column in _COLUMNS}
                metrics = {
                    column: value
                    for column, value in of_window.items()
                    if value is not None and math.isfinite(value)
                }
            scores.append(
                {
                    "name": name,
                    "scorer": name,
                    "params": {},
                    "metrics": {
                        one: {"name": one, "value": value, "params": {}} for one, value in metrics.items()
                    },
                }
            )
        return {"total_samples": n, "completed_samples": self.completed, "scores": scores}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _error(row: DocAnswer) -> str | None:
    """Why a doc has no score, in words; None where it has one, or will have one."""
    if row.kind == AnswerKind.FAILED:
        said = "it failed, and counts as wrong"
    elif row.kind == AnswerKind.OPEN:
        said = "it waits for an answer, and counts as wrong until then"
    elif row.kind == AnswerKind.VOID:
        said = "no supplier takes it, and it counts nowhere"
    else:
        return row.error
    return ": ".join(part for part in (said, row.fault, row.error) if part)


def _usage(row: DocAnswer) -> dict[str, int]:
    counts = {"input_tokens": row.prompt_tokens, "output_tokens": row.completion_tokens}
    known = {name: count for name, count in counts.items() if count is not None}
    if not known:
        return {}
    return {"input_tokens": 0, "output_tokens": 0, **known, "total_tokens": sum(known.values())}


def _value(raw: Any) -> Any:
    """A metric's value as Inspect takes one; None where there is none. What has no number is its JSON."""
    if isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, (int, float)):
        return raw if math.isfinite(raw) else None
    if raw is None or isinstance(raw, str):
        return raw
    return json.dumps(raw, ensure_ascii=False, default=str)


def _input(requests: Sequence[Mapping[str, Any]], question: str | None) -> str | list[dict[str, Any]]:
    """What was asked: the messages of a chat, else the whole text."""
    if not requests:
        return question or ""
    messages = requests[0].get("messages")
    if isinstance(messages, list):
        return [_asked(message) for message in messages]
    text = requests[0].get("prompt", requests[0].get("context"))
    return text if isinstance(text, str) and text else question or ""


def _asked(message: Any) -> dict[str, Any]:
    """A message of a request in Inspect's form."""
    if not isinstance(message, Mapping):
        return {"role": "user", "content": _content(message)}
    role = _ROLES.get(str(message.get("role")), "user")
    made: dict[str, Any] = {"role": role, "content": _content(message.get("content"))}
    calls = message.get("tool_calls")
    if role == "assistant" and isinstance(calls, list):
        made["tool_calls"] = [_call_of(call, number) for number, call in enumerate(calls)]
    if role == "tool":
        made["tool_call_id"] = str(message.get("tool_call_id", ""))
        if isinstance(message.get("name"), str):
            made["function"] = message["name"]
    return made


def _call_of(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return _call(f"call_{number}", "", json.dumps(call, default=str))
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
    return _call(str(call.get("id") or f"call_{number}"), str(function.get("name", "")), text)


def _call(id_: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call; arguments that are no JSON object stand as what could not be parsed."""
    made: dict[str, Any] = {"id": id_, "function": name, "arguments": {}, "type": "function"}
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        made["arguments"] = parsed
    else:
        made["parse_error"] = f"the arguments are no JSON object: {arguments}"
    return made


def _content(content: Any) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False, default=str)
    return [_part(part) for part in content]


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, Mapping):
        image = part.get("image_url")
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        if (
            part.get("type") == "image_url"
            and isinstance(image, Mapping)
            and isinstance(image.get("url"), str)
        ):
            return {"type": "image", "image": image["url"]}
    return {"type": "text", "text": part if isinstance(part, str) else json.dumps(part, default=str)}


def _completion(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else str(content[-1]["text"])


def _summary(sample: Mapping[str, Any], question: str | None) -> dict[str, Any]:
    """A sample in the list of samples: texts cut, messages and answers left out."""
    asked = sample["input"]
    text = asked if isinstance(asked, str) else question or ""
    made = {
        "id": sample["id"],
        "epoch": sample["epoch"],
        "input": text[-_SUMMARY_CHARS:],
        "target": sample["target"][:_SUMMARY_CHARS],
        "metadata": {name: sample["metadata"][name] for name in ("kind", "fault", "owner", "attempts")},
        "model_usage": sample["model_usage"],
        "role_usage": {},
        "completed": "error" not in sample,
        "message_count": len(sample["messages"]),
    }
    if "choices" in sample:
        made["choices"] = [option[:_SUMMARY_CHARS] for option in sample["choices"]]
    if "scores" in sample:
        made["scores"] = {
            name: {**score, "answer": score["answer"] and score["answer"][:_SUMMARY_CHARS]}
            for name, score in sample["scores"].items()
        }
    if "error" in sample:
        made["error"] = sample["error"]["message"][:_SUMMARY_CHARS]
    made |= {name: sample[name] for name in ("started_at", "completed_at", "total_time") if name in sample}
    return made
