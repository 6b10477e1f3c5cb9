"""The life of a doc: open, then scored, failed or void, from what was stored of it and of others.

A failed attempt never lowers a score; a doc that a working supplier leaves unanswered does. So the states
ask two things of every *occasion* (a run's attempts at a doc): did the doc stay unanswered, and did the
supplier answer something else meanwhile (its *own witness*)? Without a witness it was an outage, which says
nothing of the doc. With one, K such occasions close the doc as failed, K being a column of the fault table.

A refused request needs a second look at others: a doc that suppliers of three units refuse and nobody
answers is the fault of the doc, void for all. A request shape that a supplier refuses everywhere says that
it cannot be asked like that, and nothing of what it knows.

Pure functions of stored facts and the clock: whoever has them comes to the same states.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from testbench_dagster.core.faults import Closing, Fault

#: Suppliers of so many units have to refuse a doc before it is void.
VOID_UNITS = 3
#: And so many times as many units have to have been asked it as there are others that may be asked it yet.
VOID_TIMES_UNASKED = 9

_OCCASIONS_MINUTES = (0.0, 15.0, 120.0, 720.0, 1440.0, 2880.0, 4320.0)
_DAY = timedelta(days=1)
_WITNESS = timedelta(seconds=60)
_LEAST_WITNESS = timedelta(seconds=2)


class DocState(StrEnum):
    """What became of a doc that a supplier was asked."""

    OPEN = "open"
    SCORED = "scored"
    FAILED = "failed"
    VOID = "void"


@dataclass(frozen=True)
class DocClock:
    """When a doc is asked again, and how long the rest of its life takes.

    ``occasions``: when they begin after the first, ascending from 0; afterwards one follows each
    ``recent``. All times scale with the last of them over 72 hours, so that tests and impatient users can
    compress them.
    """

    occasions: tuple[timedelta, ...] = tuple(timedelta(minutes=m) for m in _OCCASIONS_MINUTES)

    @classmethod
    def from_minutes(cls, minutes: Sequence[float]) -> DocClock:
        """The clock of ``planning.occasions_minutes``."""
        return cls(tuple(timedelta(minutes=m) for m in minutes))

    @property
    def scale(self) -> float:
        """How compressed the times are: 1 as documented."""
        return self.occasions[-1] / timedelta(minutes=_OCCASIONS_MINUTES[-1])

    @property
    def limit(self) -> timedelta:
        """Age at which a doc that was asked often enough is closed without all its witnesses."""
        return self.occasions[-1]

    @property
    def recent(self) -> timedelta:
        """How near to a doc's last occasion a supplier must have answered anything to be reachable."""
        return _DAY * self.scale

    def witness_window(self, median_latency: timedelta | None, deadline: timedelta) -> timedelta:
        """How far an answer may lie from an occasion and still witness it.

        At least a minute, twice the supplier's median latency where that is more, at most its deadline.
        """
        slow = timedelta(0) if median_latency is None else 2 * median_latency
        window = max(_WITNESS * self.scale, slow)
        return max(min(window, deadline), _LEAST_WITNESS)

    @property
    def gap(self) -> timedelta:
        """The least time between the end of an occasion and the next run's: that of the first two."""
        return self.occasions[1]

    def next_occasion(self, first_at: datetime, begun: int, last_at: datetime, *, daily: bool) -> datetime:
        """When the next run may ask a doc.

        At the time of its next occasion, which may be over: then soon after the last, so that whoever runs
        late misses none, and one bad minute does not use up several.

        Args:
            first_at: when the first occasion began.
            begun: how many runs had one.
            last_at: when the last one ended.
            daily: it had occasions enough and is too old to close by them alone.
        """
        if begun < len(self.occasions):
            planned = first_at + self.occasions[begun]
        else:
            planned = first_at + self.limit + (begun - len(self.occasions) + 1) * self.recent
        return max(planned, last_at + (self.recent if daily else self.gap))


@dataclass(frozen=True, slots=True)
class CallAttempt:
    """One attempt at a call of a doc. ``run`` tells runs apart; ``occasion`` occasions within a run."""

    idx: int
    repeat: int
    fault: Fault
    started_at: datetime
    finished_at: datetime
    run: int | None = None
    occasion: int | None = None


