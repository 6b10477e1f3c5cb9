"""What the chain knows, as far as relays need it. Heights are block heights, money is whole uPOKT.

Field names follow poktroll's protos (``shared/params.proto``, ``shared/supplier.proto``,
``application/types.proto``, ``session/types.proto``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from testbench_dagster.transports.pocket.messages import SessionHeader

#: Relays of a budget that costs nothing: no limit.
UNLIMITED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Newest block of a node, whether it still catches up with the chain, and when it said so (Unix time)."""

    height: int
    catching_up: bool
    at: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """How a node stands: its URL without credentials, and what it told last, or why it is passed over."""

    url: str
    api: str
    height: int | None
    catching_up: bool | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class SharedParams:
    """Parameters of the chain that sessions and prices follow; lengths and offsets are blocks."""

    num_blocks_per_session: int
    grace_period_end_offset_blocks: int
    claim_window_open_offset_blocks: int
    claim_window_close_offset_blocks: int
    proof_window_open_offset_blocks: int
    proof_window_close_offset_blocks: int
    compute_units_to_tokens_multiplier: int
    compute_unit_cost_granularity: int
    session_grid_anchor_height: int = 0
    session_number_at_anchor: int = 0

    def session_end(self, height: int) -> int:
        """Return the last height of the session at a height (poktroll ``GetSessionEndHeight``).

        Good for how long something stays valid. Sessions to relay in come from the chain itself, because the
        grid moves when the parameters change.
        """
        anchor = self.session_grid_anchor_height
        if not 0 < anchor <= height:  # unset, or of parameters that hold only later
            anchor = 1
        done = (max(height, 1) - anchor) // self.num_blocks_per_session
        return anchor + (done + 1) * self.num_blocks_per_session - 1

    @property
    def pending_sessions(self) -> int:
        """Sessions that may draw on a stake at once: those not yet final, and the current one."""
        blocks = (
            self.claim_window_open_offset_blocks
            + self.claim_window_close_offset_blocks
            + self.proof_window_open_offset_blocks
            + self.proof_window_close_offset_blocks
        )
        return -(-blocks // self.num_blocks_per_session) + 1


@dataclass(frozen=True, slots=True)
class SupplierEndpoint:
    """Where a supplier serves: a URL as staked, and its RPC type (``relays.shannon.messages.RpcType``).

    Anyone who stakes writes these. The URL is printable ASCII without spaces; whether it may be contacted is
    for the caller to judge. Types this program does not know are 0, or their number.
    """

    url: str
    rpc_type: int


@dataclass(frozen=True, slots=True)
class ChainSupplier:
    """A staked supplier, with its endpoints for the service that was asked for."""

    operator: str
    owner: str
    stake_upokt: int
    endpoints: tuple[SupplierEndpoint, ...] = ()
    unstake_session_end_height: int = 0


@dataclass(frozen=True, slots=True)
class Application:
    """A staked application; ``pending_undelegations`` has the gateways that leave, by height."""

    address: str
    stake_upokt: int
    services: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    pending_undelegations: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unstake_session_end_height: int = 0
    spend_limit_upokt: int | None = None

    def ring_addresses(self, session_end: int) -> tuple[str, ...]:
        """Return the gateways in the ring of a session, each once; the application itself is not listed.

        Those are the delegated ones and those that leave at ``session_end`` or later (poktroll
        ``GetRingAddressesAtSessionEndHeight``).
        """
        leaving = (
            gateway
            for height, gateways in sorted(self.pending_undelegations.items())
            if height >= session_end
            for gateway in gateways
        )
        return tuple(dict.fromkeys(a for a in (*self.gateways, *leaving) if a != self.address))


@dataclass(frozen=True, slots=True)
class Session:
    """Who may serve an application a service, from the header's first height to its last."""

    header: SessionHeader
    suppliers: tuple[ChainSupplier, ...]
    application: Application


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A service of the chain; ``card`` is what its owner wrote about it, not to be trusted."""

    id: str
    name: str
    compute_units_per_relay: int
    card: bytes = field(default=b"", repr=False)


def session_budget_upokt(
    stake_upokt: int,
    shared: SharedParams,
    suppliers_per_session: int,
    *,
    spend_limit_upokt: int | None = None,
) -> int:
    """Return the part of an application's stake that one supplier grants in one session, in uPOKT.

    Source: poktroll's relay meter (``getAppStakePortionPayableToSessionSupplier``), which rounds down after
    each division; an application's own limit per session is shared among the suppliers (settlement,
    ``getOrInitSessionBudget``).

    Raises:
        ValueError: a number is negative, or no supplier is to serve a session.
    """
    if stake_upokt < 0 or suppliers_per_session < 1 or (spend_limit_upokt or 0) < 0:
        raise ValueError(
            f"stake_upokt {stake_upokt}, suppliers_per_session {suppliers_per_session}, spend_limit_upokt "
            f"{spend_limit_upokt}: amounts may not be negative, and a session has one supplier at least"
        )
    budget = stake_upokt // suppliers_per_session // shared.pending_sessions
    if spend_limit_upokt:
        budget = min(budget, spend_limit_upokt // suppliers_per_session)
    return budget


def session_budget_relays(
    stake_upokt: int,
    service: ServiceInfo,
    shared: SharedParams,
    suppliers_per_session: int,
    *,
    spend_limit_upokt: int | None = None,
) -> int:
    """Return how many relays one supplier serves an application in one session before its budget is used up.

    Calculated from the exact cost. The miner's meter rounds the cost of a relay down to whole uPOKT and may
    grant more; what exceeds the exact budget it would serve unpaid. :data:`UNLIMITED` if relays are free.

    Raises:
        ValueError: as :func:`session_budget_upokt`.
    """
    budget = session_budget_upokt(
        stake_upokt, shared, suppliers_per_session, spend_limit_upokt=spend_limit_upokt
    )
    cost = relay_cost(service, shared)
    return min(UNLIMITED, int(budget / cost)) if cost else UNLIMITED


def relay_cost(service: ServiceInfo, shared: SharedParams) -> Fraction:
    """What a relay of a service burns of the application's stake, in uPOKT, often below one."""
    units = service.compute_units_per_relay * shared.compute_units_to_tokens_multiplier
    return Fraction(units, shared.compute_unit_cost_granularity)


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What prices the relays of a session: what held at its first height.

    The chain settles by that (poktroll's relay meter, ``x/tokenomics``), while changes show at once in what
    nodes tell of now. Of the suppliers per session the larger number of then and now counts. ``doubts`` says
    what no node tells of then, so that it is that of now.
    """

    shared: SharedParams
    suppliers_per_session: int
    service: ServiceInfo
    doubts: tuple[str, ...] = ()

    def relays(self, application: Application) -> int:
        """Relays that one supplier serves an application in the session (:func:`session_budget_relays`)."""
        return session_budget_relays(
            application.stake_upokt,
            self.service,
            self.shared,
            self.suppliers_per_session,
            spend_limit_upokt=application.spend_limit_upokt,
        )


class Chain(Protocol):
    """What is asked of :class:`~testbench_dagster.transports.pocket.chain.client.ChainClient`."""

    def height(self, *, fresh: bool = False) -> int:
        """Height of the chain."""
        ...

    def terms(self, service: str, height: int) -> SessionTerms:
        """What prices relays of a service in the session that began at a height."""
        ...

    def session(self, application: str, service: str, *, fresh: bool = False) -> Session:
        """The current session of an application."""
        ...

    def public_key(self, address: str, *, fresh: bool = False) -> bytes | None:
        """The public key of an account, None if it has none."""
        ...
