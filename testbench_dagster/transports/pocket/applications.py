"""How the applications of a Pocket service stand: staked, delegated, in a session, with what budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbench_dagster.config import ServiceConfig
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.chain.client import ChainClient
from testbench_dagster.transports.pocket.chain.errors import ChainError, NotFound, SessionUnavailable
from testbench_dagster.transports.pocket.chain.types import Application, Session

#: Fewer relays per supplier and session than that are told as a stake that is low.
FEW_RELAYS = 20


@dataclass
class AppState:
    """How an application stands for a service.

    ``budget`` is how many relays each supplier grants it per session. ``problems`` (no relay is possible) and
    ``warnings`` are texts that follow "it" or the address.
    """

    address: str
    application: Application | None = None
    session: Session | None = None
    budget: int | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def app_states(
    client: ChainClient, name: str, service: ServiceConfig, *, signed: bool, fresh: bool = False
) -> list[AppState]:
    """How the applications of a service stand, in configured order.

    What a node told before counts as long as it should hold, unless ``fresh``. ``signed``: their relays are
    signed here, so our keys have to be among those that may.

    Raises:
        ChainError: no node could be read.
    """
    states = [AppState(address) for address in service.session_apps]
    for state in states:
        try:
            _look_at_app(client, name, service, state, signed=signed, fresh=fresh)
        except ChainError as error:
            client.height(fresh=True)  # raises where it is not the application but the nodes
            state.problems.append(f"cannot be read: {error}")
    return states


def _look_at_app(
    client: ChainClient, name: str, service: ServiceConfig, state: AppState, *, signed: bool, fresh: bool
) -> None:
    address = state.address
    try:
        app = state.application = client.application(address, fresh=fresh)
    except NotFound:
        state.problems.append(f"is not staked; stake it for {name}, or correct the address")
        return
    if name not in app.services:
        staked = ", ".join(app.services) or "nothing"
        state.problems.append(f"is staked for {staked}, not for {name}; name an application of this service")
        return
    if app.unstake_session_end_height:
        state.warnings.append(
            f"unstakes at block {app.unstake_session_end_height}, after which it can send no relay; "
            "name another application"
        )
    try:
        state.session = client.session(address, name, fresh=fresh)
    except SessionUnavailable as error:
        state.problems.append(_no_session(error, name))
        return
    if signed:
        _look_at_ring(client, service, state, app, state.session.header.end_height)
    _look_at_budget(client, name, state, app)


def _no_session(error: SessionUnavailable, name: str) -> str:
    why = {
        "app_not_found": f"has no session because the chain does not know it; stake it for {name}",
        "app_not_staked": f"has no session because it is not staked for {name}; stake it",
        "no_suppliers": f"has no session because nobody is staked for {name}; is that the right service?",
        "app_inactive": "has no session because it unstakes; name another application",
        "height_ahead": "has no session yet because the node is behind; wait, or name another node first",
    }
    return why.get(error.reason) or f"has no session: {escaped(str(error))}"


def _look_at_ring(
    client: ChainClient, service: ServiceConfig, state: AppState, app: Application, session_end: int
) -> None:
    """Whether the configured key may sign for the application, and who else may."""
    gateway = next((a.gateway for a in service.apps if a.address == state.address), None)
    ring = app.ring_addresses(session_end)
    if gateway is not None and gateway not in ring:
        state.problems.append(
            f"does not delegate to {gateway}, so miners refuse what its key signs; delegate "
            "(pocketd tx application delegate-to-gateway), or sign with the application's own key"
        )
    if not ring:
        state.warnings.append(
            "delegates to no gateway, so its ring holds a placeholder whose private key anyone can derive: "
            "anyone can spend its stake; delegate it to a gateway of your own"
        )
    if service.ring == "full":
        for member in ring:
            if client.public_key(member) is None:
                state.warnings.append(
                    f"delegates to {member}, which has no public key on the chain and is left out of its "
                    "ring; miners accept that, and it ends once the gateway has signed a transaction"
                )


def _look_at_budget(client: ChainClient, name: str, state: AppState, app: Application) -> None:
    """How many relays the stake covers."""
    if state.session is None:
        return
    start = state.session.header.start_height
    try:
        terms = client.terms(name, start)
    except NotFound:
        state.warnings.append(f"is staked for {name}, which the chain does not know as a service any more")
        return
    state.budget = terms.relays(app)
    if terms.doubts:
        state.warnings.append(
            f"has a session from block {start}, and no node tells {' and '.join(terms.doubts)} of then, so "
            "its budget is by those of now; name a node that keeps history"
        )
    stake = f"has a stake of {app.stake_upokt:,} uPOKT, of which each supplier grants"
    if state.budget == 0:
        state.problems.append(f"{stake} no relay per session; raise it")
    elif state.budget < FEW_RELAYS:
        state.warnings.append(
            f"{stake} {counted(state.budget, 'relay')} per session; raise its stake to evaluate faster"
        )
