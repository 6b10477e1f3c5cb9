"""A set speed: first token and rate, streamed or not; contexts that are listed, kept or forgotten."""

import asyncio
import time

import aiohttp
import orjson
import pytest

from testbench_dagster.core.workloads import HIDDEN_QUESTION, HIDDEN_WORDS, LONG_ANSWER
from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.control import Control
from testbench_dagster.localnet.manners import MANNERS, Manners
from testbench_dagster.localnet.personas import Backend, Context, Persona, Speed
from testbench_dagster.localnet.requests import BadRequestError
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.supplier import Supplier

BACKEND = Backend("b", 1.0, latency_ms=0)
SPEED = Speed(first_token_ms=20, tokens_per_s=1_000)


def chat(text, limit=8, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": limit, **more}


def replied(persona, body):
    """What a supplier makes of a request, and when it was asked by the monotonic clock."""

    async def ask():
        began = time.monotonic()
        reply = await Supplier(persona, Answers(0)).respond("POST", "v1/chat/completions", orjson.dumps(body))
        return reply, began

    return asyncio.run(ask())


def test_every_token_has_its_time():
    persona = Persona("a", BACKEND, speed=SPEED, manners=Manners(thinks=2))
    reply, began = replied(persona, chat(f"notes. {LONG_ANSWER}", stream=True))
    assert 0 <= reply.began - began < 5
    # a role, two thoughts, six words, why it ended, the end of the stream
    assert len(reply.events) == 1 + 8 + 1 + 1
    assert reply.due_s[0] < 0.020
    assert reply.due_s[1:9] == pytest.approx([0.020 + n / 1_000 for n in range(8)])
    assert reply.due_s[9:] == reply.due_s[8:9] == pytest.approx((0.027,))


def test_plain_answers_come_with_their_last_token():
    reply, _ = replied(Persona("a", BACKEND, speed=SPEED), chat(LONG_ANSWER))
    assert reply.due_s == pytest.approx((0.027,))
    assert replied(Persona("a", BACKEND), chat(LONG_ANSWER))[0].due_s == ()


def test_events_are_sent_no_earlier_than_they_are_due():
    persona = Persona("a", BACKEND, speed=Speed(30, 400))

    async def scenario():
        async with Localnet([persona], Answers(0)) as net, aiohttp.ClientSession() as session:
            began, arrived = time.monotonic(), []
            url = f"{net.url}/a/v1/chat/completions"
            async with session.post(url, json=chat(LONG_ANSWER, 20, stream=True)) as response:
                async for part in response.content.iter_any():
                    arrived += [time.monotonic() - began] * part.count(b'"delta"')
            return arrived

    arrived = asyncio.run(scenario())
    assert len(arrived) == 22
    assert all(at >= 0.030 + n / 400 for n, at in enumerate(arrived[1:21]))


def test_a_speed_that_is_none_is_refused():
    for first, rate in ((-1, 10), (1, 0), (1, -5), (float("nan"), 1)):
        with pytest.raises(ValueError, match="are no speed"):
            Speed(first, rate)


def test_speed_is_set_and_taken_back_while_it_runs():
    net = Localnet([Persona("a", BACKEND)], Answers(0))
    control = Control(net)
    control.handle("speed", b'{"address": "a", "first_token_ms": 5, "tokens_per_s": 50}')
    assert net.suppliers["a"].persona.speed == Speed(5, 50)
    with pytest.raises(BadRequestError, match="go together"):
        control.handle("speed", b'{"address": "a", "first_token_ms": 5}')
    control.handle("speed", b'{"address": "a"}')
    assert net.suppliers["a"].persona.speed is None


def test_long_answers_fill_the_limit_and_differ():
    texts = []
    for notes in ("one", "two"):
        reply, _ = replied(Persona("a", BACKEND), chat(f"{notes}. {LONG_ANSWER}", 300))
        body = orjson.loads(reply.body)
        assert body["usage"]["completion_tokens"] == 300
        assert body["choices"][0]["finish_reason"] == "length"
        texts.append(body["choices"][0]["message"]["content"])
    assert texts[0] != texts[1]


HIDING = f"a b c. {HIDDEN_WORDS} red-cat-12. {'d ' * 100}\n\n{HIDDEN_QUESTION}"


@pytest.mark.parametrize(
    ("context", "status", "said"),
    [
        (Context(), 200, b"red-cat-12"),
        (Context(tokens=5_000), 200, b"red-cat-12"),
        (Context(tokens=100), 400, b"maximum context length is 100 tokens"),
        (Context(tokens=100, forgets=True), 200, b"no sign"),
    ],
)
def test_contexts(context, status, said):
    reply, _ = replied(Persona("a", BACKEND, context=context), chat(HIDING, 20))
    assert reply.status == status and said in reply.body


def test_what_is_listed_need_not_be_so():
    async def listed():
        persona = Persona("a", BACKEND, context=Context(lists=9_000, tokens=100))
        return (await Supplier(persona, Answers(0)).respond("GET", "v1/models", b"")).body

    assert b'"max_model_len":9000' in asyncio.run(listed())


def test_streams_that_are_refused_or_break_off():
    for kind, name in (("no_stream", b"'stream'"), ("no_stream_options", b"'stream_options'")):
        body = chat("x", stream=True, stream_options={"include_usage": True})
        reply, _ = replied(Persona("a", BACKEND, manners=MANNERS[kind]), body)
        assert reply.status == 400 and name in reply.body
    persona = Persona("a", BACKEND, manners=MANNERS["breaks_off"])
    reply, _ = replied(persona, chat(LONG_ANSWER, 100, stream=True))
    assert len(reply.events) == 20 and b"[DONE]" not in b"".join(reply.events)
