"""Identity: which suppliers answer alike, and when what a supplier answers changed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from testbench_dagster.core.records.declaring import FACT, Record, content, key, queryable, record, view


@record(
    "changes",
    one_per="detected change",
    kind=FACT,
    indexes=(("supplier", "at"), ("detected_at",)),
)
class ChangeRecord(Record):
    """A detected change of what a supplier answers, dated by its answers, with the evidence."""

    id: str = key("follows from supplier, kind, stream of evidence and date")
    supplier: str = queryable("key of the supplier")
    service: str = queryable("its service")
    kind: Literal["repeat", "group", "score"] = queryable(
        "against what it changed: its own earlier answers, its group's, or its scores of a task"
    )
    task: str | None = queryable("of scores: the task, by its name")
    at: datetime = queryable("when the first answer that looked otherwise came")
    detected_at: datetime = queryable("when it was recorded")
    seen_at: datetime = content("when the answer that raised the alarm came")
    cut: bool = queryable("whether what it answered before counts no more")
    reason: str = content("what was seen, in words")
    before_at: datetime | None = content("when the last answer that looked as before came")
    log_e: float = content("evidence for the change, in nats")
    arl: float = content("observations to a false alarm, on average at least")
    observations: int = content("observations until the alarm")
    since_change: int = content("how many of them came after the change")
    null_rate: float = content("the mean that the time before allowed for: the lowest, for `up` the highest")
    rate_after: float = content("mean of the observations after the change")
    direction: Literal["down", "up"] = content("where the mean went")
    certain: bool = content("false where another member of its group may have changed instead")


@view(ChangeRecord)
class ToldChange(NamedTuple):
    """What is told of a change."""

    id: str
    supplier: str
    kind: Literal["repeat", "group", "score"]
    task: str | None
    at: datetime
    detected_at: datetime
    cut: bool
    reason: str
