"""Requests with tools and response formats: what is sent, and what is read of whole and streamed answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.answer_prefix import ANSWER_PREFIX_CHARS, prefix_of_answer
from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.payload import RequestError, answer_tokens, build_payload, request_shape

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
REQUEST: dict[str, Any] = {
    "type": "chat",
    "idx": 0,
    "messages": [{"role": "user", "content": "1 + 2?"}],
    "generation": {"max_gen_toks": 99, "temperature": 0},
    "tools": TOOLS,
    "tool_choice": "auto",
}
ADD = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}


def read(message: dict[str, Any], reason: str = "tool_calls", request: dict[str, Any] = REQUEST) -> Answer:
    body = {"choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}]}
    return parse_answer(request, "chat", 200, json.dumps(body).encode())


def streamed(deltas: list[dict[str, Any]], reason: str = "tool_calls") -> Answer:
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return parse_answer(REQUEST, "chat", 200, body.encode())


def message_of(answer: Answer) -> ChatMessage:
    assert answer.fault in (Fault.OK, Fault.TRUNCATED), answer.error
    assert answer.text is not None
    return ChatMessage.read(answer.text)


# ------------------------------------------------------------------------------------------ requests


def test_a_request_carries_what_it_offers() -> None:
    path, body = build_payload(REQUEST, "chat", "m")
    assert path == "/chat/completions"
    assert body == {
        "messages": REQUEST["messages"],
        "model": "m",
        "max_tokens": 99,
        "temperature": 0,
        "seed": 1234,
        "tools": TOOLS,
        "tool_choice": "auto",
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    plain = {k: v for k, v in REQUEST.items() if k not in ("tools", "tool_choice")}
    assert build_payload({**plain, "response_format": form}, "chat", "m")[1]["response_format"] == form
    assert request_shape(REQUEST, "chat") != request_shape(plain, "chat")


def test_a_supplier_is_asked_in_its_own_way() -> None:
    wanted = SupplierGeneration(token_field="max_completion_tokens", budget=100, effort="low", seed="omit")
    body = build_payload(REQUEST, "chat", "m", wanted)[1]
    assert body["max_completion_tokens"] == 199 and body["reasoning_effort"] == "low"
    assert "seed" not in body and "max_tokens" not in body and body["tools"] == TOOLS
    assert answer_tokens(REQUEST, wanted) == 199


def test_completions_cannot_carry_it() -> None:
    with pytest.raises(RequestError, match="api: chat"):
        build_payload(REQUEST, "completions", "m")


# ------------------------------------------------------------------------------------------- answers


def test_calls_are_read_as_they_were_sent() -> None:
    odd = {"function": {"name": "sub", "arguments": '{"a":1,"a":2'}}
    found = message_of(read({"content": None, "tool_calls": [ADD, odd]}))
    assert found == ChatMessage(
        None, (ToolCall("add", '{"a": 1, "b": 2}'), ToolCall("sub", '{"a":1,"a":2')), "tool_calls"
    )


def test_a_text_beside_or_instead_of_calls_is_kept() -> None:
    assert message_of(read({"content": "hm", "tool_calls": [ADD]})).content == "hm"
    assert message_of(read({"content": "3"}, "stop")) == ChatMessage("3", (), "stop")
    assert message_of(read({"content": "<think>so</think>3", "tool_calls": [ADD]})).content == "3"


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    assert message_of(read({"content": None}, "stop")) == ChatMessage(None, (), "stop")


def test_a_call_that_was_cut_is_truncated() -> None:
    answer = read(
        {"content": None, "tool_calls": [{"function": {"name": "add", "arguments": '{"a'}}]}, "length"
    )
    assert answer.fault is Fault.TRUNCATED
    assert message_of(answer).tool_calls == (ToolCall("add", '{"a'),)


@pytest.mark.parametrize(
    ("arguments", "text"), [({"b": 1, "a": "x"}, '{"a":"x","b":1}'), (None, ""), ([1], "[1]")]
)
def test_arguments_that_are_no_text_are_their_json(arguments: Any, text: str) -> None:
    call = {"function": {"name": "add", "arguments": arguments}}
    assert message_of(read({"content": None, "tool_calls": [call]})).tool_calls[0].arguments == text


DOUBLE = '{"a":1,"b":{"c":[{"d":2,"d":3}]},"a":4}'


def test_names_that_stand_twice_in_an_object_are_seen_by_who_judges_it() -> None:
    """As an object only the last value would be left: the call would look right."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "ARGUMENTS"}}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [call]}}
    body = json.dumps({"choices": [choice]}).replace('"ARGUMENTS"', DOUBLE)
    whole = parse_answer(REQUEST, "chat", 200, body.encode())
    assert message_of(whole).tool_calls == (ToolCall("add", DOUBLE),)
    event = body.replace('"message"', '"delta"')
    stream = parse_answer(REQUEST, "chat", 200, f"data: {event}\n\ndata: [DONE]\n\n".encode())
    assert stream.text == whole.text
    once = parse_answer(REQUEST, "chat", 200, body.replace(DOUBLE, '{"b":2,"a":1}').encode())
    assert message_of(once).tool_calls == (ToolCall("add", '{"a":1,"b":2}'),)


