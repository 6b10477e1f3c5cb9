"""What is known of the supplier sources: whose installation they are, and what they left out all at once."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.declaring import ROSTER, Record, content, key, queryable, record


@record("installations", one_per="store", kind=ROSTER)
class InstallationRecord(Record):
    """The installation whose suppliers a store holds."""

    id: str = key("`owner`")
    installation: str = queryable("its name in testbench.yaml, or what was drawn for it")
    named: bool = queryable("whether that is a name of testbench.yaml")
    sources: list[str] = content("names of its supplier sources and services")
    stated: str = content("hash of its sources and configured suppliers")
    at: datetime = queryable("since when they are these")
    version: int = queryable("grows with every change of this document")


@record("source_losses", one_per="supplier source", kind=ROSTER)
class SourceLossRecord(Record):
    """Suppliers that a source left out all at once, as long as that is not believed."""

    id: str = key("name of the source")
    since: datetime = queryable("when it was first seen to leave them out")
    looked_at: datetime = queryable("when the last look that counts was")
    looks: int = queryable("how often it was seen so in a row, at looks that are apart")
    known: int = queryable("how many suppliers were known of it at the last look")
    missing: int = queryable("how many of them it left out at the last look")
    marks: str = content("who was left out at every look: 16 hexadecimal digits of each key's hash")
