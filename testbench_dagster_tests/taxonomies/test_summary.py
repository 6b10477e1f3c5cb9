"""Ability scores against an independent computation by plain recursion and exact differences."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.intervals import normal_quantile, wilson
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError
from testbench_dagster.taxonomies.summary import summarize, summarize_many

TASK_POOL = [f"task_{i}" for i in range(8)]


@st.composite
def taxonomies(draw):
    """Layered graphs in which every node hangs under an earlier one; invalid ones are drawn again."""
    size = draw(st.integers(2, 8))
    names = [f"n{i}" for i in range(size)]
    edges = {(names[draw(st.integers(0, i - 1))], names[i]) for i in range(1, size)}
    edges |= {
        (names[a], names[b])
        for a, b in draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=4))
        if a < b
    }
    parents = {parent for parent, _ in edges}
    nodes = {}
    for name in names:
        least = 0 if name in parents else 1
        most = 1 if name in parents else 3
        nodes[name] = tuple(
            draw(st.lists(st.sampled_from(TASK_POOL), min_size=least, max_size=most, unique=True))
        )
    try:
        return Taxonomy("drawn", nodes, tuple(sorted(edges)), names[0])
    except TaxonomyError:  # a task twice on one path: keep only the leaves' tasks
        return Taxonomy(
            "drawn",
            {n: () if n in parents else tasks for n, tasks in nodes.items()},
            tuple(sorted(edges)),
            names[0],
        )


scores = st.builds(
    TaskScore, score=st.floats(0, 1), n=st.integers(1, 1000), se=st.one_of(st.none(), st.floats(0, 0.5))
)
measurements = st.dictionaries(st.sampled_from(TASK_POOL), scores)


@st.composite
def weighted(draw):
    """Taxonomies some of whose parts count other than once, own tasks' nodes with children among them."""
    plain = draw(taxonomies())
    weights = {}
    for node, tasks in plain.nodes.items():
        given = draw(
            st.dictionaries(
                st.sampled_from([*tasks, *plain.children(node)]),
                st.sampled_from([0.25, 2.0, 3.0]),
                max_size=3,
            )
        )
        if given:
            weights[node] = given
    return replace(plain, weights=weights)


def scored_parts(taxonomy, node):
    """(name, weight, is a task) of what a node is made of, by the rule as it is told."""
    given = taxonomy.weights.get(node, {})
    tasks = [(task, given.get(task, 1.0), True) for task in taxonomy.nodes[node]]
    children = [child for parent, child in taxonomy.edges if parent == node]
    return tasks + [(c, given.get(c, 1.0), False) for c in children if not tasks or c in given]


def recursive(taxonomy, node, values):
    """Score of a node by the rule as it is told, in exact arithmetic; None without data."""
    total = weight = Fraction(0)
    for name, own, is_task in scored_parts(taxonomy, node):
        score = values.get(name) if is_task else recursive(taxonomy, name, values)
        if score is not None:
            total += Fraction(own) * score
            weight += Fraction(own)
    return total / weight if weight else None


@settings(max_examples=80, deadline=None)
@given(weighted(), measurements)
def test_score_and_error_match_recursion_and_exact_differences(taxonomy, measured):
    values = {task: Fraction(score.score) for task, score in measured.items()}
    summary = summarize(taxonomy, measured)
    assert set(summary.nodes) == set(taxonomy.nodes)
    for node, result in summary.nodes.items():
        expected = recursive(taxonomy, node, values)
        if expected is None:
            assert (result.score, result.se, result.ci_low, result.ci_high, result.min_n) == (None,) * 5
            assert result.n_measured == result.coverage == 0
            continue
        assert result.score == pytest.approx(float(expected), abs=1e-12)
        # the rule is linear, so raising one task by one raises the node by exactly the task's weight
        weights = {
            task: recursive(taxonomy, node, {**values, task: values[task] + 1}) - expected for task in values
        }
        assert {t: pytest.approx(float(w), abs=1e-12) for t, w in weights.items() if w} == result.weights
        variance = sum((float(w) * measured[task].error) ** 2 for task, w in weights.items())
        assert result.se == pytest.approx(math.sqrt(variance), abs=1e-12)
        assert 0 <= result.ci_low <= result.score <= result.ci_high <= 1
        assert result.min_n == min(measured[task].n for task, weight in weights.items() if weight)


