"""One outcome of one doc, as a window counts it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault


@dataclass(frozen=True)
class Sample:
    """Newest outcome of one doc: scored (``metrics`` by filter), or failed with ``fault``."""

    doc_id: int
    at: datetime
    epoch: int
    round: int
    fault: Fault
    metrics: dict[str, dict[str, Any]] | None = None
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def scored(self) -> bool:
        """Whether the sample carries metrics."""
        return self.metrics is not None

    @property
    def counts(self) -> bool:
        """Whether it is a sample of the window: scored, or failed by the supplier's fault."""
        return self.scored or self.fault.settled

    @property
    def rank(self) -> tuple[bool, datetime, int, int]:
        """Order in which outcomes of one doc replace each other."""
        return (self.counts, self.at, self.epoch, self.round)
