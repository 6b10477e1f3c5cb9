"""The window of a supplier and task: its samples, and the row of testbench scores that they make.

The row's columns, and where they are shown, are declared here and nowhere else (see :mod:`.columns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from testbench_dagster.core.columns import Cell, Column, Gauge, Origin, Shape, Unit, Views, plain_json
from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault

#: The column of windows, and of the entries of a leaderboard over them.
FirstAttemptSuccess = Annotated[
    float | None,
    Column(
        "calls answered at the first attempt / calls asked; our own faults, and those of budgets, "
        "sessions, gateways and chain nodes, are no attempts here. A refused key, quota or request is one "
        "where the same run brings the answer",
        Unit.SHARE,
    ),
]
OK, NO_DATA, UNSUPPORTED = "ok", "no_data", "unsupported"
#: Some docs are open, and count as wrong until they close.
PARTIAL = "partial"
#: The supplier refuses requests of this form altogether, which says nothing of what it knows.
REFUSED = "refused"
#: The configuration does not ask the supplier this task (see :mod:`.applicability`).
NOT_APPLICABLE = "not_applicable"
#: It answered nothing at all around its last occasions, for too long.
UNREACHABLE = "unreachable"
#: What a row is about: a leaf task, or a group of them.
TASK = "task"
GROUP = "group"
#: Statuses of rows that may have a score.
SCORED_STATUSES = frozenset({OK, PARTIAL})
#: Statuses of tasks that a supplier cannot be asked: nodes leave them out. Any other row without a score
#: counts as missing.
NOT_ASKED_STATUSES = frozenset({UNSUPPORTED, REFUSED})
#: Statuses that are told in the place of the number of docs, for there is none to ask.
TOLD_STATUSES = frozenset({UNSUPPORTED, NOT_APPLICABLE})


@dataclass(frozen=True)
class Sample:
    """What counts of one doc of a task: its newest closed outcome, else that it is open.

    A scored doc has ``metrics`` by filter; one that is answered and waits for its score has state ``scored``
    and none. Of all others ``fault`` is the last. ``ours``: it is open by our own faults only, which count
    against nobody. ``late``: it was answered only in a later run than the first that asked it.
    ``unreachable``: its supplier answered nothing at all around its last occasion, for too long. ``next_at``:
    when an open doc is asked again, None where it was left behind before it was asked.
    """

    doc_id: int
    at: datetime
    epoch: int
    round: int
    fault: Fault
    metrics: dict[str, dict[str, Any]] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    state: DocState = DocState.SCORED
    position: int = 0
    late: bool = False
    ours: bool = False
    unreachable: bool = False
    next_at: datetime | None = None

    @property
    def scored(self) -> bool:
        """Whether the sample carries metrics."""
        return self.metrics is not None

    @property
    def failed(self) -> bool:
        """Whether the doc is closed as failed."""
        return self.state is DocState.FAILED

    @property
    def open(self) -> bool:
        """Whether the doc counts as wrong until it closes."""
        return self.state is DocState.OPEN and not self.ours

    @property
    def void(self) -> bool:
        """Whether the doc is nobody's fault but its own."""
        return self.state is DocState.VOID

    @property
    def counts(self) -> bool:
        """Whether it is a closed outcome that is somebody's: scored, or failed by the supplier."""
        return self.scored or self.failed

    @property
    def closed(self) -> bool:
        """Whether the doc has an outcome."""
        return self.counts or self.void

    @property
    def place(self) -> tuple[int, int, int]:
        """Where its doc stands in what is asked: epoch, position there, doc. Known before it is asked."""
        return (self.epoch, self.position, self.doc_id)

    @property
    def rank(self) -> tuple[datetime, int, int]:
        """Order in which outcomes of one doc replace each other."""
        return (self.at, self.epoch, self.round)


