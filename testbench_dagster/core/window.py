"""The window of a supplier and task: its samples, and the row of testbench scores that they make.

The row's columns, and where they are shown, are declared here and nowhere else (see :mod:`.columns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from testbench_dagster.core.columns import Cell, Column, Gauge, Origin, Shape, Unit, Views, plain_json
from testbench_dagster.core.faults import Fault

#: The column of windows, and of the entries of a leaderboard over them.
FirstAttemptSuccess = Annotated[
    float | None,
    Column(
        "calls answered at the first attempt / calls asked; our own faults, and those of budgets, "
        "sessions, gateways and chain nodes, are no attempts here",
        Unit.SHARE,
    ),
]
OK, NO_DATA, UNSUPPORTED = "ok", "no_data", "unsupported"


@dataclass(frozen=True)
class Sample:
    """Newest outcome of one doc: scored (``metrics`` by filter), or failed with ``fault``."""

    doc_id: int
    at: datetime
    epoch: int
    round: int
    fault: Fault
    metrics: dict[str, dict[str, Any]] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def scored(self) -> bool:
        """Whether the sample carries metrics."""
        return self.metrics is not None

    @property
    def counts(self) -> bool:
        """Whether it is a sample of the window: scored, or failed by the supplier's fault."""
        return self.scored or self.fault.final

    @property
    def rank(self) -> tuple[bool, datetime, int, int]:
        """Order in which outcomes of one doc replace each other."""
        return (self.counts, self.at, self.epoch, self.round)


@dataclass(frozen=True)
class Window:
    """One row of ``testbench scores``.

    Scores are full floats in lm-eval's unit; what is unknown is None, never zero. Intervals are 95 % Wilson
    intervals and exist for metrics whose per-doc values lie in [0, 1]; of scores between 0 and 1 they are
    conservative. Intervals and ``se`` are wider where docs share a cluster.
    """

    supplier: Annotated[str, Column("partition key", origin=Origin.SUPPLIER)]
    service: Annotated[str, Column("service in the partition key", origin=Origin.SUPPLIER)]
    address: Annotated[str, Column("address in the partition key", origin=Origin.SUPPLIER)]
    task: Annotated[str, Column("leaf task", origin=Origin.TASK)]
    task_hash: Annotated[str | None, Column("hash of configuration and data", origin=Origin.TASK)]
    group: Annotated[str | None, Column("configured group", origin=Origin.TASK)]
    framework: Annotated[str, Column("`lm_eval` or `signatures`", origin=Origin.TASK)]
    metric: Annotated[str | None, Column("lm-eval's name of the metric")]
    filter: Annotated[str | None, Column("lm-eval's name of the filter")]
    primary: Annotated[
        bool,
        Column(
            "whether it is the configured metric and filter, by default the task's first", origin=Origin.PLACE
        ),
    ]
    status: Annotated[
        str, Column("`ok`, `no_data`, or `unsupported` (the supplier cannot be asked this task)")
    ]
    n: Annotated[int, Column("scored docs", Unit.DOCS)]
    n_planned: Annotated[int | None, Column("docs wanted now", Unit.DOCS)]
    coverage: Annotated[float | None, Column("`n` / `n_planned`", Unit.SHARE)]
    score: Annotated[float | None, Column("in lm-eval's unit", Unit.SCORE)]
    ci_low: Annotated[
        float | None,
        Column("lower end of the 95 % Wilson interval, where values lie in [0, 1]", Unit.SCORE),
    ]
    ci_high: Annotated[float | None, Column("upper end of it", Unit.SCORE)]
    score_errors_as_zero: Annotated[
        float | None, Column("with docs that failed by the supplier's fault counted as 0", Unit.SCORE)
    ]
    bound_low: Annotated[float | None, Column("with everything unscored counted as all wrong", Unit.SCORE)]
    bound_high: Annotated[float | None, Column("with everything unscored counted as all right", Unit.SCORE)]
    errors: Annotated[Mapping[str, int], Column("docs whose last attempt failed, by fault", Unit.DOCS)]
    truncated: Annotated[int, Column("scored answers that were cut at the token limit", Unit.DOCS)]
    latency_ms: Annotated[
        Mapping[str, float | None],
        Column(
            "`p50` and `p95` over calls: how long the attempt took that answered; an unanswered call stands "
            "at the deadline, `relays.total_s`",
            Unit.MILLISECONDS,
            parts=("p50", "p95"),
        ),
    ]
    tokens: Annotated[
        Mapping[str, int | None],
        Column(
            "totals of `prompt` and `completion`, where reported",
            Unit.TOKENS,
            parts=("prompt", "completion"),
        ),
    ]
    first_sample_at: Annotated[datetime | None, Column("date of the window's oldest answer")]
    last_sample_at: Annotated[datetime | None, Column("date of the window's newest answer")]
    cut_at: Annotated[
        datetime | None,
        Column("last change of the supplier's model: answers up to it do not count", origin=Origin.SUPPLIER),
    ]
    epoch: Annotated[int | None, Column("sequence of the newest sample")]
    round: Annotated[int | None, Column("pass over the sequence of the newest sample")]
    higher_is_better: Annotated[bool, Column("direction of the metric")]
    se: Annotated[
        float | None,
        Column(
            "standard error of a `score` that is a mean, for clusters where the task names them; else `null`",
            Unit.SCORE,
        ),
    ] = None
    first_attempt_success: FirstAttemptSuccess = None
    pooled: Annotated[
        Mapping[str, Any] | None,
        Column(
            "`group`, `members`, `n`, `score`, `ci_low`, `ci_high`, `se` of the identity group: newest "
            "scored answer per doc of all members; `null` for who stands alone",
            origin=Origin.OTHERS,
        ),
    ] = None

    @property
    def supplier_errors(self) -> int:
        """Docs that ended in the supplier's own fault."""
        return sum(count for fault, count in self.errors.items() if Fault(fault).blames_supplier)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return plain_json(self)


