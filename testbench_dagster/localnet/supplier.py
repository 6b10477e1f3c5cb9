"""One simulated supplier: answers requests given as plain bytes, whatever carries them.

``chat/completions`` or ``completions`` (whichever the supplier's API is) and ``models`` below ``v1``, or
where the server's :mod:`.manners` have it, and the pages ``pokt/tokenizer`` and ``pokt/config``. The HTTP
server (:mod:`.server`) and the relay miners of the simulated Pocket network (:mod:`.pocket`) both answer
through it, so both give the same answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.chance import unit
from testbench_dagster.localnet.logprobs import count_tokens, echo_logprobs, tokenize
from testbench_dagster.localnet.manners import KEY, Refused, too_long, unknown_model
from testbench_dagster.localnet.personas import FAIL_MODES, SERVICE, Api, Backend, Persona, Speed
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.requests import Ask, BadRequestError, parse
from testbench_dagster.localnet.streams import Spoken, events
from testbench_dagster.localnet.thinking import Thinking, thinking
from testbench_dagster.localnet.tool_use import Call, Said, known_of, tool_answer
from testbench_dagster.localnet.withholding import Asked, Decision, Withheld

#: Seconds a request that fails by ``timeout`` is held when the client never gives up.
HANG_S = 3600.0

#: Seconds a ``429`` asks the client to wait.
RETRY_AFTER_S = 1

#: Requests remembered of each supplier, the newest.
LOGGED = 100_000

#: Answers that a supplier which repeats them keeps, the newest, and seconds that a repeated one takes.
CACHED, CACHED_S = 20_000, 0.001

#: Share of the time to answer that passes before a stream's first event.
FIRST_EVENT_SHARE = 0.3

#: Bytes of an answer that is too large: more than any installation takes.
OVERSIZED = 16_000_000

#: Ways of failing that are an answer of its own kind; all others are no answer. What is forged shows only
#: where answers are signed.
_IN_ANSWERS = ("garbage", "oversized", "error", "filter", "empty", "null", "cut", "forged")
#: Status, message and type of those that only refuse.
_REFUSALS = {
    "500": (500, "simulated internal error", "server_error"),
    "503": (503, "simulated overload", "unavailable_error"),
    "401": (401, "simulated wrong key", "invalid_api_key"),
    "402": (402, "simulated lack of credit", "payment_required"),
    "403": (403, "simulated lack of permission", "permission_error"),
    "404": (404, "simulated lack of the model", "model_not_found"),
    "quota": (429, "simulated quota that is used up", "insufficient_quota"),
    "400": (400, "simulated refusal of a parameter", "unsupported_parameter"),
    "451": (451, "simulated legal reasons", "unavailable_for_legal_reasons"),
}
#: What an answer that is none says it ended by.
_REASONS = {"error": "error", "filter": "content_filter", "empty": "stop", "null": "stop", "cut": "length"}

_ENDPOINTS: dict[str, Api] = {"chat/completions": "chat", "completions": "completions"}
_PATHS = {api: path for path, api in _ENDPOINTS.items()}

# shorter waits between events are saved up: timers are no finer
_SLEEP_S = 0.002


class _NotAnsweredError(Exception):
    """The server refuses a request for what it says; carries what it answers instead."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.status)
        self.refused = refused