@settings(max_examples=40, deadline=None)
@given(weighted(), measurements)
def test_coverage_counts_the_tasks_a_node_rests_on(taxonomy, measured):
    def scope(node):
        parts = scored_parts(taxonomy, node)
        return set().union(*({name} if is_task else scope(name) for name, _, is_task in parts))

    full = summarize(taxonomy, dict.fromkeys(taxonomy.leaves(), TaskScore(0.5, 9)))
    for node, result in summarize(taxonomy, measured).nodes.items():
        present = [w for task, w in full.nodes[node].weights.items() if task in measured]
        assert result.weight_coverage == pytest.approx(sum(present), abs=1e-12)
        assert result.status == ("ok" if present else "no_data")
        assert result.n_tasks == len(scope(node))
        assert set(result.missing) == scope(node) - set(measured)
        assert result.n_measured == len(scope(node) & set(measured))
        assert result.coverage == result.n_measured / result.n_tasks
        assert sum(result.weights.values()) == pytest.approx(1.0 if result.n_measured else 0.0)


@settings(max_examples=40, deadline=None)
@given(taxonomies(), measurements)
def test_a_node_is_never_worse_than_its_worst_task(taxonomy, measured):
    for result in summarize(taxonomy, measured).nodes.values():
        if result.score is not None:
            used = [measured[task].score for task in result.weights]
            assert min(used) - 1e-12 <= result.score <= max(used) + 1e-12


def branches():
    return Taxonomy(
        "t",
        {"root": (), "a": ("x",), "b": ("y", "z"), "c": (), "d": ("w",)},
        (("root", "a"), ("root", "b"), ("root", "c"), ("c", "d")),
        "root",
    )


def test_missing_children_do_not_drag_the_root_down():
    summary = summarize(branches(), {"x": TaskScore(1.0, 10), "y": TaskScore(0.5, 20)})
    root = summary.nodes["root"]
    assert root.score == 0.75
    assert root.weights == {"x": 0.5, "y": 0.5}
    assert root.missing == ("z", "w")
    assert (root.n_measured, root.n_tasks, root.coverage, root.min_n) == (2, 4, 0.5, 10)
    assert root.se == pytest.approx(math.sqrt(0.25 * 0.25 / 20))
    assert summary.nodes["c"].score is None is summary.nodes["d"].score
    assert next(iter(summary.nodes)) == "root"


def test_a_node_with_own_tasks_does_not_borrow_from_its_children():
    taxonomy = Taxonomy("t", {"r": ("x",), "a": ("y",)}, (("r", "a"),), "r")
    assert summarize(taxonomy, {"y": TaskScore(1.0, 5)}).nodes["r"].score is None
    assert summarize(taxonomy, {"x": TaskScore(0.2, 5), "y": TaskScore(1.0, 5)}).nodes["r"].score == 0.2


def test_a_shared_task_is_one_term():
    taxonomy = Taxonomy("t", {"r": (), "a": ("x",), "b": ("x",)}, (("r", "a"), ("r", "b")), "r")
    root = summarize(taxonomy, {"x": TaskScore(0.5, 25)}).nodes["r"]
    assert root.weights == {"x": 1.0}
    assert root.se == pytest.approx(0.1), "two branches are no second opinion"


def test_nine_equal_tasks_divide_the_error_by_three():
    taxonomy = Taxonomy("t", {"r": tuple("abcdefghi")}, (), "r")
    root = summarize(taxonomy, {task: TaskScore(0.5, 25) for task in "abcdefghi"}).nodes["r"]
    assert root.se == pytest.approx(0.1 / 3)


