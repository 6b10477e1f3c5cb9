"""Servers that stream as they are told, on loopback, and installations over them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.workspace import Workspace

#: What a server does with the JSON of a request: a whole response, or the pieces of an event stream.
Way = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
Pieces = Callable[[dict[str, Any]], AsyncIterator[bytes]]

DONE = b"data: [DONE]\n\n"


def event(delta: Mapping[str, Any] | None = None, reason: str | None = None, **beside: Any) -> bytes:
    """A chunk of a chat; without a delta it has no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    return b"data: " + json.dumps({"id": "x", "choices": choices, **beside}).encode() + b"\n\n"


def usage(prompt: Any = 90, completion: Any = 3, **beside: Any) -> bytes:
    """The chunk that counts the tokens."""
    return event(None, usage={"prompt_tokens": prompt, "completion_tokens": completion, **beside})


def streams(pieces: Pieces, headers: Mapping[str, str] | None = None) -> Way:
    """Send the pieces as they come; a RuntimeError breaks the connection off."""

    async def way(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        try:
            async for piece in pieces(asked):
                await response.write(piece)
        except RuntimeError:
            assert request.transport is not None
            request.transport.abort()
        return response

    return way


def says(*pieces: bytes, headers: Mapping[str, str] | None = None) -> Way:
    """Stream some pieces at once, each in a packet of its own."""

    async def all_of_them(_: dict[str, Any]) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0.002)

    return streams(all_of_them, headers)


def answers(status: int = 200, **body: Any) -> Way:
    """Answer with JSON."""

    async def way(request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return way


class Server:
    """One server with a way per supplier (``/<supplier>/v1/…``); remembers what each was asked."""

    def __init__(self, ways: Mapping[str, Way], models: Mapping[str, Mapping[str, Any]]) -> None:
        self._ways, self._models = dict(ways), dict(models)
        self.asked: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        self.bodies: dict[str, list[bytes]] = {name: [] for name in ways}
        self.listed: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name, _, path = request.path.lstrip("/").partition("/")
        if path == "v1/models" and request.method == "GET":
            self.listed[name] += 1
            return web.json_response({"data": [{"id": "m", **self._models.get(name, {})}]})
        body = await request.read()
        self.bodies[name].append(body)
        self.asked[name].append(json.loads(body))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._ways[name](request, json.loads(body))
        finally:
            self.in_flight -= 1


@contextmanager
def serving(
    ways: Mapping[str, Way], models: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[Server]:
    """Serve until the end of the block."""
    server, ready = Server(ways, models or {}), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def installation(
    folder: Path,
    urls: Mapping[str, str],
    own: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Workspace:
    """An installation with a supplier ``<name>@external`` per base URL, its roster read.

    ``own`` are further keys of some suppliers.
    """
    suppliers = [
        {"address": name, "base_url": url, "model": "m", "api": "chat", **(own or {}).get(name, {})}
        for name, url in urls.items()
    ]
    path = folder / "testbench.yaml"
    tasks = [{"name": "starter_units", "samples": 2}]
    path.write_text(yaml.safe_dump({"suppliers": suppliers, "tasks": tasks, **settings}), encoding="utf-8")
    workspace = Workspace(load_config(path))
    refresh_roster(workspace)
    return workspace
