"""What stands in the way: of tasks that were not prepared, docs that no store holds, answers not scored."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from testbench_dagster.core.records.declaring import (
    FACT,
    VIEW,
    Record,
    content,
    counted,
    key,
    queryable,
    record,
    view,
)
from testbench_dagster.core.relay import Api

#: What of a task could not be made: its docs, or the prompts from them.
Step = Literal["dataset", "prompts"]


@record("set_aside", one_per="task that could not be prepared", kind=VIEW)
class SetAsideRecord(Record):
    """A task that is not asked because it could not be prepared; removed once it was."""

    id: str = key("name of the task")
    step: Step = queryable("what of it could not be made: `dataset` or `prompts`")
    since: datetime = queryable("when that was first tried in vain")
    tried_at: datetime = queryable("when it was last tried")
    failures: int = queryable("how often in a row it was tried in vain")
    retry_at: datetime = queryable("when sensors try again, if nothing about the task changes before")
    reason: str = content("why, in words")
    source: str | None = content("changes with its definition, settings and data files")


@view(SetAsideRecord)
class TaskSetAside(NamedTuple):
    """Which task is set aside."""

    id: str


@record("void_docs", one_per="doc of a sequence that no store holds", kind=FACT)
class VoidDocRecord(Record):
    """A doc that nobody is asked because its prompt cannot be stored; it counts nowhere."""

    id: str = key("id of the prompt that stands in its place")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    epoch: int = queryable("number of the sequence, from 1")
    api: Api = queryable("form of the requests")
    position: int = queryable("place in the sequence, from 0")
    doc_id: int = queryable("row of the doc in the task's data")
    reason: str = content("why it cannot be stored, in words")


@record("scorer_outages", one_per="supplier and task whose answers wait for a scorer", kind=VIEW)
class ScorerOutageRecord(Record):
    """Answers not scored: a metric's service is gone, its framework fails, or they cannot be read."""

    id: str = key("`task:supplier`")
    task: str = queryable("name of the task")
    supplier: str = queryable("key of the supplier that answered")
    since: datetime = queryable("when scoring was first tried in vain")
    tried_at: datetime = queryable("when it was last tried")
    failures: int = queryable("how often in a row it was tried in vain")
    retry_at: datetime = queryable("when the daemon tries again; a run does at once")
    docs: int = queryable("answered docs that wait")
    reason: str = content("what the metric met, or why an answer cannot be read")
    of_scorer: bool | None = content(
        "whether the framework itself fails, and no service that it asks", default=None, sparse=True
    )
    unread: bool | None = content(
        "whether the bodies of the answers cannot be read where they are kept", default=None, sparse=True
    )


@counted(VoidDocRecord)
class VoidDocs(NamedTuple):
    """Void docs of a sequence in the form of one API."""

    task: str
    task_hash: str
    epoch: int
    api: Api
    n: int
