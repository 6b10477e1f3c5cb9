"""The rows of a task: what is asked, which tools are offered, and what is right; checked where they come in.

A row with ``tools`` asks for calls::

    {"messages": [{"role": "user", "content": "Weather in Oslo?"}],
     "tools": [{"name": "weather", "description": "…", "parameters": {JSON Schema of an object}}],
     "gold": {"calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}}

``calls`` is empty where no call is wanted, and null where some call is, whichever. A row with ``schema`` asks
for JSON of that form, ``gold`` then is ``{"json": value, "also": [values as good]}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from testbench_dagster.core.errors import TaskInputError

#: Names of tools that suppliers accept.
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Roles of messages that a row may hold.
ROLES = ("system", "developer", "user", "assistant")
MAX_TOOLS = 128

Row = Mapping[str, Any]
#: Why a JSON Schema cannot be used, None where it can.
SchemaProblem = Callable[[Any], str | None]


def wants_json(row: Row) -> bool:
    """Whether a row asks for a structured answer, not for calls."""
    return "schema" in row


def wanted_calls(row: Row) -> Sequence[Mapping[str, Any]] | None:
    """The calls that are right; None where any call is."""
    calls: Sequence[Mapping[str, Any]] | None = row["gold"]["calls"]
    return calls


def parameters_of(row: Row) -> dict[str, Mapping[str, Any]]:
    """The JSON Schemas of the arguments, by the names of the tools that are offered."""
    return {tool["name"]: tool["parameters"] for tool in row["tools"]}


def checked_row(row: Row, where: str, problem_of: SchemaProblem) -> dict[str, Any]:
    """A row in the form that is stored.

    ``where`` names file and row; tools may be given as an API takes them, ``{"type": "function", …}``.

    Raises:
        TaskInputError: the row is none of a task with tools.
    """
    found = dict(row)
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:  # dates and the like, from parquet
        raise TaskInputError(
            f"{where}: holds a value that JSON has no form for ({error}); change it"
        ) from None
    _check_messages(found.get("messages"), where)
    gold = found.get("gold")
    if not isinstance(gold, Mapping):
        raise TaskInputError(f"{where}: gold must be an object, which says what is right")
    if wants_json(found):
        if found.get("tools"):
            raise TaskInputError(f"{where}: has both tools and schema; make two rows of it")
        _check_structured(found, gold, where, problem_of)
        return found
    found["tools"] = _checked_tools(found.get("tools"), where, problem_of)
    _check_calls(gold, parameters_of(found), where)
    return found


def _check_messages(messages: Any, where: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise TaskInputError(f"{where}: messages must be a list with at least one message")
    for number, message in enumerate(messages):
        of_message = isinstance(message, Mapping) and message.get("role") in ROLES
        if not of_message or not isinstance(message.get("content"), str):
            raise TaskInputError(
                f"{where}: messages[{number}] must be an object with a role ({', '.join(sorted(ROLES))}) "
                "and a content that is a text"
            )


def _checked_tools(tools: Any, where: str, problem_of: SchemaProblem) -> list[dict[str, Any]]:
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise TaskInputError(f"{where}: tools must be a list of at most {MAX_TOOLS} tools, or give a schema")
    found: list[dict[str, Any]] = []
    for number, given in enumerate(tools):
        place = f"{where}: tools[{number}]"
        wrapped = isinstance(given, Mapping) and given.get("type") == "function"
        tool = given.get("function") if wrapped else given
        if not isinstance(tool, Mapping):
            raise TaskInputError(f"{place} must be an object with name, description and parameters")
        name = tool.get("name")
        if not isinstance(name, str) or TOOL_NAME.fullmatch(name) is None:
            raise TaskInputError(
                f"{place}.name is {str(name)[:80]!r}; use 1 to 64 letters, digits, '_' and '-', "
                "which is what suppliers accept"
            )
        if any(name == other["name"] for other in found):
            raise TaskInputError(f"{place}.name: {name!r} is offered twice; rename one of them")
        parameters = tool.get("parameters", {"type": "object", "properties": {}})
        if not isinstance(parameters, Mapping) or parameters.get("type") != "object":
            raise TaskInputError(f"{place}.parameters must be a JSON Schema of the type object")
        if (problem := problem_of(parameters)) is not None:
            raise TaskInputError(f"{place}.parameters {problem}")
        description = tool.get("description", "")
        if not isinstance(description, str):
            raise TaskInputError(f"{place}.description must be a text")
        found.append({"name": name, "description": description, "parameters": dict(parameters)})
    return found


def _check_calls(gold: Mapping[str, Any], offered: Mapping[str, Any], where: str) -> None:
    calls = gold.get("calls", "")
    if calls is None and offered:
        return
    if not isinstance(calls, list):
        raise TaskInputError(
            f"{where}: gold.calls must be a list of the calls that are right: [] where none is wanted, "
            "null where any of the tools is"
        )
    for number, call in enumerate(calls):
        place = f"{where}: gold.calls[{number}]"
        if not isinstance(call, Mapping) or call.get("name") not in tuple(offered):
            raise TaskInputError(
                f"{place}.name must be one of the tools offered: {', '.join(offered) or 'none'}"
            )
        if not isinstance(call.get("arguments", {}), Mapping):
            raise TaskInputError(f"{place}.arguments must be an object")
        also, optional = call.get("also", {}), call.get("optional", [])
        if not isinstance(also, Mapping) or not all(isinstance(values, list) for values in also.values()):
            raise TaskInputError(f"{place}.also must map arguments to lists of further values")
        if not isinstance(optional, list) or not all(isinstance(name, str) for name in optional):
            raise TaskInputError(f"{place}.optional must list arguments that may be left out")


def _check_structured(row: Row, gold: Mapping[str, Any], where: str, problem_of: SchemaProblem) -> None:
    schema = row["schema"]
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise TaskInputError(f"{where}: schema must be a JSON Schema of the type object")
    if (problem := problem_of(schema)) is not None:
        raise TaskInputError(f"{where}: schema {problem}")
    name = row.get("schema_name", "answer")
    if not isinstance(name, str) or TOOL_NAME.fullmatch(name) is None:
        raise TaskInputError(
            f"{where}: schema_name is {str(name)[:80]!r}; use 1 to 64 letters, digits, '_' and '-'"
        )
    if "json" not in gold or not isinstance(gold.get("also", []), list):
        raise TaskInputError(
            f"{where}: gold must hold json, the value that is right, and may list more in also"
        )
