"""Waits that servers ask for, in all the forms that are in use."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from testbench_dagster.transports.retry_after import MAX_RETRY_AFTER_S, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH = NOW.timestamp()


def wait(*headers: tuple[str, str], limited: bool = True) -> float | None:
    return retry_after_s(CIMultiDict(headers), NOW, limited=limited)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("100000", MAX_RETRY_AFTER_S),
        ("inf", MAX_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("2s", 2.0),
        ("1m30s", 90.0),
        ("Fri, 02 Jan 2026 03:04:25 GMT", 20.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("Fri, 02 Jan 2099 03:00:00 GMT", MAX_RETRY_AFTER_S),
        ("9" * 65, None),
    ],
)
@pytest.mark.parametrize("limited", [True, False])
def test_retry_after(value: str, seconds: float | None, limited: bool) -> None:
    assert wait(("Retry-After", value), limited=limited) == seconds


def test_nothing_is_asked_for_without_a_header() -> None:
    assert wait() is None and wait(("Content-Type", "7"), ("x-ratelimit-limit", "7")) is None


@pytest.mark.parametrize("name", ["retry-after-ms", "Retry-After-Ms", "x-ms-retry-after-ms"])
def test_milliseconds(name: str) -> None:
    assert wait((name, "3000"), limited=False) == 3.0


@pytest.mark.parametrize(
    "name",
    [
        "x-ratelimit-reset",
        "X-RateLimit-Reset-Requests",
        "x-ratelimit-reset-tokens",
        "ratelimit-reset",
        "anthropic-ratelimit-input-tokens-reset",
    ],
)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12", 12.0),
        ("0.25", 0.25),
        ("3s", 3.0),
        ("120ms", 0.12),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("1h0m0.5s", 3600.0),
        (str(int(EPOCH) + 40), 40.0),
        (str(int(EPOCH) * 1000 + 2500), 2.5),
        (str(int(EPOCH) - 40), 0.0),
        ("2026-01-02T03:04:35Z", 30.0),
        ("a while", None),
    ],
)
def test_resets_of_rate_limits_count_where_the_rate_was_refused(
    name: str, value: str, seconds: float | None
) -> None:
    assert wait((name, value)) == (None if seconds is None else pytest.approx(seconds, abs=1e-6))
    assert wait((name, value), limited=False) is None, "they stand on every answer"


def test_only_exhausted_limits_are_waited_for() -> None:
    both = [("x-ratelimit-reset-requests", "2s"), ("x-ratelimit-reset-tokens", "1m0s")]
    assert wait(*both) == 60.0
    assert (
        wait(*both, ("x-ratelimit-remaining-tokens", "100"), ("x-ratelimit-remaining-requests", "0")) == 2.0
    )


def test_the_longest_wait_is_kept() -> None:
    assert wait(("Retry-After", "1"), ("retry-after-ms", "2500"), ("x-ratelimit-reset", "2")) == 2.5


def test_instants_are_compared_with_the_servers_clock() -> None:
    behind = ("Date", "Fri, 02 Jan 2026 02:04:05 GMT")
    assert wait(("Retry-After", "Fri, 02 Jan 2026 02:04:25 GMT"), behind) == 20.0
    assert wait(("x-ratelimit-reset", str(int(EPOCH) - 3600 + 5)), behind) == 5.0


_NAMES = ["Retry-After", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining", "Date"]


@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.text(max_size=80)), max_size=6), st.booleans())
def test_it_never_raises_and_is_bounded(headers: list[tuple[str, str]], limited: bool) -> None:
    seconds = wait(*headers, limited=limited)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_S


# -- what the error says ------------------------------------------------------------------------------

RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}
QUOTED = {"X-RateLimit-Reset": str(int(EPOCH * 1000) + 5000), "X-RateLimit-Remaining": "0"}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"error": {"code": 429, "details": [{"@type": "x"}, RETRY_INFO]}}, 3.0),
        ([{"error": {"details": [RETRY_INFO]}}], 3.0),
        ({"error": {"retry_after": 1.5}}, 1.5),
        ({"retry-after": "2s"}, 2.0),
        ({"retryAfterMs": 2500}, 2.5),
        ({"retry_after_seconds": "7"}, 7.0),
        ({"error": "loading", "estimated_time": 20.0}, 20.0),
        ({"error": {"metadata": {"headers": QUOTED}}}, 5.0),
        ({"error": {"metadata": {"headers": {"Retry-After": "4"}}}}, 4.0),
        ({"retry_after": -3}, 0.0),
        ({"retry_after": 1e9}, 0.0),  # an instant, long ago
        ({"retry_after": 1e8}, MAX_RETRY_AFTER_S),
        ({"error": {"message": "Please try again in 20s."}}, None),  # prose
        ({"retry_after": True}, None),
        ({"retry_after": None, "retryDelay": []}, None),
        ({"error": {"details": 7, "metadata": "x"}}, None),
        ({"retry_after": "soon"}, None),
        (b"retry_after: 3", None),
        (b"", None),
    ],
)
def test_the_fields_of_an_error(error: object, seconds: float | None) -> None:
    body = error if isinstance(error, bytes) else json.dumps(error).encode()
    found = retry_after_s({}, NOW, limited=True, body=body)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-3))


def test_of_header_and_error_the_longer_counts() -> None:
    headers = CIMultiDict({"Retry-After": "2"})
    assert retry_after_s(headers, NOW, limited=False, body=b'{"retry_after": 5}') == 5.0
    assert retry_after_s(headers, NOW, limited=False, body=b'{"retry_after": 1}') == 2.0


@given(st.binary(max_size=80))
def test_no_error_makes_it_raise(body: bytes) -> None:
    for each in (body, b'{"retry_after": "' + body + b'"}', b'{"error": {"details": ' + body + b"}}"):
        found = retry_after_s({}, NOW, limited=True, body=each)
        assert found is None or 0 <= found <= MAX_RETRY_AFTER_S
