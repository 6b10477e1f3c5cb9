"""When suppliers are probed: evenly over time, at instants that they cannot know.

Time is divided into cells of equal length since 1970, ``per_day`` of them to a UTC day, and each cell has one
instant, drawn uniformly from a secret seed, the supplier and the workload. A supplier that answers faster at
some hours is so measured at all of them (stratified sampling). Who knows its earlier probes knows the next
cell, not the instant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

_START = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
#: A supplier that could not be reached is probed no more often, whatever is configured.
UNREACHED_EVERY = timedelta(hours=1)


def probe_instant(seed: str, supplier: str, workload: str, per_day: float, cell: int) -> datetime:
    """The instant of a cell, in UTC; cells are counted from 1970."""
    drawn = hashlib.sha256(f"{seed}:{supplier}:{workload}:{cell}".encode()).digest()
    share = int.from_bytes(drawn[:7]) / 2**56
    return _START + _DAY * ((cell + share) / per_day)


def newest_instant(seed: str, supplier: str, workload: str, per_day: float, now: datetime) -> datetime:
    """The last instant at or before ``now`` at which a supplier was to be probed."""
    cell = math.floor((now - _START) / _DAY * per_day)
    at = probe_instant(seed, supplier, workload, per_day, cell)
    return at if at <= now else probe_instant(seed, supplier, workload, per_day, cell - 1)


def due_workloads(
    seed: str,
    supplier: str,
    rates: Mapping[str, float],
    last_at: Mapping[str, datetime],
    now: datetime,
    unreached_at: datetime | None = None,
) -> list[str]:
    """The workloads that are due: those not probed since the newest of their instants.

    However many instants passed meanwhile, each is due once: what was missed is not made up for.

    Args:
        seed: what the instants are drawn from.
        supplier: key of the supplier.
        rates: probes a day by workload, the shortest workload first.
        last_at: when each workload was last probed, by the clock of ``now``; those never probed are due at
            once.
        now: the present.
        unreached_at: when the supplier was last probed, where it could not be reached then. It is asked a
            single workload, an hour later at the earliest: that tells when it is back.
    """
    due = [
        workload
        for workload, per_day in rates.items()
        if workload not in last_at
        or last_at[workload] < newest_instant(seed, supplier, workload, per_day, now)
    ]
    if unreached_at is None:
        return due
    return due[:1] if now - unreached_at >= UNREACHED_EVERY else []
