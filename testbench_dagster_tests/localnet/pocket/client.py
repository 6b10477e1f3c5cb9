"""A small requester built of the pure modules alone: it signs, posts, and hands back what came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import Api, Backend, Persona
from testbench_dagster.localnet.pocket.names import private_key
from testbench_dagster.localnet.pocket.network import PocketNet
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.transports.pocket.messages import (
    HttpRequest,
    HttpResponse,
    RelayRequest,
    RelayResponse,
    SessionHeader,
)
from testbench_dagster.transports.pocket.responses import read_response, verify_response
from testbench_dagster.transports.pocket.rings import RingSigner

GOOD = Backend("good", 1.0, latency_ms=0)
DOCS = read_docs("starter_reading", "test")[:8]
APP = "app-simulation"
TIMEOUT = aiohttp.ClientTimeout(total=5)


def people(count: int = 2, api: Api = "chat") -> list[Persona]:
    """Suppliers, always right and at once: the odd ones on the classic host, the even on the HA one."""
    return [Persona(f"s{number}", GOOD, api) for number in range(1, count + 1)]


def chat(number: int = 0, **extra: Any) -> bytes:
    """The body of a request about a doc."""
    text = f"Question: {DOCS[number]['question']}\nAnswer:"
    return json.dumps({"messages": [{"role": "user", "content": text}], **extra}).encode()


@dataclass(frozen=True)
class Answer:
    """What a miner answered, raw."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    sent: RelayRequest
    posted: bytes = field(repr=False)

    @property
    def relay(self) -> RelayResponse:
        """The envelope."""
        return read_response(self.body)

    def verified(self, key: bytes) -> HttpResponse:
        """The backend's response, once everything is verified."""
        return verify_response(self.relay, self.sent.header, key)


@dataclass
class Client:
    """One requester on one network."""

    net: PocketNet
    http: aiohttp.ClientSession
    app: str = APP
    signer: str = APP

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """A page of the first node's port."""
        async with self.http.get(self.net.url + path, headers=headers) as response:
            return response.status, await response.json()

    async def rpc(self, method: str, **params: Any) -> Any:
        """The result of a CometBFT call."""
        call = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        async with self.http.post(self.net.url, json=call) as response:
            answer = await response.json()
            assert answer["id"] == 7
            return answer["result"] if "result" in answer else answer["error"]

    async def sim(self, action: str, **fields: Any) -> Any:
        """A control command that works."""
        async with self.http.post(f"{self.net.url}/_sim/{action}", json=fields) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def session(self, height: int = 0) -> SessionHeader:
        """The header of the app's session, as a node tells it."""
        paid = self.net.apps[self.app]
        path = "/pokt-network/poktroll/session/get_session"
        query = f"application_address={paid.address}&service_id={paid.service}&block_height={height}"
        status, answer = await self.get(f"{path}?{query}")
        assert status == 200, answer
        header = dict(answer["session"]["header"])
        for name in ("session_start_block_height", "session_end_block_height"):
            header[name] = int(header[name])
        return SessionHeader.from_values(header)

    def key(self, name: str) -> bytes:
        """Public key of an account by name."""
        return private_key(self.net.seed, name).public_key

    def sign(self, request: RelayRequest) -> RelayRequest:
        """The request signed by the app, or by the gateway named ``signer``."""
        app, mine = private_key(self.net.seed, self.app), private_key(self.net.seed, self.signer)
        ring = RingSigner(mine, [app.public_key, mine.public_key])
        return replace(request, signature=ring.sign(request.signable_hash()))

    async def request(
        self,
        supplier: str,
        body: bytes | None = None,
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        header: SessionHeader | None = None,
    ) -> RelayRequest:
        """A signed relay to a supplier."""
        found = self.net.find(supplier)
        url = "http://nowhere" if found is None else found[0].url
        inner = HttpRequest(method, url + path, {"Content-Type": ["application/json"]}, body or b"")
        to = supplier if found is None else found[1].operator
        header = header or await self.session()
        return self.sign(RelayRequest(header, to, inner.encode()))

    async def post(self, supplier: str, relay: RelayRequest, **headers: str) -> Answer:
        """Post a relay to the supplier's host, or that of anyone if it has none."""
        found = self.net.find(supplier)
        miner = self.net.miners[0] if found is None else found[0]
        return await self.post_raw(miner.url, relay.encode(), relay, **headers)

    async def post_raw(self, url: str, posted: bytes, relay: Any = None, **headers: str) -> Answer:
        """Post bytes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(url, data=posted, headers=given, timeout=TIMEOUT) as response:
            return Answer(response.status, await response.read(), response.headers, relay, posted)

    async def relay(self, supplier: str, number: int = 0, **options: Any) -> Answer:
        """Sign and post a question."""
        body = options.pop("body", None) or chat(number)
        return await self.post(supplier, await self.request(supplier, body, **options))

    def last(self) -> Any:
        """The newest entry of the ledger, accepted or not."""
        return self.net.ledger.relays[-1]


@asynccontextmanager
async def running(*personas: Persona, seed: int = 0, **options: Any) -> AsyncIterator[Client]:
    """A network whose blocks come by hand, unless told otherwise, and a client of it."""
    options.setdefault("block_s", None)
    async with (
        PocketNet(personas or people(), Answers(seed), **options) as net,
        aiohttp.ClientSession() as http,
    ):
        yield Client(net, http)
