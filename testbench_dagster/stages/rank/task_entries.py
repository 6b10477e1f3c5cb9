"""What suppliers are ranked by on one task, or on a group of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.window import NOT_APPLICABLE, Window
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.ranking.ranking import RankScore, Reliability, make_entry
from testbench_dagster.scoring.reliability import availability, first_attempt_success
from testbench_dagster.stages.score.window_cache import Tally
from testbench_dagster.statistics.task_score import measured_tasks


def task_entries(
    name: str,
    rows: Iterable[Window],
    members: Mapping[str, Sequence[Window]],
    tallies: Mapping[str, Mapping[str, Tally]],
    *,
    simulation: bool,
) -> list[Entry]:
    """The entries of suppliers on a task or group, without ranks; of who is not asked it there is none.

    By their own docs. Where lower is better the score is 1 less the metric, as in all rankings; a metric that
    has no interval gives none.

    Args:
        name: the task or group.
        rows: of each supplier the primary row of it.
        members: by supplier the primary rows of the tasks it rests on: of a task its row alone.
        tallies: by supplier and task what is counted of its attempts.
        simulation: whether suppliers are simulated.
    """
    found = []
    for row in rows:
        if row.status == NOT_APPLICABLE:
            continue
        own = members[row.supplier]
        known = tallies.get(row.supplier, {})
        found.append(
            make_entry(
                name,
                row.supplier,
                _rank_score(row, own),
                (row.n, row.n_failed),
                own,
                reliability(own, known),
                simulation,
            )
        )
    return found


def group_members(group: TaskGroup, rows: Sequence[Window]) -> list[Window]:
    """Of a supplier's primary rows those of a group's tasks, each once."""
    names = frozenset(group.tasks)
    return [row for row in rows if row.task in names]


def reliability(rows: Sequence[Window], tallies: Mapping[str, Tally]) -> Reliability:
    """Over the attempts at the tasks of some windows: of several in one minute that minute counts once."""
    used = [tallies[row.task] for row in rows if row.task in tallies]
    return Reliability(
        availability(tally.minutes for tally in used),
        first_attempt_success((tally.asked, tally.at_once) for tally in used),
    )


def _rank_score(row: Window, members: Sequence[Window]) -> RankScore:
    """What a row says; of a group without a score only how many of its tasks have one."""
    lacking = frozenset(row.missing or ())
    total, known = len(members), sum(m.task not in lacking and m.score is not None for m in members)
    task = measured_tasks([row]).get(row.task)
    if task is None:
        return RankScore(n_measured=known, n_tasks=total)
    share = known / total if total else None
    return RankScore(task.score, *task.interval, known, total, share, task.score, task.n)
