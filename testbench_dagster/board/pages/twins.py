"""``/twins``: who is better on public questions than on fresh ones of the kind, beside its peers."""

from __future__ import annotations

from testbench_dagster.board.site import Asked, Page, Site
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.identify.public_gaps import newest_gaps

#: Rows of the page: those flagged first, then by p value.
ROWS = 200


def twins(site: Site, asked: Asked) -> Page:
    """The newest epoch of each active supplier and task in pairs."""
    task = asked.text("task")
    found = newest_gaps(site.workspace, [one.key for one in active_suppliers(site.workspace)])
    tasks = sorted({one.task for one in found})
    chosen = sorted((one for one in found if task in (None, one.task)), key=_order)
    return Page(
        "twins.html.jinja",
        {"gaps": chosen[:ROWS], "n_gaps": len(chosen), "tasks": tasks, "task": task},
    )


def _order(gap: PublicGapRecord) -> tuple[bool, float, str, str]:
    return not gap.flagged, 2.0 if gap.p is None else gap.p, gap.supplier, gap.task
