"""Fair shares: the definition of max-min fairness, as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.planning.shares import fair_shares

totals = st.integers(0, 120)
demands = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 30), max_size=12)


@pytest.mark.parametrize(
    ("total", "wanted", "expected"),
    [
        (0, {"a": 3}, {"a": 0}),
        (9, {}, {}),
        (10, {"a": 2, "b": 9, "c": 9}, {"a": 2, "b": 4, "c": 4}),
        (11, {"c": 9, "a": 2, "b": 9}, {"c": 4, "a": 2, "b": 5}),
        (99, {"a": 2, "b": 9}, {"a": 2, "b": 9}),
        (2, {"b": 5, "c": 5, "a": 5}, {"b": 1, "c": 0, "a": 1}),
    ],
)
def test_examples(total: int, wanted: dict[str, int], expected: dict[str, int]) -> None:
    assert fair_shares(total, wanted) == expected


@given(totals, demands)
def test_all_is_given_away_and_nobody_gets_more_than_demanded(total: int, wanted: dict[str, int]) -> None:
    shares = fair_shares(total, wanted)
    assert list(shares) == list(wanted)
    assert sum(shares.values()) == min(total, sum(wanted.values()))
    assert all(0 <= shares[key] <= wanted[key] for key in wanted)


@given(totals, demands)
def test_whoever_gets_less_than_demanded_gets_as_much_as_anybody(total: int, wanted: dict[str, int]) -> None:
    shares = fair_shares(total, wanted)
    short = sorted(key for key in wanted if shares[key] < wanted[key])
    for key in short:
        assert shares[key] >= max(shares.values()) - 1
    assert [shares[key] for key in short] == sorted((shares[key] for key in short), reverse=True), "by key"


@given(totals, demands)
def test_more_to_share_takes_nothing_from_anybody(total: int, wanted: dict[str, int]) -> None:
    less, more = fair_shares(total, wanted), fair_shares(total + 1, wanted)
    assert all(less[key] <= more[key] for key in wanted)


@given(totals, demands, st.randoms())
def test_the_order_of_the_demands_does_not_matter(total: int, wanted: dict[str, int], chance) -> None:
    shuffled = list(wanted.items())
    chance.shuffle(shuffled)
    assert fair_shares(total, dict(shuffled)) == fair_shares(total, wanted)


@pytest.mark.parametrize(("total", "wanted"), [(-1, {"a": 1}), (1, {"a": -1})])
def test_negative_numbers_are_refused(total: int, wanted: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="-1"):
        fair_shares(total, wanted)
