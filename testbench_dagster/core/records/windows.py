"""Cached windows: the rows of suppliers as they were computed last, and who writes what they rest on."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

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
class WritingProcess(Part):
    """A process that writes facts of the supplier now."""

    writer: str = content("its name: that of its heartbeat, and one of this writing")
    holder: str = content("name of the heartbeat it lives by")
    tasks: list[str] = content("names of the tasks whose facts it writes")


@record("windows", one_per="supplier", kind=VIEW)
class WindowRecord(Record):
    """The cached rows of a supplier's tasks, and who writes facts of which of them now."""

    id: str = key("key of the supplier")
    token: str = queryable("changes with every change of the document, which is made by compare and set")
    kept_at: datetime | None = queryable("when rows were last cached")
    subject: str | None = content("changes with whatever of the supplier its rows depend on")
    writers: tuple[WritingProcess, ...] = content("who writes facts now")
    # Not of a class of their own: a ranking of a network reads half a million, and to make a record of each
    # would take more than a third of the time that its window takes.
    rows: list[dict[str, Any]] = content(
        "by task what was cached: its fingerprint, since and until when it holds, and the rows as JSON"
    )


@view(WindowRecord)
class WindowsToken(NamedTuple):
    """What changes with whatever is cached of a supplier."""

    id: str
    token: str


@record(
    "window_answers",
    one_per="supplier and task",
    kind=VIEW,
    indexes=(("task", "service"), ("supplier",)),
)
class WindowAnswersRecord(Record):
    """What became of each doc of a cached window: what pages of answers are chosen from."""

    id: str = key("follows from supplier and task")
    supplier: str = queryable("key of the supplier")
    service: str = queryable("its service")
    task: str = queryable("name of the task")
    task_hash: str = queryable("what the task's requests are made of")
    fingerprint: str = content("that of the cached rows it was made with")
    since: int = content("since when these hold, in microseconds since 1970")
    docs: bytes = content("the docs, packed and compressed: see `stages/score/window_answers.py`")


@view(WindowAnswersRecord)
class AnsweringSupplier(NamedTuple):
    """Who has a cached window of a task."""

    id: str
    supplier: str


@view(WindowAnswersRecord)
class PackedAnswers(NamedTuple):
    """What became of the docs of a window, packed."""

    id: str
    docs: bytes
