"""Echoed log-probabilities: lossless tokens, the legacy shape, and sums equal to what clients compute."""

import json
import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.localnet.answers import chosen_answer, starter_questions
from testbench_dagster.localnet.logprobs import (
    count_tokens,
    echo_logprobs,
    loglikelihood,
    score_tokens,
    tokenize,
)
from testbench_dagster.localnet.personas import Backend
from testbench_dagster.tasks.starter import CHOICE_TASK
from testbench_dagster.tasks.starter.loader import read_docs

BACKEND = Backend("model", 0.6)
CHOICES = read_docs(CHOICE_TASK, "test")
SHOT = read_docs(CHOICE_TASK, "train")[0]


def context_of(doc):
    return f"Question: {SHOT['question']}\nAnswer: {SHOT['answer']}\n\nQuestion: {doc['question']}\nAnswer:"


def client_sum(body, context):
    """What a client computes that knows nothing but the response and its own context."""
    logprobs = json.loads(orjson.dumps(body))["logprobs"]
    begin = logprobs["text_offset"].index(len(context))
    values, tops = logprobs["token_logprobs"][begin:-1], logprobs["top_logprobs"][begin:-1]
    return sum(values), all(value == max(top.values()) for value, top in zip(values, tops, strict=True))


@given(st.text(max_size=200))
def test_tokens_joined_are_the_text(text):
    tokens = tokenize(text)
    assert "".join(token for token, _ in tokens) == text
    assert count_tokens(text) == len(tokens)
    assert all(text.startswith(token, offset) for token, offset in tokens)
    assert all("\n" not in token or token == "\n" for token, _ in tokens)


def test_tokens_look_like_a_byte_pair_tokenizers():
    assert [t for t, _ in tokenize("The  screwdrivers cost 12345.")] == [
        "The", " ", " screwdr", "ivers", " cost", " 123", "45", "."
    ]  # fmt: skip


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=30), st.integers(0, 3))
def test_loglikelihood_equals_the_clients_sum(context, continuation, seed):
    body = echo_logprobs(seed, BACKEND, context + continuation)
    if len(context) in body["logprobs"]["text_offset"]:
        assert loglikelihood(seed, BACKEND, context, continuation) == client_sum(body, context)
    else:
        with pytest.raises(ValueError, match="straddles"):
            loglikelihood(seed, BACKEND, context, continuation)


def test_known_choices_equal_the_clients_sum_too():
    for doc in CHOICES[:40]:
        context = context_of(doc)
        for choice in doc["choices"]:
            body = echo_logprobs(5, BACKEND, f"{context} {choice}")
            assert loglikelihood(5, BACKEND, context, f" {choice}") == client_sum(body, context)


def test_sums_are_exact_in_any_order():
    values = [item.logprob for item in score_tokens(0, BACKEND, "word " * 400)]
    assert sum(values) == sum(reversed(values)) == math.fsum(values)


def test_preferred_choice_wins_by_sum_per_character_and_greedily():
    known = {question.text: question for question in starter_questions()}
    for doc in CHOICES:
        preferred = chosen_answer(2, BACKEND, known[doc["question"]])
        scores = {c: loglikelihood(2, BACKEND, context_of(doc), f" {c}") for c in doc["choices"]}
        assert max(scores, key=lambda c: scores[c][0]) == preferred
        assert max(scores, key=lambda c: scores[c][0] / len(c)) == preferred
        assert [c for c in scores if scores[c][1]] == [preferred]


def test_accuracy_of_the_backend_decides_how_often_gold_wins():
    for share in (0.0, 0.5, 1.0):
        backend = Backend("b", 0.3, {CHOICE_TASK: share})
        right = sum(
            max(doc["choices"], key=lambda c: loglikelihood(0, backend, context_of(doc), f" {c}")[0])
            == doc["answer"]
            for doc in CHOICES
        )
        assert abs(right / len(CHOICES) - share) <= 0.08 * (0 < share < 1)


def test_shape_is_openais_legacy_one():
    body = echo_logprobs(0, BACKEND, "Some words of a prompt", top=3)
    logprobs = body["logprobs"]
    assert body["text"] == "Some words of a prompt\n" == "".join(logprobs["tokens"])
    assert len({len(logprobs[key]) for key in logprobs}) == 1
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    for token, value, top in list(
        zip(*(logprobs[k] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True)
    )[1:]:
        assert top[token] == value <= max(top.values()) < 0
        assert 3 <= len(top) <= 4


def test_no_tops_and_no_generated_token_on_request():
    body = echo_logprobs(0, BACKEND, "Some words", top=0, max_tokens=0)
    assert body["text"] == "Some words"
    assert body["logprobs"]["top_logprobs"] is None
    assert echo_logprobs(0, BACKEND, "", max_tokens=0)["logprobs"]["tokens"] == []


def test_scores_depend_on_seed_backend_and_preceding_text():
    def last(seed=0, name="a", text="x y z"):
        return score_tokens(seed, Backend(name), text)[-1].logprob

    assert len({last(), last(seed=1), last(name="b"), last(text="w y z")}) == 4
    whole, part = score_tokens(0, BACKEND, "one two three"), score_tokens(0, BACKEND, "one two")
    assert whole[:2] == part


def test_empty_sides_are_refused():
    for context, continuation in (("", "x"), ("x", "")):
        with pytest.raises(ValueError, match="neither empty"):
            loglikelihood(0, BACKEND, context, continuation)
