"""Schedules of the configuration (``schedules:``): each launches a backfill of exactly its suppliers.

A tick only looks, for the UI can try one; what it asks for is a run of the job ``request_backfill``, which
requests the backfill, and may be started by hand for a schedule that is not due.
"""

from collections.abc import Sequence
from hashlib import sha256

import dagster as dg

from testbench_dagster.config import ScheduledBackfill
from testbench_dagster.config.schedules import no_cron
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import run_key, schedule_status
from testbench_dagster.defs.partitions import SUPPLIER
from testbench_dagster.stages.discover.roster import TO_REFRESH_ROSTER, active_suppliers
from testbench_dagster.stages.plan.schedules import nobody_text, scheduled_suppliers, task_problem
from testbench_dagster.stages.workspace import Workspace

SCHEDULE_TAG = "testbench/schedule"
"""Tag of the backfills that a schedule launched, of their runs and of those that requested them: its name."""
#: Dagster's own, by which the UI says who launched a run or backfill and lists them with the schedule.
_LAUNCHED_BY = "dagster/schedule_name"
_OP = "request"
_OWNER = "team:evaluation"


class _NotNow(Exception):
    """Why a schedule launches nothing now, in words."""


class RequestConfig(dg.Config):
    """Run configuration of ``request_backfill``: the name of the schedule."""

    schedule: str


@dg.op(name=_OP, description="Requests the backfill of a schedule, unless one of it still runs.")
def _request(
    context: dg.OpExecutionContext, config: RequestConfig, workspace: dg.ResourceParam[Workspace]
) -> None:
    from testbench_dagster.defs.backfills import add_backfill  # with Dagster's storages, 0.5 s: only here

    # of a run that is retried because its process died the same one
    first = context.run.get_root_run_id() or context.run.run_id
    id_ = "".join(chr(ord("a") + byte % 26) for byte in sha256(first.encode()).digest()[:8])
    if context.instance.get_backfill(id_) is not None:
        context.log.info(f"backfill {id_} is requested already")
        return
    try:
        schedule, keys = _to_backfill(context.instance, workspace, config.schedule)
    except _NotNow as why:
        context.log.warning(f"no backfill is requested: {why}")
        return
    add_backfill(
        context.instance,
        workspace,
        keys,
        title=f"schedule {schedule.name}",
        # scheduled work gives way to what people start by hand
        tags={SCHEDULE_TAG: schedule.name, _LAUNCHED_BY: schedule.name, "dagster/priority": "-1"},
        tasks=schedule.tasks,
        description=f"Of {schedule.whom}: {schedule.what}. Launched by the schedule {schedule.name} of "
        "testbench.yaml.",
        backfill_id=id_,
    )
    context.log.info(f"backfill {id_} of {counted(len(keys), 'supplier')} is requested: {', '.join(keys)}")


@dg.job(
    name="request_backfill",
    description="Request the backfill of a schedule of testbench.yaml (`schedules:`), which the schedule's "
    "ticks do; by hand: of a schedule that is not due.",
)
def request_backfill() -> None:
    """One op: request the backfill."""
    _request()


def backfill_schedules(schedules: Sequence[ScheduledBackfill]) -> list[dg.ScheduleDefinition]:
    """One schedule of Dagster for each that is configured.

    Raises:
        ConfigError: Dagster takes a name or a cron expression for none; all of these are named.
    """
    made, problems = [], []
    for position, schedule in enumerate(schedules):
        try:
            made.append(_backfill_schedule(schedule))
        except ConfigError as error:
            problems.append(f"schedules[{position}].{error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return made


def _backfill_schedule(schedule: ScheduledBackfill) -> dg.ScheduleDefinition:
    name = schedule.name

    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            _to_backfill(context.instance, context.resources.workspace, name)
        except _NotNow as why:
            return dg.SkipReason(str(why))
        return dg.RunRequest(
            run_key=run_key("backfill", name, context.scheduled_execution_time.isoformat()),
            run_config={"ops": {_OP: {"config": {"schedule": name}}}},
            tags={SCHEDULE_TAG: name},
        )

    def define(cron: str, called: str) -> dg.ScheduleDefinition:
        return dg.ScheduleDefinition(
            name=called,
            cron_schedule=cron,
            job=request_backfill,
            execution_timezone=schedule.timezone,
            execution_fn=tick,
            required_resource_keys={"workspace"},
            owners=[_OWNER],
            default_status=schedule_status(schedule),
            description=f"Launches a backfill of {schedule.whom}: {schedule.what}. What is fresh is not "
            "asked again.",
        )

    for cron, called, problem in (
        (schedule.cron, "tried", f"cron: {no_cron(schedule.cron)}"),
        ("0 0 * * *", name, f"name: {name!r} is a word that Dagster keeps for itself; choose another name"),
    ):
        try:
            define(cron, called)
        except dg.DagsterError as error:
            raise ConfigError(problem) from error
    return define(schedule.cron, name)


def _to_backfill(
    instance: dg.DagsterInstance, workspace: Workspace, name: str
) -> tuple[ScheduledBackfill, list[str]]:
    """A schedule as it is configured now, and the keys of the suppliers that it is about.

    Raises:
        ConfigError: it names a task that there is not.
        _NotNow: nothing is to be done now.
    """
    from testbench_dagster.defs.backfills import unfinished_backfill  # with Dagster's storages, 0.5 s

    schedule = workspace.config.settings.schedule(name)
    if schedule is None:
        raise _NotNow(f"testbench.yaml has no schedule {name!r} any more; reload the code location")
    if problem := task_problem(workspace, schedule):
        raise ConfigError(f"schedules, {name!r}: {problem}")
    if (going_on := unfinished_backfill(instance, SCHEDULE_TAG, name)) is not None:
        raise _NotNow(f"backfill {going_on} of this schedule has not ended; the next tick looks again")
    suppliers = active_suppliers(workspace)
    keys = scheduled_suppliers(schedule, suppliers)
    if not keys:
        raise _NotNow(nobody_text(schedule, suppliers))
    known = set(instance.get_dynamic_partitions(SUPPLIER))
    present = [key for key in keys if key in known]
    if not present:
        raise _NotNow(
            f"{counted(len(keys), 'supplier')} ({schedule.whom}), none with a partition yet; "
            f"{TO_REFRESH_ROSTER}"
        )
    return schedule, present
