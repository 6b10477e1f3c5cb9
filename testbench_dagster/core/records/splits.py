"""Splits: members of identity groups that were found to answer otherwise than who stood for them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import FACT, Record, content, key, queryable, record, view


@record("splits", one_per="member that was split off", kind=FACT, indexes=(("supplier", "at"), ("service",)))
class SplitRecord(Record):
    """A member that no longer answers like its group, with the evidence."""

    id: str = key("follows from supplier, proxy and date")
    supplier: str = queryable("key of the member that was split off")
    service: str = queryable("its service")
    proxy: str = queryable("whose answers it was compared with")
    at: datetime = queryable("when the doc came that gave certainty")
    detected_at: datetime = queryable("when it was recorded")
    apart_from: list[str] = content("members of the group it is not grouped with again for the time being")
    docs: int = content("docs, or prompts whose answers begin alike or not, that both had answered")
    differ: float = content("on how many of them the scores differed, parts of a doc added up")
    mean_difference: float = content(
        "mean of its score less the proxy's on them; 0 where no scores were compared"
    )
    log_e: float = content("evidence for the difference, in nats")
    reason: str = content("what was seen, in words")


@view(SplitRecord)
class KnownSplit(NamedTuple):
    """Who is not grouped with whom, since when."""

    supplier: str
    proxy: str
    at: datetime
    apart_from: list[str]
    reason: str
