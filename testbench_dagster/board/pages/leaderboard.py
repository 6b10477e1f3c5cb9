"""``/``: the stored leaderboard, a place for each group, filtered and a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.board import links
from testbench_dagster.board.site import Asked, Page, Site
from testbench_dagster.board.tables import MEMBERS, RankingTable
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Entry
from testbench_dagster.ranking.places import Place, places
from testbench_dagster.ranking.ranking import NOT_BY_NODE
from testbench_dagster.stages.read.identity import suspicions_of
from testbench_dagster.stages.read.rankings import Ranking

ROWS = 100
SUSPICIONS = 20


@dataclass(frozen=True)
class Filter:
    """What of a ranking is wanted."""

    model: str | None
    service: str | None
    group: str | None
    q: str | None

    @property
    def any(self) -> bool:
        """Whether anything is left out."""
        return any(vars(self).values())

    def takes(self, entry: Entry, supplier: Supplier | None) -> bool:
        """Whether a row is wanted; of suppliers that vanished from the roster only the key is known."""
        if self.model is not None and (supplier is None or supplier.model != self.model):
            return False
        if self.service is not None and entry.supplier.rpartition("@")[2] != self.service:
            return False
        if self.group is not None and self.group not in (entry.group, entry.unit):
            return False
        words = f"{entry.supplier} {supplier.model if supplier else ''}".casefold()
        return self.q is None or self.q.casefold() in words


@dataclass(frozen=True)
class _To:
    """Where the names in a ranking lead on the board."""

    ranking: Ranking

    def supplier(self, key: str) -> str:
        return links.supplier(key)

    def model(self, model: str) -> str:
        return _link(self.ranking, {"model": model})

    def members(self, unit: str) -> str:
        return _link(self.ranking, {"group": unit})


def leaderboard(site: Site, asked: Asked) -> Page:
    """The ranking by a taxonomy, one of its nodes, or a group of tasks; without one, how to have one."""
    ranking = site.ranking(asked.text("taxonomy"))
    if ranking is None:
        return Page("empty.html.jinja", {"suppliers": list(site.roster.suppliers().values())[:ROWS]})
    nodes = site.nodes(ranking.taxonomy)
    node = asked.text("node")
    if node is not None and node in nodes:
        ranking = site.ranking_by_node(ranking.taxonomy, node)
    task = asked.text("task")
    if task is not None:
        ranking = site.ranking_by_group(ranking.taxonomy, task) or ranking
    roster = site.roster.suppliers()
    wanted = Filter(*(asked.text(name) for name in ("model", "service", "group", "q")))
    shown, found = _chosen(ranking, wanted, roster)
    start = asked.behind("after", [place.first.supplier for place in found])
    end = _end(found, start)
    cells = [
        cell
        for cell in ENTRY_VIEWS.page
        if not ranking.node or cell.paths[0].split(".")[0] not in NOT_BY_NODE
    ]
    table = RankingTable(cells, shown, ranking.shares, _To(ranking), roster, asked.now)
    # all members of one group: they have its place together, however many pages they take
    inside = [wanted.group is not None and number > 0 for number in range(start, end)]
    return Page(
        "leaderboard.html.jinja",
        {
            "ranking": ranking,
            "taxonomies": [stored.taxonomy for stored in site.rankings.current()],
            "nodes": nodes,
            "unknown_node": node if node not in nodes else None,
            "models": site.roster.read().models,
            "groups": site.groups(),
            "unknown_group": task if ranking.task is None else None,
            "services": sorted({s.service for s in roster.values()}),
            "filter": wanted,
            "suspicions": []
            if wanted.group is None
            else suspicions_of(
                site.workspace,
                [wanted.group, *(row.supplier for row in shown[:ROWS])],
                limit=SUSPICIONS,
            ),
            "table": table,
            "places": [
                [(row, ()) for row in table.place(place, inside=member)]
                for place, member in zip(found[start:end], inside, strict=True)
            ],
            "n_shown": len(shown),
            "n_places": 1 if wanted.group and found else len(found),
            "n_rows": len(found),
            "first": start + 1,
            "last": end,
            "next": _link(ranking, vars(wanted), found[end - 1].first.supplier) if end < len(found) else None,
            "start": _link(ranking, vars(wanted)) if start else None,
        },
    )


def _chosen(
    ranking: Ranking, wanted: Filter, roster: Mapping[str, Supplier]
) -> tuple[Sequence[Entry], Sequence[Place]]:
    """The wanted rows, and the places they stand in; of one group each row by itself, to be paged."""
    if not wanted.any:
        return ranking.rows, ranking.places
    rows = [row for row in ranking.rows if wanted.takes(row, roster.get(row.supplier))]
    found = places(rows)
    if wanted.group:
        return rows, [Place(row, [row], None) for place in found for row in place.rows]
    return rows, found


def _end(found: Sequence[Place], start: int) -> int:
    """Behind which place a page ends: as many stand on it as have room."""
    end, room = start, ROWS
    while end < len(found) and room > 0:
        room -= min(len(found[end].rows), 1 + MEMBERS)
        end += 1
    return end


def _link(ranking: Ranking, wanted: Mapping[str, str | None], after: str | None = None) -> str:
    return links.with_query(
        "/",
        {
            "taxonomy": ranking.taxonomy,
            "node": ranking.node,
            "task": ranking.task,
            **wanted,
            "after": after,
        },
    )
