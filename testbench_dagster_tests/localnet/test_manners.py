"""Servers that differ from a plain one: what they refuse, what their models think, how their answers look."""

import asyncio
import json

import aiohttp
import pytest

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.logprobs import count_tokens
from testbench_dagster.localnet.manners import KEY, MANNERS, NONSENSE, Manners
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.run import LocalnetError, LocalnetProcess
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.tasks.starter.loader import read_docs

QUICK = Backend("quick", 1.0, latency_ms=0)
DOC = read_docs("starter_reading", "test")[0]
PROMPT = f"Question: {DOC['question']}\nAnswer:"
ASK = {"model": QUICK.model, "messages": [{"role": "user", "content": PROMPT}]}


def asked(manners, *bodies, path=None, headers=None, api="chat"):
    """What a server of these manners answers to each body: status, JSON or text."""

    async def scenario():
        persona = Persona("a", QUICK, api, manners=manners)
        async with Localnet([persona], Answers(0)) as net, aiohttp.ClientSession() as session:
            base = net.describe("a")["base_url"]
            end = path or ("chat/completions" if api == "chat" else "completions")
            found = []
            for body in bodies:
                async with session.post(f"{base}/{end}", json=body, headers=headers) as response:
                    text = await response.text()
                    found.append((response.status, text if body.get("stream") else json.loads(text)))
            return found, net.stats()["suppliers"]["a"]

    return asyncio.run(scenario())


def only(manners, body, **options):
    (answer,), _ = asked(manners, body, **options)
    return answer


def text_of(answer):
    status, body = answer
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def test_another_model_is_refused_and_none_is_not():
    answers, stats = asked(Manners(), {**ASK, "model": "gpt-9"}, {"messages": ASK["messages"]}, ASK)
    (status, body), unnamed, named = answers
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert "gpt-9" in body["error"]["message"]
    assert text_of(unnamed) == text_of(named)
    assert (stats["rejected"], stats["answered"]) == (1, 2)


@pytest.mark.parametrize("kind", ["openai_reasoning", "azure", "strict"])
def test_each_refusal_names_what_it_is_about(kind):
    manners = MANNERS[kind]
    headers = {"api-key": KEY}
    path = "chat/completions?api-version=2024-10-21"
    refused = {
        "openai_reasoning": {"max_tokens": 5, "temperature": 0, "stop": ["x"]},
        "azure": {"stop": list("abcde")},
        "strict": {"seed": 1, "stop": []},
    }[kind]
    for name, value in refused.items():
        status, body = only(manners, {**ASK, name: value}, headers=headers, path=path)
        assert status in (400, 422)
        assert name in json.dumps(body)
    taken = {
        "openai_reasoning": {"max_completion_tokens": 4000, "temperature": 1, "seed": 3},
        "azure": {"max_tokens": 50, "temperature": 0, "seed": 3, "stop": list("abcd")},
        "strict": {"max_tokens": 50, "temperature": 0, "stop": ["#"]},
    }[kind]
    assert only(manners, {**ASK, **taken}, headers=headers, path=path)[0] == 200


def test_azure_wants_its_key_its_version_and_its_path():
    azure = MANNERS["azure"]
    version = "chat/completions?api-version=2024-10-21"
    assert only(azure, ASK, path=version, headers={"api-key": KEY})[0] == 200
    assert only(azure, ASK, path=version, headers={"Authorization": f"Bearer {KEY}"})[0] == 401
    assert only(azure, ASK, path=version, headers={"api-key": "another"})[0] == 401
    assert only(azure, ASK, headers={"api-key": KEY})[0] == 404
    (refused,), stats = asked(azure, ASK)
    assert refused[0] == 401 and stats["rejected"] == 1


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("reasoning", lambda m: m["reasoning_content"]),
        ("reasoning_tags", lambda m: m["content"].split("<think>")[1].split("</think>")[0]),
        ("reasoning_end_tag", lambda m: m["content"].split("</think>")[0]),
        ("reasoning_part", lambda m: m["content"][0]["thinking"][0]["text"]),
    ],
)
def test_thoughts_stand_where_they_do_and_count(kind, shown):
    plain = text_of(only(Manners(), ASK))
    status, body = only(MANNERS[kind], ASK)
    message = body["choices"][0]["message"]
    assert status == 200 and NONSENSE in shown(message)
    content = message["content"]
    answer = content[-1]["text"] if isinstance(content, list) else content.split("</think>")[-1].lstrip()
    assert answer == plain and NONSENSE not in answer
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 400
    assert body["usage"]["completion_tokens"] >= 400 + count_tokens(plain)


def test_hidden_thoughts_only_count():
    plain = text_of(only(Manners(), ASK))
    status, body = only(MANNERS["openai_reasoning"], {**ASK, "max_completion_tokens": 4000})
    assert status == 200
    assert body["choices"][0]["message"] == {"role": "assistant", "content": plain}
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2000


@pytest.mark.parametrize("kind", ["reasoning", "reasoning_part", "reasoning_tags", "openai_reasoning"])
def test_a_limit_that_thoughts_use_up_leaves_no_answer(kind):
    status, body = only(MANNERS[kind], {**ASK, "max_completion_tokens": 100})
    (choice,) = body["choices"]
    assert status == 200 and choice["finish_reason"] == "length"
    content = choice["message"]["content"]
    if kind in ("reasoning", "reasoning_part"):
        assert content is None or [part["type"] for part in content] == ["thinking"]
    elif kind == "reasoning_tags":
        assert content.startswith("<think>") and "</think>" not in content
    else:
        assert content == ""
    assert body["usage"]["completion_tokens"] == 100


def test_stop_strings_end_thoughts_that_stand_in_the_text():
    status, body = only(MANNERS["reasoning_tags"], {**ASK, "stop": ["\n\n"]})
    assert status == 200
    assert "</think>" not in body["choices"][0]["message"]["content"]
    plain = text_of(only(Manners(), {**ASK, "stop": ["\n\n"]}))
    assert text_of(only(MANNERS["reasoning"], {**ASK, "stop": ["\n\n"]})) == plain


def test_streams_of_thoughts_and_without_usage():
    body = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    _, events = only(MANNERS["reasoning"], body)
    deltas = [
        json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: {")
    ]
    said = [chunk["choices"][0]["delta"] for chunk in deltas if chunk["choices"]]
    assert NONSENSE in "".join(delta.get("reasoning_content", "") for delta in said)
    assert "".join(delta.get("content", "") for delta in said) == text_of(only(Manners(), ASK))
    assert deltas[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 400
    _, silent = only(MANNERS["no_usage"], body)
    assert '"usage"' not in silent
    assert "usage" not in only(MANNERS["no_usage"], ASK)[1]


def test_manners_are_switched_while_it_runs():
    with LocalnetProcess(1, latency_ms=0) as net:
        (before,) = net.roster()
        net.manners("sim-01", "azure")
        (after,) = net.roster()
        assert before["base_url"].endswith("/sim-01/v1")
        assert after["base_url"].endswith(f"/sim-01/openai/deployments/{after['model']}")
        joined = net.join("thinker", manners="reasoning")
        assert joined["base_url"].endswith("/thinker/v1")
        with pytest.raises(LocalnetError, match="kind must be one of: plain, reasoning"):
            net.manners("sim-01", "polite")
