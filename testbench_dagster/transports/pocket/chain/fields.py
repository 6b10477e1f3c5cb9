"""Reading the fields of a node's answer: each is checked, and what is wrong is named with its value.

Answers come as JSON (64-bit integers as strings, bytes as base64, absent messages as null) or decoded from
protobuf (integers, bytes, None); both are read alike.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from testbench_dagster.core.bech32 import is_address
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.chain.errors import BadAnswer

MAX_INT64, MAX_UINT64 = 2**63 - 1, 2**64 - 1
#: Above any amount of uPOKT there will ever be; the chain's own integers end at 2**256.
MAX_AMOUNT = 2**96
#: Longest text taken where nothing else is said, in characters.
MAX_TEXT_CHARS = 1024
_SHOWN_CHARS = 80
_WHOLE = re.compile(r"-?[0-9]{1,30}", re.ASCII)


def shown(value: Any) -> str:
    """A value for a message, escaped and short; of nested ones only the kind (their text may be endless)."""
    if isinstance(value, Mapping):
        return "(an object)"
    if isinstance(value, (list, tuple)):
        return "(a list)"
    if isinstance(value, (str, bytes)):
        value = value[: _SHOWN_CHARS + 1]
    return escaped(repr(value), _SHOWN_CHARS)


class Record:
    """An object in an answer, and what to call it in messages."""

    __slots__ = ("values", "where")

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise BadAnswer(f"{where} is {shown(values)}, not the object it must be")
        self.values: Mapping[Any, Any] = values
        self.where = where

    def bad(self, name: str, problem: str) -> BadAnswer:
        """Return the error that a field has a problem."""
        return BadAnswer(f"{self.where}.{name} {shown(self.values.get(name))} {problem}")

    def record(self, name: str) -> Record:
        """Return an object that must be there."""
        return Record(self.values.get(name), f"{self.where}.{name}")

    def optional(self, name: str) -> Record | None:
        """Return an object, or None where it is absent."""
        return None if self.values.get(name) is None else self.record(name)

    def items(self, name: str) -> list[Any]:
        """Return a list, empty if absent."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.bad(name, "is no list")
        return value

    def records(self, name: str) -> list[Record]:
        """Return a list of objects, empty if absent."""
        return [Record(v, f"{self.where}.{name}[{i}]") for i, v in enumerate(self.items(name))]

    def text(self, name: str, limit: int = MAX_TEXT_CHARS) -> str:
        """Return a text of up to ``limit`` characters, empty if absent."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.bad(name, "is no text")
        if len(value) > limit:
            raise self.bad(name, f"has {counted(len(value), 'character')}; {limit} are allowed")
        return value

    def whole(self, name: str, low: int = 0, high: int = MAX_INT64, default: int | None = 0) -> int:
        """Return a whole number in ``low`` to ``high``; ``default`` if absent, None: it may not be absent."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        return _whole(value, f"{self.where}.{name}", low, high)

    def flag(self, name: str) -> bool:
        """Return a truth value, false if absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.bad(name, "is neither true nor false")
        return value is True

    def binary(self, name: str, limit: int) -> bytes:
        """Return up to ``limit`` bytes, none if absent."""
        value = self.values.get(name)
        if value is None:
            return b""
        if isinstance(value, str):
            if len(value) > limit * 4 // 3 + 4:
                raise self.bad(name, f"is longer than {counted(limit, 'byte')}")
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
                raise self.bad(name, "is no base64") from None
        if not isinstance(value, bytes):
            raise self.bad(name, "is no bytes")
        if len(value) > limit:
            raise self.bad(name, f"has {counted(len(value), 'byte')}; {limit} are allowed")
        return value

    def address(self, name: str, *, optional: bool = False) -> str:
        """Return a Pocket address; empty if it is absent and may be."""
        value = self.values.get(name)
        if optional and value in (None, ""):
            return ""
        return _address(value, f"{self.where}.{name}")

    def addresses(self, name: str) -> tuple[str, ...]:
        """Return a list of Pocket addresses."""
        return tuple(_address(v, f"{self.where}.{name}[{i}]") for i, v in enumerate(self.items(name)))

    def upokt(self, name: str) -> int | None:
        """Return an amount of uPOKT, None if absent."""
        coin = self.optional(name)
        if coin is None:
            return None
        if coin.values.get("denom") != "upokt":
            raise coin.bad("denom", "is not upokt")
        return coin.whole("amount", 0, MAX_AMOUNT, None)


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise BadAnswer(f"{where} {shown(value)} is no whole number")
    if not low <= number <= high:
        raise BadAnswer(f"{where} {shown(number)} is not in {low} to {high}")
    return number


def whole_key(key: Any, where: str) -> int:
    """Return the key of a map as a height. Raises :class:`BadAnswer` if it is none."""
    return _whole(key, f"{where}: key", 0, MAX_INT64)


def _address(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 90 or not is_address(value):
        raise BadAnswer(f"{where} {shown(value)} is no Pocket address")
    return value
