"""``/changes``: detected changes of what suppliers answer, newest first."""

from __future__ import annotations

from testbench_dagster.board.site import Asked, Page, Site
from testbench_dagster.stages.read.identity import changes as read_changes

ROWS = 50


def changes(site: Site, asked: Asked) -> Page:
    """A page of changes; ``before`` is when the last one of the page before was recorded."""
    before, key = asked.instant("before"), asked.text("supplier")
    found = read_changes(site.workspace, key, before=before, limit=ROWS + 1)
    shown = found[:ROWS]
    return Page(
        "changes.html.jinja",
        {
            "changes": shown,
            "supplier": key,
            "before": before,
            "next": shown[-1].detected_at.isoformat() if len(found) > ROWS else None,
        },
    )
