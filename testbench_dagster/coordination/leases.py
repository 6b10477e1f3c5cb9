"""Leases: one process at a time relays to a supplier.

A lease is a document under the supplier's key that exists while somebody holds it. Taking one is an insert,
which succeeds once; giving it back, or taking it from a dead holder, is a delete that names the holder. All
three work on any number of suppliers in one call of the store. Never two living holders: a lease is only
taken from a holder whose heartbeat has stopped for good (see :mod:`.heartbeats`).

Tokens come from one counter. No two holders of a supplier ever have the same, and they grow in the order in
which they were drawn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

from testbench_dagster.coordination.heartbeats import (
    Heartbeat,
    delete_expired,
    described,
    heartbeats,
    is_gone,
    silence_s,
)
from testbench_dagster.coordination.processes import boot_clock, is_stopped, machine
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.coordination import HeartbeatRecord, LeaseRecord, LeaseToken
from testbench_dagster.stores.documents import DocumentStore, typed

#: Id of the counter that tokens are drawn from; no supplier's key, for it holds no ``@``.
COUNTER = "#token"
_POLL_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acquired:
    """The suppliers now held, with their tokens; and those that others hold, with who and since when."""

    held: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class SupplierLeases:
    """The leases of one holder; at the end of the context all are given back.

    ``heartbeat`` is what the leases live by: it must be beating when they are taken, and while it does nobody
    else can take them. ``brief`` says that they are given back within moments: others wait for them.
    """

    def __init__(self, documents: DocumentStore, heartbeat: Heartbeat, *, brief: bool = False) -> None:
        self._documents = documents
        self._brief = brief
        self._heartbeat = heartbeat
        self._held: dict[str, int] = {}
        self._asked: set[str] = set()  # a failed call may have taken some that it could not report

    def __enter__(self) -> SupplierLeases:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except StoreError as error:  # they end with the heartbeat; what was done under them is done
            _log.warning(
                "leases of %s are left to the end of its heartbeat: %s", self._heartbeat.holder, error
            )

    def acquire(self, keys: Iterable[str], wait_s: float = 0.0) -> Acquired:
        """Take the leases of suppliers that are free or whose holder is gone; keep those held already.

        A living holder is not waited for, unless it holds briefly. One that does, or may be dead but is not
        expired yet (on another machine, or suspended), is watched for at most ``wait_s`` seconds, until it
        gives back, expires or is seen alive.

        Raises:
            StoreError: the store failed, or this holder's own heartbeat has stopped.
        """
        acquired = Acquired()
        watch = _Watch(until=time.monotonic() + wait_s)
        pending = list(dict.fromkeys(keys))
        self._asked.update(pending)
        while pending:
            taken, others = self._take(pending)
            acquired.held.update(taken)
            free, unclear = self._look_at(others, watch, acquired.refused)
            pending = free + unclear
            if not free and unclear:
                time.sleep(watch.pause_s())
        # What was inserted after the heartbeat stopped belongs to nobody.
        self._check_heartbeat()
        self._held.update(acquired.held)
        return acquired

    def release(self, keys: Iterable[str] | None = None) -> None:
        """Give back the leases of these suppliers, or all."""
        given = self._asked.copy() if keys is None else self._asked.intersection(keys)
        if given:
            where = {"_id": {"in": sorted(given)}, "holder": self._heartbeat.holder}
            typed.purge(self._documents, LeaseRecord, where)
        self._asked -= given
        for key in given:
            self._held.pop(key, None)

    def verify(self, keys: Iterable[str]) -> set[str]:
        """Read the leases of these suppliers and return the keys that are no longer held."""
        asked = set(keys)
        where = {"_id": {"in": sorted(asked)}, "holder": self._heartbeat.holder}
        found = {lease.id: lease.token for lease in typed.find(self._documents, LeaseToken, where)}
        return {key for key in asked if key not in found or found[key] != self._held.get(key)}

    def _check_heartbeat(self) -> None:
        if not self._heartbeat.alive:
            raise StoreError(
                f"{self._heartbeat.holder} has no living heartbeat and may not take suppliers: "
                "it was stopped or cut off from the store for too long; start it again"
            )

    def _take(self, keys: list[str]) -> tuple[dict[str, int], dict[str, LeaseRecord | None]]:
        """Insert leases where there are none; return the tokens of ours and the leases of others."""
        self._check_heartbeat()
        token = self._draw_token()
        holder, since = self._heartbeat.holder, datetime.now(UTC)
        leases = [
            LeaseRecord(id=key, holder=holder, token=token, since=since, brief=self._brief) for key in keys
        ]
        if typed.put_new(self._documents, LeaseRecord, leases) == len(keys):
            return dict.fromkeys(keys, token), {}
        found = typed.by_id(self._documents, LeaseRecord, keys)
        ours = {key: lease.token for key, lease in found.items() if lease.holder == holder}
        # one that vanished since was just given back: None stands for a holder that is gone
        return ours, {key: found.get(key) for key in keys if key not in ours}

    def _draw_token(self) -> int:
        while True:
            counter = typed.get(self._documents, LeaseRecord, COUNTER)
            if counter is None:
                typed.put_new(self._documents, LeaseRecord, [LeaseRecord(id=COUNTER, token=0)])
                continue
            drawn = counter.token + 1
            same = {"_id": COUNTER, "token": counter.token}
            if typed.claim(self._documents, LeaseRecord, same, token=drawn) is not None:
                return drawn

    def _look_at(
        self, leases: dict[str, LeaseRecord | None], watch: _Watch, refused: dict[str, str]
    ) -> tuple[list[str], list[str]]:
        """Free what dead holders hold; return the keys free now and those worth waiting for."""
        held = {key: (lease, lease.holder or "") for key, lease in leases.items() if lease is not None}
        free = [key for key, lease in leases.items() if lease is None]
        holders = {holder for _, holder in held.values()}
        beats = heartbeats(self._documents, holders) if holders else {}
        gone = {h for h in holders if h not in beats or self._is_dead(beats[h], watch)}
        inherited = [key for key, (_, holder) in held.items() if holder in gone]
        if inherited:
            where = {"_id": {"in": sorted(inherited)}, "holder": {"in": sorted(gone)}}
            typed.purge(self._documents, LeaseRecord, where)
        unclear = []
        for key, (lease, holder) in held.items():
            if holder in gone:
                continue
            beat = beats[holder]
            if watch.is_unclear(beat) or (lease.brief and watch.goes_on):
                unclear.append(key)
            else:
                doing = "probing" if lease.brief else "relaying to"
                refused[key] = f"{described(beat)} has been {doing} it since {lease.since:%F %T} UTC"
        return free + inherited, unclear

    def _is_dead(self, beat: HeartbeatRecord, watch: _Watch) -> bool:
        return (is_gone(beat) or watch.is_silent(beat)) and delete_expired(self._documents, beat)


def held_suppliers(documents: DocumentStore) -> set[str]:
    """Keys of the suppliers that living processes hold now; takes and frees nothing."""
    leases = [lease for lease in typed.find(documents, LeaseRecord) if lease.holder is not None]
    beats = heartbeats(documents, {lease.holder or "" for lease in leases}) if leases else {}
    living = {holder for holder, beat in beats.items() if not is_gone(beat)}
    return {lease.id for lease in leases if lease.holder in living}


class _Watch:
    """What one call of ``acquire`` has seen of the heartbeats it waits for."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._seen: dict[str, tuple[datetime, float]] = {}  # the first expiry seen, and when
        self._renewed: set[str] = set()

    def is_silent(self, beat: HeartbeatRecord) -> bool:
        """Whether a heartbeat was watched for longer than it can live without a renewal.

        Unlike the written expiry this also tells the death of a machine whose clock was ahead of ours.
        """
        expiry, since = self._seen.setdefault(beat.id, (beat.expires_at, boot_clock()))
        if expiry != beat.expires_at:
            self._renewed.add(beat.id)
        return beat.id not in self._renewed and boot_clock() - since > silence_s(beat)

    @property
    def goes_on(self) -> bool:
        """Whether there is still time to wait."""
        return time.monotonic() < self._until

    def is_unclear(self, beat: HeartbeatRecord) -> bool:
        """Whether there is still time to find out if a heartbeat beats."""
        if beat.id in self._renewed or not self.goes_on:
            return False
        return beat.host != machine() or is_stopped(beat.pid)

    def pause_s(self) -> float:
        """Seconds until the next look."""
        return max(0.0, min(_POLL_S, self._until - time.monotonic()))
