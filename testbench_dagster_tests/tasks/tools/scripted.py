"""Answers of made-up suppliers to rows of tasks with tools, in the form in which answers are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.prompt import Answered, DocScore, TaskData
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.task import TaskGeneration, TaskSpec
from testbench_dagster.tasks.tools.adapter import Tools

Row = Mapping[str, Any]
Answer = Callable[[Row], str]


def spec(
    leaf: str,
    data: Mapping[str, Path] | None = None,
    *,
    metric: str | None = None,
    filter_: str | None = None,
    generation: TaskGeneration = TaskGeneration(),  # noqa: B008
) -> TaskSpec:
    """A task of the framework as it is configured."""
    files = None if data is None else {split: str(path) for split, path in data.items()}
    return TaskSpec(
        leaf, leaf, leaf, None, None, metric, filter_, files, {}, SampleRule(), framework="tools",
        generation=generation,
    )  # fmt: skip


def stored(
    content: str | None = None, calls: Sequence[tuple[str, str]] = (), finish_reason: str | None = None
) -> str:
    """An answer as it is stored."""
    reason = finish_reason or ("tool_calls" if calls else "stop")
    return ChatMessage(content, tuple(ToolCall(*call) for call in calls), reason).text


def gold_calls(row: Row) -> list[tuple[str, Any]]:
    """The calls that are right, with their arguments as values."""
    return [(call["name"], call["arguments"]) for call in row["gold"]["calls"]]


def calling(calls: Sequence[tuple[str, Any]]) -> str:
    """An answer that makes these calls, or says something where there are none."""
    if not calls:
        return stored("None of the tools can do that.")
    return stored(None, [(name, json.dumps(arguments)) for name, arguments in calls])


def right(row: Row) -> str:
    """Always right."""
    return calling(gold_calls(row)) if "tools" in row else stored(json.dumps(row["gold"]["json"]))


def silent(row: Row) -> str:
    """Never calls."""
    return stored("I cannot use tools, but here is what I know.")


def as_text(row: Row) -> str:
    """Writes its calls into the text instead of making them."""
    return stored("".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in gold_calls(row)) or "No.")


def numbers_as_texts(value: Any) -> Any:
    """The value with every number in quotes."""
    if isinstance(value, dict):
        return {name: numbers_as_texts(one) for name, one in value.items()}
    if isinstance(value, list):
        return [numbers_as_texts(one) for one in value]
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def quoting(row: Row) -> str:
    """Writes numbers as texts."""
    if "tools" in row:
        return calling([(name, numbers_as_texts(arguments)) for name, arguments in gold_calls(row)])
    return stored(json.dumps(numbers_as_texts(row["gold"]["json"])))


def first_only(row: Row) -> str:
    """Makes the first call alone."""
    return calling(gold_calls(row)[:1])


def inventing(row: Row) -> str:
    """Calls a tool that is not offered, whatever is asked."""
    return calling([("do_everything", {"request": row["messages"][0]["content"]})])


def bad_json(row: Row) -> str:
    """Calls rightly, with arguments whose end is missing."""
    calls = [(name, json.dumps(arguments)[:-1]) for name, arguments in gold_calls(row)]
    return stored(None, calls) if calls else stored("None of the tools can do that.")


def always_calling(row: Row) -> str:
    """Calls rightly where a tool fits, and the first tool where none does."""
    if calls := gold_calls(row):
        return calling(calls)
    return calling([(row["tools"][0]["name"], {})])


def scores(task: TaskSpec, data: TaskData, answer: Answer, doc_ids: Sequence[int]) -> list[DocScore]:
    """What the framework makes of a supplier's answers."""
    adapter = Tools()
    prompts = adapter.build_prompts(task, data, doc_ids, "chat", "seed")
    answers = [Answered(p.doc_id, p.requests, [[answer(json.loads(data.docs[p.doc_id]))]]) for p in prompts]
    return list(adapter.score(task, data, answers))


def means(made: Sequence[DocScore]) -> dict[str, float]:
    """The mean of each metric, of the docs with a value."""
    values: dict[str, list[float]] = {}
    for score in made:
        assert score.error is None, score.error
        for metric, value in score.metrics["none"].items():
            values.setdefault(metric, []).append(value)
    return {metric: sum(of_docs) / len(of_docs) for metric, of_docs in values.items()}
