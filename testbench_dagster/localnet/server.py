"""Serves the simulated suppliers over HTTP on loopback.

``/<address>/v1/chat/completions`` or ``/<address>/v1/completions`` (whichever the supplier's API is) and
``/<address>/v1/models`` behave like an OpenAI-compatible server, ``/<address>/pokt/tokenizer`` and
``/<address>/pokt/config`` like a Pocket sidecar; ``/healthz``, ``/stats``, ``/roster`` and
``/requests?address=`` describe the simulation itself, ``/control/<action>`` changes it (see :mod:`.control`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson
from aiohttp import web

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.chance import unit
from testbench_dagster.localnet.control import BlockClock, Control
from testbench_dagster.localnet.logprobs import count_tokens, echo_logprobs, tokenize
from testbench_dagster.localnet.personas import FAIL_MODES, SERVICE, Api, Backend, Persona
from testbench_dagster.localnet.requests import Ask, BadRequestError, parse

HOST = "127.0.0.1"

#: Seconds a request that fails by ``timeout`` is held when the client never gives up.
HANG_S = 3600.0

#: Seconds a ``429`` asks the client to wait.
RETRY_AFTER_S = 1

#: Requests remembered of each supplier, the newest.
LOGGED = 100_000

_ENDPOINTS: dict[str, Api] = {"v1/chat/completions": "chat", "v1/completions": "completions"}

# SO_LINGER on, zero seconds: closing then sends RST instead of FIN
_ABORT = struct.pack("ii", 1, 0)


def _json(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(payload), status=status, headers=headers, content_type="application/json"
    )


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error": {"message": message, "type": kind, "code": status}}, status, headers)


def cut(text: str, ask: Ask) -> tuple[str, str, int]:
    """``text`` ended by the request's stop strings and token limit: text, finish reason, tokens in it."""
    ends = [at for stop in ask.stop if (at := text.find(stop)) >= 0]
    if ends:
        text = text[: min(ends)]
    tokens = tokenize(text)
    if ask.max_tokens is None or len(tokens) <= ask.max_tokens:
        return text, "stop", len(tokens)
    return text[: tokens[ask.max_tokens][1]], "length", ask.max_tokens


