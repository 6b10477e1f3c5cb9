"""What stands where in the pictures of abilities, and what a reader must be able to tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies import plots
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import NodeSummary, summarize
from testbench_dagster_tests.pictures import assert_approved, figure_of

APPROVED = Path(__file__).with_name("pictures")
TREE = Taxonomy(
    "t",
    {
        "all": (),
        "reading": ("x",),
        "a_name_that_is_too_long_for_one_line_of_a_box": ("y",),
        "later": ("undefined_task1",),
        "proofs": ("v", "w"),
        "apart": ("z",),
    },
    (
        ("all", "reading"),
        ("all", "a_name_that_is_too_long_for_one_line_of_a_box"),
        ("reading", "later"),
        ("a_name_that_is_too_long_for_one_line_of_a_box", "proofs"),
        ("all", "proofs"),
        ("apart", "reading"),
    ),
    "all",
    detached=("apart",),
)
MEASURED = {
    "x": TaskScore(0.75, 40),
    "y": TaskScore(0.25, 30),
    "z": TaskScore(0.0, 5),
    "v": TaskScore(0.5, 8),
}


def rows(measured: dict[str, TaskScore]) -> Mapping[str, NodeSummary]:
    return summarize(TREE, measured).nodes


def ability(score: float) -> Ability:
    """As it is stored, of one task and without an interval."""
    return Ability(
        node="all",
        status="ok",
        score=score,
        se=None,
        ci_low=None,
        ci_high=None,
        weights={"x": 1.0},
        n_tasks=1,
        n_measured=1,
        coverage=1.0,
        min_n=None,
        missing=[],
        n=0,
        errors=0,
    )


def test_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figure_of(lambda: plots.dag(TREE, rows(MEASURED), "one $x$", plots.SIMULATED), monkeypatch)
    assert_approved(figure, APPROVED / "dag.txt")


def test_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figure_of(lambda: plots.bars(TREE, rows(MEASURED), "one $x$", plots.SIMULATED), monkeypatch)
    assert_approved(figure, APPROVED / "bars.txt")


def test_the_heat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    suppliers = {
        "a" * 34: rows(MEASURED),
        "0123456789ab" + "-" * 9 + "0123456789abcdefghijk": rows({"x": TaskScore(1.0, 9)}),
        "none": {},
    }
    figure = figure_of(lambda: plots.heatmap(TREE, suppliers, "all $x$", most=2), monkeypatch)
    assert_approved(figure, APPROVED / "heatmap.txt")


def test_the_least_picture_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node, no supplier: pictures keep a size in which titles can be read."""
    alone = Taxonomy("t", {"all": ("x",)}, (), "all")
    drawn = {
        "dag": lambda: plots.dag(alone, {}, "t"),
        "bars": lambda: plots.bars(alone, {}, "t", "a note of some length that is wrapped " * 3),
        "heatmap": lambda: plots.heatmap(alone, {}, "t"),
    }
    for name, draw in drawn.items():
        assert_approved(figure_of(draw, monkeypatch), APPROVED / f"least_{name}.txt")


def luminance(colour: object) -> float:
    """Relative luminance of WCAG 2."""
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("score", [-0.2, 0.0, 0.3, 0.549, 0.55, 0.8, 1.0, 30.0])
def test_figures_can_be_read_on_their_colour(score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contrast of 3.7 and more (WCAG wants 3 of large letters), also of scores outside 0 to 1."""
    tree = Taxonomy("t", {"all": ("x",)}, (), "all")
    nodes = {"all": ability(score)}
    graph = figure_of(lambda: plots.dag(tree, nodes, "t"), monkeypatch).axes[0]
    heat = figure_of(lambda: plots.heatmap(tree, {"s": nodes}, "t"), monkeypatch).axes[0]
    for axes in (graph, heat):
        lighter, darker = sorted(
            (luminance(axes.patches[0].get_facecolor()), luminance(axes.texts[0].get_color())), reverse=True
        )
        assert (lighter + 0.05) / (darker + 0.05) >= 3.7


def test_children_stand_right_of_and_amid_their_parents() -> None:
    """Columns by the longest way from the root, leaves one apart in the order of edges."""
    assert plots.layout(TREE) == {
        "all": (0, pytest.approx(2 / 3)),
        "reading": (1, 0.0),
        "a_name_that_is_too_long_for_one_line_of_a_box": (1, 1.0),
        "later": (2, 0.0),
        "proofs": (2, 1.0),
        "apart": (0, pytest.approx(5 / 3)),
    }


def test_bars_stand_in_the_order_of_the_tree_whatever_that_of_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The root first, then who has no parent, children right after their first parent."""
    tree = Taxonomy(
        "t",
        {"kid": ("y",), "all": (), "low": ("x",), "top": ("z",), "mid": ("w",)},
        (("top", "kid"), ("all", "mid"), ("mid", "low"), ("all", "low")),
        "all",
        detached=("kid", "top"),
    )
    axes = figure_of(lambda: plots.bars(tree, {}, "t"), monkeypatch).axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["all", "    mid", "        low", "top", "    kid"]
    places = plots.layout(tree)
    assert {name: x for name, (x, _) in places.items()} == {"all": 0, "mid": 1, "low": 2, "top": 0, "kid": 1}
    assert places["top"][1] > places["all"][1]
