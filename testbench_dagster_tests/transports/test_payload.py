"""Payloads equal lm-eval's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.payload import RequestError, build_payload

texts = st.text(max_size=8)
generation = st.fixed_dictionaries(
    {},
    optional={
        "until": st.one_of(st.none(), texts, st.lists(texts, max_size=7)),
        "max_gen_toks": st.integers(1, 4096),
        "max_tokens": st.integers(1, 4096),
        "temperature": st.one_of(st.just(0), st.floats(0, 2)),
        "do_sample": st.booleans(),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 50),
        "seed": st.integers(0, 9),
        "stop_token_ids": st.lists(st.integers(0, 9), max_size=3),
    },
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": texts}), min_size=1
)


def client(name: str) -> Any:
    """An lm-eval client without its constructor, which needs a tokenizer or a server."""
    from lm_eval.models import openai_completions

    made = object.__new__(getattr(openai_completions, name))
    made.model = "m"
    made._max_gen_toks = 256
    return made


@settings(deadline=None)
@given(messages, generation)
def test_chat_equals_lm_eval(messages: list[dict[str, str]], generation: dict[str, Any]):
    request = {"type": "generate_until", "idx": 0, "messages": messages, "generation": generation}
    before = copy.deepcopy(request)
    path, payload = build_payload(request, "chat", "m")
    theirs = client("LocalChatCompletion")._create_payload(
        messages, generate=True, gen_kwargs=copy.deepcopy(generation), seed=1234, eos=None
    )
    assert path == "/chat/completions"
    assert payload == theirs and list(payload) == list(theirs)
    assert request == before


@settings(deadline=None)
@given(texts, generation)
def test_completion_equals_lm_eval(prompt: str, generation: dict[str, Any]):
    request = {"type": "generate_until", "idx": 0, "prompt": prompt, "generation": generation}
    path, payload = build_payload(request, "completions", "m")
    theirs = client("LocalCompletionsAPI")._create_payload(
        prompt, generate=True, gen_kwargs=copy.deepcopy(generation), seed=1234, eos=None
    )
    assert path == "/completions"
    assert payload == theirs and list(payload) == list(theirs)


@settings(deadline=None)
@given(texts, texts)
def test_loglikelihood_equals_lm_eval(context: str, continuation: str):
    request = {"type": "loglikelihood", "idx": 0, "context": context, "continuation": continuation}
    path, payload = build_payload(request, "completions", "m")
    theirs = client("LocalCompletionsAPI")._create_payload(context + continuation, generate=False, seed=1234)
    assert path == "/completions"
    assert payload == theirs and list(payload) == list(theirs)


@pytest.mark.parametrize(
    ("request_", "api"),
    [
        ({"type": "loglikelihood", "context": "a", "continuation": "b"}, "chat"),
        ({"type": "generate_until", "prompt": "a", "generation": {}}, "chat"),
        ({"type": "generate_until", "messages": [], "generation": {}}, "completions"),
        ({"type": "generate_until", "prompt": "a", "generation": {"until": ("x",)}}, "completions"),
        ({"type": "loglikelihood_rolling"}, "completions"),
    ],
)
def test_unfit_requests_are_refused(request_: dict[str, Any], api: Any):
    with pytest.raises(RequestError):
        build_payload(request_, api, "m")
