"""What transports are told of the store of an installation, and what they have kept in it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

from testbench_dagster.core.errors import BodyUnavailable
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptOfSupplier, SessionAttempt, SessionAttemptHead
from testbench_dagster.core.records.chains import SessionSpan
from testbench_dagster.core.relay import Endpoint, SessionRef
from testbench_dagster.stages.discover.sessions import record_chain
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Where, typed
from testbench_dagster.transports.discovery import ChainReading
from testbench_dagster.transports.plug import PastRelay, SessionLookup
from testbench_dagster.transports.registry import RunTransports

_TOGETHER = 50  # answers in memory at once
_log = logging.getLogger(__name__)


class StoredHistory:
    """The relays of some suppliers that are stored, and the sessions of all services.

    A :class:`~testbench_dagster.transports.plug.RelayHistory`.
    """

    def __init__(self, workspace: Workspace, suppliers: Collection[str] = ()) -> None:
        self._workspace = workspace
        self._suppliers = frozenset(suppliers)

    def record_chain(self, reading: ChainReading) -> None:
        """Keep height and sessions, for plans and for who wakes later."""
        record_chain(self._workspace, reading)

    def sessions(self) -> SessionLookup:
        """Find the sessions that are stored as of now, by service and id."""
        known = {
            (row.service, row.session_id): SessionRef(
                row.app, row.session_id, row.start_height, row.end_height, row.height
            )
            for row in typed.find(self._workspace.documents, SessionSpan)
        }
        return lambda service, session_id: known.get((service, session_id))

    def relays(self, session_id: str, but: Collection[Fault]) -> Iterator[PastRelay]:
        """The suppliers' stored attempts in a session, without those that ended in some faults.

        One whose body cannot be read now counts all the same, with an empty one.
        """
        faults = [fault.value for fault in Fault if fault not in but]
        where = {"session": session_id, "fault": {"in": faults}}
        for attempt in self._found(where):
            yield PastRelay(
                attempt.supplier,
                attempt.payload_sha256 or "",
                attempt.body,
                attempt.evidence,
                attempt.finished_at,
            )

    def _found(self, where: Where) -> Iterator[SessionAttempt]:
        documents = self._workspace.documents
        found = typed.find(documents, AttemptOfSupplier, where)
        heads = [head for head in found if head.supplier in self._suppliers]
        for start in range(0, len(heads), _TOGETHER):
            some = heads[start : start + _TOGETHER]
            suppliers = {head.supplier for head in some}
            try:
                yield from typed.by_id(
                    documents, SessionAttempt, [head.id for head in some], suppliers=suppliers
                ).values()
            except BodyUnavailable as error:
                _log.warning("an answer of session %s would not be recognised: %s", where["session"], error)
                yield from (self._readable(head.id) for head in some)

    def _readable(self, id_: str) -> SessionAttempt:
        """An attempt, without its answer where that cannot be read."""
        documents = self._workspace.documents
        try:
            (found,) = typed.by_id(documents, SessionAttempt, [id_]).values()
        except BodyUnavailable:
            (head,) = typed.by_id(documents, SessionAttemptHead, [id_]).values()
            return SessionAttempt(*head, body=b"")
        return found


def transports_to(workspace: Workspace, endpoints: Iterable[Endpoint]) -> RunTransports:
    """Prepare the transports to some endpoints; asks nodes for sessions and notes them."""
    targets = list(endpoints)
    history = StoredHistory(workspace, {target.supplier for target in targets})
    return RunTransports(workspace.config, targets, history)