WINDOW_VIEWS = Views(
    commands=(
        "supplier", "task", "metric", "filter", "status", "n", "n_planned", "score", "ci_low", "ci_high",
        "errors",
    ),
    dagster=(
        Cell("supplier", ("supplier",)),
        Cell("task", ("task",)),
        Cell("metric", ("metric", "filter"), Shape.JOINED),
        Cell("n", ("n", "status"), Shape.DOCS),
        Cell("planned", ("n_planned",)),
        Cell("score", ("score",)),
        Cell("95 % interval", ("ci_low", "ci_high"), Shape.RANGE),
        Cell("errors", ("errors",)),
        Cell("at once", ("first_attempt_success",)),
        Cell("p50 ms", ("latency_ms.p50",)),
        Cell("newest", ("last_sample_at",)),
    ),
    page=(
        Cell("Task", ("task",), Shape.NAME),
        Cell("Score", ("score",)),
        Cell("95 % interval", ("ci_low", "ci_high"), Shape.RANGE),
        Cell("Docs", ("n", "n_planned", "status"), Shape.DOCS),
        Cell("Errors", ("errors",)),
        Cell("At once", ("first_attempt_success",), explanation="Calls answered at the first attempt"),
        Cell("p50", ("latency_ms.p50",)),
        Cell("p95", ("latency_ms.p95",)),
        Cell("Newest", ("last_sample_at",), Shape.AGE),
    ),
    # score and interval: those of the identity group where it pools
    feed=(
        Cell("status", ("status",)),
        Cell("n", ("n",)),
        Cell("errors", ("supplier_errors",)),
        Cell("score", ("score",)),
        Cell("lower_bound", ("ci_low",)),
        Cell("upper_bound", ("ci_high",)),
        Cell("age_seconds", ("last_sample_at",), Shape.AGE),
    ),
    gauges=(
        Gauge(
            "testbench_task_score_lower_bound",
            "Lower 95 % confidence bound of the score on a task.",
            "ci_low",
        ),
        Gauge("testbench_task_score", "Score on a task, in the unit of its metric.", "score"),
        Gauge(
            "testbench_task_last_sample_timestamp_seconds",
            "When the newest sample of a task was taken.",
            "last_sample_at",
        ),
    ),
)  # fmt: skip
#: What a supplier's daily snapshot says once, and not again in each window.
SAID_ONCE_IN_SNAPSHOTS = frozenset({"supplier", "service", "address", "primary"})
#: What a window in an evidence bundle has to say, whichever version wrote it.
REQUIRED_IN_EVIDENCE = ("status", "n", "score", "ci_low", "ci_high", "errors")
