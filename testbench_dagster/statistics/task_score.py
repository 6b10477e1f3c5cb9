"""What a rollup takes of a window: the primary score of one task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.core.window import (
    NOT_APPLICABLE,
    NOT_ASKED_STATUSES,
    PARTIAL,
    SCORED_STATUSES,
    Window,
)
from testbench_dagster.statistics.combinations import combined_error, docs_behind, mover, wilson_of_mean
from testbench_dagster.statistics.intervals import two_sided_z, wilson


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Mean of a task over ``n`` docs (at least 1), its standard error and 95 % interval.

    What is not given follows from the score as a share of ``n``: ``sqrt(score * (1 - score) / n)`` (exact for
    right-or-wrong scores, an upper bound for others from 0 to 1) and Wilson's interval. Of a score outside
    0..1 the error must be given (else ValueError); its interval is then normal. ``partial``: some of the docs
    are open, and the interval reaches over all ways in which they may close.
    """

    score: float
    n: int
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"a measured task has n >= 1, got {self.n}; leave unmeasured tasks out")
        if not math.isfinite(self.score):
            raise ValueError(f"a score must be finite, got {self.score}; leave unmeasured tasks out")
        if self.se is None:
            if not self.in_unit:
                raise ValueError(f"the score {self.score} is not a share; give its standard error")
        elif not (math.isfinite(self.se) and self.se >= 0.0):
            raise ValueError(f"a standard error must be finite and not negative, got {self.se}")
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError("give both ends of the interval or none")
        if (
            self.ci_low is not None
            and self.ci_high is not None
            and not self.ci_low <= self.score <= self.ci_high
        ):
            ends = f"[{self.ci_low}, {self.ci_high}]"
            raise ValueError(f"the score {self.score} must lie in its interval {ends}")

    @property
    def in_unit(self) -> bool:
        """Whether the score lies in 0..1."""
        return 0.0 <= self.score <= 1.0

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.score * (1.0 - self.score) / self.n) if self.se is None else self.se

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        if self.ci_low is not None and self.ci_high is not None:
            return self.ci_low, self.ci_high
        if self.in_unit:
            low, high = wilson(self.score * self.n, self.n)
            return min(low, self.score), max(high, self.score)
        half = two_sided_z(0.95) * self.error
        return self.score - half, self.score + half

    @property
    def docs(self) -> float:
        """Docs the interval stands for: ``n``, or as many as a Wilson interval of its width needs."""
        if self.ci_low is None or self.ci_high is None:
            return float(self.n)
        low, high = max(0.0, self.ci_low), min(1.0, self.ci_high)
        return docs_behind(self.score, low, high) if high - low < 1.0 else 1.0


def combined_tasks(weights: Mapping[str, float], scores: Mapping[str, TaskScore]) -> TaskScore:
    """The weighted mean of tasks with its interval; ``weights`` add up to 1.

    Of one task its own, to the last digit. Wilson's for as many docs as are behind the mean; where docs are
    open, or a score is no share, the tasks' intervals are combined by their ends (MOVER). Raises ValueError
    without tasks.
    """
    used = [scores[task] for task in weights]
    if len(used) == 1:
        return used[0]
    shares, values = list(weights.values()), [one.score for one in used]
    partial = any(one.partial for one in used)
    if partial or not all(one.in_unit for one in used):
        # an interval over open docs is lopsided: its ends combine each for itself
        low, high = mover(shares, values, *zip(*(one.interval for one in used), strict=True))
    else:
        low, high = wilson_of_mean(shares, values, [one.docs for one in used])
    mean = min(max(values), max(min(values), math.fsum(w * v for w, v in zip(shares, values, strict=True))))
    error = combined_error(shares, [one.error for one in used])
    n = sum(one.n for one in used)
    return TaskScore(mean, n, error, min(low, mean), max(high, mean), partial)


def measured_tasks(rows: Sequence[Window]) -> dict[str, TaskScore]:
    """The primary scores that a taxonomy can be made of: delivered quality in 0-1 metrics, more is better.

    Where lower is better that is 1 less the score, the ends of the interval swapped: else a mean over tasks
    would praise who does badly, and most of all who fails.
    """
    return {
        row.task: _task_score(row, row.score, row.ci_low, row.ci_high)
        for row in rows
        if row.primary
        and row.status in SCORED_STATUSES
        and row.score is not None
        and row.ci_low is not None
        and row.ci_high is not None
    }


def left_out(rows: Sequence[Window]) -> frozenset[str]:
    """The tasks that a supplier cannot be asked, which say nothing of it; not those that lack a score."""
    return frozenset(row.task for row in rows if row.primary and row.status in NOT_ASKED_STATUSES)


def not_applicable(rows: Sequence[Window]) -> frozenset[str]:
    """The tasks that the configuration does not ask a supplier."""
    return frozenset(row.task for row in rows if row.primary and row.status == NOT_APPLICABLE)


def _task_score(row: Window, score: float, low: float, high: float) -> TaskScore:
    if not row.higher_is_better:
        score, low, high = 1.0 - score, 1.0 - high, 1.0 - low
    # rounding may put a bound a digit past its score
    return TaskScore(score, row.asked, row.se, min(low, score), max(high, score), row.status == PARTIAL)
