"""Which docs wait for an answer, of whom, why, and when they are asked again: from the cached plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.records.attempts import FaultCount
from testbench_dagster.core.records.lanes import LeftBehind
from testbench_dagster.core.records.plans import PlannedTasks
from testbench_dagster.core.wording import agreeing, are, counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_TOLD = 3  # suppliers named in a line


@dataclass(frozen=True)
class OpenDocs:
    """The open docs of a supplier: how many, by last fault (our own left out), and when it is asked next.

    ``left`` of them were to be asked when a run left the supplier, and were not yet. ``kept`` of them were
    asked anew, by force or with age: their earlier outcomes count until they close. ``ours`` are open by our
    own faults alone, and count against nobody.
    """

    supplier: str
    docs: int
    faults: Mapping[str, int] = field(default_factory=dict)
    next_at: datetime | None = None
    left: int = 0
    kept: int = 0
    ours: int = 0

    def __str__(self) -> str:
        told = [f"{fault} x {n}" for fault, n in self.faults.items()]
        if self.left:
            told.append(f"{self.left} not asked yet")
        if self.ours:
            told.append(f"{self.ours} by our own fault")
        return f"{self.docs} of {self.supplier}" + (f" ({', '.join(told)})" if told else "")


def open_docs(
    workspace: Workspace, suppliers: Iterable[str], tasks: Collection[str] | None = None
) -> list[OpenDocs]:
    """Return who of the suppliers has open docs of the tasks (None: of all), those with most first.

    As of their last evaluations.
    """
    found = []
    for plan in typed.by_id(workspace.documents, PlannedTasks, suppliers).values():
        chosen = [state for name, state in (plan.tasks or {}).items() if tasks is None or name in tasks]
        left = sum(state.left for state in chosen)
        docs = sum(state.open for state in chosen) + left
        if docs:
            faults: Counter[str] = Counter()
            for state in chosen:
                faults.update(state.open_faults or {})
            kept = sum(state.kept for state in chosen)
            ours = sum(state.open_ours or 0 for state in chosen)
            found.append(OpenDocs(plan.id, docs, dict(faults.most_common()), plan.due_at, left, kept, ours))
    return sorted(found, key=lambda row: (-row.docs, row.supplier))


def left_behind(
    workspace: Workspace, suppliers: Iterable[str], now: datetime
) -> dict[tuple[str, str], set[int]]:
    """The docs that runs left behind when they left a supplier, by supplier and task, asked since or not."""
    since = now - timedelta(days=workspace.config.settings.sampling.max_age_days)
    where = {"supplier": {"in": sorted(suppliers)}, "ended_at": {"gt": since}}
    found: dict[tuple[str, str], set[int]] = {}
    for end in typed.find(workspace.documents, LeftBehind, where):
        for task in end.left:
            found.setdefault((end.supplier, task.task), set()).update(task.doc_ids)
    return found


def next_attempt(opened: Iterable[OpenDocs]) -> datetime | None:
    """When the first of them is asked again, None where the clock alone does not tell."""
    return min((row.next_at for row in opened if row.next_at is not None), default=None)


def who_is_open(opened: Collection[OpenDocs]) -> str:
    """Tell how many docs of whom are open and why, in a few words."""
    told = [str(row) for row in list(opened)[:_TOLD]]
    rest = list(opened)[_TOLD:]
    if rest:
        told.append(f"{sum(row.docs for row in rest)} of {counted(len(rest), 'other')}")
    docs = sum(row.docs for row in opened)
    return f"{counted(docs, 'doc')} {are(docs)} open: {', '.join(told)}"


def what_they_count_as(opened: Collection[OpenDocs]) -> str:
    """Tell what open docs count as until they close: as wrong, unless an earlier outcome stays meanwhile.

    Those that our own faults hold up count for nothing.
    """
    ours = sum(row.ours for row in opened)
    docs, kept = sum(row.docs for row in opened) - ours, sum(row.kept for row in opened)
    kept = min(docs, kept)
    if ours:
        held = agreeing(ours, "is held up by us and counts", "are held up by us and count")
        rest = f", the others: {_counted_as(docs, kept)}" if docs else ""
        return f"{held} against nobody (`testbench show` names them){rest}"
    return _counted_as(docs, kept)


def _counted_as(docs: int, kept: int) -> str:
    if not kept:
        return "it counts as wrong until it closes" if docs == 1 else "they count as wrong until they close"
    if kept == docs:
        one = "its earlier outcome counts until it closes"
        return one if docs == 1 else "their earlier outcomes count until they close"
    wrong = "1 counts" if docs - kept == 1 else f"{docs - kept} count"
    stay = "the earlier outcome of 1 counts" if kept == 1 else f"the earlier outcomes of {kept} count"
    return f"{wrong} as wrong until closed, {stay} until then"


def who_refuses_all(workspace: Workspace, opened: Iterable[OpenDocs]) -> str:
    """Tell who of those with open docs refuses all it is asked, with what to do; empty where nobody does."""
    refused = {fault.value for fault in Fault if fault.row.closes is Closing.REFUSED}
    asked = [row.supplier for row in opened if row.faults and refused.issuperset(row.faults)]
    if not asked:
        return ""
    counts = typed.group(workspace.documents, FaultCount, {"supplier": {"in": asked}})
    answering = {row.supplier for row in counts if row.fault not in refused}
    found = [key for key in asked if key not in answering]
    if not found:
        return ""
    more = f" and {counted(len(found) - _TOLD, 'other')}" if len(found) > _TOLD else ""
    verb = "refuses" if len(found) == 1 else "refuse"
    return (
        f"{', '.join(found[:_TOLD])}{more} {verb} all that was asked: `testbench check` finds out which "
        "settings are wanted"
    )