def test_scores_beyond_the_unit_are_not_clipped():
    taxonomy = Taxonomy("t", {"r": ("x", "y")}, (), "r")
    root = summarize(taxonomy, {"x": TaskScore(30.0, 4, 2.0), "y": TaskScore(-2.0, 4, 2.0)}).nodes["r"]
    assert root.score == 14.0
    assert root.se == pytest.approx(math.sqrt(2.0))
    assert root.ci_high == pytest.approx(14.0 + normal_quantile(0.975) * math.sqrt(2.0))


def test_a_node_of_one_task_has_the_tasks_own_numbers_to_the_last_digit():
    taxonomy = Taxonomy("t", {"r": (), "a": ("x",), "b": ("y",)}, (("r", "a"), ("r", "b")), "r")
    given = TaskScore(19 / 23, 23, 0.0837, 0.611, 0.93)
    root = summarize(taxonomy, {"x": given, "other": TaskScore(0.0, 1)}).nodes["r"]
    assert (root.score, root.se, root.ci_low, root.ci_high) == (19 / 23, 0.0837, 0.611, 0.93)
    plain = summarize(taxonomy, {"y": TaskScore(1.0, 12)}).nodes["r"]
    assert (plain.ci_low, plain.ci_high) == wilson(12, 12)
    assert plain.se == 0.0 and plain.ci_low < 0.8, "perfect answers to twelve questions prove little"


@settings(max_examples=40, deadline=None)
@given(weighted(), measurements, st.sampled_from(TASK_POOL))
def test_a_task_without_data_changes_only_what_rests_on_it(taxonomy, measured, gone):
    before = summarize(taxonomy, measured).nodes
    after = summarize(taxonomy, {task: one for task, one in measured.items() if task != gone}).nodes
    for node, result in before.items():
        if gone not in result.weights:
            assert after[node] == result
        else:
            assert after[node].n_measured == result.n_measured - 1 and gone in after[node].missing


@settings(max_examples=20, deadline=None)
@given(weighted(), st.lists(measurements, min_size=1, max_size=6))
def test_many_suppliers_at_once_are_each_as_alone(taxonomy, suppliers):
    together = list(summarize_many(taxonomy, suppliers))
    assert len(together) == len(suppliers)
    for summary, measured in zip(together, suppliers, strict=True):
        alone = summarize(taxonomy, measured)
        assert summary.tasks == alone.tasks == {t: s for t, s in measured.items() if t in taxonomy.leaves()}
        for node, result in alone.nodes.items():
            other = summary.nodes[node]
            assert (other.weights, other.missing, other.min_n) == (
                result.weights,
                result.missing,
                result.min_n,
            )
            for field in ("score", "se", "ci_low", "ci_high"):
                assert getattr(other, field) == pytest.approx(getattr(result, field), abs=1e-12)


def shared_branches():
    """Two abilities that share a task, and a third of its own."""
    nodes = {"r": (), "a": ("x", "y"), "b": ("y", "z"), "c": ("w",)}
    return Taxonomy("t", nodes, tuple(("r", n) for n in "abc"), "r", {"r": {"a": 2.0}, "b": {"z": 3.0}})


