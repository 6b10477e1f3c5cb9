"""What a rollup takes of a window: the primary score of one task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from testbench_dagster.core.window import OK, Window
from testbench_dagster.statistics.combinations import docs_behind
from testbench_dagster.statistics.intervals import two_sided_z, wilson


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Mean of a task over ``n`` scored docs (at least 1), its standard error and 95 % interval.

    What is not given follows from the score as a share of ``n``: ``sqrt(score * (1 - score) / n)`` (exact for
    right-or-wrong scores, an upper bound for others from 0 to 1) and Wilson's interval. Of a score outside
    0..1 the error must be given (else ValueError); its interval is then normal.
    """

    score: float
    n: int
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None

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


def measured_tasks(rows: Sequence[Window]) -> dict[str, TaskScore]:
    """The primary scores that a taxonomy can be made of: 0-1 metrics with data.

    Where the supplier's identity group pools its answers, the group's score.
    """
    return {
        row.task: _task_score(row)
        for row in rows
        if row.primary and row.status == OK and row.score is not None and row.ci_low is not None
    }


def _task_score(row: Window) -> TaskScore:
    pooled = getattr(row, "pooled", None)
    if pooled and pooled.get("score") is not None and pooled.get("ci_low") is not None:
        numbers = {name: pooled.get(name) for name in ("score", "n", "se", "ci_low", "ci_high")}
    else:
        numbers = {name: getattr(row, name, None) for name in ("score", "n", "se", "ci_low", "ci_high")}
    # rounding may put a bound a digit past its score
    numbers["ci_low"] = min(numbers["ci_low"], numbers["score"])
    numbers["ci_high"] = max(numbers["ci_high"], numbers["score"])
    return TaskScore(**numbers)