@dataclass(frozen=True)
class Window:
    """One row of ``testbench scores``: of a task, or of a group (:mod:`testbench_dagster.scoring.groups`).

    Scores are full floats in lm-eval's unit; what is unknown is None, never zero. ``score`` is delivered
    quality: docs that failed, and those that are open, count as the worst value. Intervals are 95 % Wilson
    intervals and exist for metrics whose per-doc values lie in [0, 1]; of values that are not all 0 or 1,
    for as many docs as tell as much. Intervals and ``se`` are wider where docs share a cluster; the interval
    of a row with open docs reaches from its low end if all of them were wrong to its high end if all were
    right.
    """

    supplier: Annotated[str, Column("partition key", origin=Origin.SUPPLIER)]
    service: Annotated[str, Column("service in the partition key", origin=Origin.SUPPLIER)]
    address: Annotated[str, Column("address in the partition key", origin=Origin.SUPPLIER)]
    task: Annotated[str, Column("leaf task", origin=Origin.TASK)]
    task_hash: Annotated[str | None, Column("hash of configuration and data", origin=Origin.TASK)]
    group: Annotated[str | None, Column("configured group", origin=Origin.TASK)]
    framework: Annotated[str, Column("`lm_eval`, `signatures` or another framework", origin=Origin.TASK)]
    metric: Annotated[str | None, Column("lm-eval's name of the metric")]
    filter: Annotated[str | None, Column("lm-eval's name of the filter")]
    primary: Annotated[
        bool,
        Column(
            "whether it is the configured metric and filter, by default the task's first", origin=Origin.PLACE
        ),
    ]
    status: Annotated[
        str,
        Column(
            "`ok`, `partial` (docs are open), `no_data`, `unsupported` (the supplier cannot be asked this "
            "task), `refused` (it refuses requests of this form altogether), `not_applicable` (the "
            "configuration does not ask it this task) or `unreachable`"
        ),
    ]
    n: Annotated[int, Column("scored docs", Unit.DOCS)]
    n_planned: Annotated[int | None, Column("docs wanted now", Unit.DOCS)]
    coverage: Annotated[float | None, Column("`n` / `n_planned`", Unit.SHARE)]
    score: Annotated[
        float | None,
        Column("delivered quality: failed and open docs count as the worst value", Unit.SCORE),
    ]
    ci_low: Annotated[
        float | None,
        Column(
            "lower end of the 95 % Wilson interval, where values lie in [0, 1]; with all open docs wrong",
            Unit.SCORE,
        ),
    ]
    ci_high: Annotated[float | None, Column("upper end of it; with all open docs right", Unit.SCORE)]
    score_errors_as_zero: Annotated[
        float | None, Column("deprecated: `score`, where the worst value is 0", Unit.SCORE)
    ]
    bound_low: Annotated[
        float | None, Column("the score if all open, void and late docs were all wrong", Unit.SCORE)
    ]
    bound_high: Annotated[
        float | None, Column("the score if all open and void docs were all right", Unit.SCORE)
    ]
    errors: Annotated[Mapping[str, int], Column("docs without an answer, by their last fault", Unit.DOCS)]
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
    score_answered: Annotated[
        float | None, Column("lm-eval's number: over answered docs only", Unit.SCORE)
    ] = None
    n_released: Annotated[int, Column("docs that were asked, or let be asked and left behind", Unit.DOCS)] = 0
    n_failed: Annotated[int, Column("docs that it left unanswered for good", Unit.DOCS)] = 0
    n_open: Annotated[
        int, Column("docs that wait for an answer, and count as wrong until then", Unit.DOCS)
    ] = 0
    n_void: Annotated[int, Column("docs that all suppliers refuse; they count nowhere", Unit.DOCS)] = 0
    n_late: Annotated[
        int, Column("scored docs that were answered in a later run than the first that asked them", Unit.DOCS)
    ] = 0
    failures: Annotated[
        str | None,
        Column(
            "what a failed doc counts as: `as_worst` (the worst value), `as_empty` (what the task makes of "
            "an empty answer), `excluded` (nothing)"
        ),
    ] = None
    next_attempt_at: Annotated[
        datetime | None, Column("when the first of the open docs is asked again, at the earliest")
    ] = None
    model: Annotated[
        str | None, Column("model that the supplier claims to serve", origin=Origin.SUPPLIER)
    ] = None
    kind: Annotated[
        str,
        Column(
            "`task`, or `group`: what lm-eval makes of the scores of a group's tasks, whose name then stands "
            "in `task` (see [Scores of groups](#scores-of-groups))",
            origin=Origin.TASK,
        ),
    ] = TASK
    missing: Annotated[
        Mapping[str, str] | None,
        Column(
            "of a group without a score: its tasks that have none, each with its `status`; else `null`",
            origin=Origin.TASK,
            sparse=True,
        ),
    ] = None
    n_unmetered: Annotated[
        int, Column("scored docs of whose answers the supplier does not report the tokens", Unit.DOCS)
    ] = 0
    cost: Annotated[
        float | None,
        Column(
            "what the answers of the scored docs cost: their `tokens` at the supplier's present `price`; "
            "`null` where either is not known of all, and "
            "where nothing is scored (see [Price](operations.md#price))",
            Unit.MONEY,
            origin=Origin.PRICE,
            sparse=True,
        ),
    ] = None
    cost_per_1000_right: Annotated[
        float | None,
        Column(
            "`cost` by 1,000 right docs, of a metric of values from 0 to 1 where more is better; a doc that "
            "is partly right counts as that part. `null` for other metrics, and where nothing is right",
            Unit.MONEY,
            origin=Origin.PRICE,
            sparse=True,
        ),
    ] = None

    @property
    def asked(self) -> int:
        """Docs in the denominator of the score."""
        return self.n + self.n_failed + self.n_open

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return plain_json(self)


