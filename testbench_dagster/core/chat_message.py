"""The answer to a request of kind ``chat``: a text, tool calls, and why it ended, as one canonical text.

Requests with tools or a response format are answered by more than a text. What is scored, compared and shown
of such an answer is this message; the raw answer stays in the evidence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from testbench_dagster.core.ids import canonical_json


@dataclass(frozen=True)
class ToolCall:
    """A call that an answer asks for; ``arguments`` are the text that the supplier sent, whatever it is."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ChatMessage:
    """``content`` is None where there is none; ``finish_reason`` is the supplier's word for how it ended."""

    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """Canonical JSON: equal messages give equal texts."""
        calls = [{"arguments": call.arguments, "name": call.name} for call in self.tool_calls]
        said = {"content": self.content, "finish_reason": self.finish_reason, "tool_calls": calls}
        try:
            return orjson.dumps(said).decode()  # of texts alone, and in order: it is canonical
        except orjson.JSONEncodeError:  # half of a surrogate pair
            return canonical_json(said)

    @classmethod
    def read(cls, text: str) -> ChatMessage:
        """The message of a text that :attr:`text` gave.

        Raises:
            ValueError: it is none.
        """
        try:
            said = _value(text)
            calls = tuple(ToolCall(call["name"], call["arguments"]) for call in said["tool_calls"])
            return cls(said["content"], calls, said["finish_reason"])
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no message: {type(error).__name__}: {error}") from None


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it takes no half of a surrogate pair
        return json.loads(text)
