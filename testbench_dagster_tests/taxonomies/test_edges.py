"""The ends of what taxonomies, scores and pooling accept, and numbers of summaries by hand."""

from __future__ import annotations

import math

import pytest

from testbench_dagster.stages.summarize.pooling import FEW_DOCS, pooled_nodes
from testbench_dagster.statistics.combinations import mover, wilson_of_mean
from testbench_dagster.statistics.intervals import normal_quantile, wilson
from testbench_dagster.statistics.shrinkage import Prior
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies import tax_format, yaml_format
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError
from testbench_dagster.taxonomies.summary import covariance, summarize, summarize_many
from testbench_dagster_tests.records import changeable

FLAT = Taxonomy("t", {"r": ("x", "y")}, (), "r")
TWO = Taxonomy("t", {"r": (), "a": ("x", "y"), "b": ("y", "z")}, (("r", "a"), ("r", "b")), "r")


def test_records_stay_what_they_are() -> None:
    assert changeable("testbench_dagster.taxonomies") <= {"_Block"}


def test_the_covariance_of_nodes_that_share_a_task() -> None:
    found = covariance([{"x": 0.5, "y": 0.5}, {"y": 1.0}, None], {"x": 0.2, "y": 0.4})
    assert found == [
        [pytest.approx(0.25 * 0.04 + 0.25 * 0.16), pytest.approx(0.5 * 0.16), None],
        [pytest.approx(0.5 * 0.16), pytest.approx(0.16), None],
        [None, None, None],
    ]


def test_a_difference_is_of_what_counts_for_it_less_what_counts_against() -> None:
    """a - b = x / 2 - z / 2: the shared task y cancels; each side has Wilson's interval, MOVER joins them."""
    scores = {"x": TaskScore(0.8, 20), "y": TaskScore(0.5, 10), "z": TaskScore(0.4, 30)}
    found = summarize(TWO, scores).difference("a", "b")
    assert found is not None
    sides = [wilson_of_mean([1.0], [scores[t].score], [float(scores[t].n)]) for t in "xz"]
    low, high = mover([0.5, -0.5], [0.8, 0.4], [s[0] for s in sides], [s[1] for s in sides])
    error = math.sqrt(0.25 * 0.8 * 0.2 / 20 + 0.25 * 0.4 * 0.6 / 30)
    assert found == pytest.approx((0.2, error, low, high))


def test_a_difference_of_scores_beyond_the_unit() -> None:
    scores = {"x": TaskScore(8.0, 20, 1.0), "y": TaskScore(0.5, 10), "z": TaskScore(3.0, 30, 0.5)}
    found = summarize(TWO, scores).difference("a", "b")
    assert found is not None
    half = normal_quantile(0.975) * math.sqrt(0.25 * 1.0 + 0.25 * 0.25)
    assert found == pytest.approx((2.5, math.sqrt(0.25 + 0.0625), 2.5 - half, 2.5 + half))


@pytest.mark.parametrize("number", [249, 250, 251, 501])
def test_any_number_of_suppliers_has_a_summary_each(number: int) -> None:
    measured = [{"x": TaskScore(i / number, 10 + i)} for i in range(number)]
    found = list(summarize_many(FLAT, measured))
    assert [summary.nodes["r"].score for summary in found] == [i / number for i in range(number)]
    assert [summary.nodes["r"].min_n for summary in found] == [10 + i for i in range(number)]


def test_a_mean_of_shares_and_one_that_is_none() -> None:
    """At 0 and 1 shares still are shares; just beyond, the interval is that of any numbers."""
    ends = summarize(FLAT, {"x": TaskScore(0.0, 10), "y": TaskScore(1.0, 10)}).nodes["r"]
    assert (ends.ci_low, ends.ci_high) == pytest.approx(wilson_of_mean([0.5, 0.5], [0.0, 1.0], [10.0, 10.0]))
    beyond = summarize(FLAT, {"x": TaskScore(-0.001, 10, 0.1), "y": TaskScore(1.0, 10, 0.1)}).nodes["r"]
    one, two = TaskScore(-0.001, 10, 0.1).interval, wilson(10, 10)
    expected = mover([0.5, 0.5], [-0.001, 1.0], [one[0], two[0]], [one[1], two[1]])
    assert (beyond.ci_low, beyond.ci_high) == pytest.approx(expected)


