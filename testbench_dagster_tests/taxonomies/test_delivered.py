"""Abilities of suppliers that left docs open, or that cannot be asked some tasks."""

from __future__ import annotations

import pytest

from testbench_dagster.statistics.combinations import mover
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import NO_DATA, OK, PARTIAL, summarize


@pytest.fixture
def two() -> Taxonomy:
    """An ability over the tasks a and b of one ability, and c of another."""
    return Taxonomy("t", {"root": (), "x": ("a", "b"), "y": ("c",)}, (("root", "x"), ("root", "y")), "root")


OPEN = TaskScore(0.4, 20, 0.1, 0.2, 0.9, partial=True)
DONE = TaskScore(0.8, 20)


def test_a_node_with_open_docs_is_partial_and_its_interval_holds_every_way_they_close(two: Taxonomy) -> None:
    nodes = summarize(two, {"a": OPEN, "b": DONE, "c": DONE}).nodes
    assert {name: node.status for name, node in nodes.items()} == {"root": PARTIAL, "x": PARTIAL, "y": OK}
    ends = zip(OPEN.interval, DONE.interval, strict=True)
    assert (nodes["x"].ci_low, nodes["x"].ci_high) == mover([0.5, 0.5], [0.4, 0.8], *ends)
    assert nodes["x"].score == pytest.approx(0.6)
    whole = summarize(two, {"a": TaskScore(0.4, 20), "b": DONE, "c": DONE}).nodes["x"]
    assert whole.status == OK and whole.ci_high is not None and nodes["x"].ci_high > whole.ci_high  # type: ignore[operator]


def test_what_cannot_be_asked_is_left_out_and_not_missed(two: Taxonomy) -> None:
    nodes = summarize(two, {"a": DONE}, {"b", "c"}).nodes
    x, y, root = nodes["x"], nodes["y"], nodes["root"]
    assert (x.score, x.missing, x.left_out, x.n_tasks, x.coverage) == (0.8, (), ("b",), 1, 1.0)
    assert (x.weight_coverage, root.weight_coverage) == (0.5, 0.25), "it still shows that less is known"
    assert (y.status, y.score, y.n_tasks, y.coverage, y.left_out) == (NO_DATA, None, 0, 0.0, ("c",))
    lacking = summarize(two, {"a": DONE}).nodes["x"]
    assert (lacking.missing, lacking.n_tasks, lacking.coverage) == (("b",), 2, 0.5)


def test_a_score_counts_whatever_the_roster_says_of_the_task(two: Taxonomy) -> None:
    assert summarize(two, {"a": DONE, "b": DONE}, {"b"}).nodes["x"].n_measured == 2
