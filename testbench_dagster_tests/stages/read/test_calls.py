"""Tools, forms and calls in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.read.calls import MAX_TOOLS, call_line, message_text, offered_of, wanted_text
from testbench_dagster.stages.read.texts import answer_text, extracted_of, question_of, target_of
from testbench_dagster.transports.answers import Answer

WEATHER = {
    "name": "weather",
    "description": "The weather\nof a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 3},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city"],
    },
}
CHAT: dict[str, Any] = {"type": "chat", "idx": 0, "messages": [{"role": "user", "content": "Rain in Oslo?"}]}
SHOWN = 'weather(city: string, days?: integer = 3, unit?: "C" | "F"): The weather of a city.'


def said(content: str | None, *calls: tuple[str, str]) -> str:
    return ChatMessage(content, tuple(ToolCall(*call) for call in calls), "stop").text


def test_a_question_tells_its_tools() -> None:
    asked = [{**CHAT, "tools": [{"type": "function", "function": WEATHER}], "tool_choice": "auto"}]
    assert question_of(asked, 0) == f"Rain in Oslo?\n\nTools:\n{SHOWN}"
    must = {**asked[0], "tool_choice": "required"}
    assert str(offered_of(must)).startswith("Tools (a call is required):\n")
    assert question_of([CHAT], 0) == "Rain in Oslo?"


def test_a_question_tells_the_form_of_its_answer() -> None:
    items = {"type": "array", "items": {"type": ["integer", "null"]}}
    schema = {"type": "object", "properties": {"sum": {"type": "number"}, "of": items}, "required": ["sum"]}
    form = {"type": "json_schema", "json_schema": {"name": "bill", "strict": True, "schema": schema}}
    assert offered_of({"response_format": form}) == "Answer as bill: {sum: number, of?: [integer | null]}"
    assert offered_of({"response_format": {"type": "json_object"}}) == "Answer as json_object"


def test_many_tools_and_deep_forms_stay_short() -> None:
    deep: Any = {"type": "string"}
    for _ in range(500):
        deep = {"type": "object", "properties": {f"p{n}": deep for n in range(3)}}
    big = {"name": "big", "description": "x" * 9_999, "parameters": deep}
    text = offered_of({"tools": [WEATHER] * (MAX_TOOLS - 1) + [big] * 100, "response_format": {}})
    assert text is not None and len(text) < 5_000 and "… and 99 more" in text
    recursive = {"anyOf": [{"$ref": "#"}, True, 7], "type": "object"}
    form = {"json_schema": {"name": "x", "schema": recursive}}
    assert offered_of({"response_format": form}) == "Answer as x: # | any | any"


@pytest.mark.parametrize("tools", [[7], [{}], [{"function": None}], [{"name": "a", "parameters": 3}], "abc"])
def test_tools_of_odd_forms_are_no_error(tools: Any) -> None:
    offered_of({"tools": tools, "response_format": {"json_schema": {"schema": {"enum": None}}}})


def test_an_answer_is_its_text_and_a_line_per_call() -> None:
    text = said("Let me look.", ("weather", '{"city": "Oslo"}'), ("weather", "{bad"))
    shown = 'Let me look.\n\nweather({"city": "Oslo"})\nweather({bad)'
    assert answer_text([CHAT], [], [(0, 0, Answer(Fault.OK, text=text))]) == shown
    assert message_text(said(None, ("noon", ""))) == "noon()"
    assert message_text(said(None)) == "", "an answer that says nothing"
    assert message_text("no message") == "no message"
    plain = [{**CHAT, "type": "generate_until"}]
    assert answer_text(plain, [], [(0, 0, Answer(Fault.OK, text=text))]) == text, "a text that looks like one"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (r'{"city": "Troms\u00f8 \ud83d\ude00"}', '{"city": "Tromsø 😀"}'),
        (r'{"a": "\u0022, \u202e\ud83d \n \\u00f8"}', r'{"a": "\u0022, \u202e\ud83d \n \\u00f8"}'),
        ('{"a": 1, "a": 1e3}', '{"a": 1, "a": 1e3}'),
        ("{}\nother({})", "{} other({})"),
        ("\\", "\\"),
    ],
)
def test_arguments_are_those_that_were_sent(sent: str, shown: str) -> None:
    assert call_line("f", sent) == f"f({shown})"


@given(st.text(), st.text())
def test_a_call_is_one_line_and_loses_nothing(name: str, arguments: str) -> None:
    assert len(call_line(name, arguments).splitlines()) <= 1
    given_arguments = json.dumps({"a": arguments})
    shown = call_line("f", given_arguments).removeprefix("f(").removesuffix(")")
    assert json.loads(shown) == {"a": arguments}


def test_wanted_calls_and_values_in_words() -> None:
    also = {"name": "weather", "arguments": {"city": "Åre"}, "also": {"city": ["Are"]}, "optional": ["days"]}
    assert target_of({"calls": [{"name": "noon", "arguments": {}}, also]}, []) == (
        'noon({})\nweather({"city": "Åre"})  [city or "Are"; may be left out: days]'
    )
    assert target_of({"calls": []}, []) == "no call"
    assert target_of({"calls": None}, []) == "any call"
    assert target_of({"json": {"sum": 5}, "also": [{"sum": 6}]}, []) == '{"sum": 5}\nor {"sum": 6}'
    for other in ({"calls": 5}, {"calls": [5]}, {"json": 1, "also": 2}, {"calls": [], "x": 1}, {}):
        assert wanted_text(other) is None
        assert target_of(other, []) == json.dumps(other)


@pytest.mark.parametrize(
    ("extracted", "shown"),
    [
        (
            '[{"arguments": {"b": 1}, "name": "f"}, {"arguments": "{bad", "name": "g"}]',
            'f({"b": 1})\ng({bad)',
        ),
        ("[]", "no call"),
        ('[{"arguments": {"b', '[{"arguments": {"b'),
        ("[" * 9_000, "[" * 9_000),
        ("[5]", "[5]"),
        ("7", "7"),
    ],
)
def test_extracted_calls_in_words(extracted: str, shown: str) -> None:
    assert extracted_of(extracted, [], [{**CHAT, "tools": [WEATHER]}]) == shown
    assert extracted_of(extracted, [], [CHAT]) == extracted, "of answers in a form it is the answer"