class BrokenConnection(Exception):
    """The supplier resets the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a supplier answers. With ``events`` it is a stream of them, ``gap_s`` seconds apart.

    With ``due_s`` each is due so many seconds after ``began``, a reading of the monotonic clock.
    ``forged``: whoever signs it is to sign it wrongly.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    events: tuple[bytes, ...] = ()
    gap_s: float = 0.0
    forged: bool = False
    due_s: tuple[float, ...] = ()
    began: float = 0.0

    async def paced(self) -> AsyncIterator[bytes]:
        """The events of a stream, when they are due."""
        if self.due_s:
            for place, each in enumerate(self.events):
                await _until(self.began + self.due_s[min(place, len(self.due_s) - 1)])
                yield each
            return
        waited = 0.0
        for each in self.events:
            yield each
            waited += self.gap_s
            if waited >= _SLEEP_S:
                await asyncio.sleep(waited)
                waited = 0.0


def _due(speed: Speed, spoken: Sequence[Spoken], *, chat: bool) -> tuple[float, ...]:
    """When the events of a stream are due, in seconds since the request.

    The role of a chat comes before the first token, what follows the last token with it.
    """
    due: list[float] = []
    token = 0
    for choice in spoken:
        if chat:
            due.append(speed.due_s(token) if token else speed.due_s(0) * FIRST_EVENT_SHARE)
        said = len(tokenize(choice.text)) + (len(tokenize(choice.thoughts)) if choice.thoughts_field else 0)
        due += [speed.due_s(place) for place in range(token, token + said)]
        token += said
        due.append(speed.due_s(max(0, token - 1)))
    return tuple(due)


async def _until(moment: float) -> None:
    """Wait for an instant of the monotonic clock; not at all where it is past, so that no delay adds up."""
    left = moment - time.monotonic()
    if left > 0:
        await asyncio.sleep(left)


def json_reply(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer of JSON."""
    return Reply(status, orjson.dumps(payload), headers or {})


