"""Cached windows: the rows of suppliers as they were computed last, and who writes what they rest on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from testbench_dagster.core.records.declaring import (
    VIEW,
    Part,
    Record,
    content,
    key,
    nested,
    queryable,
    record,
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
