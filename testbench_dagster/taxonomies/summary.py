"""Scores of abilities from scores of tasks.

Every node is a fixed linear combination of task means, so with A the matrix of weights (nodes by tasks), m
the tasks' means and SE their standard errors, the nodes' scores are ``A m`` and their covariance is
``A diag(SE^2) A'``. Tasks ask different questions, so given the supplier their means are independent; nodes
that share tasks are not, and the covariance says how much. A task that reaches a node by several branches is
one term with its weights added up, so it is not mistaken for independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from testbench_dagster.statistics.combinations import (
    combined_docs,
    combined_error,
    mover,
    smoothed,
    wilson_of_mean,
)
from testbench_dagster.statistics.control_variate import Represented, by_proxy
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies.model import Taxonomy, is_placeholder

if TYPE_CHECKING:
    import numpy as np

OK, PARTIAL, NO_DATA, UNDEFINED, NOT_APPLICABLE = "ok", "partial", "no_data", "undefined", "not_applicable"
"""A node's status: it has a score; one in which docs are open; nothing in it is measured; it has only
placeholders for tasks; the supplier is asked none of its tasks."""

_AT_ONCE = 250  # suppliers: bounds the memory of suppliers x nodes x tasks


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """An ability's score with all it rests on; score, error, interval and ``min_n`` are None without data.

    ``weights`` are those of the measured tasks in the score and add up to 1. ``n_tasks`` counts the tasks the
    node could rest on, ``n_measured`` those with data, ``coverage`` is their ratio, ``missing`` names the
    others. ``left_out`` are tasks that the supplier cannot be asked, ``not_applicable`` those that it is not
    asked; they count in none of these. ``weight_coverage`` is the share of the node's weight that was
    measured: 1 less what missing tasks, and those left out, would weigh if all were there that it is asked.
    ``min_n`` is the smallest number of docs behind a task that
    counts. ``shared``: the score is its proxy's, corrected by the differences on common docs
    (:mod:`testbench_dagster.statistics.control_variate`); ``own_score`` is then that of own docs alone.
    """

    node: str
    status: str
    score: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    weights: Mapping[str, float]
    n_tasks: int
    n_measured: int
    coverage: float
    weight_coverage: float
    min_n: int | None
    missing: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    not_applicable: tuple[str, ...] = ()
    own_score: float | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """All nodes of a taxonomy, parents before children, and the tasks with data they are made of."""

    taxonomy: str
    root: str
    nodes: Mapping[str, NodeSummary]
    tasks: Mapping[str, TaskScore]

    def covariance(self) -> list[list[float | None]]:
        """Covariance of the nodes' scores in the order of ``nodes``; None where one has no score."""
        errors = {task: score.error for task, score in self.tasks.items()}
        return covariance([n.weights or None for n in self.nodes.values()], errors)

    def difference(self, node: str, other: str) -> tuple[float, float, float, float] | None:
        """How much better ``node`` is than ``other``: value, standard error, ends of the 95 % interval.

        Tasks that both rest on cancel as far as they weigh the same. None where one has no score.
        """
        one, two = self.nodes[node], self.nodes[other]
        if one.score is None or two.score is None:
            return None
        names = list(dict.fromkeys((*one.weights, *two.weights)))
        weights = [one.weights.get(name, 0.0) - two.weights.get(name, 0.0) for name in names]
        used = [self.tasks[name] for name in names]
        low, high = _difference_bounds(weights, used)
        return one.score - two.score, combined_error(weights, [t.error for t in used]), low, high


def represented_summary(summary: Summary, represented: Represented) -> Summary:
    """The summary of one who is represented: its nodes by its proxy where that tells more than own docs."""
    nodes = {}
    for name, node in summary.nodes.items():
        found = by_proxy(node.weights, summary.tasks, represented) if node.weights else None
        if found is not None:
            low, high = found.interval
            status = PARTIAL if found.partial else node.status
            node = replace(
                node, status=status, score=found.score, se=found.error, ci_low=low, ci_high=high, shared=True
            )
        nodes[name] = node
    return replace(summary, nodes=nodes)


def covariance(
    weights: Sequence[Mapping[str, float] | None], errors: Mapping[str, float]
) -> list[list[float | None]]:
    """``A diag(SE^2) A'`` of nodes given by the weights of their tasks (None: no score), SE by task."""
    return [
        [
            None
            if one is None or two is None
            else math.fsum(w * two[task] * errors[task] ** 2 for task, w in one.items() if task in two)
            for two in weights
        ]
        for one in weights
    ]


def summarize(
    taxonomy: Taxonomy,
    measured: Mapping[str, TaskScore],
    left_out: Collection[str] = (),
    not_applicable: Collection[str] = (),
) -> Summary:
    """Scores of every node of ``taxonomy`` from the ``measured`` tasks; other tasks in it are ignored.

    A node's score is the weighted mean over its parts that have a score (:meth:`Taxonomy.parts`): its own
    tasks, or its children where it has none of its own; a group of tasks is the mean over its measured tasks.
    What was not measured is left out of the mean and named, never taken for zero; tasks of ``left_out``,
    which the supplier cannot be asked, are not even missed, and those ``not_applicable``, which it is not
    asked, are to its nodes as if the taxonomy had them not. Intervals are those of
    :mod:`testbench_dagster.statistics.combinations`: a node that rests on one task has the task's own.
    """
    return next(iter(summarize_many(taxonomy, [measured], [left_out], [not_applicable])))


