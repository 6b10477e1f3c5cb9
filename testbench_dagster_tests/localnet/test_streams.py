"""``stream: true`` over plain HTTP: OpenAI's events, the same text, spread over the time of the answer."""

import asyncio
import json
import time

import aiohttp
import pytest

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.tasks.starter.loader import read_docs

DOC = read_docs("starter_reading", "test")[0]
PROMPT = f"Question: {DOC['question']}\nAnswer:"
CHAT = {"messages": [{"role": "user", "content": PROMPT}]}
BACKEND = Backend("b", 1.0, style="reasoned", latency_ms=0)


def streamed(persona, body, path="chat/completions"):
    async def scenario():
        async with Localnet([persona], Answers(0)) as net, aiohttp.ClientSession() as session:
            url = f"{net.url}/{persona.address}/v1/{path}"
            async with session.post(url, json=body) as response:
                plain = await response.json()
            began, arrived, raw = time.monotonic(), [], b""
            async with session.post(url, json={**body, "stream": True}) as response:
                assert response.content_type == "text/event-stream"
                async for part in response.content.iter_any():
                    arrived.append(time.monotonic() - began)
                    raw += part
            return plain, raw, arrived, net.stats()["suppliers"][persona.address]

    plain, raw, arrived, stats = asyncio.run(scenario())
    assert stats["answered"] == 2
    *events, end = raw.removesuffix(b"\n\n").split(b"\n\n")
    assert end == b"data: [DONE]"
    return plain, [json.loads(event.removeprefix(b"data: ")) for event in events], arrived


def test_chat_streams_the_same_text_by_and_by():
    persona = Persona("a", BACKEND, latency_ms=600)
    plain, events, arrived = streamed(persona, CHAT)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert all("usage" not in event for event in events)
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == plain["choices"][0]["message"]["content"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert len(events) > 5
    assert arrived[-1] - arrived[0] > 0.3


def test_completions_stream_samples_echo_and_usage():
    body = {"prompt": [PROMPT, "other"], "n": 2, "echo": True, "max_tokens": 3, "stream_options": None}
    persona = Persona("a", BACKEND, "completions")
    plain, events, _ = streamed(persona, body, "completions")
    texts = ["", "", "", ""]
    for event in events:
        assert event["object"] == "text_completion"
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in plain["choices"]]


def test_usage_comes_last_where_it_is_asked_for():
    async def scenario():
        async with Localnet([Persona("a", BACKEND)], Answers(0)) as net, aiohttp.ClientSession() as session:
            body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
            async with session.post(f"{net.url}/a/v1/chat/completions", json=body) as response:
                return (await response.read()).split(b"\n\n")

    last = json.loads(asyncio.run(scenario())[-3].removeprefix(b"data: "))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > last["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("mode", ["garbage", "empty", "500", "reset"])
def test_streams_fail_as_their_persona_does(mode):
    async def scenario():
        persona = Persona("a", BACKEND, failures={mode: 1.0})
        async with Localnet([persona], Answers(0)) as net, aiohttp.ClientSession() as session:
            url = f"{net.url}/a/v1/chat/completions"
            try:
                async with session.post(url, json={**CHAT, "stream": True}) as response:
                    return response.status, await response.read()
            except aiohttp.ClientError as error:
                return type(error), b""
            finally:
                assert net.stats()["suppliers"]["a"]["failed"] == {mode: 1}

    status, raw = asyncio.run(scenario())
    if mode == "garbage":
        assert raw.endswith(b"\xff\xfe<html>")
    elif mode == "empty":
        assert raw.count(b'"content":""') == 1
        assert raw.endswith(b"data: [DONE]\n\n")
    elif mode == "500":
        assert status == 500
        assert json.loads(raw)["error"]["code"] == 500
    else:
        assert issubclass(status, aiohttp.ClientError)
