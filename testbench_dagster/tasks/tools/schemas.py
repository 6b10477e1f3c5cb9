"""JSON Schema (Draft 2020-12) of tools and of structured answers; the one module that imports `jsonschema`.

Schemas are ours or the user's own, never a supplier's. Nothing is fetched for them: a reference leads to a
part of the same schema or nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_REFERENCES = ("$ref", "$dynamicRef")


def problem_of(schema: Any) -> str | None:
    """Why a schema cannot be used; None where it can."""
    if not isinstance(schema, (dict, bool)):
        return f"is no JSON Schema but {type(schema).__name__}"
    return _problem(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=10_000)  # the docs of a task share tools
def _problem(text: str) -> str | None:
    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        return f"is no JSON Schema (Draft 2020-12): at {where or 'its top'}: {error.message[:200]}"
    for reference in _references(schema):
        if not reference.startswith("#"):
            return f"refers to {reference[:100]!r}; write that part into the schema, nothing is fetched"
        if not _leads_somewhere(schema, reference):
            return f"refers to {reference[:100]!r}, which it does not hold"
    return None


def _references(schema: Any) -> Iterator[str]:
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, Mapping):
            for name in _REFERENCES:
                if isinstance(one.get(name), str):
                    yield one[name]
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def _leads_somewhere(schema: Any, reference: str) -> bool:
    resolver = Registry().resolver_with_root(Resource.from_contents(schema, DRAFT202012))
    try:
        resolver.lookup(reference)
    except (Unresolvable, ValueError):
        return False
    return True


_Check = Callable[[Any], bool]
_KINDS: dict[str, _Check] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}
#: Keywords that say nothing about what is valid, and those that :func:`_plain` knows.
_SILENT = frozenset({"description", "title", "default", "examples"})
_PLAIN = frozenset({"type", "enum", "properties", "required", "additionalProperties", "items"})
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: not _KINDS["number"](value) or value >= bound,
    "maximum": lambda value, bound: not _KINDS["number"](value) or value <= bound,
    "minItems": lambda value, bound: not isinstance(value, list) or len(value) >= bound,
    "maxItems": lambda value, bound: not isinstance(value, list) or len(value) <= bound,
    "minLength": lambda value, bound: not isinstance(value, str) or len(value) >= bound,
    "maxLength": lambda value, bound: not isinstance(value, str) or len(value) <= bound,
}

_KNOWN = _SILENT | _PLAIN | _BOUNDS.keys()


def _plain(schema: Any, levels: int = 16) -> _Check | None:
    """A check of a schema that is made of the commonest keywords alone; None where it is not.

    It is ten times as fast as the library's, which looks each keyword of each value up anew.
    """
    if not isinstance(schema, dict) or not levels or not schema.keys() <= _KNOWN:
        return None
    checks: list[_Check] = []
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not all(isinstance(kind, str) and kind in _KINDS for kind in kinds):
            return None
        of_kind = [_KINDS[kind] for kind in kinds]
        checks.append(of_kind[0] if len(of_kind) == 1 else lambda value: any(is_(value) for is_ in of_kind))
    if "enum" in schema:
        values = schema["enum"]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return None
        known = frozenset(values)
        checks.append(lambda value: isinstance(value, str) and value in known)
    for keyword, holds in _BOUNDS.items():
        if keyword in schema:
            checks.append(partial(_within, holds, schema[keyword]))
    if "items" in schema:
        item = _plain(schema["items"], levels - 1)
        if item is None:
            return None
        checks.append(lambda value: not isinstance(value, list) or all(map(item, value)))
    properties, required = schema.get("properties", {}), schema.get("required", [])
    more = schema.get("additionalProperties", True)
    if not isinstance(properties, dict) or not isinstance(required, list) or not isinstance(more, bool):
        return None
    of_property: dict[str, _Check] = {}
    for name, inner in properties.items():
        check = _plain(inner, levels - 1)
        if check is None:
            return None
        of_property[name] = check
    must = frozenset(required)

    def of_object(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        if not must <= value.keys() or not (more or value.keys() <= of_property.keys()):
            return False
        for name, inner in value.items():
            if name in of_property and not of_property[name](inner):
                return False
        return True

    if properties or required or not more:
        checks.append(of_object)
    return checks[0] if len(checks) == 1 else partial(_all_hold, checks)


def _all_hold(checks: Sequence[_Check], value: Any) -> bool:
    for check in checks:  # noqa: SIM110  all(…) of a generator takes twice as long
        if not check(value):
            return False
    return True


def _within(holds: Callable[[Any, Any], bool], bound: Any, value: Any) -> bool:
    return holds(value, bound)


class Schemas:
    """Checks values against schemas; each schema is prepared once, the same object even found at once."""

    def __init__(self) -> None:
        self._by_text: dict[bytes, _Check] = {}
        self._by_object: dict[int, tuple[Any, _Check]] = {}

    def is_valid(self, schema: Any, value: Any) -> bool:
        """Whether a value is one of a schema, which must not be changed afterwards."""
        known = self._by_object.get(id(schema))
        if known is None or known[0] is not schema:
            known = self._by_object[id(schema)] = schema, self._prepared(schema)
        return bool(known[1](value))

    def _prepared(self, schema: Any) -> _Check:
        try:
            text = orjson.dumps(schema)
        except orjson.JSONEncodeError:  # beyond 64 bits or 254 levels
            text = json.dumps(schema).encode()
        if text not in self._by_text:
            # with a registry of its own it looks nothing up elsewhere, as it else would over the network
            self._by_text[text] = _plain(schema) or Draft202012Validator(schema, registry=Registry()).is_valid
        return self._by_text[text]
