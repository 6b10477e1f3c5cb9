"""Ranges of suppliers: what Dagster can run together, packed from whatever is wanted."""

from __future__ import annotations

import itertools

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.defs.partitions import pack_ranges, range_tags, run_suppliers, suppliers_in_flight

KEYS = [f"s{i:03}" for i in range(60)]


@st.composite
def choices(draw: st.DrawFn) -> tuple[list[str], set[str], set[str]]:
    order = KEYS[: draw(st.integers(0, 60))]
    roles = draw(
        st.lists(st.sampled_from(["wanted", "barred", ""]), min_size=len(order), max_size=len(order))
    )
    return (
        order,
        {k for k, role in zip(order, roles, strict=True) if role == "wanted"},
        {k for k, role in zip(order, roles, strict=True) if role == "barred"},
    )


@given(choices(), st.integers(1, 20), st.integers(0, 10))
def test_ranges_cover_the_wanted_within_the_bounds(
    chosen: tuple[list[str], set[str], set[str]], size: int, gap: int
) -> None:
    order, wanted, blocked = chosen
    ranges = pack_ranges(order, wanted, size, gap, blocked)
    covered: list[str] = []
    for first, last in ranges:
        keys = order[order.index(first) : order.index(last) + 1]
        assert 1 <= len(keys) <= size
        assert {first, last} <= wanted, "a range begins and ends with somebody who is wanted"
        run = 0
        for key in keys:
            run = 0 if key in wanted else run + 1
            assert run <= gap
        covered += keys
    assert covered == sorted(covered, key=order.index), "ascending and disjoint"
    assert len(covered) == len(set(covered))
    assert wanted <= set(covered)
    assert not blocked & set(covered)
    for (_, last), (first, _) in itertools.pairwise(ranges):
        between = order[order.index(last) + 1 : order.index(first)]
        start = next(f for f, la in ranges if la == last)
        fits = order.index(first) - order.index(start) < size
        assert len(between) > gap or set(between) & blocked or not fits, "no range is cut without need"


def test_suppliers_in_flight_are_those_of_unfinished_runs() -> None:
    @dg.op
    def nothing() -> None:
        return None

    @dg.job
    def some_job() -> None:
        nothing()

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", KEYS[:10])
        order = list(instance.get_dynamic_partitions("supplier"))
        for status, tags in (
            (dg.DagsterRunStatus.STARTING, range_tags("s001", "s003")),
            (dg.DagsterRunStatus.STARTED, {"dagster/partition": "s005"}),
            (dg.DagsterRunStatus.SUCCESS, range_tags("s006", "s009")),
            (dg.DagsterRunStatus.FAILURE, {"dagster/partition": "s000"}),
            (dg.DagsterRunStatus.STARTED, {"dagster/partition": "a task"}),
            (dg.DagsterRunStatus.CANCELING, {"dagster/partition": "s009"}),
        ):
            instance.create_run_for_job(some_job, status=status, tags=tags)
        assert suppliers_in_flight(instance, order) == {"s001", "s002", "s003", "s005", "s009"}


@pytest.mark.parametrize("tags", [{}, range_tags("s001", "unknown")])
def test_a_run_without_a_range_is_about_everybody(tags: dict[str, str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("supplier", KEYS[:3])
        assert run_suppliers(instance, tags) == KEYS[:3]
