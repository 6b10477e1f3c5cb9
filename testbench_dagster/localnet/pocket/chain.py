"""State of the simulated chain: what is staked, by whom, since when; sessions; parameters; accounts.

Everything is kept with the height from which it held, so that past heights can be asked for, as of nodes that
keep their history. Sessions follow poktroll's ``x/session``; its rules are written out at the functions.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Generic, Literal, TypeVar

from testbench_dagster.localnet.pocket.clock import BlockClock
from testbench_dagster.transports.pocket.messages import RpcType, SessionHeader

T = TypeVar("T")
Shape = Literal["base", "module", "vesting"]

UPOKT = 1_000_000
#: Parameters that nodes show as changed at once, though they price nothing before the next session (poktroll
#: ``recordParamsHistory`` and ``RecordParamsHistory``); the others are shown when they hold.
SHOWN_AT_ONCE = (
    "compute_units_to_tokens_multiplier",
    "compute_unit_cost_granularity",
    "num_suppliers_per_session",
)


class QueryError(Exception):
    """A query the chain refuses: gRPC status ``code`` (3 invalid argument, 5 not found, 13 internal)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class History(Generic[T]):
    """A value that changes at heights; of changes at one height the last counts."""

    __slots__ = ("_heights", "_values")

    def __init__(self, height: int, value: T) -> None:
        self._heights = [height]
        self._values = [value]

    def at(self, height: int) -> T | None:
        """The value at ``height``, None before the first."""
        place = bisect_right(self._heights, height)
        return self._values[place - 1] if place else None

    @property
    def newest(self) -> T:
        """The value set last, though it may hold later only."""
        return self._values[-1]

    def set(self, height: int, value: T) -> None:
        """From ``height`` on it is ``value``; what was set for later is forgotten."""
        while self._heights and self._heights[-1] >= height:
            self._heights.pop()
            self._values.pop()
        self._heights.append(height)
        self._values.append(value)


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters of the modules shared, session and service, by the chain's names where it has them.

    The grid of sessions is anchored: session ``anchor_number`` starts at ``anchor_height``.
    """

    num_blocks_per_session: int = 20
    grace_period_end_offset_blocks: int = 10
    claim_window_open_offset_blocks: int = 10
    claim_window_close_offset_blocks: int = 10
    proof_window_open_offset_blocks: int = 0
    proof_window_close_offset_blocks: int = 10
    compute_units_to_tokens_multiplier: int = 145_990
    compute_unit_cost_granularity: int = 1_000_000
    num_suppliers_per_session: int = 50
    anchor_height: int = 1
    anchor_number: int = 1

    def __post_init__(self) -> None:
        low = {
            "num_blocks_per_session": 1,
            "num_suppliers_per_session": 1,
            "compute_unit_cost_granularity": 1,
        }
        for name in self.__slots__:
            if getattr(self, name) < low.get(name, 0):
                raise ValueError(f"{name} is {getattr(self, name)}; want at least {low.get(name, 0)}")

    def session_at(self, height: int) -> tuple[int, int, int]:
        """Start, end and number of the session that a height lies in."""
        past = (height - self.anchor_height) // self.num_blocks_per_session
        start = self.anchor_height + past * self.num_blocks_per_session
        return start, start + self.num_blocks_per_session - 1, self.anchor_number + past

    def relay_cost(self, compute_units: int) -> Fraction:
        """What one relay costs, in upokt."""
        units = compute_units * self.compute_units_to_tokens_multiplier
        return Fraction(units, self.compute_unit_cost_granularity)

    def session_budget(self, stake: int) -> Fraction:
        """What one supplier accepts from an application in one session, in upokt.

        The stake is shared among the suppliers of a session and the sessions that may be unsettled at once
        (poktroll's relay meter).
        """
        settling = (
            self.claim_window_open_offset_blocks
            + self.claim_window_close_offset_blocks
            + self.proof_window_open_offset_blocks
            + self.proof_window_close_offset_blocks
        )
        pending = -(-settling // self.num_blocks_per_session) + 1
        return Fraction(stake, self.num_suppliers_per_session * pending)


@dataclass(frozen=True, slots=True)
class Service:
    """A service relays are for."""

    id: str
    name: str
    compute_units_per_relay: int = 1000
    owner: str = ""
    card: bytes = b""


@dataclass(frozen=True, slots=True)
class App:
    """An application; it pays for the relays of its one service."""

    address: str
    stake: int
    service: str
    gateways: tuple[str, ...] = ()
    pending_undelegations: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unstake_session_end_height: int = 0

    def signers(self, session_end: int) -> set[str]:
        """Addresses that may sign for it in the session that ends at that height."""
        pending = [
            gateways for height, gateways in self.pending_undelegations.items() if height >= session_end
        ]
        return {self.address, *self.gateways, *(gateway for each in pending for gateway in each)}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a supplier's relay miner listens, and for what."""

    url: str
    rpc_type: RpcType = RpcType.REST


@dataclass(frozen=True, slots=True)
class Offer:
    """A supplier's configuration for one service, in force from ``since`` to ``until``.

    The chain calls it a service config update; changes make new ones.
    """

    operator: str
    service: str
    endpoints: tuple[Endpoint, ...]
    since: int
    until: int | None = None

    def active(self, height: int) -> bool:
        """Whether it is in force at a height."""
        return self.since <= height and (self.until is None or height <= self.until)


@dataclass(frozen=True, slots=True)
class Stake:
    """What a supplier staked; ``unstake_session_end_height`` is 0 while it stays."""

    operator: str
    owner: str
    amount: int
    unstake_session_end_height: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """An account; its public key is on chain once it signed something."""

    address: str
    public_key: bytes | None
    number: int
    shape: Shape = "base"


@dataclass(frozen=True, slots=True)
class StakedSupplier:
    """A supplier as queries show it: its stake and the offers in force, of one service or all."""

    stake: Stake
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """Who serves an application for some blocks."""

    header: SessionHeader
    number: int
    num_blocks: int
    app: App
    suppliers: tuple[StakedSupplier, ...]

    def has(self, operator: str) -> bool:
        """Whether a supplier is in it."""
        return any(supplier.stake.operator == operator for supplier in self.suppliers)


class Chain:
    """The chain: deterministic in its seed, the heights at which it was changed, and the changes."""

    def __init__(self, seed: int, params: Params, clock: BlockClock) -> None:
        self.seed = seed
        self.clock = clock
        self.first = clock.height
        self._params: History[Params] = History(0, params)
        self._shown: History[Params] = History(0, params)
        self.services: dict[str, Service] = {}
        # by service: what it showed at heights, and the compute units that price a session that starts there
        self._services: dict[str, History[Service]] = {}
        self._units: dict[str, History[int]] = {}
        self._apps: dict[str, History[App | None]] = {}
        self._stakes: dict[str, History[Stake | None]] = {}
        self._accounts: dict[str, History[Account]] = {}
        self._gateways: dict[str, History[int]] = {}
        #: Offers in the order they were made; queries page over them.
        self._offers: list[Offer] = []
        # sessions as computed since the last change
        self._sessions: dict[tuple[str, str, int], Session] = {}

    # ------------------------------------------------------------------------------------- reading

    @property
    def height(self) -> int:
        """The height now."""
        return self.clock.height

    def params(self, height: int) -> Params:
        """The parameters in force at a height."""
        params = self._params.at(height)
        if params is None:
            raise ValueError(f"height {height} is none: parameters are in force from 0")
        return params

    def shown_params(self, height: int) -> Params:
        """What a node at a height tells of the parameters of now: some changes show before they hold."""
        params = self._shown.at(height)
        if params is None:
            raise ValueError(f"height {height} is none: parameters are in force from 0")
        return params

    def compute_units(self, service: str, height: int) -> int:
        """Compute units of a relay of a service in the session that a height lies in.

        Raises QueryError (not found).
        """
        known = self.service(service).compute_units_per_relay
        units = self._units[service].at(height)
        return known if units is None else units

    def block_hash(self, height: int) -> bytes:
        """Hash of a block; made up."""
        return hashlib.sha256(f"sim:{self.seed}:block:{height}".encode()).digest()

    def session_at(self, height: int) -> tuple[int, int, int]:
        """Start, end and number of the session that a height lies in."""
        return self.params(height).session_at(height)

    def app(self, address: str, height: int) -> App:
        """An application. Raises QueryError (not found)."""
        app = self._at(self._apps, address, height)
        if app is None:
            raise QueryError(5, f"application not found: address {address}")
        return app

    def apps(self, height: int) -> list[App]:
        """All applications."""
        return [app for address in self._apps if (app := self._at(self._apps, address, height))]

    def account(self, address: str, height: int) -> Account:
        """An account. Raises QueryError (not found)."""
        account = self._at(self._accounts, address, height)
        if account is None:
            raise QueryError(5, f"account {address} not found")
        return account

    def gateway_stake(self, address: str, height: int) -> int:
        """A gateway's stake. Raises QueryError (not found)."""
        stake = self._at(self._gateways, address, height)
        if stake is None:
            raise QueryError(5, f"gateway not found: address {address}")
        return stake

    def service(self, service: str, height: int | None = None) -> Service:
        """A service as it stands now, or as a node at a height told of it. Raises QueryError (not found)."""
        known = self._services.get(service)
        found = None if known is None else known.newest if height is None else known.at(height)
        if found is None:
            raise QueryError(5, f"service not found: service ID {service}")
        return found

    def offers(self) -> tuple[Offer, ...]:
        """All offers ever made."""
        return tuple(self._offers)

    def stake(self, operator: str, height: int) -> Stake | None:
        """A supplier's stake, None where there is none."""
        return self._at(self._stakes, operator, height)

    def supplier(self, operator: str, height: int) -> StakedSupplier:
        """A supplier with all that it offers. Raises QueryError (not found)."""
        stake = self.stake(operator, height)
        if stake is None:
            raise QueryError(5, f"supplier with address: {operator!r} not found")
        mine = (offer for offer in self._offers if offer.operator == operator and offer.active(height))
        newest = {offer.service: offer for offer in mine}
        return StakedSupplier(stake, tuple(newest.values()))

    def signer_keys(self, app: App, session_end: int, height: int, placeholder: bytes) -> set[bytes]:
        """Public keys that may stand in the ring of a relay (poktroll ``crypto/rings``).

        Where no gateway may sign, the placeholder may: anyone can derive its private key.
        """
        signers = app.signers(session_end)
        keys = {self.account(address, height).public_key for address in signers}
        if len(signers) == 1:
            keys.add(placeholder)
        return {key for key in keys if key is not None}

    def session(self, app_address: str, service: str, height: int, now: int | None = None) -> Session:
        """The session at a height, for who is at height ``now``; None is the chain's own.

        Raises QueryError (internal), with poktroll's texts.

        Id: hex SHA3-256 of hash of the first block, service, application and first height (8 bytes, little
        endian), joined by dots. Members: of those offering the service at its start, the
        ``num_suppliers_per_session`` first by the first 8 bytes, as a signed number, of SHA3-256 of that
        text, a dot and their address. Who leaves the network in between is missing then.
        """
        now = self.height if now is None else now
        if height > now:
            text = f"block height {height} is ahead of the last committed block height {now}"
            raise QueryError(13, f"{text}: error during session hydration")
        known = self._sessions.get((app_address, service, height))
        if known is not None:
            return known
        start, end, number = self.session_at(height)
        app = self._at(self._apps, app_address, height)
        if app is None:
            text = f'could not find app with address "{app_address}" at height {start}'
            raise QueryError(13, f"{text}: application for session not found not found ")
        preimage = b".".join(
            (self.block_hash(start), service.encode(), app_address.encode(), start.to_bytes(8, "little"))
        )

        session_id = hashlib.sha3_256(preimage).hexdigest()
        if 0 < app.unstake_session_end_height < end:
            text = f'application "{app_address}" is not active for session {session_id}'
            raise QueryError(13, f"{text}: application is not active")
        if app.service != service:
            text = f'application "{app_address}" not staked for service ID "{service}"'
            raise QueryError(13, f"{text}: application in session not staked for requested service")

        def rank(operator: str) -> tuple[int, str]:
            weight = hashlib.sha3_256(preimage + b"." + operator.encode()).digest()[:8]
            return int.from_bytes(weight, "big", signed=True), operator

        candidates = {o.operator for o in self._offers if o.service == service and o.active(start)}
        chosen = sorted(candidates, key=rank)[: self.params(start).num_suppliers_per_session]
        suppliers = []
        for operator in chosen:
            offers = [o for o in self._offers if o.operator == operator and o.service == service]
            offer = next((o for o in reversed(offers) if o.active(height)), None)
            stake = self.stake(operator, height)
            if offer is not None and stake is not None:
                suppliers.append(StakedSupplier(stake, (offer,)))
        if not suppliers:
            text = f"could not find suppliers for service {service} at height {start}"
            raise QueryError(13, f"{text}: no suppliers not found for session")
        header = SessionHeader(app_address, service, session_id, start, end)
        blocks = self.params(height).num_blocks_per_session
        session = Session(header, number, blocks, app, tuple(suppliers))
        self._sessions[app_address, service, height] = session
        return session

    # ------------------------------------------------------------------------------------ changing

    def add_service(self, service: Service) -> None:
        """A new service, or another price for a known one: shown at once, in force from the next session."""
        height, known = self.height, self.services.get(service.id)
        self.services[service.id] = service
        if known is None:
            self._services[service.id] = History(0, service)
            self._units[service.id] = History(0, service.compute_units_per_relay)
        else:
            _, end, _ = self.session_at(height)
            self._services[service.id].set(height, service)
            self._units[service.id].set(end + 1, service.compute_units_per_relay)

    def add_account(self, address: str, public_key: bytes | None, shape: Shape = "base") -> None:
        """A new account."""
        self._accounts[address] = History(0, Account(address, public_key, len(self._accounts), shape))

    def set_public_key(self, address: str, public_key: bytes | None) -> None:
        """From now on the account shows this key, or none."""
        account = self.account(address, self.height)
        self._set(self._accounts, address, self.height, replace(account, public_key=public_key))

    def set_shape(self, address: str, shape: Shape) -> None:
        """From now on the account is of this type."""
        account = self.account(address, self.height)
        self._set(self._accounts, address, self.height, replace(account, shape=shape))

    def stake_app(self, app: App) -> None:
        """An application stakes, or changes what it staked."""
        self.service(app.service)
        self._set(self._apps, app.address, self.height, app)

    def unstake_app(self, address: str) -> int:
        """An application leaves; it is active up to the end of the session, which is returned."""
        height = self.height
        _, end, _ = self.session_at(height)
        app = replace(self.app(address, height), unstake_session_end_height=end)
        self._set(self._apps, address, height, app)
        return end

    def stake_gateway(self, address: str, amount: int) -> None:
        """A gateway stakes."""
        self._set(self._gateways, address, self.height, amount)

    def delegate(self, address: str, gateway: str) -> None:
        """An application lets a gateway sign for it. Raises QueryError for one that is not there."""
        height = self.height
        self.gateway_stake(gateway, height)
        app = self.app(address, height)
        if gateway not in app.gateways:
            self._set(self._apps, address, height, replace(app, gateways=(*app.gateways, gateway)))

    def undelegate(self, address: str, gateway: str) -> int:
        """A gateway may sign to the end of the session, which is returned, and not after."""
        height = self.height
        app = self.app(address, height)
        if gateway not in app.gateways:
            raise QueryError(3, f"application {address} does not delegate to {gateway}")
        _, end, _ = self.session_at(height)
        pending = dict(app.pending_undelegations)
        pending[end] = tuple(dict.fromkeys((*pending.get(end, ()), gateway)))
        gateways = tuple(each for each in app.gateways if each != gateway)
        app = replace(app, gateways=gateways, pending_undelegations=pending)
        self._set(self._apps, address, height, app)
        return end

    def stake_supplier(
        self,
        operator: str,
        owner: str,
        amount: int,
        offers: Mapping[str, tuple[Endpoint, ...]],
        *,
        at_once: bool = False,
    ) -> int:
        """A supplier stakes, or changes its stake or its endpoints; returns the height from which they hold.

        That is the start of the next session, as on the chain, or with ``at_once`` that of the current one.
        """
        height = self.height
        start, end, _ = self.session_at(height)
        since = start if at_once else end + 1
        self._set(self._stakes, operator, height, Stake(operator, owner, amount))
        for service, endpoints in offers.items():
            self.service(service)
            self._close(operator, service, since - 1)
            self._offers.append(Offer(operator, service, endpoints, since))
        return since

    def restake(self, operator: str, amount: int) -> None:
        """A supplier changes what it staked, which leaves its endpoints as they are.

        The chain writes its offers down once more, so that lists of them name it twice.
        """
        stake = self._staked(operator)
        height = self.height
        self._set(self._stakes, operator, height, replace(stake, amount=amount))
        for offer in self._offers.copy():
            if offer.operator == operator and offer.active(height):
                self._offers.append(offer)

    def unstake_supplier(self, operator: str, *, at_once: bool = False) -> int:
        """A supplier leaves; returns the last height at which it counts.

        That is the end of the session, or with ``at_once`` the block before this one, which breaks up the
        session: nodes and miners no longer list it.
        """
        stake = self._staked(operator)
        height = self.height
        _, end, _ = self.session_at(height)
        last = height - 1 if at_once else end
        for service in {offer.service for offer in self._offers if offer.operator == operator}:
            self._close(operator, service, last)
        if last >= height:
            self._set(self._stakes, operator, height, replace(stake, unstake_session_end_height=last))
        self._set(self._stakes, operator, last + 1, None)
        return last

    def change_params(self, **changes: Any) -> int:
        """Other parameters from the start of the next session on, which is returned and anchors the grid.

        Nodes tell of some of them as of now already (:data:`SHOWN_AT_ONCE`).
        """
        height = self.height
        _, end, number = self.session_at(height)
        params = replace(self._params.newest, **changes, anchor_height=end + 1, anchor_number=number + 1)
        shown = {name: value for name, value in changes.items() if name in SHOWN_AT_ONCE}
        self._shown.set(height, replace(self.shown_params(height), **shown))
        self._shown.set(end + 1, params)
        self._params.set(end + 1, params)
        self._sessions.clear()
        return end + 1

    def _staked(self, operator: str) -> Stake:
        stake = self.stake(operator, self.height)
        if stake is None:
            raise QueryError(5, f"supplier with address: {operator!r} not found")
        return stake

    def _close(self, operator: str, service: str, last: int) -> None:
        for place, offer in enumerate(self._offers):
            mine = offer.operator == operator and offer.service == service
            if mine and (offer.until is None or offer.until > last):
                self._offers[place] = replace(offer, until=last)

    def _at(self, entries: Mapping[str, History[T]], key: str, height: int) -> T | None:
        history = entries.get(key)
        return None if history is None else history.at(height)

    def _set(self, entries: dict[str, History[Any]], key: str, height: int, value: Any) -> None:
        self._sessions.clear()
        if key in entries:
            entries[key].set(height, value)
        else:
            entries[key] = History(height, value)
