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


@pytest.mark.parametrize(
    ("total", "wanted", "had", "expected"),
    [
        # three batches of one, one after the other: all end alike, whoever comes first
        (30, {"a": 20, "b": 20, "c": 20}, {}, {"a": 10, "b": 10, "c": 10}),
        (20, {"a": 10, "b": 20, "c": 20}, {"a": 10}, {"a": 0, "b": 10, "c": 10}),
        (10, {"a": 10, "b": 10, "c": 20}, {"a": 10, "b": 10}, {"a": 0, "b": 0, "c": 10}),
        # who had more than it could keep gives nothing back, and gets nothing
        (8, {"a": 5, "b": 9, "c": 9}, {"a": 7, "x": 99}, {"a": 0, "b": 4, "c": 4}),
        (5, {"b": 9, "a": 9}, {"a": 2}, {"b": 3, "a": 2}),
    ],
)
def test_examples_with_a_past(
    total: int, wanted: dict[str, int], had: dict[str, int], expected: dict[str, int]
) -> None:
    assert fair_shares(total, wanted, had) == expected


@given(totals, demands, demands)
def test_who_gets_less_than_demanded_ends_as_high_as_anybody_who_gets_something(
    total: int, wanted: dict[str, int], had: dict[str, int]
) -> None:
    shares = fair_shares(total, wanted, had)
    assert sum(shares.values()) == min(total, sum(wanted.values()))
    assert all(0 <= shares[key] <= wanted[key] for key in wanted)
    ends = {key: shares[key] + had.get(key, 0) for key in wanted}
    highest = max((ends[key] for key in wanted if shares[key]), default=0)
    assert all(ends[key] >= highest - 1 for key in wanted if shares[key] < wanted[key])


@given(
    totals, st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 30), min_size=1), st.integers(1, 4)
)
def test_one_pass_of_batches_is_as_fair_as_all_at_once(total: int, wanted: dict[str, int], size: int) -> None:
    order = sorted(wanted)
    had: dict[str, int] = {}
    for start in range(0, len(order), size):
        still = {key: wanted[key] - had.get(key, 0) for key in order}
        shares = fair_shares(total - sum(had.values()), still, had)
        had.update({key: shares[key] for key in order[start : start + size]})
    assert had == fair_shares(total, wanted)


@pytest.mark.parametrize(("total", "wanted"), [(-1, {"a": 1}), (1, {"a": -1})])
def test_negative_numbers_are_refused(total: int, wanted: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="-1"):
        fair_shares(total, wanted)