def test_errors_and_covariance_are_those_of_a_bootstrap_over_docs():
    """The goal: within 5 % of resampling the answered docs, shared tasks included."""
    generator = np.random.default_rng(20261124)
    answers = {
        "x": (generator.random(40) < 0.8) * 1.0,
        "y": (generator.random(60) < 0.6) * 1.0,
        "z": generator.beta(2, 3, 50),  # no right-or-wrong scores: their own error
        "w": (generator.random(30) < 0.9) * 1.0,
    }

    def scores_of(values):
        return {
            t: TaskScore(float(v.mean()), len(v), float(v.std() / len(v) ** 0.5)) for t, v in values.items()
        }

    summary = summarize(shared_branches(), scores_of(answers))
    order = list(summary.nodes)
    # resampling whole docs, then the rule as told, in plain arithmetic
    draws = {t: v[generator.integers(0, len(v), (40_000, len(v)))].mean(axis=1) for t, v in answers.items()}
    a, b, c = (draws["x"] + draws["y"]) / 2, (draws["y"] + 3 * draws["z"]) / 4, draws["w"]
    resampled = {"r": (2 * a + b + c) / 4, "a": a, "b": b, "c": c}
    expected = np.cov(np.array([resampled[node] for node in order]))
    assert [summary.nodes[n].se for n in order] == pytest.approx(np.sqrt(np.diag(expected)), rel=0.05)
    found = np.array(summary.covariance())
    assert np.allclose(np.diag(found), [summary.nodes[n].se ** 2 for n in order], rtol=1e-12)
    correlations = found / np.sqrt(np.outer(np.diag(found), np.diag(found)))
    assert np.abs(correlations - np.corrcoef([resampled[n] for n in order])).max() < 0.02
    place = {node: i for i, node in enumerate(order)}
    assert correlations[place["a"], place["b"]] > 0.2, "they share a task"
    assert found[place["a"], place["c"]] == 0.0
    gap = summary.difference("a", "b")
    assert gap is not None
    assert gap[0] == pytest.approx(summary.nodes["a"].score - summary.nodes["b"].score)
    assert gap[1] == pytest.approx((a - b).std(), rel=0.05)
    low, high = np.quantile(a - b, [0.025, 0.975])
    assert gap[2] < low + 0.02 and gap[3] > high - 0.02
    assert gap[3] - gap[2] < 1.5 * (high - low), "Wilson's interval of z is for a coin, so somewhat wide"


def test_a_difference_of_equal_nodes_is_nothing_and_of_unknown_ones_unknown():
    taxonomy = Taxonomy(
        "t", {"r": (), "a": ("x",), "b": ("x",), "c": ("y",)}, tuple(("r", n) for n in "abc"), "r"
    )
    summary = summarize(taxonomy, {"x": TaskScore(0.5, 25)})
    assert summary.difference("a", "b") == (0.0, 0.0, 0.0, 0.0)
    assert summary.difference("a", "c") is None
    assert summary.covariance()[0][list(summary.nodes).index("c")] is None


def test_a_group_shares_one_part_and_placeholders_show_as_such():
    taxonomy = Taxonomy("t", {"r": ("all", "x"), "a": ("undefined_task1",)}, (("r", "a"),), "r").with_groups(
        {"all": ("g1", "g2", "g3"), "not_here": ("q",)}
    )
    assert taxonomy.leaves() == ("g1", "g2", "g3", "x", "undefined_task1")
    measured = {"g1": TaskScore(1.0, 10), "g3": TaskScore(0.5, 10), "x": TaskScore(0.25, 10)}
    summary = summarize(taxonomy, {**measured, "undefined_task1": TaskScore(1.0, 5)})
    root, bare = summary.nodes["r"], summary.nodes["a"]
    assert root.score == 0.5
    assert root.weights == {"g1": 0.25, "g3": 0.25, "x": 0.5}
    assert (root.n_tasks, root.n_measured, root.missing) == (4, 3, ("g2",))
    assert root.weight_coverage == pytest.approx(5 / 6)
    assert (bare.status, bare.score, bare.missing) == ("undefined", None, ("undefined_task1",))
    with pytest.raises(TaxonomyError, match="has the task 'x' through 'all' and 'x'"):
        taxonomy.with_groups({"all": ("x", "y")})
    with pytest.raises(TaxonomyError, match="count twice on one path"):
        Taxonomy("t", {"r": ("g",), "a": ("x",)}, (("r", "a"),), "r").with_groups({"g": ("x",)})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.5, 0), "n >= 1"),
        ((math.nan, 5), "finite"),
        ((1.5, 5), "give its standard error"),
        ((0.5, 5, -0.1), "not negative"),
        ((0.5, 5, math.inf), "finite"),
        ((0.5, 5, 0.1, 0.2), "both ends"),
        ((0.5, 5, 0.1, 0.6, 0.8), "must lie in its interval"),
    ],
)
def test_impossible_task_scores_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        TaskScore(*arguments)
