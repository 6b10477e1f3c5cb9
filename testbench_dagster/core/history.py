"""What was known on a day: a point in the history of a supplier's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from testbench_dagster.core.columns import Column, Origin, Unit, plain_json

#: Where a point comes from: kept on that day, or made now of the scores answered on it.
SNAPSHOT, DAILY_MEAN = "snapshot", "daily_mean"


@dataclass(frozen=True)
class HistoryPoint:
    """A supplier's score of a task or group of tasks, or of a taxonomy's node, on one day."""

    day: Annotated[str, Column("the day, in UTC, as YYYY-MM-DD")]
    supplier: Annotated[str, Column("partition key")]
    task: Annotated[str | None, Column("leaf task, or group of tasks; `null` for a node of a taxonomy")]
    taxonomy: Annotated[str | None, Column("taxonomy; `null` for a task")]
    node: Annotated[str | None, Column("node of the taxonomy; `null` for a task")]
    metric: Annotated[str | None, Column("lm-eval's name of the metric")]
    filter: Annotated[str | None, Column("lm-eval's name of the filter")]
    score: Annotated[float | None, Column("delivered quality as known on that day", Unit.SCORE)]
    ci_low: Annotated[float | None, Column("lower end of its 95 % interval", Unit.SCORE)]
    ci_high: Annotated[float | None, Column("upper end of it", Unit.SCORE)]
    n: Annotated[int, Column("scored docs", Unit.DOCS)]
    n_failed: Annotated[
        int | None, Column("docs left unanswered for good; `null` for a daily mean", Unit.DOCS)
    ]
    p50_ms: Annotated[float | None, Column("median latency of a call", Unit.MILLISECONDS)]
    p95_ms: Annotated[float | None, Column("95th percentile of it", Unit.MILLISECONDS)]
    source: Annotated[
        str,
        Column(
            "`snapshot`: kept on that day; `daily_mean`: the mean of what was answered on a day without one"
        ),
    ]
    cut: Annotated[
        bool, Column("whether earlier answers became void since the day before: its model changed")
    ]
    model: Annotated[
        str | None,
        Column(
            "model that it claimed to serve at the end of the day; `null` where the roster remembers none of "
            "then",
            origin=Origin.SUPPLIER,
        ),
    ] = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return plain_json(self)
