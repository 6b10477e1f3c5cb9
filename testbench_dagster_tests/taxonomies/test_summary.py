"""Ability scores against an independent computation by plain recursion and exact differences."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.intervals import normal_quantile
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError
from testbench_dagster.taxonomies.summary import TaskScore, summarize

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
    TaskScore,
    score=st.floats(0, 1),
    n=st.integers(1, 1000),
    variance=st.one_of(st.none(), st.floats(0, 0.25)),
)
measurements = st.dictionaries(st.sampled_from(TASK_POOL), scores)


def recursive(taxonomy, node, values):
    """Score of a node by the rule as it is told, in exact arithmetic; None without data."""
    if taxonomy.nodes[node]:
        parts = [values[task] for task in taxonomy.nodes[node] if task in values]
    else:
        below = [recursive(taxonomy, child, values) for parent, child in taxonomy.edges if parent == node]
        parts = [score for score in below if score is not None]
    return sum(parts) / len(parts) if parts else None


@settings(max_examples=200, deadline=None)
@given(taxonomies(), measurements)
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
        variance = 0.0
        for task, weight in weights.items():
            one = measured[task]
            spread = one.score * (1 - one.score) if one.variance is None else one.variance
            variance += float(weight) ** 2 * spread / one.n
        assert result.se == pytest.approx(math.sqrt(variance), abs=1e-12)
        reach = normal_quantile(0.975) * result.se
        assert result.ci_low == pytest.approx(max(0, result.score - reach), abs=1e-12)
        assert result.ci_high == pytest.approx(min(1, result.score + reach), abs=1e-12)
        assert 0 <= result.ci_low <= result.score <= result.ci_high <= 1
        assert result.min_n == min(measured[task].n for task, weight in weights.items() if weight)


@settings(max_examples=100, deadline=None)
@given(taxonomies(), measurements)
def test_coverage_counts_the_tasks_a_node_rests_on(taxonomy, measured):
    def scope(node):
        below = [scope(child) for parent, child in taxonomy.edges if parent == node]
        return set(taxonomy.nodes[node]) or set().union(*below)

    for node, result in summarize(taxonomy, measured).nodes.items():
        assert result.n_tasks == len(scope(node))
        assert set(result.missing) == scope(node) - set(measured)
        assert result.n_measured == len(scope(node) & set(measured))
        assert result.coverage == result.n_measured / result.n_tasks
        assert sum(result.weights.values()) == pytest.approx(1.0 if result.n_measured else 0.0)


@settings(max_examples=100, deadline=None)
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
    root = summary.overall
    assert root.score == 0.75
    assert root.weights == {"x": 0.5, "y": 0.5}
    assert root.missing == ("z", "w")
    assert (root.n_measured, root.n_tasks, root.coverage, root.min_n) == (2, 4, 0.5, 10)
    assert root.se == pytest.approx(math.sqrt(0.25 * 0.25 / 20))
    assert summary.nodes["c"].score is None is summary.nodes["d"].score
    assert next(iter(summary.nodes)) == "root"


def test_a_node_with_own_tasks_does_not_borrow_from_its_children():
    taxonomy = Taxonomy("t", {"r": ("x",), "a": ("y",)}, (("r", "a"),), "r")
    assert summarize(taxonomy, {"y": TaskScore(1.0, 5)}).overall.score is None
    assert summarize(taxonomy, {"x": TaskScore(0.2, 5), "y": TaskScore(1.0, 5)}).overall.score == 0.2


def test_a_shared_task_is_one_term():
    taxonomy = Taxonomy("t", {"r": (), "a": ("x",), "b": ("x",)}, (("r", "a"), ("r", "b")), "r")
    root = summarize(taxonomy, {"x": TaskScore(0.5, 25)}).overall
    assert root.weights == {"x": 1.0}
    assert root.se == pytest.approx(0.1), "two branches are no second opinion"


def test_nine_equal_tasks_divide_the_error_by_three():
    taxonomy = Taxonomy("t", {"r": tuple("abcdefghi")}, (), "r")
    root = summarize(taxonomy, {task: TaskScore(0.5, 25) for task in "abcdefghi"}).overall
    assert root.se == pytest.approx(0.1 / 3)


def test_scores_beyond_the_unit_are_not_clipped():
    taxonomy = Taxonomy("t", {"r": ("x", "y")}, (), "r")
    root = summarize(taxonomy, {"x": TaskScore(30.0, 4, 16.0), "y": TaskScore(-2.0, 4, 16.0)}).overall
    assert root.score == 14.0
    assert root.se == pytest.approx(math.sqrt(2.0))
    assert root.ci_high == pytest.approx(14.0 + normal_quantile(0.975) * math.sqrt(2.0))


def test_other_tasks_are_ignored_and_confidence_counts():
    taxonomy = Taxonomy("t", {"r": ("x",)}, (), "r")
    measured = {"x": TaskScore(0.5, 100), "other": TaskScore(0.0, 1)}
    wide, narrow = (summarize(taxonomy, measured, level).overall for level in (0.99, 0.8))
    assert wide.ci_low < narrow.ci_low < narrow.score < narrow.ci_high < wide.ci_high
    assert wide.weights == {"x": 1.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.5, 0), "n >= 1"),
        ((math.nan, 5), "finite"),
        ((1.5, 5), "give its variance"),
        ((0.5, 5, -0.1), "not negative"),
        ((0.5, 5, math.inf), "finite"),
    ],
)
def test_impossible_task_scores_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        TaskScore(*arguments)
