"""The verdicts on an answer, 0 or 1 each.

Of a task with tools: ``triggered`` (a call was made where one is wanted, and none where none is),
``schema_valid`` (all calls name a tool that is offered, with arguments of its schema; only of answers with
calls), ``exact`` (the calls are those that are wanted) and ``called`` (there is a call). Of a structured
answer: ``json_valid``, ``schema_valid``, and ``exact``, which reads through a fence of Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage
from testbench_dagster.tasks.tools.calls import (
    MAX_CALLS,
    MAX_JSON_CHARS,
    UnreadableJson,
    strict_json,
    strict_object,
)
from testbench_dagster.tasks.tools.fences import within_fence
from testbench_dagster.tasks.tools.matching import WantedCall, alike, all_met
from testbench_dagster.tasks.tools.rows import Row, parameters_of, wanted_calls

EXACT, TRIGGERED, SCHEMA_VALID, CALLED, JSON_VALID = (
    "exact",
    "triggered",
    "schema_valid",
    "called",
    "json_valid",
)

#: Whether a value is one of a JSON Schema.
IsValid = Callable[[Any, Any], bool]


def call_metrics(row: Row, message: ChatMessage, is_valid: IsValid) -> dict[str, int]:
    """The metrics of an answer to a row with tools; those without a value of this answer are left out."""
    offered, wanted = parameters_of(row), wanted_calls(row)
    called = bool(message.tool_calls)
    found = {
        TRIGGERED: int(called is (wanted is None or len(wanted) > 0)),
        CALLED: int(called),
    }
    made: list[tuple[str, dict[str, Any]]] = []
    valid = readable = len(message.tool_calls) <= MAX_CALLS
    for call in message.tool_calls[:MAX_CALLS]:
        try:
            arguments = strict_object(call.arguments)
        except UnreadableJson:
            valid = readable = False
            break
        made.append((call.name, arguments))
        valid = valid and call.name in offered and is_valid(offered[call.name], arguments)
    if called:
        found[SCHEMA_VALID] = int(valid)
    if wanted is not None:
        calls = [WantedCall.from_gold(call, offered[call["name"]]) for call in wanted]
        found[EXACT] = int(readable and all_met(calls, made))
    return found


def json_metrics(row: Row, message: ChatMessage, is_valid: IsValid) -> dict[str, int]:
    """The metrics of an answer to a row with a schema."""
    text = message.content or ""
    accepted = [row["gold"]["json"], *row["gold"].get("also", ())]
    try:
        value = strict_json(text)
    except UnreadableJson:
        exact = any(alike(value, one) for value in _fenced(text) for one in accepted)
        return {JSON_VALID: 0, SCHEMA_VALID: 0, EXACT: int(exact)}
    return {
        JSON_VALID: 1,
        SCHEMA_VALID: int(is_valid(row["schema"], value)),
        EXACT: int(any(alike(value, one) for one in accepted)),
    }


def _fenced(text: str) -> list[Any]:
    """The JSON value in a text's fence, if there is one."""
    inside = within_fence(text) if len(text) <= MAX_JSON_CHARS else None
    if inside is None:
        return []
    try:
        return [strict_json(inside)]
    except UnreadableJson:
        return []
