"""Reads stored answers and the JSON that suppliers wrote: strict, bounded, and nothing in it is believed."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any

from testbench_dagster.core.chat_message import ChatMessage

#: Most calls of one answer; one with more is right in nothing.
MAX_CALLS = 128
#: Characters of JSON that are read: what asks for a call with more is no call that a program would take.
MAX_JSON_CHARS = 200_000
#: Levels of objects and arrays within each other.
MAX_DEPTH = 64

_SHORT_CHARS = 4_000

_SURROGATE = re.compile("[\ud800-\udfff]")


class UnreadableJson(ValueError):
    """A text is not JSON as programs exchange it; says why."""


def read_message(stored: object) -> ChatMessage:
    """The message in a stored response; an empty one where there is none.

    Raises:
        ValueError: the response is none of a request of the kind ``chat``.
    """
    if stored is None or stored == "":
        return ChatMessage()
    if not isinstance(stored, str):
        raise ValueError(f"the stored answer is no text but {type(stored).__name__}")
    try:
        return ChatMessage.read(stored)
    except ValueError as error:
        raise ValueError(f"the stored answer is none with tools: {error}") from None


def strict_json(text: str) -> Any:
    """The value of a JSON text, as RFC 8259 defines it and RFC 7493 (I-JSON) narrows it.

    Refused are NaN and infinities, also numbers too large for a double (``1e999``), names that an object
    holds twice, halves of surrogate pairs, and what is larger or deeper than the limits here.

    The value must not be changed: short texts are read once, for verdicts and for what is shown.

    Raises:
        UnreadableJson: it is none.
    """
    if len(text) > MAX_JSON_CHARS:
        raise UnreadableJson(f"more than {MAX_JSON_CHARS} characters")
    return _read_once(text) if len(text) <= _SHORT_CHARS else _read(text)


def _read(text: str) -> Any:
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise UnreadableJson(f"more than {MAX_DEPTH} levels") from None
    except UnreadableJson:
        raise
    except ValueError as error:  # also of whole numbers with more digits than Python converts
        raise UnreadableJson(str(error)[:200]) from None
    # short of these there is nothing to be found, and no need to go through all values
    if "\\u" in text or text.count("{") + text.count("[") > MAX_DEPTH or _SURROGATE.search(text):
        _check(value)
    return value


_read_once = lru_cache(maxsize=256)(_read)


def strict_object(text: str) -> dict[str, Any]:
    """The JSON object in a text; see :func:`strict_json`.

    Raises:
        UnreadableJson: it is none.
    """
    value = strict_json(text)
    if not isinstance(value, dict):
        raise UnreadableJson("JSON, but no object")
    return value


def _check(value: Any) -> None:
    """Refuse what is too deep, and texts that UTF-8 has no bytes for."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                if _SURROGATE.search(one):
                    raise UnreadableJson("half of a surrogate pair")
            elif isinstance(one, dict):
                inner += one.keys()
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise UnreadableJson(f"more than {MAX_DEPTH} levels")


def _no_double_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnreadableJson("an object holds a name twice")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise UnreadableJson("a number too large for a double")
    return number


def _whole(digits: str) -> int:
    number = int(digits)
    if number.bit_length() > 1024:  # more than a double holds
        raise UnreadableJson("a number too large for a double")
    return number


def _no_number(name: str) -> Any:
    raise UnreadableJson(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_double_names, parse_float=_finite, parse_int=_whole, parse_constant=_no_number
)
