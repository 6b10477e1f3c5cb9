"""What a run needs to reach its suppliers: transports, keys, and the sessions native relays are bound to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from testbench_dagster.errors import ConfigError
from testbench_dagster.network.pocket import chain_client, refresh_sessions, service_config, service_keys
from testbench_dagster.relays.allowances import Allowance
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Endpoint, SessionRef, Transport
from testbench_dagster.stores.documents.collections import ATTEMPTS, SESSIONS
from testbench_dagster.workspace import Workspace

if TYPE_CHECKING:
    from testbench_dagster.relays.path import SessionLookup
    from testbench_dagster.relays.shannon.messages import SessionHeader
    from testbench_dagster.relays.shannon.transport import ShannonService

#: Attempts that no miner can have charged for. It does for a request that its backend refused, and for what
#: was stored as ours only because the lease was lost.
_FREE = {Fault.ROLLOVER, Fault.NODE, Fault.BUDGET}
_CHARGED = [fault.value for fault in Fault if fault not in _FREE]


class Reach:
    """The ways to the suppliers of one run.

    ``problems`` tells, by service, why none of its suppliers can be reached (a key is missing or wrong);
    ``unread`` why the sessions of a service are no newer than the store knows (no node answers).
    """

    def __init__(
        self, workspace: Workspace, services: Iterable[str] = (), suppliers: Collection[str] = ()
    ) -> None:
        """Prepare native relays of some services; asks the chain for their sessions and notes them.

        ``suppliers`` are the keys of those whose earlier relays in the sessions count.
        """
        self._workspace = workspace
        self._suppliers = frozenset(suppliers)
        self._services: dict[str, ShannonService] = {}
        self._counts: dict[str, Mapping[str, int]] = {}  # relays by supplier, by session
        self._counting = threading.Lock()
        self.problems: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        for service in dict.fromkeys(services):
            self._prepare(service)

    @classmethod
    def of(cls, workspace: Workspace, endpoints: Iterable[Endpoint]) -> Reach:
        """The ways to some endpoints."""
        native = [e for e in endpoints if e.transport == "shannon"]
        return cls(workspace, sorted({e.service for e in native}), {e.supplier for e in native})

    def _prepare(self, service: str) -> None:
        # with coincurve, httpx and aiohttp, which only those pay for who relay
        from testbench_dagster.network.chain.errors import ChainError
        from testbench_dagster.relays.shannon.sessions import SessionBook
        from testbench_dagster.relays.shannon.transport import ShannonService

        config = self._workspace.config
        try:
            settings = service_config(config, service)
            keys = service_keys(config, service)
            client = chain_client(config, service)
        except ConfigError as error:
            self.problems[service] = str(error)
            return
        if settings.nodes is None:
            raise ConfigError(f"services.{service}: transport shannon needs nodes")
        book = SessionBook(
            client,
            service,
            settings.session_apps,
            poll_s=settings.nodes.poll_s,
            max_relays=settings.max_relays_per_session,
        )
        self._services[service] = ShannonService(
            service, client, book, keys, ring=settings.ring, stream=settings.stream
        )
        try:
            refresh_sessions(self._workspace, service)
            book.refresh()
        except ChainError as error:
            self.unread[service] = str(error)

    def open(self) -> Transport:
        """Make the transport of a run, in its event loop; whoever called closes it."""
        from testbench_dagster.relays.transports import Transports

        if not self._services:
            return Transports(sessions=self._noted_sessions())
        from testbench_dagster.relays.shannon.transport import ShannonTransport

        return Transports(ShannonTransport(self._services), self._noted_sessions())

    def _noted_sessions(self) -> SessionLookup | None:
        """Finds sessions that the store knows, for relays through gateways; None where there are none."""
        services = self._workspace.config.settings.services
        if not any(service.transport == "path" and service.nodes for service in services.values()):
            return None
        known = {
            (row["service"], row["session_id"]): SessionRef(
                row["app"], row["session_id"], row["start_height"], row["end_height"], row["height"]
            )
            for row in self._workspace.documents.find(SESSIONS)
        }
        return lambda service, session_id: known.get((service, session_id))

    def within(self, allowance: Allowance) -> Allowance:
        """Bound an allowance by what the sessions allow, relays of earlier runs in them counted."""
        if not self._services:
            return allowance
        from testbench_dagster.relays.shannon.allowance import SessionAllowance

        books = {name: service.book for name, service in self._services.items()}
        return SessionAllowance(allowance, books, counted=self._counted)

    def spent(self, endpoints: Iterable[Endpoint]) -> dict[str, int]:
        """The suppliers whose relays of their current sessions are used up, with the last height of these."""
        found = {}
        for endpoint in endpoints:
            service = self._services.get(endpoint.service)
            until = None if service is None else service.book.used_up(endpoint.address)
            if until is not None:
                found[endpoint.supplier] = until
        return found

    def _counted(self, endpoint: Endpoint, session: SessionHeader) -> int:
        """Relays of a session that are stored, read once for all its suppliers.

        Each supplier is relayed to by one process at a time, and is counted before this one sends it anything
        in that session.
        """
        with self._counting:
            if session.session_id not in self._counts:
                self._counts[session.session_id] = self._look_back(endpoint.service, session.session_id)
            return self._counts[session.session_id].get(endpoint.supplier, 0)

    def _look_back(self, service: str, session: str) -> Mapping[str, int]:
        """Count the relays of earlier runs in a session, by supplier.

        Their answers are recognised from now on when they are sent again: what is signed once in a session
        stays valid in it.
        """
        from testbench_dagster.relays.shannon.errors import ShannonError
        from testbench_dagster.relays.shannon.evidence import parts_of
        from testbench_dagster.relays.shannon.responses import read_response

        replays, now = self._services[service].replays, datetime.now(UTC)
        found: Counter[str] = Counter()
        where = {"session": session, "fault": {"in": _CHARGED}}
        for attempt in self._workspace.documents.find(ATTEMPTS, where):
            if attempt["supplier"] not in self._suppliers:
                continue
            found[attempt["supplier"]] += 1
            try:
                signature = read_response(parts_of(attempt["body"], attempt["evidence"])[0]).signature
            except ShannonError:  # no signed answer
                continue
            age_s = (now - attempt["finished_at"]).total_seconds()
            replays.remember(signature, bytes.fromhex(attempt["payload_sha256"]), time.monotonic() - age_s)
        return found