def prompt_digest(prompts: Sequence[str]) -> bytes:
    """What identifies the prompts of a request in logs: BLAKE2b, 16 bytes, of their UTF-8 joined by NUL."""
    return blake2b("\0".join(prompts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(slots=True)
class Request:
    """One request a supplier got: when, what was asked (empty if unreadable), what became of it, by whom.

    ``outcome`` is ``ok``, a failure mode, ``rejected``, ``cancelled``, ``left`` or ``in_flight``.
    """

    at: datetime
    backend: str
    digest: bytes = b""
    outcome: str = "in_flight"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "at": self.at.isoformat(),
            "digest": self.digest.hex(),
            "outcome": self.outcome,
            "backend": self.backend,
        }


@dataclass
class Supplier:
    """One simulated supplier at work: its persona and what happened to it so far."""

    persona: Persona
    answers: Answers
    present: bool = True
    started: float = field(default_factory=time.monotonic)
    requests: int = 0
    answered: int = 0
    rejected: int = 0
    cancelled: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    by_hour: Counter[str] = field(default_factory=Counter)
    log: deque[Request] = field(default_factory=lambda: deque(maxlen=LOGGED), repr=False)
    _asked: Counter[bytes] = field(default_factory=Counter, repr=False)

    def backend(self) -> Backend:
        """The model that would answer the next request."""
        return self.persona.serving(self.requests, time.monotonic() - self.started, self.answers.seed)

    def stats(self) -> dict[str, Any]:
        """Counts since the start: ``requests`` = answered + failed + rejected + cancelled + in flight.

        Requests while the supplier was away failed by ``left``. ``by_day`` and ``by_hour`` are of UTC.
        """
        by_day: Counter[str] = Counter()
        for hour, requests in self.by_hour.items():
            by_day[hour[:10]] += requests
        return {
            "present": self.present,
            "requests": self.requests,
            "answered": self.answered,
            "failed": dict(self.failed),
            "rejected": self.rejected,
            "cancelled": self.cancelled,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "backend": self.backend().name,
            "by_day": dict(by_day),
            "by_hour": dict(self.by_hour),
        }

    def _count(self, backend: Backend) -> Request:
        self.requests += 1
        request = Request(datetime.now(UTC), backend.name)
        self.by_hour[f"{request.at:%Y-%m-%dT%H}"] += 1
        self.log.append(request)
        return request

    def turn_away(self) -> web.Response:
        """Answer a request while the supplier is away."""
        self._count(self.backend()).outcome = "left"
        self.failed["left"] += 1
        return _error(503, "this simulated supplier has left", "server_error")

    async def complete(self, request: web.BaseRequest, api: Api) -> web.StreamResponse:
        """Answers one completion request, or fails it the way the persona does, and counts it."""
        backend = self.backend()
        number = self.requests
        logged = self._count(backend)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        mode: str | None = None
        try:
            ask = parse(await request.content.read(), api)
            digest = logged.digest = prompt_digest(ask.prompts)
            attempt = self._asked[digest]
            self._asked[digest] += 1
            mode = self._failure(digest, attempt)
            await asyncio.sleep(self._latency_s(backend, digest, attempt))
            if mode in ("500", "429", "timeout", "reset", "error200"):
                response = await self._fail(mode, request)
            else:
                response = self._answer(ask, api, backend, number, mode)
        except BadRequestError as error:
            self.rejected += 1
            logged.outcome = "rejected"
            return _error(400, str(error), "invalid_request_error")
        except asyncio.CancelledError:  # the client went away; on a timeout that is the failure meant
            logged.outcome = mode or "cancelled"
            if mode:
                self.failed[mode] += 1
            else:
                self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        logged.outcome = mode or "ok"
        if mode:
            self.failed[mode] += 1
        else:
            self.answered += 1
        return response

    def _failure(self, digest: bytes, attempt: int) -> str | None:
        """Mode in which this attempt at this prompt fails; a further attempt draws anew."""
        if not self.persona.failures:
            return None
        draw = unit(self.answers.seed, self.persona.address, "failure", digest.hex(), attempt)
        for mode in FAIL_MODES:
            draw -= self.persona.failures.get(mode, 0.0)
            if draw < 0:
                return mode
        return None

    def _latency_s(self, backend: Backend, digest: bytes, attempt: int) -> float:
        persona = self.persona
        delay = backend.latency_ms + persona.latency_ms
        if persona.jitter_ms:
            share = unit(self.answers.seed, persona.address, "jitter", digest.hex(), attempt)
            delay += persona.jitter_ms * share
        return delay / 1000

    async def _fail(self, mode: str, request: web.BaseRequest) -> web.Response:
        if mode == "429":
            wait = {"Retry-After": str(RETRY_AFTER_S)}
            return _error(429, "simulated rate limit", "rate_limit_error", wait)
        if mode == "error200":
            return _json(
                {"error": {"message": "simulated upstream failure", "type": "server_error", "code": 500}}
            )
        if mode == "timeout":
            await asyncio.sleep(HANG_S)
        if mode == "reset" and request.transport is not None:
            connection = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            request.transport.abort()
        return _error(500, "simulated internal error", "server_error")

    def _answer(self, ask: Ask, api: Api, backend: Backend, number: int, mode: str | None) -> web.Response:
        choices: list[dict[str, Any]] = []
        prompt_tokens = completion_tokens = 0
        for prompt in ask.prompts:
            prompt_tokens += count_tokens(prompt)
            for sample in range(ask.samples):
                choice, tokens = self._choice(ask, api, backend, prompt, number, sample, mode)
                choices.append({"index": len(choices), **choice})
                completion_tokens += tokens
        chat = api == "chat"
        body = orjson.dumps(
            {
                "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.persona.address}-{number}",
                "object": "chat.completion" if chat else "text_completion",
                "created": int(time.time()),
                "model": self.persona.backend.model,  # a swap is silent: the name stays
                "choices": choices,
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            }
        )
        if mode == "garbage":  # breaks off in the middle, with bytes that are not UTF-8
            body = body[: len(body) // 2] + b"\xff\xfe<html>"
        return web.Response(body=body, content_type="application/json")

    def _variant(self, ask: Ask, number: int, sample: int) -> str:
        """What tells this sample from others: nothing at temperature 0, the seed or its own number above."""
        if ask.temperature == 0:
            return ""
        source = f"{self.persona.address}/{number}" if ask.seed is None else f"seed {ask.seed}"
        return f"{source}/{sample}"

    def _text(self, ask: Ask, backend: Backend, prompt: str, number: int, sample: int) -> str:
        """The whole text of one sample, before it is cut."""
        if ask.temperature == 0 and self.persona.deviates(self.answers.seed, number):
            return self.answers.deviation(backend, prompt, f"noise {self.persona.address}/{number}")
        return self.answers.reply(backend, prompt, self._variant(ask, number, sample))

    def _choice(
        self, ask: Ask, api: Api, backend: Backend, prompt: str, number: int, sample: int, mode: str | None
    ) -> tuple[dict[str, Any], int]:
        """One choice without its index, and the number of tokens generated for it."""
        if mode == "empty":
            text, reason, tokens = "", "stop", 0
        elif ask.logprobs is not None:
            limit = ask.max_tokens or 0
            echoed = echo_logprobs(self.answers.seed, backend, prompt, ask.logprobs, limit)
            return {**echoed, "finish_reason": "length"}, limit
        else:
            text, reason, tokens = cut(self._text(ask, backend, prompt, number, sample), ask)
        if api == "chat":
            message = {"role": "assistant", "content": text}
            return {"message": message, "logprobs": None, "finish_reason": reason}, tokens
        shown = prompt + text if ask.echo else text
        return {"text": shown, "logprobs": None, "finish_reason": reason}, tokens


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

        Raises ValueError on two suppliers with one address and on times that do not run forward.
        """
        self._answers = answers or Answers()
        self.suppliers: dict[str, Supplier] = {}
        for persona in personas:
            self.add(persona)
        if len(self.suppliers) != len(personas):
            raise ValueError("two simulated suppliers have the same address")
        self.clock = BlockClock(block_s)
        self._control = Control(self)
        self._port = port
        self._runner: web.ServerRunner | None = None
        #: ``http://127.0.0.1:PORT`` once started.
        self.url = ""

    async def __aenter__(self) -> Localnet:
        """Starts listening."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
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

    def add(self, persona: Persona) -> None:
        """Add a supplier."""
        self.suppliers[persona.address] = Supplier(persona, self._answers)

    def describe(self, address: str) -> dict[str, Any]:
        """A supplier as a client needs it."""
        persona = self.suppliers[address].persona
        return {
            "address": address,
            "service": SERVICE,
            "api": persona.api,
            "base_url": f"{self.url}/{address}/v1",
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

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
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
        return _error(404, f"nothing at {request.path}; see /roster", "invalid_request_error")

    async def _command(self, request: web.BaseRequest, action: str) -> web.Response:
        # a page in a browser could not send this type unasked
        if request.content_type != "application/json":
            return _error(400, "Content-Type must be application/json", "invalid_request_error")
        try:
            return _json(self._control.handle(action, await request.content.read()))
        except BadRequestError as error:
            return _error(400, str(error), "invalid_request_error")

    def _requests(self, address: str) -> web.Response:
        supplier = self.suppliers.get(address)
        if supplier is None:
            return _error(400, f"address {address!r} is nobody's; see /stats", "invalid_request_error")
        log = [entry.to_json() for entry in supplier.log]
        return _json({"address": address, "forgotten": supplier.requests - len(log), "requests": log})

    async def _serve(self, supplier: Supplier, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        if not supplier.present:
            return supplier.turn_away()
        api = _ENDPOINTS.get(rest)
        if api is not None and request.method == "POST" and api == supplier.persona.api:
            return await supplier.complete(request, api)
        if rest == "v1/models" and request.method == "GET":
            model = {
                "id": supplier.persona.backend.model,
                "object": "model",
                "created": 0,
                "owned_by": SERVICE,
            }
            return _json({"object": "list", "data": [model]})
        folder, _, page = rest.partition("/")
        if folder == "pokt" and page in supplier.persona.pages and request.method == "GET":
            return _json(supplier.persona.backend.page(page))
        return _error(404, f"{request.method} {request.path} is not served", "invalid_request_error")


async def serve(net: Localnet, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set; prints ``listening on URL`` as soon as requests are accepted."""
    async with net:
        print(f"listening on {net.url}", flush=True)
        await stop.wait()