def summarize_many(
    taxonomy: Taxonomy,
    measured: Sequence[Mapping[str, TaskScore]],
    left_out: Sequence[Collection[str]] | None = None,
    not_applicable: Sequence[Collection[str]] | None = None,
) -> Iterator[Summary]:
    """:func:`summarize` for many suppliers, in order; weights are found once per pattern of tasks."""
    import numpy as np

    tasks = taxonomy.leaves()
    place = {task: i for i, task in enumerate(tasks)}
    order = taxonomy.top_down()
    plan = _Plan(taxonomy, order, place)
    (scope,) = plan.weights(np.ones((1, len(tasks)), dtype=bool))
    for start in range(0, len(measured), _AT_ONCE):
        batch = [
            {task: scores[task] for task in tasks if task in scores and not is_placeholder(task)}
            for scores in measured[start : start + _AT_ONCE]
        ]
        present = np.zeros((len(batch), len(tasks)), dtype=bool)
        numbers = np.zeros((4, len(batch), len(tasks)))  # score, moved off the ends, variance there, error
        counts = np.zeros((len(batch), len(tasks)), dtype=np.int64)
        named = [np.zeros((len(batch), len(tasks)), dtype=bool) for _ in range(2)]
        for marks, given in zip(named, (left_out, not_applicable), strict=True):
            for row, names in enumerate(() if given is None else given[start : start + _AT_ONCE]):
                for task in names:
                    if task in place and task not in batch[row]:
                        marks[row, place[task]] = True
        for row, scores in enumerate(batch):
            for task, one in scores.items():
                column = place[task]
                present[row, column] = True
                near = smoothed(one.score, one.docs) if one.in_unit else (0.5, 1.0)
                numbers[:, row, column] = one.score, *near, one.error
                counts[row, column] = one.n
        patterns, of_row = np.unique(np.hstack([present, *named]), axis=0, return_inverse=True)
        weights = plan.weights(patterns[:, : len(tasks)])
        asked = plan.weights(~patterns[:, 2 * len(tasks) :])
        fixed = [plan.fixed(pattern, weights[i], asked[i], scope) for i, pattern in enumerate(patterns)]
        of_row = of_row.reshape(-1)
        chosen = weights[of_row]  # suppliers x nodes x tasks
        counted = chosen > 0
        means = np.einsum("snt,kst->snk", chosen, numbers[:2])
        # rounding of the weights may carry a mean past what it is made of
        lowest = np.where(counted, numbers[0][:, None, :], np.inf).min(axis=2)
        highest = np.where(counted, numbers[0][:, None, :], -np.inf).max(axis=2)
        means[..., 0] = np.minimum(highest, np.maximum(lowest, means[..., 0]))
        variances = np.einsum("snt,kst->snk", chosen**2, np.stack([numbers[2], numbers[3] ** 2]))
        least = np.where(counted, counts[:, None, :], np.iinfo(np.int64).max).min(axis=2)
        shares = (lowest >= 0.0) & (highest <= 1.0)
        columns = [array.tolist() for array in (means, variances, least, shares)]
        for row, scores in enumerate(batch):
            pattern, *found = (fixed[of_row[row]], *(column[row] for column in columns))
            nodes = {
                node: _node(node, pattern[i], found[0][i], found[1][i], found[2][i], found[3][i], scores)
                for i, node in enumerate(order)
            }
            yield Summary(taxonomy.name, taxonomy.root, nodes, scores)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What of a node follows from the pattern of measured tasks alone."""

    status: str
    weights: Mapping[str, float]
    n_tasks: int
    n_measured: int
    weight_coverage: float
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    not_applicable: tuple[str, ...]


class _Plan:
    """A taxonomy made ready for arithmetic over many patterns of measured tasks."""

    def __init__(self, taxonomy: Taxonomy, order: Sequence[str], place: Mapping[str, int]) -> None:
        self._order = order
        self._tasks = tuple(place)
        rank = {node: i for i, node in enumerate(order)}
        # per node its parts with their weights: the places of a task's leaves, or the rank of a child
        self._parts: list[list[tuple[float, list[int] | int]]] = [
            [
                (part.weight, rank[part.name])
                if part.leaves is None
                else (part.weight, [place[leaf] for leaf in part.leaves])
                for part in taxonomy.parts(node)
            ]
            for node in order
        ]

    def weights(self, patterns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Per pattern, node and task the weight; they add up to 1 over the tasks of a node with data."""
        import numpy as np

        n, tasks = patterns.shape
        weights = np.zeros((n, len(self._order), tasks))
        known = np.zeros((n, len(self._order)), dtype=bool)
        for node in reversed(range(len(self._order))):  # children first
            total = np.zeros(n)
            for weight, part in self._parts[node]:
                if isinstance(part, list):
                    there = patterns[:, part]
                    share = there.sum(axis=1)
                    has = share > 0
                    weights[:, node, part] += weight * there / np.maximum(share, 1)[:, None]
                else:
                    has = known[:, part]
                    weights[:, node] += weight * weights[:, part]
                total += weight * has
            known[:, node] = total > 0
            weights[:, node] /= np.where(total > 0, total, 1.0)[:, None]
        return weights

    def fixed(
        self,
        pattern: np.ndarray[Any, Any],
        weights: np.ndarray[Any, Any],
        asked: np.ndarray[Any, Any],
        scope: np.ndarray[Any, Any],
    ) -> list[_Fixed]:
        """Names and counts of every node under a pattern.

        A pattern says of every task whether it is measured, then of every task whether it cannot be asked,
        then whether it is not. ``asked``: weights with everything measured that is asked; ``scope``: with
        everything.
        """
        rows = []
        both, own, full, whole = pattern.tolist(), weights.tolist(), asked.tolist(), scope.tolist()
        n = len(self._tasks)
        there, cannot, is_not = both[:n], both[n : 2 * n], both[2 * n :]
        for node in range(len(self._order)):
            within = [i for i, weight in enumerate(whole[node]) if weight]
            have = [i for i in within if there[i]]
            missing = tuple(
                self._tasks[i] for i in within if not there[i] and not cannot[i] and not is_not[i]
            )
            left_out = tuple(self._tasks[i] for i in within if cannot[i] and not is_not[i])
            not_applicable = tuple(self._tasks[i] for i in within if is_not[i])
            if have:
                status = OK
            elif missing and all(map(is_placeholder, missing)):
                status = NOT_APPLICABLE if not_applicable and not left_out else UNDEFINED
            else:
                status = NO_DATA if missing or left_out else NOT_APPLICABLE
            measured = math.fsum(full[node][i] for i in have)
            rows.append(
                _Fixed(
                    status=status,
                    weights={self._tasks[i]: own[node][i] for i in have},
                    n_tasks=len(within) - len(left_out) - len(not_applicable),
                    n_measured=len(have),
                    weight_coverage=measured if missing or left_out or not have else 1.0,
                    missing=missing,
                    left_out=left_out,
                    not_applicable=not_applicable,
                )
            )
        return rows


