"""Tasks that a supplier is not asked: its abilities are as if the taxonomy had them not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies.model import Taxonomy, is_placeholder
from testbench_dagster.taxonomies.plots import dag
from testbench_dagster.taxonomies.summary import (
    NO_DATA,
    NOT_APPLICABLE,
    OK,
    UNDEFINED,
    summarize,
    summarize_many,
)
from testbench_dagster_tests.taxonomies.test_summary import TASK_POOL, measurements, weighted

SOME = TaskScore(0.5, 10)


def two() -> Taxonomy:
    nodes = {"r": (), "x": ("a", "b"), "y": ("c",), "z": ("c", "undefined_task1")}
    return Taxonomy("t", nodes, (("r", "x"), ("r", "y"), ("r", "z")), "r", {"x": {"b": 3.0}})


def test_what_is_not_asked_is_neither_missing_nor_left_out() -> None:
    found = summarize(two(), {"a": TaskScore(0.8, 10)}, left_out=["b"], not_applicable=["c"]).nodes
    x, y, z, r = (found[name] for name in "xyzr")
    assert (x.left_out, x.not_applicable, x.weight_coverage) == (("b",), (), 0.25)
    assert (y.status, y.not_applicable, y.missing) == (NOT_APPLICABLE, ("c",), ())
    assert (y.n_tasks, y.n_measured, y.coverage, y.weight_coverage) == (0, 0, 0.0, 0.0)
    assert (z.status, z.missing) == (NOT_APPLICABLE, ("undefined_task1",))
    assert (r.score, r.not_applicable) == (0.8, ("c",))
    alone = summarize(two(), {"a": TaskScore(0.8, 10)}).nodes
    assert alone["x"].weight_coverage == 0.25 and alone["y"].status == NO_DATA


def test_what_is_both_not_asked_and_impossible_is_not_asked() -> None:
    found = summarize(two(), {}, left_out=["c"], not_applicable=["c"]).nodes["y"]
    assert (found.left_out, found.not_applicable, found.status) == ((), ("c",), NOT_APPLICABLE)


def test_a_task_with_data_is_there_whatever_is_said_of_it() -> None:
    found = summarize(two(), {"c": SOME}, not_applicable=["c", "elsewhere"]).nodes["y"]
    assert (found.status, found.weights, found.not_applicable, found.weight_coverage) == (
        OK,
        {"c": 1.0},
        (),
        1.0,
    )


@settings(max_examples=60, deadline=None)
@given(weighted(), measurements, st.sets(st.sampled_from(TASK_POOL)), st.sets(st.sampled_from(TASK_POOL)))
def test_a_share_of_the_weight_is_of_what_is_asked(
    taxonomy: Taxonomy, measured: dict[str, TaskScore], cannot: set[str], is_not: set[str]
) -> None:
    is_not -= measured.keys()
    found = summarize(taxonomy, measured, cannot, is_not).nodes
    plain = summarize(taxonomy, measured, cannot).nodes
    # what would weigh how much if all were measured that is asked
    whole = summarize(taxonomy, {task: SOME for task in taxonomy.leaves() if task not in is_not}).nodes
    for name, node in found.items():
        before = plain[name]
        for field in ("score", "se", "ci_low", "ci_high", "weights", "n_measured", "min_n"):
            assert getattr(node, field) == getattr(before, field), "scores rest on what is measured alone"
        scope = taxonomy.rests_on(name)
        assert set(node.not_applicable) == is_not & scope
        assert set(node.missing) == set(before.missing) - is_not
        assert node.n_tasks == node.n_measured + len(node.missing)
        wanted = math.fsum(whole[name].weights.get(task, 0.0) for task in node.weights)
        assert node.weight_coverage == pytest.approx(wanted, abs=1e-12)
        assert node.weight_coverage >= before.weight_coverage - 1e-12
        if not scope - is_not - {task for task in scope if is_placeholder(task)} and scope & is_not:
            assert node.status == NOT_APPLICABLE
        if node.status == NOT_APPLICABLE:
            assert node.score is None and not any(not is_placeholder(task) for task in node.missing)
        assert (node.status == UNDEFINED) <= (not is_not & scope or bool(node.left_out))


@settings(max_examples=20, deadline=None)
@given(
    weighted(),
    st.lists(st.tuples(measurements, st.sets(st.sampled_from(TASK_POOL))), min_size=1, max_size=5),
)
def test_many_suppliers_with_tasks_of_their_own_are_each_as_alone(
    taxonomy: Taxonomy, suppliers: list[tuple[dict[str, TaskScore], set[str]]]
) -> None:
    measured, is_not = [m for m, _ in suppliers], [n for _, n in suppliers]
    together = summarize_many(taxonomy, measured, None, is_not)
    for one, own, names in zip(together, measured, is_not, strict=True):
        alone = summarize(taxonomy, own, (), names)
        assert {n: (x.not_applicable, x.missing, x.status) for n, x in one.nodes.items()} == {
            n: (x.not_applicable, x.missing, x.status) for n, x in alone.nodes.items()
        }


def test_the_picture_says_of_a_node_that_it_is_not_asked() -> None:
    nodes = summarize(two(), {"a": SOME}, not_applicable=["c"]).nodes
    assert b"not asked" in dag(two(), dict(nodes), "t", format_="svg")