@dataclass(frozen=True, slots=True)
class Occasion:
    """A run's attempts at a doc that stayed unanswered: when, the last fault, and whether it is witnessed."""

    started_at: datetime
    ended_at: datetime
    fault: Fault
    witnessed: bool
    run: int | None = None


class Witness:
    """When a supplier answered calls of any task, and how near an answer must be to an occasion."""

    def __init__(self, answered_at: Iterable[datetime], window: timedelta) -> None:
        self._at: Sequence[datetime] = sorted(answered_at)
        self._low, self._high = 0, len(self._at)
        self.window = window

    @classmethod
    def from_sorted(cls, answered_at: Sequence[datetime], low: int, high: int, window: timedelta) -> Witness:
        """The answers from place ``low`` to before ``high`` of ascending instants, which are not copied."""
        found = cls((), window)
        found._at, found._low, found._high = answered_at, low, high
        return found

    def saw(self, started_at: datetime, ended_at: datetime) -> bool:
        """Whether the supplier answered something around an occasion."""
        return self._any(started_at - self.window, ended_at + self.window)

    def near(self, at: datetime, within: timedelta) -> bool:
        """Whether the supplier answered something within a time of an instant, before or after."""
        return self._any(at - within, at + within)

    def _any(self, first: datetime, last: datetime) -> bool:
        place = bisect_left(self._at, first, self._low, self._high)
        return place < self._high and self._at[place] <= last


@dataclass(frozen=True, slots=True)
class DocOutcome:
    """What became of a doc in a round.

    ``at``: when its last attempt ended. ``fault``: the last one that was not ours; None where there is none.
    ``occasions``: those that stayed unanswered, in order, ours left out. ``late``: it was answered in a later
    run than the first that asked it. ``ours``: it is open by our own faults only, which count against
    nobody. ``unreachable``: its supplier answered nothing at all around the last occasion, for too long.
    ``next_at``: when it is asked again, if it is open. ``holds_until``: until when the state stands whatever
    is stored meanwhile of this supplier's other docs; None for ever.
    """

    state: DocState
    at: datetime
    fault: Fault | None = None
    occasions: tuple[Occasion, ...] = ()
    late: bool = False
    ours: bool = False
    unreachable: bool = False
    next_at: datetime | None = None
    holds_until: datetime | None = None

    @property
    def closed(self) -> bool:
        """Whether it is asked no more in its round."""
        return self.state is not DocState.OPEN

    @property
    def next_occasion(self) -> int:
        """Number of the occasion at which it is asked next, from 1; ours count for nothing."""
        return len(self.occasions) + 1

    @property
    def refused(self) -> bool:
        """Whether its request was refused: others decide whether that is the doc's fault."""
        return self.fault is not None and self.fault.row.closes is Closing.REFUSED

    @property
    def surely_refused(self) -> bool:
        """Whether it closed by refusals on as many occasions as those take, each with a witness.

        One that closed by its age, or by outages and a refusal at the end, says nothing of the doc.
        """
        if self.state is not DocState.FAILED or self.fault is None or not self.refused:
            return False
        refusals = [o for o in self.occasions if o.witnessed and o.fault.row.closes is Closing.REFUSED]
        return len(refusals) >= self.fault.row.occasions


