"""What the stored attempts say about a supplier and task: the last attempt of every call, no bodies read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import CallAttempt, WindowAttempt
from testbench_dagster.planning.due import CallOutcome
from testbench_dagster.stores.documents import DocumentStore, typed

Seen = TypeVar("Seen", CallAttempt, WindowAttempt)


def last_attempts(
    documents: DocumentStore,
    supplier: str,
    task: str,
    task_hash: str,
    epoch: int | Mapping[str, int] | None = None,
    since: datetime | None = None,
) -> dict[tuple[str, int, int, int], CallAttempt]:
    """Last attempt per call, keyed (prompt id, round, idx, repeat), without bodies.

    ``epoch`` is a number, a condition such as ``{"lt": 3}``, or None for all. With ``since`` only calls whose
    last attempt finished after it.
    """
    where: dict[str, Any] = {"supplier": supplier, "task": task, "task_hash": task_hash}
    if epoch is not None:
        where["epoch"] = epoch
    if since is not None:
        where["finished_at"] = {"gt": since}
    return last_by_call(typed.find(documents, CallAttempt, where))


def last_by_call(attempts: Iterable[Seen]) -> dict[tuple[str, int, int, int], Seen]:
    """Of the attempts of one supplier and task the last per call, keyed (prompt id, round, idx, repeat)."""
    last: dict[tuple[str, int, int, int], Seen] = {}
    for attempt in attempts:
        key = (attempt.prompt_id, attempt.round, attempt.idx, attempt.repeat)
        known = last.get(key)
        if known is None or known.attempt < attempt.attempt:
            last[key] = attempt
    return last


@dataclass
class History:
    """What the planner needs of a supplier's attempts at a task.

    ``outcomes`` are those of the current epoch; ``final_elsewhere`` gives, per doc that is closed in an
    earlier epoch, when that was. ``last_at`` and ``last_height`` are the newest of final calls, in any epoch.
    """

    outcomes: list[CallOutcome] = field(default_factory=list)
    final_elsewhere: dict[int, datetime] = field(default_factory=dict)
    last_at: datetime | None = None
    last_height: int | None = None

    def saw(self, attempt: CallAttempt) -> None:
        """Take note of when the supplier was last heard of, by the clock and by the chain."""
        if not Fault(attempt.fault).final:
            return
        at, height = attempt.finished_at, attempt.height
        self.last_at = at if self.last_at is None else max(at, self.last_at)
        if height is not None:
            self.last_height = height if self.last_height is None else max(height, self.last_height)


def history(
    documents: DocumentStore,
    supplier: str,
    task: str,
    task_hash: str,
    *,
    epoch: int,
    since: datetime,
    calls: Mapping[str, int],
) -> History:
    """Read the history of a supplier at a task: all of ``epoch``, of earlier ones what is after ``since``.

    ``calls`` is the number of calls per prompt id (see :func:`scoring.score.prompt_calls`).
    """
    found = History()
    for attempt in last_attempts(documents, supplier, task, task_hash, epoch).values():
        found.saw(attempt)
        found.outcomes.append(
            CallOutcome(
                prompt_id=attempt.prompt_id,
                idx=attempt.idx,
                repeat=attempt.repeat,
                attempt=attempt.attempt,
                fault=Fault(attempt.fault),
                finished_at=attempt.finished_at,
                round=attempt.round,
            )
        )
    if epoch > 1:
        _earlier_epochs(documents, supplier, task, task_hash, epoch, since, calls, found)
    return found


def _earlier_epochs(
    documents: DocumentStore,
    supplier: str,
    task: str,
    task_hash: str,
    epoch: int,
    since: datetime,
    calls: Mapping[str, int],
    found: History,
) -> None:
    by_doc: dict[tuple[str, int], list[CallAttempt]] = {}
    for (prompt_id, round_, _, _), attempt in last_attempts(
        documents, supplier, task, task_hash, {"lt": epoch}, since
    ).items():
        found.saw(attempt)
        by_doc.setdefault((prompt_id, round_), []).append(attempt)
    for (prompt_id, _), attempts in by_doc.items():
        faults = [Fault(a.fault) for a in attempts]
        failed = any(fault.final and not fault.answered for fault in faults)
        if failed or sum(fault.answered for fault in faults) == calls.get(prompt_id):
            doc_id, at = attempts[0].doc_id, max(a.finished_at for a in attempts)
            found.final_elsewhere[doc_id] = max(at, found.final_elsewhere.get(doc_id, at))
