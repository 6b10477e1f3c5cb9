"""All suppliers by one task, or by one group of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.entry import Board
from testbench_dagster.ranking.ranking import ranked
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.rank.ranking import rank_groups, with_facts
from testbench_dagster.stages.rank.task_entries import group_members, task_entries
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.score.window_cache import Tally
from testbench_dagster.stages.score.windows import measured_suppliers
from testbench_dagster.stages.workspace import Workspace


def task_board(workspace: Workspace, name: str, now: datetime | None = None) -> Board:
    """Rank the active suppliers by a task, or by a group of which lm-eval makes a score, as of one instant.

    Raises:
        ConfigError: there is no such task or group, or it gives no score.
    """
    group = _group(workspace, name)
    specs = workspace.chosen_specs([name])
    now = now or datetime.now(UTC)
    suppliers = active_suppliers(workspace)
    simulation = workspace.config.settings.simulation
    rows: dict[str, list[Window]] = {}
    tallies: dict[str, Mapping[str, Tally]] = {}
    of_groups: dict[str, Sequence[Window]] = {}
    ranked_by: list[Window] = []
    groups = [] if group is None else [group]
    for measured in measured_suppliers(workspace, suppliers, now, [s.name for s in specs], groups=groups):
        rows[measured.supplier] = measured.rows if group is None else group_members(group, measured.rows)
        tallies[measured.supplier] = measured.tallies
        of_groups[measured.supplier] = measured.groups
        ranked_by += measured.rows if group is None else measured.groups
    entries = task_entries(name, ranked_by, rows, tallies, simulation=simulation)
    keys = {s.key for s in suppliers}
    placed = rank_groups(workspace.documents, keys)
    owners = {s.key: s.owner for s in suppliers if s.owner is not None}
    found = ranked(entries, placed, {s.key: s.api for s in suppliers}, owners)
    [rankings] = with_facts(workspace, suppliers, now, {name: found})
    aside = tasks_set_aside(workspace, specs)
    return Board(
        now,
        simulation,
        suppliers,
        rankings,
        {},
        {},
        rows,
        aside,
        {name: list(aside)},
        workspace.config.settings.board.url,
        groups,
        of_groups,
    )


def _group(workspace: Workspace, name: str) -> TaskGroup | None:
    """The group of a name; None of a task's.

    Raises:
        ConfigError: it is neither, or gives no score.
    """
    for group in workspace.groups:
        if group.name == name:
            if group.problem is not None:
                raise ConfigError(f"{group.problem}; rank by one of its tasks")
            return group
    specs = workspace.chosen_specs([name])
    if [spec.name for spec in specs] == [name]:
        if specs[0].signs:
            raise ConfigError(f"{name!r} is a signature, which has no score; rank by a task that has one")
        return None
    raise ConfigError(
        f"{name!r} has no score: it is a tag, a group that lm-eval gives none, or one of which a part is "
        f"configured; rank by one of its tasks, such as {specs[0].name!r}"
    )