def _node(
    node: str,
    fixed: _Fixed,
    means: Sequence[float],
    variances: Sequence[float],
    min_n: int,
    shares: bool,
    scores: Mapping[str, TaskScore],
) -> NodeSummary:
    covered = fixed.n_measured / fixed.n_tasks if fixed.n_tasks else 0.0
    counts = (fixed.n_tasks, fixed.n_measured, covered, fixed.weight_coverage)
    if fixed.status != OK:
        unknown = (None, None, None, None)
        return NodeSummary(
            node,
            fixed.status,
            *unknown,
            {},
            *counts,
            None,
            fixed.missing,
            fixed.left_out,
            fixed.not_applicable,
        )
    score, se = means[0], math.sqrt(variances[1])
    partial = any(scores[task].partial for task in fixed.weights)
    if fixed.n_measured == 1:
        only = scores[next(iter(fixed.weights))]
        score, se, (low, high) = only.score, only.error, only.interval  # to the last digit
    elif shares and not partial:
        docs = combined_docs(means[1], variances[0])
        low, high = wilson(score * docs, docs)
        low, high = min(low, score), max(high, score)
    else:
        # an interval over open docs is lopsided: its ends combine each for itself
        used = [scores[task] for task in fixed.weights]
        ends = zip(*(one.interval for one in used), strict=True)
        low, high = mover(list(fixed.weights.values()), [one.score for one in used], *ends)
    status = PARTIAL if partial else fixed.status
    names = (fixed.missing, fixed.left_out, fixed.not_applicable)
    return NodeSummary(node, status, score, se, low, high, fixed.weights, *counts, min_n, *names, score)


def _difference_bounds(weights: Sequence[float], scores: Sequence[TaskScore]) -> tuple[float, float]:
    """Of a combination with both signs: bounds of what counts for it and of what counts against, by MOVER."""
    if not all(score.in_unit for score in scores):
        ends = zip(*(score.interval for score in scores), strict=True)
        return mover(weights, [score.score for score in scores], *ends)
    factors, means, lows, highs = [], [], [], []
    for sign in (1.0, -1.0):
        side = [(sign * w, s) for w, s in zip(weights, scores, strict=True) if sign * w > 0]
        total = math.fsum(w for w, _ in side)
        if total > 0:
            shares = [w / total for w, _ in side]
            mean = math.fsum(w * s.score for w, (_, s) in zip(shares, side, strict=True))
            low, high = wilson_of_mean(shares, [s.score for _, s in side], [s.docs for _, s in side])
            factors.append(sign * total)
            means.append(mean)
            lows.append(min(low, mean))
            highs.append(max(high, mean))
    return mover(factors, means, lows, highs) if factors else (0.0, 0.0)
