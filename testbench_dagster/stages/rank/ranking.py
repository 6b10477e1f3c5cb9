"""All suppliers by the root of each taxonomy, best first, with what the rank rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.stages.discover.roster import Supplier, active_suppliers
from testbench_dagster.stages.score.windows import OK, Window, primary_windows
from testbench_dagster.stages.summarize.refresh import configured_taxonomies, docs_and_errors, measured_tasks
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.combinations import wilson_of_mean
from testbench_dagster.statistics.ranks import Estimate, bootstrap_ranks, certain_ranks
from testbench_dagster.stores.documents import Document, document_id
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, LEADERBOARDS, TAXONOMY_SUMMARIES
from testbench_dagster.tasks.specs import SIGNATURES

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


@dataclass(frozen=True)
class _Group:
    name: str
    proxy: str


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


def ranked(entries: Iterable[Entry], groups: Mapping[str, _Group] | None = None) -> list[Entry]:
    """Best first, with ranks; unscored suppliers last, in the order given.

    The members of an identity group get the score of their proxy, or of the member with the most docs where
    it has none.
    """
    shared = _with_shared_scores(list(entries), groups or {})
    scored = sorted((e for e in shared if e.score is not None), key=lambda e: (-(e.score or 0.0), e.supplier))
    estimates = [_estimate(e) for e in scored]
    numbers = zip(scored, certain_ranks(estimates), bootstrap_ranks(estimates), strict=True)
    done = [
        replace(
            entry,
            rank_low=low,
            rank_high=high,
            likely_low=likely.low,
            likely_high=likely.high,
            p_best=likely.p_best,
        )
        for entry, (low, high), likely in numbers
    ]
    return done + [e for e in shared if e.score is None]


def _with_shared_scores(entries: Sequence[Entry], groups: Mapping[str, _Group]) -> list[Entry]:
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.supplier in groups:
            members.setdefault(groups[entry.supplier].name, []).append(entry)
    shown: dict[str, Entry] = {}
    for name, own in members.items():
        proxy = groups[own[0].supplier].proxy
        scored = [e for e in own if e.score is not None]
        if scored:
            shown[name] = max(scored, key=lambda e: (e.supplier == proxy, e.n, e.supplier))
    result = []
    for entry in entries:
        group = groups.get(entry.supplier)
        if group is not None:
            entry = replace(entry, group=group.name, proxy=group.proxy)
            if group.name in shown:
                one = shown[group.name]
                entry = replace(entry, score=one.score, ci_low=one.ci_low, ci_high=one.ci_high)
        result.append(entry)
    return result


def _estimate(entry: Entry) -> Estimate:
    """What is ranked; rounding may leave a score a last bit outside of its interval."""
    score = entry.score or 0.0
    low = score if entry.ci_low is None else min(score, entry.ci_low)
    high = score if entry.ci_high is None else max(score, entry.ci_high)
    return Estimate(score, low, high, entry.group)


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


def _entry(
    taxonomy: str,
    supplier: str,
    node: Mapping[str, Any],
    counts: tuple[int, int],
    rows: Sequence[Window],
    simulation: bool,
) -> Entry:
    n, errors = counts
    measured, total = node.get("n_measured", 0), node.get("n_tasks", 0)
    return Entry(
        taxonomy=taxonomy,
        supplier=supplier,
        score=node.get("score"),
        ci_low=node.get("ci_low"),
        ci_high=node.get("ci_high"),
        tasks_measured=measured,
        tasks_total=total,
        n=n,
        errors=errors,
        simulation=simulation,
        coverage=node.get("weight_coverage", measured / total if total else None),
        last_sample_at=max((r.last_sample_at for r in rows if r.last_sample_at), default=None),
        error_rate=errors / (n + errors) if n + errors else None,
        availability=availability(rows),
        latency_ms={q: _median(row.latency_ms.get(q) for row in rows) for q in ("p50", "p95")},
    )


def availability(rows: Iterable[Window]) -> float | None:
    """Share of answered docs among those answered or failed by the supplier's or the network's fault.

    None where there are neither. Faults of gateways, nodes, budgets and our own say nothing about a supplier.
    """
    answered = failed = 0
    for row in rows:
        answered += row.n if row.status == OK else 0
        failed += sum(
            count
            for fault, count in row.errors.items()
            if Fault(fault).owner in (Owner.SUPPLIER, Owner.NETWORK)
        )
    return answered / (answered + failed) if answered + failed else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def _mean_over_tasks(rows: Sequence[Window]) -> dict[str, Any]:
    """Unweighted mean of the primary scores; its interval treats tasks as independent."""
    tasks = list(measured_tasks(rows).values())
    k = len(tasks)
    if not tasks:
        return {"n_measured": 0, "n_tasks": len(rows)}
    shares = [t.score for t in tasks]
    # of one task its own interval, to the last digit
    low, high = tasks[0].interval if k == 1 else wilson_of_mean([1 / k] * k, shares, [t.docs for t in tasks])
    return {
        "score": sum(shares) / k,
        "ci_low": low,
        "ci_high": high,
        "n_measured": k,
        "n_tasks": len(rows),
    }
