"""All suppliers by the root of each taxonomy, best first, with what the rank rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.entry import ALL_TASKS, Board, Entry
from testbench_dagster.ranking.ranking import _entry, _Group, _mean_over_tasks, ranked
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.summarize.refresh import configured_taxonomies, docs_and_errors
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document, document_id
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, LEADERBOARDS, TAXONOMY_SUMMARIES


def leaderboard(workspace: Workspace, taxonomy: str | None = None) -> list[Entry]:
    """Rank the active suppliers per taxonomy, or over all tasks where none is configured.

    Reads the stored summaries; one older than ``sampling.max_age_days`` rests on nothing that still counts
    and is left out. Suppliers without a score stand last, unranked.

    Raises:
        ConfigError: the named taxonomy is not configured.
    """
    return make_board(workspace, taxonomy).entries


def make_board(workspace: Workspace, taxonomy: str | None = None, now: datetime | None = None) -> Board:
    """Read summaries, windows and groups, and rank; see :func:`leaderboard`.

    Raises:
        ConfigError: the named taxonomy is not configured.
    """
    names = [t.name for t in configured_taxonomies(workspace)]
    if taxonomy is not None:
        if taxonomy not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(f"taxonomy {taxonomy!r} is not configured; configured are: {known}")
        names = [taxonomy]
    now = now or datetime.now(UTC)
    suppliers = active_suppliers(workspace)
    keys = {s.key for s in suppliers}
    rows = _primary_windows(workspace, keys, now)
    groups = _groups(workspace, keys)
    simulation = workspace.config.settings.simulation
    nodes: dict[tuple[str, str], Mapping[str, Mapping[str, Any]]] = {}
    roots: dict[str, str] = {}
    rankings: dict[str, list[Entry]] = {}
    for name in names:
        entries = []
        summaries = _summaries(workspace, name, now)
        for supplier in suppliers:
            own = rows[supplier.key]
            summary: Document = summaries.get(supplier.key, {})
            if summary:
                nodes[supplier.key, name] = summary["nodes"]
                roots[name] = summary["root"]
            node = summary["nodes"][summary["root"]] if summary else {}
            scope = {*node.get("weights", ()), *node.get("missing", ())}
            counts = (summary.get("n", 0), summary.get("errors", 0))
            used = [row for row in own if row.task in scope]
            entries.append(_entry(name, supplier.key, node, counts, used, simulation))
        rankings[name] = ranked(entries, groups)
    if not names:
        rankings[ALL_TASKS] = ranked(
            (
                _entry(ALL_TASKS, key, _mean_over_tasks(own), docs_and_errors(own), own, simulation)
                for key, own in rows.items()
            ),
            groups,
        )
    return Board(now, simulation, suppliers, rankings, nodes, roots, rows)


def refresh_leaderboard(workspace: Workspace) -> list[Entry]:
    """Compute the leaderboards and store them, replacing the last ones."""
    board = make_board(workspace)
    store_board(workspace, board)
    return board.entries


def store_board(workspace: Workspace, board: Board) -> None:
    """Store the rankings of a board, replacing the last ones."""
    documents = [
        {
            "_id": document_id("leaderboard", name),
            "taxonomy": name,
            "made_at": board.made_at,
            "entries": [entry.to_json() for entry in entries],
        }
        for name, entries in board.rankings.items()
        if entries
    ]
    workspace.documents.upsert(LEADERBOARDS, documents)


def _summaries(workspace: Workspace, taxonomy: str, now: datetime) -> dict[str, Document]:
    oldest = now - timedelta(days=workspace.config.settings.sampling.max_age_days)
    where = {"taxonomy": taxonomy, "summarized_at": {"gt": oldest}}
    return {d["supplier"]: d for d in workspace.documents.find(TAXONOMY_SUMMARIES, where)}


def _primary_windows(
    workspace: Workspace, suppliers: Iterable[str], now: datetime
) -> dict[str, list[Window]]:
    """By supplier the windows that have a score; a signature is a text and ranks nobody."""
    rows: dict[str, list[Window]] = {key: [] for key in suppliers}
    for key, own in primary_windows(workspace, now=now):
        if key in rows:
            rows[key] = [row for row in own if row.framework != SIGNATURES]
    return rows


def _groups(workspace: Workspace, suppliers: set[str]) -> dict[str, _Group]:
    """The identity groups of several suppliers on the roster, by supplier."""
    return {
        d["_id"]: _Group(str(d["group"]), d["proxy"])
        for d in workspace.documents.find(IDENTITY_GROUPS)
        if d["_id"] in suppliers and len(suppliers.intersection(d.get("members") or ())) > 1
    }
