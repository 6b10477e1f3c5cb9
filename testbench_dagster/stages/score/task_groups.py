"""The rows of groups of tasks beside those of the tasks themselves; see :mod:`.scoring.groups`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace

#: Columns of what groups are made of and their Python types, documented in docs/reference.md.
GROUP_COLUMNS: dict[str, type] = {
    "group": str,
    "root": str,
    "metric": str,
    "filters": str,
    "weight_by_size": bool,
    "position": int,
    "task": str,
}


def member_rows(groups: Iterable[TaskGroup]) -> Iterator[dict[str, Any]]:
    """Yield what groups are made of: a row for each metric they aggregate and each of their tasks, in order.

    A task that a group holds by way of two nested ones, and which weighs twice, has two rows.
    """
    for group in groups:
        for metric in group.metrics:
            for position, task in enumerate(group.tasks):
                yield {
                    "group": group.name,
                    "root": group.root,
                    "metric": metric.metric,
                    "filters": None if metric.filters is None else ",".join(metric.filters),
                    "weight_by_size": metric.weight_by_size,
                    "position": position,
                    "task": task,
                }


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
    return list(group_windows(workspace.groups, rows, primary_only=True))
