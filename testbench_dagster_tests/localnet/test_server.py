"""The HTTP face: OpenAI's shapes, failures by mode, swaps, counts."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.logprobs import echo_logprobs
from testbench_dagster.localnet.personas import FAIL_MODES, Backend, Persona, Swap, default_population
from testbench_dagster.localnet.requests import BadRequestError, parse
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.supplier import OVERSIZED, cut
from testbench_dagster.tasks.starter.loader import read_docs

FAST = Backend("fast", 1.0, latency_ms=0)
DOC = read_docs("starter_reading", "test")[0]
PROMPT = f"Question: {DOC['question']}\nAnswer:"
CHAT = {"model": "simulated-fast", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0}


@asynccontextmanager
async def running(*personas, seed=0):
    async with Localnet(personas, Answers(seed)) as net, aiohttp.ClientSession() as session:

        async def post(address, body, path="chat/completions"):
            async with session.post(f"{net.url}/{address}/v1/{path}", json=body) as response:
                return response.status, await response.json(), response.headers

        async def get(path):
            async with session.get(net.url + path) as response:
                return response.status, await response.json()

        yield net, session, post, get


def test_chat_answers_with_usage_and_reason():
    async def scenario():
        async with running(Persona("a", FAST)) as (_, _, post, _):
            return await post("a", CHAT)

    status, body, _ = asyncio.run(scenario())
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "simulated-fast"
    (choice,) = body["choices"]
    assert DOC["answer"] in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 0 < usage["prompt_tokens"]


def test_completions_answers_lists_samples_and_echo():
    async def scenario():
        async with running(Persona("a", FAST, "completions")) as (_, _, post, _):
            plain = await post("a", {"prompt": [PROMPT, "unknown"], "n": 2}, "completions")
            echo = await post("a", {"prompt": PROMPT, "echo": True}, "completions")
            scored = await post(
                "a", {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 1}, "completions"
            )
            return plain[1], echo[1], scored[1]

    plain, echo, scored = asyncio.run(scenario())
    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2, 3]
    assert plain["choices"][0]["text"] == plain["choices"][1]["text"]
    assert echo["choices"][0]["text"].startswith(PROMPT)
    expected = json.loads(json.dumps(echo_logprobs(0, FAST, PROMPT)))
    assert scored["choices"] == [{"index": 0, **expected, "finish_reason": "length"}]
    assert scored["usage"]["completion_tokens"] == 1


def test_twins_agree_at_temperature_zero_and_samples_vary_above():
    docs = read_docs("starter_strings", "test")[:30]
    half = Backend("half", 0.5, latency_ms=0)

    async def scenario():
        async with running(Persona("a", half), Persona("b", half)) as (_, _, post, _):

            async def ask(address, **extra):
                texts = []
                for doc in docs:
                    _, body, _ = await post(
                        address, {"messages": [{"role": "user", "content": doc["question"]}], **extra}
                    )
                    texts.append(body["choices"][0]["message"]["content"])
                return texts

            greedy = [await ask("a"), await ask("b", temperature=0)]
            sampled = [await ask("a", temperature=1), await ask("a", temperature=1)]
            seeded = [await ask("a", temperature=1, seed=7), await ask("b", temperature=1, seed=7)]
            return greedy, sampled, seeded

    greedy, sampled, seeded = asyncio.run(scenario())
    assert greedy[0] == greedy[1]
    assert sampled[0] != sampled[1]
    assert seeded[0] == seeded[1] != greedy[0]


def test_silent_swap_changes_answers_but_not_the_name():
    swap = Swap(Backend("wrong", 0.0, latency_ms=0), after_requests=2)

    async def scenario():
        async with running(Persona("a", FAST, swap=swap)) as (_, _, post, get):
            bodies = [(await post("a", CHAT))[1] for _ in range(4)]
            return bodies, await get("/stats")

    bodies, (_, stats) = asyncio.run(scenario())
    right = [DOC["answer"] in body["choices"][0]["message"]["content"] for body in bodies]
    assert right == [True, True, False, False]
    assert {body["model"] for body in bodies} == {"simulated-fast"}
    assert stats["suppliers"]["a"]["backend"] == "wrong"


@pytest.mark.parametrize("mode", FAIL_MODES)
def test_failure_modes(mode):
    async def scenario():
        async with running(Persona("a", FAST, failures={mode: 1.0})) as (net, session, _, _):
            url = f"{net.url}/a/v1/chat/completions"
            timeout = aiohttp.ClientTimeout(total=0.5 if mode == "timeout" else 60)
            try:
                async with session.post(url, json=CHAT, timeout=timeout) as response:
                    seen = response.status, await response.read(), response.headers
            except (TimeoutError, aiohttp.ClientError) as error:
                seen = type(error), None, None
            for _ in range(100):  # the server notices a client that left a moment later
                if not net.stats()["suppliers"]["a"]["in_flight"]:
                    break
                await asyncio.sleep(0.02)
            return seen, net.stats()["suppliers"]["a"]

    (status, raw, headers), stats = asyncio.run(scenario())
    assert stats["failed"] == {mode: 1}
    assert stats["answered"] == stats["cancelled"] == stats["in_flight"] == 0
    refusals = {
        "401": "invalid_api_key", "402": "payment_required", "403": "permission_error",
        "404": "model_not_found", "quota": "insufficient_quota", "400": "unsupported_parameter",
        "451": "unavailable_for_legal_reasons",
    }  # fmt: skip
    reasons = {"empty": "stop", "null": "stop", "filter": "content_filter", "error": "error", "cut": "length"}
    if mode in refusals:
        assert status == (429 if mode == "quota" else int(mode))
        assert json.loads(raw)["error"]["type"] == refusals[mode] and "Retry-After" not in headers
    elif mode in ("500", "503", "429"):
        assert status == int(mode)
        assert json.loads(raw)["error"]["code"] == int(mode)
        assert (headers.get("Retry-After") == "1") == (mode == "429")
    elif mode == "timeout":
        assert issubclass(status, TimeoutError)
    elif mode == "reset":
        assert issubclass(status, aiohttp.ClientError)
    elif mode == "garbage":
        with pytest.raises(ValueError, match="codec can't decode"):
            json.loads(raw)
    elif mode in reasons:
        (choice,) = json.loads(raw)["choices"]
        assert choice["message"]["content"] == (None if mode == "null" else "")
        assert choice["finish_reason"] == reasons[mode]
    elif mode == "oversized":
        assert len(raw) > OVERSIZED and json.loads(raw)["choices"]
    elif mode == "forged":
        assert DOC["answer"] in json.loads(raw)["choices"][0]["message"]["content"], "nothing to sign"
    else:
        assert status == 200
        assert "error" in json.loads(raw)


def test_failures_follow_the_seed_not_the_order_and_a_retry_draws_anew():
    async def scenario(reverse):
        persona = Persona("a", FAST, failures={"500": 0.4})
        async with running(persona) as (_, _, post, _):
            seen = {}
            for number in sorted(range(60), reverse=reverse):
                body = {"messages": [{"role": "user", "content": f"prompt {number}"}]}
                seen[number] = [(await post("a", body))[0] for _ in range(2)]
            return seen

    forward, backward = asyncio.run(scenario(False)), asyncio.run(scenario(True))
    assert forward == backward
    first = sum(statuses[0] == 500 for statuses in forward.values())
    assert 12 <= first <= 36
    assert any(statuses == [500, 200] for statuses in forward.values())


def test_pages_and_unserved_paths():
    async def scenario():
        async with running(Persona("a", FAST), Persona("b", FAST, "completions")) as (net, _, post, get):
            assert await get("/healthz") == (200, {"status": "ok", "simulation": True})
            status, roster = await get("/roster")
            assert status == 200
            assert roster["simulation"] is True
            assert roster["suppliers"][1] == {
                "address": "b", "service": "simulation", "api": "completions",
                "base_url": f"{net.url}/b/v1", "model": "simulated-fast", "simulation": True,
            }  # fmt: skip
            assert (await get("/a/v1/models"))[1]["data"][0]["id"] == "simulated-fast"
            for path in ("/", "/nobody/v1/models", "/a/v1/elsewhere", "/stats/more"):
                assert (await get(path))[0] == 404
            assert (await post("b", CHAT))[0] == 404
            assert (await post("a", {"prompt": "x"}, "completions"))[0] == 404
            assert (await post("a", {**CHAT, "stream": "yes"}))[0] == 400
            stats = (await get("/stats"))[1]["suppliers"]["a"]
            assert (stats["requests"], stats["rejected"], stats["answered"]) == (1, 1, 0)

    asyncio.run(scenario())


def test_many_at_once_are_counted():
    async def scenario():
        slow = Persona("a", Backend("slow", latency_ms=200), names=(CHAT["model"],))
        async with running(slow) as (net, _, post, _):
            await asyncio.gather(*(post("a", CHAT) for _ in range(50)))
            return net.stats()["suppliers"]["a"]

    stats = asyncio.run(scenario())
    assert stats["answered"] == 50
    assert stats["in_flight_max"] == 50


def test_two_suppliers_with_one_address_are_refused():
    with pytest.raises(ValueError, match="same address"):
        Localnet([Persona("a", FAST), Persona("a", FAST)])
    assert Localnet(default_population(3)).url == ""


def ask(api="chat", **body):
    return parse(json.dumps({"messages": [{"content": "x"}], "prompt": "x", **body}).encode(), api)


@pytest.mark.parametrize(
    ("api", "body", "said"),
    [
        ("chat", {"messages": []}, "at least one message"),
        ("chat", {"messages": [{"content": [{"type": "image_url"}]}]}, "text parts"),
        ("chat", {"messages": ["x"]}, "messages"),
        ("chat", {"stream": 1}, "stream must be"),
        ("chat", {"stream_options": {"include_usage": True}}, "stream: true only"),
        ("chat", {"stream": True, "stream_options": []}, "stream_options must be"),
        ("completions", {"stream": True, "logprobs": 1, "echo": True, "max_tokens": 1}, "in streams"),
        ("chat", {"logprobs": True}, "completions with echo"),
        ("chat", {"temperature": "hot"}, "temperature"),
        ("chat", {"stop": [1]}, "stop"),
        ("chat", {"max_tokens": True}, "max_tokens"),
        ("chat", {"n": 0}, "n must be"),
        ("completions", {"prompt": [1, 2]}, "token ids"),
        ("completions", {"logprobs": 1}, "echo: true"),
        ("completions", {"logprobs": 1, "echo": True, "max_tokens": 5}, "max_tokens 0 or 1"),
        ("completions", {"logprobs": 9, "echo": True, "max_tokens": 1}, "from 0 to 5"),
    ],
)
def test_bad_requests_say_what_is_wrong(api, body, said):
    with pytest.raises(BadRequestError, match=said):
        ask(api, **body)


@pytest.mark.parametrize("raw", [b"", b"[1]", b"\xff"])
def test_bodies_that_are_no_objects(raw):
    with pytest.raises(BadRequestError, match="JSON"):
        parse(raw, "chat")


def test_request_defaults():
    assert ask().max_tokens is None
    assert ask("completions").max_tokens == 16
    assert ask(max_tokens=5, max_completion_tokens=9).max_tokens == 9
    assert ask(stop="a").stop == ("a",)
    assert ask(stop=["", "b"]).stop == ("b",)
    parts = [{"role": "user", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]}]
    assert ask(messages=[{"role": "system", "content": None}, *parts]).prompts == ("\np\nq",)


def test_stop_strings_and_token_limit():
    assert cut("one two three four", ask(stop=["four", " two"])) == ("one", "stop", 1)
    assert cut("one two three four", ask(max_tokens=2)) == ("one two", "length", 2)
    assert cut("one two", ask(max_tokens=2)) == ("one two", "stop", 2)
    assert cut("one two three", ask(max_tokens=2, stop=" three")) == ("one two", "stop", 2)
    assert cut("text", ask(max_tokens=0)) == ("", "length", 0)