def error_reply(status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error in OpenAI's shape."""
    return json_reply({"error": {"message": message, "type": kind, "code": status}}, status, headers)


def cut(text: str, ask: Ask) -> tuple[str, str, int]:
    """``text`` ended by the request's stop strings and token limit: text, finish reason, tokens in it."""
    ends = [at for stop in ask.stop if (at := text.find(stop)) >= 0]
    if ends:
        text = text[: min(ends)]
    tokens = tokenize(text)
    if ask.max_tokens is None or len(tokens) <= ask.max_tokens:
        return text, "stop", len(tokens)
    return text[: tokens[ask.max_tokens][1]], "length", ask.max_tokens


def cut_calls(calls: Sequence[Call], limit: int | None) -> tuple[tuple[Call, ...], str, int]:
    """Calls ended by a limit of tokens in all their arguments: calls, finish reason, tokens in them."""
    made: list[Call] = []
    spent = 0
    for call in calls:
        tokens = tokenize(call.arguments)
        if limit is not None and spent + len(tokens) > limit:
            rest = limit - spent
            made.append(replace(call, arguments=call.arguments[: tokens[rest][1]]))
            return tuple(made), "length", limit
        made.append(call)
        spent += len(tokens)
    return tuple(made), "tool_calls", spent


def prompt_digest(prompts: Sequence[str]) -> bytes:
    """What identifies the prompts of a request in logs: BLAKE2b, 16 bytes, of their UTF-8 joined by NUL."""
    return blake2b("\0".join(prompts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def raw_digest(raw: bytes) -> bytes:
    """What identifies a request byte by byte: BLAKE2b, 16 bytes."""
    return blake2b(raw, digest_size=16).digest()


@dataclass(slots=True)
class Request:
    """One request a supplier got: when, what was asked (empty if unreadable), what became of it, by whom.

    ``outcome`` is ``ok``, a failure mode, ``rejected``, ``cancelled``, ``left`` or ``in_flight``.
    """

    at: datetime
    backend: str
    digest: bytes = b""
    outcome: str = "in_flight"
    mode: str | None = None
    """The way of failing that was chosen, as soon as it is."""

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
    """One simulated supplier at work: its persona and what happened to it so far.

    ``others`` are those of its network by address, of which it may copy one.
    """

    persona: Persona
    answers: Answers
    present: bool = True
    others: Mapping[str, Supplier] = field(default_factory=dict, repr=False)
    started: float = field(default_factory=time.monotonic)
    requests: int = 0
    answered: int = 0
    rejected: int = 0
    cancelled: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    by_hour: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)
    log: deque[Request] = field(default_factory=lambda: deque(maxlen=LOGGED), repr=False)
    _asked: Counter[bytes] = field(default_factory=Counter, repr=False)
    _withheld: Withheld | None = field(default=None, repr=False)
    _cached: OrderedDict[bytes, tuple[bytes, Reply]] = field(default_factory=OrderedDict, repr=False)

    def backend(self) -> Backend:
        """The model that would answer the next request."""
        return self.persona.serving(self.requests, time.monotonic() - self.started, self.answers.seed)

    def stats(self) -> dict[str, Any]:
        """Counts since the start: ``requests`` = answered + failed + rejected + cancelled + in flight.

        Requests while the supplier was away failed by ``left``. ``by_day`` and ``by_hour`` are of UTC.
        ``pages`` counts those that were got, which are no ``requests``.
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
            "pages": dict(self.pages),
        }

    def _count(self, backend: Backend) -> Request:
        self.requests += 1
        request = Request(datetime.now(UTC), backend.name)
        self.by_hour[f"{request.at:%Y-%m-%dT%H}"] += 1
        self.log.append(request)
        return request

    async def respond(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Reply:
        """Answer a request for ``path``, such as ``v1/models``, and count it if it is for a completion.

        Raises:
            BrokenConnection: the persona resets this connection.
        """
        if not self.present:
            self._count(self.backend()).outcome = "left"
            self.failed["left"] += 1
            return error_reply(503, "this simulated supplier has left", "server_error")
        manners = self.persona.manners
        base = f"{manners.base_path(self.persona.backend.model)}/"
        inner = path.removeprefix(base) if path.startswith(base) else ""
        api = _ENDPOINTS.get(inner)
        if inner and (refused := manners.unadmitted(headers or {}, query or {})) is not None:
            if api is not None:
                self._count(self.backend()).outcome = "rejected"
                self.rejected += 1
            return json_reply(refused.body, refused.status)
        if api is not None and method == "POST" and api == self.persona.api:
            return await self._complete(body, api)
        if inner == "models" and method == "GET":
            model: dict[str, Any] = {"id": self.persona.backend.model, "object": "model", "created": 0}
            model["owned_by"] = SERVICE
            if self.persona.context.lists is not None:
                model["max_model_len"] = self.persona.context.lists
            return json_reply({"object": "list", "data": [model]})
        folder, _, page = path.partition("/")
        if folder == "pokt" and page in self.persona.pages and method == "GET":
            self.pages[page] += 1
            return json_reply(self.persona.backend.page(page))
        return error_reply(404, f"{method} /{path} is not served", "invalid_request_error")

    async def _complete(self, raw: bytes, api: Api) -> Reply:
        """Answers one completion request, or fails it the way the persona does, and counts it."""
        backend = self.backend()
        number = self.requests
        logged = self._count(backend)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            response = await (self._repeated(raw, logged) or self._made(raw, api, backend, number, logged))
        except BadRequestError as error:
            self.rejected += 1
            logged.outcome = "rejected"
            return error_reply(400, str(error), "invalid_request_error")
        except _NotAnsweredError as error:
            self.rejected += 1
            logged.outcome = "rejected"
            return json_reply(error.refused.body, error.refused.status)
        except BrokenConnection:
            logged.outcome = "reset"
            self.failed["reset"] += 1
            raise
        except asyncio.CancelledError:  # the client went away; on a timeout that is the failure meant
            logged.outcome = logged.mode or "cancelled"
            if logged.mode:
                self.failed[logged.mode] += 1
            else:
                self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        logged.outcome = logged.mode or "ok"
        if logged.mode:
            self.failed[logged.mode] += 1
        else:
            self.answered += 1
            self._cache(raw, logged.digest, response)
        return response

    async def _made(self, raw: bytes, api: Api, backend: Backend, number: int, logged: Request) -> Reply:
        """The answer to a request that is not repeated, or what it fails by."""
        began, speed = time.monotonic(), self.persona.speed
        ask = self._admit(parse(raw, api))
        digest = logged.digest = prompt_digest(ask.prompts)
        backend = self._answering(ask, backend, digest)
        logged.backend = backend.name
        attempt = self._asked[digest]
        self._asked[digest] += 1
        withheld = self._withhold(ask, backend, digest)
        mode = logged.mode = withheld.mode or self._failure(digest, attempt)
        if withheld.looked_up:
            backend = replace(backend, accuracy=1.0, by_task={})
        latency_s = self._latency_s(backend, digest, attempt)
        refuses = mode is not None and mode not in _IN_ANSWERS
        if speed is None or refuses:
            await asyncio.sleep(latency_s * FIRST_EVENT_SHARE if ask.stream else latency_s)
        if mode is not None and refuses:
            return await self._fail(mode, withheld.parameter)
        if self.persona.copies:
            return await self._copy(raw, api, logged)
        response = self._answer(ask, api, backend, number, mode, latency_s, began)
        if response.due_s and not response.events:
            await _until(began + response.due_s[0])
        return response

    def _answering(self, ask: Ask, backend: Backend, digest: bytes) -> Backend:
        """Who answers, of what the persona has to choose from."""
        persona = self.persona
        known = self._known(ask) if persona.memorises or persona.for_public else None
        public = known is not None and known.public
        return persona.answering(backend, digest.hex(), public=public, seed=self.answers.seed)

    def _repeated(self, raw: bytes, logged: Request) -> Awaitable[Reply] | None:
        """What is to be waited for where the persona has the answer to this very request already."""
        kept = self._cached.get(raw_digest(raw)) if self.persona.caches else None
        if kept is None:
            return None
        logged.digest, reply = kept
        return asyncio.sleep(CACHED_S, reply)

    def _cache(self, raw: bytes, digest: bytes, reply: Reply) -> None:
        """Keep an answer, to be given at once from now on."""
        key = raw_digest(raw)
        if not self.persona.caches or key in self._cached:
            return
        self._cached[key] = digest, replace(reply, gap_s=0.0, due_s=(), began=0.0)
        if len(self._cached) > CACHED:
            self._cached.popitem(last=False)

    async def _copy(self, raw: bytes, api: Api, logged: Request) -> Reply:
        """Send a request on, and give the answer out as its own: only the names in it are others."""
        other, mine = self.others[self.persona.copies], self.persona.backend.model
        theirs, manners = other.persona.backend.model, other.persona.manners
        asked = orjson.dumps({**orjson.loads(raw), "model": theirs})
        path = f"{manners.base_path(theirs)}/{_PATHS[api]}"
        reply = await other.respond("POST", path, asked, {"api-key": KEY}, {"api-version": "1"})
        if reply.status != 200:
            logged.mode = str(reply.status)

        def own(body: bytes) -> bytes:
            body = body.replace(f'"model":"{theirs}"'.encode(), f'"model":"{mine}"'.encode())
            return body.replace(f"-{other.persona.address}-".encode(), f"-{self.persona.address}-".encode())

        return replace(reply, body=own(reply.body), events=tuple(map(own, reply.events)))

    def _admit(self, ask: Ask) -> Ask:
        """Refuse a request for another model, one that says what the server does not take, and too long ones.

        Returns it as the model gets to see it.
        """
        persona = self.persona
        refused = None if persona.serves(ask.model) else unknown_model(ask.model or "")
        refused = refused or persona.manners.refusal(ask)
        if refused is not None:
            raise _NotAnsweredError(refused)
        context = persona.context
        if context.tokens is None:
            return ask
        answer = ask.max_tokens or 0
        asked = max(count_tokens(prompt) for prompt in ask.prompts) + answer
        if asked <= context.tokens:
            return ask
        if not context.forgets:
            raise _NotAnsweredError(too_long(context.tokens, asked))
        kept = max(0, context.tokens - answer)
        ends = (tokenize(prompt) for prompt in ask.prompts)
        starts = [tokens[-kept][1] if 0 < kept < len(tokens) else 0 for tokens in ends]
        return replace(ask, prompts=tuple(p[at:] for p, at in zip(ask.prompts, starts, strict=True)))

    def _withhold(self, ask: Ask, backend: Backend, digest: bytes) -> Decision:
        """What the persona's rules make of a request, before chance has its say."""
        rules = self.persona.withholds
        if not rules:
            return Decision()
        if self._withheld is None or self._withheld.rules != rules:
            self._withheld = Withheld(rules, backend.accuracy)
        known = self._known(ask)
        asked = Asked(
            digest,
            known.text if known is not None else digest.hex(),
            known is None or self.answers.is_right(backend, known),
            "" if known is None else known.task,
            known is not None and ask.logprobs is not None and ask.prompts[0].endswith(f" {known.answer}"),
            ask.parameters,
        )
        return self._withheld.decide(asked, time.monotonic())

    def _known(self, ask: Ask) -> Known | None:
        """The question that a request asks, where it is recognised."""
        if ask.tools or ask.wants_json:
            return known_of(ask)
        return self.answers.find(ask.prompts[0])

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
        if persona.speed is not None:
            return persona.speed.due_s(0)
        # a copycat has no model to wait for
        delay = persona.latency_ms + (0.0 if persona.copies else backend.latency_ms)
        if persona.jitter_ms:
            share = unit(self.answers.seed, persona.address, "jitter", digest.hex(), attempt)
            delay += persona.jitter_ms * share
        return delay / 1000

    async def _fail(self, mode: str, parameter: str) -> Reply:
        if mode == "429":
            wait = {"Retry-After": str(RETRY_AFTER_S)}
            return error_reply(429, "simulated rate limit", "rate_limit_error", wait)
        if mode == "error200":
            return json_reply(
                {"error": {"message": "simulated upstream failure", "type": "server_error", "code": 500}}
            )
        if mode in _REFUSALS:
            status, message, kind = _REFUSALS[mode]
            if parameter:
                message = f"Unsupported parameter: '{parameter}' is not supported with this simulated model"
            return error_reply(status, message, kind)
        if mode == "timeout":
            await asyncio.sleep(HANG_S)
        raise BrokenConnection

    def _answer(
        self,
        ask: Ask,
        api: Api,
        backend: Backend,
        number: int,
        mode: str | None,
        latency_s: float,
        began: float,
    ) -> Reply:
        manners, speed = self.persona.manners, self.persona.speed
        choices: list[dict[str, Any]] = []
        thoughts: list[Thinking] = []
        prompt_tokens = completion_tokens = 0
        for prompt in ask.prompts:
            prompt_tokens += count_tokens(prompt)
            for sample in range(ask.samples):
                choice, thought, tokens = self._choice(ask, api, backend, prompt, number, sample, mode)
                choices.append({"index": len(choices), **choice})
                thoughts.append(thought)
                completion_tokens += tokens
        head = {
            "id": f"{'chatcmpl' if api == 'chat' else 'cmpl'}-{self.persona.address}-{number}",
            "created": int(time.time()),
            "model": self.persona.backend.model,  # a swap is silent: the name stays
        }
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        if manners.thinks:
            tokens = sum(thought.tokens for thought in thoughts)
            usage["completion_tokens_details"] = {"reasoning_tokens": tokens}
        if ask.stream:
            spoken = [
                Spoken(
                    thought.rest if api == "chat" else choice["text"],
                    choice["finish_reason"],
                    thought.text,
                    thought.field,
                    choice["message"].get("tool_calls", ()) if api == "chat" else (),
                )
                for choice, thought in zip(choices, thoughts, strict=True)
            ]
            counted = usage if ask.stream_usage and manners.usage else None
            parts = tuple(events(api, head, spoken, counted))
            if mode == "garbage":
                parts = (*parts[: len(parts) // 2], b"data: \xff\xfe<html>")
            parts = parts[: manners.breaks_after]
            gap_s = manners.gap_ms / 1000 or latency_s * (1 - FIRST_EVENT_SHARE) / len(parts)
            if mode == "oversized":
                parts = (*parts[:-1], b": " + b"." * OVERSIZED + b"\n\n", parts[-1])
            return Reply(
                200,
                b"",
                content_type="text/event-stream",
                events=parts,
                gap_s=gap_s,
                forged=mode == "forged",
                due_s=() if speed is None else _due(speed, spoken, chat=api == "chat"),
                began=began,
            )
        kind = "chat.completion" if api == "chat" else "text_completion"
        answer = {"id": head["id"], "object": kind, **head, "choices": choices}
        body = orjson.dumps({**answer, "usage": usage} if manners.usage else answer)
        if mode == "garbage":  # breaks off in the middle, with bytes that are not UTF-8
            body = body[: len(body) // 2] + b"\xff\xfe<html>"
        elif mode == "oversized":
            body = body[:-1] + b" " * OVERSIZED + body[-1:]
        due_s = () if speed is None else (speed.due_s(max(0, completion_tokens - 1)),)
        return Reply(200, body, forged=mode == "forged", due_s=due_s, began=began)

    def _variant(self, ask: Ask, number: int, sample: int) -> str:
        """What tells this sample from others: nothing at temperature 0, the seed or its own number above."""
        if ask.temperature == 0:
            return ""
        source = f"{self.persona.address}/{number}" if ask.seed is None else f"seed {ask.seed}"
        return f"{source}/{sample}"

    def _text(self, ask: Ask, backend: Backend, prompt: str, number: int, sample: int) -> str:
        """The whole text of one sample, before it is cut."""
        if ask.temperature == 0 and self.persona.deviates(self.answers.seed, number):
            text = self.answers.deviation(backend, prompt, f"noise {self.persona.address}/{number}")
        else:
            text = self.answers.reply(backend, prompt, self._variant(ask, number, sample))
        return self.persona.mangled(text)

    def _said(self, ask: Ask, backend: Backend, prompt: str, number: int, sample: int) -> Said:
        """One sample, before it is cut: a text, and calls where tools are offered."""
        if not (ask.tools or ask.wants_json):
            return Said(self._text(ask, backend, prompt, number, sample))
        variant = self._variant(ask, number, sample)
        if ask.temperature == 0 and self.persona.deviates(self.answers.seed, number):
            variant = f"noise {self.persona.address}/{number}"
        said = tool_answer(self.answers, backend, self.persona.tool_use, ask, variant)
        mangled = self.persona.mangled
        calls = tuple(replace(call, arguments=mangled(call.arguments)) for call in said.calls)
        return Said(None if said.content is None else mangled(said.content), calls)

    def _choice(
        self, ask: Ask, api: Api, backend: Backend, prompt: str, number: int, sample: int, mode: str | None
    ) -> tuple[dict[str, Any], Thinking, int]:
        """One choice without its index, what was thought before it, and the number of tokens of both."""
        manners = self.persona.manners
        thought = Thinking()
        calls: tuple[Call, ...] = ()
        if mode in _REASONS:
            text, reason, tokens = "", _REASONS[mode], 0
        elif ask.logprobs is not None:
            limit = ask.max_tokens or 0
            echoed = echo_logprobs(self.answers.seed, backend, prompt, ask.logprobs, limit)
            return {**echoed, "finish_reason": "length"}, thought, limit
        else:
            said = self._said(ask, backend, prompt, number, sample)
            text = said.content or ""
            thought = thinking(manners, ask.max_tokens)
            if thought.ends:
                text, reason, tokens = "", "length", thought.tokens
            elif manners.thinks_in_text:
                text, reason, tokens = cut(thought.text + text, ask)
            else:
                left = None if ask.max_tokens is None else ask.max_tokens - thought.tokens
                text, reason, tokens = cut(text, replace(ask, max_tokens=left))
                tokens += thought.tokens
            if said.calls and reason == "stop":
                left = None if ask.max_tokens is None else ask.max_tokens - tokens
                calls, reason, spent = cut_calls(said.calls, left)
                tokens += spent
        thought = thought.followed_by(text)
        if api == "chat":
            message: dict[str, Any] = {"role": "assistant", **thought.message()}
            if calls:
                message["content"] = message["content"] or None
                message["tool_calls"] = [
                    {
                        "id": f"call-{self.persona.address}-{number}-{sample}-{place}",
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    }
                    for place, call in enumerate(calls)
                ]
            if mode == "null":
                message["content"] = None
            return {"message": message, "logprobs": None, "finish_reason": reason}, thought, tokens
        shown = prompt + text if ask.echo else text
        return {"text": shown, "logprobs": None, "finish_reason": reason}, thought, tokens
