"""One ``testbench up`` at a time on one storage of Dagster, whatever the host.

Two daemons on one storage start ticks and runs twice, and Dagster only says so in its log, for ever. A
heartbeat in the document store, named by the id of Dagster's storage, keeps the second out; it ends with the
process. A daemon that somebody started otherwise (``dagster dev``, ``dagster-daemon run``) has none of these:
it is known by Dagster's own, and told of.

Belongs here: who serves. Does not: how it is served and the lock on a home (``cli``), and what
``testbench check`` tells of it (:mod:`.storage_findings`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from testbench_dagster.coordination.heartbeats import Heartbeat, described, holder_is_gone
from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.defs.storage_findings import TWO_DAEMONS, lively_daemons
from testbench_dagster.stores.documents import DocumentStore, typed

Say = Callable[[str], None]

_LOOK_S = 15.0
#: Until then the heartbeats of whoever served before may be read.
_SETTLED_S = 100.0

_log = logging.getLogger(__name__)


@contextmanager
def alone_on_storage(documents: DocumentStore, instance: dg.DagsterInstance, say: Say) -> Iterator[None]:
    """While this lasts no other ``testbench up`` works on this storage of Dagster; ``say`` of other daemons.

    Raises:
        StoreError: the document store fails.
        TestbenchError: another process serves it, on whatever host.
    """
    holder = f"up-{instance.run_storage.get_run_storage_id()}"  # type: ignore[attr-defined]  # Dagster's SQL
    watch = _Watch(documents, instance, holder, say)
    watch.begin()
    try:
        yield
    finally:
        watch.end()


class _Watch:
    """Beats for this process and looks for daemons of others, in a thread."""

    def __init__(self, documents: DocumentStore, instance: dg.DagsterInstance, holder: str, say: Say) -> None:
        self._documents, self._instance, self._holder, self._say = documents, instance, holder, say
        self._heartbeat: Heartbeat | None = None
        self._began = time.time()
        self._seen: dict[str, float] = {}
        self._told = self._away = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="testbench-up", daemon=True)

    def begin(self) -> None:
        """Raises TestbenchError where another process serves."""
        if not holder_is_gone(self._documents, self._holder):
            raise TestbenchError(self._who())
        try:
            self._heartbeat = Heartbeat(self._documents, self._holder).__enter__()
        except StoreError:
            if holder_is_gone(self._documents, self._holder):
                raise
            raise TestbenchError(self._who()) from None  # it was faster
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        if self._heartbeat is not None:
            self._heartbeat.__exit__(None, None, None)

    def _who(self) -> str:
        beat = typed.get(self._documents, HeartbeatRecord, self._holder)
        told = described(beat) if beat is not None else "another process"
        return (
            f"`testbench up` works on Dagster's storage already: {told}; use that one, or end it first, or "
            "give this one another storage (DAGSTER_POSTGRES_URL, DAGSTER_HOME)"
        )

    def _look(self) -> None:
        while not self._ending.wait(_LOOK_S):
            try:
                self._beat_again()
                self._look_for_daemons()
                self._away = False
            except TestbenchError as error:  # a store is away: the next look may see it again
                if not self._away:
                    self._say(f"{error}. Nothing is evaluated until then; the daemon goes on by itself")
                self._away = True
            except Exception as error:  # what Dagster makes of it
                _log.debug("who else serves could not be seen: %s", error)

    def _beat_again(self) -> None:
        """Take up a heartbeat that was lost, as by a machine that slept, unless somebody else did."""
        if self._heartbeat is None or not self._heartbeat.lost:
            return
        self._heartbeat.__exit__(None, None, None)
        self._heartbeat = None
        if holder_is_gone(self._documents, self._holder):
            self._heartbeat = Heartbeat(self._documents, self._holder).__enter__()
        else:
            self._say(f"while this process was stopped or cut off another took its place: {self._who()}")

    def _look_for_daemons(self) -> None:
        now, beats = time.time(), self._instance.get_daemon_heartbeats()
        if now - self._began < _SETTLED_S:
            return
        for daemon in lively_daemons(beats, self._began + _SETTLED_S / 2):
            self._seen[daemon] = now
        self._seen = {daemon: at for daemon, at in self._seen.items() if now - at < _SETTLED_S}
        if len(self._seen) > 1 and not self._told:
            self._say(f"warning: of Dagster's daemons {TWO_DAEMONS}")
        self._told = len(self._seen) > 1
