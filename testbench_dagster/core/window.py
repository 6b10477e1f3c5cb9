"""The window of a supplier and task: one row of testbench scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault

OK, NO_DATA, UNSUPPORTED = "ok", "no_data", "unsupported"


@dataclass(frozen=True)
class Window:
    """One row of ``testbench scores``; the fields are documented in docs/reference.md.

    Scores are full floats in lm-eval's unit; what is unknown is None, never zero. ``n`` counts scored docs,
    ``errors`` docs whose last attempt failed, by fault. Intervals are 95 % Wilson intervals and exist for
    metrics whose per-doc values lie in [0, 1]; of scores between 0 and 1 they are conservative. ``se`` is the
    standard error of a score that is a mean, in its unit. Both are wider where docs share a cluster.
    ``pooled`` holds the numbers of the supplier's identity group, None for a supplier that stands alone.
    """

    supplier: str
    service: str
    address: str
    task: str
    task_hash: str | None
    group: str | None
    framework: str
    metric: str | None
    filter: str | None
    primary: bool
    status: str
    n: int
    n_planned: int | None
    coverage: float | None
    score: float | None
    ci_low: float | None
    ci_high: float | None
    score_errors_as_zero: float | None
    bound_low: float | None
    bound_high: float | None
    errors: Mapping[str, int]
    truncated: int
    latency_ms: Mapping[str, float | None]
    tokens: Mapping[str, int | None]
    first_sample_at: datetime | None
    last_sample_at: datetime | None
    cut_at: datetime | None
    epoch: int | None
    round: int | None
    higher_is_better: bool
    se: float | None = None
    pooled: Mapping[str, Any] | None = None

    @property
    def supplier_errors(self) -> int:
        """Docs that ended in the supplier's own fault."""
        return sum(count for fault, count in self.errors.items() if Fault(fault).blames_supplier)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in vars(self).items()
        }
