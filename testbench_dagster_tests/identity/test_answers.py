"""Answers kept in columns come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.identity import Answer, AnswerTable, IdentityError
from testbench_dagster_tests.identity.population import START

times = st.datetimes(datetime(1969, 12, 30), datetime(2100, 1, 1), timezones=st.just(UTC))
answers = st.lists(
    st.builds(
        lambda supplier, prompt, at, round_, text: Answer(
            supplier, prompt, f"task of {prompt[0]}", at, round_, text
        ),
        st.sampled_from(["a@x", "b@x", "c@x"]),
        st.sampled_from(["p1", "p2", "q1"]),
        times,
        st.integers(0, 5),
        st.text(max_size=5),
    ),
    max_size=30,
)


@given(answers)
def test_they_come_back_as_they_were(given_: list[Answer]) -> None:
    table = AnswerTable.of(iter(given_))
    assert list(table) == list(table) == given_
    assert len(table) == len(given_)
    for name in ("a@x", "b@x", "d@x"):
        own = [one for one in given_ if one.supplier == name]
        assert table.of_supplier(name) == sorted(own, key=lambda one: (one.at, one.prompt, one.round))


@given(answers, times)
def test_after_a_cut_only_later_ones_are_left(given_: list[Answer], cut: datetime) -> None:
    left = AnswerTable.of(given_).since({"a@x": cut})
    assert list(left) == [one for one in given_ if one.supplier != "a@x" or one.at > cut]


@given(answers, st.integers(1, 9))
def test_whole_suppliers_at_a_time(given_: list[Answer], most: int) -> None:
    table = AnswerTable.of(given_)
    parts = list(table.by_suppliers(most))
    rows = np.concatenate(parts) if parts else np.array([])
    assert sorted(rows.tolist()) == list(range(len(given_)))
    owners = [{int(table.by[row]) for row in part} for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners)) if owners else not given_


def test_an_instant_is_the_same_in_any_zone() -> None:
    at = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
    [back] = AnswerTable.of([Answer("a@x", "p", "t", at, 0, "text")])
    assert back.at == at


def test_times_have_a_zone() -> None:
    with pytest.raises(IdentityError, match="has no time zone"):
        AnswerTable.of([Answer("a@x", "p", "t", datetime(2026, 1, 1), 0, "text")])
    with pytest.raises(IdentityError, match="cut_at of a@x"):
        AnswerTable.of([Answer("a@x", "p", "t", START, 0, "text")]).since({"a@x": datetime(2026, 1, 1)})
