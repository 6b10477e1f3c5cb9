"""Tools, response formats and tool calls in words: what was offered, what was wanted, what was called.

Data of suppliers are shown as they came: only escapes of letters that can be printed are undone, so that what
stands there twice, or is no JSON, still can be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage

#: Tools of a prompt that are shown, and most characters of each.
MAX_TOOLS, MAX_TOOL_CHARS = 20, 400
#: Characters of a form that an answer is to have, and of the description of a tool.
MAX_FORM_CHARS, MAX_DESCRIPTION_CHARS = 1_500, 160
#: Levels of a schema that are shown, its properties or alternatives, and values of an ``enum``.
_MAX_DEPTH, _MAX_PARTS, _MAX_VALUES = 4, 16, 8
_NO_CALL = "no call"
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)", re.DOTALL
)
_LINE_ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


def offered_of(request: Mapping[str, Any]) -> str | None:
    """What a request offers beside its messages, a line per tool or the form of the answer; None: nothing."""
    lines = []
    tools = request.get("tools")
    if isinstance(tools, (list, tuple)) and tools:
        lines.append("Tools (a call is required):" if _must_call(request) else "Tools:")
        lines += [_cut(_tool(tool), MAX_TOOL_CHARS) for tool in tools[:MAX_TOOLS]]
        if len(tools) > MAX_TOOLS:
            lines.append(f"… and {len(tools) - MAX_TOOLS} more")
    form = request.get("response_format")
    if isinstance(form, Mapping):
        lines.append(_cut(f"Answer as {_form(form)}", MAX_FORM_CHARS))
    return "\n".join(lines) or None


def message_text(text: str) -> str:
    """The answer to a request of kind ``chat``: what was written, then a line per call."""
    try:
        message = ChatMessage.read(text)
    except ValueError:
        return text
    said = message.content if isinstance(message.content, str) else ""
    calls = "\n".join(call_line(str(call.name), str(call.arguments)) for call in message.tool_calls)
    return "\n\n".join(part for part in (said, calls) if part)


def call_line(name: str, arguments: str) -> str:
    """One call in one line; its arguments are the text that was sent."""
    return _LINE_ENDS.sub(" ", f"{name}({_ESCAPE.sub(_letter, arguments)})")


def calls_text(extracted: str) -> str:
    """The calls that the framework ``tools`` read in an answer, a line each; where it is cut the text."""
    try:
        calls = json.loads(extracted)
    except (ValueError, RecursionError):
        return extracted
    if not isinstance(calls, list) or not all(map(_is_wanted, calls)):
        return extracted
    lines = []
    for call in calls:
        arguments = call.get("arguments")
        lines.append(call_line(call["name"], arguments if isinstance(arguments, str) else _json(arguments)))
    return "\n".join(lines) or _NO_CALL


def wanted_text(target: Mapping[str, Any]) -> str | None:
    """What is right of an answer with calls, or in a form; None where a target is no such thing."""
    if target.keys() == {"calls"}:
        calls = target["calls"]
        if calls is None:
            return "any call"
        if isinstance(calls, (list, tuple)) and all(map(_is_wanted, calls)):
            return "\n".join(map(_wanted, calls)) or _NO_CALL
    elif "json" in target and target.keys() <= {"json", "also"}:
        also = target.get("also") or ()
        if isinstance(also, (list, tuple)):
            return "\n".join([_json(target["json"]), *(f"or {_json(value)}" for value in also)])
    return None


def _letter(escape: re.Match[str]) -> str:
    """The letter that an escape stands for, or the escape: of what is no letter, and of ASCII."""
    high, low, one = escape.groups()
    if high is not None:
        letter = chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    elif one is not None:
        letter = chr(int(one, 16))
    else:
        return escape[0]
    return letter if letter.isprintable() and not letter.isascii() else escape[0]


# -- what is wanted ---------------------------------------------------------------------------------------


def _is_wanted(call: Any) -> bool:
    return isinstance(call, Mapping) and isinstance(call.get("name"), str)


def _wanted(call: Mapping[str, Any]) -> str:
    line = call_line(call["name"], _json(call.get("arguments") or {}))
    also, optional = call.get("also"), call.get("optional")
    notes = []
    if isinstance(also, Mapping):
        notes += [
            f"{name} or {' or '.join(map(_json, values))}"
            for name, values in also.items()
            if isinstance(values, (list, tuple)) and values
        ]
    if isinstance(optional, (list, tuple)) and optional:
        notes.append(f"may be left out: {', '.join(map(str, optional))}")
    return f"{line}  [{'; '.join(notes)}]" if notes else line


# -- what is offered --------------------------------------------------------------------------------------


def _must_call(request: Mapping[str, Any]) -> bool:
    choice = request.get("tool_choice")
    return choice is not None and choice not in ("auto", "none")


def _tool(tool: Any) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return _one_line(_json(tool))
    parameters = function.get("parameters")
    named = ", ".join(_properties(parameters, _MAX_DEPTH)) if isinstance(parameters, Mapping) else ""
    description = function.get("description")
    told = f": {_cut(description, MAX_DESCRIPTION_CHARS)}" if isinstance(description, str) else ""
    return _one_line(f"{function['name']}({named}){told}")


def _form(form: Mapping[str, Any]) -> str:
    inner = form.get("json_schema")
    if not isinstance(inner, Mapping):
        return _one_line(str(form.get("type")))
    return _one_line(f"{inner.get('name')}: {_shape(inner.get('schema'), _MAX_DEPTH)}")


def _properties(schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    """``name: type`` of each property; ``?`` behind what may be left out."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping):
        return
    must = required if isinstance(required, (list, tuple)) else ()
    for number, (name, of) in enumerate(properties.items()):
        if number == _MAX_PARTS:
            yield "…"
            return
        default = f" = {_json(of['default'])}" if isinstance(of, Mapping) and "default" in of else ""
        yield f"{name}{'' if name in must else '?'}: {_shape(of, depth - 1)}{default}"


def _shape(schema: Any, depth: int) -> str:
    """A JSON Schema as a type, as far as one can be told in a few words."""
    if not isinstance(schema, Mapping):
        return "any"
    if depth <= 0:
        return "…"
    if "const" in schema:
        return _json(schema["const"])
    if isinstance(values := schema.get("enum"), (list, tuple)):
        more = [" …"] if len(values) > _MAX_VALUES else []
        return " | ".join([*map(_json, values[:_MAX_VALUES]), *more])
    for several in ("anyOf", "oneOf", "allOf"):
        if isinstance(parts := schema.get(several), (list, tuple)) and parts:
            sign = " & " if several == "allOf" else " | "
            return sign.join(_shape(part, depth - 1) for part in parts[:_MAX_PARTS])
    kinds = schema.get("type")
    if isinstance(kinds, (list, tuple)):
        return " | ".join(_shape({**schema, "type": kind}, depth) for kind in kinds[:_MAX_PARTS])
    if kinds == "object" and isinstance(schema.get("properties"), Mapping):
        return f"{{{', '.join(_properties(schema, depth))}}}"
    if kinds == "array" and "items" in schema:
        return f"[{_shape(schema['items'], depth - 1)}]"
    return str(kinds or schema.get("$ref") or "any")


def _one_line(text: str) -> str:
    return _LINE_ENDS.sub(" ", text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def with_offer(question: str | None, requests: Sequence[Mapping[str, Any]]) -> str | None:
    """A question and what its request offers."""
    offer = offered_of(requests[0]) if len(requests) == 1 else None
    return question if offer is None else f"{question or ''}\n\n{offer}".lstrip()
