"""Which parameter a refusal is about, as suppliers write it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.transports.refusals import named_parameters, refuses_form, sent_parameters

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
        ({"error": {"message": "1 validation error\nseed\n  Extra inputs are not permitted"}}, ["seed"]),
        ({"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'x'}]"}, ["seed"]),
        (
            {"detail": [{"loc": ["body", "stop"], "msg": "x", "input": {"seed": "seed", "temperature": 0}}]},
            ["stop"],
        ),
        ({"error": {"message": "no", "param": "body.stop[4]"}}, ["stop"]),
        ({"error": {"message": "maxTokens is not supported"}}, ["max_tokens"]),
        ({"error": "too many stop_sequences"}, ["stop"]),
        ({"errors": {"seed": ["Not a known field."]}}, ["seed"]),
        ({"error": "Unrecognized request argument supplied: seed"}, ["seed"]),
        ({"error": "create() got an unexpected keyword argument 'temperature'"}, ["temperature"]),
    ],
)  # fmt: skip
def test_what_refusals_say(body: object, named: list[str]) -> None:
    assert named_parameters(json.dumps(body).encode(), SENT) == named


def refused(status: int | None, fault: Fault, body: str) -> bool:
    now = datetime.now(UTC)
    return refuses_form(Attempt(fault, now, now, 1.0, status=status, body=body.encode()))


@pytest.mark.parametrize(
    ("status", "fault", "body", "found"),
    [
        (400, Fault.CLIENT_REQUEST, "no", True),
        (None, Fault.CLIENT_REQUEST, "no", False),
        (500, Fault.SUPPLIER_HTTP, "TypeError: create() got an unexpected keyword argument 'seed'", True),
        (501, Fault.SUPPLIER_HTTP, "temperature is not implemented", True),
        (404, Fault.CREDENTIALS, "No endpoints found that support the parameter seed", True),
        (200, Fault.SUPPLIER_PROTOCOL, '{"error": "unsupported parameter stop"}', True),
        (500, Fault.SUPPLIER_HTTP, "Internal Server Error", False),
        (500, Fault.SUPPLIER_HTTP, "please stop", False),
        (404, Fault.CREDENTIALS, "unknown model", False),
        (401, Fault.CREDENTIALS, "unsupported parameter seed", False),
        (429, Fault.RATE_LIMITED, "max_tokens: invalid", False),
        (200, Fault.OK, "unsupported parameter stop", False),
    ],
)
def test_what_is_refused_for_its_form(status: int | None, fault: Fault, body: str, found: bool) -> None:
    assert refused(status, fault, body) is found


@given(st.binary(max_size=300))
def test_whatever_a_body_holds_only_what_was_sent_is_named(body: bytes) -> None:
    assert set(named_parameters(body, SENT)) <= set(SENT)
    assert named_parameters(body + b" 'stop' ", SENT)[:1] != []
