"""Suspicions: what hides, as far as it can be seen. Told with its evidence; nothing follows from one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from testbench_dagster.core.records.declaring import VIEW, Record, content, key, queryable, record

#: What a suspicion may be of.
SuspicionKind = Literal["outages", "latency", "answers", "changes", "mixture", "cached"]


@record(
    "suspicions",
    one_per="kind, supplier and whom it shares something with",
    kind=VIEW,
    indexes=(("supplier",), ("other",), ("service",)),
)
class SuspicionRecord(Record):
    """What two suppliers have in common in time, or what of a supplier's answers may not be its own."""

    id: str = key("follows from kind, supplier and other")
    kind: SuspicionKind = queryable(
        "what coincides: outages, latency, answers that vary, changes of answers; or that a part of the "
        "answers is another group's, or that repeats come from a store"
    )
    service: str = queryable("its service")
    supplier: str = queryable("key of the supplier; of a pair the one that follows, where that shows")
    other: str | None = queryable(
        "the other supplier of a pair; for mixtures the group whose answers it gives; null for `cached`"
    )
    ordered: bool = content("whether it shows that `supplier` follows `other`, and not the other way round")
    since: datetime = queryable("when the first of what was seen happened")
    until: datetime = queryable("when the last of it happened")
    found_at: datetime = content("when it was first found")
    seen_at: datetime = queryable("when it was last looked for and there")
    strength: float = content("evidence, in nats: an e-value's logarithm")
    threshold: float = content(
        "evidence from which it is told, all pairs or suppliers of its service together"
    )
    observations: int = content(
        "how many outages, steps, requests, changes, prompts or repeats were looked at"
    )
    share: float = content("share of them that coincided; of mixtures the answers that are the group's")
    share_low: float | None = content("lower end of the 95 % interval of a mixture's share, else null")
    share_high: float | None = content("upper end of it")
    lag_ms: float | None = content(
        "by how much calls of `supplier` take longer, the median; of latency alone"
    )
    reason: str = content("what was seen, in words")
