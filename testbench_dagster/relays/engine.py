"""Relays many prompts to many suppliers at once, within hard caps, fairly, in memory that does not grow.

One scheduler, up to ``max_in_flight`` workers. Each supplier has a *supplier queue*: its iterator of relays,
its adaptive limit and its retries; suppliers behind one host share a limit besides. Those that may send stand
in a ready queue and are served in turn, one relay each; a supplier queue leaves the queue when it may not
send and comes back with the event that changes that. A worker holds its slot from the send until the sink
took the attempt; waiting for a retry holds none.

Everything here runs in one event loop and without awaiting between a check and what depends on it, which
is what makes the caps hard. What a quota has to ask a store for is asked in a thread meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import FixedQuota, Quota, QuotaDecision
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.core.text import escaped
from testbench_dagster.relays.limits import backoff_s, is_congestion
from testbench_dagster.relays.loops import run_to_end
from testbench_dagster.relays.queues import Host, Job, SupplierQueue, Work, supplier_queues
from testbench_dagster.relays.report import Counts, Progress, Report

#: Takes one finished attempt: ``sink(relay, attempt_number, attempt)``. An awaitable it returns is awaited
#: before the slot is free again (back-pressure); an error it raises stops the run.
Sink = Callable[[Relay, int, Attempt], Awaitable[None] | None]

PROGRESS_INTERVAL_S = 0.25
#: This share of the slots is open to every supplier queue; the rest only to those below their fair share.
_OPEN_SHARE = 0.75
_HEART_POLL_S = 1.0


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
) -> Report:
    """Send every relay of ``work``, hand each attempt to ``sink``, and return the counts.

    Relays whose fault is ``retried`` get up to ``limits.retries`` further attempts, numbered on from
    ``relay.attempt``. ``quota`` (or a mapping: attempts left per service; services it does not name are
    unlimited) and ``max_relays`` (attempts in all) count every send. Nothing is sent while ``heartbeat`` does
    not beat: the run then sees what is in flight to its end and returns with ``lost`` set. ``work`` is
    consumed as slots become free; what is left of an iterable at the end is run through once more to be
    counted, unless it has a length.

    An error of the sink, of an iterable, of the quota or of ``on_progress`` stops the run and is raised;
    sends then in flight are cancelled and leave no attempt. The same holds for cancellation.
    """
    run = _Run(work, transport, sink, max_in_flight, quota, max_relays, heartbeat, on_progress)
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
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self._transport = transport
        self._sink = sink
        self._slots = max_in_flight
        self._quota = FixedQuota(quota) if isinstance(quota, Mapping) else quota
        self._relays_left = max_relays
        self._heartbeat = heartbeat
        self._lost = False
        self._on_progress = on_progress
        self._queues = supplier_queues(work)
        self._active = len(self._queues)
        self._ready: deque[SupplierQueue] = deque()
        self._parked: deque[SupplierQueue] = deque()  # above their share while few slots are free
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._waiting = 0
        self._sent = 0
        self._final = 0
        self._rng = random.Random()  # noqa: S311  jitter
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._next_progress = 0.0
        self._started = 0.0
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def execute(self) -> Report:
        self._started = time.monotonic()
        self._next_progress = self._started + PROGRESS_INTERVAL_S
        for queue in list(self._queues):
            self._enqueue(queue)
        self._watch_heartbeat()
        try:
            if self._active:
                await self._done
        finally:
            await self._stop()
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
            for _, timer in queue.waiting.values():
                timer.cancel()
        if self._heartbeat_timer is not None:
            self._heartbeat_timer.cancel()
        tasks = self._workers | self._asking
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- scheduling -----------------------------------------------------------------------------------

    def _enqueue(self, queue: SupplierQueue) -> None:
        """Put a supplier queue that may send into the ready queue and see that somebody serves it."""
        if queue.queued or queue.finished or not queue.may_send(time.monotonic()):
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
        """Serve supplier queues until cancelled; the first error ends the run."""
        try:
            while True:
                taken = self._take()
                if taken is None:
                    sleeper = self._loop.create_future()
                    self._sleepers.append(sleeper)
                    await sleeper
                    continue
                await self._relay(*taken)
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
            if not queue.may_send(time.monotonic()):
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
            if job.failures:
                self._waiting -= 1
            queue.in_flight += 1
            self._in_flight += 1
            if queue.host is not None:
                queue.host.in_flight += 1
            self._enqueue(queue)
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

    def _release(self, queue: SupplierQueue) -> None:
        """Give a slot back and requeue whoever that may help."""
        queue.in_flight -= 1
        self._in_flight -= 1
        if queue.host is not None:
            queue.host.in_flight -= 1
            self._unpark(queue.host)
        self._enqueue(queue)
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
                self._stop_queue(queue, "unsent")
                return False
            if answer is not QuotaDecision.GRANTED:
                queue.asking = answer is QuotaDecision.UNKNOWN
                self._ask(queue)
            if queue.asking:
                return False
        if self._relays_left is not None:
            self._relays_left -= 1
            if self._relays_left <= 0:
                self._loop.call_soon(self._stop_capped)
        return True

    def _unspend(self, queue: SupplierQueue) -> None:
        """Take a send back that was counted and not made."""
        if self._quota is not None:
            self._quota.refund(queue.endpoint)
        if self._relays_left is not None:
            self._relays_left += 1

    def _ask(self, queue: SupplierQueue) -> None:
        """Have the quota find out about a supplier in a thread."""
        task = self._loop.create_task(self._refill(queue))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _refill(self, queue: SupplierQueue) -> None:
        if self._quota is None:
            raise RuntimeError("no quota was given that could be refilled")
        try:
            await self._loop.run_in_executor(None, self._quota.refill, queue.endpoint)
        except Exception as exc:
            self._fail(exc)
            return
        queue.asking = False
        if self._quota.refused(queue.endpoint):
            self._stop_capped()
        self._enqueue(queue)

    def _stop_capped(self) -> None:
        """Stop the supplier queues that a cap keeps from sending.

        Those waiting for a retry or a pause would otherwise hold the run up for nothing.
        """
        ended = self._relays_left is not None and self._relays_left <= 0
        for queue in self._queues:
            if ended or (self._quota is not None and self._quota.refused(queue.endpoint)):
                self._stop_queue(queue, "unsent")

    def _watch_heartbeat(self) -> None:
        """Notice the loss of the heartbeat also while nothing is to be sent."""
        if self._heartbeat is None:
            return
        if not self._heartbeat.alive:
            self._lose()
            return
        self._heartbeat_timer = self._loop.call_later(_HEART_POLL_S, self._watch_heartbeat)

    def _lose(self) -> None:
        """Send nothing any more: another process may be relaying to the suppliers by now."""
        self._lost = True
        for queue in self._queues:
            self._stop_queue(queue, "unsent")

    def _stop_queue(self, queue: SupplierQueue, reason: Literal["unsent", "abandoned"]) -> None:
        """Send nothing more to this supplier; its relays waiting for a retry stay due."""
        if queue.stopped is None and not queue.finished:
            queue.stopped = reason
            for _, timer in queue.waiting.values():
                timer.cancel()
            queue.counts.still_due += len(queue.waiting) + len(queue.due)
            self._waiting -= len(queue.waiting) + len(queue.due)
            queue.waiting.clear()
            queue.due.clear()
        self._finish_if_idle(queue)

    def _finish_if_idle(self, queue: SupplierQueue) -> None:
        if not queue.finished and queue.idle:
            queue.finished = True
            self._active -= 1
            if self._active == 0 and not self._done.done():
                self._done.set_result(None)

    # -- one relay ------------------------------------------------------------------------------------

    async def _relay(self, queue: SupplierQueue, job: Job) -> None:
        began = time.monotonic()
        attempt = await self._send(queue.endpoint, job.relay)
        outcome = self._sink(job.relay, job.relay.attempt + job.failures, attempt)
        if outcome is not None:
            await outcome
        self._account(queue, job, attempt, began)
        self._release(queue)

    async def _send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        started = datetime.now(UTC)
        clock = time.perf_counter()
        try:
            return await self._transport.send(endpoint, relay)
        except Exception as exc:  # transports promise not to raise; a bug there costs one relay, not the run
            error = escaped(f"{type(exc).__name__} in the transport")
            latency_ms = (time.perf_counter() - clock) * 1000
            return Attempt(Fault.INTERNAL, started, datetime.now(UTC), latency_ms, error=error)

    def _account(self, queue: SupplierQueue, job: Job, attempt: Attempt, began: float) -> None:
        """Count an attempt, learn from it, and decide whether its relay is done."""
        now = time.monotonic()
        fault = attempt.fault
        counts = queue.counts
        counts.sent += 1
        counts.faults[fault] += 1
        self._sent += 1
        wait: float | None = None
        if fault.answered:
            counts.latency.add(attempt.latency_ms)
            queue.limit.succeeded()
            queue.breaker.succeeded()
        elif is_congestion(attempt):
            queue.limit.congested(now)
        if queue.host is not None:
            queue.host.record_outcome(fault, now)
        if fault.row.paces:
            wait = queue.breaker.rate_limited(now, attempt.retry_after_s, self._rng)
            self._resume(queue)
        if queue.breaker.record_attempt(fault, began, now):
            self._stop_queue(queue, "abandoned")
        if fault.final:
            counts.final += 1
            self._final += 1
        elif fault.retried and job.failures < queue.endpoint.limits.retries and queue.stopped is None:
            job.failures += 1
            self._retry_later(queue, job, wait if wait is not None else backoff_s(job.failures, self._rng))
        else:
            counts.still_due += 1
        self._progress(now)

    def _resume(self, queue: SupplierQueue) -> None:
        """Requeue a supplier queue when its pause is over (timers may be early, hence the second look)."""
        pause = queue.breaker.paused_until - time.monotonic()
        if pause > 0:
            self._loop.call_later(pause, self._resume, queue)
        else:
            self._enqueue(queue)

    def _retry_later(self, queue: SupplierQueue, job: Job, wait: float) -> None:
        self._waiting += 1
        queue.waiting[id(job)] = (job, self._loop.call_later(wait, self._retry_due, queue, job))

    def _retry_due(self, queue: SupplierQueue, job: Job) -> None:
        del queue.waiting[id(job)]
        queue.due.append(job)
        self._enqueue(queue)

    # -- reporting ------------------------------------------------------------------------------------

    def _progress(self, now: float, *, final: bool = False) -> None:
        if self._on_progress is None or (now < self._next_progress and not final):
            return
        self._next_progress = now + PROGRESS_INTERVAL_S
        seconds = now - self._started
        self._on_progress(Progress(self._sent, self._final, self._in_flight, self._waiting, seconds))

    def _report(self) -> Report:
        total = Counts()
        for queue in self._queues:
            total.add(queue.counts)
        suppliers = {queue.endpoint.supplier: queue.counts for queue in self._queues}
        return Report(time.monotonic() - self._started, total, suppliers, self._lost)
