"""How processes keep out of each other's way: their heartbeats, leases on suppliers, budgets and paces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import (
    COORDINATION,
    Record,
    content,
    counted,
    key,
    queryable,
    record,
    view,
)


@record(
    "budgets",
    one_per="account and period",
    kind=COORDINATION,
    indexes=(("account", "period"), ("period",)),
)
class BudgetRecord(Record):
    """Relays or money granted to processes from an account in a period, before they are spent."""

    id: str = key("follows from account and period")
    account: str = queryable(
        "what is granted, and of what: relays or, where it begins with `money:` or `estimated:`, money"
    )
    period: datetime = queryable("start of the UTC hour or day")
    granted: int = queryable(
        "granted so far, what was given back taken off: relays, or millionths of the currency of the prices"
    )


@record("paces", one_per="pace that suppliers are asked at", kind=COORDINATION)
class PaceRecord(Record):
    """When the next request of a pace may be sent, and the tokens that its last minute was granted."""

    id: str = key("whose pace it is: a supplier's, a service's or one that several share by name")
    revision: int = queryable("grows with every grant")
    next_at: float = content("when the next request may be sent, in seconds since 1970")
    token_times: list[int] = content("parts of a minute in which tokens were granted, counted since 1970")
    token_counts: list[int] = content("tokens granted in each of them, as corrected by what answers told")


@record("leases", one_per="supplier that is held, and one counter", kind=COORDINATION, indexes=(("holder",),))
class LeaseRecord(Record):
    """Who may relay to a supplier; the counter of tokens is stored among these, without a holder."""

    id: str = key("key of the supplier; of the counter `#token`")
    holder: str | None = queryable("name of the heartbeat it lives by", default=None, sparse=True)
    token: int = queryable("grows with every new holder; of the counter the last one drawn")
    since: datetime | None = content("when it was taken", default=None, sparse=True)
    brief: bool = content(
        "whether it is given back within moments, as by a service probe: worth waiting for",
        default=False,
        sparse=True,
    )


@view(LeaseRecord)
class LeaseToken(NamedTuple):
    """With which token a supplier is held."""

    id: str
    token: int


@counted(LeaseRecord)
class LeasesOfHolder(NamedTuple):
    """Leases by holder."""

    holder: str | None
    n: int


@record("heartbeats", one_per="process that works on suppliers", kind=COORDINATION)
class HeartbeatRecord(Record):
    """That a process is alive until an instant, which it moves on in time."""

    id: str = key("name of its heartbeat, such as a run id")
    expires_at: datetime = queryable("alive until then, by the machine's clock")
    boot_deadline: float | None = content(
        "the same in seconds since its machine booted, null where the machine tells no boot from the next"
    )
    ttl_s: float = content("seconds after which it is dead if it is not renewed")
    host: str = queryable("its machine: host name, boot and namespaces")
    pid: int = content("its process id there")
    started: int | None = content("when the process started, in clock ticks since boot; null if unknown")


@record("statements", one_per="process that says what it runs, or that was refused for it", kind=COORDINATION)
class StatementRecord(Record):
    """What a process goes by: its configuration and its packages, for others to compare theirs with.

    Of code servers and of `testbench run` while they live, renewed as heartbeats are; of machines whose runs
    were refused until that is some time ago.
    """

    id: str = key("role, machine and configuration file; of `testbench run` also its process")
    role: str = queryable("`code server`, `run` or, of a machine whose run was refused, `refused`")
    since: datetime = queryable("since when its machine has had that role, with that file")
    config: str = queryable("fingerprint of `settings`")
    packages: str = queryable("fingerprint of `versions`")
    settings: Mapping[str, str] = content(
        "what of testbench.yaml, and of the files it names, changes what is measured or how it counts, by key"
    )
    versions: Mapping[str, str] = content("packages that scores depend on, and our versions of meaning")
    path: str = content("its testbench.yaml, as a path there")
    problem: str | None = content("why its run was refused, in a sentence", default=None, sparse=True)
    expires_at: datetime = queryable("it stands until then, by the machine's clock")
    boot_deadline: float | None = content(
        "the same in seconds since its machine booted, null where the machine tells no boot from the next"
    )
    ttl_s: float = content("seconds after which it is gone if it is not renewed")
    host: str = queryable("its machine: host name, boot and namespaces")
    pid: int = content("its process id there")
    started: int | None = content("when the process started, in clock ticks since boot; null if unknown")