def test_tasks_with_few_docs_are_pooled_and_no_others() -> None:
    assert FEW_DOCS == 20
    priors = {task: Prior(6.0, 2.0) for task in "xyz"}
    scores = {"x": TaskScore(0.5, 19), "y": TaskScore(0.5, 20), "z": TaskScore(0.5, 5)}
    found = pooled_nodes(TWO, summarize(TWO, scores), {k: priors[k] for k in "xy"})
    assert {name: node.tasks for name, node in found.items()} == {"r": ["x"], "a": ["x"]}
    pooled = priors["x"].pooled(9.5, 19)
    assert found["a"].score == pytest.approx((pooled.score + 0.5) / 2)
    assert found["a"].se == pytest.approx(math.sqrt(pooled.se**2 + 0.25 / 20) / 2)
    assert pooled_nodes(TWO, summarize(TWO, {"y": scores["y"]}), priors) == {}


@pytest.mark.parametrize("weight", [1e-3, 1e3, 1.0])
def test_weights_up_to_a_thousand_to_one(weight: float) -> None:
    tree = Taxonomy("t", {"r": ("x", "y")}, (), "r", {"r": {"x": weight}})
    found = summarize(tree, {"x": TaskScore(1.0, 9), "y": TaskScore(0.0, 9)}).nodes["r"]
    assert found.score == pytest.approx(weight / (weight + 1))


@pytest.mark.parametrize("weight", [0.99e-3, 1.001e3, 0.0, -1.0, math.nan, math.inf])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(TaxonomyError, match=r"want a number from 0\.001 to 1000"):
        Taxonomy("t", {"r": ("x",)}, (), "r", {"r": {"x": weight}})


@pytest.mark.parametrize(
    ("blocks", "line", "said"),
    [
        ("", 1, "found 0 blocks"),
        ("a {\nroot_c -> b;\n}", 3, "found 1 block;"),
        ("a {\nroot_c -> b;\n}\n\na_labeling {\nb -> t;\n}\nc {\n}\nd {\n}", 8, "found 4 blocks"),
        ("a {\nroot_c -> b;\n}\nb_labeling {\nb -> t;\n}", 4, "rename it 'a_labeling'"),
        ("a {\nroot_c -> b;\nb -> c;\n}\na_labeling {\nb -> t;\n}", 3, "'c' has no label"),
        ("a {\nroot_c -> b;\n}\na_labeling {\nb -> t:1;\n}", 5, "contains ':'"),
        ("a {\nroot_c -> b;\n}\na_labeling {\nb -> t;\nroot_c -> u;\n}", 6, "means nothing"),
        ("a {\nc -> b;\n}\na_labeling {\nb -> t;\nc -> u;\n}", 1, "no edge starts at the root"),
        ("a {\nroot_c -> b -> c;\n}", 2, "expected one arrow"),
        ("a {\nroot_c -> b c;\n}", 2, "is no name"),
        ("a {\nroot_c -> b; // so\n}", 2, "put it on its own line"),
        ("//a -> b\na {\n}", 1, "indent or delete it"),
        ("a {\nroot_c -> b;", 1, "is not closed"),
        ("a {\nroot_c -> b;\n}\nroot_c -> c;", 4, "expected 'name {'"),
        ("a {\nroot_c -> b;\nb -> c;\nc -> b;\n}\na_labeling {\nb -> t;\nc -> u;\n}", 3, "form a cycle"),
    ],
)
def test_what_is_wrong_on_which_line_of_a_tax_file(blocks: str, line: int, said: str) -> None:
    with pytest.raises(tax_format.LineError, match=said) as caught:
        tax_format.parse(blocks)
    assert caught.value.line == line


