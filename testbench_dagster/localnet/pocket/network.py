"""The simulated Pocket network on loopback: a chain, its nodes, relay miners on several hosts, a gateway.

The first node's port also serves ``/_sim/…`` (see :mod:`.control`), the gateway at ``/gateway`` and every
persona over plain HTTP as :mod:`testbench_dagster.localnet.server` does: ``/<name>/v1/…``, ``/roster``,
``/stats``. Over relays and over plain HTTP a persona gives the same answers; each way counts for itself.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from aiohttp import web

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.chance import unit
from testbench_dagster.localnet.personas import SERVICE, Api, Persona
from testbench_dagster.localnet.pocket.chain import UPOKT, App, Chain, Endpoint, Params, QueryError, Service
from testbench_dagster.localnet.pocket.clock import BlockClock
from testbench_dagster.localnet.pocket.control import PocketControl
from testbench_dagster.localnet.pocket.envelopes import Served
from testbench_dagster.localnet.pocket.faults import CHAIN, FaultRule, Faults
from testbench_dagster.localnet.pocket.gateway import GatewayServer
from testbench_dagster.localnet.pocket.ledger import Ledger
from testbench_dagster.localnet.pocket.miner import Flavour, RelayMiner, Validation
from testbench_dagster.localnet.pocket.names import private_key, private_key_hex
from testbench_dagster.localnet.pocket.node import NETWORK, Node
from testbench_dagster.localnet.pocket.run import FIRST_HEIGHT
from testbench_dagster.localnet.pocket.settings import how_to_use
from testbench_dagster.localnet.server import HOST, Localnet
from testbench_dagster.localnet.supplier import BrokenConnection, Reply
from testbench_dagster.transports.pocket.messages import RpcType

#: Service on chain of the personas with each API: an application pays for one service, which has one API.
SERVICES: dict[Api, str] = {"chat": SERVICE, "completions": f"{SERVICE}-completions"}

#: What a request to a service names as the model, whichever model each supplier has behind it.
MODEL = "simulated"

#: The simulation's only gateway at the start; applications delegate to it.
GATEWAY = "gateway"

_APP_STAKE = 100_000 * UPOKT
_STAKES = (60_000, 40_000)  # at least, and up to that much more, in POKT


@dataclass(frozen=True, slots=True)
class Paid:
    """An application of the simulation and the service it pays for."""

    name: str
    service: str
    api: Api
    address: str


class PocketNet:
    """A population of suppliers on a simulated Pocket network; an async context manager."""

    def __init__(
        self,
        personas: Sequence[Persona],
        answers: Answers | None = None,
        *,
        flavours: Sequence[Flavour] = ("classic", "ha"),
        hosts: int = 2,
        port: int = 0,
        nodes: int = 1,
        block_s: float | None = 1.0,
        blocks_per_session: int = 10,
        grace: int | None = None,
        suppliers_per_session: int = 50,
        page_cap: int = 4,
        validation: Validation = "eager",
        app_stake: int = _APP_STAKE,
        delegated: bool = True,
        first_height: int = FIRST_HEIGHT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``port`` is the first node's, 0 takes a free one; miners take free ones.

        Host number i is of flavour i of ``flavours``, over and over, and suppliers are dealt out to hosts
        in turn. The chain begins with a session at ``first_height``. ``block_s`` None: blocks come by
        control only. ``grace`` None is half a session. ``page_cap`` is how much a node gives per page at
        most; ``delegated``: applications delegate to the gateway, without which anyone may sign for them
        (the placeholder key). The seed is that of ``answers``. Raises ValueError for numbers that are none
        of a network.
        """
        if hosts < 1 or nodes < 1 or page_cap < 1 or not flavours:
            raise ValueError("want at least one host, node, flavour, and entry per page")
        self.answers = answers or Answers()
        self.seed = self.answers.seed
        grace = blocks_per_session // 2 if grace is None else grace
        params = Params(
            num_blocks_per_session=blocks_per_session,
            grace_period_end_offset_blocks=grace,
            claim_window_open_offset_blocks=grace,
            claim_window_close_offset_blocks=blocks_per_session,
            proof_window_close_offset_blocks=blocks_per_session,
            num_suppliers_per_session=suppliers_per_session,
            anchor_height=first_height,
        )
        self.chain = Chain(self.seed, params, BlockClock(first_height, block_s, now))
        self.ledger = Ledger()
        self.nodes = [Node(self.chain, page_cap) for _ in range(nodes)]
        self.node_urls: list[str] = []
        self.miners = [
            RelayMiner(
                f"host-{i + 1}", self.chain, self.ledger, flavours[i % len(flavours)], validation=validation
            )
            for i in range(hosts)
        ]
        #: The personas over plain HTTP, and those behind the miners.
        self.plain = Localnet(personas, self.answers)
        self.backends = Localnet(personas, self.answers)
        self.apps: dict[str, Paid] = {}
        #: Addresses of the gateways by name, and the public keys of all accounts by address.
        self.gateways: dict[str, str] = {}
        self.public_keys: dict[str, bytes] = {}
        self._delegated, self._app_stake = delegated, app_stake
        self._control = PocketControl(self)
        self.gateway = GatewayServer(self, mount="/gateway")
        self._port = port
        self._next_host = itertools.cycle(range(hosts))
        self._runners: list[web.ServerRunner] = []

    # ------------------------------------------------------------------------------------- running

    async def __aenter__(self) -> Self:
        """Starts listening, and stakes everyone at the urls they got."""
        try:
            for miner in self.miners:
                await miner.start()
            for number in range(len(self.nodes)):
                self.node_urls.append(await self._listen(number))
        except BaseException:
            await self.__aexit__()
            raise
        self.plain.url = self.url
        self._genesis()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes all ports and connections."""
        for runner in self._runners:
            await runner.cleanup()
        for miner in self.miners:
            await miner.stop()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` of the first node, once started."""
        return self.node_urls[0] if self.node_urls else ""

    async def _listen(self, number: int) -> str:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._handle(number, request)

        runner = web.ServerRunner(
            web.Server(handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.5
        )
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, HOST, self._port if number == 0 else 0, backlog=4096).start()
        return f"http://{HOST}:{runner.addresses[0][1]}"

    async def _handle(self, number: int, request: web.BaseRequest) -> web.StreamResponse:
        answer = await self.nodes[number].handle(request)
        if answer is not None:
            return answer
        if number:
            return web.Response(status=404, text="this is a node; the rest of the simulation is at the first")
        if request.path.startswith("/_sim/"):
            return await self._control.respond(request)
        if request.path == "/gateway" or request.path.startswith("/gateway/"):
            return await self.gateway.handle(request)
        if request.path.startswith("/control/"):
            return web.json_response(
                {"error": {"message": "this network is changed at /_sim/; see /_sim/describe"}}, status=400
            )
        return await self.plain.handle(request)

    # ------------------------------------------------------------------------------------ populating

    def _genesis(self) -> None:
        gateway = self.add_gateway(GATEWAY)
        # empty services are there too: who joins later finds them
        for api, service in SERVICES.items():
            self.chain.add_service(Service(service, f"{service} (simulation)", owner=gateway))
            self.add_app(f"app-{service}", api)
        for name, supplier in self.backends.suppliers.items():
            self.settle(supplier.persona, at_once=True)
            # lists of suppliers name who restaked twice; let it be so from the start
            if unit(self.seed, name, "restaked") < 0.5:
                operator = self.operator(name)
                stake = self.chain.stake(operator, self.chain.height)
                if stake is None:
                    raise RuntimeError(f"{operator} was staked just now and has no stake")
                self.chain.restake(operator, stake.amount)

    def account(self, name: str) -> str:
        """Address of the account of that name, made if need be."""
        key = private_key(self.seed, name)
        try:
            self.chain.account(key.address, self.chain.height)
        except QueryError:
            self.chain.add_account(key.address, key.public_key)
            self.public_keys[key.address] = key.public_key
        return key.address

    def add_gateway(self, name: str) -> str:
        """A new gateway stakes; returns its address."""
        self.gateways[name] = address = self.account(name)
        self.chain.stake_gateway(address, 1_000 * UPOKT)
        return address

    def add_app(self, name: str, api: Api) -> Paid:
        """A new application for the service of an API."""
        address = self.account(name)
        app = App(address, self._app_stake, SERVICES[api])
        self.chain.stake_app(app)
        if self._delegated:
            self.chain.delegate(address, self.gateways[GATEWAY])
        self.apps[name] = paid = Paid(name, SERVICES[api], api, address)
        return paid

    def operator(self, name: str) -> str:
        """Address of the supplier of that name."""
        return private_key(self.seed, name).address

    def settle(
        self,
        persona: Persona,
        *,
        host: RelayMiner | None = None,
        stake: int | None = None,
        rpc_type: RpcType = RpcType.REST,
        at_once: bool = False,
    ) -> Served:
        """Give a persona a key, a stake and a place behind a host; it counts from the next session on.

        With ``at_once`` it counts from the start of the current one.
        """
        name = persona.address
        operator = self.account(name)
        owner = self.account(f"owner of {name}")
        self.leave_hosts(operator)
        miner = host or self.miners[next(self._next_host)]
        backend = self.backends.suppliers[name]
        # behind a miner it answers to the service's name for its model
        backend.persona = replace(backend.persona, names=(*backend.persona.names, MODEL))
        served = Served(
            name,
            private_key(self.seed, name),
            SERVICES[persona.api],
            backend,
            Faults(self.seed, name),
            (rpc_type,),
        )
        miner.suppliers[operator] = served
        low, more = _STAKES
        amount = stake if stake is not None else int(low + more * unit(self.seed, name, "stake")) * UPOKT
        endpoints = (Endpoint(miner.url, rpc_type),)
        self.chain.stake_supplier(operator, owner, amount, {served.service: endpoints}, at_once=at_once)
        return served

    def leave_hosts(self, operator: str) -> None:
        """No host serves this supplier any more."""
        for miner in self.miners:
            miner.suppliers.pop(operator, None)

    # --------------------------------------------------------------------------------------- reading

    async def respond(self, operator: str, method: str, path: str, body: bytes) -> Reply:
        """What a supplier's backend answers, without a relay: for the gateway.

        Raises:
            BrokenConnection: there is no such supplier, or it breaks the connection.
        """
        found = self.find(operator)
        if found is None:
            raise BrokenConnection
        return await found[1].backend.respond(method, path, body)

    def find(self, who: str) -> tuple[RelayMiner, Served] | None:
        """A supplier by name or address, and its host."""
        for miner in self.miners:
            for operator, served in miner.suppliers.items():
                if who in (operator, served.name):
                    return miner, served
        return None

    def set_faults(self, who: str, rules: Sequence[FaultRule]) -> None:
        """These faults and no others for a supplier. Raises KeyError for nobody's name."""
        found = self.find(who)
        if found is None:
            raise KeyError(who)
        _, served = found
        before = {kind for kind in CHAIN if served.faults.has(kind)}
        served.faults.set(rules)
        changed = before ^ {kind for kind in CHAIN if served.faults.has(kind)}
        if "null_pubkey" in changed:
            key = None if served.faults.has("null_pubkey") else served.key.public_key
            self.chain.set_public_key(served.operator, key)
        stake = self.chain.stake(served.operator, self.chain.height)
        if "tls" in changed and stake is not None:
            old, new = ("http:", "https:") if served.faults.has("tls") else ("https:", "http:")
            offers = {
                offer.service: tuple(replace(e, url=e.url.replace(old, new, 1)) for e in offer.endpoints)
                for offer in self.chain.supplier(served.operator, self.chain.height).offers
            }
            # at once, unlike on the chain: the fault is there when it is switched on
            self.chain.stake_supplier(stake.operator, stake.owner, stake.amount, offers, at_once=True)

    def describe(self) -> dict[str, Any]:
        """What a client needs to use this network; its keys are simulated, anyone can derive them."""
        height = self.chain.height
        params = self.chain.params(height)
        start, end, number = params.session_at(height)
        return {
            "simulation": True,
            "network": NETWORK,
            "seed": self.seed,
            "height": height,
            "block_s": self.chain.clock.block_s,
            "session": {"start": start, "end": end, "number": number},
            "blocks_per_session": params.num_blocks_per_session,
            "grace_blocks": params.grace_period_end_offset_blocks,
            "suppliers_per_session": params.num_suppliers_per_session,
            "nodes": [
                {"rest": url, "rpc": url, **node.describe()}
                for url, node in zip(self.node_urls, self.nodes, strict=True)
            ],
            "gateway": {"url": f"{self.url}/gateway/v1", **self.gateway.describe()},
            "gateways": [
                {"name": name, "address": address, "private_key": private_key_hex(self.seed, name)}
                for name, address in self.gateways.items()
            ],
            "apps": [
                {
                    "name": paid.name,
                    "address": paid.address,
                    "private_key": private_key_hex(self.seed, paid.name),
                    "key_env": key_env(paid.service),
                    "service": paid.service,
                    "api": paid.api,
                    "model": MODEL,
                }
                for paid in self.apps.values()
            ],
            "hosts": [miner.describe() for miner in self.miners],
            "suppliers": [
                self._describe_supplier(miner, served)
                for miner in self.miners
                for served in miner.suppliers.values()
            ],
        }

    def greeting(self) -> str:
        """How to use it."""
        return how_to_use(self.describe())

    def _describe_supplier(self, miner: RelayMiner, served: Served) -> dict[str, Any]:
        height = self.chain.height
        stake = self.chain.stake(served.operator, height)
        supplier = None if stake is None else self.chain.supplier(served.operator, height)
        endpoints = [e for offer in supplier.offers for e in offer.endpoints] if supplier else []
        return {
            "name": served.name,
            "operator": served.operator,
            "service": served.service,
            "api": served.backend.persona.api,
            "model": served.backend.persona.backend.model,
            "host": miner.name,
            "flavour": miner.flavour,
            "stake_upokt": None if stake is None else stake.amount,
            "endpoints": [{"url": e.url, "rpc_type": e.rpc_type.name} for e in endpoints],
            "budget": served.budget,
            "faults": served.faults.describe(),
            "plain_url": f"{self.url}/{served.name}/v1",
        }


def key_env(service: str) -> str:
    """The environment variable that holds the key of a simulated service's application."""
    return f"SIMULATION_APP_KEY_{service.upper().replace('-', '_')}"
