"""Makers of the starter tasks' questions: a tool, or a form of answer, and requests that name every value.

Everything that a right call holds is said in the request, or has a default in the tool's schema: there is one
right answer, and it follows from the words.

Belongs here: tools and forms, and makers of requests with what is right. Does not: files and scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

Schema = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """A request for one call: in the imperative without a full stop, and what the call then holds."""

    clause: str
    arguments: Mapping[str, Any]
    also: Mapping[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tool:
    """A tool, what it is about, and a maker of requests that it fits."""

    name: str
    domain: str
    description: str
    properties: Mapping[str, Schema]
    ask: Callable[[Random], Ask]

    @property
    def offer(self) -> dict[str, Any]:
        """The tool as it is offered; what has no default is required."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": dict(self.properties),
                "required": [name for name, schema in self.properties.items() if "default" not in schema],
                "additionalProperties": False,
            },
        }


def text(description: str, **more: Any) -> Schema:
    """The schema of a text."""
    return {"type": "string", "description": description, **more}


def whole(description: str, **more: Any) -> Schema:
    """The schema of a whole number."""
    return {"type": "integer", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    """The schema of a number."""
    return {"type": "number", "description": description, **more}


def flag(description: str, **more: Any) -> Schema:
    """The schema of a truth value."""
    return {"type": "boolean", "description": description, **more}


def one_of(values: tuple[str, ...], description: str, **more: Any) -> Schema:
    """The schema of one of some texts."""
    return {"type": "string", "enum": list(values), "description": description, **more}


def list_of(items: Schema, description: str, **more: Any) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items, "description": description, **more}


def record(properties: Mapping[str, Schema], description: str = "", **more: Any) -> Schema:
    """The schema of an object with exactly these properties."""
    told = {"description": description} if description else {}
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
        **told,
        **more,
    }
