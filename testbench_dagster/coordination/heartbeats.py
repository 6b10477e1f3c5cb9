"""Heartbeats: how a process that works on suppliers lets others know that it is alive, and knows it itself.

A heartbeat renews a document with an expiry. Two clocks are at work. The process itself, and others on its
machine, go by the machine's boot clock, which nobody can set. Other machines have only the written
``expires_at``: they allow for clocks that differ by a tenth of the time to live (3 s by default), so machines
that share a store must keep their clocks synchronised (NTP) to within that. A heartbeat that expires later
than any can, for a clock was ahead, is dead once it was watched for its own length without a change.

Death is final. A heartbeat is not renewed once its time is over, and whoever takes over from an expired one
first deletes the document as it was read: a renewal then finds nothing to renew.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Protocol

from testbench_dagster.coordination.processes import (
    boot_clock,
    is_running,
    machine,
    process_started,
    shares_boot_clock,
)
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.stores.documents import DocumentStore, typed

DEFAULT_TTL_S = 30.0
_BEATS_PER_TTL = 3
_MARGIN = 0.1  # of the time to live: how far the clocks of two machines may differ
_NEVER = float("-inf")

_log = logging.getLogger(__name__)


class Beating(Protocol):
    """What is stored of a process that renews it: a heartbeat, or what the process says of itself."""

    @property
    def id(self) -> str:
        """By which it is known."""

    @property
    def expires_at(self) -> datetime:
        """Alive until then, by the machine's clock."""

    @property
    def boot_deadline(self) -> float | None:
        """The same in seconds since the machine booted."""

    @property
    def ttl_s(self) -> float:
        """Seconds after which it is dead if it is not renewed."""

    @property
    def host(self) -> str:
        """Its machine."""

    @property
    def pid(self) -> int:
        """Its process id there."""

    @property
    def started(self) -> int | None:
        """When the process started."""


class Heartbeat:
    """The heartbeat of one holder of leases, beating in a thread while the context is open.

    Args:
        documents: the store that the processes share.
        holder: a name that no other heartbeat has or had, such as a run id.
        ttl_s: seconds after which a heartbeat that was not renewed is dead; renewed three times as often.

    Entering raises :class:`StoreError` when the store fails or a living heartbeat has this name already.
    """

    def __init__(self, documents: DocumentStore, holder: str, ttl_s: float = DEFAULT_TTL_S) -> None:
        if not holder:
            raise ValueError("holder may not be empty; give the run's or the process's own id")
        if not ttl_s > 0:
            raise ValueError(f"ttl_s must be above 0 seconds, not {ttl_s}")
        self.holder = holder
        self.ttl_s = ttl_s
        self._documents = documents
        self._deadline = _NEVER
        self._entered = False
        self._written: list[datetime] = []  # what expires_at may be by now: an acknowledgement can get lost
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"testbench-heartbeat-{holder}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the process may act on suppliers now: nobody can have taken them over yet.

        Cheap and local. False for good once a renewal came too late: the process was stopped, the machine
        slept, the store was out of reach.
        """
        return boot_clock() < self._deadline

    @property
    def lost(self) -> bool:
        """Whether it stopped beating before its context ended."""
        return self._entered and not self._ending.is_set() and not self.alive

    def __enter__(self) -> Heartbeat:
        began = boot_clock()
        beat = self._heartbeat()
        while not typed.put_new(self._documents, HeartbeatRecord, [beat]):
            other = typed.get(self._documents, HeartbeatRecord, self.holder)
            if other is not None and not (is_gone(other) and delete_expired(self._documents, other)):
                raise StoreError(f"{self.holder} is at work already: {described(other)}; wait until it ends")
            began = boot_clock()
            beat = self._heartbeat()
        self._written = [beat.expires_at]
        self._deadline = began + self.ttl_s
        self._entered = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._deadline = _NEVER
        self._thread.join(self.ttl_s)  # it may hang in a store that does not answer
        self._deadline = _NEVER
        try:
            typed.purge(self._documents, HeartbeatRecord, self._own())
        except StoreError as error:
            _log.warning("the heartbeat of %s is left to expire: %s", self.holder, error)

    def _heartbeat(self) -> HeartbeatRecord:
        """The heartbeat as of now."""
        deadline = boot_clock() + self.ttl_s if shares_boot_clock() else None
        return HeartbeatRecord(
            id=self.holder,
            expires_at=_in(self.ttl_s),
            boot_deadline=deadline,
            ttl_s=self.ttl_s,
            host=machine(),
            pid=os.getpid(),
            started=process_started(os.getpid()),
        )

    def _own(self) -> dict[str, Any]:
        """Matches the heartbeat as this heartbeat last wrote it, and nothing else."""
        return {"_id": self.holder, "expires_at": {"in": self._written}}

    def _beat(self) -> None:
        pause = self.ttl_s / _BEATS_PER_TTL
        while not self._ending.wait(pause):
            deadline = self._deadline
            began = boot_clock()
            if began >= deadline:
                break
            try:
                renewed = self._renew()
            except StoreError as error:
                _log.warning("the heartbeat of %s could not be renewed yet: %s", self.holder, error)
                pause = min(1.0, self.ttl_s / 10)
                continue
            # One that came through too late does not count: others may have seen the heartbeat expired.
            if not renewed or boot_clock() >= deadline or self._ending.is_set():
                break
            self._deadline = began + self.ttl_s
            pause = self.ttl_s / _BEATS_PER_TTL
        if not self._ending.is_set():
            self._deadline = _NEVER
            _log.error(
                "%s lost its heartbeat: it was stopped or cut off from the store for too long", self.holder
            )

    def _renew(self) -> bool:
        beat = self._heartbeat()
        changes = {"expires_at": beat.expires_at, "boot_deadline": beat.boot_deadline}
        own = self._own()
        self._written.append(beat.expires_at)
        if typed.claim(self._documents, HeartbeatRecord, own, **changes) is None:
            return False
        self._written = [beat.expires_at]
        return True


@contextmanager
def beating(documents: DocumentStore, heartbeat: Heartbeat | None) -> Iterator[Heartbeat]:
    """Work by a heartbeat that beats already, or by one of this process's own that ends with the context."""
    if heartbeat is not None:
        yield heartbeat
        return
    with Heartbeat(documents, f"process-{secrets.token_hex(8)}") as own:
        yield own