def test_they_cannot_be_hidden_in_what_is_too_deep_to_be_read_twice() -> None:
    deep = '{"x":' * 600 + DOUBLE + "}" * 600
    call = {"function": {"name": "add", "arguments": "ARGUMENTS"}}
    body = json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).replace('"ARGUMENTS"', deep)
    answer = parse_answer(REQUEST, "chat", 200, body.encode())
    assert answer.fault is Fault.SUPPLIER_PROTOCOL and "arguments of a tool call" in (answer.error or "")


def test_a_piece_without_news_of_a_call_changes_nothing() -> None:
    begun = {"tool_calls": [{"index": 0, **ADD}]}
    later = {"tool_calls": [{"index": 0, "id": "c1", "function": None}]}
    assert streamed([begun, later]).text == streamed([begun]).text


def test_the_older_form_is_read() -> None:
    answer = read({"content": None, "function_call": {"name": "add", "arguments": "{}"}}, "function_call")
    assert message_of(answer).tool_calls == (ToolCall("add", "{}"),)


@pytest.mark.parametrize(
    "calls",
    [
        "add",
        7,
        [7],
        [{}],
        [{"function": None}],
        [{"function": {"name": None}}],
        [{"function": {"name": "add", "arguments": 7}}],
        [ADD] * 600,
    ],
)
def test_what_is_no_call_is_the_suppliers_fault(calls: Any) -> None:
    answer = read({"content": None, "tool_calls": calls})
    assert answer.fault is Fault.SUPPLIER_PROTOCOL and answer.error


@pytest.mark.parametrize("name", ["", "\0", "add\n", "é" * 100_000, "$add", "a.b", "\u202eadd"])
def test_any_name_is_kept_as_it_was_sent(name: str) -> None:
    call = {"function": {"name": name, "arguments": "{}"}}
    answer = read({"content": None, "tool_calls": [call]})
    assert message_of(answer).tool_calls == (ToolCall(name, "{}"),)
    assert len(prefix_of_answer(REQUEST, str(answer.text))) <= ANSWER_PREFIX_CHARS


@pytest.mark.parametrize("where", ["name", "arguments"])
def test_names_and_arguments_that_utf_8_has_no_bytes_for_break_nothing(where: str) -> None:
    """The answer is read, or is the supplier's fault; what is kept of it a store can hold."""
    answer = read({"content": None, "tool_calls": [{"function": {**ADD["function"], where: "a\ud800"}}]})
    assert answer.fault in (Fault.OK, Fault.SUPPLIER_PROTOCOL)
    (answer.text or answer.error or "").encode()
    if answer.text is not None:
        prefix_of_answer(REQUEST, answer.text).encode()


def test_calls_nobody_offered_tools_for_stay_a_fault() -> None:
    request = {k: v for k, v in REQUEST.items() if k not in ("tools", "tool_choice")}
    answer = read({"content": None, "tool_calls": [ADD]}, request=request)
    assert answer.fault is Fault.SUPPLIER_PROTOCOL and "no tools were offered" in str(answer.error)


# ------------------------------------------------------------------------------------------- streams

pieces = st.lists(st.integers(1, 9), max_size=8)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "sub"]), st.text(max_size=20), pieces), max_size=4), st.data()
)
def test_a_streamed_answer_is_the_plain_one(calls: list[tuple[str, str, list[int]]], data: Any) -> None:
    """Calls in pieces of any size, those of several calls mixed as they like, in order within each."""
    queues = []
    for index, (name, arguments, sizes) in enumerate(calls):
        parts, at = [], 0
        for size in sizes:
            parts.append(arguments[at : at + size])
            at += size
        parts.append(arguments[at:])
        head = {"index": index, "id": f"c{index}", "type": "function"}
        queues.append(
            [{**head, "function": {"name": name, "arguments": ""}}]
            + [{"index": index, "function": {"arguments": part}} for part in parts]
        )
    deltas = []
    while any(queues):
        queue = data.draw(st.sampled_from([q for q in queues if q]))
        deltas.append({"tool_calls": [queue.pop(0)]})
    whole = [{"function": {"name": name, "arguments": arguments}} for name, arguments, _ in calls]
    plain = read({"content": None, "tool_calls": whole} if whole else {"content": None})
    assert streamed(deltas) == plain


def test_calls_without_an_index_are_told_apart_by_id_or_name() -> None:
    first = {"id": "1", "function": {"name": "add", "arguments": '{"a'}}
    more = {"function": {"arguments": '": 1}'}}
    second = {"id": "2", "function": {"name": "add", "arguments": "{}"}}
    found = message_of(streamed([{"tool_calls": [first]}, {"tool_calls": [more]}, {"tool_calls": [second]}]))
    assert found.tool_calls == (ToolCall("add", '{"a": 1}'), ToolCall("add", "{}"))


@pytest.mark.parametrize("odd", [7, {"index": 0}, {"index": 0, "function": 3}, "x"])
def test_a_piece_that_is_no_call_is_the_suppliers_fault(odd: Any) -> None:
    assert streamed([{"tool_calls": [odd]}]).fault is Fault.SUPPLIER_PROTOCOL


def test_what_is_thought_streamed_beside_calls_is_no_answer() -> None:
    deltas = [{"reasoning_content": "so"}, {"tool_calls": [{"index": 0, **ADD}]}]
    answer = streamed(deltas)
    assert answer.reasoning == "so" and message_of(answer).content is None
