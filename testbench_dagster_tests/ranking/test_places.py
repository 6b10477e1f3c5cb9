"""Places: one for each unit, and shares of "best" that add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.ranking.entry import Entry
from testbench_dagster.ranking.places import places, rounded_shares


def row(supplier: str, p_best: float | None, unit: str | None = None, **more: Any) -> Entry:
    return Entry("t", supplier, None, None, None, 0, 0, 0, 0, p_best=p_best, unit=unit, **more)


def test_members_stand_inside_of_one_place_behind_their_proxy() -> None:
    rows = [row("a", 0.6, "g", proxy="c"), row("b", 0.5), row("c", 0.6, "g", proxy="c"), row("d", None)]
    found = places(rows)
    assert [[r.supplier for r in place.rows] for place in found] == [["c", "a"], ["b"], ["d"]]
    assert [place.first.supplier for place in found] == ["c", "b", "d"]
    assert [place.share for place in found] == [pytest.approx(0.6 / 1.1), pytest.approx(0.5 / 1.1), None]


def test_shares_add_up_among_those_that_are_ranked_together() -> None:
    rows = [row("a", 0.9, ranked_among="x"), row("b", 0.3, ranked_among="x"), row("c", 0.2, ranked_among="y")]
    assert [place.share for place in places(rows)] == [pytest.approx(0.75), pytest.approx(0.25), 1.0]


def test_a_supplier_named_like_a_unit_is_not_in_it() -> None:
    assert len(places([row("g", 0.5), row("a", 0.5, "g")])) == 2


def test_nobody_may_have_a_chance() -> None:
    assert [place.share for place in places([row("a", 0.0), row("b", 0.0)])] == [0.0, 0.0]


@given(st.lists(st.floats(0, 1) | st.none(), max_size=60))
def test_rounded_shares_add_up_to_the_whole(weights: list[float | None]) -> None:
    total = sum(w for w in weights if w is not None)
    shares = [None if w is None else (w / total if total else 0.0) for w in weights]
    found = rounded_shares(shares)
    assert [f is None for f in found] == [w is None for w in weights]
    shown = [round(1000 * f) for f in found if f is not None]
    assert sum(shown) == (1000 if total else 0)
    assert all(
        abs(f - s) <= 0.001 + 1e-9
        for f, s in zip(found, shares, strict=True)
        if f is not None and s is not None
    )
