"""Event streams: assembled into the answer they streamed, refused when they are not whole."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.text import MAX_ERROR_CHARS
from testbench_dagster.transports import event_streams
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.event_streams import EventStream, StreamError, assemble, is_event_stream
from testbench_dagster.transports.payload import Api

GENERATE = {"type": "generate_until", "idx": 0, "messages": [], "generation": {}}
DONE = b"data: [DONE]\n\n"


def event(**values: Any) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


def delta(text: str | None, reason: str | None = None, **more: Any) -> bytes:
    """A chunk of a chat answer."""
    choice = {"index": 0, "delta": {"content": text, **more}, "finish_reason": reason}
    return event(id="c-1", object="chat.completion.chunk", created=7, model="m", choices=[choice])


def piece(text: str, reason: str | None = None) -> bytes:
    """A chunk of a completion."""
    return event(id="c-1", choices=[{"index": 0, "text": text, "finish_reason": reason}])


USAGE = event(id="c-1", choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2})
CHAT = delta("", role="assistant") + delta("Hel") + delta("lo") + delta(None, "stop") + USAGE + DONE


def read(body: bytes, api: Api = "chat") -> Any:
    return parse_answer(GENERATE, api, 200, body)


def test_a_chat_stream_is_read_as_the_answer_it_streamed():
    answer = read(CHAT)
    assert (answer.fault, answer.text, answer.finish_reason) == (Fault.OK, "Hello", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.error) == (5, 2, None)
    whole = assemble(CHAT, "chat")
    ordinary = {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    assert whole == ordinary
    assert read(json.dumps(whole).encode()) == answer


def test_a_stream_of_completions():
    answer = read(piece("4") + piece("2", "length") + DONE, "completions")
    assert (answer.fault, answer.text, answer.finish_reason) == (Fault.TRUNCATED, "42", "length")
    assert answer.prompt_tokens is None


@pytest.mark.parametrize(
    "body",
    [
        CHAT.replace(b"\n", b"\r\n"),
        CHAT.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + CHAT,
        b"\n\n" + CHAT,
        b": keep-alive\n\n" + CHAT,
        b"event: message\nid: 1\nretry: 5\n" + CHAT,
        CHAT.replace(b"data: {", b"data:{"),
        CHAT.removesuffix(b"\n\n"),
        CHAT.removesuffix(DONE),  # complete by its finish_reason
        CHAT + b"data: not looked at\n\n",
        # one event in two lines of data
        CHAT.replace(b'"created": 7,', b'"created":\ndata: 7,'),
    ],
)
def test_all_ways_to_frame_it(body: bytes):
    assert is_event_stream(body)
    answer = read(body)
    assert (answer.fault, answer.text) == (Fault.OK, "Hello"), answer


@given(cuts=st.lists(st.integers(0, len(CHAT)), max_size=30), line=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_however_it_is_cut_when_it_arrives(cuts: list[int], line: bytes):
    body = b"\xef\xbb\xbf" + CHAT.replace(b"\n", line)
    stream = EventStream("chat")
    places = [0, *sorted(cuts), len(body)]
    for start, end in pairwise(places):
        stream.feed(body[start:end])
    assert stream.text_begun
    assert stream.finish() == assemble(CHAT, "chat")


def test_text_begins_with_the_first_of_it():
    stream = EventStream("chat")
    stream.feed(delta("", role="assistant"))
    assert not stream.text_begun
    stream.feed(delta("H"))
    assert stream.text_begun


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (delta("Hel") + delta("lo"), "breaks off after 2 events"),
        (delta("Hel") + delta("lo", "stop")[:30], "no JSON"),
        (b"data: {\n\n", "event 1 of the stream is no JSON"),
        (b"data: [1]\n\n" + DONE, "a chunk no object"),
        (event(choices=3) + DONE, "choices that are no list"),
        (event(choices=[3]) + DONE, "a choice that is no object"),
        (event(choices=[{"delta": "x"}]) + DONE, "a delta that is no object"),
        (delta(7) + DONE, "a content that is no text"),  # type: ignore[arg-type]
        (DONE, "the event stream is empty"),
        (b": nothing\n\n", "the event stream is empty"),
        (USAGE + DONE, "no choice with index 0"),
        (event(choices=[{"index": 1, "delta": {"content": "x"}}]) + DONE, "no choice with index 0"),
        (delta("a") + b"<html>\n\n" + DONE, "a line that is no field of one"),
        (event(error={"message": "out of\x1b[31m memory"}), "HTTP 200 with an error: out of"),
        (delta("a") + event(error="no room") + delta("b", "stop") + DONE, "with an error: no room"),
    ],
)
def test_what_is_no_whole_answer_is_the_suppliers_fault(body: bytes, said: str):
    answer = read(body)
    assert answer.fault is Fault.SUPPLIER_PROTOCOL
    assert answer.error is not None and said in answer.error
    assert answer.error.isprintable() and len(answer.error) <= MAX_ERROR_CHARS


def test_refusals_filters_and_empty_answers_are_told_apart():
    assert read(delta(None, refusal="I will") + delta(None, "stop", refusal=" not") + DONE).fault is (
        Fault.SUPPLIER_REFUSED
    )
    assert read(delta("x", "content_filter") + DONE).fault is Fault.SUPPLIER_REFUSED
    assert (read(delta("", "stop") + DONE).fault, read(delta("", "stop") + DONE).text) == (Fault.OK, "")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"data": 1}', b"<html>", b"database: x", b"\xef\xbb", b"[]", b'"data:"', b"\n{}"]
)
def test_other_bodies_are_not_taken_for_streams(body: bytes):
    assert not is_event_stream(body)


def test_pages_are_never_streams():
    answer = parse_answer({"type": "get", "path": "/x"}, "chat", 200, CHAT)
    assert answer.fault is Fault.SUPPLIER_PROTOCOL
    assert answer.error is not None and "invalid JSON" in answer.error


def test_streams_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_streams, "MAX_EVENTS", 100)
    assert read(delta("x") * 99 + delta("x", "stop") + DONE).fault is Fault.OK
    answer = read(delta("x") * 101 + DONE)
    assert answer.error == "the event stream has more than 100 events"


def test_a_line_that_does_not_end_costs_no_more_than_its_length():
    """Joining it anew with every piece would take minutes."""
    stream = EventStream("chat")
    for _ in range(20_000):
        stream.feed(b"data: " + b"x" * 400)
    with pytest.raises(StreamError):
        stream.finish()


PIECES = st.sampled_from(
    [b"data: ", b"data:", b"\n", b"\r", b"\r\n", b"{", b"}", b"[DONE]", b'"', b":", b"\xff", b"\x00"]
) | st.sampled_from([delta("a"), delta(None, "stop"), USAGE, DONE, event(error=[[]]), event(id={})])


@settings(max_examples=300)
@given(st.lists(PIECES | st.binary(max_size=8), max_size=30), st.sampled_from(["chat", "completions"]))
def test_nothing_makes_it_raise(parts: list[bytes], api: Api):
    answer = read(b"data:" + b"".join(parts), api)
    assert isinstance(answer.fault, Fault)
    assert (answer.error is None) == answer.fault.answered
