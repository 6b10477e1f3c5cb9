from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.relays.limits import GIVE_UP_AFTER, AdaptiveLimit, CircuitBreaker, backoff_s

RNG = random.Random(1)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.lists(st.tuples(st.booleans(), st.floats(0, 0.6)), max_size=200),
)
def test_limit_stays_within_bounds(ceiling: int, start: int, events: list[tuple[bool, float]]):
    limit = AdaptiveLimit(ceiling, start)
    now, halved_at = 0.0, None
    assert limit.value == min(start, ceiling)
    for success, step in events:
        now += step
        before = limit.value
        if success:
            limit.succeeded()
            assert before <= limit.value <= before + 1
        else:
            limit.congested(now)
            if limit.value < before:
                assert halved_at is None or now - halved_at >= 1.0
                assert limit.value == before // 2
                halved_at = now
        assert 1 <= limit.value <= ceiling


@settings(deadline=None)
@given(st.integers(2, 40))
def test_one_more_per_limit_successes(ceiling: int):
    limit = AdaptiveLimit(ceiling)
    for value in range(2, ceiling):
        for _ in range(value):
            assert limit.value == value
            limit.succeeded()
    assert limit.value == ceiling


@settings(deadline=None)
@given(st.integers(1, 10_000))
def test_backoff_is_bounded_and_grows(failures: int):
    ceiling = min(60.0, 0.5 * 2 ** min(failures - 1, 20))
    assert ceiling / 2 <= backoff_s(failures, RNG) <= ceiling


@settings(deadline=None)
@given(st.floats(0, 60), st.floats(0, 1e6))
def test_only_repeated_rate_limiting_pauses_the_supplier(wish: float, now: float):
    breaker = CircuitBreaker()
    wait = breaker.rate_limited(now, wish, RNG)
    assert wish <= wait <= wish * 1.1 + 0.01
    assert breaker.paused_until < now
    breaker.succeeded()
    breaker.rate_limited(now, wish, RNG)
    assert breaker.paused_until < now
    assert breaker.paused_until < breaker.rate_limited(now, wish, RNG) + now == breaker.paused_until


def test_gives_up_where_no_session_has_the_supplier():
    """A gateway that never has it in a session would otherwise be told of every single prompt."""
    breaker = CircuitBreaker()
    results = [breaker.record_attempt(Fault.ROLLOVER, n, n + 0.5) for n in range(GIVE_UP_AFTER)]
    assert results == [False] * (GIVE_UP_AFTER - 1) + [True]


def test_gives_up_after_losses_in_a_row():
    breaker = CircuitBreaker()
    for n in range(GIVE_UP_AFTER - 1):
        assert not breaker.record_attempt(Fault.TRANSPORT, n, n + 0.5)
    assert not breaker.record_attempt(Fault.SUPPLIER_HTTP, 99, 99.5)
    results = [breaker.record_attempt(Fault.TRANSPORT, 100 + n, 100.5 + n) for n in range(GIVE_UP_AFTER)]
    assert results == [False] * (GIVE_UP_AFTER - 1) + [True]


def test_losses_of_one_burst_count_once():
    breaker = CircuitBreaker()
    assert not any(breaker.record_attempt(Fault.RATE_LIMITED, 0.0, 1.0 + n / 100) for n in range(200))
    assert breaker.consecutive_failures == 1
