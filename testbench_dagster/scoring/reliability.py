"""What attempts say of a supplier's reliability: pure functions of stored attempts, whatever they were about.

Three numbers, each of attempts or calls, never of docs. Which attempts count in the first is the column
``available`` of the fault table. The other two leave out what neither the supplier nor the way to it answers
for: our own faults, budgets, sessions, gateways and chain nodes.

* ``availability``: the mean over minutes of the share of attempts answered. Outages come in bursts, and a
  busy minute has hundreds of attempts: counted one by one a minute's restart would weigh as much as a day.
* ``first_attempt_success``: calls whose first attempt was answered, of the calls asked. That our key or quota
  is refused, or the request, is the supplier's word: it is no fault of ours where the same call is answered
  later in the run. Else who says so first, and computes meanwhile, would seem to answer everything at once.
* latencies: of the attempt that answered a call, whichever it was. An unanswered call stands at the deadline,
  so that who drops what takes long is not the faster for it; also one that is refused while others of the
  task are answered in the same run.

numpy is imported on use, as the code location reaches this module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from math import fsum
from typing import Protocol

from testbench_dagster.core.faults import Closing, Fault, Owner

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
#: A minute as :meth:`Minutes.packed` writes it: its number since 1970, attempts answered, attempts counted.
_PACKED = [("minute", "<i4"), ("answered", "<u2"), ("counted", "<u2")]
_MOST = 0xFFFF  # what a count holds; a minute of more takes several records, which add up
_ON_THE_WAY = frozenset({Owner.NONE, Owner.SUPPLIER, Owner.NETWORK})
#: Said by the supplier of us or of our request; it is believed while nothing shows the contrary.
_CLAIMS = frozenset(f for f in Fault if f.owner is Owner.CLIENT)
_REFUSALS = frozenset(f for f in Fault if f.row.closes is Closing.REFUSED and not f.row.in_order)


class Ended(Protocol):
    """How and when an attempt ended."""

    @property
    def fault(self) -> str:
        """Name of the fault."""
        ...

    @property
    def finished_at(self) -> datetime:
        """When it ended, timezone-aware."""
        ...


class AtCall(Ended, Protocol):
    """An attempt at one of the calls of a prompt."""

    @property
    def prompt_id(self) -> str:
        """The prompt."""
        ...

    @property
    def round(self) -> int:
        """How often its sequence was asked, from 1."""
        ...

    @property
    def idx(self) -> int:
        """Which request of the prompt, from 0."""
        ...

    @property
    def repeat(self) -> int:
        """Which sample of the request, from 0."""
        ...

    @property
    def attempt(self) -> int:
        """Its number among those at the call, from 1; 0 where its lease was lost."""
        ...

    @property
    def latency_ms(self) -> float:
        """How long it took, in milliseconds."""
        ...

    @property
    def lease(self) -> int | None:
        """Tells the runs apart that made attempts; None of early versions."""
        ...


class Minutes:
    """Attempts per minute: those answered, and those that count in ``availability``."""

    __slots__ = ("_counts",)

    def __init__(self, attempts: Iterable[Ended] = ()) -> None:
        self._counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for attempt in attempts:
            self.add(attempt)

    def add(self, attempt: Ended) -> None:
        """Count an attempt in the minute in which it ended."""
        available = Fault(attempt.fault).row.available
        if available is not None:
            counts = self._counts[(attempt.finished_at - _EPOCH) // _MINUTE]
            counts[0] += available
            counts[1] += 1

    def packed(self) -> bytes:
        """The counts as bytes, eight a minute, for :func:`availability`; those of several parts add up.

        Raises:
            OverflowError: a date thousands of years away.
        """
        made = []
        for minute, (answered, counted) in sorted(self._counts.items()):
            while counted:
                some, all_ = min(answered, _MOST), min(counted, _MOST)
                made += [minute.to_bytes(4, "little", signed=True)]
                made += [some.to_bytes(2, "little"), all_.to_bytes(2, "little")]
                answered, counted = answered - some, counted - all_
        return b"".join(made)


def availability(parts: Iterable[bytes]) -> float | None:
    """Mean over minutes of the share of attempts answered, 0 to 1; None where no attempt counts.

    ``parts`` are what :meth:`Minutes.packed` made of the attempts, each of them in one part.
    """
    import numpy as np

    rows = np.frombuffer(b"".join(parts), dtype=_PACKED)
    if not rows.size:
        return None
    _, place = np.unique(rows["minute"], return_inverse=True)
    shares = np.bincount(place, rows["answered"]) / np.bincount(place, rows["counted"])
    return fsum(shares.tolist()) / shares.size


def share_of_minutes(minutes: Iterable[tuple[int, int, int]]) -> float:
    """The same of one or more minutes: attempts answered, attempts counted, and in how many minutes so."""
    told = list(minutes)
    shares = chain.from_iterable(repeat(answered / counted, n) for answered, counted, n in told)
    return fsum(shares) / sum(n for _, _, n in told)


@dataclass(frozen=True, slots=True)
class Calls:
    """What attempts say of the calls they were made at.

    ``asked``: calls whose first attempt is known and says something of the supplier; ``at_once``: those it
    answered. ``latencies_ms`` are those of the calls asked, ascending.
    """

    asked: int = 0
    at_once: int = 0
    latencies_ms: tuple[float, ...] = ()


#: Those of a supplier that was asked nothing.
NO_CALLS = Calls()


def calls_of(attempts: Iterable[AtCall], deadline_ms: float) -> Calls:
    """Look at the attempts at a task's calls, in any order; unanswered calls stand at ``deadline_ms``.

    Of a call whose first attempts are not among them it is not known whether it was answered at once.
    """
    by_call: dict[tuple[str, int, int, int], list[AtCall]] = defaultdict(list)
    for attempt in attempts:
        by_call[attempt.prompt_id, attempt.round, attempt.idx, attempt.repeat].append(attempt)
    answering = {run for a in chain(*by_call.values()) if (run := a.lease) is not None and _answers(a)}
    asked = at_once = 0
    latencies = []
    for of_call in by_call.values():
        of_call.sort(key=lambda a: (a.attempt, a.finished_at, a.latency_ms, a.fault))
        runs = {a.lease for a in of_call if a.lease is not None and _answers(a)}
        telling = [a for a in of_call if _tells(Fault(a.fault), a.lease in runs)]
        if not telling:
            if any(Fault(a.fault) in _REFUSALS and a.lease in answering for a in of_call):
                latencies.append(deadline_ms)
            continue
        if any(a.attempt == 1 for a in of_call):
            asked += 1
            at_once += Fault(telling[0].fault).answered
        answers = [a.latency_ms for a in telling if Fault(a.fault).answered]
        latencies.append(answers[-1] if answers else deadline_ms)
    return Calls(asked, at_once, tuple(sorted(latencies)))


def _answers(attempt: AtCall) -> bool:
    return Fault(attempt.fault).answered


def _tells(fault: Fault, answered_in_run: bool) -> bool:
    """Whether an attempt says something of the supplier; the same call may be answered in the same run."""
    return fault.owner in _ON_THE_WAY or (answered_in_run and fault in _CLAIMS)


def first_attempt_success(counts: Iterable[tuple[int, int]]) -> float | None:
    """Share of calls answered at once, 0 to 1, of several (asked, answered at once); None without a call."""
    asked = at_once = 0
    for some, answered in counts:
        asked, at_once = asked + some, at_once + answered
    return at_once / asked if asked else None
