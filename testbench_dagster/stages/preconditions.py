"""What an evaluation needs before it starts (data files, suppliers, keys), and why nothing came of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import FaultCount
from testbench_dagster.core.records.scores import ScoredId
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.discover.roster import (
    active_suppliers,
    named_suppliers,
    no_suppliers_text,
)
from testbench_dagster.stages.plan.due_suppliers import waiting_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.registry import supplier_endpoint, transport

_FAULTS_TOLD = 5  # in the message on an evaluation that scored nothing


def require_data_files(workspace: Workspace, specs: Sequence[TaskSpec]) -> None:
    """Refuse to start when none of some tasks has its data files, before anything is written.

    Raises:
        ConfigError: names the first task, the split and the file, and how many more are like it.
    """
    missing = []
    for spec in specs:
        files = (spec.data or {}).items()
        lost = next(((split, path) for split, path in files if not Path(path).is_file()), None)
        if lost is None and spec.problem is None:
            return
        missing += [] if lost is None else [(spec.name, *lost)]
    for name, split, path in missing:
        more = f" (and {counted(len(missing) - 1, 'more task')} likewise)" if len(missing) > 1 else ""
        raise ConfigError(
            f"{workspace.config.path}: task {name!r}, data.{split}: no file {path}; "
            f"correct the path (it is relative to the configuration file){more}"
        )


def chosen_suppliers(workspace: Workspace, keys: Sequence[str] | None = None) -> list[Supplier]:
    """The active suppliers with these keys; all of them for None.

    Raises:
        ConfigError: a key is not that of an active supplier, or the configuration names none at all.
        TestbenchError: the supplier sources list none that can be used.
    """
    active = active_suppliers(workspace)
    if not active:
        text = no_suppliers_text(workspace)
        raise TestbenchError(text) if workspace.config.settings.discovers else ConfigError(text)
    known = [supplier.key for supplier in active]
    for key in () if keys is None else keys:
        if key not in known:
            raise ConfigError(f"supplier {key!r} is not active; active are: {', '.join(known[:20])}")
    return [supplier for supplier in active if keys is None or supplier.key in keys]


def require_something_to_ask(
    workspace: Workspace, suppliers: Sequence[Supplier], tasks: Sequence[TaskSpec]
) -> list[Supplier]:
    """Those of the suppliers that are asked one of the tasks.

    Raises:
        ConfigError: none is; says which setting leaves the first of them out.
    """
    asked = [supplier for supplier in suppliers if any(spec.asked_of(supplier) for spec in tasks)]
    if asked or not suppliers or not tasks:
        return asked
    task, supplier = tasks[0], suppliers[0]
    pairs = len(tasks) * len(suppliers)
    others = f", and likewise of all {counted(pairs, 'pair')} of task and supplier" if pairs > 1 else ""
    raise ConfigError(
        f"{workspace.config.path}: nothing is asked: {task.name} not of {supplier.key} "
        f"({task.applies.why_not(supplier)}){others}; choose others, or correct tasks[].services, "
        "tasks[].suppliers or suppliers[].tasks"
    )


def require_keys(config: Config, suppliers: Sequence[Supplier]) -> list[str]:
    """Why some of the suppliers cannot be asked for want of a key, each reason once.

    Raises:
        ConfigError: none of them can be; names the supplier or service, and the variable or file.
    """
    of_services = _service_key_problems(config, suppliers)
    problems = []
    for supplier in suppliers:
        try:
            supplier_endpoint(config, supplier)
        except ConfigError as error:
            problems.append(str(error))
        else:
            if problem := of_services[supplier.transport, supplier.service]:
                problems.append(problem)
    if problems and len(problems) == len(suppliers):
        more = f" (and {counted(len(problems) - 1, 'more supplier')} likewise)" if len(problems) > 1 else ""
        first = problems[0].removeprefix(f"{config.path}: ")
        raise ConfigError(f"{config.path}: {first}{more}")
    return list(dict.fromkeys(problems))


def _service_key_problems(config: Config, suppliers: Sequence[Supplier]) -> dict[tuple[str, str], str | None]:
    """Why the relays of a service cannot be signed, if they cannot, by transport and service."""
    pairs = {(supplier.transport, supplier.service) for supplier in suppliers}
    return {(name, service): transport(name).key_problem(config, service) for name, service in pairs}


def who_waits(workspace: Workspace, keys: Sequence[str] | None = None) -> str:
    """Tell how many of the suppliers, by default all, cannot be asked now for want of a session, and why."""
    active = [s for s in named_suppliers(workspace, keys) if s.left_at is None]
    waiting = waiting_suppliers(workspace, active)
    if not waiting:
        return ""
    reasons = Counter(waiting.values()).most_common(1)
    wait = "waits" if len(waiting) == 1 else "wait"
    return f"{len(waiting)} of {counted(len(active), 'supplier')} {wait}: {reasons[0][0]}"


def why_nothing_is_scored(
    workspace: Workspace, suppliers: Sequence[str] | None = None, tasks: Sequence[str] | None = None
) -> str | None:
    """What stands in the way where the suppliers have no score of the tasks; None where they have one.

    Only tasks that a supplier is asked count.
    """
    chosen = named_suppliers(workspace, suppliers)
    keys = [supplier.key for supplier in chosen]
    by_keys: dict[tuple[str, ...], list[str]] = {}  # most tasks are asked of the same suppliers
    for spec in workspace.chosen_specs(tasks):
        asked = tuple(supplier.key for supplier in chosen if spec.asked_of(supplier))
        by_keys.setdefault(asked, []).append(spec.name)
    for asked, names in by_keys.items():
        where = {"supplier": {"in": list(asked)}, "task": {"in": names}}
        if asked and next(typed.find(workspace.documents, ScoredId, where, limit=1), None) is not None:
            return None
    faults = [fault.value for fault in Fault if not fault.answered]
    failed = {"supplier": {"in": keys}, "fault": {"in": faults}}
    rows = typed.group(workspace.documents, FaultCount, failed)
    rows.sort(key=lambda row: -row.n)
    told = [f"{row.supplier} {row.fault} x {row.n}" for row in rows[:_FAULTS_TOLD]]
    if len(rows) > _FAULTS_TOLD:
        told.append("...")
    reason = ", ".join(told) or who_waits(workspace, suppliers)
    return f"nothing was scored{f' ({reason})' if reason else ''}"
