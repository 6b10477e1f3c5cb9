"""``/compare?a=&b=``: two suppliers on the docs both were asked, per task and per doc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbench_dagster.board.charts import Scale, interval
from testbench_dagster.board.site import Asked, NotFound, Page, Site
from testbench_dagster.board.tables import drawing_scale
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.compare import Comparison
from testbench_dagster.stages.read.identity import against_reference
from testbench_dagster.stages.read.pairs import CHOICES, paired_answers

#: Tasks on a page: of each an interval is drawn, which takes milliseconds to find.
TASKS = 15
DOCS = 10
_NAMES = 2_000


def compare(site: Site, asked: Asked) -> Page:
    """The paired differences; without two suppliers a form to choose them; with a task its docs."""
    a, b = asked.text("a"), asked.text("b")
    names = [s.key for s in site.roster.suppliers().values() if s.key.isprintable()]
    view: dict[str, Any] = {
        "a": a,
        "b": b,
        "names": names[:_NAMES],
        "rows": None,
        "overall": None,
        "against": [],
    }
    if a is None or b is None:
        return Page("compare.html.jinja", view)
    if a == b:
        return Page("compare.html.jinja", {**view, "told": "These are the same; choose two suppliers."})
    one, other = site.supplier(a), site.supplier(b)
    found_of = {key: against_reference(site.workspace, key) for key in (a, b)}
    view["against"] = [told for told in found_of.values() if told is not None]
    if (task := asked.text("task")) is not None:
        return _by_doc(site, asked, one, other, task)
    common = _common(site, one, other)
    first = asked.behind("after", common)
    page = common[first : first + TASKS]
    shown: list[Comparison] = []
    overall: Comparison | None = None
    if page:
        *shown, overall = site.compared(a, b, page, asked.now)
        if len(page) < len(common):
            [overall] = site.compared(a, b, common, asked.now, overall_only=True)
    on = _scale([*shown, *([overall] if overall else [])])
    return Page(
        "compare.html.jinja",
        {
            **view,
            "rows": [(row, interval(on, row.difference, row.ci_low, row.ci_high)) for row in shown],
            "overall": overall,
            "n": len(common),
            "scale": on,
            "first": first,
            "next": page[-1] if first + TASKS < len(common) else None,
        },
    )


def _by_doc(site: Site, asked: Asked, a: Supplier, b: Supplier, task: str) -> Page:
    """What both said, doc by doc."""
    site.require_answers()
    if task not in _common(site, a, b):
        raise NotFound(f"task {task!r} is not asked of both")
    choice, after = asked.choice("kind", CHOICES), asked.number("after")
    found = paired_answers(site.workspace, a, b, task, choice=choice, after=after, limit=DOCS, now=asked.now)
    return Page(
        "compare_docs.html.jinja",
        {
            "a": a,
            "b": b,
            "task": task,
            "pairs": found.pairs,
            "counts": found.counts,
            "kind": choice,
            "after": after,
            "next": found.after,
        },
    )


def _common(site: Site, a: Supplier, b: Supplier) -> list[str]:
    """The tasks that both are asked and that have scores."""
    return [s.name for s in site.workspace.specs if not s.signs and s.asked_of(a) and s.asked_of(b)]


def _scale(rows: Sequence[Comparison]) -> Scale:
    """A scale with 0 in its middle."""
    ends = [abs(v) for row in rows for v in (row.difference, row.ci_low, row.ci_high) if v is not None]
    most = max(ends, default=0.1)
    return drawing_scale([-most, most])
