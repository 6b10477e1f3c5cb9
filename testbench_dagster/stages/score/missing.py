"""Why a supplier has no score of a task, from what the stores know of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import FaultCount
from testbench_dagster.core.records.plans import PlannedTasks
from testbench_dagster.core.records.scores import DatedScore
from testbench_dagster.core.records.set_aside import ScorerOutageRecord
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import NO_DATA, Window
from testbench_dagster.core.wording import agreeing, counted
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.score.remarks import Remarks
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_LOOKED_UP = 50  # rows whose attempts are counted: as many as a check shows
_ANSWERED = frozenset(fault.value for fault in Fault if fault.answered)


def why_no_scores(workspace: Workspace, rows: Iterable[Window]) -> Remarks:
    """Of the rows without any data, why that is, by supplier and task.

    The task was set aside, its answers wait for a scorer, nothing was asked or answered yet, or what was
    scored is too old.
    """
    missing = [row for row in rows if row.status == NO_DATA]
    if not missing:
        return {}
    specs = {spec.name: spec for spec in workspace.specs}
    aside = tasks_set_aside(workspace, specs.values())
    waits = {(one.supplier, one.task): one for one in typed.find(workspace.documents, ScorerOutageRecord)}
    plans = typed.by_id(workspace.documents, PlannedTasks, {row.supplier for row in missing[:_LOOKED_UP]})
    found: Remarks = {}
    for number, row in enumerate(missing):
        pair = row.supplier, row.task
        if row.task in aside:
            found[pair] = f"the task is set aside, nobody is asked: {aside[row.task]}"
        elif (one := waits.get(pair)) is not None:
            waiting = agreeing(one.docs, "answered doc is", "answered docs are")
            found[pair] = f"{waiting} not scored: {one.reason}"
        elif number >= _LOOKED_UP:
            found[pair] = "no scores inside the window age"
        else:
            found[pair] = _looked_up(workspace, specs[row.task], row, plans.get(row.supplier))
    return found


def _looked_up(workspace: Workspace, spec: TaskSpec, row: Window, plan: PlannedTasks | None) -> str:
    where = {"supplier": row.supplier, "task": row.task}
    newest = next(
        typed.find(workspace.documents, DatedScore, where, sort=[("answered_at", -1)], limit=1), None
    )
    age = _days(spec.max_age(workspace.config.settings.sampling.max_age_days))
    if newest is not None:
        at = f"{newest.answered_at:%Y-%m-%d %H:%M} UTC"
        return f"its newest scored answer is of {at}; scores count for {age}, or until the task changes"
    counts = {one.fault: one.n for one in typed.group(workspace.documents, FaultCount, where)}
    if not counts:
        return f"it was never asked{_what_is_planned(plan, row.task)}"
    told = ", ".join(f"{fault} x {n}" for fault, n in sorted(counts.items(), key=lambda one: -one[1]))
    attempts = counted(sum(counts.values()), "attempt")
    if _ANSWERED.isdisjoint(counts):
        return f"{attempts}, none answered ({told})"
    return f"{attempts} ({told}), none scored: the next run scores what still counts ({age})"


def _what_is_planned(plan: PlannedTasks | None, task: str) -> str:
    state = None if plan is None else (plan.tasks or {}).get(task)
    if state is None:
        return ": no evaluation planned it yet"
    return f": {state.state}" + (f", {state.reason}" if state.reason else "")


def _days(age: timedelta) -> str:
    return counted(age / timedelta(days=1), "day", "g")
