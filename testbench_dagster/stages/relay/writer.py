"""Keeps every attempt as evidence: batches them into the document store within a second of their arrival."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.processes import host_name
from testbench_dagster.core.answer_hash import answer_hash
from testbench_dagster.core.answer_prefix import is_deterministic, prefix_of_answer
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import generation_of
from testbench_dagster.core.ids import attempt_document_id, document_id
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.core.versions import CLASSIFIER, PAYLOADS
from testbench_dagster.stores.documents import DocumentStore, typed

#: Attempts and body bytes that may wait for the store before ``add`` asks its caller to wait.
MAX_QUEUED = 8_192
MAX_QUEUED_BYTES = 64 * 1024 * 1024


def attempt_id(relay: Relay, number: int) -> str:
    """Id of the ``number``-th attempt of a relay."""
    return attempt_document_id(relay.supplier, relay.prompt_id, relay.round, relay.idx, relay.repeat, number)


@dataclass(frozen=True)
class Fence:
    """What tells whether this process still is the one that relays to its suppliers.

    ``tokens`` are those of its leases, by supplier; ``verify`` asks the store and returns the suppliers,
    of those given, whose lease is no longer held.
    """

    tokens: Mapping[str, int]
    heartbeat: Heartbeat
    verify: Callable[[Iterable[str]], set[str]]

    def lost(self, suppliers: Iterable[str]) -> set[str]:
        """Return which of these suppliers others may have taken over."""
        return set() if self.heartbeat.alive else self.verify(suppliers)


def attempt_record(
    relay: Relay, number: int, attempt: Attempt, *, lease: int | None = None, height: int | None = None
) -> AttemptRecord:
    """Return what is stored of one attempt: declared fields, and the evidence for them.

    ``path`` is relative to the supplier's base URL, which is left out with the headers: they may hold
    secrets. ``body`` is the answer as received (after decompression), ``payload_sha256`` the hash of the
    request as sent. Latencies in milliseconds. ``lease`` is the token under which it was sent, ``height``
    the newest block height known of the service; a relay in a session brings its own, with the ``app`` it was
    charged to and the ``session``. ``classifier`` is the number of what decided the fault, and
    ``payload_version`` of what built the request. ``opening`` is how
    an answer at temperature 0 begins, null for whatever is no such answer; by ``answer_hash`` equal
    answers are told. ``host`` is this machine.
    """
    evidence = dict(attempt.evidence)
    session = attempt.session
    prefix = None
    deterministic = is_deterministic(relay.request, generation_of(evidence))
    if attempt.text is not None and attempt.fault.answered and deterministic:
        prefix = prefix_of_answer(relay.request, attempt.text)
    return AttemptRecord(
        id=attempt_id(relay, number),
        supplier=relay.supplier,
        service=relay.service,
        task=relay.task,
        task_hash=relay.task_hash,
        epoch=relay.epoch,
        round=relay.round,
        prompt_id=relay.prompt_id,
        position=relay.position,
        doc_id=relay.doc_id,
        idx=relay.idx,
        repeat=relay.repeat,
        attempt=number,
        occasion=relay.occasion,
        canary=relay.canary,
        fault=attempt.fault.value,
        owner=attempt.fault.owner.value,
        classifier=CLASSIFIER.number,
        status=attempt.status,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        latency_ms=attempt.latency_ms,
        first_byte_ms=attempt.first_byte_ms,
        first_token_ms=attempt.first_token_ms,
        finish_reason=attempt.finish_reason,
        prompt_tokens=attempt.prompt_tokens,
        completion_tokens=attempt.completion_tokens,
        reasoning_tokens=attempt.reasoning_tokens,
        reasoning_chars=attempt.reasoning_chars,
        opening=prefix,
        answer_hash=answer_hash(attempt.text)
        if attempt.text is not None and attempt.fault.answered
        else None,
        error=attempt.error,
        path=evidence.pop("path", None),
        payload_sha256=evidence.pop("payload_sha256", None),
        payload_version=PAYLOADS.number,
        body=attempt.body,
        body_bytes=attempt.body_bytes,
        body_truncated=attempt.body_truncated,
        app=session.app if session else None,
        session=session.session_id if session else None,
        session_start=session.start_height if session else None,
        session_end=session.end_height if session else None,
        height=session.height if session and session.height is not None else height,
        lease=lease,
        own_in_flight=attempt.own_in_flight,
        evidence=evidence,
        host=host_name(),
    )


def fenced_out(attempt: AttemptRecord) -> AttemptRecord:
    """Turn an attempt into one whose lease was lost before it could be stored.

    It was sent, so it stays evidence, but the supplier's next holder may have asked the same. Hence an id of
    its own, our fault, and the number 0: every attempt of the new holder comes after it, and one that asks
    again goes on with 1. What it was otherwise is in its evidence.
    """
    fault = Fault.INTERNAL
    original = {
        "_id": attempt.id,
        "attempt": attempt.attempt,
        "fault": attempt.fault,
        "error": attempt.error,
    }
    return replace(
        attempt,
        id=document_id("disowned", attempt.id, attempt.lease),
        attempt=0,
        fault=fault.value,
        owner=fault.owner.value,
        opening=None,
        answer_hash=None,
        error="lease lost: another process may have been relaying to the supplier when this was stored",
        evidence={**attempt.evidence, "disowned": original},
    )


class AttemptWriter:
    """Writes attempts from a thread of its own; use it as a context manager.

    A batch is written when ``batch`` attempts wait or ``flush_s`` seconds after the first of them, so an
    attempt is durable within a second unless the store is slower than that. An error of the store is raised
    by the next :meth:`add` and by :meth:`close`; what could not be written is lost, and will be relayed
    again by a later run.

    With a ``fence``, attempts to suppliers that were lost to another process by the time they are written
    are :func:`fenced_out`. ``heights`` are the block heights to note, by service.
    """

    def __init__(
        self,
        store: DocumentStore,
        flush_s: float = 0.25,
        batch: int = 500,
        *,
        fence: Fence | None = None,
        heights: Mapping[str, int | None] | None = None,
    ) -> None:
        self._store = store
        self._fence = fence
        self._heights = dict(heights or {})
        self._flush_s = flush_s
        self._batch = batch
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._queue: deque[tuple[float, Relay, int, Attempt]] = deque()  # with the time of arrival
        self._queued_bytes = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._closing = False
        self._error: BaseException | None = None
        self.written = 0
        self._added = self._done = 0  # attempts, in order
        self._wanted = 0  # somebody waits for so many to be written
        self._thread = threading.Thread(target=self._run, name="testbench-attempts", daemon=True)
        self._thread.start()

    def __enter__(self) -> AttemptWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StoreError:
            # the error that ends the block is as a rule this one, raised by `add`
            if exc is None:
                raise

    def add(self, relay: Relay, number: int, attempt: Attempt) -> Awaitable[None] | None:
        """Queue one attempt: the engine's sink.

        While too much waits for the store the result is an awaitable that ends when there is room again;
        where no event loop runs, the call itself waits.
        """
        with self._lock:
            self._check()
            if self._closing:
                raise StoreError("the attempt writer is closed")
            if not self._queue:
                self._work.notify()
            self._queue.append((time.monotonic(), relay, number, attempt))
            self._added += 1
            self._queued_bytes += len(attempt.body)
            if len(self._queue) == self._batch:
                self._work.notify()
            if not self._full:
                return None
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self._room.wait_for(lambda: self._error is not None or not self._full)
                self._check()
                return None
            waiter = loop.create_future()
            self._waiters.append((loop, waiter))
        return self._room_again(waiter)

    def flush(self) -> None:
        """Wait until all that was added so far is written; raises the store's error if there was one."""
        with self._lock:
            wanted = self._wanted = self._added
            self._work.notify()
            self._room.wait_for(lambda: self._error is not None or self._done >= wanted)
            self._check()

    def close(self) -> None:
        """Write what is queued and end the thread; raises the store's error if there was one."""
        with self._lock:
            self._closing = True
            self._work.notify()
        self._thread.join()
        self._check()

    async def _room_again(self, waiter: asyncio.Future[None]) -> None:
        await waiter
        self._check()

    @property
    def _full(self) -> bool:
        return len(self._queue) > MAX_QUEUED or self._queued_bytes > MAX_QUEUED_BYTES

    def _check(self) -> None:
        if self._error is not None:
            raise StoreError(f"attempts could not be stored: {self._error}") from self._error

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self.written += typed.put_new(self._store, AttemptRecord, self._records(batch))
                with self._lock:
                    self._done += len(batch)
                    self._room.notify_all()
        except BaseException as exc:  # handed to whoever adds or closes
            with self._lock:
                self._error = exc
        finally:
            with self._lock:
                self._release_waiters()

    def _records(self, batch: list[tuple[Relay, int, Attempt]]) -> list[AttemptRecord]:
        tokens = self._fence.tokens if self._fence is not None else {}
        records = [
            attempt_record(
                relay,
                number,
                attempt,
                lease=tokens.get(relay.supplier),
                height=self._heights.get(relay.service),
            )
            for relay, number, attempt in batch
        ]
        typed.write_ahead(self._store, AttemptRecord, records)
        if self._fence is None:
            return records
        # Last of all, so that next to nothing can happen between this and the write.
        lost = self._fence.lost({record.supplier for record in records})
        return [fenced_out(r) if r.supplier in lost else r for r in records] if lost else records

    def _next_batch(self) -> list[tuple[Relay, int, Attempt]]:
        """Wait for the next batch to fall due; empty when closed and all is written."""
        with self._lock:
            while not self._closing and len(self._queue) < self._batch:
                if not self._queue:
                    self._work.wait()
                    continue
                if self._done < self._wanted:
                    break
                left = self._queue[0][0] + self._flush_s - time.monotonic()
                if left <= 0:
                    break
                self._work.wait(left)
            batch = [self._queue.popleft()[1:] for _ in range(min(self._batch, len(self._queue)))]
            self._queued_bytes -= sum(len(attempt.body) for _, _, attempt in batch)
            if not self._full:
                self._release_waiters()
            return batch

    def _release_waiters(self) -> None:
        self._room.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            try:
                loop.call_soon_threadsafe(_finish, waiter)
            except RuntimeError:  # that loop is closed: nobody waits any more
                continue


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