def doc_outcome(
    attempts: Sequence[CallAttempt], calls: int, witness: Witness, clock: DocClock, now: datetime
) -> DocOutcome:
    """State of a doc from its supplier's attempts at it in one round, before peers are looked at.

    ``calls``: how many calls it takes. ``witness``: the supplier's answers to all its calls. A refused doc
    that is closed here as failed is void if :func:`is_void` says so.

    Raises:
        ValueError: there is no attempt.
    """
    if not attempts:
        raise ValueError("a doc without an attempt has no outcome: it was not asked")
    runs = _runs(attempts)
    answered: set[tuple[int, int]] = set()
    unanswered: list[Occasion] = []
    for run in runs:
        answered |= {(a.idx, a.repeat) for a in run if a.fault.answered}
        failed = [a for a in run if (a.idx, a.repeat) not in answered]
        theirs = [a for a in failed if a.fault.row.closes is not Closing.OPEN]
        if len(answered) == calls or not theirs:
            continue
        start, end = min(a.started_at for a in run), max(a.finished_at for a in run)
        last = max(theirs, key=lambda a: a.finished_at)
        unanswered.append(Occasion(start, end, last.fault, witness.saw(start, end), run[0].run))
    at = max(a.finished_at for a in attempts)
    if len(answered) == calls:
        last_run = max(runs, key=lambda run: max(a.finished_at for a in run))[0].run
        late = any(occasion.run != last_run for occasion in unanswered)
        fault = unanswered[-1].fault if unanswered else None
        return DocOutcome(DocState.SCORED, at, fault, tuple(unanswered), late=late)
    if not unanswered:
        return DocOutcome(DocState.OPEN, at, ours=True, next_at=at)
    return _unanswered(tuple(unanswered), at, witness, clock, now)


def _unanswered(
    occasions: tuple[Occasion, ...],
    at: datetime,
    witness: Witness,
    clock: DocClock,
    now: datetime,
) -> DocOutcome:
    first_at, last = occasions[0].started_at, occasions[-1]
    limit_at = first_at + clock.limit
    closing = _closing(occasions, limit_at, witness, clock, now)
    if closing is not None:
        return DocOutcome(DocState.FAILED, at, closing.fault, occasions)
    enough = len(occasions) >= last.fault.row.occasions
    old = now >= limit_at
    reached = witness.near(last.ended_at, clock.recent)
    # an answer that comes yet, to whatever question, may witness an occasion or show the supplier reachable
    may_be_witnessed = any(not o.witnessed and now <= o.ended_at + witness.window for o in occasions)
    may_be_reached = old and enough and not reached and now <= last.ended_at + clock.recent
    if may_be_witnessed or may_be_reached:
        holds_until: datetime | None = now
    else:
        # one bad run and no second one: the clock alone says nothing
        holds_until = None if old or not enough else limit_at
    return DocOutcome(
        DocState.OPEN,
        at,
        last.fault,
        occasions,
        unreachable=old and enough and not reached,
        next_at=_next_at(occasions, clock),
        holds_until=holds_until,
    )


def reopened(outcome: DocOutcome, clock: DocClock) -> DocOutcome:
    """A doc that closed by refusals, but whose form of request its supplier refuses everywhere.

    It is open: the refusal says how the supplier cannot be asked, and nothing of what it knows.
    """
    next_at = _next_at(outcome.occasions, clock)
    return replace(outcome, state=DocState.OPEN, next_at=next_at, holds_until=None)


def _next_at(occasions: tuple[Occasion, ...], clock: DocClock) -> datetime:
    first_at, last = occasions[0].started_at, occasions[-1]
    enough = len(occasions) >= last.fault.row.occasions
    return clock.next_occasion(
        first_at,
        len({occasion.run for occasion in occasions}),
        last.ended_at,
        daily=enough and last.ended_at >= first_at + clock.limit,
    )


def _closing(
    occasions: tuple[Occasion, ...], limit_at: datetime, witness: Witness, clock: DocClock, now: datetime
) -> Occasion | None:
    """The occasion that closed the doc as failed, if one did; what was sent afterwards does not open it."""
    witnessed = 0
    for place, occasion in enumerate(occasions, start=1):
        enough = occasion.fault.row.occasions
        witnessed += occasion.witnessed
        if witnessed >= enough:
            return occasion
        until = occasions[place].started_at if place < len(occasions) else now
        if until >= limit_at and place >= enough and witness.near(occasion.ended_at, clock.recent):
            return occasion
    return None


def _runs(attempts: Sequence[CallAttempt]) -> list[list[CallAttempt]]:
    """The attempts by occasion, in order; of earlier versions one occasion per run."""
    found: dict[tuple[int | None, int | None], list[CallAttempt]] = {}
    for attempt in sorted(attempts, key=lambda a: (a.finished_at, a.started_at)):
        found.setdefault((attempt.run, attempt.occasion), []).append(attempt)
    return sorted(found.values(), key=lambda run: min(a.started_at for a in run))


