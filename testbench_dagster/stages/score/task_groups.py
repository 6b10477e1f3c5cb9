"""The rows of groups of tasks beside those of the tasks themselves; see :mod:`.scoring.groups`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace


def with_groups(rows: Sequence[Window], groups: Sequence[TaskGroup]) -> list[Window]:
    """Return the rows of suppliers, each supplier's followed by those of groups.

    ``rows`` are those of all metrics and filters, a supplier's in a row.
    """
    found: list[Window] = []
    for _, own in groupby(rows, key=lambda row: row.supplier):
        of_supplier = list(own)
        found += [*of_supplier, *group_windows(groups, of_supplier)]
    return found


def group_rows(workspace: Workspace, supplier: Supplier, now: datetime | None = None) -> list[Window]:
    """Return the primary rows of all groups of one supplier."""
    if not workspace.groups:
        return []
    names = list(dict.fromkeys(task for group in workspace.groups for task in group.tasks))
    rows = windows(workspace, suppliers=[supplier.key], tasks=names, now=now)
    return [row for row in group_windows(workspace.groups, rows) if row.primary]
