"""Serves the simulated suppliers over HTTP on loopback.

``/<address>/v1/chat/completions`` or ``/<address>/v1/completions`` (whichever the supplier's API is) and
``/<address>/v1/models`` behave like an OpenAI-compatible server; ``/healthz``, ``/stats`` and ``/roster``
describe the simulation itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson
from aiohttp import web

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.chance import unit
from testbench_dagster.localnet.logprobs import count_tokens, echo_logprobs, tokenize
from testbench_dagster.localnet.personas import FAIL_MODES, SERVICE, Api, Backend, Persona
from testbench_dagster.localnet.requests import Ask, BadRequestError, parse

HOST = "127.0.0.1"

#: Seconds a request that fails by ``timeout`` is held when the client never gives up.
HANG_S = 3600.0

#: Seconds a ``429`` asks the client to wait.
RETRY_AFTER_S = 1

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


@dataclass
class Supplier:
    """One simulated supplier at work: its persona and what happened to it so far."""

    persona: Persona
    answers: Answers
    started: float = field(default_factory=time.monotonic)
    requests: int = 0
    answered: int = 0
    rejected: int = 0
    cancelled: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    _asked: Counter[bytes] = field(default_factory=Counter, repr=False)

    def backend(self) -> Backend:
        """The model that would answer the next request."""
        return self.persona.serving(self.requests, time.monotonic() - self.started)

    def stats(self) -> dict[str, Any]:
        """Counts since the start: ``requests`` = answered + failed + rejected + cancelled + in flight."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "failed": dict(self.failed),
            "rejected": self.rejected,
            "cancelled": self.cancelled,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "backend": self.backend().name,
        }

    async def complete(self, request: web.BaseRequest, api: Api) -> web.StreamResponse:
        """Answers one completion request, or fails it the way the persona does, and counts it."""
        backend = self.backend()
        number = self.requests
        self.requests += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        mode: str | None = None
        try:
            ask = parse(await request.content.read(), api)
            digest = blake2b("\0".join(ask.prompts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
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
            return _error(400, str(error), "invalid_request_error")
        except asyncio.CancelledError:  # the client went away; on a timeout that is the failure meant
            if mode:
                self.failed[mode] += 1
            else:
                self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
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
                choice, tokens = self._choice(
                    ask, api, backend, prompt, self._variant(ask, number, sample), mode
                )
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

    def _choice(
        self, ask: Ask, api: Api, backend: Backend, prompt: str, variant: str, mode: str | None
    ) -> tuple[dict[str, Any], int]:
        """One choice without its index, and the number of tokens generated for it."""
        if mode == "empty":
            text, reason, tokens = "", "stop", 0
        elif ask.logprobs is not None:
            limit = ask.max_tokens or 0
            echoed = echo_logprobs(self.answers.seed, backend, prompt, ask.logprobs, limit)
            return {**echoed, "finish_reason": "length"}, limit
        else:
            text, reason, tokens = cut(self.answers.reply(backend, prompt, variant), ask)
        if api == "chat":
            message = {"role": "assistant", "content": text}
            return {"message": message, "logprobs": None, "finish_reason": reason}, tokens
        shown = prompt + text if ask.echo else text
        return {"text": shown, "logprobs": None, "finish_reason": reason}, tokens


class Localnet:
    """A population of suppliers behind one loopback port; an async context manager."""

    def __init__(self, personas: Sequence[Persona], answers: Answers | None = None, port: int = 0) -> None:
        """``port`` 0 takes a free one. Raises ValueError on two suppliers with one address."""
        answers = answers or Answers()
        self.suppliers = {persona.address: Supplier(persona, answers) for persona in personas}
        if len(self.suppliers) != len(personas):
            raise ValueError("two simulated suppliers have the same address")
        self._seed = answers.seed
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

    def roster(self) -> dict[str, Any]:
        """The suppliers as a client needs them, marked as a simulation."""
        return {
            "simulation": True,
            "seed": self._seed,
            "suppliers": [
                {
                    "address": address,
                    "service": SERVICE,
                    "api": supplier.persona.api,
                    "base_url": f"{self.url}/{address}/v1",
                    "model": supplier.persona.backend.model,
                    "simulation": True,
                }
                for address, supplier in self.suppliers.items()
            ],
        }

    def stats(self) -> dict[str, Any]:
        """Counts per supplier since the start."""
        suppliers = {address: supplier.stats() for address, supplier in self.suppliers.items()}
        return {"simulation": True, "suppliers": suppliers}

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        address, _, rest = request.path.lstrip("/").partition("/")
        supplier = self.suppliers.get(address)
        if supplier is not None:
            return await self._serve(supplier, request, rest)
        if request.method == "GET" and not rest:
            if address == "healthz":
                return _json({"status": "ok", "simulation": True})
            if address == "stats":
                return _json(self.stats())
            if address == "roster":
                return _json(self.roster())
        return _error(404, f"nothing at {request.path}; see /roster", "invalid_request_error")

    async def _serve(self, supplier: Supplier, request: web.BaseRequest, rest: str) -> web.StreamResponse:
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
        return _error(404, f"{request.method} {request.path} is not served", "invalid_request_error")


async def serve(personas: Sequence[Persona], answers: Answers, port: int, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set; prints ``listening on URL`` as soon as requests are accepted."""
    async with Localnet(personas, answers, port) as net:
        print(f"listening on {net.url}", flush=True)
        await stop.wait()