WINDOW_VIEWS = Views(
    commands=(  # what a narrow terminal has no room for is left out from the last one on
        "supplier", "model", "task", "score", "ci_low", "ci_high", "n", "status", "n_failed", "n_open",
        "metric", "filter", "cut_at", "cost", "cost_per_1000_right", "errors", "n_planned", "score_answered",
        "next_attempt_at", "missing",
    ),
    dagster=(
        Cell("supplier", ("supplier",)),
        Cell("model", ("model",)),
        Cell("task", ("task",)),
        Cell("metric", ("metric", "filter"), Shape.JOINED),
        Cell("n", ("n", "status"), Shape.DOCS),
        Cell("planned", ("n_planned",)),
        Cell("score", ("score",)),
        Cell("95 % interval", ("ci_low", "ci_high"), Shape.RANGE),
        Cell("answered", ("score_answered",)),
        Cell("failed", ("n_failed",)),
        Cell("open", ("n_open",)),
        Cell("errors", ("errors",)),
        Cell("at once", ("first_attempt_success",)),
        Cell("p50 ms", ("latency_ms.p50",)),
        Cell("newest", ("last_sample_at",)),
    ),
    page=(
        Cell("Task", ("task",), Shape.NAME),
        Cell("Score", ("score",)),
        Cell("", ("score", "ci_low", "ci_high"), Shape.DRAWING, "Score on its 95 % interval"),
        Cell("95 %", ("ci_low", "ci_high"), Shape.RANGE, "95 % interval of the score"),
        Cell("Docs", ("n", "n_planned", "status"), Shape.DOCS),
        Cell("Failed", ("n_failed",), explanation="Docs left unanswered for good: they count as wrong"),
        Cell("Open", ("n_open",), explanation="Docs that wait for an answer: they count as wrong until then"),
        Cell("Faults", ("errors",), explanation="Faults of docs without an answer"),
        Cell("p50", ("latency_ms.p50",), explanation="Median latency of a call"),
        Cell("p95", ("latency_ms.p95",), explanation="95 % of calls are answered faster"),
        Cell("Cost", ("cost",), explanation="What the answers of the scored docs cost"),
        Cell(
            "Per 1,000 right",
            ("cost_per_1000_right",),
            explanation="What 1,000 right answers cost, the wrong ones on the way included",
        ),
        Cell("Newest", ("last_sample_at",), Shape.AGE, "Age of the newest sample"),
    ),
    published=(
        Cell("Answered", ("score_answered",), explanation="Score over answered docs only"),
        Cell("At once", ("first_attempt_success",), explanation="Calls answered at the first attempt"),
    ),
    feed=(
        Cell("status", ("status",)),
        Cell("n", ("n",)),
        Cell("errors", ("n_failed",)),
        Cell("n_failed", ("n_failed",)),
        Cell("n_open", ("n_open",)),
        Cell("n_void", ("n_void",)),
        Cell("n_late", ("n_late",)),
        Cell("failures", ("failures",)),
        Cell("score_answered", ("score_answered",)),
        Cell("score", ("score",)),
        Cell("lower_bound", ("ci_low",)),
        Cell("upper_bound", ("ci_high",)),
        Cell("age_seconds", ("last_sample_at",), Shape.AGE),
        Cell("cost", ("cost",)),
        Cell("cost_per_1000_right", ("cost_per_1000_right",)),
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
#: What a window in an evidence bundle has to say, whichever version wrote it.
REQUIRED_IN_EVIDENCE = ("status", "n", "score", "ci_low", "ci_high", "errors")
