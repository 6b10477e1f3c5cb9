"""Where signed relays to a supplier go: the endpoints that its session lists, the one that answered first.

A session tells of every supplier in it where it serves, and that is at least as new as what the roster knows:
who moved is asked where it is now. A supplier may list several endpoints; where one cannot be connected to,
the next one is tried within the same attempt, as nothing was handed over yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from testbench_dagster.core.relay import Endpoint
from testbench_dagster.transports.pocket.chain.types import Session
from testbench_dagster.transports.pocket.staked import rpc_name, usable_endpoints

#: Endpoints of one supplier that are tried for one relay.
MAX_ROUTES = 4


class Routes:
    """The endpoints of suppliers by session, and which of them answered last; of one event loop.

    ``rpc_types``: names of RPC types by preference, as the service has them.
    """

    def __init__(self, rpc_types: Sequence[str]) -> None:
        self._rpc_types = tuple(rpc_types)
        self._known: dict[str, tuple[str, Endpoint, tuple[Endpoint, ...]]] = {}  # by supplier
        self._answered: dict[str, str] = {}  # by supplier the URL

    def of(self, endpoint: Endpoint, session: Session) -> tuple[Endpoint, ...]:
        """Where to send a relay in a session, by preference; the endpoint itself where that lists none."""
        supplier, session_id = endpoint.supplier, session.header.session_id
        known = self._known.get(supplier)
        if known is None or known[0] != session_id or known[1] is not endpoint:
            known = session_id, endpoint, self._listed(endpoint, session)
            self._known[supplier] = known
        routes = known[2]
        last = self._answered.get(supplier)
        if last is None or routes[0].base_url == last:
            return routes
        return tuple(sorted(routes, key=lambda route: route.base_url != last))

    def answered(self, route: Endpoint) -> None:
        """Note that a connection to one of them was made: it comes first from now on."""
        self._answered[route.supplier] = route.base_url

    def failed(self, route: Endpoint) -> None:
        """Note that none could be connected to, this one last: none is preferred."""
        self._answered.pop(route.supplier, None)

    def _listed(self, endpoint: Endpoint, session: Session) -> tuple[Endpoint, ...]:
        staked = next((s.endpoints for s in session.suppliers if s.operator == endpoint.address), ())
        usable = usable_endpoints(staked, self._rpc_types, allow_private=endpoint.private_allowed)
        meant = [one for one in usable if rpc_name(one.rpc_type) in self._rpc_types]
        routes = [
            endpoint
            if (one.url, one.rpc_type) == (endpoint.base_url, endpoint.rpc_type)
            else replace(endpoint, base_url=one.url, rpc_type=one.rpc_type)
            for one in (meant or usable)[:MAX_ROUTES]
        ]
        return tuple(routes) or (endpoint,)
