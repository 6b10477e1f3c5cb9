"""What a stream tells of its timing, whatever is in it: only what a reader sees is a token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.transports.event_streams import MAX_EVENTS, EventStream
from testbench_dagster.transports.stream_listener import StreamListener
from testbench_dagster_tests.streaming import DONE, event, usage

ROLE = event({"role": "assistant", "content": ""})


def said(text: str, **beside: Any) -> bytes:
    return event({"content": text}, **beside)


def thought(text: str, field: str = "reasoning_content") -> bytes:
    return event({field: text})


def heard(*pieces: bytes, api: Any = "chat") -> StreamWatch:
    """What is told of pieces that arrive 10 ms after one another, the first after 10 ms."""
    watch = StreamWatch()
    listener = StreamListener(watch, api)
    for number, piece in enumerate(pieces, 1):
        listener.feed(piece, 10.0 * number)
    listener.finish()
    return watch


def test_a_role_alone_is_an_event_and_no_token() -> None:
    watch = heard(ROLE, said("Hel"), said("lo"), event({}, "stop"), usage(), DONE)
    assert (watch.first_event_ms, watch.first_token_ms, watch.first_answer_ms) == (10, 20, 20)
    assert (watch.last_token_ms, watch.events, watch.arrivals) == (30, 5, 2)
    assert (watch.first_bytes, watch.shown_bytes, watch.thought_bytes) == (3, 5, 0)
    assert watch.text == "Hello"
    assert watch.told_usage == {"prompt_tokens": 90, "completion_tokens": 3}


@pytest.mark.parametrize(
    "early",
    [" ", "\n\n", "\u200b", "\u2060\ufeff", "\u0000", "\x1b", "<think>", "\n<think>\n", "[THINK]", ""],
)
def test_what_nobody_sees_is_no_token(early: str) -> None:
    watch = heard(said(early), said("word"), event({}, "stop"), DONE)
    assert watch.first_event_ms == 10
    assert watch.first_token_ms == 20


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_are_tokens_and_no_answer(field: str) -> None:
    watch = heard(ROLE, thought("so ", field), thought("be it", field), said("yes"), event({}, "stop"), DONE)
    assert (watch.first_token_ms, watch.first_answer_ms, watch.last_token_ms) == (20, 40, 40)
    assert (watch.thought_bytes, watch.shown_bytes, watch.text) == (8, 11, "yes")


@pytest.mark.parametrize(
    ("pieces", "first", "answer"),
    [
        (("<think>", "well", "</think>", "\n\n", "yes"), 20, 50),
        (("<think>well</think>yes",), 10, 10),
        (("well, ", "so</think>", " ", "yes"), 10, 40),  # opened by the prompt
        (("<think>", "for ever"), 20, None),
        (("yes, ", "<think> is a tag"), 10, 10),
    ],
)
def test_thoughts_between_tags(pieces: tuple[str, ...], first: float, answer: float | None) -> None:
    watch = heard(*map(said, pieces), event({}, "stop"), DONE)
    assert (watch.first_token_ms, watch.first_answer_ms) == (first, answer)


def test_completions_and_answers_in_one_event() -> None:
    whole = b'data: {"choices": [{"index": 0, "text": "all of it", "finish_reason": "stop"}]}\n\n'
    watch = heard(whole, DONE, api="completions")
    assert (watch.first_token_ms, watch.last_token_ms, watch.arrivals) == (10, 10, 1)
    assert watch.first_bytes == watch.shown_bytes == 9


def test_a_stream_that_breaks_off_tells_what_came() -> None:
    watch = heard(ROLE, said("half an "), said("ans")[:-9])
    assert (watch.first_token_ms, watch.last_token_ms, watch.text) == (20, 20, "half an ")
    assert (
        heard(ROLE, said("half "), said("whole").rstrip(b"\n")).last_token_ms == 30
    )  # the last lacks its end


@pytest.mark.parametrize("body", [b"", b"{}", b'{\n"choices": []}', b"<html>\n</html>", b"\xff\xfe\n\n"])
def test_what_is_no_stream_tells_of_none(body: bytes) -> None:
    watch = heard(body)
    assert (watch.events, watch.first_event_ms, watch.first_token_ms, watch.text) == (0, None, None, None)


def test_a_megabyte_of_nothing_is_no_token() -> None:
    empty = b": ping\n\ndata: \n\n" * 65_536
    watch = heard(empty, event({"content": ""}) * 1_000, said("at last"), event({}, "stop"), DONE)
    assert (watch.first_event_ms, watch.first_token_ms, watch.arrivals) == (20, 30, 1)


def test_more_events_than_any_answer_has_end_the_listening() -> None:
    stream, short = EventStream("chat"), b'data: {"choices":[]}\n\n'
    watch = StreamWatch()
    listener = StreamListener(watch, "chat")
    for number in range(3):
        listener.feed(short * (MAX_EVENTS // 2), 10.0 * number)
    listener.feed(said("too late"), 40)
    listener.finish()
    assert watch.first_token_ms is None and watch.events == MAX_EVENTS + 1
    assert stream.characters == (0, 0)


def test_a_watch_is_used_again() -> None:
    watch = heard(said("once"), DONE)
    StreamListener(watch, "chat").finish()
    assert watch == StreamWatch()


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_nothing_that_arrives_is_raised(pieces: list[bytes]) -> None:
    heard(*pieces)
    heard(*(b"data: " + piece + b"\n\n" for piece in pieces))


_TEXTS = st.text(max_size=6)
_DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, _TEXTS),
    st.builds(lambda text: {"reasoning": text}, _TEXTS),
    st.just({"role": "assistant"}),
)


@given(st.lists(_DELTAS, max_size=12), st.data())
def test_however_packets_are_cut_the_same_is_seen(deltas: list[dict[str, str]], data: st.DataObject) -> None:
    """All that does not depend on when it arrived."""
    whole = b"".join([*map(event, deltas), event({}, "stop"), usage(), DONE])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    one, other = heard(whole), heard(*pieces)
    for name in ("events", "shown_bytes", "thought_bytes", "text", "told_usage"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.first_token_ms is None) is (other.first_token_ms is None)
    texts = "".join(delta.get("content", "") for delta in deltas)
    if one.first_token_ms is not None:
        assert one.text == (json.loads(json.dumps(texts)) or None)
