"""Rows of the Berkeley Function Calling Leaderboard, from the JSON lines that it publishes, without its code.

Its questions are files such as ``BFCL_v4_simple_python.json``; what is right stands in a file of the same
name under ``possible_answer``. What differs from the forms of APIs is converted: types that JSON Schema does
not have (``dict``, ``float``, ``tuple``, ``any``), and names with dots, which suppliers refuse.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.tasks.tools.matching import alike

#: Beginnings of the ids of questions that have no answers: to the first no call fits, to the second one does.
_NONE_FITS, _SOME_FITS = ("irrelevance_", "live_irrelevance_"), ("live_relevance_",)
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "any": None}
#: What a schema may say of a value, as JSON Schema means it; its own additions are left out.
_KEYWORDS = (
    *("description", "enum", "default", "format", "minimum", "maximum", "minItems", "maxItems"),
    *("uniqueItems", "minLength", "maxLength", "pattern"),
)
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_NAME_CHARS = 64
_MOST_VARIANTS = 1_024  # of one argument, nested ones multiplied out; the published data has 128
_ABSENT = ""  # among the values of an argument: it may be left out
_EMPTY: dict[str, Any] = {"array": [], "object": {}, "string": ""}  # meant where no value is named


def is_bfcl(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of its questions."""
    return "question" in row and "function" in row


def converted_rows(
    questions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]] | None, where: str
) -> Iterator[dict[str, Any]]:
    """Its questions as rows; ``where`` names their file.

    Raises:
        TaskInputError: a question has another form (several turns, another language), or lacks its answer.
    """
    by_id = {str(answer.get("id")): answer.get("ground_truth") for answer in answers or ()}
    for number, question in enumerate(questions, 1):
        place = f"{where}: row {number}"
        try:
            yield _converted(question, by_id, place)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, TaskInputError):
                raise
            raise TaskInputError(
                f"{place}: is no question of BFCL with one turn and functions in Python's types "
                f"({type(error).__name__}: {str(error)[:100]})"
            ) from None


def _converted(
    question: Mapping[str, Any], answers: Mapping[str, Sequence[Mapping[str, Any]] | None], place: str
) -> dict[str, Any]:
    name, turns, functions = str(question["id"]), question["question"], question["function"]
    if len(turns) != 1:
        raise TaskInputError(f"{place}: {name} has {len(turns)} turns; only questions of one are asked here")
    sent = _sent_names([function["name"] for function in functions])
    tools = [
        {
            "name": sent[function["name"]],
            "description": function.get("description", ""),
            "parameters": _schema(function["parameters"], place),
        }
        for function in functions
    ]
    row = {
        "id": name,
        "messages": [{"role": m["role"], "content": m["content"]} for m in turns[0]],
        "tools": tools,
        "gold": {"calls": _calls(name, answers, sent, {tool["name"]: tool for tool in tools}, place)},
    }
    renamed = {new: old for old, new in sent.items() if new != old}
    return {**row, "names": renamed} if renamed else row


def _calls(
    name: str,
    answers: Mapping[str, Sequence[Mapping[str, Any]] | None],
    sent: Mapping[str, str],
    tools: Mapping[str, Mapping[str, Any]],
    place: str,
) -> list[dict[str, Any]] | None:
    truth = answers.get(name)
    if truth is None:
        if name.startswith(_NONE_FITS):
            return []
        if name.startswith(_SOME_FITS):
            return None
        raise TaskInputError(
            f"{place}: there is no answer to {name}; add the file of the same name under possible_answer to "
            "data:, as answers: <file>"
        )
    found = []
    for call in truth:
        ((function, arguments),) = call.items()
        tool = tools[sent[function]]
        found.append(_call(tool, arguments, f"{place}: {name}"))
    return found


