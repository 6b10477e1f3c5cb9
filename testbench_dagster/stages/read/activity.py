"""What happened to a supplier hour by hour: how its attempts ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.core.records.attempts import FaultsOfHour
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Hour:
    """The attempts that ended in an hour: by fault, and summed up by who answers for them."""

    at: datetime
    faults: Mapping[str, int]
    answered: int
    supplier: int
    network: int
    ours: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.answered + self.supplier + self.network + self.ours


def hours(workspace: Workspace, supplier: str, now: datetime, count: int = 48) -> Sequence[Hour]:
    """Return the last ``count`` hours up to that of ``now``, ascending; some may be empty."""
    last = now.replace(minute=0, second=0, microsecond=0)
    first = last - (count - 1) * _HOUR
    found: dict[datetime, Counter[str]] = {first + i * _HOUR: Counter() for i in range(count)}
    where = {"supplier": supplier, "finished_at": {"gte": first, "lt": last + _HOUR}}
    # counted by the store: there may be tens of thousands
    for row in typed.group(workspace.documents, FaultsOfHour, where):
        found[row.finished_at][row.fault] += row.n
    return [_hour(at, faults) for at, faults in found.items()]


def _hour(at: datetime, faults: Counter[str]) -> Hour:
    owners: Counter[str] = Counter()
    for name, n in faults.items():
        owners[_side(name)] += n
    return Hour(at, faults, owners["answered"], owners["supplier"], owners["network"], owners["ours"])


def _side(name: str) -> str:
    """On whose side a fault lies, as people ask; names of later versions are nobody's blame."""
    fault = Fault(name) if name in {known.value for known in Fault} else None
    if fault is None:
        return "network"
    if fault.answered:
        return "answered"
    if fault.blames_supplier:
        return "supplier"
    return "ours" if fault.owner.ours or fault.owner is Owner.BUDGET else "network"
