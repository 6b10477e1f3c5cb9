"""The leaderboard: all suppliers of a taxonomy's root, best first, with what the rank rests on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import NormalDist
from typing import Any

from testbench_dagster.errors import ConfigError
from testbench_dagster.network.roster import active_suppliers
from testbench_dagster.scoring.windows import Window, windows
from testbench_dagster.stores.documents import Document, document_id
from testbench_dagster.stores.documents.collections import LEADERBOARDS, TAXONOMY_SUMMARIES
from testbench_dagster.taxonomies.refresh import configured_taxonomies, docs_and_errors, measured_tasks
from testbench_dagster.workspace import Workspace

ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class Entry:
    """One supplier on a leaderboard.

    ``rank_low`` is one plus the number of suppliers whose interval lies wholly above this one's,
    ``rank_high`` the number of suppliers less those whose interval lies wholly below: overlapping
    intervals are ties. ``n`` counts the docs behind the score, ``errors`` those the supplier failed.
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def leaderboard(workspace: Workspace, taxonomy: str | None = None) -> list[Entry]:
    """Rank the active suppliers per taxonomy, or over all tasks where none is configured.

    Reads the stored summaries; one older than ``sampling.max_age_days`` rests on nothing that still counts
    and is left out. Suppliers without a score stand last, unranked.

    Raises:
        ConfigError: the named taxonomy is not configured.
    """
    names = [t.name for t in configured_taxonomies(workspace)]
    if taxonomy is not None:
        if taxonomy not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(f"taxonomy {taxonomy!r} is not configured; configured are: {known}")
        names = [taxonomy]
    if not names:
        return _ranked(_over_all_tasks(workspace))
    return [entry for name in names for entry in _ranked(_by_taxonomy(workspace, name))]


def refresh_leaderboard(workspace: Workspace) -> list[Entry]:
    """Compute the leaderboards and store them, replacing the last ones."""
    entries = leaderboard(workspace)
    now = datetime.now(UTC)
    by_taxonomy: dict[str, list[Entry]] = {}
    for entry in entries:
        by_taxonomy.setdefault(entry.taxonomy, []).append(entry)
    documents = [
        {
            "_id": document_id("leaderboard", name),
            "taxonomy": name,
            "made_at": now,
            "entries": [e.to_json() for e in group],
        }
        for name, group in by_taxonomy.items()
    ]
    workspace.documents.upsert(LEADERBOARDS, documents)
    return entries


def _by_taxonomy(workspace: Workspace, taxonomy: str) -> list[Entry]:
    settings = workspace.config.settings
    oldest = datetime.now(UTC) - timedelta(days=settings.sampling.max_age_days)
    where = {"taxonomy": taxonomy, "summarized_at": {"gt": oldest}}
    found = {d["supplier"]: d for d in workspace.documents.find(TAXONOMY_SUMMARIES, where)}
    entries = []
    for supplier in active_suppliers(workspace):
        summary: Document = found.get(supplier.key, {})
        node = summary["nodes"][summary["root"]] if summary else {}
        counts = (summary.get("n", 0), summary.get("errors", 0))
        entries.append(_entry(taxonomy, supplier.key, node, counts, settings.simulation))
    return entries


def _over_all_tasks(workspace: Workspace) -> list[Entry]:
    settings = workspace.config.settings
    rows: dict[str, list[Window]] = {s.key: [] for s in active_suppliers(workspace)}
    for row in windows(workspace, suppliers=list(rows)):
        if row.primary:
            rows[row.supplier].append(row)
    return [
        _entry(ALL_TASKS, key, _mean_over_tasks(own), docs_and_errors(own), settings.simulation)
        for key, own in rows.items()
    ]


def _entry(
    taxonomy: str, supplier: str, node: Mapping[str, Any], counts: tuple[int, int], simulation: bool
) -> Entry:
    n, errors = counts
    return Entry(
        taxonomy=taxonomy,
        supplier=supplier,
        score=node.get("score"),
        ci_low=node.get("ci_low"),
        ci_high=node.get("ci_high"),
        tasks_measured=node.get("n_measured", 0),
        tasks_total=node.get("n_tasks", 0),
        n=n,
        errors=errors,
        simulation=simulation,
    )


def _mean_over_tasks(rows: Sequence[Window]) -> dict[str, Any]:
    """Unweighted mean of the primary scores; its interval treats tasks as independent."""
    tasks = measured_tasks(rows)
    if not tasks:
        return {"n_measured": 0, "n_tasks": len(rows)}
    k = len(tasks)
    score = sum(t.score for t in tasks.values()) / k
    variance = sum(t.score * (1 - t.score) / t.n for t in tasks.values()) / k**2
    half = NormalDist().inv_cdf(0.975) * variance**0.5
    single = next(row for row in rows if row.task in tasks) if k == 1 else None
    return {
        "score": score,
        # of one task its own Wilson interval is the better one
        "ci_low": single.ci_low if single else max(0.0, score - half),
        "ci_high": single.ci_high if single else min(1.0, score + half),
        "n_measured": k,
        "n_tasks": len(rows),
    }


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    scored = sorted((e for e in entries if e.score is not None), key=lambda e: (-(e.score or 0), e.supplier))
    lows, highs = sorted(map(_low, scored)), sorted(map(_high, scored))
    ranked = [
        replace(
            entry,
            rank_low=1 + len(lows) - bisect_right(lows, _high(entry)),
            rank_high=len(scored) - bisect_left(highs, _low(entry)),
        )
        for entry in scored
    ]
    return ranked + [e for e in entries if e.score is None]


def _low(entry: Entry) -> float:
    return entry.ci_low if entry.ci_low is not None else entry.score or 0.0


def _high(entry: Entry) -> float:
    return entry.ci_high if entry.ci_high is not None else entry.score or 0.0
