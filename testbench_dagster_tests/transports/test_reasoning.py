"""Thoughts and answers told apart, whatever a text holds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.reasoning import reasoning_of, split_parts, split_text

THINK = "<think>a</think>"


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("plain", "", "plain"),
        (" plain ", "", " plain "),
        ("", "", ""),
        (f"{THINK}\n\n b ", THINK, "b "),
        (f" \n{THINK}b", f" \n{THINK}", "b"),
        (f"{THINK}{THINK} b", THINK * 2, "b"),
        ("<think></think>b", "<think></think>", "b"),
        ("<think>a", "<think>a", ""),
        (f"{THINK}b <think>c</think>", THINK, "b <think>c</think>"),
        ("a</think>b", "a</think>", "b"),
        ("a</think>b</think>c", "a</think>b</think>", "c"),
        ("<think>a <think> b</think> c</think> d", "<think>a <think> b</think> c</think>", "d"),
        ("b <think>", "", "b <think>"),
        ("b <think>c</think> d", "", "b <think>c</think> d"),
        ("<thinking>a</think>b</thinking>c", "<thinking>a</think>b</thinking>", "c"),
        ("a</thinking>b", "", "a</thinking>b"),  # nothing opened it: a text may say so
        ("a</reasoning>b", "", "a</reasoning>b"),
        ("a[/THINK]b", "a[/THINK]", "b"),
        ("<Think>a</THINK>b", "<Think>a</THINK>", "b"),
        ("İ<think>a</think>b", "", "İ<think>a</think>b"),
        ("<think>İ</think>b", "<think>İ</think>", "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", "a", "b"),
        ("<|channel|>final<|message|>b<|return|>", "", "b"),
        ("<|channel|>analysis<|message|>a", "a", ""),
        ("<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>", "{}", ""),
        ("analysis of the text: assistant final", "", "analysis of the text: assistant final"),
        ("an analysis assistantfinal b", "", "an analysis assistantfinal b"),
    ],
)
def test_where_thoughts_end(text: str, thoughts: str, answer: str) -> None:
    assert split_text(text) == (thoughts, answer)


TAGGED = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thinking>", "</thinking>", "[THINK]", "[/THINK]", " ", "a", "<", "İ"]
    )
    | st.sampled_from(["<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "assistantfinal"])
    | st.text(max_size=3),
    max_size=20,
).map("".join)


@settings(deadline=None)
@given(TAGGED, st.sampled_from([None, False, "</think>", "a"]))
def test_the_answer_is_the_end_of_the_text_and_nothing_is_made_up(text: str, rule: Any) -> None:
    thoughts, answer = split_text(text, rule)
    if rule is False:
        assert (thoughts, answer) == ("", text)
    if "<|channel|>" not in text:
        assert text.endswith(answer)
        assert len(thoughts) + len(answer) <= len(text)
        # nothing is found in what was found
        if rule is None and not answer.lstrip().startswith("analysis"):
            assert split_text(answer) == ("", answer)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="<[◁"), max_size=60))
def test_a_text_without_tags_is_never_changed(text: str) -> None:
    if not text.lstrip().startswith("analysis"):
        assert split_text(text) == ("", text)


def test_parts() -> None:
    found = split_parts(
        [
            {"type": "text", "text": "a"},
            {"type": "thinking", "thinking": [{"type": "text", "text": "b"}, "c"]},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "refusal", "refusal": "no"},
            "d",
            7,
            None,
        ]
    )
    assert (found.text, found.reasoning, found.refusal, found.other) == ("ad", "bc", "no", True)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({}, ""),
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "a", "reasoning_content": "ab"}, "ab"),
        ({"reasoning_details": [{"text": "a"}, {"summary": "b"}, {"data": "x"}]}, "ab"),
        ({"reasoning": {"content": [{"text": "a"}]}}, "a"),
        ({"reasoning": 7, "thinking": True, "reasoning_content": None}, ""),
        ({"reasoning": [[[[[["deep"]]]]]]}, ""),
    ],
)
def test_fields(message: dict[str, Any], found: str) -> None:
    assert reasoning_of(message) == found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "text", "thinking", "reasoning", "summary", "refusal", "content"]), inner
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_no_shape_is_an_error(parts: list[Any]) -> None:
    split_parts(parts)
    reasoning_of({"reasoning_details": parts, "reasoning": parts})


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        THINK,
        "<",
        "</",
        "<t",
        "a",
        " ",
        "<|channel|>final",
        "<|channel|>final<|message|>",
        "<|channel|>final <|mess",
        "<think></thinking>",
        "analysis",
        "</think> <think>",
        "[/THINK][THINK]",
    ],
)
def test_a_hostile_text_takes_time_in_proportion_to_its_size(piece: str) -> None:
    took = []
    for size in (1_000_000, 8_000_000):
        text = piece * (size // len(piece)) + "think"
        began = time.thread_time()
        split_text(text)
        took.append(time.thread_time() - began)
    assert took[1] < max(30 * took[0], 2.0), took
