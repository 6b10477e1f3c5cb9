"""Reading answers and the JSON in them, whatever a supplier sends."""

import time

import pytest

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.tasks.tools.calls import (
    MAX_DEPTH,
    MAX_JSON_CHARS,
    UnreadableJson,
    read_message,
    strict_json,
    strict_object,
)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_answer_is_an_empty_one(nothing):
    assert read_message(nothing) == ChatMessage()


def test_an_answer_is_read_as_it_was_stored():
    message = ChatMessage("text", (ToolCall("f", '{"a": 1}'), ToolCall("", "nonsense \ud800")), "stop")
    assert read_message(message.text) == message


@pytest.mark.parametrize("stored", ["plain text", "[1]", "{", "[" * 100_000, 5, '{"tool_calls": "f"}'])
def test_what_is_no_stored_answer_is_said(stored):
    with pytest.raises(ValueError, match="stored answer"):
        read_message(stored)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, true, null, "ü"]}', {"a": [1, 2.5, True, None, "ü"]}),
        (' {"a": 1e3}\n', {"a": 1000.0}),
        (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        ("-0.0", 0.0),
        ('{"a": "' + "{[" * MAX_DEPTH + '"}', {"a": "{[" * MAX_DEPTH}),
        ("[" + "[],{}," * MAX_DEPTH + "1]", [[], {}] * MAX_DEPTH + [1]),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
    ],
)
def test_json_is_read(text, value):
    read = strict_json(text)
    assert value is None or read == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "twice"),
        ('{"b": [{"a": 1, "a": 2}]}', "twice"),
        (r'{"a": 1, "\u0061": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "too large"),
        ('{"a": -1e400}', "too large"),
        ('{"a": 1' + "0" * 400 + "}", "too large"),
        ('{"a": 1' + "0" * 5_000 + "}", "digits"),
        (r'{"a": "\ud800"}', "surrogate"),
        (r'{"\udc00": 1}', "surrogate"),
        ('{"a": [{"\udfff": 1}]}', "surrogate"),
        (r'{"a": "\ud83d \ude00"}', "surrogate"),
        ('{"a": "\ud800"}', "surrogate"),
        ('{"a": 1', "delimiter|Expecting"),
        ("{'a': 1}", "property name"),
        ('{"a": 1,}', "property name"),
        ('{"a": 1} {"b": 2}', "Extra data"),
        ('```json\n{"a": 1}\n```', "Expecting value"),
        ("", "Expecting value"),
        ('{"a": "x\ny"}', "control character"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels"),
        ("[" * 90_000 + "]" * 90_000, "levels"),
        ('{"a":' * 30_000 + "1" + "}" * 30_000, "levels"),
        ('"' + "x" * MAX_JSON_CHARS + '"', "characters"),
    ],
)
def test_what_programs_do_not_exchange_is_refused(text, reason):
    with pytest.raises(UnreadableJson, match=reason):
        strict_json(text)


@pytest.mark.parametrize("text", ["[]", "5", '"{}"', "null"])
def test_arguments_are_an_object(text):
    with pytest.raises(UnreadableJson, match="no object"):
        strict_object(text)


def test_megabytes_cost_little():
    began = time.process_time()
    for text in ("{" * 20_000_000, '{"a": "' + "x" * 20_000_000 + '"}'):
        with pytest.raises(UnreadableJson):
            strict_json(text)
    assert time.process_time() - began < 2  # 0.05 s