def test_labels_of_what_is_no_node_are_left_out_and_kept_for_telling() -> None:
    """As pocket-ml-testbench loads them: its tasks are none of the taxonomy's, whatever else has them."""
    hierarchy = "a {\nroot_c -> b;\n}\na_labeling {\n"
    found = tax_format.parse(f"{hierarchy}c:d -> u;\nb -> t;\nc:d -> t;\nc:d -> x:1;\n}}")
    assert found.nodes == {"root_c": (), "b": ("t",)}
    assert (found.tasks(), found.leaves(), found.detached) == (("t",), ("t",), ())
    assert found.unplaced == {"c---d": ("u", "t", "x:1")}
    plain = tax_format.parse(f"{hierarchy}b -> t;\n}}")
    assert found == plain and plain.unplaced == {}
    placed = tax_format.parse(f"{hierarchy}c -> u;\nb -> t;\n}}")
    assert tax_format.parse(tax_format.write(placed)).unplaced == placed.unplaced == {"c": ("u",)}
    assert yaml_format.parse(yaml_format.write(placed)) == placed
    with pytest.raises(tax_format.LineError, match="'b' has no label"):  # a slip of the pen is found
        tax_format.parse(f"{hierarchy}bb -> t;\n}}")


def test_quoted_names_and_comments_of_a_tax_file() -> None:
    text = '\ufeffdigraph "a" {\n  // root_c -> z;\n"root_c" -> "b";\nroot_c -> ""b"";\n\n}\n'
    text += "a_labeling {\nb -> t\n}"
    with pytest.raises(tax_format.LineError, match="is no name"):
        tax_format.parse(text)
    found = tax_format.parse(
        text.replace('root_c -> ""b"";\n', "root_c -> x:1;\n").replace("b -> t", "b->t\nx:1 -> u")
    )
    assert found.nodes == {"root_c": (), "b": ("t",), "x---1": ("u",)}


def test_yaml_names_the_line_at_fault() -> None:
    with pytest.raises(TaxonomyError, match=r"^line 3: the key 'root' stands twice; remove one"):
        yaml_format.parse("name: a\nroot: r\nroot: s\n")
    for value in ("true", "x", "[1]"):
        with pytest.raises(TaxonomyError, match=r"nodes\.r\.weights\.x must be a number above 0"):
            yaml_format.parse(f"name: a\nroot: r\nnodes:\n  r: {{tasks: [x], weights: {{x: {value}}}}}\n")
    for weight in (2, 2.5):
        text = f"name: a\nroot: r\nnodes:\n  r: {{tasks: [x], weights: {{x: {weight}}}}}\n"
        assert yaml_format.parse(text).weights == {"r": {"x": weight}}


def test_graphs_that_make_no_sense() -> None:
    refused = {
        "has no name": ("", {"r": ("x",)}, (), "r"),
        "'s' is no node": ("t", {"r": ("x",)}, (), "s"),
        "names no node with 'q'": ("t", {"r": ("x",)}, (("r", "q"),), "r"),
        "stands twice": ("t", {"r": (), "a": ("x",)}, (("r", "a"), ("r", "a")), "r"),
        "lists the task 'x' twice": ("t", {"r": ("x", "x")}, (), "r"),
        "neither tasks nor children": ("t", {"r": ()}, (), "r"),
        "out of the reach": ("t", {"r": ("x",), "a": ("y",)}, (), "r"),
        "in node 'b' and in 'r' above it": (
            "t",
            {"r": ("x",), "a": ("z",), "b": ("x",)},
            (("r", "a"), ("a", "b")),
            "r",
        ),
    }
    for said, arguments in refused.items():
        with pytest.raises(TaxonomyError, match=said):
            Taxonomy(*arguments)  # type: ignore[arg-type]
    placeholder = Taxonomy("t", {"r": ("undefined_task1",), "a": ("undefined_task1",)}, (("r", "a"),), "r")
    assert placeholder.leaves() == ("undefined_task1",)
    for said, weights, detached in (
        ("which is no node", {"q": {"x": 1.0}}, ()),
        ("neither a task nor a child", {"r": {"q": 1.0}}, ()),
        ("detached: 'q' is no node", {}, ("q",)),
        ("called detached, but edges lead to it", {}, ("a",)),
    ):
        with pytest.raises(TaxonomyError, match=said):
            Taxonomy("t", {"r": (), "a": ("x",)}, (("r", "a"),), "r", weights, detached)
    with pytest.raises(TaxonomyError, match="which is a task and a child of it"):
        Taxonomy("t", {"r": ("a",), "a": ("x",)}, (("r", "a"),), "r", {"r": {"a": 2.0}})
    with pytest.raises(TaxonomyError, match=r"the nodes (a -> b -> a|b -> a -> b) form a cycle"):
        Taxonomy("t", {"r": (), "a": ("x",), "b": ("y",)}, (("r", "a"), ("a", "b"), ("b", "a")), "r")
