"""Scores of groups: what lm-eval makes of the scores of a group's tasks, with an interval of our own.

A group's score is the mean of its tasks', each weighing as much as it has docs (``weight_by_size``), or all
the same; of a nested group all leaf tasks count directly. So lm-eval has it (``lm_eval.api.group``), and
``score_answered`` is its number to the last bit. ``score`` is the same mean of delivered scores: docs that a
task counts as wrong weigh in it. It takes all tasks: of some of them only it would be that of another group,
and who is measured on the easy ones first would lead.

Tasks ask different questions, so the variance of the mean is the sum of theirs times their squared weights:
``se = sqrt(sum(w^2 se^2))``, as of any stratified mean (W. G. Cochran, "Sampling Techniques", 3rd ed. 1977,
5.3). lm-eval pools the variances over all docs instead (``lm_eval.api.metrics.pooled_sample_stderr``), and
divides by the docs less the tasks; where sizes weigh, its ``stderr`` is ours times
``sqrt(docs / (docs - tasks))``.

The interval is Wilson's for as many docs as are behind that mean (Korn and Graubard 1998); where docs are
open, whose intervals are lopsided, the ends of the tasks' intervals are combined (MOVER, Zou and Donner
2008). Both are those of :mod:`testbench_dagster.statistics.combinations`, which has the formulas; how often
they hold the truth is simulated in ``testbench_dagster_tests/scoring/test_groups.py``.

Choices that are asked by letters on chat are other tasks (``mmlu_anatomy~chat``), and their group is another
one (``mmlu~chat``): no score mixes two forms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from testbench_dagster.core.task_group import GroupMetric, TaskGroup
from testbench_dagster.core.window import (
    GROUP,
    NO_DATA,
    NOT_APPLICABLE,
    OK,
    PARTIAL,
    REFUSED,
    UNREACHABLE,
    UNSUPPORTED,
    Window,
)
from testbench_dagster.scoring.costs import costs_of_group
from testbench_dagster.statistics.combinations import combined_error
from testbench_dagster.statistics.task_score import TaskScore, combined_tasks

#: Why a group has no score, the reason that outlasts the others first.
_REASONS = (NOT_APPLICABLE, UNSUPPORTED, REFUSED, UNREACHABLE, NO_DATA)
_Pair = tuple[str, str | None]
_T = TypeVar("_T")


def group_windows(
    groups: Sequence[TaskGroup], rows: Sequence[Window], *, primary_only: bool = False
) -> Iterator[Window]:
    """Yield the rows of groups of one supplier, made of all ``rows`` of its tasks.

    A group has a row for each metric and filter that it aggregates, the primary one first: that of its first
    task where it is among them, else the first.
    """
    of_task: dict[str, list[Window]] = {}
    for row in rows:
        of_task.setdefault(row.task, []).append(row)
    for group in groups:
        if not group.metrics or not all(task in of_task for task in group.tasks):
            continue
        own = [of_task[task] for task in group.tasks]
        pairs = dict(_pairs(group, own))
        configured = next((r.metric, r.filter) for r in own[0] if r.primary)
        first = configured if configured in pairs else next(iter(pairs))
        for pair in [first] if primary_only else sorted(pairs, key=lambda pair: pair != first):
            yield _row(group, own, pair, pairs[pair], primary=pair == first)


def _pairs(group: TaskGroup, own: Sequence[Sequence[Window]]) -> Iterator[tuple[_Pair, GroupMetric]]:
    """Yield each metric and filter that a group aggregates, with how.

    Without a list of filters those are all that its tasks have the metric by.
    """
    for wanted in group.metrics:
        filters: Sequence[str | None] | None = wanted.filters
        if filters is None:
            known = {row.filter for rows in own for row in rows if row.metric == wanted.metric}
            filters = sorted(name for name in known if name is not None) or [None]
        for name in filters:
            yield (wanted.metric, name), wanted


def _row(
    group: TaskGroup, own: Sequence[Sequence[Window]], pair: _Pair, wanted: GroupMetric, *, primary: bool
) -> Window:
    parts, sizes, lacking = [], [], []
    missing: dict[str, str] = {}
    for rows in own:
        part = next((row for row in rows if (row.metric, row.filter) == pair), None)
        if part is not None:
            parts.append(part)
            # lm-eval weighs a task by the most docs that any of its metrics has
            sizes.append(max(row.n for row in rows))
        elif rows[0].task_hash is None:
            lacking.append(rows[0].status)  # not prepared yet: nobody knows what metrics it has
            missing[rows[0].task] = rows[0].status
    scored = [(part, n) for part, n in zip(parts, sizes, strict=True) if part.score_answered is not None]
    answered = _mean(
        [part.score_answered for part, _ in scored if part.score_answered is not None],
        [n for _, n in scored] if wanted.weight_by_size else [1] * len(scored),
    )
    for part in parts:
        if part.score is None:
            lacking.append(part.status)
            missing[part.task] = part.status
    some = own[0][0]
    return Window(
        supplier=some.supplier,
        service=some.service,
        address=some.address,
        task=group.name,
        task_hash=None,
        group=None if group.name == group.root else group.root,
        framework=some.framework,
        metric=pair[0],
        filter=pair[1],
        primary=primary,
        status=_status(parts, lacking),
        n=sum(part.n for part in parts),
        n_planned=_sum(part.n_planned for part in parts),
        coverage=_coverage(parts),
        score_answered=answered,
        **_numbers(parts, wanted, complete=bool(parts) and not lacking),
        errors=dict(sorted(sum((Counter(part.errors) for part in parts), Counter()).items())),
        truncated=sum(part.truncated for part in parts),
        latency_ms={"p50": None, "p95": None},
        tokens={name: _sum(part.tokens.get(name) for part in parts) for name in ("prompt", "completion")},
        first_sample_at=min(
            (p.first_sample_at for p in parts if p.first_sample_at is not None), default=None
        ),
        last_sample_at=max((p.last_sample_at for p in parts if p.last_sample_at is not None), default=None),
        cut_at=some.cut_at,
        epoch=None,
        round=None,
        higher_is_better=all(part.higher_is_better for part in parts),
        n_released=sum(part.n_released for part in parts),
        n_failed=sum(part.n_failed for part in parts),
        n_open=sum(part.n_open for part in parts),
        n_void=sum(part.n_void for part in parts),
        n_late=sum(part.n_late for part in parts),
        failures=_common([part.failures for part in parts]),
        next_attempt_at=min(
            (p.next_attempt_at for p in parts if p.next_attempt_at is not None), default=None
        ),
        model=some.model,
        kind=GROUP,
        missing=missing or None,
        n_unmetered=sum(part.n_unmetered for part in parts),
        **costs_of_group([] if lacking else parts),
    )


def _status(parts: Sequence[Window], lacking: Sequence[str]) -> str:
    reasons = [reason for reason in _REASONS if reason in lacking]
    if reasons or not parts:
        return reasons[0] if reasons else NO_DATA
    return PARTIAL if any(part.status == PARTIAL for part in parts) else OK


def _numbers(parts: Sequence[Window], wanted: GroupMetric, *, complete: bool) -> dict[str, float | None]:
    """Score, error, interval and bounds of a group all of whose tasks have a score."""
    names = ("score", "ci_low", "ci_high", "se", "score_errors_as_zero", "bound_low", "bound_high")
    found: dict[str, float | None] = dict.fromkeys(names)
    if not complete:
        return found

    def mean(column: str, size: Callable[[Window], int]) -> float | None:
        values = [getattr(part, column) for part in parts]
        if any(value is None for value in values):
            return None
        return _mean(values, [size(part) for part in parts] if wanted.weight_by_size else [1] * len(parts))

    found["score"] = mean("score", _asked)
    found["score_errors_as_zero"] = mean("score_errors_as_zero", _asked)
    for end in ("bound_low", "bound_high"):
        found[end] = mean(end, lambda part: part.asked + part.n_void)
    return found | _uncertainty(parts, wanted, found["score"])


def _uncertainty(
    parts: Sequence[Window], wanted: GroupMetric, score: float | None
) -> dict[str, float | None]:
    """Standard error and interval of a group's score, where all its tasks have one."""
    total = sum(map(_asked, parts)) if wanted.weight_by_size else len(parts)
    weights: dict[str, float] = {}
    used = {part.task: part for part in parts}
    for part in parts:
        # a task that two nested groups hold is no independent evidence of itself
        weights[part.task] = (
            weights.get(part.task, 0.0) + (_asked(part) if wanted.weight_by_size else 1) / total
        )
    found: dict[str, float | None] = {"se": None, "ci_low": None, "ci_high": None}
    errors = [used[task].se for task in weights]
    known = [error for error in errors if error is not None]
    if len(known) == len(errors):
        found["se"] = combined_error(list(weights.values()), known)
    scores = {task: _task_score(used[task]) for task in weights}
    shares = {task: one for task, one in scores.items() if one is not None}
    if score is not None and len(shares) == len(weights):
        low, high = combined_tasks(weights, shares).interval
        found |= {"ci_low": min(low, score), "ci_high": max(high, score)}
    return found


def _task_score(row: Window) -> TaskScore | None:
    """What the interval of a group takes of a task; None where the task has no interval."""
    if row.score is None or row.ci_low is None or row.ci_high is None:
        return None
    # rounding may put a bound a digit past its score
    low, high = min(row.ci_low, row.score), max(row.ci_high, row.score)
    return TaskScore(row.score, row.asked, row.se, low, high, row.status == PARTIAL)


def _asked(row: Window) -> int:
    return row.asked


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float | None:
    """The weighted mean by lm-eval's own order of additions, None of nothing."""
    if not values or not sum(sizes):
        return None
    mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
    return mean if math.isfinite(mean) else None


def _coverage(parts: Sequence[Window]) -> float | None:
    planned = _sum(part.n_planned for part in parts)
    return sum(part.n for part in parts) / planned if planned else None


def _sum(values: Iterable[int | None]) -> int | None:
    known = _known(values)
    return sum(known) if known else None


def _known(values: Iterable[_T | None]) -> list[_T]:
    return [value for value in values if value is not None]


def _common(values: Sequence[str | None]) -> str | None:
    """What all of them are; None where they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None
