"""Which parameter a refusal is about, as suppliers write it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.transports.refusals import named_parameters, sent_parameters

REQUEST = {
    "type": "generate_until", "idx": 0, "messages": [{"role": "user", "content": "temperature?"}],
    "generation": {"until": ["\n"], "max_gen_toks": 64, "temperature": 0.0, "do_sample": False, "min_p": 0.1},
}  # fmt: skip
SENT = ["max_tokens", "min_p", "seed", "stop", "temperature"]


def test_what_is_sent() -> None:
    assert sent_parameters(REQUEST, "chat") == SENT
    asked = {"type": "loglikelihood", "idx": 0, "context": "a", "continuation": " b"}
    assert sent_parameters(asked, "completions") == ["echo", "logprobs", "max_tokens", "seed", "temperature"]
    assert sent_parameters({"type": "get", "idx": 0, "path": "/pokt/config"}, "chat") == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported, 'stop' neither",
                       "param": "max_tokens", "code": "unsupported_parameter"}},
            ["max_tokens"],
        ),
        ({"error": {"message": "'temperature' does not support 0", "param": None}}, ["temperature"]),
        ({"error": {"message": "temperature: Input should be greater than 0", "type": "x"}}, ["temperature"]),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, ["seed"]),
        ({"message": "`min_p` and `seed` cannot be used together; stop it"}, ["min_p", "seed"]),
        ({"error": {"message": "model does not exist", "param": "model"}}, []),
        ({"error": "bad request: nonstop, max_tokens_per_day"}, []),
        ([1], []),
    ],
)  # fmt: skip
def test_what_refusals_say(body: object, named: list[str]) -> None:
    assert named_parameters(json.dumps(body).encode(), SENT) == named


@given(st.binary(max_size=300))
def test_whatever_a_body_holds_only_what_was_sent_is_named(body: bytes) -> None:
    assert set(named_parameters(body, SENT)) <= set(SENT)
    assert named_parameters(body + b" 'stop' ", SENT)[:1] != []
