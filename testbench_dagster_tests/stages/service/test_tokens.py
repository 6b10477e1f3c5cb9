"""Whose count of an answer's tokens is taken, and how many of them came after the first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.stages.service.tokens import AnswerTokens, answer_tokens, cached_tokens

NOW = datetime.now(UTC)


def attempt(completion: int | None, reasoning: int | None = None, **more: Any) -> Attempt:
    return Attempt(Fault.OK, NOW, NOW, 1.0, completion_tokens=completion, reasoning_tokens=reasoning, **more)


def seen(shown: int, first: int = 0, thoughts: int = 0, arrivals: int = 2) -> StreamWatch:
    return StreamWatch(arrivals=arrivals, shown_bytes=shown, first_bytes=first, thought_bytes=thoughts)


@pytest.mark.parametrize(
    ("told", "watch", "limit", "expected"),
    [
        # 300 tokens of 1,200 bytes, the first of 4
        (attempt(300), seen(1_200, 4), 300, AnswerTokens(300, "usage", 299)),
        # half of it came in one piece before the clock runs
        (attempt(300), seen(1_200, 600), 300, AnswerTokens(300, "usage", 150)),
        (attempt(300), seen(1_200, 1_200, arrivals=1), 300, AnswerTokens(300, "usage", None)),
        (attempt(None), seen(1_200, 4), 300, AnswerTokens(300, "estimated", 299)),
        # a token is a byte at least, and those beyond that leave no trace are few
        (attempt(110), seen(100, 10), 300, AnswerTokens(110, "usage", 99)),
        (attempt(200), seen(100, 10), 300, AnswerTokens(25, "estimated", 22, 200)),
        # nor are there more than were asked for, unless no limit was sent
        (attempt(400), seen(1_200, 4), 300, AnswerTokens(300, "estimated", 299, 400)),
        (attempt(400), seen(1_200, 4), None, AnswerTokens(400, "usage", 399)),
        # thoughts that are counted and not shown came before the first token
        (attempt(900, 600), seen(1_200, 4), 1_000, AnswerTokens(900, "usage", 299)),
        # shown ones are tokens as all others, and a summary of them hides the rest
        (attempt(900, 600), seen(3_600, 4, 2_400), 1_000, AnswerTokens(900, "usage", 899)),
        (attempt(900, 600), seen(1_300, 0, 100), 1_000, AnswerTokens(900, "usage", 400)),
        # and no hidden ones are believed beyond what was asked for
        (attempt(9_000, 8_900), seen(400, 4), 300, AnswerTokens(100, "estimated", 99, 9_000)),
        (attempt(0), seen(100, 10), 300, AnswerTokens(25, "estimated", 22, 0)),
        (attempt(0), StreamWatch(), 300, AnswerTokens(0, "usage", None)),
        (attempt(None), StreamWatch(), 300, AnswerTokens()),
        (attempt(500), StreamWatch(), 300, AnswerTokens(disbelieved=500)),
        # of a plain answer its text is what arrived
        (
            attempt(4, text="four words in all"),
            StreamWatch(stream=False),
            300,
            AnswerTokens(4, "usage", None),
        ),
        (attempt(None, text="x" * 40), StreamWatch(stream=False), 300, AnswerTokens(10, "estimated", None)),
        (attempt(90, 80, text="x" * 20), StreamWatch(stream=False), 300, AnswerTokens(90, "usage", None)),
        (attempt(90, text="x" * 20), StreamWatch(stream=False), 300, AnswerTokens(5, "estimated", None, 90)),
    ],
)
def test_counts(told: Attempt, watch: StreamWatch, limit: int | None, expected: AnswerTokens) -> None:
    assert answer_tokens(told, watch, limit) == expected


@given(
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | st.integers(0, 2**31 - 1),
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 3),
)
def test_whatever_is_told_it_is_bounded(
    completion: int | None, reasoning: int | None, shown: int, first: float, thoughts: float, arrivals: int
) -> None:
    shown = shown if arrivals else 0
    watch = seen(shown, int(first * shown), int(thoughts * shown), arrivals)
    found = answer_tokens(attempt(completion, reasoning), watch, 300)
    if found.completion is not None:
        assert 0 <= found.completion <= max(316, shown / 4 + 1)
        assert found.source in ("usage", "estimated")
    if found.after_first is not None:
        assert arrivals > 1 and 0 <= found.after_first <= (found.completion or 0)
    assert (found.completion is None) is (found.source is None)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 64}}, 64),
        ({"prompt_cache_hit_tokens": 7}, 7),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, None),
        ({"prompt_tokens_details": {"cached_tokens": 1e15}}, None),
        ({"prompt_tokens_details": {"cached_tokens": True}}, None),
        ({"prompt_tokens_details": [1]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_tokens_kept_from_before(usage: Any, tokens: int | None) -> None:
    assert cached_tokens(usage) == tokens
