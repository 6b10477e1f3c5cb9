"""What the stored attempts say about a supplier and task: the last attempt of every call, no bodies read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import CallAttempt, PlanAttempt
from testbench_dagster.core.sampling import GATE_ROUND
from testbench_dagster.planning.due import CallOutcome, Lives
from testbench_dagster.stores.documents import DocumentStore, typed

Seen = TypeVar("Seen", CallAttempt, PlanAttempt)


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
    """Of the attempts of one supplier and task the last per call, keyed (prompt id, round, idx, repeat).

    A canary is no outcome of its call: it only counts for the ``attempt`` returned, which is the highest
    number of all, so that the next attempt gets the one after it.
    """
    last: dict[tuple[str, int, int, int], Seen] = {}
    numbers: dict[tuple[str, int, int, int], int] = {}  # of canaries
    for attempt in attempts:
        key = (attempt.prompt_id, attempt.round, attempt.idx, attempt.repeat)
        if attempt.canary:
            numbers[key] = max(attempt.attempt, numbers.get(key, 0))
            continue
        known = last.get(key)
        if known is None or known.attempt < attempt.attempt:
            last[key] = attempt
    for key, number in numbers.items():
        if key in last and last[key].attempt < number:
            last[key] = last[key]._replace(attempt=number)
    return last


DocRound = tuple[str, int]
"""A prompt's id and the round in which it was asked."""


_ANSWERED = frozenset(fault.value for fault in Fault if fault.answered)
#: By how much the clock that dated an attempt may be behind the one that dated its epoch.
_CLOCKS = timedelta(days=1)


class ClosedDoc(NamedTuple):
    """When a doc was closed last, and under which prompt, epoch and round."""

    at: datetime
    prompt_id: str
    epoch: int
    round: int


@dataclass
class History:
    """What the planner needs of a supplier's attempts at a task.

    It is of the task as registered under ``task_hash``, complete after ``since``; ``answered`` is when each
    answer came, canaries' too, and how many ms it took. ``outcomes`` are those of the current epoch,
    ``earlier`` the last attempts of earlier ones by prompt and
    round. ``unanswered`` has every attempt at the docs, of any epoch, that have a call without an answer:
    what became of them depends on the supplier's other answers. ``last_at`` and ``last_height`` are those of
    the newest sample: of an answer, or what took its place by the supplier's fault, in any epoch. What is
    dated ahead of ``now``, by a clock that was set back since, is no newer than what is dated right.
    """

    task_hash: str
    since: datetime
    now: datetime
    answered: list[tuple[datetime, float]] = field(default_factory=list)
    outcomes: list[CallOutcome] = field(default_factory=list)
    earlier: dict[DocRound, list[PlanAttempt]] = field(default_factory=dict)
    unanswered: dict[DocRound, list[PlanAttempt]] = field(default_factory=dict)
    last_at: datetime | None = None
    last_height: int | None = None

    def _saw(self, attempt: PlanAttempt, fault: Fault) -> None:
        """Take note of when the supplier was last heard of, by the clock and by the chain."""
        if not (fault.answered or fault.blames_supplier):
            return
        at, height = attempt.finished_at, attempt.height
        if not is_ahead(at, self.now):
            self.last_at = at if self.last_at is None else max(at, self.last_at)
        if height is not None:
            self.last_height = height if self.last_height is None else max(height, self.last_height)

    def read(self, attempts: Iterable[PlanAttempt]) -> Iterator[tuple[PlanAttempt, Fault]]:
        """Take note of attempts; yield the last at each call."""
        made = list(attempts)
        self.answered += [(a.finished_at, a.latency_ms) for a in made if a.fault in _ANSWERED]
        failed: set[DocRound] = set()
        for attempt in last_by_call(made).values():
            fault = Fault(attempt.fault)
            self._saw(attempt, fault)
            if not fault.answered:
                failed.add((attempt.prompt_id, attempt.round))
            yield attempt, fault
        if failed:
            for attempt in made:
                key = (attempt.prompt_id, attempt.round)
                if key in failed and not attempt.canary:
                    self.unanswered.setdefault(key, []).append(attempt)

    def closed_earlier(self, lives: Lives, calls: Mapping[str, int]) -> dict[int, ClosedDoc]:
        """By doc id when it was last closed in an earlier epoch; ``calls`` are those of each prompt, by id.

        What was asked for a gate alone is left out.
        """
        found: dict[int, ClosedDoc] = {}
        for (prompt_id, round_), attempts in self.earlier.items():
            life = lives.get((prompt_id, round_))
            # of what is not in the lives every attempt was answered
            closed = len(attempts) == calls.get(prompt_id) if life is None else life.closed
            if closed and round_ != GATE_ROUND:
                one = ClosedDoc(max(a.finished_at for a in attempts), prompt_id, attempts[0].epoch, round_)
                known = found.get(attempts[0].doc_id)
                if known is None or self._order(known.at) < self._order(one.at):
                    found[attempts[0].doc_id] = one
        return found

    def _order(self, at: datetime) -> tuple[bool, datetime]:
        """What to order dates by: of what is dated ahead nobody knows how old it is."""
        return not is_ahead(at, self.now), at


def history(
    documents: DocumentStore,
    supplier: str,
    task: str,
    task_hash: str,
    *,
    epoch: int,
    began: datetime,
    since: datetime,
    now: datetime,
) -> History:
    """Read the history of a supplier at a task: all of ``epoch``, of earlier ones what is after ``since``.

    ``began`` is when the epoch was started: one that is younger than ``since`` costs nothing besides.
    """
    found = History(task_hash, since, now)
    where = {"supplier": supplier, "task": task, "task_hash": task_hash}
    current: list[PlanAttempt] = []
    earlier: list[PlanAttempt] = []
    if began - _CLOCKS <= since:
        older = {**where, "epoch": epoch, "finished_at": {"gt": began - _CLOCKS, "lte": since}}
        current += typed.find(documents, PlanAttempt, older)
    for attempt in typed.find(documents, PlanAttempt, {**where, "finished_at": {"gt": since}}):
        if attempt.epoch <= epoch:
            (current if attempt.epoch == epoch else earlier).append(attempt)
    for attempt, fault in found.read(current):
        found.outcomes.append(call_outcome(attempt, fault))
    for attempt, _ in found.read(earlier):
        found.earlier.setdefault((attempt.prompt_id, attempt.round), []).append(attempt)
    return found


def call_outcome(attempt: PlanAttempt, fault: Fault) -> CallOutcome:
    """The last attempt of a call as planning looks at it."""
    return CallOutcome(
        prompt_id=attempt.prompt_id,
        idx=attempt.idx,
        repeat=attempt.repeat,
        attempt=attempt.attempt,
        fault=fault,
        finished_at=attempt.finished_at,
        round=attempt.round,
    )
