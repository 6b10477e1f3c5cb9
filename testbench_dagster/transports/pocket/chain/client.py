"""What a Pocket chain says, asked of a list of nodes and remembered for as long as it stays true.

How long that is:

========================  ==================================================================================
height                    ``height_ttl_s``; never goes backwards
parameters, application,  until the session ends in which they were read: the chain lets such changes begin
service                   with a session (a new delegation holds at once; ask ``fresh`` after delegating)
session                   until the chain is above its last height
what held at a height     for ever
public key                for ever: an address is a hash of it; that an account has none is not remembered
supplier, list of those   not at all
========================  ==================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

from testbench_dagster.core.bech32 import is_address
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import STRAIGHT, Route
from testbench_dagster.transports.pocket.chain import queries, reading
from testbench_dagster.transports.pocket.chain.abci import AbciApi
from testbench_dagster.transports.pocket.chain.cache import Cache
from testbench_dagster.transports.pocket.chain.error_mapping import session_unavailable
from testbench_dagster.transports.pocket.chain.errors import (
    BadAnswer,
    ChainError,
    NodeFault,
    NodeUnavailable,
    NotFound,
    PastUnknown,
)
from testbench_dagster.transports.pocket.chain.fields import shown
from testbench_dagster.transports.pocket.chain.node_api import NodeApi
from testbench_dagster.transports.pocket.chain.nodes import Asker, Nodes, shown_url
from testbench_dagster.transports.pocket.chain.queries import Query
from testbench_dagster.transports.pocket.chain.rest import RestApi
from testbench_dagster.transports.pocket.chain.transfer import Transfer
from testbench_dagster.transports.pocket.chain.types import (
    Application,
    ChainSupplier,
    NodeReport,
    NodeStatus,
    ServiceInfo,
    Session,
    SessionTerms,
    SharedParams,
)

#: Pages and suppliers of one listing; a node that tells of more is broken.
MAX_PAGES, MAX_SUPPLIERS = 1_000, 100_000
#: A listing of many pages may take this many times ``timeout_s``.
LISTING_TIMEOUTS = 12

T = TypeVar("T")


class ChainClient:
    """Asks nodes of a chain; thread-safe and blocking (call it in threads of an event loop's own).

    ``rest`` and ``rpc`` are URLs of nodes, REST ones asked first, connected to by ``route``. One exchange
    with a node takes at most ``timeout_s`` from first to last byte; a call goes from node to node and takes
    at most that for each (twice that for ones that recover meanwhile). Nodes that fail are left alone for
    ``pause_s``, doubled with each further failure in a row; those more than ``max_lag_blocks`` behind, or
    catching up, until they are not.

    Every method raises :class:`ChainError`: ``NodeUnavailable`` or ``BadAnswer`` if no node gives a usable
    answer, and what its own text says.
    """

    def __init__(
        self,
        *,
        rest: Sequence[str] = (),
        rpc: Sequence[str] = (),
        timeout_s: float = 10.0,
        height_ttl_s: float = 10.0,
        max_lag_blocks: int = 5,
        pause_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        route: Route = STRAIGHT,
    ) -> None:
        apis: list[NodeApi] = [
            *(RestApi(_checked(url, "rest")) for url in rest),
            *(AbciApi(_checked(url, "rpc")) for url in rpc),
        ]
        if not apis:
            raise ConfigError("nodes: no URL is given; list at least one under rest or rpc")
        self._timeout_s = timeout_s
        self._height_ttl_s = height_ttl_s
        self._clock = clock
        self._transfer = Transfer(timeout_s, route)
        self._nodes = Nodes(apis, self._transfer, max_lag_blocks=max_lag_blocks, pause_s=pause_s, clock=clock)
        self._cache = Cache()

    def __enter__(self) -> ChainClient:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections; calls under way and later ones raise :class:`ChainError`."""
        self._transfer.close()

    # ------------------------------------------------------------------------------------- the chain

    def status(self, *, fresh: bool = False) -> NodeStatus:
        """Return how far the chain is. ``catching_up`` is false: nodes that do are not believed."""

        def load() -> tuple[NodeStatus, float]:
            height = self._nodes.survey()
            return NodeStatus(height, False, time.time()), self._clock()

        status, _ = self._cache.get(
            "status", load, usable=lambda kept: self._clock() - kept[1] < self._height_ttl_s, fresh=fresh
        )
        return NodeStatus(max(status.height, self._nodes.height), status.catching_up, status.at)

    def height(self, *, fresh: bool = False) -> int:
        """Return the chain's height; never lower than before."""
        return self.status(fresh=fresh).height

    def nodes(self) -> list[NodeReport]:
        """Ask every node how far it is, and return how each stands; one that is down raises nothing."""
        with suppress(NodeUnavailable):
            self._nodes.survey(everyone=True)
        return self._nodes.reports()

    def shared_params(self, *, height: int | None = None) -> SharedParams:
        """Return the shared parameters, those of now or those that held at an earlier height."""
        if height is not None:
            known = self.height()
            if not 1 <= height <= known:
                raise _no_height(height, known)
            return self._cache.get(
                ("shared_params", height),
                lambda: self._ask(queries.shared_params(height), reading.read_shared_params),
            )
        now = self.height()
        params, _ = self._cache.get(
            "shared_params", self._load_shared_params, usable=lambda kept: now <= kept[1]
        )
        return params

    def terms(self, service: str, height: int) -> SessionTerms:
        """Return what prices relays of a service in the session that began at ``height``.

        Where no node tells of then, what holds now stands in, and ``doubts`` says so.

        Raises:
            NotFound: there is no such service.
        """
        _check_service(service)
        known = self.height()
        if not 1 <= height <= known:
            raise _no_height(height, known)
        return self._cache.get(
            ("terms", service, height),
            lambda: self._load_terms(service, height),
            keep=lambda found: not found.doubts,
        )

    def suppliers_per_session(self) -> int:
        """Return how many suppliers a session has at most."""
        return self._in_session(
            "session_params",
            lambda: self._ask(queries.session_params(), reading.read_suppliers_per_session),
        )

    def application(self, address: str, *, fresh: bool = False) -> Application:
        """Return a staked application. Raises :class:`NotFound` if there is none."""
        _check_address("application", address)
        return self._in_session(
            ("application", address),
            lambda: self._ask(
                queries.application(address), lambda answer: reading.read_application(answer, address)
            ),
            fresh=fresh,
        )

    def session(
        self, application: str, service: str, *, fresh: bool = False, height: int | None = None
    ) -> Session:
        """Return the current session of an application for a service, or that at an earlier height.

        Raises:
            SessionUnavailable: there is none. ``height_ahead`` means that the nodes have not reached the
                height that is known yet, which passes.
        """
        _check_address("application", application)
        _check_service(service)
        now = self.height()
        if height is not None and not 1 <= height <= now:
            raise _no_height(height, now)
        query = queries.session(application, service, height)

        def read(answer: object) -> Session:
            session = reading.read_session(answer, application, service)
            header = session.header
            if height is not None:
                if not header.start_height <= height <= header.end_height:
                    raise BadAnswer(
                        f"answer.session.header: {header.start_height} to {header.end_height} are not the "
                        f"heights of a session at {height}"
                    )
                return session
            if header.start_height > now:  # the chain has gone on since we asked
                self._nodes.observe(header.start_height, now)
            return session

        def work(asker: Asker) -> Session:
            known = self._nodes.height
            session = asker.ask(query, read)
            end = session.header.end_height
            if height is None and end < known:
                # the node is behind others by less than counts as lag, but enough to miss the new session
                if end < known - self._nodes.max_lag_blocks:
                    raise NodeFault(f"lags: the session it tells of ended at height {end}, before {known}")
                raise session_unavailable(
                    "height_ahead", query, f"that told of ended at height {end}, and the chain is at {known}"
                )
            return session

        key = ("session", application, service, height)
        return self._cache.get(
            key,
            lambda: self._over(query.what, work),
            usable=lambda kept: height is not None or now <= kept.header.end_height,
            fresh=fresh,
        )

    def suppliers(self, service: str) -> list[ChainSupplier]:
        """Return all suppliers staked for a service, each once, in the order of the chain."""
        _check_service(service)

        def work(asker: Asker) -> list[ChainSupplier]:
            return self._list_suppliers(asker, service)

        what = queries.suppliers(service).what
        return list(self._cache.get(("suppliers", service), lambda: self._over(what, work), keep=_never))

    def supplier(self, operator: str, service: str) -> ChainSupplier:
        """Return a supplier staked for a service. Raises :class:`NotFound` if it is not."""
        _check_address("supplier", operator)
        _check_service(service)
        found = self._cache.get(
            ("supplier", operator, service),
            lambda: self._ask(
                queries.supplier(operator),
                lambda answer: reading.read_one_supplier(answer, operator, service),
            ),
            keep=_never,
        )
        if found is None:
            raise NotFound(f"supplier {operator} is not staked for {service}; stake it, or correct the name")
        return found

    def service(self, service: str) -> ServiceInfo:
        """Return a service. Raises :class:`NotFound` if there is none."""
        _check_service(service)
        return self._in_session(
            ("service", service),
            lambda: self._ask(queries.service(service), lambda answer: reading.read_service(answer, service)),
        )

    def public_key(self, address: str, *, fresh: bool = False) -> bytes | None:
        """Return the compressed secp256k1 public key of an account, proven by its address.

        None for an account that has none: it does not exist, has not signed a transaction yet, or is one of
        several signers.
        """
        _check_address("account", address)

        def load() -> bytes | None:
            try:
                return self._ask(
                    queries.account(address), lambda answer: reading.read_account(answer, address)
                )
            except NotFound:
                return None

        return self._cache.get(("public_key", address), load, keep=lambda key: key is not None, fresh=fresh)

    # ---------------------------------------------------------------------------------------- inside

    def _over(self, what: str, work: Callable[[Asker], T]) -> T:
        self.status()  # who is usable must not be older than the height
        return self._nodes.over(what, work)

    def _ask(self, query: Query, read: Callable[[object], T]) -> T:
        return self._over(query.what, lambda asker: asker.ask(query, read))

    def _load_terms(self, service: str, height: int) -> SessionTerms:
        doubts = []
        try:
            shared = self.shared_params(height=height)
        except PastUnknown:
            shared = self.shared_params()
            doubts.append("the shared parameters")
        number = self.suppliers_per_session()
        with suppress(PastUnknown):
            # a miner divides the stake by the number it reads as the first relay comes: the larger is safe
            number = max(
                number, self._ask(queries.session_params(height), reading.read_suppliers_per_session)
            )
        info = self.service(service)
        try:
            units = self._compute_units(service, height)
        except PastUnknown:
            units = info.compute_units_per_relay
            doubts.append("the compute units of a relay")
        return SessionTerms(shared, number, replace(info, compute_units_per_relay=units), tuple(doubts))

    def _compute_units(self, service: str, height: int) -> int:
        """Compute units of a relay at a height: by the query for it, or as nodes told at that height."""
        try:
            return self._ask(queries.compute_units(service, height), reading.read_compute_units)
        except PastUnknown:
            query = queries.service(service, height)
            told = self._ask(query, lambda answer: reading.read_service(answer, service))
            return told.compute_units_per_relay

    def _load_shared_params(self) -> tuple[SharedParams, int]:
        now = self.height()  # before the answer: at the edge of a session too short rather than too long
        params = self._ask(queries.shared_params(), reading.read_shared_params)
        return params, params.session_end(now)

    def _in_session(self, key: object, load: Callable[[], T], *, fresh: bool = False) -> T:
        """Return something that stays as it is until the session ends."""
        end = self.shared_params().session_end(self.height())
        value, _ = self._cache.get(
            key, lambda: (load(), end), usable=lambda kept: end <= kept[1], fresh=fresh
        )
        return value

    def _list_suppliers(self, asker: Asker, service: str) -> list[ChainSupplier]:
        """Read all pages from one node.

        The chain pages over changes of services' configurations: pages may be short or empty before the last,
        and an operator may come again on another page.
        """
        found: dict[str, ChainSupplier] = {}
        told: set[bytes] = set()
        started, key = time.monotonic(), b""
        for _ in range(MAX_PAGES):
            page, key = asker.ask(
                queries.suppliers(service, key), lambda answer: reading.read_suppliers(answer, service)
            )
            for supplier in page:
                found.setdefault(supplier.operator, supplier)
            if not key:
                return list(found.values())
            if key in told:
                raise BadAnswer(
                    f"answer.pagination.next_key {shown(key.hex())} comes again: pages do not end"
                )
            told.add(key)
            if len(found) > MAX_SUPPLIERS:
                raise BadAnswer(f"answer.supplier: more than {MAX_SUPPLIERS} suppliers of {service}")
            if time.monotonic() - started > LISTING_TIMEOUTS * self._timeout_s:
                raise NodeFault(f"takes longer than {LISTING_TIMEOUTS * self._timeout_s:g} s for all pages")
        raise BadAnswer(f"answer.pagination: more than {MAX_PAGES} pages of suppliers of {service}")


def _never(value: object) -> bool:
    return False


def _checked(url: str, kind: str) -> str:
    """Return a node's URL. Raises :class:`ConfigError` if it is none that can be asked."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f"nodes.{kind}: an entry is no URL; give one like https://node.example") from None
    if not fit or parts.fragment or not url.isprintable() or " " in url:
        raise ConfigError(
            f"nodes.{kind}: {shown(shown_url(url))} is no http or https URL of a node; give one like "
            "https://node.example"
        )
    return url


def _no_height(height: object, known: int) -> ChainError:
    return ChainError(f"height {shown(height)} is not in 1 to {known}, the chain's height; give one that is")


def _check_address(what: str, address: str) -> None:
    if not isinstance(address, str) or not is_address(address):
        raise ChainError(f"{what} {shown(address)} is no Pocket address; give one that starts with pokt1")


def _check_service(service: str) -> None:
    if not isinstance(service, str) or not reading.SERVICE_ID.fullmatch(service):
        raise ChainError(
            f"service {shown(service)} is no service id; give 1 to 42 letters, digits, hyphens or underscores"
        )
