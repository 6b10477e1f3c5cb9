"""Scores of abilities from scores of tasks.

A node's score is a fixed linear combination of task means, so its standard error follows from theirs. Tasks
are treated as independent: covariance between different tasks (common questions, common outages) is not yet
taken into account, so intervals over positively related tasks are too narrow. A task that reaches a node by
several branches is one term with its weights added up, so it is not mistaken for independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from testbench_dagster.statistics.intervals import two_sided_z
from testbench_dagster.taxonomies.model import Taxonomy


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Mean of a task over ``n`` scored docs (at least 1), with the variance of one doc's score.

    ``variance`` None stands for ``score * (1 - score)``: exact for right-or-wrong scores, an upper bound for
    other scores from 0 to 1, and refused for scores outside (ValueError).
    """

    score: float
    n: int
    variance: float | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"a measured task has n >= 1, got {self.n}; leave unmeasured tasks out")
        if not math.isfinite(self.score):
            raise ValueError(f"a score must be finite, got {self.score}; leave unmeasured tasks out")
        if self.variance is None:
            if not self.in_unit:
                raise ValueError(f"the score {self.score} is not a share; give its variance")
        elif not (math.isfinite(self.variance) and self.variance >= 0.0):
            raise ValueError(f"a variance must be finite and not negative, got {self.variance}")

    @property
    def in_unit(self) -> bool:
        """Whether the score lies in 0..1."""
        return 0.0 <= self.score <= 1.0

    @property
    def mean_variance(self) -> float:
        """Variance of the mean: that of one doc's score divided by ``n``."""
        one = self.score * (1.0 - self.score) if self.variance is None else self.variance
        return one / self.n


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """An ability's score with all it rests on; score, error, interval and ``min_n`` are None without data.

    ``weights`` are those of the measured tasks in the score and add up to 1. ``n_tasks`` counts the tasks the
    node could rest on, ``n_measured`` those with data, ``coverage`` is their ratio, ``missing`` names the
    others. ``min_n`` is the smallest number of docs behind a task that counts.
    """

    node: str
    score: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    weights: Mapping[str, float]
    n_tasks: int
    n_measured: int
    coverage: float
    min_n: int | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """All nodes of a taxonomy, parents before children."""

    taxonomy: str
    root: str
    nodes: Mapping[str, NodeSummary]

    @property
    def overall(self) -> NodeSummary:
        """The root's summary."""
        return self.nodes[self.root]


def summarize(taxonomy: Taxonomy, measured: Mapping[str, TaskScore], confidence: float = 0.95) -> Summary:
    """Scores of every node of ``taxonomy`` from the ``measured`` tasks; other tasks in it are ignored.

    A node's score is the unweighted mean over its own measured tasks; that of a node without tasks of its
    own is the unweighted mean over its children that have a score. What was not measured is left out and
    named, never taken for zero. The interval is normal, ``score +- z * se`` (so it has no width where every
    doc scored the same: look at ``min_n``), and cut to 0..1 where all scores in it are shares.
    """
    z = two_sided_z(confidence)
    order = taxonomy.top_down()
    scopes: dict[str, tuple[str, ...]] = {}
    weights: dict[str, dict[str, float]] = {}
    for node in reversed(order):  # children first
        own = taxonomy.nodes[node]
        children = taxonomy.children(node)
        if own:
            scopes[node] = own
            parts = [{task: 1.0} for task in own if task in measured]
        else:
            scopes[node] = tuple(dict.fromkeys(task for child in children for task in scopes[child]))
            parts = [weights[child] for child in children if weights[child]]
        weights[node] = _mean(parts)
    nodes = {node: _summary(node, scopes[node], weights[node], measured, z) for node in order}
    return Summary(taxonomy.name, taxonomy.root, nodes)


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """Mean of linear combinations, each given by its weights."""
    total: dict[str, float] = {}
    for part in parts:
        for task, weight in part.items():
            total[task] = total.get(task, 0.0) + weight / len(parts)
    return total


def _summary(
    node: str, scope: tuple[str, ...], weights: dict[str, float], measured: Mapping[str, TaskScore], z: float
) -> NodeSummary:
    missing = tuple(task for task in scope if task not in measured)
    counts = (len(scope), len(scope) - len(missing), (len(scope) - len(missing)) / len(scope))
    if not weights:
        return NodeSummary(node, None, None, None, None, {}, *counts, None, missing)
    used = {task: measured[task] for task in weights}
    score = math.fsum(weight * used[task].score for task, weight in weights.items())
    se = math.sqrt(math.fsum(weight**2 * used[task].mean_variance for task, weight in weights.items()))
    low, high = score - z * se, score + z * se
    if all(task.in_unit for task in used.values()):
        # the score too: rounding of the weights may carry a mean of ones past 1
        low, score, high = (min(1.0, max(0.0, value)) for value in (low, score, high))
    min_n = min(task.n for task in used.values())
    return NodeSummary(node, score, se, low, high, weights, *counts, min_n, missing)
