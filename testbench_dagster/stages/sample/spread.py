"""How the docs of a task vary among suppliers: measured when an epoch is started, and stored with it.

From that follows how many docs everybody is asked in the epoch: at any time of it, and whatever is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from testbench_dagster.core.records.identity import GroupMembers
from testbench_dagster.core.sampling import CompleteRow, Spread, common_spread
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import OK, Window
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


def measured_spread(workspace: Workspace, spec: TaskSpec) -> Spread:
    """The spread of a task's docs by the complete rows of the active suppliers, as of now.

    None is measured where the task's rule fixes the number of docs.
    """
    rule = spec.samples
    registration = workspace.datasets.current(spec.name)
    if registration is None or rule is None or rule.half_width is None:
        return Spread()
    return common_spread(_complete_rows(workspace, spec, min(rule.min, registration.n_docs)))


def complete_row(row: Window, group: str, least: int) -> CompleteRow | None:
    """What a row says of how docs vary: None unless all its docs, ``least`` or more, are closed.

    And unless it is a mean of values from 0 to 1.
    """
    if row.status != OK or row.score is None or row.ci_low is None or row.asked < least:
        return None
    # where docs share a cluster the error is more than that of the docs alone
    alone = row.score * (1 - row.score)
    return CompleteRow(row.supplier, group, alone if row.se is None else min(alone, row.se**2 * row.asked))


def _complete_rows(workspace: Workspace, spec: TaskSpec, least: int) -> Iterator[CompleteRow]:
    group_of = {row.id: row.group for row in typed.find(workspace.documents, GroupMembers)}
    now = datetime.now(UTC)
    for supplier, rows in primary_windows(workspace, now=now, tasks=[spec.name]):
        for row in rows:
            if (found := complete_row(row, group_of.get(supplier, supplier), least)) is not None:
                yield found
