"""A misbehaving supplier on loopback: an aiohttp server for valid HTTP, raw sockets for the rest."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from testbench_dagster.core.relay import Endpoint, Limits, Relay

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

FAST = Limits(connect_s=2, first_byte_s=5, idle_s=5, total_s=10, retries=0, max_response_mb=1)


def chat_body(text: str | None = "fine", reason: str | None = "stop", **extra: Any) -> bytes:
    message = {"role": "assistant", "content": text, **extra}
    return json.dumps(
        {
            "id": "x",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
    ).encode()


def endpoint(url: str, limits: Limits = FAST, supplier: str = "a@test", **headers: str) -> Endpoint:
    return Endpoint(supplier, supplier.split("@")[1], url, "chat", "m", limits, headers)


def relay(n: int = 0, supplier: str = "a@test", text: str | None = None) -> Relay:
    request = {
        "type": "generate_until",
        "idx": 0,
        "messages": [{"role": "user", "content": text or f"question {n}"}],
        "generation": {"until": ["\n"], "max_gen_toks": 16},
    }
    return Relay(supplier, supplier.split("@")[1], "t", "h", 1, 0, f"p{n}", n, n, 0, 0, request)


class Supplier:
    """Serves ``/<behaviour>/chat/completions``; counts requests per behaviour and remembers their texts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.texts: list[str] = []
        self.headers: dict[str, str] = {}
        self.in_flight = 0
        self.most_in_flight = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.port}/{behaviour}"

    def raw_url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.raw_port}/{behaviour}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{behaviour}/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        raw = await asyncio.start_server(self._raw, "127.0.0.1", 0)
        self.raw_port = raw.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        raw.close()
        await runner.cleanup()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        behaviour = request.match_info["behaviour"]
        self.calls[behaviour] += 1
        self.headers = dict(request.headers)
        payload = await request.json()
        self.texts.append(payload["messages"][0]["content"])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await getattr(self, f"_on_{behaviour}")(request)
        finally:
            self.in_flight -= 1

    async def _on_ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=chat_body(), content_type="application/json")

    async def _on_slowly(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.Response(body=chat_body())

    async def _on_status(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.query.items() if k == "Retry-After"}
        return web.Response(status=int(request.match_info["path"].split("/")[0]), headers=headers, text="no")

    async def _on_limited(self, request: web.Request) -> web.StreamResponse:
        """Refuse the first two requests of each text."""
        text = self.texts[-1]
        if self.texts.count(text) <= 2:
            return web.Response(status=429, headers={"Retry-After": "0.2"})
        return web.Response(body=chat_body())

    async def _on_always429(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "0"})

    async def _on_redirect(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": self.url("ok") + "/chat/completions"})

    async def _on_huge(self, request: web.Request) -> web.StreamResponse:
        """50 MB without a Content-Length."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(50):
            await response.write(b"x" * 1_000_000)
        return response

    async def _on_announced(self, request: web.Request) -> web.StreamResponse:
        """50 MB with a Content-Length."""
        return web.Response(body=b"x" * 50_000_000)

    async def _on_bomb(self, request: web.Request) -> web.StreamResponse:
        """50 MB of zeros in 50 KB of gzip."""
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        parts = [packer.compress(bytes(1_000_000)) for _ in range(50)] + [packer.flush()]
        return web.Response(body=b"".join(parts), headers={"Content-Encoding": "gzip"})

    async def _on_gzip(self, request: web.Request) -> web.StreamResponse:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = packer.compress(chat_body("packed")) + packer.flush()
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async def _on_deflate(self, request: web.Request) -> web.StreamResponse:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = packer.compress(chat_body("packed")) + packer.flush()
        return web.Response(body=body, headers={"Content-Encoding": "deflate"})

    async def _on_brotli(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x8b\x03\x80", headers={"Content-Encoding": "br"})

    async def _on_badgzip(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"this is not gzip", headers={"Content-Encoding": "gzip"})

    async def _on_deep(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"[" * 10_000 + b"]" * 10_000)

    async def _on_error200(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "out of\x1b[31m memory"}})

    async def _on_empty(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=chat_body(None))

    async def _on_length(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=chat_body("cut", "length"))

    async def _on_filtered(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=chat_body("", "content_filter"))

    async def _on_quotes(self, request: web.Request) -> web.StreamResponse:
        """A key in the error text, as some servers do with a wrong one."""
        return web.Response(status=401, text=f"bad key {request.headers['Authorization']}")

    async def _on_hang(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response(body=chat_body())

    async def _raw(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            behaviour = head.split(b"/")[1].decode()
            self.calls[behaviour] += 1
            await getattr(self, f"_raw_{behaviour}")(writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _raw_reset(self, writer: asyncio.StreamWriter) -> None:
        """RST before any answer."""
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _raw_close(self, writer: asyncio.StreamWriter) -> None:
        """A clean end before any answer."""

    async def _raw_partial(self, writer: asyncio.StreamWriter) -> None:
        """The connection ends in the middle of the body."""
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
        await writer.drain()

    async def _raw_badline(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SMTP ready\r\n\r\n")
        await writer.drain()

    async def _raw_bigheader(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Big: " + b"y" * 100_000 + b"\r\n\r\n")
        await writer.drain()

    async def _raw_slowheaders(self, writer: asyncio.StreamWriter) -> None:
        """A header byte now and then, for ever."""
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            writer.write(b"z")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def _raw_interim(self, writer: asyncio.StreamWriter) -> None:
        """Interim answers for ever."""
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def _raw_idle(self, writer: asyncio.StreamWriter) -> None:
        """Headers and half a body, then nothing."""
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
        await writer.drain()
        await asyncio.sleep(30)

    async def _raw_drip(self, writer: asyncio.StreamWriter) -> None:
        """A body that never idles and never ends."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def _raw_switch(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello")
        await writer.drain()
