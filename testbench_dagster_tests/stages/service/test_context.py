"""Context probes: how long a prompt is sent, and whose fault it is that it is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.stages.service.context import (
    MAX_PROMPT_TOKENS,
    Claim,
    Counted,
    context_verdict,
    prompt_tokens,
    refuses_length,
    tokens_per_estimate,
)
from testbench_dagster.stages.service.prompts import hiding_prompt

PROMPT = hiding_prompt(1_000, Random(1))
assert PROMPT.hidden is not None
LISTED, CONFIGURED = Claim(4_000, listed=True), Claim(4_000, listed=False)
TOO_LONG = b'{"error": {"message": "This model\'s maximum context length is 1000 tokens."}}'


def attempt(fault: Fault, text: str | None = None, body: bytes = b"", status: int | None = 200) -> Attempt:
    now = datetime.now(UTC)
    return Attempt(fault, now, now, 1.0, text=text, body=body, status=status, error="as it was said")


@pytest.mark.parametrize(
    ("earlier", "rate"),
    [
        ([], None),
        ([Counted(100, None)], None),
        ([Counted(100, 90)], 0.9),
        ([Counted(100, 150), Counted(1_000, 1_100), Counted(10, 40)], 1.1),  # templates weigh least there
        ([Counted(1_000, None), Counted(100, 120)], 1.2),
        ([Counted(1_000, 4_000)], 4.0),  # a token for each byte
        ([Counted(1_000, 6_000)], None),  # more than bytes
        ([Counted(1_000, 3)], None),
        ([Counted(0, 5)], None),
    ],
)
def test_how_a_supplier_counts(earlier: list[Counted], rate: float | None) -> None:
    assert tokens_per_estimate(earlier) == rate


@pytest.mark.parametrize(
    ("claim", "rate", "budget", "tokens"),
    [
        (Claim(10_000, True), None, 0, 9_000),
        (Claim(10_000, True), 1.25, 0, 7_200),
        (Claim(10_000, True), None, 4_000, 10_000 - 64 - 4_000),
        (Claim(256, True), None, 0, 192),
        (Claim(256, True), None, 10_000, 1),
        (Claim(50_000_000, True), None, 0, MAX_PROMPT_TOKENS),
    ],
)
def test_how_long_a_prompt_is_sent(claim: Claim, rate: float | None, budget: int, tokens: int) -> None:
    assert prompt_tokens(claim, rate, budget) == tokens


@pytest.mark.parametrize(
    ("fault", "text", "found"),
    [
        (Fault.OK, PROMPT.hidden, True),
        (Fault.OK, f"It says: **{PROMPT.hidden}**.", True),
        (Fault.OK, PROMPT.hidden.upper(), True),
        (Fault.OK, "I do not know", False),
        (Fault.OK, "", False),
        (Fault.TRUNCATED, f"{PROMPT.hidden} and", True),
        (Fault.TRUNCATED, "Well", False),
        (Fault.TRUNCATED, "", None),  # it thought until the limit: nothing is known
    ],
)
def test_what_an_answer_says(fault: Fault, text: str, found: bool | None) -> None:
    verdict = context_verdict(attempt(fault, text), PROMPT, LISTED, 1.0)
    assert (verdict.fault, verdict.found) == (fault, found)


@pytest.mark.parametrize(
    ("claim", "rate", "fault", "found"),
    [
        (LISTED, 1.0, Fault.SUPPLIER_REFUSED, False),
        (LISTED, None, Fault.CLIENT_REQUEST, None),
        (CONFIGURED, 1.0, Fault.CLIENT_REQUEST, None),
    ],
)
def test_whose_fault_a_refusal_of_the_length_is(
    claim: Claim, rate: float | None, fault: Fault, found: bool | None
) -> None:
    refused = attempt(Fault.CLIENT_REQUEST, body=TOO_LONG, status=400)
    verdict = context_verdict(refused, PROMPT, claim, rate)
    assert (verdict.fault, verdict.found) == (fault, found)
    assert verdict.error is not None and "4,000" in verdict.error and "as it was said" in verdict.error


@pytest.mark.parametrize("fault", [Fault.SUPPLIER_TIMEOUT, Fault.UNAVAILABLE, Fault.RATE_LIMITED])
def test_what_is_no_refusal_of_the_length_is_what_it_is(fault: Fault) -> None:
    verdict = context_verdict(attempt(fault, body=TOO_LONG, status=503), PROMPT, LISTED, 1.0)
    assert (verdict.fault, verdict.found, verdict.error) == (fault, None, "as it was said")
    other = attempt(Fault.CLIENT_REQUEST, body=b'{"error": {"message": "no such model"}}', status=400)
    assert context_verdict(other, PROMPT, LISTED, 1.0).fault is Fault.CLIENT_REQUEST


@pytest.mark.parametrize(
    ("status", "body", "refuses"),
    [
        (413, b"", True),
        (400, TOO_LONG, True),
        (400, b'{"error":{"type":"exceed_context_size_error","n_ctx":16384}}', True),  # llama.cpp
        (422, b'{"error":"`inputs` tokens + `max_new_tokens` must be <= 4096. `inputs` too long"}', True),
        (
            400,
            b'{"message":"Prompt contains 9000 tokens too large for model with 8192 maximum context"}',
            True,
        ),
        (400, b'{"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}', True),
        (400, b'{"error": {"message": "temperature must be above 0"}}', False),
        (400, b"\xff" * 100_000, False),
    ],
)
def test_how_servers_say_that_a_prompt_is_too_long(status: int, body: bytes, refuses: bool) -> None:
    assert refuses_length(attempt(Fault.CLIENT_REQUEST, body=body, status=status)) is refuses
