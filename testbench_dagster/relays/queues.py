"""The supplier queues of a run: relays, limits, retries and canaries, and what suppliers behind a host share.

A supplier queue decides nothing about others; the order of service and the caps are the engine's.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Endpoint, Relay
from testbench_dagster.relays.circuit import Circuit, LanePatience
from testbench_dagster.relays.limits import AdaptiveLimit
from testbench_dagster.relays.money import Reservation
from testbench_dagster.relays.pace import Turn
from testbench_dagster.relays.report import Counts

Work = Sequence[tuple[Endpoint, Iterable[Relay]]]
#: Relays that suppliers answered before, by supplier key.
Canaries = Mapping[str, Sequence[Relay]]

#: Docs answered in the run of which so many are kept per supplier, drawn at random, to be asked again.
KEPT_CANARIES = 4
#: Canaries sent, one after the other, to find out whether docs may have their second occasion in the run.
AGAIN_CANARIES = 3
_COUNT_SLICE = 512
_STALLED_MEDIANS = 4  # a call that takes so many times the median of a supplier's answers has stalled


@dataclass(slots=True)
class Job:
    """A relay on its way: ``sent`` attempts of this run are behind it, ``failures`` of them cost a retry.

    ``probe``: it is sent while the circuit is open, which costs none. ``parked``: it waits for its turn after
    an attempt. ``drawn``: it is a canary of the pool. ``token_second``: where its tokens are counted, if its
    supplier has a pace of them. ``reserved`` is the money that is reserved for it while it is in flight.
    """

    relay: Relay
    sent: int = 0
    failures: int = 0
    probe: bool = False
    parked: bool = False
    drawn: bool = False
    token_second: int = 0
    reserved: Reservation | None = None

    @property
    def number(self) -> int:
        """The number of its next attempt."""
        return self.relay.attempt + self.sent

    def further(self, fault: Fault, retries: int) -> int:
        """Further attempts that its occasion has after a fault, ``retries`` at most."""
        first, later = fault.row.in_run
        return min(first if self.relay.occasion <= 1 else later, retries)

    def may_come_again(self, fault: Fault) -> bool:
        """Whether its doc may have a second occasion in the same run after a fault.

        A page that is not served to us is none to wait for.
        """
        page = self.relay.request["type"] == "get" and fault.row.denies_page
        return self.relay.occasion == 1 and fault.row.occasions == 2 and not page

    def again(self) -> Job:
        """Its relay at the doc's next occasion."""
        return Job(replace(self.relay, attempt=self.number, occasion=self.relay.occasion + 1))


class CanaryPool:
    """What a supplier answered before or in this run: a bounded sample, drawn from at random.

    Every answered relay has the same chance to be in it. Which one is the next to replace another is drawn
    ahead, so that all others cost nothing (algorithm L of K.-H. Li, ACM TOMS 20 (1994) 481).
    """

    __slots__ = ("_held", "_next", "_rng", "_seen", "_threshold")

    def __init__(self, before: Sequence[Relay], rng: random.Random) -> None:
        self._held = [replace(relay, canary=True) for relay in before]
        self._seen = len(self._held)
        self._rng = rng
        self._threshold = 1.0
        self._next = 0  # number of the relay that replaces another, once there are enough
        if self._seen >= KEPT_CANARIES:
            self._skip()

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, relay: Relay, next_number: int) -> None:
        """Take note of an answered relay."""
        self._seen += 1
        if self._seen < self._next or relay.request["type"] == "get":
            return  # pages are large, and not always served by who answers prompts
        canary = replace(relay, canary=True, attempt=next_number)
        if len(self._held) < KEPT_CANARIES:
            self._held.append(canary)
            if len(self._held) < KEPT_CANARIES:
                return
        else:
            self._held[self._rng.randrange(len(self._held))] = canary
        self._skip()

    def _skip(self) -> None:
        """Draw how many relays are passed over."""
        self._threshold *= (1.0 - self._rng.random()) ** (1.0 / KEPT_CANARIES)
        passed = math.log(1.0 - self._rng.random()) / math.log1p(-min(self._threshold, 1.0 - 1e-12))
        self._next = self._seen + 1 + int(passed)

    def draw(self) -> Job:
        """A canary to send now; the next one of its call has the next number."""
        place = self._rng.randrange(len(self._held))
        relay = self._held[place]
        self._held[place] = replace(relay, attempt=relay.attempt + 1)
        return Job(relay, drawn=True)


class Host:
    """What suppliers behind one host share: a limit on what they have in flight together.

    It gives way to what the host itself says (refused connections, 429), not to one slow supplier on it.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = AdaptiveLimit(ceiling, ceiling)
        self.in_flight = 0
        self.sends = 0
        self.parked: deque[SupplierQueue] = deque()

    @property
    def capacity(self) -> int:
        """How many more may be in flight."""
        return self.limit.value - self.in_flight

    def record_outcome(self, fault: Fault, now: float) -> None:
        """Learn from an attempt of any of its suppliers."""
        if fault.answered:
            self.limit.succeeded()
        elif fault.row.slows_host:
            self.limit.congested(now)


class SupplierQueue:
    """One supplier in a run: its lane.

    ``due`` are relays to be sent before new ones: retries whose wait is over, canaries, second occasions.
    ``again`` are docs whose second occasion may follow in this run, once all others had their first. ``held``
    waits for its turn at the supplier's pace, or has it: then there is a ``ticket``.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        relays: list[Iterable[Relay]],
        host: Host | None = None,
        *,
        canaries: Sequence[Relay] = (),
        patience: LanePatience,
        rng: random.Random,
    ) -> None:
        self.endpoint = endpoint
        self.host = host
        self.limit = AdaptiveLimit(endpoint.limits.max_in_flight, endpoint.limits.start_in_flight)
        self.circuit = Circuit(patience, proven=bool(canaries))
        self.canaries = CanaryPool(canaries, rng)
        self.counts = Counts()
        #: Whose requests in flight are beside its own: the host's, or its own where it has one to itself.
        self.line: Host | SupplierQueue = self if host is None else host
        self.in_flight = 0
        self.sends = 0
        self.flying: dict[int, tuple[Job, float]] = {}  # what is in flight, and since when
        self.queued = False  # stands in the ready queue, or among the parked (of the run, or of its host)
        self.asking = False  # waits to hear from the quota
        self.short_of_money = False  # stopped, because what it can cost at most was not left
        self.exhausted = False
        self.stopped: Literal["unsent", "abandoned"] | None = None
        self.claimed: Fault | None = None  # what it says of itself, for which it was stopped
        self.remedy = ""  # what to do about its last attempt without an answer
        self.finished = False
        self.works = True  # not waited for
        self.held: Job | None = None
        self.ticket: Turn | None = None
        self.in_line_since: float | None = None  # it waits for its turn at the supplier's pace, or for money
        self.due: deque[Job] = deque()
        self.waiting: dict[int, tuple[Job, asyncio.TimerHandle]] = {}
        self.pause: asyncio.TimerHandle | None = None
        self.again: list[Job] = []
        self.again_from = float("-inf")  # when the last of these ended its first occasion
        self.again_at = float("-inf")  # not before then is anything done about them
        self.again_sure = False  # a canary sent since was answered
        self.again_left = AGAIN_CANARIES
        self.again_timer: asyncio.TimerHandle | None = None
        self._sources = relays
        self._relays: Iterator[Relay] = chain.from_iterable(relays)
        self._next: Relay | None = None  # pulled, to see whether there is one
        self._pulled = 0
        self._probed_new = False

    def next_job(self) -> Job | None:
        """Return what is to be sent now; None when the iterator is at its end."""
        if self.held is not None:
            job, self.held = self.held, None
            job.probe |= self.circuit.open and not job.relay.canary
            return job
        if self.circuit.opened_at is not None:
            return self._probe()
        if self.due:
            return self.due.popleft()
        return self._new()

    def _probe(self) -> Job | None:
        """A canary, else the next doc, by turns a new one and one that was asked before.

        Neither one that brings the supplier down, nor a supplier that refuses each doc once, is then in the
        way.
        """
        if self.canaries:
            return self.canaries.draw() if self.has_work else None
        again = bool(self.due) and (self._probed_new or not self.has_new)
        job = self.due.popleft() if again else self._new()
        self._probed_new = not again
        if job is not None:
            job.probe = True
        return job

    def _new(self) -> Job | None:
        relay, self._next = self._next, None
        if relay is None:
            relay = self._pull()
        return None if relay is None else Job(relay)

    def _pull(self) -> Relay | None:
        if self.exhausted:
            return None
        relay = next(self._relays, None)
        if relay is None:
            self.exhausted = True
            return None
        self._pulled += 1
        return relay

    @property
    def has_new(self) -> bool:
        """Whether there are relays that were not asked yet in this run."""
        if self._next is not None:
            return True
        if self.exhausted:
            return False
        total = self._total
        if total is not None and total > self._pulled:
            return True
        self._next = self._pull()
        return self._next is not None

    @property
    def has_work(self) -> bool:
        """Whether something is left to be asked."""
        return bool(self.held or self.due or self.waiting or self.again) or self.has_new

    def stalled(self, now: float, least_s: float) -> tuple[Relay, ...]:
        """What is in flight for far longer than its answers take, where it answered anything."""
        median_ms = self.counts.p50_ms
        if median_ms is None:
            return ()
        long_s = max(least_s, _STALLED_MEDIANS * median_ms / 1000)
        return tuple(
            job.relay for job, since in self.flying.values() if now - since >= long_s and not job.relay.canary
        )

    @property
    def relays_left(self) -> int | None:
        """How many relays may follow, retries aside; None where that is not known."""
        total = self._total
        if total is None:
            return None
        again = len(self.due) + len(self.waiting) + len(self.again) + (self.held is not None)
        return total - self._pulled + (self._next is not None) + again

    def may_send(self, now: float) -> bool:
        """Whether the supplier's own state allows a send now."""
        if self.stopped or self.asking or self.in_line_since is not None:
            return False
        if self.circuit.opened_at is not None:
            if self.in_flight or now < self.circuit.resumes_at:
                return False
            return self.has_work if self.canaries else bool(self.held or self.due) or self.has_new
        if self.in_flight >= self.limit.value:
            return False
        if self.due or self.held is not None:
            return True
        # no new relay while as many wait for a retry as may be in flight: bounds memory, spares the supplier
        return not self.exhausted and (not self.waiting or len(self.waiting) < max(2, self.limit.value))

    @property
    def first_occasions_done(self) -> bool:
        """Whether nothing is left but second occasions."""
        if self.in_flight or self.due or self.waiting or self.held is not None:
            return False
        return self.exhausted and self._next is None if not self.circuit.open else not self.has_new

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do for this supplier queue."""
        if self.in_flight:
            return False
        return self.stopped is not None or (self.first_occasions_done and not self.again)

    @property
    def resting(self) -> bool:
        """Whether nothing can be sent before a relay's wait for its retry is over."""
        return bool(self.waiting) and not (
            self.in_flight or self.due or self.queued or self.asking or self.stopped or self.held
        )

    @property
    def _total(self) -> int | None:
        """How many relays there are, where that is known."""
        if all(isinstance(source, Sized) for source in self._sources):
            return sum(len(source) for source in self._sources if isinstance(source, Sized))
        return None

    async def count_rest(self) -> int:
        """Count the relays never sent, letting the loop breathe."""
        rest = (self._next is not None) + (self.held is not None)
        if self.exhausted:
            return rest
        total = self._total
        if total is not None:
            return rest + total - self._pulled
        for _ in self._relays:
            rest += 1
            if rest % _COUNT_SLICE == 0:
                await asyncio.sleep(0)
        return rest


def supplier_queues(
    work: Work, canaries: Canaries, patience: LanePatience, rng: random.Random
) -> list[SupplierQueue]:
    """Make one supplier queue per supplier; several entries of one supplier follow each other in it."""
    sources: dict[str, tuple[Endpoint, list[Iterable[Relay]]]] = {}
    for endpoint, relays in work:
        known, parts = sources.setdefault(endpoint.supplier, (endpoint, []))
        if known != endpoint:
            raise ValueError(f"supplier {endpoint.supplier!r} appears with two different endpoints")
        parts.append(relays)
    hosts: dict[str, Host] = {}
    queues = []
    for endpoint, parts in sources.values():
        host = None
        if endpoint.host is not None:
            host = hosts.setdefault(endpoint.host, Host(endpoint.limits.max_per_host))
        known_answers = canaries.get(endpoint.supplier, ())
        queues.append(
            SupplierQueue(endpoint, parts, host, canaries=known_answers, patience=patience, rng=rng)
        )
    return queues
