"""Payloads equal lm-eval's own."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.answer_prefix import is_deterministic
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration, generation_of
from testbench_dagster.transports.payload import (
    Api,
    RequestError,
    asked_otherwise,
    build_payload,
    request_shape,
)

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


@given(messages, generation, generation)
def test_requests_that_send_the_same_parameters_have_one_shape(
    messages: list[dict[str, str]], one: dict[str, Any], other: dict[str, Any]
) -> None:
    """The shape follows from what is sent: a supplier sees nothing else, and can refuse nothing else."""
    requests = [{"type": "generate_until", "messages": messages, "generation": g} for g in (one, other)]
    sent = [build_payload(request, "chat", "m")[1] for request in requests]
    names = [{n for n, v in body.items() if n != "stop" or v} for body in sent]
    shapes = [request_shape(request, "chat") for request in requests]
    assert (shapes[0] == shapes[1]) is (names[0] == names[1])


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


# -------------------------------------------------------------------------------------- suppliers' settings

ASKED = {
    "until": ["\n\n", "Q:", "A:", "B:", "C:"],
    "max_gen_toks": 100,
    "temperature": 0.0,
    "do_sample": False,
}
CHAT = {
    "type": "generate_until",
    "idx": 0,
    "messages": [{"role": "user", "content": "q"}],
    "generation": ASKED,
}
TEXT = {"type": "generate_until", "idx": 0, "prompt": "q", "generation": ASKED}
CHOICE = {"type": "loglikelihood", "idx": 0, "context": "a", "continuation": " b"}


def sent(request: dict[str, Any], api: Api, **settings: Any) -> dict[str, Any]:
    return build_payload(request, api, "m", SupplierGeneration(**settings))[1]


@settings(deadline=None)
@given(texts, messages, generation, st.sampled_from(["chat", "completions"]))
def test_settings_that_change_nothing_change_no_byte(
    prompt: str, told: list[dict[str, str]], asked: dict[str, Any], api: Api
):
    request = {"type": "generate_until", "idx": 0, "prompt": prompt, "messages": told, "generation": asked}
    plain = build_payload(request, api, "m")
    assert orjson.dumps(build_payload(request, api, "m", SupplierGeneration())) == orjson.dumps(plain)
    assert asked_otherwise(request, api, SupplierGeneration()) is None


def test_each_setting_changes_its_own_field_in_its_place():
    plain = build_payload(CHAT, "chat", "m")[1]
    assert list(plain) == ["messages", "model", "max_tokens", "temperature", "stop", "seed"]
    assert plain["stop"] == ASKED["until"][:4]
    renamed = sent(CHAT, "chat", token_field="max_completion_tokens", budget=16384)
    assert list(renamed) == ["messages", "model", "max_completion_tokens", "temperature", "stop", "seed"]
    assert renamed["max_completion_tokens"] == 16484
    assert "max_tokens" not in sent(CHAT, "chat", token_field="omit", budget=5)
    assert sent(CHAT, "chat", temperature=0.6)["temperature"] == 0.6
    assert sent(CHAT, "chat", temperature="omit", seed="omit").keys() == plain.keys() - {
        "temperature",
        "seed",
    }
    assert sent(CHAT, "chat", seed=7)["seed"] == 7
    assert "stop" not in sent(CHAT, "chat", stop="client")
    assert sent(CHAT, "chat", stop=2)["stop"] == ["\n\n", "Q:"]
    assert sent(TEXT, "completions", stop=4)["stop"] == ASKED["until"][:4]
    assert "stop" not in sent(CHAT, "chat", stop=0)
    without = {**CHAT, "generation": {"until": None}}
    assert build_payload(without, "chat", "m")[1]["stop"] == []
    assert "stop" not in sent(without, "chat", stop=4)
    assert sent(CHAT, "chat", effort="low")["reasoning_effort"] == "low"


def test_an_extra_body_comes_last_and_wins_where_it_may():
    more = {"temperature": 1, "provider": {"order": ["a"], "allow_fallbacks": False}}
    found = sent(CHAT, "chat", extra_body=more, temperature=0.6)
    assert (
        found["temperature"] == 1 and list(found)[-1] == "provider" and found["provider"] == more["provider"]
    )
    for name in ("messages", "prompt", "model", "stream", "echo"):
        with pytest.raises(ValueError, match=name):
            SupplierGeneration(extra_body={name: "x"})


def test_requests_for_log_probabilities_obey_all_but_budget_effort_and_stop():
    found = sent(
        CHOICE,
        "completions",
        budget=100,
        effort="low",
        stop="client",
        seed="omit",
        temperature="omit",
        token_field="max_completion_tokens",
        extra_body={"a": 1},
    )
    assert found == {
        "model": "m", "prompt": "a b", "max_completion_tokens": 1, "logprobs": 1, "echo": True, "a": 1,
    }  # fmt: skip


@settings(deadline=None)
@given(generation, st.integers(0, 9), st.sampled_from(["chat", "completions"]))
def test_the_sent_limit_is_the_tasks_and_the_budget(asked: dict[str, Any], budget: int, api: Api):
    request = {"type": "generate_until", "idx": 0, "prompt": "", "messages": [], "generation": asked}
    limit = build_payload(request, api, "m")[1]["max_tokens"]
    assert sent(request, api, budget=budget)["max_tokens"] == limit + budget


def test_a_budget_needs_a_limit_that_is_a_number():
    with pytest.raises(RequestError, match="no budget can be added"):
        sent({**TEXT, "generation": {"max_gen_toks": "many"}}, "completions", budget=1)


@pytest.mark.parametrize(
    ("settings_", "request_", "said"),
    [
        ({"budget": 5}, CHAT, True),
        ({"budget": 5, "effort": "low", "stop": 0}, CHOICE, False),
        ({"stop": 4}, CHAT, False),
        ({"stop": 4}, {**CHAT, "generation": {"until": []}}, True),
        ({"temperature": 0.0}, CHAT, False),
        ({"temperature": 0}, CHAT, True),
        ({"seed": 1234}, CHOICE, False),
        ({"seed": "omit"}, CHOICE, True),
    ],
)
def test_evidence_says_what_differs_and_nothing_where_nothing_does(
    settings_: dict[str, Any], request_: dict[str, Any], said: bool
):
    wanted = SupplierGeneration(**settings_)
    api: Api = "completions" if request_ is CHOICE else "chat"
    found = asked_otherwise(request_, api, wanted)
    assert found == (settings_ if said else None)
    assert generation_of({"generation": found}) == (wanted if said else AS_THE_TASK_SAYS)


@pytest.mark.parametrize("said", [1, [], {"nonsense": 1}, {"budget": "x"}, {"extra_body": {"prompt": 1}}])
def test_evidence_that_names_other_settings_is_refused(said: Any):
    with pytest.raises(ValueError, match=r"must|no setting|may not"):
        generation_of({"generation": said})


@pytest.mark.parametrize(
    ("settings_", "certain"),
    [
        ({}, True),
        ({"temperature": 0}, True),
        ({"temperature": "omit"}, False),
        ({"temperature": 0.6}, False),
        ({"extra_body": {"temperature": 1}}, False),
        ({"budget": 9}, True),
    ],
)
def test_answers_are_compared_only_where_they_were_asked_for_at_temperature_0(
    settings_: dict[str, Any], certain: bool
):
    assert is_deterministic(CHAT, SupplierGeneration(**settings_)) is certain
