"""Hands each relay to the transport that reaches its supplier."""

from __future__ import annotations

from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.path.transport import PathTransport, SessionLookup


class Transports:
    """All transports of a run as one (a :class:`~testbench_dagster.core.relay.Transport`).

    ``shannon`` is needed where an endpoint asks for it; ``sessions`` finds those that gateways name. Closing
    closes them all.
    """

    def __init__(self, shannon: Transport | None = None, sessions: SessionLookup | None = None) -> None:
        self._by_name: dict[str, Transport] = {"direct": DirectTransport(), "path": PathTransport(sessions)}
        if shannon is not None:
            self._by_name["shannon"] = shannon

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send through the endpoint's transport; raises KeyError for native relays nothing was given for."""
        return await self._by_name[endpoint.transport].send(endpoint, relay)

    async def close(self) -> None:
        """Close every transport, whatever goes wrong with one."""
        errors = []
        for transport in self._by_name.values():
            try:
                await transport.close()
            except Exception as error:  # the others hold connections too
                errors.append(error)
        if errors:
            raise errors[0]
