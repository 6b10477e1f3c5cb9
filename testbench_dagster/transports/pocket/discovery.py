"""The suppliers of a Pocket service as the chain has them: a source of the roster, named ``service:<id>``.

A node is asked for the sessions of the configured applications and for who staked. What it tells of suppliers
is not trusted: anyone who stakes chooses the URL.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field

from testbench_dagster.config import SERVICE_SOURCE, Config, SupplierConfig
from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.discovery import ChainReading, Entry, Listing, SourceError
from testbench_dagster.transports.pocket.access import chain_client, service_config
from testbench_dagster.transports.pocket.applications import app_states
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.chain.types import ChainSupplier, Session
from testbench_dagster.transports.pocket.staked import UnusableEndpoint, usable_endpoint

_MAX_PROBLEMS = 100  # told of suppliers one by one; a service may have thousands
_KEYS_AT_ONCE = 8
_SPARE_S = 3.0  # of the time for reading, left for what comes after the list of all who staked
_MOST_UPOKT = 2**63 - 1  # that a store keeps; far above what there will ever be


@dataclass(frozen=True)
class ChainSource:
    """The suppliers of a service as the chain has them.

    With ``discover: sessions`` those of the current sessions, and of those known before who still is staked:
    who is in no session now waits, but has not left. With ``staked`` all that staked. Where that list cannot
    be read in time, those in sessions still can be asked, and the rest stay as they were. ``known`` are the
    operators the roster has as active, with their public keys as far as it knows them. ``signed``: relays are
    signed here and go to the staked URL, so that has to be one we may connect to, applications need keys, and
    suppliers public ones; otherwise the URL is only what suppliers are told apart by.
    """

    config: Config
    service: str
    known: Mapping[str, str | None] = field(default_factory=dict)
    signed: bool = False

    def read(self, deadline: float) -> Listing:
        """Read it before ``deadline`` (``time.monotonic()`` seconds).

        Raises:
            SourceError: no node can be read, or it answers nonsense.
        """
        try:
            return _Reading(self, deadline).listing()
        except ChainError as error:
            raise SourceError(f"the chain cannot be read: {error}") from None


class _Reading:
    """One reading of a service from the chain."""

    def __init__(self, source: ChainSource, deadline: float) -> None:
        self._name = source.service
        self._label = f"{SERVICE_SOURCE}{source.service}"
        self._service = service_config(source.config, source.service)
        self._client = chain_client(source.config, source.service)
        self._known = source.known
        self._signed = source.signed
        self._deadline = deadline
        self._problems: dict[str, str] = {}
        self._warnings: dict[str, str] = {}
        self._untold = 0

    def listing(self) -> Listing:
        """Read it all."""
        height = self._client.height()
        blocks = self._client.shared_params().num_blocks_per_session
        sessions = self._sessions()
        entries, broken = self._entries(sessions, height)
        if self._untold:
            self._problems[f"{self._label}: further suppliers"] = f"{self._untold} more have a problem"
        return Listing(
            entries,
            height,
            broken=frozenset(broken),
            problems=self._problems,
            warnings=self._warnings,
            chain=ChainReading(self._name, height, sessions, blocks),
        )

    def _sessions(self) -> tuple[Session, ...]:
        found = []
        for state in app_states(self._client, self._name, self._service, signed=self._signed):
            where = f"{self._label}: app {state.address}"
            if state.problems:
                self._problems[where] = f"{where} {'; it '.join(state.problems)}"
            if state.warnings:
                self._warnings[where] = f"{where} {'; it '.join(state.warnings)}"
            if state.session is not None:
                found.append(state.session)
        return tuple(found)

    def _entries(self, sessions: Sequence[Session], height: int) -> tuple[list[Entry], set[str]]:
        in_session = {s.operator: s for session in sessions for s in session.suppliers}
        chosen, unclear = self._chosen(in_session, height)
        public_keys = self._public_keys([o for o in chosen if o in in_session])
        entries, broken = [], {f"{operator}@{self._name}" for operator in unclear}
        for operator, supplier in chosen.items():
            key = f"{operator}@{self._name}"
            try:
                entries.append(self._entry(supplier, public_keys.get(operator)))
            except UnusableEndpoint as error:
                broken.add(key)
                self._tell(self._problems, key, str(error))
        return entries, broken

    def _chosen(
        self, in_session: Mapping[str, ChainSupplier], height: int
    ) -> tuple[dict[str, ChainSupplier], set[str]]:
        """Who belongs to the roster, by operator; and of whom it is not known."""
        only, everyone = self._service.only, self._service.discovery == "staked"
        chosen = {} if everyone else dict(in_session)
        absent = [
            operator for operator in {**self._known, **dict.fromkeys(only or ())} if operator not in chosen
        ]
        unclear: set[str] = set()
        if absent or everyone:
            staked = self._staked(height)
            if staked is None:
                chosen = dict(in_session)
                unclear = {operator for operator in self._known if operator not in chosen}
            else:
                wanted = staked if everyone else [o for o in absent if o in self._known]
                chosen |= {operator: staked[operator] for operator in wanted if operator in staked}
            for operator in only or ():
                if staked is not None and operator not in staked and operator not in chosen:
                    self._warnings[f"{operator}@{self._name}"] = (
                        f"{self._label}: only names {operator}, which is not staked for the service; "
                        "correct it, or wait until it is"
                    )
        if only is not None:
            chosen = {operator: supplier for operator, supplier in chosen.items() if operator in only}
            unclear &= set(only)
        return chosen, unclear

    def _staked(self, height: int) -> dict[str, ChainSupplier] | None:
        """Everyone who staked for the service, by operator; None if that cannot be read in time."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="staked-suppliers")
        try:
            listing = pool.submit(self._client.suppliers, self._name)
            found = listing.result(max(0.0, self._deadline - _SPARE_S - time.monotonic()))
        except (ChainError, NotInTime) as error:
            why = str(error) or "it takes too long"
            self._problems[f"{self._label}: staked suppliers"] = (
                f"{self._label}: who staked cannot be listed: {why}; those in no session stay as they were"
            )
            return None
        finally:
            pool.shutdown(wait=False)
        return {s.operator: s for s in found if not 0 < s.unstake_session_end_height < height}

    def _entry(self, supplier: ChainSupplier, public_key: str | None) -> Entry:
        service = self._service
        endpoint = usable_endpoint(
            supplier.endpoints,
            service.rpc_types,
            allow_private=service.allow_private_networks or not self._signed,
        )
        config = SupplierConfig(
            address=supplier.operator,
            service=self._name,
            base_url=endpoint.url,
            api=service.api,
            model=service.model,
            relays=service.relays,
        )
        return Entry(
            config,
            transport=service.transport,
            rpc_type=endpoint.rpc_type,
            stake_upokt=min(supplier.stake_upokt, _MOST_UPOKT),
            host=host_of(endpoint.url),
            owner=supplier.owner or None,
            public_key=public_key,
        )

    def _public_keys(self, operators: Iterable[str]) -> dict[str, str]:
        """Public keys that the roster lacks, of operators that may be asked now; warns of who has none."""
        unknown = [o for o in operators if self._known.get(o) is None]
        if not unknown or not self._signed:
            return {}

        def read(operator: str) -> bytes | ChainError | None:
            if time.monotonic() >= self._deadline:
                return ChainError("too late")
            try:
                return self._client.public_key(operator)
            except ChainError as error:
                return error

        found = {}
        with ThreadPoolExecutor(min(_KEYS_AT_ONCE, len(unknown)), thread_name_prefix="public-keys") as pool:
            for operator, answer in zip(unknown, pool.map(read, unknown), strict=True):
                if isinstance(answer, bytes):
                    found[operator] = answer.hex()
                elif answer is None:
                    self._tell(
                        self._warnings,
                        f"{operator}@{self._name}",
                        "has no public key on the chain, so nothing it answers can be verified; its operator "
                        "has to sign a transaction once",
                    )
        return found

    def _tell(self, where: dict[str, str], key: str, text: str) -> None:
        if len(self._problems) + len(self._warnings) < _MAX_PROBLEMS:
            where[key] = f"{self._label}: supplier {key} {text}"
        else:
            self._untold += 1
