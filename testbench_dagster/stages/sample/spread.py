"""How the docs of a task vary among suppliers: measured when an epoch is started, and stored with it.

From that follows how many docs everybody is asked in the epoch: at any time of it, and whatever is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from testbench_dagster.core.sampling import CompleteRow, Spread, common_spread
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import OK, Window
from testbench_dagster.ranking.ranking import RankGroup, units_of
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.groups import identity_groups
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace


def measured_spreads(workspace: Workspace, specs: Sequence[TaskSpec]) -> dict[str, Spread]:
    """The spreads of tasks' docs, by task, by the complete rows of the active suppliers as of now.

    All are measured in one pass over the rows; none where a task's rule fixes the number of docs.
    """
    least: dict[str, int] = {}
    for spec in specs:
        rule, registration = spec.samples, workspace.datasets.current(spec.name)
        if registration is not None and rule is not None and rule.half_width is not None:
            least[spec.name] = min(rule.min, registration.n_docs)
    rows: dict[str, list[CompleteRow]] = {name: [] for name in least}
    if least:
        suppliers = active_suppliers(workspace)
        units = _units(workspace, suppliers)
        now = datetime.now(UTC)
        for supplier, windows in primary_windows(workspace, suppliers, now=now, tasks=list(least)):
            for row in windows:
                found = complete_row(row, units.get(supplier, supplier), least[row.task])
                if found is not None:
                    rows[row.task].append(found)
    return {spec.name: common_spread(rows.get(spec.name, ())) for spec in specs}


def _units(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, str]:
    """The unit of each supplier that is one with others, as rankings count them."""
    placed = identity_groups(workspace.documents, {s.key for s in suppliers})
    groups = {key: RankGroup(group.id, group.proxy) for key, group in placed.items()}
    return units_of(groups, {s.key: s.owner for s in suppliers if s.owner is not None})


def complete_row(row: Window, unit: str, least: int) -> CompleteRow | None:
    """What a row says of how docs vary: None unless all its docs, ``least`` or more, are closed.

    And unless it is a mean of values from 0 to 1.
    """
    if row.status != OK or row.score is None or row.ci_low is None or row.asked < least:
        return None
    # where docs share a cluster the error is more than that of the docs alone
    alone = row.score * (1 - row.score)
    return CompleteRow(row.supplier, unit, alone if row.se is None else min(alone, row.se**2 * row.asked))
