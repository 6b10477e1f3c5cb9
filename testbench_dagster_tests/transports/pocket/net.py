"""A simulated Pocket network on loopback, and a transport set up to relay in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from testbench_dagster.core.relay import Attempt, Endpoint, Limits, Relay
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.pocket.envelopes import Served
from testbench_dagster.localnet.pocket.faults import FaultRule
from testbench_dagster.localnet.pocket.names import private_key
from testbench_dagster.localnet.pocket.network import MODEL, SERVICES, PocketNet
from testbench_dagster.transports.pocket.chain.client import ChainClient
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.sessions import SessionBook
from testbench_dagster.transports.pocket.transport import ShannonService, ShannonTransport

FAST = Limits(connect_s=2, first_byte_s=5, idle_s=5, total_s=10, retries=0, max_response_mb=1)
SERVICE = SERVICES["chat"]


def personas(count: int = 1) -> list[Persona]:
    """Suppliers that answer at once and never fail on their own."""
    backend = Backend("granite", latency_ms=0)
    return [Persona(f"sim-{number:02d}", backend) for number in range(1, count + 1)]


def relay_to(endpoint: Endpoint, number: int = 0, **generation: Any) -> Relay:
    """A question like no other number's."""
    request = {
        "type": "generate_until",
        "idx": 0,
        "messages": [{"role": "user", "content": f"question {number}"}],
        "generation": {"until": ["\n\n"], "max_gen_toks": 64, **generation},
    }
    return Relay(
        endpoint.supplier, endpoint.service, "t", "h", 1, 0, f"p{number}", number, number, 0, 0, request
    )


@dataclass
class Setting:
    """A network, and one of its applications relaying to one service."""

    net: PocketNet
    client: ChainClient
    book: SessionBook
    service: ShannonService
    transport: ShannonTransport

    def endpoint(self, name: str = "sim-01", **changes: Any) -> Endpoint:
        """The supplier of that name as the roster would have it."""
        found = self.net.find(name)
        assert found is not None
        miner, served = found
        made = Endpoint(
            f"{served.operator}@{served.service}",
            served.service,
            miner.url,
            "chat",
            MODEL,
            FAST,
            transport="shannon",
            address=served.operator,
            rpc_type=4,
            prefix="/v1",
            host=miner.name,
        )
        return replace(made, **changes)

    def served(self, name: str = "sim-01") -> Served:
        """The supplier of that name."""
        found = self.net.find(name)
        assert found is not None
        return found[1]

    def fault(self, kind: str, name: str = "sim-01", **rule: Any) -> None:
        """From now on this is wrong with a supplier, and nothing else."""
        self.net.set_faults(name, [FaultRule(kind, **rule)])

    def clear(self, name: str = "sim-01") -> None:
        """Nothing is wrong any more."""
        self.net.set_faults(name, [])

    async def ask(self, number: int = 0, name: str = "sim-01", **changes: Any) -> Attempt:
        """Relay one question, to another URL than the staked one where ``base_url`` is among the changes."""
        if "base_url" in changes:
            self.pin()
        endpoint = self.endpoint(name, **changes)
        return await self.transport.send(endpoint, relay_to(endpoint, number))

    def pin(self) -> None:
        """From now on relays go where the endpoint says, whatever the session tells."""
        for service in self.transport._services.values():
            service.routes.of = lambda endpoint, session: (endpoint,)  # type: ignore[method-assign]

    async def reach(self, height: int) -> None:
        """The chain goes to a height, and the book learns of it, where the nodes tell it."""
        self.net.chain.clock.reach(height)
        for _ in range(20):  # what the watcher was asking just before may be all that the first time brings
            await self.learn()
            if (self.book.height() or 0) >= height:
                break

    async def learn(self) -> None:
        """The book asks the chain, as the watcher does."""
        await asyncio.sleep(self.book.poll_s * 1.2)
        await asyncio.to_thread(self.book.refresh, fresh=True)

    def accepted(self) -> list[dict[str, Any]]:
        """Relays that miners accepted."""
        return self.net.ledger.since(0, accepted=True)

    def refused(self) -> list[dict[str, Any]]:
        """Relays that miners refused."""
        return self.net.ledger.since(0, accepted=False)


@asynccontextmanager
async def setting(
    flavour: str = "classic",
    suppliers: int = 1,
    *,
    poll_s: float = 0.05,
    max_relays: int | None = None,
    ring: str = "full",
    key: str = "app",
    stream: bool = False,
    people: Sequence[Persona] | None = None,
    **options: Any,
) -> AsyncIterator[Setting]:
    """A network whose blocks come by hand, ten to a session from height 1001, with a grace of five.

    ``key``: the application signs itself (``app``), or the gateway it delegates to (``gateway``).
    """
    options = {"block_s": None, "hosts": 1, **options}
    chosen: Any = ring
    async with PocketNet(list(people or personas(suppliers)), flavours=[flavour], **options) as net:  # type: ignore[list-item]
        app = net.apps[f"app-{SERVICE}"]
        name = app.name if key == "app" else "gateway"
        private = private_key(net.seed, name)
        assert isinstance(private, PrivateKey)
        keys = {app.address: (private, None if key == "app" else private.address)}
        with ChainClient(rest=net.node_urls, timeout_s=3, height_ttl_s=poll_s, pause_s=0.1) as client:
            book = SessionBook(client, SERVICE, [app.address], poll_s=poll_s, max_relays=max_relays)
            service = ShannonService(SERVICE, client, book, keys, ring=chosen, stream=stream)
            transport = ShannonTransport({SERVICE: service})
            try:
                yield Setting(net, client, book, service, transport)
            finally:
                await transport.close()
