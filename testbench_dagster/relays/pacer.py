"""The supplier queues of a run at the paces of their endpoints: who stands in line, and whose turn it is.

Who stands in line is neither waited for as an outage nor at fault, and holds no slot; but a relay on its way
that has to be posted again does, and goes first. A run without paces has no pacer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from testbench_dagster.core.pace import Pace
from testbench_dagster.core.relay import Attempt
from testbench_dagster.relays.pace import Decision, Pacing, Turn, came_to, request_tokens
from testbench_dagster.relays.queues import Job, SupplierQueue
from testbench_dagster.relays.report import LanePace


class _Line:
    """The supplier queues that wait for one pace, the one that is next first."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.waiting: deque[SupplierQueue] = deque()
        #: Relays on their way that have to be posted again: their tokens, and the turn they wait for (None:
        #: the requests of the day are used up).
        self.further: deque[tuple[int, asyncio.Future[Turn | None]]] = deque()
        self.asking = False
        self.timer: asyncio.TimerHandle | None = None


class Pacer:
    """Lets the supplier queues of a run send when the pace of their endpoint allows it; belongs to its loop.

    Args:
        pacing: what may be sent.
        queues: those of the run.
        enqueue: puts a queue that has its turn where it is served.
        stop: ends the turn of a queue whose requests of the day are used up.
        later: calls something after some seconds.
        fail: is told what went wrong with the store.
    """

    def __init__(
        self,
        pacing: Pacing,
        queues: Iterable[SupplierQueue],
        enqueue: Callable[[SupplierQueue], None],
        stop: Callable[[SupplierQueue], None],
        later: Callable[..., asyncio.TimerHandle],
        fail: Callable[[Exception], None],
    ) -> None:
        self._pacing = pacing
        self._enqueue, self._stop, self._later, self._fail = enqueue, stop, later, fail
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, _Line] = {}
        self._members: dict[str, list[SupplierQueue]] = {}
        for queue in queues:
            pace = queue.endpoint.pace
            if pace is not None:
                self._lines.setdefault(pace.account, _Line(pace))
                self._members.setdefault(pace.account, []).append(queue)
        self._asking: set[asyncio.Task[None]] = set()
        self._closed = False

    def admits(self, queue: SupplierQueue, job: Job) -> bool:
        """Whether a queue may send this job now; if not it stands in line, and is enqueued for its turn."""
        pace = queue.endpoint.pace
        if pace is None:
            return True
        ticket, queue.ticket = queue.ticket, None
        if ticket is not None:
            if self._pacing.now() <= ticket.at + self._pacing.late_s:
                job.token_second = ticket.second
                return True
            self._pacing.refund(pace)  # it came too late for it
        line = self._lines[pace.account]
        if not line.waiting and not line.further and not line.asking:
            turn = self._pacing.take(pace, request_tokens(queue.endpoint, job.relay))
            if turn.decision is Decision.GRANTED:
                job.token_second = turn.second
                return True
        queue.held = job
        queue.in_line_since = time.monotonic()
        line.waiting.append(queue)
        self._later(0.0, self._serve, line)
        return False

    async def further(self, queue: SupplierQueue, job: Job) -> bool:
        """Wait until a job on its way may make one more request; False where none is left for the day."""
        pace = queue.endpoint.pace
        if pace is None:
            return True
        if self._closed:
            return False
        line, turn = self._lines[pace.account], self._loop.create_future()
        line.further.append((request_tokens(queue.endpoint, job.relay), turn))
        self._later(0.0, self._serve, line)
        granted = await turn
        if granted is None:
            return False
        job.token_second = granted.second
        return True

    def record_outcome(self, queue: SupplierQueue, job: Job, attempt: Attempt) -> None:
        """Learn what an attempt came to in tokens."""
        pace = queue.endpoint.pace
        if pace is not None and pace.tokens_per_minute is not None:
            more = came_to(pace, request_tokens(queue.endpoint, job.relay), attempt)
            self._pacing.correct(pace, job.token_second, more)
            if more < 0:
                self._serve(self._lines[pace.account])

    def forget(self, queue: SupplierQueue) -> None:
        """Take note that a queue sends nothing any more."""
        self._leave_line(queue)
        pace = queue.endpoint.pace
        if pace is not None and queue.ticket is not None:
            queue.ticket = None
            self._pacing.refund(pace)

    def close(self) -> set[asyncio.Task[None]]:
        """End all waiting; return what still asks the store."""
        self._closed = True
        for line in self._lines.values():
            if line.timer is not None:
                line.timer.cancel()
            line.waiting.clear()
            for _, further in line.further:
                if not further.done():
                    further.set_result(None)
            line.further.clear()
        for queue in (queue for members in self._members.values() for queue in members):
            self.forget(queue)
        return set(self._asking)

    def paces(self) -> tuple[LanePace, ...]:
        """At what pace suppliers are asked that are not done, and when they may be."""
        found = []
        for name, members in self._members.items():
            active = [queue for queue in members if not queue.finished and queue.stopped is None]
            if not active:
                continue
            pace, counts = self._lines[name].pace, [queue.relays_left for queue in active]
            left = None if None in counts else sum(n for n in counts if n is not None)
            done_at = None
            if left is not None:
                wait_s = self._pacing.wait_s(pace, left)
                if wait_s is not None:
                    done_at = datetime.fromtimestamp(self._pacing.now() + wait_s, UTC)
            suppliers = tuple(queue.endpoint.supplier for queue in active)
            found.append(LanePace(name, suppliers, pace.words, done_at))
        return tuple(found)

    def _serve(self, line: _Line) -> None:
        """Give turns to those who wait, as far as there are any; come back when there are more."""
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        if not self._serve_further(line):
            return
        while line.waiting and not line.asking and not self._closed:
            queue = line.waiting[0]
            job = queue.held
            if job is None or queue.stopped is not None or queue.finished:
                line.waiting.popleft()
                continue
            tokens = request_tokens(queue.endpoint, job.relay)
            turn = self._pacing.take(line.pace, tokens)
            if turn.decision is Decision.GRANTED:
                line.waiting.popleft()
                queue.ticket = turn
                self._leave_line(queue)
                self._enqueue(queue)
            elif self._comes_back(line, turn, tokens):
                return
            else:
                line.waiting.popleft()
                self._leave_line(queue)
                self._stop(queue)

    def _serve_further(self, line: _Line) -> bool:
        """Give turns to relays that are posted again; whether there may be any for others, too."""
        while line.further and not line.asking and not self._closed:
            tokens, further = line.further[0]
            if not further.done():
                turn = self._pacing.take(line.pace, tokens)
                if self._comes_back(line, turn, tokens):
                    return False
                further.set_result(turn if turn.decision is Decision.GRANTED else None)
            line.further.popleft()
        return not line.further

    def _comes_back(self, line: _Line, turn: Turn, tokens: int) -> bool:
        """Whether a line has to wait for its next turn, and is served again when it may be there."""
        if turn.decision is Decision.LATER:
            line.timer = self._later(turn.at - self._pacing.now(), self._serve, line)
            return True
        if turn.decision is Decision.UNKNOWN:
            line.asking = True
            task = self._loop.create_task(self._ask(line, tokens))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            return True
        return False

    def _leave_line(self, queue: SupplierQueue) -> None:
        if queue.in_line_since is not None:
            queue.circuit.excuse(queue.in_line_since, time.monotonic())
            queue.in_line_since = None

    async def _ask(self, line: _Line, tokens: int) -> None:
        try:
            waiting = (
                len(line.waiting)
                + len(line.further)
                + sum(queue.limit.value for queue in self._members[line.pace.account] if not queue.finished)
            )
            await self._loop.run_in_executor(None, self._pacing.refill, line.pace, tokens, waiting)
        except Exception as exc:
            self._fail(exc)
            return
        line.asking = False
        self._later(0.0, self._serve, line)
