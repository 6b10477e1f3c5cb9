"""The leaderboard: all suppliers of a taxonomy's root, best first, with what the rank rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.scoring.windows import OK, Window, windows
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import LEADERBOARDS, TAXONOMY_SUMMARIES
from testbench_dagster.taxonomies.refresh import configured_taxonomies, measured_tasks
from testbench_dagster.workspace import Workspace

ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class Entry:
    """One supplier on a leaderboard.

    ``rank_low`` is one plus the number of suppliers whose interval lies wholly above this one's,
    ``rank_high`` the number of suppliers less those whose interval lies wholly below: overlapping
    intervals are ties. ``n`` counts the docs behind the score.
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
    """Rank the configured suppliers per taxonomy, or over all tasks where none is configured.

    Suppliers without a score stand last, unranked.
    """
    names = [t.name for t in configured_taxonomies(workspace)]
    rows = windows(workspace)
    entries: list[Entry] = []
    for name in [taxonomy] if taxonomy else names or [ALL_TASKS]:
        made = [_entry(workspace, name, s.key, rows) for s in workspace.config.settings.suppliers]
        entries += _ranked(made)
    return entries


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


def _entry(workspace: Workspace, taxonomy: str, supplier: str, rows: Sequence[Window]) -> Entry:
    own = [row for row in rows if row.supplier == supplier and row.primary]
    scored = [row for row in own if row.status == OK]
    node: dict[str, Any]
    if taxonomy == ALL_TASKS:
        node = _mean_over_tasks(own)
    else:
        where = {"supplier": supplier, "taxonomy": taxonomy}
        found = next(workspace.documents.find(TAXONOMY_SUMMARIES, where), None)
        node = found["nodes"][found["root"]] if found else {}
    return Entry(
        taxonomy=taxonomy,
        supplier=supplier,
        score=node.get("score"),
        ci_low=node.get("ci_low"),
        ci_high=node.get("ci_high"),
        tasks_measured=node.get("n_measured", 0),
        tasks_total=node.get("n_tasks", len(own)),
        n=sum(row.n for row in scored),
        errors=sum(sum(row.errors.values()) for row in own),
        simulation=workspace.config.settings.simulation,
    )


def _mean_over_tasks(rows: Sequence[Window]) -> dict[str, Any]:
    """Unweighted mean of the primary scores; its interval treats tasks as independent."""
    from statistics import NormalDist

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
    ranked = []
    for entry in scored:
        above = sum(_low(other) > _high(entry) for other in scored)
        below = sum(_high(other) < _low(entry) for other in scored)
        ranked.append(Entry(**{**vars(entry), "rank_low": above + 1, "rank_high": len(scored) - below}))
    return ranked + [e for e in entries if e.score is None]


def _low(entry: Entry) -> float:
    return entry.ci_low if entry.ci_low is not None else entry.score or 0.0


def _high(entry: Entry) -> float:
    return entry.ci_high if entry.ci_high is not None else entry.score or 0.0
