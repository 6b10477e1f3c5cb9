"""What a transport is to the rest of the platform: one object that does everything it takes to use it.

A transport has a package of its own beside this module, whose ``plug.py`` holds a class that implements
:class:`TransportPlug`; :mod:`.registry` knows it by name, and nothing else asks which transport it is. Who
writes another one gives it

- ``name``, and ``rules`` where services of testbench.yaml are reached by it;
- ``sources``, which find suppliers (:mod:`.discovery`);
- ``endpoint`` of a supplier: where relays go, with which bounds and keys; ``lists_models`` of an endpoint:
  whether it may be asked which models it serves;
- ``key_problem`` of a service: why its relays cannot be signed;
- ``prepare``, a :class:`TransportFactory` per run, which opens the transport, bounds it and says what stands
  in the way;
- ``waiting``, why a supplier has to wait; ``sends_only_in_sessions``, whether a relay that no session allowed
  was not sent at all;
- ``check``, findings for ``testbench check``;
- ``shown`` and ``signature``, for when evidence is checked: what a stored attempt shows of its fault, and
  whose signature it carries (:mod:`.stored`);
- ``about``, what ``docs/transports.md`` says of it (:class:`About`); the steps to add one stand there.

A plug is imported wherever Dagster loads its definitions, so ``plug.py`` imports what is heavy where it is
used (aiohttp 0.2 s, httpx 60 ms, the curve library). Its transport sends through :mod:`.http` and makes
attempts in :mod:`.outcome`. It never asks a store: what it needs to know of the past is handed to it
(:class:`RelayHistory`, :class:`KnownSessions`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from testbench_dagster.config import Config, ServiceRules
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.quota import Quota
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Endpoint, SessionRef, Transport, TransportName
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.discovery import ChainReading, Source
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.stored import Shown, StoredSignature

#: Operators of a service whom the roster has as active, with their public keys as far as it knows them.
KnownOperators = Callable[[str], Mapping[str, str | None]]
#: Finds the session of a service by its id; None if it is not known.
SessionLookup = Callable[[str, str], SessionRef | None]


@dataclass(frozen=True)
class About:
    """What the documentation says of a transport, written where it is done.

    ``summary`` is how it reaches suppliers, ``suppliers`` where these come from, ``keys`` which keys of
    testbench.yaml are its own, ``quotas`` what bounds its relays beside the budget, ``check`` what
    ``testbench check`` looks at, ``faults`` how its attempts can end, ``more`` the page that says more.
    """

    summary: str
    suppliers: str
    keys: Sequence[str]
    quotas: str
    check: str
    faults: Sequence[Fault]
    more: str


@dataclass(frozen=True)
class KnownSession:
    """The newest session of an application that is known: its last height, and who is in it."""

    end_height: int
    suppliers: Collection[str]


@dataclass(frozen=True)
class KnownSessions:
    """What is known of a service without asking a node: its height, and a session per application.

    ``silent_since`` is when its chain told of its last block, if that is too long ago to be believed.
    """

    height: int | None = None
    sessions: Sequence[KnownSession] = ()
    silent_since: datetime | None = None

    @property
    def current(self) -> list[KnownSession]:
        """The sessions that are not over at the known height."""
        return [s for s in self.sessions if self.height is None or s.end_height >= self.height]


@dataclass(frozen=True)
class PastRelay:
    """A relay of an earlier run: whom it went to, what was asked and answered, and when."""

    supplier: str
    payload_sha256: str
    body: bytes
    evidence: Mapping[str, Any]
    finished_at: datetime


class RelayHistory(Protocol):
    """What the store of a run's installation tells a transport, and keeps for the next run."""

    def record_chain(self, reading: ChainReading) -> None:
        """Keep what the chain told."""
        ...

    def sessions(self) -> SessionLookup:
        """Find the sessions that are known as of now."""
        ...

    def relays(self, session_id: str, but: Collection[Fault]) -> Iterable[PastRelay]:
        """Stored relays of this run's suppliers in a session, without those that ended in some faults."""
        ...


