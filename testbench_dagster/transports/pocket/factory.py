"""The signed transport prepared for one run: keys, the sessions it sends in, and what these still grant."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError, ShannonError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import Quota
from testbench_dagster.core.relay import Endpoint, Transport
from testbench_dagster.transports.plug import RelayHistory
from testbench_dagster.transports.pocket.access import (
    chain_client,
    read_chain,
    service_config,
    service_keys,
)
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.evidence import parts_of
from testbench_dagster.transports.pocket.messages import SessionHeader
from testbench_dagster.transports.pocket.quota import SessionQuota
from testbench_dagster.transports.pocket.responses import read_response
from testbench_dagster.transports.pocket.sessions import SessionBook
from testbench_dagster.transports.pocket.transport import ShannonService, ShannonTransport

#: How attempts end that no miner can have charged for. It does for a request that its backend refused, and
#: for what was stored as ours only because the lease was lost.
FREE = frozenset(fault for fault in Fault if not fault.row.charged)


class PocketFactory:
    """Signed relays of some services; see :class:`~testbench_dagster.transports.plug.TransportFactory`.

    Asks the chain for their sessions, which blocks, and has them kept in ``history``, whose relays count as
    sent in them.
    """

    def __init__(self, config: Config, services: Iterable[str], history: RelayHistory) -> None:
        self._config = config
        self._history = history
        self._services: dict[str, ShannonService] = {}
        self._problems: dict[str, str] = {}  # by service
        self._counts: dict[str, Mapping[str, int]] = {}  # relays by supplier, by session
        self._counting = threading.Lock()
        self.unread: dict[str, str] = {}
        for service in sorted(set(services)):
            self._prepare(service)

    def _prepare(self, service: str) -> None:
        try:
            settings = service_config(self._config, service)
            keys = service_keys(self._config, service)
            client = chain_client(self._config, service)
        except ConfigError as error:
            self._problems[service] = str(error)
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
            service,
            client,
            book,
            keys,
            ring=settings.ring,
            stream=settings.stream,
            rpc_types=tuple(settings.rpc_types),
        )
        try:
            self._history.record_chain(read_chain(self._config, service))
            book.refresh()
        except ChainError as error:
            self.unread[service] = str(error)

    def problem(self, endpoint: Endpoint) -> str | None:
        """Why relays of its service cannot be signed."""
        return self._problems.get(endpoint.service)

    def open(self) -> Transport:
        """Make the transport."""
        return ShannonTransport(self._services)

    def quota(self, inner: Quota) -> Quota:
        """Bound a quota by what the sessions allow, relays of earlier runs in them counted."""
        books = {name: service.book for name, service in self._services.items()}
        return SessionQuota(inner, books, counted=self._counted)

    def used_up(self, endpoint: Endpoint) -> int | None:
        """Last height of the supplier's sessions of now if all they grant is used."""
        service = self._services.get(endpoint.service)
        return None if service is None else service.book.used_up(endpoint.address)

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
        replays, now = self._services[service].replays, datetime.now(UTC)
        found: Counter[str] = Counter()
        for relay in self._history.relays(session, FREE):
            found[relay.supplier] += 1
            try:
                signature = read_response(parts_of(relay.body, relay.evidence)[0]).signature
            except ShannonError:  # no signed answer
                continue
            age_s = (now - relay.finished_at).total_seconds()
            replays.remember(signature, bytes.fromhex(relay.payload_sha256), time.monotonic() - age_s)
        return found
