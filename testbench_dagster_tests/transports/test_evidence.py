"""What stored evidence shows of a fault, transport by transport: honest records hold, relabelled ones do not.

That every attempt a transport makes holds is proven where transports are tested, see ``relays/conftest.py``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.transports.http import TooLarge
from testbench_dagster.transports.outcome import describe
from testbench_dagster.transports.path.transport import GatewayHeaders
from testbench_dagster.transports.registry import shown
from testbench_dagster.transports.statuses import STATUS_FAULTS
from testbench_dagster.transports.stored import broken_fault

MINE, OTHER = "pokt1mine", "pokt1other"
QUESTION: dict[str, Any] = {
    "type": "generate_until",
    "idx": 0,
    "messages": [{"role": "user", "content": "?"}],
    "generation": {"until": [], "max_gen_toks": 8},
}
RIGHT = orjson.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]})
EMPTY = orjson.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})
BROKE = "ClientPayloadError while reading: not enough data"


def attempt(status: int | None, body: bytes, session: str | None = None, **evidence: Any) -> AttemptRecord:
    now = datetime.now(UTC)
    relay = Relay(f"{MINE}@llm", "llm", "t", "h", 1, 1, "p", 0, 0, 0, 0, QUESTION)
    sent = Attempt(Fault.INTERNAL, now, now, 1.0, status=status, body=body)
    return replace(attempt_record(relay, 1, sent), session=session, evidence=evidence)


def faults(record: AttemptRecord, error: str | None = None) -> set[str]:
    return {fault.value for fault in shown(record, QUESTION, "chat", error).faults}


@pytest.mark.parametrize(
    ("status", "body", "error", "expected"),
    [
        (200, RIGHT, None, {"ok"}),
        (200, RIGHT, "deadline passed while reading", {"ok"}),
        (200, EMPTY, None, {"ok"}),
        (200, EMPTY, "deadline passed while reading", {"ok"}),
        (200, RIGHT[:-9], "invalid JSON: …", {"supplier_protocol"}),
        (200, RIGHT[:-9], BROKE, {"supplier_protocol"}),
        (200, RIGHT[:-9], "deadline passed while reading", {"supplier_protocol", "supplier_timeout"}),
        (500, b"broken", None, {"supplier_http"}),
        (500, b"broken", BROKE, {"supplier_http", "supplier_protocol"}),
        (429, b"busy", None, {"rate_limited"}),
        (429, b"busy", BROKE, {"rate_limited", "supplier_protocol"}),
        (429, b'{"error": "busy"}', BROKE, {"rate_limited"}),  # whole: nothing broke
        (404, b"", "deadline passed while reading", {"credentials", "supplier_timeout"}),
        (400, b"", "deadline passed while reading", {"client_request", "supplier_timeout"}),
        (503, b"busy", None, {"unavailable"}),
        (402, b"", None, {"quota"}),
    ],
)
def test_answers_over_plain_http(status: int, body: bytes, error: str | None, expected: set[str]) -> None:
    assert faults(attempt(status, body), error) == expected


def test_without_a_status_there_was_no_answer() -> None:
    assert faults(attempt(None, RIGHT)) == set()
    silent = faults(attempt(None, b""))
    assert {"transport", "supplier_timeout", "supplier_protocol", "internal"} <= silent
    shown_by_an_answer = {"ok", "truncated", "empty", "supplier_http", "rate_limited", "supplier_refused"}
    assert not silent & (shown_by_an_answer | {"unavailable", "quota", "credentials", "unscorable"})


@pytest.mark.parametrize("fault", dict.fromkeys(fault for _, _, fault in STATUS_FAULTS))
def test_what_only_a_status_says_is_impossible_without_one(fault: Fault) -> None:
    assert fault.row.shown_by_answer, "a status decides it: its row in core/faults.py has to say so"
    refused_unsent = fault is Fault.CLIENT_REQUEST  # as an endpoint at an address that is not asked
    assert (fault in faults(attempt(None, b""))) == refused_unsent


def test_what_was_cut_was_too_large() -> None:
    cut = replace(attempt(200, RIGHT[:-9]), body_truncated=True)
    assert faults(cut) == {"supplier_protocol"}
    page = shown(cut, {"type": "get", "idx": 0, "path": "/config"}, "chat", None)
    assert page.faults == {Fault.CLIENT_REQUEST}


@pytest.mark.parametrize(
    ("exception", "phase", "expected"),
    [
        (TimeoutError(), "reading", Fault.SUPPLIER_TIMEOUT),
        (ConnectionResetError("peer"), "reading", Fault.SUPPLIER_PROTOCOL),
        (ConnectionResetError(), "reading", Fault.SUPPLIER_PROTOCOL),
        (TimeoutError(), "waiting", None),
        (ConnectionResetError("peer"), "connecting", None),
        (TooLarge(), "reading", None),
    ],
)
def test_the_words_of_a_broken_exchange_are_known(
    exception: Exception, phase: str, expected: Fault | None
) -> None:
    assert broken_fault(describe(exception, phase)) is expected


NAMED = {"supplier": MINE, "suppliers_tried": [MINE]}
TRIED = {"suppliers_tried": [MINE]}


@pytest.mark.parametrize(
    ("said", "status", "body", "expected"),
    [
        (NAMED, 200, RIGHT, {"ok"}),
        ({"supplier": OTHER}, 200, RIGHT, {"gateway"}),
        ({}, 200, RIGHT, {"gateway"}),
        ({}, 503, b"no valid endpoints available", {"rollover"}),
        (TRIED, 500, b"broken", {"supplier_http"}),
        (TRIED, 504, b"late", {"supplier_timeout"}),
        (TRIED, 403, b"session over", {"rollover"}),
        (TRIED, 403, b"who are you", {"gateway"}),
        ({}, 429, b"busy", {"rate_limited"}),
    ],
)
def test_answers_through_a_gateway(
    said: dict[str, Any], status: int, body: bytes, expected: set[str]
) -> None:
    assert faults(attempt(status, body, gateway={"requested": MINE, **said})) == expected


def test_a_gateway_that_broke_off_is_its_own_fault() -> None:
    cut = attempt(200, RIGHT[:-9], gateway={"requested": MINE, **NAMED})
    assert faults(cut, BROKE) == {"supplier_protocol", "gateway"}
    assert faults(cut, f"the gateway tried {OTHER} too: {BROKE}") == {"supplier_protocol", "gateway"}


def test_what_a_gateway_said_is_read_back_as_written() -> None:
    told = GatewayHeaders(MINE, (MINE, OTHER), 2, "hedge_won", "s1", "a1")
    assert GatewayHeaders.from_evidence(told.evidence()) == told
    assert GatewayHeaders.from_evidence(GatewayHeaders().evidence()) == GatewayHeaders()
    assert GatewayHeaders.from_evidence({"suppliers_tried": 7, "retry_count": "x"}) == GatewayHeaders()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, b'{"error": "session relay limit reached"}', {"quota"}),
        (429, b"<html>slow down</html>", {"rate_limited"}),
        (403, b'{"error": "session expired"}', {"rollover", "supplier_http"}),
        (403, b'{"error": "ring signature verification failed"}', {"credentials"}),
        (502, b"broken", {"unavailable"}),
        (504, b"broken", {"supplier_timeout"}),
        (200, b"", {"supplier_protocol"}),
        (200, b"{}", {"supplier_protocol"}),
    ],
)
def test_answers_of_relay_miners(status: int, body: bytes, expected: set[str]) -> None:
    native = attempt(None, body, "session-1", http_status=status, request_hash="00")
    assert faults(native) == expected
    assert "transport" not in faults(native, BROKE)