class TransportFactory(Protocol):
    """A transport, or several, prepared for one run.

    ``unread`` tells, by service, why the sessions of a service are no newer than was known (no node answers).
    """

    @property
    def unread(self) -> Mapping[str, str]:
        """Why sessions could not be read, by service."""
        ...

    def problem(self, endpoint: Endpoint) -> str | None:
        """Why nothing can be sent to an endpoint in this run (a key is missing or wrong), or None."""
        ...

    def open(self) -> Transport:
        """Make the transport, in the event loop of the run; whoever called closes it."""
        ...

    def quota(self, inner: Quota) -> Quota:
        """Bound a quota by what this transport allows."""
        ...

    def used_up(self, endpoint: Endpoint) -> int | None:
        """Last height of the sessions in which the relays of an endpoint are used up, or None."""
        ...


@dataclass(frozen=True)
class PlainFactory:
    """A transport that needs no preparation: nothing stands in its way, and nothing bounds it."""

    make: Callable[[], Transport]
    unread: Mapping[str, str] = field(default_factory=dict)

    def problem(self, endpoint: Endpoint) -> str | None:
        """Nothing."""
        return None

    def open(self) -> Transport:
        """Make the transport."""
        return self.make()

    def quota(self, inner: Quota) -> Quota:
        """The same."""
        return inner

    def used_up(self, endpoint: Endpoint) -> int | None:
        """Nothing is."""
        return None


class TransportPlug(Protocol):
    """One way to reach suppliers."""

    @property
    def name(self) -> TransportName:
        """What it is called in testbench.yaml and in the store."""
        ...

    @property
    def rules(self) -> ServiceRules | None:
        """What it asks of services of testbench.yaml that it reaches; None where it reaches none."""
        ...

    @property
    def sends_only_in_sessions(self) -> bool:
        """Whether a relay that no session allowed says nothing about its supplier, because none was sent."""
        ...

    @property
    def about(self) -> About:
        """What the documentation says of it."""
        ...

    def sources(self, config: Config, services: Sequence[str], known: KnownOperators) -> Mapping[str, Source]:
        """The sources of its suppliers, by what the roster calls them.

        Args:
            config: the configuration.
            services: ids of the services that are configured with it.
            known: who the roster has of a service.
        """
        ...

    def endpoint(self, config: Config, supplier: Supplier) -> Endpoint:
        """Where relays to one of its suppliers go; keys and tokens are read from the environment here.

        Raises:
            ConfigError: a variable that should hold one is not set, or holds what no header can carry.
        """
        ...

    def key_problem(self, config: Config, service: str) -> str | None:
        """Why no relay of a service can be signed, or None."""
        ...

    def prepare(self, config: Config, services: Collection[str], history: RelayHistory) -> TransportFactory:
        """Prepare it for a run to suppliers of some services; may block, as nodes are asked."""
        ...

    def waiting(self, supplier: Supplier, known: KnownSessions, spent_until: int | None) -> str | None:
        """Why a supplier cannot be sent relays now, None if it can; asks nobody.

        Args:
            supplier: one of its suppliers.
            known: what is known of the sessions of its service.
            spent_until: last height of the session in which its relays are used up.
        """
        ...

    def shown(
        self, attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None
    ) -> Shown | None:
        """What a stored attempt shows of its fault by the transport's own rules; None without such rules.

        Args:
            attempt: an attempt as anybody may have written it; its evidence says whose it claims to be.
            request: what was asked.
            api: the request form.
            error: the text that its fault was given.
        """
        ...

    def signature(self, attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
        """The verified signature of a stored answer; None where this transport's answers carry none.

        Args:
            attempt: an attempt as anybody may have written it.
            answered: whether it is said to have brought an answer.

        Raises:
            Unsigned: an answer that should carry one does not.
            BadSignature: it does not hold.
        """
        ...

    def lists_models(self, endpoint: Endpoint) -> bool:
        """Whether what lies at the base URL may be asked for the models it serves."""
        ...

    def check(self, config: Config, service: str) -> Iterator[Finding]:
        """Look at all that relays for a service need; sends none, and raises for nothing it finds."""
        ...
