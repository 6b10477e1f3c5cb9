"""The most tokens that a request can be billed for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration
from testbench_dagster.core.pace import estimated_parts
from testbench_dagster.core.token_bounds import (
    TEMPLATE_TOKENS,
    UNLIMITED_TOKENS,
    likely_tokens,
    most_tokens,
)


@given(st.text(max_size=80), st.lists(st.text(max_size=20), max_size=3))
def test_no_tokenizer_makes_more_tokens_than_bytes(prompt, further):
    """A byte-level tokenizer without a single merge is the worst there is."""
    messages = [{"role": "user", "content": text} for text in (prompt, *further)]
    request = {"type": "generate_until", "idx": 0, "messages": messages, "generation": {"max_gen_toks": 7}}
    most, answer = most_tokens(request, AS_THE_TASK_SAYS)
    read = sum(len(text.encode("utf-8", "surrogatepass")) for text in (prompt, *further))
    assert most >= read + TEMPLATE_TOKENS
    assert answer == 7
    assert most >= estimated_parts(request)[0]


@pytest.mark.parametrize(
    ("generation", "limit", "answer"),
    [
        (AS_THE_TASK_SAYS, {"max_gen_toks": 16}, 16),
        (AS_THE_TASK_SAYS, {"max_tokens": 5, "max_gen_toks": 16}, 5),
        (AS_THE_TASK_SAYS, {}, 256),
        (AS_THE_TASK_SAYS, {"max_gen_toks": "many"}, UNLIMITED_TOKENS),
        (AS_THE_TASK_SAYS, {"max_gen_toks": 0}, UNLIMITED_TOKENS),
        (AS_THE_TASK_SAYS, {"max_gen_toks": 16, "n": 3}, 48),
        (SupplierGeneration(budget=1000), {"max_gen_toks": 16}, 1016),
        (SupplierGeneration(token_field="omit"), {"max_gen_toks": 16}, UNLIMITED_TOKENS),
        (SupplierGeneration(extra_body={"max_tokens": 99}), {"max_gen_toks": 16}, 99),
        (SupplierGeneration(extra_body={"n": 4}), {"max_gen_toks": 16}, 64),
    ],
)
def test_the_longest_answer_is_what_the_request_that_is_sent_allows(generation, limit, answer):
    request = {"type": "generate_until", "idx": 0, "prompt": "x", "generation": limit}
    assert most_tokens(request, generation)[1] == answer


def test_all_that_a_model_reads_counts():
    plain = {"type": "chat", "idx": 0, "messages": [{"role": "user", "content": "x"}], "generation": {}}
    tools = {**plain, "tools": [{"type": "function", "function": {"name": "f" * 500}}]}
    assert most_tokens(tools, AS_THE_TASK_SAYS)[0] >= most_tokens(plain, AS_THE_TASK_SAYS)[0] + 500
    asked = replace(AS_THE_TASK_SAYS, extra_body={"system": "y" * 300})
    assert most_tokens(plain, asked)[0] >= most_tokens(plain, AS_THE_TASK_SAYS)[0] + 300
    options = {"type": "loglikelihood", "idx": 0, "context": "é" * 100, "continuation": "b" * 10}
    assert most_tokens(options, AS_THE_TASK_SAYS)[0] >= 210 + TEMPLATE_TOKENS
    assert most_tokens(options, AS_THE_TASK_SAYS)[1] == 1
    assert most_tokens({"type": "get", "idx": 0, "path": "/x"}, AS_THE_TASK_SAYS) == (0, 0)


def test_without_a_count_characters_are_counted():
    request = {"type": "generate_until", "idx": 0, "prompt": "a" * 41, "generation": {"max_gen_toks": 9}}
    assert likely_tokens(request, 5) == (11, 2)
