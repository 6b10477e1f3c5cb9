"""``/catalog``: the configured tasks and whom they reach; ``/task/T``: one of them, supplier by supplier."""

from __future__ import annotations

from collections.abc import Sequence

from testbench_dagster.board.charts import interval
from testbench_dagster.board.site import Asked, NotFound, Page, Site
from testbench_dagster.board.tables import score_scale
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import Window
from testbench_dagster.stages.read.prompts import prompt_places
from testbench_dagster.stages.read.reach import CatalogTask
from testbench_dagster.stages.read.reach import catalog as read_catalog
from testbench_dagster.stages.score.windows import primary_windows

ROWS = 100
SUPPLIERS = 50
#: Up to so many suppliers all are read and the best stand first; more stand in the order of the leaderboard.
SORTED = 120
DOCS = 60


def catalog(site: Site, asked: Asked) -> Page:
    """The configured tasks, a page at a time; ``q`` and ``group`` choose some."""
    words, group = asked.text("q"), asked.text("group")
    every = read_catalog(site.workspace, site.roster.read().active)
    chosen = [
        one
        for one in every
        if (words is None or words.casefold() in one.spec.name.casefold())
        and (group is None or group == one.spec.group)
    ]
    names = [one.spec.name for one in chosen]
    first = asked.behind("after", names)
    shown = chosen[first : first + ROWS]
    return Page(
        "catalog.html.jinja",
        {
            "tasks": shown,
            "n": len(every),
            "n_chosen": len(chosen),
            "q": words,
            "group": group,
            "groups": sorted({one.spec.group for one in every if one.spec.group}),
            "with_score": _with_score(site),
            "first": first,
            "next": shown[-1].spec.name if first + ROWS < len(chosen) else None,
        },
    )


def task(site: Site, asked: Asked, name: str) -> Page:
    """A task: what it is, whom it reaches, how suppliers did, and the docs that are asked."""
    one = _task(site, name)
    model = asked.text("model")
    suppliers = _in_order(site, model)
    by_score = len(suppliers) <= SORTED
    first = asked.behind("after", [s.key for s in suppliers])
    chosen = suppliers if by_score else suppliers[first : first + SUPPLIERS]
    rows = _rows(site, chosen, name, asked)
    if by_score:
        rows.sort(key=lambda row: (row.score is None, -_signed(row)))
    on = score_scale(rows)
    docs_after = asked.number("docs")
    docs = prompt_places(site.workspace, one.registration, after=docs_after, limit=DOCS + 1)
    roster = site.roster.suppliers()
    return Page(
        "task.html.jinja",
        {
            "task": one,
            "with_score": [g for g in site.workspace.groups if g.metrics and name in g.tasks],
            "rows": [(w, roster[w.supplier], interval(on, w.score, w.ci_low, w.ci_high)) for w in rows],
            "scale": on,
            "models": site.roster.read().models,
            "model": model,
            "by_score": by_score,
            "n": len(suppliers),
            "next": None if by_score or first + SUPPLIERS >= len(suppliers) else chosen[-1].key,
            "docs": docs[:DOCS],
            "docs_next": docs[DOCS - 1].position if len(docs) > DOCS else None,
            "docs_after": docs_after,
        },
    )


def _with_score(site: Site) -> frozenset[str]:
    """Names of the groups of which lm-eval makes a score."""
    return frozenset(group.name for group in site.workspace.groups if group.metrics)


def _task(site: Site, name: str) -> CatalogTask:
    """The task of a name.

    Raises:
        NotFound: it is not configured.
    """
    for one in read_catalog(site.workspace, site.roster.read().active, name):
        return one
    raise NotFound(f"task {name!r} is not configured")


def _in_order(site: Site, model: str | None) -> list[Supplier]:
    """The active suppliers, of a model if one is wanted, in the order of the leaderboard."""
    ranking = site.ranking()
    order = {} if ranking is None else ranking.order
    active = [s for s in site.roster.read().active if model in (None, s.model)]
    return sorted(active, key=lambda s: order.get(s.key, len(order)))


def _rows(site: Site, suppliers: Sequence[Supplier], name: str, asked: Asked) -> list[Window]:
    return [row for _, rows in primary_windows(site.workspace, suppliers, asked.now, [name]) for row in rows]


def _signed(row: Window) -> float:
    """The score, so that more is better."""
    score = row.score or 0.0
    return score if row.higher_is_better else -score
