"""Replayed answers: what must be one is caught, what may be an honest coincidence is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbench_dagster.transports.pocket import replays
from testbench_dagster.transports.pocket.messages import HttpResponse
from testbench_dagster.transports.pocket.replays import DATED_S, Replays

UUID = "chatcmpl-0123456789abcdef"


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(replays, "time", made)
    return made


def body_of(**values: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"content": "A"}}], **values}).encode()


def asked(seen: Replays, clock: Clock, body: bytes, question: bytes, *, date: bool = False) -> bool:
    """One exchange of an answer signed by ``s``, begun and ended now."""
    headers = {"Date": ["Tue, 24 Nov 2026 14:00:00 GMT"]} if date else {}
    return seen.caught(b"s", question, clock.now, HttpResponse(200, headers, body), body, "chat")


@pytest.mark.parametrize(
    ("values", "date", "at_once", "later"),
    [
        ({"id": UUID}, False, True, True),
        ({"id": UUID, "created": 5}, False, True, True),
        ({"id": "chatcmpl-42", "created": 5}, False, False, True),  # one of a thousand ids
        ({"created": 5}, False, False, True),
        ({}, True, False, True),
        ({}, False, False, False),  # nothing tells it from an honest "A"
        ({"id": "", "created": None}, False, False, False),
        ({"id": 7}, False, False, False),
    ],
)
def test_an_answer_to_another_question(
    clock: Clock, values: dict[str, Any], date: bool, at_once: bool, later: bool
):
    seen, body = Replays(), body_of(**values)
    assert not asked(seen, clock, body, b"q1", date=date)
    assert asked(seen, clock, body, b"q2", date=date) is at_once
    clock.now += DATED_S + 0.1
    assert asked(seen, clock, body, b"q3", date=date) is later
    assert not asked(seen, clock, body, b"q1", date=date)  # the question it was given to


def test_streams_are_told_apart_by_their_chunks_id(clock: Clock):
    chunk = {"id": UUID, "choices": [{"index": 0, "delta": {"content": "A"}, "finish_reason": "stop"}]}
    body = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    seen = Replays()
    assert not asked(seen, clock, body, b"q1")
    assert asked(seen, clock, body, b"q2")


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"data: {\n\n"])
def test_bodies_that_say_nothing(clock: Clock, body: bytes):
    seen = Replays()
    assert not asked(seen, clock, body, b"q1")
    assert not asked(seen, clock, body, b"q2")


def test_memory_is_bounded(clock: Clock):
    seen, body = Replays(max_seen=10), body_of(id=UUID)
    answer = HttpResponse(200, {}, body)
    for number in range(100):
        assert not seen.caught(b"s%d" % number, b"q", clock.now, answer, body, "chat")
    assert len(seen._seen) == 10
    assert seen.caught(b"s99", b"other", clock.now, answer, body, "chat")
    assert not seen.caught(b"s1", b"other", clock.now, answer, body, "chat")  # long ago
