"""Rows of rankings in other orders than that of their scores."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.ranking.entry import ORDERS, ordered
from testbench_dagster_tests.ranking.boards import board

ENTRY = board(["alpha", "beta"], ["gsm8k"], ["general"]).entries[0]
COLUMNS = {"first-token": ("ttft_p50_ms", 1), "speed": ("tokens_per_s_p50", -1), "uptime": ("uptime", -1)}
known = st.none() | st.floats(0, 1e4)
rows = st.lists(st.tuples(st.sampled_from(["a", "b"]), known, known, known), max_size=12)


@given(rows)
@settings(max_examples=40)
def test_rows_in_another_order_are_the_same_rows(
    made: list[tuple[str, float | None, float | None, float | None]],
) -> None:
    entries = [
        replace(
            ENTRY, taxonomy=name, supplier=str(n), ttft_p50_ms=first, tokens_per_s_p50=speed, uptime=uptime
        )
        for n, (name, first, speed, uptime) in enumerate(sorted(made, key=lambda one: one[0]))
    ]
    assert ordered(entries, "score") == entries
    assert set(ORDERS) == {"score", *COLUMNS}
    for by, (column, sign) in COLUMNS.items():
        found = ordered(entries, by)
        assert sorted(found, key=lambda one: int(one.supplier)) == entries
        assert [one.taxonomy for one in found] == [one.taxonomy for one in entries], "rankings stay apart"
        for one, other in pairwise(found):
            a, b = getattr(one, column), getattr(other, column)
            if one.taxonomy == other.taxonomy:
                assert b is None or (a is not None and sign * a <= sign * b)
