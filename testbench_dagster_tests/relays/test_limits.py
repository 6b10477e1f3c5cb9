from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.relays.limits import AdaptiveLimit


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
