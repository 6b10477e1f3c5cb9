"""Scheduled backfills as configured (``schedules:``): of whom each is now, and what keeps one from working.

Belongs here: what a schedule comes to on the roster of now. Does not: ticks and backfills (:mod:`..defs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from testbench_dagster.config import ScheduledBackfill, unmatched_pattern
from testbench_dagster.core.applicability import is_chosen
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.workspace import Workspace

_WHAT = "schedule "


def scheduled_suppliers(schedule: ScheduledBackfill, suppliers: Sequence[Supplier]) -> list[str]:
    """Keys of those of some suppliers that a schedule is about, in their order."""
    return [
        supplier.key
        for supplier in suppliers
        if is_chosen(schedule.services, (supplier.service,))
        and is_chosen(schedule.suppliers, (supplier.key,))
    ]


def task_problem(workspace: Workspace, schedule: ScheduledBackfill) -> str | None:
    """What is wrong with the tasks of a schedule, with the remedy; None: nothing is."""
    try:
        workspace.chosen_specs(schedule.tasks)
    except ConfigError as error:
        return f"tasks: {error}; correct it, or remove it"
    return None


def nobody_text(schedule: ScheduledBackfill, suppliers: Sequence[Supplier]) -> str:
    """Why a schedule is about none of the active suppliers, with the remedy."""
    problems = [f"{name}: {problem}" for name, problem in _unmatched(schedule, suppliers)]
    why = "; ".join(problems) or "no supplier fits all of its patterns; correct them"
    return f"{schedule.whom}: no active supplier ({why})"


def schedule_findings(workspace: Workspace, suppliers: Sequence[Supplier]) -> Iterator[Finding]:
    """What to tell of each schedule: of whom, what and when it is, or what keeps it from that.

    A pattern that matches nobody is a warning, since a source may list them yet; nothing is said of patterns
    where there are no active suppliers at all.
    """
    for schedule in workspace.config.settings.schedules:
        what = f"{_WHAT}{schedule.name}"
        if problem := task_problem(workspace, schedule):
            yield Finding(what, problem, ok=False)
            continue
        unmatched = list(_unmatched(schedule, suppliers)) if suppliers else []
        for name, problem in unmatched:
            yield Finding(what, f"{name}: {problem}", ok=False, warning=True)
        chosen = scheduled_suppliers(schedule, suppliers)
        if suppliers and not chosen and not unmatched:
            yield Finding(what, nobody_text(schedule, suppliers), ok=False, warning=True)
        elif chosen or not suppliers:
            yield Finding(what, schedule_text(schedule, chosen))


def schedule_texts(workspace: Workspace) -> dict[str, str]:
    """By its name what each schedule comes to now, or what keeps it from that."""
    if not workspace.config.settings.schedules:
        return {}
    found: dict[str, str] = {}
    for finding in schedule_findings(workspace, active_suppliers(workspace)):
        name = finding.what.removeprefix(_WHAT)
        found[name] = f"{found[name]}; {finding.detail}" if name in found else finding.detail
    return found


def schedule_text(schedule: ScheduledBackfill, keys: Sequence[str]) -> str:
    """Whom a schedule evaluates on what and when, in a line; ``keys`` are those whom it is about now."""
    off = "" if schedule.enabled else "; switched off"
    return f"{counted(len(keys), 'supplier')} ({schedule.whom}), {schedule.what}, at {schedule.when}{off}"


def _unmatched(schedule: ScheduledBackfill, suppliers: Sequence[Supplier]) -> Iterator[tuple[str, str]]:
    """The first pattern of each list that matches nobody active, by the name of the list."""
    for name, patterns, names in (
        ("services", schedule.services, [supplier.service for supplier in suppliers]),
        ("suppliers", schedule.suppliers, [supplier.key for supplier in suppliers]),
    ):
        if problem := unmatched_pattern(patterns, names, f"{name} on the roster"):
            yield name, problem
