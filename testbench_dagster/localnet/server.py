"""Serves the simulated suppliers over HTTP on loopback.

``/<address>/v1/chat/completions`` or ``/<address>/v1/completions`` (whichever the supplier's API is) and
``/<address>/v1/models`` behave like an OpenAI-compatible server, or one with :mod:`.manners` of its own,
``/<address>/pokt/tokenizer`` and ``/<address>/pokt/config`` like a Pocket sidecar; ``/healthz``, ``/stats``,
``/roster`` and ``/requests?address=`` describe the simulation itself, ``/control/<action>`` changes it (see
:mod:`.control`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any, Protocol, Self

from aiohttp import web

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.control import BlockClock, Control
from testbench_dagster.localnet.personas import SERVICE, Persona
from testbench_dagster.localnet.requests import BadRequestError
from testbench_dagster.localnet.supplier import BrokenConnection, Reply, Supplier, error_reply, json_reply

HOST = "127.0.0.1"

# SO_LINGER on, zero seconds: closing then sends RST instead of FIN
_ABORT = struct.pack("ii", 1, 0)


def reset(request: web.BaseRequest) -> None:
    """Break the connection of a request, as a crashed server does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        request.transport.abort()


async def send(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Send a supplier's answer over HTTP."""
    if not reply.events:
        return web.Response(
            body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
        )
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = reply.content_type
    await response.prepare(request)
    async for event in reply.paced():
        await response.write(event)
    await response.write_eof()
    return response


def _json(payload: Any) -> web.Response:
    return _plain(json_reply(payload))


def _error(status: int, message: str) -> web.Response:
    return _plain(error_reply(status, message, "invalid_request_error"))


def _plain(reply: Reply) -> web.Response:
    return web.Response(body=reply.body, status=reply.status, content_type=reply.content_type)


class Localnet:
    """A population of suppliers behind one loopback port; an async context manager."""

    def __init__(
        self,
        personas: Sequence[Persona],
        answers: Answers | None = None,
        port: int = 0,
        block_s: float | None = None,
    ) -> None:
        """``port`` 0 takes a free one; a block comes every ``block_s`` seconds, if given.

        Raises ValueError on two suppliers with one address, on a copycat that cannot copy who it names, and
        on times that do not run forward.
        """
        self._answers = answers or Answers()
        self.suppliers: dict[str, Supplier] = {}
        for persona in personas:
            self.add(persona)
        if len(self.suppliers) != len(personas):
            raise ValueError("two simulated suppliers have the same address")
        for persona in personas:
            self.require_copied(persona)
        self.clock = BlockClock(block_s)
        self._control = Control(self)
        self._port = port
        self._runner: web.ServerRunner | None = None
        #: ``http://127.0.0.1:PORT`` once started.
        self.url = ""

    @property
    def answers(self) -> Answers:
        """What all models know."""
        return self._answers

    async def __aenter__(self) -> Self:
        """Starts listening."""
        server = web.Server(self.handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        # a few thousand connections may arrive within one turn of the loop
        await web.TCPSite(self._runner, HOST, self._port, backlog=4096).start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def greeting(self) -> str:
        """How to use it."""
        import yaml

        settings = {
            "simulation": True,
            "supplier_sources": [
                {"url": f"{self.url}/roster", "name": "localnet", "allow_private_networks": True}
            ],
            "tasks": [{"name": "starter_units", "samples": 20}],
        }
        return f"\nFor testbench.yaml:\n\n{yaml.safe_dump(settings, sort_keys=False, width=120)}"

    def add(self, persona: Persona) -> None:
        """Add a supplier."""
        self.suppliers[persona.address] = Supplier(persona, self._answers, others=self.suppliers)

    def require_copied(self, persona: Persona) -> None:
        """Raise ValueError where a copycat has nobody to copy: one of its API that answers by itself."""
        if not persona.copies:
            return
        other = self.suppliers.get(persona.copies)
        said = f"{persona.address}: copies {persona.copies!r}"
        if other is None:
            raise ValueError(f"{said}, who is nobody here; name one of: {', '.join(self.suppliers)}")
        if other.persona.copies:
            raise ValueError(f"{said}, who copies {other.persona.copies!r}; name that one")
        if other.persona.api != persona.api:
            raise ValueError(f"{said}, whose API is {other.persona.api}; name one of {persona.api}")

    def describe(self, address: str) -> dict[str, Any]:
        """A supplier as a client needs it."""
        persona = self.suppliers[address].persona
        return {
            "address": address,
            "service": SERVICE,
            "api": persona.api,
            "base_url": f"{self.url}/{address}/{persona.manners.base_path(persona.backend.model)}",
            "model": persona.backend.model,
            "simulation": True,
        }

    def roster(self) -> dict[str, Any]:
        """The suppliers that are there, marked as a simulation, and the block height if there is one."""
        height = self.clock.height
        return {
            "simulation": True,
            "seed": self._answers.seed,
            **({} if height is None else {"height": height}),
            "suppliers": [self.describe(a) for a, supplier in self.suppliers.items() if supplier.present],
        }

    def stats(self) -> dict[str, Any]:
        """Counts per supplier since the start, those that left included."""
        suppliers = {address: supplier.stats() for address, supplier in self.suppliers.items()}
        return {"simulation": True, "suppliers": suppliers}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer whatever is asked of this network."""
        address, _, rest = request.path.lstrip("/").partition("/")
        supplier = self.suppliers.get(address)
        if supplier is not None:
            return await self._serve(supplier, request, rest)
        if request.method == "POST" and address == "control":
            return await self._command(request, rest)
        if request.method == "GET" and not rest:
            if address == "healthz":
                return _json({"status": "ok", "simulation": True})
            if address == "stats":
                return _json(self.stats())
            if address == "roster":
                return _json(self.roster())
            if address == "requests":
                return self._requests(request.query.get("address", ""))
        return _error(404, f"nothing at {request.path}; see /roster")

    async def _command(self, request: web.BaseRequest, action: str) -> web.Response:
        # a page in a browser could not send this type unasked
        if request.content_type != "application/json":
            return _error(400, "Content-Type must be application/json")
        try:
            return _json(self._control.handle(action, await request.content.read()))
        except BadRequestError as error:
            return _error(400, str(error))

    def _requests(self, address: str) -> web.Response:
        supplier = self.suppliers.get(address)
        if supplier is None:
            return _error(400, f"address {address!r} is nobody's; see /stats")
        log = [entry.to_json() for entry in supplier.log]
        return _json({"address": address, "forgotten": supplier.requests - len(log), "requests": log})

    async def _serve(self, supplier: Supplier, request: web.BaseRequest, path: str) -> web.StreamResponse:
        try:
            body = await request.content.read()
            reply = await supplier.respond(request.method, path, body, request.headers, request.query)
        except BrokenConnection:
            reset(request)
            return _error(500, "the connection is gone")
        return await send(request, reply)


class Network(Protocol):
    """What can be served: a context manager that listens."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    async def __aenter__(self) -> Self:
        """Starts listening."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Stops."""
        ...

    def greeting(self) -> str:
        """What to print once it listens, below where."""
        ...


async def serve(net: Network, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set; prints ``listening on URL`` as soon as requests are accepted."""
    async with net:
        print(f"listening on {net.url}", flush=True)
        if text := net.greeting():
            print(text, flush=True)
        await stop.wait()
