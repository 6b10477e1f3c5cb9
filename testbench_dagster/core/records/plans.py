"""Plans: when the next evaluation of a supplier should begin, and how much it would ask."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import (
    VIEW,
    Part,
    Record,
    content,
    key,
    nested,
    queryable,
    record,
    view,
)


@nested
class PlannedTaskState(Part):
    """What was planned for a task of a supplier."""

    state: str = content("what is to be done: due, fresh, waiting, unsupported, …")
    reason: str | None = content("why, in words")
    calls: int = content("calls that it would ask now")
    due_at: datetime | None = content("when it falls due, null if that is not known")
    open: int = content("docs that were asked in vain and are not closed", default=0)
    left: int = content("docs a run left behind when it left the supplier, not asked yet", default=0)
    kept: int = content("of these two those whose earlier outcome counts until they close", default=0)
    open_faults: Mapping[str, int] | None = content(
        "their last faults, our own left out", default=None, sparse=True
    )
    open_ours: int | None = content(
        "of the open docs those that our own faults hold up, which count against nobody",
        default=None,
        sparse=True,
    )


@record("plans", one_per="supplier", kind=VIEW, indexes=(("service", "due_calls"),))
class PlanRecord(Record):
    """The plan of a supplier as of its last evaluation, and how its last evaluations went."""

    id: str = key("key of the supplier")
    service: str = queryable("its service")
    planned_at: datetime = queryable("as of when it was planned, or asked")
    due_at: datetime | None = queryable("when its next evaluation should begin, null for never")
    due_height: int | None = queryable("the same as a block height", default=None)
    due_calls: int | None = queryable("calls that were due when it was planned")
    failures: int = queryable("evaluations in a row in which no call was answered")
    put_off_until: datetime | None = queryable(
        "not before then, because something else stood in the way", default=None
    )
    session_spent_until: int | None = queryable(
        "last height of the session in which its relays are used up", default=None
    )
    money_needed: int | None = queryable(
        "most that its next relay can cost, for which the budget of money left too little, in millionths",
        default=None,
        sparse=True,
    )
    fingerprint: str | None = queryable("changes when it has to be planned anew", default=None)
    problem: str | None = queryable(
        "why no call of its last evaluation was answered, or it went on without it", default=None
    )
    tasks: Mapping[str, PlannedTaskState] | None = content(
        "what was planned for its tasks", default=None, sparse=True
    )


@view(PlanRecord)
class PlannedTasks(NamedTuple):
    """What was planned for the tasks of a supplier, and when it is due."""

    id: str
    due_at: datetime | None
    tasks: Mapping[str, PlannedTaskState] | None


@view(PlanRecord)
class PlanOutlook(NamedTuple):
    """What planning needs of an earlier plan."""

    id: str
    service: str
    failures: int
    planned_at: datetime
    due_at: datetime | None
    due_calls: int | None
    put_off_until: datetime | None
    session_spent_until: int | None


@view(PlanRecord)
class DemandOfSupplier(NamedTuple):
    """What a due supplier would ask of its service's budget."""

    id: str
    due_calls: int | None
    session_spent_until: int | None


@view(PlanRecord)
class DuePlan(NamedTuple):
    """What tells whether a supplier is due."""

    id: str
    planned_at: datetime
    due_at: datetime | None
    due_height: int | None
    fingerprint: str | None
    failures: int
    session_spent_until: int | None
    money_needed: int | None


@view(PlanRecord)
class SpentSession(NamedTuple):
    """Until when a supplier's relays of a session are used up."""

    id: str
    session_spent_until: int | None


@view(PlanRecord)
class FailedEvaluations(NamedTuple):
    """In how many evaluations in a row no call of a supplier was answered."""

    id: str
    failures: int


@view(PlanRecord)
class PlanProblem(NamedTuple):
    """Why the last evaluation of a supplier got nowhere."""

    id: str
    problem: str | None


@view(PlanRecord)
class PlanId(NamedTuple):
    """That a supplier has a plan."""

    id: str
