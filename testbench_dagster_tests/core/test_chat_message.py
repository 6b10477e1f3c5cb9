"""Messages as canonical texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.ids import canonical_json

texts = st.text(max_size=30)
messages = st.builds(
    ChatMessage,
    content=st.none() | texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts), max_size=4).map(tuple),
    finish_reason=st.none() | texts,
)


@given(messages, messages)
def test_a_text_stands_for_one_message(one: ChatMessage, two: ChatMessage) -> None:
    assert ChatMessage.read(one.text) == one
    assert (one.text == two.text) == (one == two)


def test_the_text_is_the_documented_json() -> None:
    message = ChatMessage(None, (ToolCall("add", '{"b": 1, "b": 2}'),), "tool_calls")
    assert json.loads(message.text) == {
        "content": None,
        "finish_reason": "tool_calls",
        "tool_calls": [{"name": "add", "arguments": '{"b": 1, "b": 2}'}],
    }


def test_the_text_is_canonical_whatever_characters_are_in_it() -> None:
    """Two writers of JSON are used: one for texts that UTF-8 has bytes for, one for all others."""
    every = "".join(map(chr, range(0x110000)))
    for text in (every[:0xD800] + every[0xE000:], every, "\ud83d\ude00", "half \udc00"):
        message = ChatMessage(text, (ToolCall(text[-500:], text[:500]), ToolCall("", "")), "stop")
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        said = {"tool_calls": calls, "finish_reason": "stop", "content": text}
        assert message.text == canonical_json(said)
        assert ChatMessage.read(message.text) == message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"content": null}', "[" * 100_000, '{"tool_calls": 1}'])
def test_what_is_no_message_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ChatMessage.read(text)
