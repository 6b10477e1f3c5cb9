"""What simulated models do with tools and response formats, and what their servers spoil of it.

The docs of the framework's starter tasks are recognised, and answered rightly as often as the backend's
accuracy says. Of other requests with tools one tool is called, with arguments made of its schema. What the
supplier's server makes of that is its :data:`~.personas.ToolUse`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from testbench_dagster.localnet.answers import Answers, is_right
from testbench_dagster.localnet.chance import pick
from testbench_dagster.localnet.personas import Backend, ToolUse
from testbench_dagster.localnet.questions import Known, squeeze
from testbench_dagster.localnet.requests import Ask
from testbench_dagster.tasks.tools.starter import TASKS, read_docs

_MAX_DEPTH = 8

Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool; ``arguments`` is the text that is sent."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: a text, calls, or both."""

    content: str | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class _Doc:
    """A doc that is recognised: what is right, ``calls`` or the ``value`` of a structured answer."""

    known: Known
    calls: tuple[tuple[str, Any], ...] = ()
    value: Any = None


@lru_cache(maxsize=1)
def _starter_docs() -> Mapping[Key, _Doc]:
    """The starter tasks' docs by what is asked and which tools are offered, read once per process."""
    found: dict[Key, _Doc] = {}
    for task in TASKS:
        for doc in read_docs(task):
            text = squeeze(doc["messages"][-1]["content"])
            names = tuple(sorted(tool["name"] for tool in doc.get("tools", ())))
            known = Known(text, task, doc["id"])
            gold = doc["gold"]
            calls = tuple((call["name"], call["arguments"]) for call in gold.get("calls", ()))
            found[text, names] = _Doc(known, calls, gold.get("json"))
    return found


def _doc(ask: Ask) -> _Doc | None:
    names = tuple(sorted(tool["name"] for tool in ask.tools))
    return _starter_docs().get((squeeze(ask.user), names))


def known_of(ask: Ask) -> Known | None:
    """The doc of a starter task that a request with tools or a response format asks."""
    doc = _doc(ask)
    return None if doc is None else doc.known


def tool_answer(answers: Answers, backend: Backend, use: ToolUse, ask: Ask, variant: str = "") -> Said:
    """What a supplier says to a request with tools or a response format.

    Args:
        answers: whose seed decides, and who knows texts.
        backend: the model.
        use: what becomes of its calls.
        ask: the request.
        variant: tells samples apart; the empty one is the greedy answer.
    """
    doc = _doc(ask)
    subject = doc.known.doc_id if doc else ask.user
    model = backend.speaking(answers.seed, subject)
    text = answers.reply(model, ask.prompts[0], variant)
    if use == "no_tools":
        return Said(text)
    key = (answers.seed, model.name, "tools", subject, variant)
    right = doc is not None and is_right(answers.seed, model, doc.known, variant)
    if not ask.tools:
        return _formed(_value(ask, doc, right, key), use)
    calls = _calls(ask, doc, right, key)
    if use == "ignores_irrelevance" and not calls:
        calls = [_made_up(ask.tools[0])]
    return _called(calls, use, text)


# --- what the model means ------------------------------------------------------------------------------


def _calls(ask: Ask, doc: _Doc | None, right: bool, key: Sequence[object]) -> list[tuple[str, Any]]:
    if doc is None:
        return [_made_up(pick(ask.tools, *key, "tool"))]
    if right:
        return list(doc.calls)
    if not doc.calls:
        return [_made_up(pick(ask.tools, *key, "tool"))]
    others = [tool for tool in ask.tools if tool["name"] not in {name for name, _ in doc.calls}]
    ways = ["value", "value", "silent"]
    ways += ["fewer", "fewer"] if len(doc.calls) > 1 else []
    ways += ["other"] if others else []
    way = pick(ways, *key, "way")
    if way == "other":
        return [_made_up(pick(others, *key, "other"))]
    if way == "fewer":
        return list(doc.calls[:-1])
    place = int(pick(range(len(doc.calls)), *key, "call"))
    name, arguments = doc.calls[place]
    if way == "silent" or not arguments:
        return []
    schema = next(tool["parameters"] for tool in ask.tools if tool["name"] == name)
    return [*doc.calls[:place], (name, _changed(arguments, schema, key)), *doc.calls[place + 1 :]]


def _value(ask: Ask, doc: _Doc | None, right: bool, key: Sequence[object]) -> Any:
    if doc is None:
        return _example(ask.schema)
    return doc.value if right else _changed(doc.value, ask.schema, key)


def _changed(value: Any, schema: Any, key: Sequence[object]) -> Any:
    """Another value than this one, as of a model that read carelessly: of an object one field differs."""
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, Mapping) and value:
        name = pick(sorted(value), *key, "field")
        inner = schema.get("properties", {}).get(name)
        return {**value, name: _changed(value[name], inner, (*key, name))}
    if others := [one for one in schema.get("enum", ()) if one != value]:
        return pick(others, *key, "enum")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        words = value.split()
        return " ".join(words[:-1]) if len(words) > 1 else f"{value[:-1]}{'8' if value[-1:] == '9' else '9'}"
    if isinstance(value, list) and value:
        return value[:-1]
    return _example(schema.get("items")) if isinstance(value, list) else 0


def _made_up(tool: Mapping[str, Any]) -> tuple[str, Any]:
    return tool["name"], _example(tool.get("parameters", {}))


def _example(schema: Any, depth: int = 0) -> Any:
    """Some value of a JSON Schema, its required fields alone; of what is nested too deeply an empty one."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return {}
    for said in ("const", "default"):
        if said in schema:
            return schema[said]
    if options := schema.get("enum"):
        return options[0] if isinstance(options, list) else {}
    if isinstance(options := schema.get("anyOf"), list) and options:
        return _example(options[0], depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return max(1, int(least) + 1) if isinstance(least, int | float) else 1
    if kind == "array":
        return [_example(schema.get("items"), depth + 1)]
    if kind in ("string", "boolean", "null"):
        return {"string": "word", "boolean": False, "null": None}[kind]
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {name: _example(properties.get(name), depth + 1) for name in required if isinstance(name, str)}


# --- what the server makes of it -----------------------------------------------------------------------


def _called(calls: Sequence[tuple[str, Any]], use: ToolUse, text: str) -> Said:
    if not calls:
        return Said(text)
    if use == "calls_as_text":
        shown = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)
        return Said("\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in shown))
    made = tuple(Call(name, json.dumps(arguments)) for name, arguments in calls)
    if use == "bad_json":
        made = tuple(replace(call, arguments=call.arguments[:-1]) for call in made)
    return Said(None, made)


def _formed(value: Any, use: ToolUse) -> Said:
    shown = json.dumps(value)
    if use == "calls_as_text":  # a server without grammars leaves the model's own habit
        return Said(f"```json\n{shown}\n```")
    return Said(shown[:-1] if use == "bad_json" else shown)
