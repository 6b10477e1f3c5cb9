"""How long a run bears with a supplier that does not answer: pauses, probes, and when it moves on without it.

Plain state machines without clock or loop: the caller passes the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from testbench_dagster.core.faults import Closing, Fault, Pause


@dataclass(frozen=True, slots=True)
class LanePatience:
    """The times of a supplier's turn in a run, in seconds, and how often it is tried.

    ``retries_s``: before the first, second … further attempt at a doc. ``pauses_s``: before the first,
    second … probe while the circuit is open. ``trip``: so many unanswered in a row open it. ``probes``: so
    many unanswered ones end the turn of a supplier that speaks of our key or quota. ``silence_s``: longest
    time with the circuit open since its last answer; ``alone_s``: the same once no other supplier works any
    more; ``total_s``: longest waiting in all. ``again_s``: least time between two occasions of a doc in
    one run. ``stalled_s``: a call that was in flight for less has not stalled when the run is told to stop.
    """

    retries_s: tuple[float, ...] = (2.0, 8.0, 32.0, 32.0, 32.0)
    pauses_s: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 60.0)
    trip: int = 5
    probes: int = 3
    silence_s: float = 600.0
    alone_s: float = 60.0
    total_s: float = 3600.0
    again_s: float = 20.0
    stalled_s: float = 10.0

    def scaled(self, factor: float) -> LanePatience:
        """The same with all times multiplied, as ``planning.occasions_minutes`` compresses the clock."""
        return LanePatience(
            tuple(s * factor for s in self.retries_s),
            tuple(s * factor for s in self.pauses_s),
            self.trip,
            self.probes,
            self.silence_s * factor,
            self.alone_s * factor,
            self.total_s * factor,
            self.again_s * factor,
            self.stalled_s * factor,
        )

    def retry_s(self, failures: int, rng: random.Random) -> float:
        """The wait before the ``failures``-th further attempt (from 1), drawn from its upper half.

        So relays that failed together do not return together.
        """
        return self.retries_s[min(max(failures, 1), len(self.retries_s)) - 1] * rng.uniform(0.5, 1.0)

    def pause_s(self, pauses: int) -> float:
        """The wait before the next probe, after so many pauses since the last answer."""
        return self.pauses_s[min(pauses, len(self.pauses_s) - 1)]


PATIENCE = LanePatience()
_ROUNDING_S = 1e-6  # a probe that is due exactly when patience ends is not sent again and again


class Circuit:
    """One supplier's circuit: whether relays flow, when the next probe is due, and when to go without it.

    While it is open one probe at a time is sent, not before ``resumes_at``. ``waited_s`` is the time in all
    with the circuit open, or in which all relays waited for their retries (:meth:`idle`). :meth:`unanswered`
    says when to leave.
    """

    __slots__ = (
        "_idle_from",
        "_limited",
        "_only_refusals",
        "_patience",
        "_pauses",
        "_probes",
        "_proven",
        "_row",
        "_row_ended",
        "_stops",
        "answered_once",
        "fault",
        "opened_at",
        "probing",
        "resumes_at",
        "told_until",
        "waited_s",
    )

    def __init__(self, patience: LanePatience, *, proven: bool = False) -> None:
        """``proven``: the supplier has answered such requests before."""
        self._patience = patience
        self._proven = proven
        self._row = 0  # unanswered in a row, those of one burst as one
        self._row_ended = -math.inf  # when the last of these that counted came back
        self._limited = 0  # of these, how many asked for time
        self._stops = 0  # faults of our own in a row
        self._only_refusals = True  # nothing but refusals of the request so far
        self._pauses = 0  # since the circuit opened
        self._probes = 0  # unanswered, since key or quota were refused
        self._idle_from: float | None = None
        self.waited_s = 0.0
        self.answered_once = False
        self.fault: Fault | None = None  # of the last attempt that brought no answer
        self.opened_at: float | None = None
        self.probing = False  # it refused key or quota: whether it does so for all is found out at once
        self.resumes_at = -math.inf
        self.told_until = -math.inf  # it asked not to be asked before

    @property
    def open(self) -> bool:
        """Whether nothing but probes may be sent."""
        return self.opened_at is not None

    def answered(self, now: float) -> None:
        """Note an answer: relays flow, and all counts but that of all waiting start from scratch."""
        self.answered_once = self._proven = True
        self._row = self._limited = self._stops = 0
        self._row_ended = -math.inf
        if self.opened_at is not None:
            self.waited_s += now - self.opened_at
            self.opened_at = None
            self.probing = False
            self._pauses = self._probes = 0
            self.resumes_at = self.told_until = -math.inf

    def idle(self, now: float, resting: bool) -> None:
        """Note whether nothing can be sent although the circuit is closed: all relays wait for a retry."""
        if resting and self._idle_from is None and self.opened_at is None:
            self._idle_from = now
        elif not resting and self._idle_from is not None:
            self.waited_s += now - self._idle_from
            self._idle_from = None

    def excuse(self, since: float, now: float) -> None:
        """Take off what was spent since then waiting for a turn at the supplier's pace: that is no outage."""
        if self.opened_at is not None:
            self.opened_at += now - max(since, self.opened_at)

    def unanswered(
        self, fault: Fault, began: float, now: float, told_s: float | None, *, alone: bool
    ) -> bool:
        """Note an attempt without an answer by its start and end; return whether to leave the supplier.

        Attempts that were in flight together count once: a supplier that restarts fails them all without
        being gone. What counts as available, such as a filter's refusal, opens nothing, and closes nothing
        either: the supplier was there, and only what it answers shows that it works. ``told_s`` is the wait
        it asked for, ``alone`` whether no other supplier works any more.
        """
        self.fault = fault
        row = fault.row
        if row.in_order and self._proven:
            self.answered(now)
            return False
        if row.pause is Pause.STOP:
            self._stops += 1
            over = self.opened_at is not None and self.left_s(now, alone=alone) <= 0
            return over or self._stops >= self._patience.trip
        self._stops = 0
        if self.waited_s >= self._patience.total_s:
            return True
        self._only_refusals &= row.closes is Closing.REFUSED
        if row.available and self.opened_at is None:
            return False
        if row.paces:
            self._limited += 1
        if began >= self._row_ended:
            self._row += 1
            self._row_ended = now
        if self.opened_at is not None:
            # what was in flight when it opened says nothing new, unless that key or quota are refused
            is_probe = began >= self.opened_at
            if not is_probe and (self.probing or row.pause is not Pause.PROBE):
                return False
            return self._probed(row.pause, now, told_s, counts=is_probe, alone=alone)
        if row.pause is Pause.PROBE:
            self._open(now)
            self.probing = True
            return self._pause(now, 0.0, told_s, alone=alone)
        told_twice = self._limited > 1 and bool(told_s)
        told_long = told_s is not None and told_s > self._patience.alone_s
        if self._row < self._patience.trip and not told_twice and not told_long:
            return False
        if self._row < self._patience.trip:
            self._open(now)
            return self._pause(now, 0.0, told_s, alone=alone)
        if self._only_refusals and not self._proven:
            return True  # it refuses the request as such: asking again would not change that
        self._open(now)
        return self._pause(now, self._next_pause_s(), told_s, alone=alone)

    def left_s(self, now: float, *, alone: bool) -> float:
        """How long the circuit may stay open from now on, in seconds; 0 or less: no longer."""
        since = 0.0 if self.opened_at is None else now - self.opened_at
        left = min(self._patience.silence_s, self._patience.total_s - self.waited_s) - since
        if alone and not (self.answered_once and self.fault is not None and self.fault.row.paces):
            left = min(left, self._patience.alone_s - since)
        return 0.0 if abs(left) < _ROUNDING_S else left

    def hurry(self, now: float, *, alone: bool) -> bool:
        """Bring the next probe forward to where patience ends; return whether that is over, or too early."""
        left = self.left_s(now, alone=alone)
        if left <= 0 or now + left < self.told_until:
            return True
        self.resumes_at = min(self.resumes_at, now + left)
        return False

    def _probed(self, pause: Pause, now: float, told_s: float | None, *, counts: bool, alone: bool) -> bool:
        """A probe came back without an answer."""
        if pause is Pause.PROBE and not self.probing:
            self.probing = True
            self._probes = 0
        elif self.probing and counts:
            self._probes += 1
            if self._probes >= self._patience.probes:
                return True
        at_once = pause is Pause.PROBE
        return self._pause(now, 0.0 if at_once else self._next_pause_s(), told_s, alone=alone)

    def _open(self, now: float) -> None:
        self.opened_at = now
        self._pauses = self._probes = 0
        self.idle(now, False)

    def _next_pause_s(self) -> float:
        self._pauses += 1
        return self._patience.pause_s(self._pauses - 1)

    def _pause(self, now: float, wait_s: float, told_s: float | None, *, alone: bool) -> bool:
        """Wait before the next probe; return whether patience does not last as long."""
        left = self.left_s(now, alone=alone)
        if left <= 0 or (told_s is not None and told_s > left):
            return True
        self.told_until = -math.inf if told_s is None else now + told_s
        self.resumes_at = max(now + min(wait_s, left), self.told_until)
        return False

    def finish(self, now: float) -> None:
        """Count what was waited up to the end of the supplier's turn."""
        self.idle(now, False)
        if self.opened_at is not None:
            self.waited_s += now - self.opened_at
            self.opened_at = None