def _call(tool: Mapping[str, Any], arguments: Mapping[str, Sequence[Any]], place: str) -> dict[str, Any]:
    """A call that is right: the first of each argument's values, others as good, and what may be absent."""
    parameters = tool["parameters"]
    call: dict[str, Any] = {"name": tool["name"], "arguments": {}}
    also: dict[str, list[Any]] = {}
    optional = []
    for argument, values in arguments.items():
        required = argument in parameters.get("required", ())
        if _ABSENT in values and not required:
            optional.append(argument)
        kind = parameters["properties"].get(argument, {}).get("type")
        named = values or [_EMPTY[kind] for _ in (0,) if kind in _EMPTY]
        accepted = _some(_variants(named))
        if len(accepted) > _MOST_VARIANTS:
            raise TaskInputError(f"{place}: {argument!r} may have more than {_MOST_VARIANTS} values")
        # an empty text or null may be meant as a value too, but is not the first to be shown
        told = [value for value in accepted if value not in (_ABSENT, None)]
        distinct = _distinct([*told, *(value for value in accepted if value in (_ABSENT, None))])
        if distinct and (told or required or argument not in optional):
            call["arguments"][argument] = distinct.pop(0)
        if distinct:
            also[argument] = distinct
    return {**call, **({"also": also} if also else {}), **({"optional": optional} if optional else {})}


def _variants(values: Sequence[Any]) -> Iterator[Any]:
    """The values that one of a list may be, with those of nested objects multiplied out."""
    for value in values:
        yield from _forms(value)


def _forms(value: Any) -> Iterator[Any]:
    """The forms of an accepted value: an object holds a list of values of each name, a list may hold such."""
    if isinstance(value, Mapping):
        names = list(value)
        choices = [_some(_variants(one)) if isinstance(one, list) else [one] for one in value.values()]
        for chosen in product(*choices):
            pairs = zip(names, chosen, strict=True)
            full = {name: one for name, one in pairs if one != _ABSENT or value[name] == [_ABSENT]}
            yield full
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for chosen in product(*(_some(_forms(one)) for one in value)):
            yield list(chosen)
    else:
        yield value


def _some(values: Iterator[Any]) -> list[Any]:
    """Values as far as they may be many, and one more where they are too many."""
    return list(islice(values, _MOST_VARIANTS + 1))


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(alike(value, other) for other in found):
            found.append(value)
    return found


def _schema(given: Any, place: str) -> dict[str, Any]:
    """A schema of its as a JSON Schema."""
    kind = given.get("type")
    known = (*_TYPES, "string", "integer", "number", "boolean", "array", "object", None)
    if kind not in known:
        raise TaskInputError(
            f"{place}: {str(kind)[:40]!r} is no type of its functions in Python; those in Java and "
            "JavaScript are not asked here"
        )
    found: dict[str, Any] = {}
    kind = _TYPES.get(kind, kind)
    if kind is not None:
        found["type"] = kind
    found |= {name: given[name] for name in _KEYWORDS if name in given}
    if kind == "object":
        found["properties"] = {name: _schema(one, place) for name, one in given.get("properties", {}).items()}
        if given.get("required"):
            found["required"] = list(given["required"])
    if kind == "array":
        # suppliers refuse arrays that do not say of what
        found["items"] = _schema(given.get("items") or {}, place)
    return _with_usable_enum(found)


def _with_usable_enum(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose default is among its values; of a list they are those of its items."""
    values, kind = schema.get("enum"), schema.get("type")
    if not isinstance(values, list):
        return {name: value for name, value in schema.items() if name != "enum"}
    if kind == "array" and not any(isinstance(value, list) for value in values):
        inner = {**schema["items"], "enum": values}
        return {**{name: value for name, value in schema.items() if name != "enum"}, "items": inner}
    default = schema.get("default")
    if "default" in schema and not any(alike(default, value) for value in values):
        return {**schema, "enum": [*values, default]}
    return schema


def _sent_names(names: Sequence[str]) -> dict[str, str]:
    """By the name of a function the one that suppliers accept, one for each."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        sent = _NOT_IN_NAMES.sub("_", name)
        if len(sent) > _NAME_CHARS or not sent or sent in found.values():
            mark = hashlib.sha256(name.encode()).hexdigest()[:8]
            sent = f"{sent[: _NAME_CHARS - 9]}_{mark}"
        found[name] = sent
    return found
