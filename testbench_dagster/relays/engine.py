"""Relays many prompts to many suppliers at once, within hard caps, fairly, in memory that does not grow.

One scheduler, up to ``max_in_flight`` workers. Each supplier has a *supplier queue*: its iterator of relays,
its adaptive limit and its retries; suppliers behind one host share a limit besides. Those that may send stand
in a ready queue and are served in turn, one relay each; a supplier queue leaves the queue when it may not
send and comes back with the event that changes that. A worker holds its slot from the send until the sink
took the attempt; waiting for a retry holds none.

A supplier that does not answer is waited for, and left in time (:mod:`.circuit`); docs whose faults take two
occasions get the second one at the end of its turn, if it answers others. A turn that has ended is told to
``on_lane_end``, so that nobody need wait for the slowest.

Everything here runs in one event loop and without awaiting between a check and what depends on it, which
is what makes the caps hard. What a quota has to ask a store for is asked in a thread meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.faults import Fault, Pause
from testbench_dagster.core.quota import FixedQuota, Quota, QuotaDecision
from testbench_dagster.core.relay import Attempt, Relay, Transport
from testbench_dagster.core.remedies import remedy_of
from testbench_dagster.core.text import escaped
from testbench_dagster.relays.circuit import PATIENCE, LanePatience
from testbench_dagster.relays.loops import run_to_end
from testbench_dagster.relays.money import Decision, MoneyQuota
from testbench_dagster.relays.pace import Pacing
from testbench_dagster.relays.pacer import Pacer
from testbench_dagster.relays.queues import Canaries, Host, Job, SupplierQueue, Work, supplier_queues
from testbench_dagster.relays.report import (
    MOST_WAITS,
    Counts,
    LaneEnd,
    LaneEnding,
    LaneWait,
    Progress,
    Report,
)

#: Takes one finished attempt: ``sink(relay, attempt_number, attempt)``. An awaitable it returns is awaited
#: before the slot is free again (back-pressure); an error it raises stops the run.
Sink = Callable[[Relay, int, Attempt], Awaitable[None] | None]

PROGRESS_INTERVAL_S = 0.25
#: This share of the slots is open to every supplier queue; the rest only to those below their fair share.
_OPEN_SHARE = 0.75
_HEART_POLL_S = 1.0
_STOP_POLL_S = 0.1
_TICK_S = 1.0
#: How long calls in flight may still bring their answers once the run is told to stop, in seconds.
STOP_GRACE_S = 1.0
#: Docs that wait for their second occasion in this run, of all suppliers: what is more has it in the next.
MAX_AGAIN = 10_000
_RECHECK_S = 0.05  # who waits is looked at together after that


async def relay_all(
    work: Work,
    transport: Transport,
    sink: Sink,
    *,
    max_in_flight: int = 256,
    quota: Quota | Mapping[str, int] | None = None,
    max_relays: int | None = None,
    heartbeat: Heartbeat | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    canaries: Canaries | None = None,
    patience: LanePatience = PATIENCE,
    on_lane_end: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    pacing: Pacing | None = None,
    money: MoneyQuota | None = None,
) -> Report:
    """Send every relay of ``work``, hand each attempt to ``sink``, and return the counts.

    Unanswered relays get the further attempts of their fault (``in_run``), ``limits.retries`` at most,
    numbered on from ``relay.attempt``. ``canaries`` are relays answered before, by supplier; what is answered
    in the run joins them. They are asked again, marked as canaries, to see whether a supplier answers at all;
    relays of ``work`` may be marked so, too. ``patience`` is how long suppliers are waited for.
    ``on_lane_end`` is called once per supplier, when its turn has ended and the sink took all its attempts.
    Once ``stop`` is set nothing is sent any more, and what is in flight ends within seconds. ``pacing`` keeps
    the paces of the endpoints that have one; waiting for those is no patience spent. ``money`` reserves what
    each send can cost at most, and refuses those for which too little is left.

    ``quota`` (or a mapping: attempts left per service; services it does not name are
    unlimited) and ``max_relays`` (attempts in all) count every send. Nothing is sent while ``heartbeat`` does
    not beat: the run then sees what is in flight to its end and returns with ``lost`` set. ``work`` is
    consumed as slots become free; what is left of an iterable at the end is run through once more to be
    counted, unless it has a length.

    An error of the sink, of an iterable, of the quota or of ``on_progress`` stops the run and is raised;
    sends then in flight are cancelled and leave no attempt. The same holds for cancellation.
    """
    run = _Run(
        work,
        transport,
        sink,
        max_in_flight,
        quota,
        max_relays,
        heartbeat,
        on_progress,
        canaries or {},
        patience,
        on_lane_end,
        stop,
        pacing,
        money,
    )
    return await run.execute()


def run_relays(
    work: Work,
    sink: Sink,
    *,
    transport: Transport | None = None,
    open_transport: Callable[[], Transport] | None = None,
    **options: Any,
) -> Report:
    """Run :func:`relay_all` from synchronous code in an event loop of its own, and return its report.

    ``options`` are those of :func:`relay_all`. ``open_transport`` makes the transport in that loop, and it is
    closed at the end; a ``transport`` that is given instead stays open. Works in any thread; iterables, sink
    and ``on_progress`` may run in another one (:func:`~testbench_dagster.relays.loops.run_to_end`).

    Raises:
        ValueError: neither ``transport`` nor ``open_transport`` was given.
    """

    async def main() -> Report:
        if transport is not None:
            return await relay_all(work, transport, sink, **options)
        if open_transport is None:
            raise ValueError("run_relays needs a transport, or open_transport to make one")
        opened = open_transport()
        try:
            return await relay_all(work, opened, sink, **options)
        finally:
            await opened.close()

    return run_to_end(main)


class _Run:
    """State of one :func:`relay_all`."""

    def __init__(
        self,
        work: Work,
        transport: Transport,
        sink: Sink,
        max_in_flight: int,
        quota: Quota | Mapping[str, int] | None,
        max_relays: int | None,
        heartbeat: Heartbeat | None,
        on_progress: Callable[[Progress], None] | None,
        canaries: Canaries,
        patience: LanePatience,
        on_lane_end: Callable[[str], None] | None,
        stop: threading.Event | None,
        pacing: Pacing | None,
        money: MoneyQuota | None,
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self._transport = transport
        self._sink = sink
        self._slots = max_in_flight
        self._quota = FixedQuota(quota) if isinstance(quota, Mapping) else quota
        self._relays_left = max_relays
        self._money = money
        self._short: list[SupplierQueue] = []  # wait for money that is reserved for what is in flight
        self._heartbeat = heartbeat
        self._lost = False
        self._on_progress = on_progress
        self._patience = patience
        self._on_lane_end = on_lane_end
        self._stop_wish = stop
        self._interrupted = False
        self._rng = random.Random()  # noqa: S311  jitter
        self._queues = supplier_queues(work, canaries, patience, self._rng)
        self._active = len(self._queues)
        self._working = self._active  # of these, those that are not waited for
        self._waited_for: dict[str, SupplierQueue] = {}
        self._recheck: asyncio.TimerHandle | None = None
        self._ends: dict[str, LaneEnd] = {}
        self._again = 0  # docs that wait for their second occasion
        self._ready: deque[SupplierQueue] = deque()
        self._parked: deque[SupplierQueue] = deque()  # above their share while few slots are free
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._waiting = 0
        self._sent = 0
        self._final = 0
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._stop_timer: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._next_progress = 0.0
        self._started = 0.0
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._pacer: Pacer | None = None
        if pacing is not None and any(queue.endpoint.pace for queue in self._queues):
            self._pacer = Pacer(
                pacing, self._queues, self._enqueue, self._stop_paced, self._later, self._fail
            )

    async def execute(self) -> Report:
        self._started = time.monotonic()
        self._next_progress = self._started + PROGRESS_INTERVAL_S
        for queue in list(self._queues):
            self._enqueue(queue)
        self._watch_heartbeat()
        self._watch_stop()
        try:
            if self._on_progress is not None:
                self._ticker = self._later(_TICK_S, self._tick)
            if self._active:
                await self._done
        finally:
            await self._stop()
        for queue in self._queues:
            self._end(queue)
        for queue in self._queues:
            rest = await queue.count_rest()
            if queue.stopped == "abandoned":
                queue.counts.abandoned += rest
            else:
                queue.counts.unsent += rest
        self._progress(time.monotonic(), final=True)
        return self._report()

    async def _stop(self) -> None:
        """Cancel timers and workers and wait for these to be gone."""
        for queue in self._queues:
            self._cancel_timers(queue)
        for timer in (self._heartbeat_timer, self._stop_timer, self._recheck, self._ticker):
            if timer is not None:
                timer.cancel()
        tasks = self._workers | self._asking | (set() if self._pacer is None else self._pacer.close())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- scheduling -----------------------------------------------------------------------------------

    def _enqueue(self, queue: SupplierQueue, now: float | None = None) -> None:
        """Put a supplier queue that may send into the ready queue and see that somebody serves it."""
        if queue.queued or queue.finished or not queue.may_send(time.monotonic() if now is None else now):
            return
        queue.queued = True
        self._ready.append(queue)
        self._wake()

    def _wake(self) -> None:
        while self._sleepers:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                return
        if len(self._workers) < self._slots:
            self._workers.add(self._loop.create_task(self._work()))

    async def _work(self) -> None:
        """Serve supplier queues until cancelled; the first error ends the run.

        Between it and the transport is no other coroutine: each costs when it is made, and whenever what it
        waits for comes.
        """
        try:
            while True:
                taken = self._take()
                if taken is None:
                    sleeper = self._loop.create_future()
                    self._sleepers.append(sleeper)
                    await sleeper
                    continue
                queue, job = taken
                began = time.monotonic()
                key = id(job)
                queue.flying[key] = job, began
                line = queue.line
                beside, sends = line.in_flight, line.sends
                relay = job.relay
                if self._pacer is not None and queue.endpoint.pace is not None:
                    relay = replace(relay, further=partial(self._pacer.further, queue, job))
                try:
                    attempt = await self._transport.send(queue.endpoint, relay)
                except (
                    Exception
                ) as exc:  # they promise not to raise; a bug there costs one relay, not the run
                    attempt = _failed_in_transport(exc, time.monotonic() - began)
                del queue.flying[key]
                # whoever was sent meanwhile and is back was beside it as well
                attempt.own_in_flight = max(beside, line.in_flight, 1 + (line.sends != sends))
                outcome = self._sink(job.relay, job.number, attempt)
                if outcome is not None:
                    await outcome
                self._charge(job, attempt)
                now = time.monotonic()
                self._account(queue, job, attempt, began, now)
                self._release(queue, now)
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(exc)

    def _take(self) -> tuple[SupplierQueue, Job] | None:
        """Take the next job of the supplier queue whose turn it is, or None when none may send."""
        while self._ready:
            queue = self._ready.popleft()
            queue.queued = False
            now = time.monotonic()
            if not queue.may_send(now):
                continue
            if self._above_share(queue):
                queue.queued = True
                self._parked.append(queue)
                continue
            if queue.host is not None and queue.host.capacity <= 0:
                queue.queued = True
                queue.host.parked.append(queue)
                continue
            if self._heartbeat is not None and not self._heartbeat.alive:
                self._lose()
                return None
            if not self._may_spend(queue):
                self._unpark(queue.host)
                continue
            job = queue.next_job()
            if job is None:
                self._unspend(queue)
                self._finish_if_idle(queue)
                self._unpark(queue.host)
                continue
            if not self._affords(queue, job):
                self._unspend(queue)
                self._unpark(queue.host)
                continue
            if self._pacer is not None and not self._pacer.admits(queue, job):
                self._unspend(queue)
                self._unreserve(job)
                queue.circuit.idle(time.monotonic(), False)
                self._unpark(queue.host)
                continue
            if job.parked:
                job.parked = False
                self._waiting -= 1
            queue.in_flight += 1
            queue.sends += 1
            self._in_flight += 1
            if queue.host is not None:
                queue.host.in_flight += 1
                queue.host.sends += 1
            self._enqueue(queue, now)
            if queue.in_flight == 1:
                queue.circuit.idle(now, False)
            return queue, job
        return None

    def _above_share(self, queue: SupplierQueue) -> bool:
        """Whether a supplier queue must leave the remaining slots to others.

        The last quarter of the slots is for supplier queues below their fair share, so slow suppliers that
        filled the rest cannot keep the others out.
        """
        if self._active <= 1 or self._in_flight < self._slots * _OPEN_SHARE:
            return False
        return queue.in_flight >= max(1, self._slots // self._active)

    def _release(self, queue: SupplierQueue, now: float) -> None:
        """Give a slot back and requeue whoever that may help."""
        queue.in_flight -= 1
        self._in_flight -= 1
        if queue.host is not None:
            queue.host.in_flight -= 1
            self._unpark(queue.host)
        self._enqueue(queue, now)
        if not queue.in_flight or not queue.works or queue.circuit.opened_at is not None:
            self._look_at(queue)
        # one freed slot helps one parked supplier queue; with nothing in flight no other event would come
        for _ in range(1 if self._in_flight else len(self._parked)):
            if self._parked:
                parked = self._parked.popleft()
                parked.queued = False
                self._enqueue(parked)
        self._finish_if_idle(queue)

    def _unpark(self, host: Host | None) -> None:
        """Requeue as many of a host's parked supplier queues as it has room for."""
        capacity = 0 if host is None else host.capacity
        while host is not None and capacity > 0 and host.parked:
            queue = host.parked.popleft()
            queue.queued = False
            self._enqueue(queue)
            capacity -= queue.queued

    # -- caps -----------------------------------------------------------------------------------------

    def _may_spend(self, queue: SupplierQueue) -> bool:
        """Count one send to a queue's supplier if the caps allow it, else see to what is to become of it."""
        if self._relays_left is not None and self._relays_left <= 0:
            self._stop_queue(queue, "unsent")
            return False
        if self._quota is not None:
            answer = self._quota.take(queue.endpoint)
            if answer is QuotaDecision.REFUSED:
                self._stop_refused(queue, self._quota)
                return False
            if answer is not QuotaDecision.GRANTED:
                queue.asking = answer is QuotaDecision.UNKNOWN
                self._ask(queue, partial(self._quota.refill, queue.endpoint))
            if queue.asking:
                return False
        if self._relays_left is not None:
            self._relays_left -= 1
            if self._relays_left <= 0:
                self._loop.call_soon(self._guarded, self._stop_capped)
        return True

    def _unspend(self, queue: SupplierQueue) -> None:
        """Take a send back that was counted and not made."""
        if self._quota is not None:
            self._quota.refund(queue.endpoint)
        if self._relays_left is not None:
            self._relays_left += 1

    def _affords(self, queue: SupplierQueue, job: Job) -> bool:
        """Reserve the money that a job can cost at most; without it the job is held, or the turn ended."""
        if self._money is None:
            return True
        turn = self._money.reserve(queue.endpoint, job.relay)
        if turn.decision is Decision.GRANTED:
            job.reserved = turn.reserved
            return True
        queue.held = job
        if turn.decision is Decision.UNKNOWN:
            queue.asking = True
            self._ask(queue, partial(self._money.refill, queue.endpoint, turn.needed))
        elif turn.decision is Decision.LATER:
            queue.in_line_since = time.monotonic()
            self._short.append(queue)
        else:
            queue.short_of_money = queue.stopped is None
            self._stop_queue(queue, "unsent")
        return False

    def _unreserve(self, job: Job) -> None:
        """Free the money of a job that is not sent."""
        if self._money is not None and job.reserved is not None:
            self._money.release(job.reserved)
        job.reserved = None

    def _charge(self, job: Job, attempt: Attempt) -> None:
        """Charge what a job came to; those who wait for what it leaves try again."""
        if self._money is None:
            return
        if job.reserved is not None:
            self._money.charge(job.reserved, job.relay, attempt)
            job.reserved = None
        short, self._short = self._short, []
        for queue in short:
            if queue.in_line_since is not None:
                queue.circuit.excuse(queue.in_line_since, time.monotonic())
                queue.in_line_since = None
            self._enqueue(queue)

    def _ask(self, queue: SupplierQueue, find_out: Callable[[], None]) -> None:
        """Have a quota find out about a supplier in a thread."""
        task = self._loop.create_task(self._refill(queue, find_out))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _refill(self, queue: SupplierQueue, find_out: Callable[[], None]) -> None:
        try:
            await self._loop.run_in_executor(None, find_out)
        except Exception as exc:
            self._fail(exc)
            return
        queue.asking = False
        if self._quota is not None and self._quota.refused(queue.endpoint):
            self._guarded(self._stop_capped)
        self._guarded(self._enqueue, queue)

    def _stop_paced(self, queue: SupplierQueue) -> None:
        """End the turn of a supplier whose requests of the day are used up: what is left stays due."""
        self._stop_queue(queue, "unsent")

    def _stop_capped(self) -> None:
        """Stop the supplier queues that a cap keeps from sending.

        Those waiting for a retry or a pause would otherwise hold the run up for nothing.
        """
        ended = self._relays_left is not None and self._relays_left <= 0
        for queue in self._queues:
            if ended:
                self._stop_queue(queue, "unsent")
            elif self._quota is not None and self._quota.refused(queue.endpoint):
                self._stop_refused(queue, self._quota)

    def _stop_refused(self, queue: SupplierQueue, quota: Quota) -> None:
        """Stop what the quota refuses; a supplier that says itself that it grants no more is left.

        What it was not asked is open then: else it would pay to stop while ahead.
        """
        claimed = quota.claimed(queue.endpoint)
        if claimed is not None and queue.stopped is None:
            queue.claimed = claimed
        self._stop_queue(queue, "unsent" if claimed is None else "abandoned")

    def _watch_heartbeat(self) -> None:
        """Notice the loss of the heartbeat also while nothing is to be sent."""
        if self._heartbeat is None:
            return
        if not self._heartbeat.alive:
            self._lose()
            return
        self._heartbeat_timer = self._later(_HEART_POLL_S, self._watch_heartbeat)

    def _lose(self) -> None:
        """Send nothing any more: another process may be relaying to the suppliers by now."""
        self._lost = True
        for queue in self._queues:
            self._stop_queue(queue, "unsent")

    def _watch_stop(self) -> None:
        """Notice the wish to stop; once it is there, what is in flight has a moment to come in."""
        if self._stop_wish is None:
            return
        if not self._stop_wish.is_set():
            self._stop_timer = self._later(_STOP_POLL_S, self._watch_stop)
            return
        self._interrupted = True
        for queue in self._queues:
            self._stop_queue(queue, "unsent")
        self._stop_timer = self._later(STOP_GRACE_S, self._conclude)

    def _conclude(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    # -- the end of a supplier's turn -----------------------------------------------------------------

    def _leave(self, queue: SupplierQueue) -> None:
        """Go on without a supplier that does not answer; what is ours is no reason to leave it."""
        fault = queue.circuit.fault
        ours = fault is not None and fault.row.pause is Pause.STOP
        self._stop_queue(queue, "unsent" if ours else "abandoned")

    def _stop_queue(self, queue: SupplierQueue, reason: Literal["unsent", "abandoned"]) -> None:
        """Send nothing more to this supplier; its relays waiting for another attempt stay due."""
        if queue.stopped is None and not queue.finished:
            queue.stopped = reason
            self._cancel_timers(queue)
            parked = [job for job, _ in queue.waiting.values()] + list(queue.due)
            if queue.held is not None and queue.held.parked:
                parked.append(queue.held)
                queue.held = None  # else it was not sent yet, and is counted with what follows it
            elif queue.held is not None and queue.held.drawn:
                queue.held = None
            queue.waiting.clear()
            queue.due.clear()
            if self._pacer is not None:
                self._pacer.forget(queue)
            self._waiting -= sum(job.parked for job in parked)
            queue.counts.still_due += sum(not job.relay.canary for job in parked)
            self._forget_again(queue)
        self._finish_if_idle(queue)

    def _cancel_timers(self, queue: SupplierQueue) -> None:
        for _, timer in queue.waiting.values():
            timer.cancel()
        for single in (queue.pause, queue.again_timer):
            if single is not None:
                single.cancel()

    def _finish_if_idle(self, queue: SupplierQueue) -> None:
        if queue.finished:
            return
        if queue.again and queue.stopped is None and queue.first_occasions_done:
            self._plan_again(queue)
        if queue.idle:
            self._end(queue)

    def _end(self, queue: SupplierQueue) -> None:
        """Note that a supplier's turn has ended, once; with the last one the run has."""
        if queue.finished:
            return
        queue.finished = True
        self._cancel_timers(queue)
        queue.circuit.finish(time.monotonic())
        if queue.works:
            self._note_works(queue, False)
        supplier = queue.endpoint.supplier
        self._waited_for.pop(supplier, None)
        if queue.stopped == "abandoned":
            ending = LaneEnding.LEFT
        else:
            ending = LaneEnding.DONE if queue.stopped is None and queue.idle else LaneEnding.CAPPED
        fault = queue.claimed or queue.circuit.fault
        remedy = queue.remedy if queue.claimed is None else ""
        # whoever holds calls that it would lose until somebody stops the run has not answered them
        stalled = queue.stalled(time.monotonic(), self._patience.stalled_s) if self._interrupted else ()
        self._ends[supplier] = LaneEnd(
            datetime.now(UTC), ending, fault, queue.circuit.waited_s, remedy, stalled
        )
        if self._on_lane_end is not None:
            self._on_lane_end(supplier)
        self._active -= 1
        if self._active == 0:
            self._conclude()

    # -- second occasions -----------------------------------------------------------------------------

    def _plan_again(self, queue: SupplierQueue) -> None:
        """Ask the docs of a supplier again whose second occasion may follow in this run.

        Not before some seconds, and a canary sent since their first was answered: a bad minute of the
        supplier's shall not close them. Otherwise they are left to the next run.
        """
        if queue.again_timer is not None or (queue.circuit.open and queue.canaries):
            return  # the probes of an open circuit show whether it answers
        now = time.monotonic()
        if not queue.again_sure and (not queue.canaries or queue.again_left <= 0):
            self._forget_again(queue)
        elif now < queue.again_at:
            queue.again_timer = self._later(queue.again_at - now, self._again_due, queue)
        elif queue.again_sure:
            self._again -= len(queue.again)
            queue.due.extend(queue.again)
            queue.again.clear()
            self._enqueue(queue)
        else:
            queue.again_left -= 1
            queue.due.append(queue.canaries.draw())
            self._enqueue(queue)

    def _again_due(self, queue: SupplierQueue) -> None:
        queue.again_timer = None
        self._finish_if_idle(queue)

    def _forget_again(self, queue: SupplierQueue) -> None:
        self._again -= len(queue.again)
        self._waiting -= len(queue.again)
        queue.counts.still_due += len(queue.again)
        queue.again.clear()

    # -- who is waited for ----------------------------------------------------------------------------

    def _look_at(self, queue: SupplierQueue) -> None:
        """See whether a supplier is waited for."""
        if queue.finished:
            return
        if not queue.in_flight:
            queue.circuit.idle(time.monotonic(), queue.resting)
        if queue.works is queue.circuit.open:
            self._note_works(queue, not queue.works)

    def _note_works(self, queue: SupplierQueue, works: bool) -> None:
        queue.works = works
        if works:
            self._working += 1
            self._waited_for.pop(queue.endpoint.supplier, None)
            return
        self._working -= 1
        self._waited_for[queue.endpoint.supplier] = queue
        if self._working == 0 and self._recheck is None:
            self._recheck = self._later(_RECHECK_S, self._hurry)

    def _alone(self, queue: SupplierQueue) -> bool:
        """Whether no other supplier works any more."""
        return self._working - queue.works <= 0

    def _hurry(self) -> None:
        """No supplier works any more: those that are waited for have less time."""
        self._recheck = None
        if self._working:
            return
        for queue in list(self._waited_for.values()):
            if not queue.circuit.hurry(time.monotonic(), alone=True):
                self._rest(queue)
            elif not queue.in_flight and queue.in_line_since is None:
                self._leave(queue)  # else what comes back decides

    def _rest(self, queue: SupplierQueue) -> None:
        """Come back to a supplier that is waited for when its next probe is due."""
        if queue.pause is not None:
            queue.pause.cancel()
        queue.pause = self._later(queue.circuit.resumes_at - time.monotonic(), self._rested, queue)

    def _rested(self, queue: SupplierQueue) -> None:
        """The look after a pause; timers may be early."""
        queue.pause = None
        if queue.finished or not queue.circuit.open:
            return
        if time.monotonic() < queue.circuit.resumes_at:
            self._rest(queue)
        self._enqueue(queue)

    def _later(self, wait_s: float, call: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """Call something after a while; an error it raises ends the run."""
        return self._loop.call_later(max(0.0, wait_s), self._guarded, call, *args)

    def _guarded(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Exception as exc:
            self._fail(exc)

    # -- one relay ------------------------------------------------------------------------------------

    def _account(self, queue: SupplierQueue, job: Job, attempt: Attempt, began: float, now: float) -> None:
        """Count an attempt, learn from it, and decide whether its relay is done."""
        fault = attempt.fault
        counts = queue.counts
        counts.sent += 1
        self._sent += 1
        job.sent += 1
        canary = job.relay.canary
        if canary:
            counts.canaries += 1
        else:
            counts.faults[fault] += 1
        if queue.host is not None:
            queue.host.record_outcome(fault, now)
        if self._pacer is not None:
            self._pacer.record_outcome(queue, job, attempt)
        if fault.answered:
            queue.limit.succeeded()
            queue.circuit.answered(now)
            counts.latency.add(attempt.latency_ms)
            if canary:
                counts.canaries_answered += 1
                queue.again_sure |= began >= queue.again_from
            else:
                counts.answered += 1
                counts.final += 1
                self._final += 1
                queue.canaries.add(job.relay, job.number)
        else:
            self._failed(queue, job, attempt, began, now)
        if canary and not job.drawn:
            queue.canaries.add(job.relay, job.number)
        self._progress(now)

    def _failed(self, queue: SupplierQueue, job: Job, attempt: Attempt, began: float, now: float) -> None:
        """Learn from an attempt without an answer: wait, leave the supplier, ask the doc again or not."""
        fault, circuit = attempt.fault, queue.circuit
        queue.remedy = remedy_of(attempt)
        if fault.row.slows_supplier:
            queue.limit.congested(now)
        leave = circuit.unanswered(fault, began, now, attempt.retry_after_s, alone=self._alone(queue))
        if job.relay.canary:
            queue.again_at = max(queue.again_at, now + self._patience.retry_s(1, self._rng))
        elif queue.stopped is not None:
            self._close(queue, job, fault)
        elif job.probe:
            job.probe = False
            self._park(job)
            queue.due.append(job)
        else:
            self._retry(queue, job, attempt, now)
        if leave:
            self._leave(queue)
        elif circuit.open:
            self._rest(queue)

    def _retry(self, queue: SupplierQueue, job: Job, attempt: Attempt, now: float) -> None:
        """Ask a doc again after a while, as often as its fault has it; else its occasion is over."""
        fault = attempt.fault
        told_s = attempt.retry_after_s or 0.0
        further = job.further(fault, queue.endpoint.limits.retries)
        if job.failures < further and told_s <= queue.circuit.left_s(now, alone=self._alone(queue)):
            job.failures += 1
            wait = self._patience.retry_s(job.failures, self._rng)
            if told_s:  # a little later than asked, never earlier, and not all at the same instant
                wait = max(wait, told_s + self._rng.uniform(0.0, 0.1) * max(told_s, 0.1))
            self._park(job)
            queue.waiting[id(job)] = (job, self._later(wait, self._retry_due, queue, job))
        elif job.may_come_again(fault) and self._again < MAX_AGAIN:
            again = job.again()
            self._park(again)
            queue.again.append(again)
            queue.again_from = now
            queue.again_at = now + self._patience.again_s
            queue.again_sure = False
            self._again += 1
        else:
            self._close(queue, job, fault)

    def _close(self, queue: SupplierQueue, job: Job, fault: Fault) -> None:
        """Nothing more is asked of a doc in this run."""
        if 0 < fault.row.occasions <= job.relay.occasion:
            queue.counts.final += 1
            self._final += 1
        else:
            queue.counts.still_due += 1

    def _park(self, job: Job) -> None:
        job.parked = True
        self._waiting += 1

    def _retry_due(self, queue: SupplierQueue, job: Job) -> None:
        del queue.waiting[id(job)]
        queue.due.append(job)
        self._enqueue(queue)

    # -- reporting ------------------------------------------------------------------------------------

    def _progress(self, now: float, *, final: bool = False) -> None:
        if self._on_progress is None or (now < self._next_progress and not final):
            return
        self._next_progress = now + PROGRESS_INTERVAL_S
        self._on_progress(
            Progress(
                self._sent,
                self._final,
                self._in_flight,
                self._waiting,
                now - self._started,
                self._waits(now),
                len(self._waited_for),
                self._working,
                () if self._pacer is None else self._pacer.paces(),
            )
        )

    def _tick(self) -> None:
        """Tell how it goes also while nothing comes in."""
        self._progress(time.monotonic())
        self._ticker = self._later(_TICK_S, self._tick)

    def _waits(self, now: float) -> tuple[LaneWait, ...]:
        """Suppliers that are waited for, those that are asked next first."""
        found = []
        for supplier, queue in self._waited_for.items():
            fault = queue.circuit.fault
            if fault is not None:
                found.append((max(0.0, queue.circuit.resumes_at - now), supplier, fault))
        present = datetime.now(UTC)
        return tuple(
            LaneWait(supplier, fault, present + timedelta(seconds=wait_s))
            for wait_s, supplier, fault in heapq.nsmallest(MOST_WAITS, found)
        )

    def _report(self) -> Report:
        total = Counts()
        for queue in self._queues:
            total.add(queue.counts)
        return Report(
            time.monotonic() - self._started,
            total,
            {queue.endpoint.supplier: queue.counts for queue in self._queues},
            self._lost,
            self._ends,
            self._interrupted,
            tuple(queue.endpoint.supplier for queue in self._queues if queue.short_of_money),
        )


def _failed_in_transport(exc: Exception, seconds: float) -> Attempt:
    """The attempt of a relay whose transport raised after so long."""
    finished = datetime.now(UTC)
    error = escaped(f"{type(exc).__name__} in the transport")
    return Attempt(
        Fault.INTERNAL, finished - timedelta(seconds=seconds), finished, seconds * 1000, error=error
    )