def holder_is_gone(documents: DocumentStore, holder: str) -> bool:
    """Whether a holder is gone for good: no heartbeat, an expired one, or its process is gone."""
    beat = typed.get(documents, HeartbeatRecord, holder)
    return beat is None or is_gone(beat)


def heartbeats(documents: DocumentStore, holders: Iterable[str]) -> dict[str, HeartbeatRecord]:
    """Read the heartbeats of the holders that have one."""
    return typed.by_id(documents, HeartbeatRecord, holders)


def is_gone(beat: Beating) -> bool:
    """Whether a heartbeat, as just read, is that of a dead process."""
    if beat.host != machine():
        now = datetime.now(UTC)
        if beat.expires_at > now + timedelta(seconds=silence_s(beat)):  # that machine's clock is or was ahead
            return _is_silent(beat)
        return now > beat.expires_at + timedelta(seconds=_MARGIN * beat.ttl_s)
    if not is_running(beat.pid, beat.started):
        return True
    if beat.boot_deadline is None:
        return datetime.now(UTC) > beat.expires_at
    return boot_clock() > beat.boot_deadline


#: When this process first saw heartbeats that expire later than any can, by holder, with what they said.
_seen_ahead: dict[str, tuple[datetime, float]] = {}
_MOST_SEEN = 10_000


def _is_silent(beat: Beating) -> bool:
    """Whether a heartbeat did not change for as long as one can live, since this process first saw it so."""
    if len(_seen_ahead) > _MOST_SEEN:
        _seen_ahead.clear()
    said, since = _seen_ahead.setdefault(beat.id, (beat.expires_at, boot_clock()))
    if said != beat.expires_at:
        _seen_ahead[beat.id] = beat.expires_at, boot_clock()
        return False
    return boot_clock() - since > silence_s(beat)


def silence_s(beat: Beating) -> float:
    """Seconds without a change after which a watched heartbeat is dead, whatever its machine's clock says."""
    return (1 + _MARGIN) * beat.ttl_s


def delete_expired(documents: DocumentStore, beat: HeartbeatRecord) -> bool:
    """Delete an expired heartbeat; False when it changed since it was read, so was alive after all."""
    if typed.purge(documents, HeartbeatRecord, {"_id": beat.id, "expires_at": beat.expires_at}):
        return True
    return typed.get(documents, HeartbeatRecord, beat.id) is None


def described(beat: Beating) -> str:
    """Who that is, for people."""
    return f"process {beat.pid} on {beat.host.partition('/')[0]}"


def _in(seconds: float) -> datetime:
    """An instant from now, in the whole milliseconds that stores keep."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
