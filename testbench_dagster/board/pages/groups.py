"""``/group/G``: a group of tasks of which lm-eval makes one score: its tasks, and the suppliers by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbench_dagster.board.charts import interval
from testbench_dagster.board.site import Asked, NotFound, Page, Site
from testbench_dagster.board.tables import score_scale
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.score.windows import measured_suppliers

SUPPLIERS = 50
TASKS = 300


def group(site: Site, asked: Asked, name: str) -> Page:
    """A group: its tasks, how they weigh, and the suppliers by it, best first as last ranked."""
    one = _group(site, name)
    ranking = site.ranking()
    by_group = None if ranking is None else site.ranking_by_group(ranking.taxonomy, name)
    entries: Mapping[str, Entry] = {} if by_group is None else {row.supplier: row for row in by_group.rows}
    model = asked.text("model")
    suppliers = _in_order(site, entries, model)
    keys = [s.key for s in suppliers]
    after = asked.text("after")
    first = keys.index(after) + 1 if after in keys else 0
    chosen = suppliers[first : first + SUPPLIERS]
    rows = list(_rows(site, one, chosen, asked))
    on = score_scale(rows)
    tasks = list(dict.fromkeys(one.tasks))
    every = site.workspace.groups
    return Page(
        "group.html.jinja",
        {
            "group": one,
            "tasks": tasks[:TASKS],
            "n_tasks": len(tasks),
            "inner": [g.name for g in every if g != one and set(g.tasks) < set(one.tasks)],
            "outer": [g.name for g in every if g != one and set(one.tasks) < set(g.tasks)],
            "rows": [(w, entries.get(w.supplier), interval(on, w.score, w.ci_low, w.ci_high)) for w in rows],
            "scale": on,
            "made_at": None if by_group is None else by_group.made_at,
            "models": sorted({s.model for s in site.roster.suppliers().values()}),
            "model": model,
            "n": len(suppliers),
            "first": first,
            "next": chosen[-1].key if first + SUPPLIERS < len(suppliers) else None,
        },
    )


def _group(site: Site, name: str) -> TaskGroup:
    """The group of a name.

    Raises:
        NotFound: there is none.
    """
    for one in site.workspace.groups:
        if one.name == name:
            return one
    raise NotFound(f"{name!r} is no configured group of tasks that has a score")


def _in_order(site: Site, entries: Mapping[str, Entry], model: str | None) -> list[Supplier]:
    """The active suppliers, of a model if one is wanted, in the order of the ranking by the group."""
    order = {key: place for place, key in enumerate(entries)}
    active = [s for s in site.roster.suppliers().values() if s.left_at is None and model in (None, s.model)]
    return sorted(active, key=lambda s: order.get(s.key, len(order)))


def _rows(site: Site, one: TaskGroup, suppliers: Sequence[Supplier], asked: Asked) -> Iterator[Window]:
    """The row of each supplier as of now."""
    names = list(dict.fromkeys(one.tasks))
    for own in measured_suppliers(site.workspace, suppliers, asked.now, names, groups=[one]):
        yield from own.groups
