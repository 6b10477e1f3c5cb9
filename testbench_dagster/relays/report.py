"""What a relay run did, counted in constant memory per supplier."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Relay

#: Suppliers that a glimpse of a run names as waited for.
MOST_WAITS = 5
_BUCKETS_PER_E_FOLD = 50  # 2 % wide buckets: percentiles are right within 1 %


class LatencyHistogram:
    """Logarithmic histogram of latencies in milliseconds."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, ms: float) -> None:
        """Count one latency."""
        self._counts[round(math.log(max(ms, 1e-3)) * _BUCKETS_PER_E_FOLD)] += 1
        self._total += 1

    def merge(self, other: LatencyHistogram) -> None:
        """Add the counts of another histogram."""
        self._counts.update(other._counts)
        self._total += other._total

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile in milliseconds, within 1 %, or None when nothing was counted."""
        rank = max(1, math.ceil(q * self._total))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return math.exp(bucket / _BUCKETS_PER_E_FOLD)
        return None


@dataclass(slots=True)
class Counts:
    """Counts of one supplier, or of all.

    ``sent`` counts attempts, further ones and canaries included; ``canaries`` those that asked again what was
    answered before (of these ``canaries_answered``), ``faults`` what all others came to. An attempt cut
    short by the end of the run is in none. Relays split into ``final`` (of these ``answered``; the others
    were asked in vain at the last occasion their fault takes), ``still_due`` (asked, not answered),
    ``unsent`` (a cap was reached first) and ``abandoned`` (the supplier was left first).
    """

    sent: int = 0
    canaries: int = 0
    answered: int = 0
    final: int = 0
    still_due: int = 0
    unsent: int = 0
    abandoned: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram, repr=False)
    canaries_answered: int = 0

    @property
    def reached(self) -> bool:
        """Whether the supplier answered anything at all."""
        return self.answered + self.canaries_answered > 0

    @property
    def relays(self) -> int:
        """All relays there were, canaries aside."""
        return self.final + self.still_due + self.unsent + self.abandoned

    @property
    def p50_ms(self) -> float | None:
        """Median latency of answers, milliseconds."""
        return self.latency.quantile(0.5)

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of the latency of answers, milliseconds."""
        return self.latency.quantile(0.95)

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        self.sent += other.sent
        self.canaries += other.canaries
        self.canaries_answered += other.canaries_answered
        self.answered += other.answered
        self.final += other.final
        self.still_due += other.still_due
        self.unsent += other.unsent
        self.abandoned += other.abandoned
        self.faults.update(other.faults)
        self.latency.merge(other.latency)


class LaneEnding(StrEnum):
    """How a supplier's turn in a run ended."""

    #: All its relays had their attempts.
    DONE = "done"
    #: A cap was reached first, the run was interrupted, or something of ours stood in the way.
    CAPPED = "capped"
    #: It was left, because it did not answer.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """The end of a supplier's turn: when, how, its last fault (None: it answered all), how long it was
    waited for in all, in seconds, and what to do about that fault where its attempt tells.

    ``stalled``: docs that it was asked and had not answered when the run was told to stop, although it had
    taken far longer than for others by then.
    """

    ended_at: datetime
    end: LaneEnding
    fault: Fault | None
    waited_s: float
    remedy: str = ""
    stalled: tuple[Relay, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a run: totals, and the same per supplier key; ``seconds`` is wall time.

    ``lanes``: how each supplier's turn ended. ``lost``: the run ended early because this process lost its
    heartbeat, ``interrupted``: because it was told to; what it did not send is ``unsent``. ``out_of_money``
    are suppliers whose turn the budget of money ended: it left less than their next relay can cost.
    """

    seconds: float
    total: Counts
    suppliers: dict[str, Counts]
    lost: bool = False
    lanes: dict[str, LaneEnd] = field(default_factory=dict)
    interrupted: bool = False
    out_of_money: tuple[str, ...] = ()

    @property
    def relays_per_s(self) -> float:
        """Attempts per second of wall time."""
        return self.total.sent / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LaneWait:
    """That a supplier is waited for: its last fault, and when it is asked next."""

    supplier: str
    fault: Fault
    until: datetime


@dataclass(frozen=True, slots=True)
class LanePace:
    """That suppliers are asked at one pace (in words), and when they may be done at it, if that is known.

    ``account`` tells it from others.
    """

    account: str
    suppliers: tuple[str, ...]
    words: str
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A glimpse of a running engine: attempts done, relays final, in flight, and waiting for a retry.

    ``waits`` are suppliers that are waited for, :data:`MOST_WAITS` at most, those asked next first;
    ``n_waits`` says how many there are, ``working`` how many suppliers have relays left and are not.
    ``paces`` are those at which some that are not done are asked.
    """

    sent: int
    final: int
    in_flight: int
    waiting: int
    seconds: float
    waits: tuple[LaneWait, ...] = ()
    n_waits: int = 0
    working: int = 0
    paces: tuple[LanePace, ...] = ()
