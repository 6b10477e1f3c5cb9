"""What the parsers of answers share: the exception of a broken body, and words for JSON values."""

from __future__ import annotations

from typing import Any


class Invalid(Exception):
    """The body breaks the protocol; the message is ours, or already escaped."""


def kind(value: Any) -> str:
    """JSON name of a value's type."""
    if value is None:
        return "null or missing"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
