"""Whose fault a miner's words are, for every registered code and every status of both flavours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Closing, Fault, Pause
from testbench_dagster.core.text import MAX_ERROR_CHARS
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.faults import (
    of_miner_error,
    of_response_error,
    of_status,
    session_fault,
)
from testbench_dagster.transports.pocket.messages import MinerError, SessionHeader

HEADER = SessionHeader("pokt1app", "svc", "id", 101, 120)


@pytest.mark.parametrize(
    ("codespace", "code", "fault", "session"),
    [
        ("relayer_proxy", 1, Fault.SUPPLIER_HTTP, True),
        ("relayer_proxy", 2, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 3, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 4, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 5, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 6, Fault.SUPPLIER_HTTP, True),
        ("relayer_proxy", 7, Fault.QUOTA, False),
        ("relayer_proxy", 8, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 9, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 10, Fault.SUPPLIER_TIMEOUT, False),
        ("relayer_proxy", 11, Fault.CLIENT_REQUEST, False),
        ("relayer_proxy", 12, Fault.SUPPLIER_HTTP, False),
        ("relayer_proxy", 13, Fault.CLIENT_REQUEST, False),
        ("relayer_proxy", 14, Fault.CREDENTIALS, False),
        ("relay_authenticator", 1, Fault.SUPPLIER_HTTP, True),
        ("relay_authenticator", 2, Fault.SUPPLIER_HTTP, True),
        ("relay_authenticator", 3, Fault.SUPPLIER_HTTP, False),
        ("relay_authenticator", 4, Fault.CREDENTIALS, False),
        ("relay_authenticator", 5, Fault.SUPPLIER_HTTP, False),
        ("relay_authenticator", 6, Fault.SUPPLIER_HTTP, False),
        ("rings", 1, Fault.CREDENTIALS, False),
        ("rings", 2, Fault.CREDENTIALS, False),
        ("rings", 3, Fault.CREDENTIALS, False),
        ("session", 1103, Fault.SUPPLIER_HTTP, True),
        ("undefined", 1, Fault.SUPPLIER_HTTP, False),
        ("", 0, Fault.SUPPLIER_HTTP, False),
    ],
)
def test_registered_errors_of_classic_miners(codespace: str, code: int, fault: Fault, session: bool):
    verdict = of_miner_error(MinerError(codespace, code, "what it is", "particulars"))
    assert (verdict.fault, verdict.session) == (fault, session)
    assert verdict.error == f"relay miner: {codespace} {code}: particulars"


@pytest.mark.parametrize(
    ("status", "said", "fault", "session"),
    [
        # texts of pocket-relay-miner, relayer/proxy.go and validator.go
        (400, "implausible session heights", Fault.SUPPLIER_HTTP, True),
        (400, "invalid relay request: body must be a valid RelayRequest protobuf", Fault.CREDENTIALS, False),
        (400, "missing supplier operator address in relay request", Fault.CREDENTIALS, False),
        (403, "session timing validation failed: session expired, session end", Fault.SUPPLIER_HTTP, True),
        (403, 'session header application address mismatch, expecting: "a"', Fault.SUPPLIER_HTTP, True),
        (403, "session ID mismatch, expected: a, got: b", Fault.SUPPLIER_HTTP, True),
        (403, "supplier pokt1x not found in session", Fault.SUPPLIER_HTTP, True),
        (403, "failed to get session: timeout", Fault.SUPPLIER_HTTP, True),
        (403, "ring signature verification failed: session header", Fault.CREDENTIALS, False),
        (403, "basic validation failed: invalid session header", Fault.CREDENTIALS, False),
        (403, "supplier pokt1x is not allowed by this relayer", Fault.SUPPLIER_HTTP, False),
        (404, "unknown service: svc", Fault.SUPPLIER_HTTP, False),
        (413, "request body too large", Fault.CLIENT_REQUEST, False),
        (429, "session relay limit reached: claimable portion fully consumed", Fault.QUOTA, False),
        (500, "backend service error", Fault.SUPPLIER_HTTP, False),
        (502, "backend error", Fault.UNAVAILABLE, False),
        (503, "service temporarily unavailable", Fault.UNAVAILABLE, False),
        (504, "backend service error", Fault.SUPPLIER_TIMEOUT, False),
    ],
)
def test_statuses_of_ha_miners(status: int, said: str, fault: Fault, session: bool):
    verdict = of_status(status, f'{{"error":"{said}"}}'.encode())
    assert (verdict.fault, verdict.session) == (fault, session)
    assert f"HTTP {status}" in verdict.error and said[:20] in verdict.error


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (204, Fault.SUPPLIER_PROTOCOL),
        (302, Fault.SUPPLIER_HTTP),
        (400, Fault.SUPPLIER_HTTP),
        (403, Fault.SUPPLIER_HTTP),  # nothing about our signature: whoever sends pages is no miner
        (404, Fault.SUPPLIER_HTTP),
        (429, Fault.RATE_LIMITED),
        (502, Fault.UNAVAILABLE),
        (600, Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_statuses_of_servers_in_front_of_a_miner(status: int, fault: Fault):
    page = b"<html>session relay limit, ring signature</html>"
    verdict = of_status(status, page)
    assert (verdict.fault, verdict.session) == (fault, False)


WORDS = ["relay limit", "signature", "basic validation", "session", "not allowed by this relayer", "x", ""]


@given(
    st.sampled_from(["relayer_proxy", "relay_authenticator", "rings", "session", "undefined", ""]),
    st.integers(0, 1200),
    st.integers(100, 599),
    st.lists(st.sampled_from(WORDS), max_size=3),
)
def test_no_word_of_a_miner_is_a_fault_of_ours(codespace: str, code: int, status: int, said: list[str]):
    """What is ours holds a doc up in no score: who may say so may leave out the docs it does not know."""
    text = " ".join(said)
    for verdict in (
        of_miner_error(MinerError(codespace, code, text, text)),
        of_status(status, f'{{"error":"{text}"}}'.encode()),
        of_status(status, text.encode()),
    ):
        assert verdict.fault.row.closes not in (Closing.OPEN, Closing.SCORED), verdict
        assert verdict.fault.row.pause is not Pause.STOP, verdict


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("empty", Fault.SUPPLIER_PROTOCOL),
        ("unmarshal", Fault.SUPPLIER_PROTOCOL),
        ("payload", Fault.SUPPLIER_PROTOCOL),
        ("unsigned", Fault.SUPPLIER_SIGNATURE),
        ("session_header", Fault.SUPPLIER_SIGNATURE),
        ("payload_hash", Fault.SUPPLIER_SIGNATURE),
        ("signature", Fault.SUPPLIER_SIGNATURE),
        ("no_public_key", Fault.NODE),
    ],
)
def test_answers_that_prove_nothing(reason: str, fault: Fault):
    verdict = of_response_error(ResponseError(reason, "why\x1b"))  # type: ignore[arg-type]
    assert (verdict.fault, verdict.error) == (fault, "why\\x1b")


@pytest.mark.parametrize(
    ("sent", "now", "fault"),
    [
        (100, 100, Fault.ROLLOVER),
        (101, 101, Fault.ROLLOVER),
        (102, 103, Fault.ROLLOVER),  # a miner may be a block behind
        (103, 103, Fault.SUPPLIER_HTTP),
        (103, 118, Fault.SUPPLIER_HTTP),
        (103, 119, Fault.ROLLOVER),  # a miner may be a block ahead
        (120, 120, Fault.ROLLOVER),
        (110, 121, Fault.ROLLOVER),  # it ended meanwhile
        (121, 130, Fault.ROLLOVER),
        (None, 110, Fault.ROLLOVER),
        (110, None, Fault.ROLLOVER),
    ],
)
def test_a_rejected_session_counts_only_well_within_it(sent: int | None, now: int | None, fault: Fault):
    assert session_fault(HEADER, sent, now) is fault


@given(st.integers(0, 1000), st.binary(max_size=3000))
def test_texts_are_bounded_whatever_they_say(status: int, body: bytes):
    verdict = of_status(status, body)
    assert len(verdict.error) <= MAX_ERROR_CHARS and verdict.error.isprintable()
    assert not verdict.fault.answered