@dataclass(frozen=True, slots=True)
class PeerOutcome:
    """What became of the same prompt at one supplier of a service.

    ``group`` is its identity group or itself, ``owner`` who owns its stake, where a chain tells.
    ``scored_others``: the supplier has other docs of the task scored.
    """

    supplier: str
    group: str
    outcome: DocOutcome
    scored_others: bool
    owner: str | None = None


def is_void(
    peers: Iterable[PeerOutcome],
    asked: Iterable[tuple[str, str | None]] = (),
    unasked: Iterable[tuple[str, str | None]] = (),
) -> bool:
    """Whether a prompt is the fault of its doc: refused to suppliers of three units, answered to nobody.

    Suppliers of one group, or of one stake owner, are one unit: each of them can make itself many.

    Args:
        peers: those that answered it, or that closed it.
        asked: group and owner of each supplier that was asked it, whatever came of that.
        unasked: the same of who has other docs of the task scored and was never asked this one. Only one unit
            in ten may be such: what three units alone were asked so far they could else agree to refuse where
            they are wrong.

    Neither of the two is looked at further than it takes.
    """
    units: list[set[str]] = []
    for peer in peers:
        if peer.outcome.state is DocState.SCORED:
            return False
        if not (peer.outcome.surely_refused and peer.scored_others):
            continue
        unit = _unit(peer.group, peer.owner)
        apart = []
        for other in units:
            if unit.isdisjoint(other):
                apart.append(other)
            else:
                unit |= other
        units = [*apart, unit]
    if len(units) < VOID_UNITS:
        return False
    known, n_asked, n_unasked = set[str]().union(*units), len(units), 0
    for group, owner in asked:
        unit = _unit(group, owner)
        n_asked += known.isdisjoint(unit)
        known |= unit
    for group, owner in unasked:
        unit = _unit(group, owner)
        n_unasked += known.isdisjoint(unit)
        known |= unit
        if n_asked < VOID_TIMES_UNASKED * n_unasked:
            return False
    return True


def linked_units(placed: Mapping[str, tuple[str, str | None]]) -> list[list[str]]:
    """The units of suppliers by their group and owner: who shares one of these, also by way of others."""
    root: dict[str, str] = {}

    def find(label: str) -> str:
        while (above := root.setdefault(label, label)) != label:
            root[label] = label = root[above]
        return label

    for group, owner in placed.values():
        first, *more = _unit(group, owner)
        for other in more:
            root[find(other)] = find(first)
    units: dict[str, list[str]] = {}
    for supplier, (group, _) in placed.items():
        units.setdefault(find(f"group {group}"), []).append(supplier)
    return list(units.values())


def _unit(group: str, owner: str | None) -> set[str]:
    """What makes suppliers one unit: those that share any of it."""
    return {f"group {group}", *([] if owner is None else [f"owner {owner}"])}


def refused_shapes(calls: Iterable[tuple[str, Fault]]) -> frozenset[str]:
    """The request shapes that a supplier refuses everywhere and never answered.

    ``calls``: shape (API and names of parameters) and fault of each of its attempts, in any order. A shape
    that was met by any other fault besides, an outage say, is judged by its refusals alone.
    """
    refused: dict[str, bool] = {}
    for shape, fault in calls:
        if fault.answered:
            refused[shape] = False
        elif fault.row.closes is Closing.REFUSED:
            refused.setdefault(shape, True)
    return frozenset(shape for shape, everywhere in refused.items() if everywhere)


def median_of_sorted(ordered: Sequence[float]) -> timedelta | None:
    """Median of latencies in ascending order; None without any."""
    if not ordered:
        return None
    middle = len(ordered) // 2
    low, high = ordered[(len(ordered) - 1) // 2], ordered[middle]
    return timedelta(milliseconds=(low + high) / 2)


def own_faults_hold_up(ours: int, others: int) -> bool:
    """Whether more docs are held up by our own faults than a complete row may lack: 1 % of them, or one.

    ``others``: docs that are scored, failed or open.
    """
    return ours > max(1.0, (ours + others) / 100)
