"""The leaderboard as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import Window

ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class Entry:
    """One supplier on a leaderboard; the fields are documented in docs/reference.md.

    ``rank_low`` to ``rank_high`` holds the true rank with 95 % confidence (see ``statistics.ranks``);
    ``likely_low`` to ``likely_high`` is the narrower range of the parametric bootstrap, which promises less.
    Members of an identity ``group`` answer alike: they show the score of one of them and share their ranks.
    ``n`` counts the docs behind the supplier's own score, ``errors`` those it failed; ``coverage`` is the
    share of the root's weight that was measured. Latencies are
    milliseconds: the median over its tasks of their windows' p50, and of their p95.
    """

    taxonomy: str
    supplier: str
    score: float | None
    ci_low: float | None
    ci_high: float | None
    tasks_measured: int
    tasks_total: int
    n: int
    errors: int
    rank_low: int | None = None
    rank_high: int | None = None
    simulation: bool = False
    likely_low: int | None = None
    likely_high: int | None = None
    p_best: float | None = None
    group: str | None = None
    proxy: str | None = None
    coverage: float | None = None
    last_sample_at: datetime | None = None
    error_rate: float | None = None
    availability: float | None = None
    latency_ms: Mapping[str, float | None] = field(default_factory=lambda: {"p50": None, "p95": None})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class Board:
    """Everything the page and the feeds show, read at one instant.

    ``rankings``: entries by taxonomy, best first. ``nodes``: by supplier and taxonomy the abilities, parents
    before children, as the summaries store them. ``roots``: by taxonomy the root's name. ``windows``: by
    supplier its primary windows, without signatures.
    """

    made_at: datetime
    simulation: bool
    suppliers: Sequence[Supplier]
    rankings: Mapping[str, Sequence[Entry]]
    nodes: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]
    roots: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]

    @property
    def entries(self) -> list[Entry]:
        """The entries of all taxonomies, one ranking after the other."""
        return [entry for ranking in self.rankings.values() for entry in ranking]
