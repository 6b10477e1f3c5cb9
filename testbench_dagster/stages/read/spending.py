"""What the attempts at a supplier took on each UTC day: tokens, and money where the roster has its price.

All stored attempts count: those that failed and reported tokens, repeated ones, canaries and audits. The
price is that of now, whatever it was on the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import FaultsOfHour, TokensOfHour
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Days looked back at, today among them.
DAYS = 7
_ANSWERED = frozenset(fault.value for fault in Fault if fault.answered)


@dataclass(frozen=True, slots=True)
class DaySpent:
    """What the attempts that ended on a UTC day took.

    ``unmetered`` are answers of which the supplier does not report the tokens: they are in no sum. ``cost``
    is None without a price, and where no attempt reports tokens.
    """

    day: str
    attempts: int
    unmetered: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


def spending(workspace: Workspace, supplier: Supplier, now: datetime, days: int = DAYS) -> Sequence[DaySpent]:
    """Return what each of the last days took that had attempts, the newest last."""
    first = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    where = {"supplier": supplier.key, "finished_at": {"gte": first}}
    metered = {**where, "prompt_tokens": {"gte": 0}, "completion_tokens": {"gte": 0}}
    found: dict[str, _Day] = {}
    # summed up by the store: there may be tens of thousands
    for row in typed.group(workspace.documents, FaultsOfHour, where):
        day = found.setdefault(row.finished_at.date().isoformat(), _Day())
        day.attempts += row.n
        day.unmetered += row.n if row.fault in _ANSWERED else 0
    for sums in typed.group(workspace.documents, TokensOfHour, metered):
        day = found.setdefault(sums.finished_at.date().isoformat(), _Day())
        day.metered += sums.n
        day.unmetered -= sums.n if sums.fault in _ANSWERED else 0
        day.prompt_tokens += sums.sum_prompt_tokens or 0
        day.completion_tokens += sums.sum_completion_tokens or 0
    return [_spent(supplier, day, found[day]) for day in sorted(found)]


class _Day:
    """The sums of a day."""

    attempts = metered = unmetered = prompt_tokens = completion_tokens = 0


def _spent(supplier: Supplier, name: str, day: _Day) -> DaySpent:
    cost = None
    if supplier.price is not None and day.metered:
        cost = supplier.price.of(day.prompt_tokens, day.completion_tokens)
    # attempts that were stored between the two counts
    unmetered = max(0, day.unmetered)
    return DaySpent(name, day.attempts, unmetered, day.prompt_tokens, day.completion_tokens, cost)
