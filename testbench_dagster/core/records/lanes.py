"""Suppliers that a run left because they did not answer: what they were not asked is open, too.

And what a supplier had stalled when a run was stopped.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.declaring import (
    FACT,
    Part,
    Record,
    content,
    key,
    nested,
    queryable,
    record,
    view,
)

#: The fault of a lane's end that was no leaving: the run was stopped. No run leaves a supplier for it.
STOPPED = Fault.INTERNAL


@nested
class LeftTask(Part):
    """The docs of one task that were to be asked in the run, and were not, or were not answered."""

    task: str = content("name of the task")
    task_hash: str = content("what the task's requests are made of")
    epoch: int = content("prompt sequence of the task, from 1")
    round: int = content(
        "how often the doc's prompt was asked, from 1; 0 for a gate alone, which no score rests on"
    )
    doc_ids: list[int] = content("rows of the docs in the task's data, in the order of the sequence")
    positions: list[int] = content("the places of their prompts in the sequence, from 0")


@record(
    "lane_ends",
    one_per="supplier that a run left",
    kind=FACT,
    indexes=(("supplier", "ended_at"), ("ended_at",)),
)
class LaneEndRecord(Record):
    """A supplier that a run left before it was asked all, and what it left behind."""

    id: str = key("follows from supplier and lease")
    supplier: str = queryable("key of the supplier")
    service: str = queryable("its service")
    lease: int | None = queryable("token of the lease under which the run asked it")
    ended_at: datetime = queryable("when it was left")
    fault: str = queryable(
        "how its last attempt ended, by the name of the fault; `internal` where the run was stopped"
    )
    why: str = content("why it was left, in words")
    waited_s: float = content("how long it was waited for in all, in seconds")
    left: tuple[LeftTask, ...] = content(
        "what was to be asked and was not, or was stalled as the run was stopped, by task"
    )


@view(LaneEndRecord)
class LeftBehind(NamedTuple):
    """What a supplier was not asked because a run left it."""

    supplier: str
    ended_at: datetime
    fault: str
    left: tuple[LeftTask, ...]
