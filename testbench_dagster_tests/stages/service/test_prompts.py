"""Prompts of probes: as long as wanted, new from the first token on, with the hidden words in the middle."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.workloads import HIDDEN_WORDS, LONG_ANSWER
from testbench_dagster.stages.service.prompts import (
    HIDDEN_ANSWER_TOKENS,
    estimated_tokens,
    hiding_prompt,
    long_prompt,
)


@given(st.integers(100, 3_000), st.integers(0, 2**64))
def test_they_are_about_as_long_as_wanted(tokens: int, seed: int) -> None:
    """To about a sentence, of 25 tokens; what hides something has two lengths of them."""
    long, hiding = long_prompt(tokens, 300, Random(seed)), hiding_prompt(tokens, Random(seed))
    assert abs(long.tokens - tokens) <= 30 + 0.01 * tokens
    assert abs(hiding.tokens - tokens) <= 60 + 0.01 * tokens
    assert long.text.isascii() and hiding.text.isascii()


@pytest.mark.parametrize("tokens", [0, 1, 10, 60])
def test_too_short_ones_still_ask(tokens: int) -> None:
    assert LONG_ANSWER in long_prompt(tokens, 300, Random(1)).text
    prompt = hiding_prompt(tokens, Random(1))
    assert prompt.hidden and prompt.hidden in prompt.text


def test_no_two_have_a_beginning_in_common() -> None:
    texts = [long_prompt(100, 300, Random(seed)).text for seed in range(500)]
    assert len({text[:6] for text in texts}) > 490
    assert len({text[20:] for text in texts}) == 500, "nor what follows the nonce"


@given(st.integers(300, 3_000), st.integers(0, 2**64))
def test_what_is_hidden_stands_once_and_in_the_middle(tokens: int, seed: int) -> None:
    prompt = hiding_prompt(tokens, Random(seed))
    assert prompt.hidden is not None and prompt.text.count(prompt.hidden) == 1
    assert prompt.text.count(HIDDEN_WORDS) == 1
    assert 0.3 < prompt.text.index(prompt.hidden) / len(prompt.text) < 0.6
    assert prompt.answer_tokens == HIDDEN_ANSWER_TOKENS


def test_requests_in_both_forms() -> None:
    prompt = long_prompt(100, 300, Random(1))
    generation = {"until": [], "max_gen_toks": 300, "temperature": 0}
    assert prompt.request("completions") == {
        "type": "generate_until",
        "idx": 0,
        "prompt": prompt.text,
        "generation": generation,
    }
    assert prompt.request("chat")["messages"] == [{"role": "user", "content": prompt.text}]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("é你\ud800", 2)])
def test_tokens_by_bytes(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens
