"""The supplier queues of a run: relays, limits and retries, and what suppliers behind one host share.

A supplier queue decides nothing about others; the order of service and the caps are the engine's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Endpoint, Relay
from testbench_dagster.relays.limits import AdaptiveLimit, CircuitBreaker
from testbench_dagster.relays.report import Counts

Work = Sequence[tuple[Endpoint, Iterable[Relay]]]

_COUNT_SLICE = 512


@dataclass(slots=True)
class Job:
    """A relay on its way: ``failures`` attempts of this run are behind it."""

    relay: Relay
    failures: int = 0


class Host:
    """What suppliers behind one host share: a limit on what they have in flight together.

    It gives way to what the host itself says (refused connections, 429), not to one slow supplier on it.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = AdaptiveLimit(ceiling, ceiling)
        self.in_flight = 0
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
    """One supplier in a run."""

    def __init__(self, endpoint: Endpoint, relays: list[Iterable[Relay]], host: Host | None = None) -> None:
        self.endpoint = endpoint
        self.host = host
        self.limit = AdaptiveLimit(endpoint.limits.max_in_flight, endpoint.limits.start_in_flight)
        self.breaker = CircuitBreaker()
        self.counts = Counts()
        self.in_flight = 0
        self.queued = False  # stands in the ready queue, or among the parked (of the run, or of its host)
        self.asking = False  # waits to hear from the quota
        self.exhausted = False
        self.stopped: Literal["unsent", "abandoned"] | None = None
        self.finished = False
        self.due: deque[Job] = deque()  # retries whose wait is over
        self.waiting: dict[int, tuple[Job, asyncio.TimerHandle]] = {}
        self._sources = relays
        self._relays: Iterator[Relay] = chain.from_iterable(relays)
        self._pulled = 0

    def next_job(self) -> Job | None:
        """Return a due retry or else the next relay; None when the iterator is at its end."""
        if self.due:
            return self.due.popleft()
        if self.exhausted:
            return None
        relay = next(self._relays, None)
        if relay is None:
            self.exhausted = True
            return None
        self._pulled += 1
        return Job(relay)

    def may_send(self, now: float) -> bool:
        """Whether the supplier's own state allows a send now."""
        if self.stopped or self.asking:
            return False
        if self.in_flight >= self.limit.value or now < self.breaker.paused_until:
            return False
        if self.due:
            return True
        # no new relay while as many wait for a retry as may be in flight: bounds memory, spares the supplier
        return not self.exhausted and len(self.waiting) < max(2, self.limit.value)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do for this supplier queue."""
        if self.in_flight:
            return False
        return self.stopped is not None or (self.exhausted and not self.due and not self.waiting)

    async def count_rest(self) -> int:
        """Count the relays never pulled, letting the loop breathe."""
        if self.exhausted:
            return 0
        if all(isinstance(source, Sized) for source in self._sources):
            return sum(len(source) for source in self._sources if isinstance(source, Sized)) - self._pulled
        rest = 0
        for _ in self._relays:
            rest += 1
            if rest % _COUNT_SLICE == 0:
                await asyncio.sleep(0)
        return rest


def supplier_queues(work: Work) -> list[SupplierQueue]:
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
        queues.append(SupplierQueue(endpoint, parts, host))
    return queues
