"""How processes keep out of each other's way: their heartbeats, leases on suppliers, and budgets."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.declaring import COORDINATION, Record, key, queryable, record


@record(
    "budgets",
    one_per="account and period",
    kind=COORDINATION,
    indexes=(("account", "period"), ("period",)),
)
class BudgetRecord(Record):
    """Relays granted to processes from an account in a period, before they are sent."""

    id: str = key("follows from account and period")
    account: str = queryable("what the relays are taken from")
    period: datetime = queryable("start of the UTC hour or day")
    granted: int = queryable("relays granted so far, those given back taken off")
