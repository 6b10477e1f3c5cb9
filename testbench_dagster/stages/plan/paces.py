"""The paces of suppliers in planning: what is left of their days, how long a plan takes, who has to wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


@dataclass(frozen=True)
class SharedPace:
    """A pace, and who of some suppliers is asked at it: one, or all that share it."""

    pace: Pace
    suppliers: tuple[str, ...]

    @property
    def whose(self) -> str:
        """Whose pace it is, for people."""
        if len(self.suppliers) == 1:
            return f"{self.suppliers[0]} is asked at its pace"
        return (
            f"{counted(len(self.suppliers), 'supplier')} share {self.pace.account.partition(':')[2]}'s pace"
        )


def paces_of(workspace: Workspace, suppliers: Iterable[Supplier]) -> list[SharedPace]:
    """The paces of some suppliers, each once."""
    settings = workspace.config.settings
    found: dict[Pace, list[str]] = {}
    for supplier in suppliers:
        pace = settings.pace_of(supplier)
        if pace is not None:
            found.setdefault(pace, []).append(supplier.key)
    return [SharedPace(pace, tuple(keys)) for pace, keys in found.items()]


def renews_at(workspace: Workspace, supplier: Supplier, now: datetime) -> datetime | None:
    """When a supplier may be asked again whose requests of the day are used up; None where they are not."""
    pace = workspace.config.settings.pace_of(supplier)
    days = DayLedger(workspace.documents)
    if pace is None or days.left(pace, now) != 0:
        return None
    return days.renews_at(pace, now)


def how_long(workspace: Workspace, suppliers: Iterable[Supplier], calls: Mapping[str, int]) -> dict[str, str]:
    """How suppliers are asked that have a pace, and about how long their calls take, by account.

    Args:
        workspace: the installation.
        suppliers: those that are planned.
        calls: calls that are due now, by supplier.
    """
    ledger, told = PaceLedger(workspace.documents), {}
    for shared in paces_of(workspace, suppliers):
        n = sum(calls.get(key, 0) for key in shared.suppliers)
        text = f"{shared.whose} of {shared.pace.words}"
        seconds = n * ledger.gap_s(shared.pace)
        if seconds:
            text += f": {counted(n, 'relay')} {'takes' if n == 1 else 'take'} about {_duration(seconds)}"
        told[shared.pace.account] = text
    return told


def used_up(workspace: Workspace, suppliers: Iterable[Supplier], now: datetime) -> list[str]:
    """Whose requests of the day are used up while calls are due, and when they are asked again."""
    days, told = DayLedger(workspace.documents), []
    for shared in paces_of(workspace, suppliers):
        if days.left(shared.pace, now) != 0:
            continue
        plans = typed.by_id(workspace.documents, PlanRecord, shared.suppliers)
        if any(plan.due_calls for plan in plans.values()):
            until = days.renews_at(shared.pace, now).astimezone()
            told.append(
                f"{shared.whose} of {shared.pace.words}, which is used up; "
                f"asked on from {until:%Y-%m-%d %H:%M}"
            )
    return told


def fingerprint(workspace: Workspace) -> list[object]:
    """What of the settings plans depend on; empty without paces."""
    settings = workspace.config.settings
    found: list[object] = [[s.key, s.pace.model_dump()] for s in settings.suppliers if s.pace]
    found += [["source", s.label, s.pace.model_dump()] for s in settings.supplier_sources if s.pace]
    return found + [[name, s.pace.model_dump()] for name, s in settings.services.items() if s.pace]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
