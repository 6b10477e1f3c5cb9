"""The same personas over relays and over plain HTTP: the same answers, failures and counts."""

import asyncio
import dataclasses
import json

import aiohttp
import pytest

from testbench_dagster.localnet.personas import (
    FAIL_MODES,
    TOOL_USES,
    Backend,
    Persona,
    Route,
    Swap,
    default_population,
)
from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.tools import read_docs as read_tool_docs
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.messages import HttpResponse
from testbench_dagster_tests.localnet.pocket.client import running

QUESTIONS = [doc["question"] for task in TASKS for doc in read_docs(task, "test")[:3]]


def quick(persona):
    """The same supplier without delays."""
    backend = dataclasses.replace(persona.backend, latency_ms=0.0)
    return dataclasses.replace(persona, backend=backend, latency_ms=0.0, jitter_ms=0.0)


def body(persona, question):
    if isinstance(question, dict):
        return json.dumps(question).encode()
    if persona.api == "chat":
        return json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    return json.dumps({"prompt": question, "max_tokens": 50}).encode()


def text(raw):
    """The text of an answer, or the error in it."""
    try:
        answer = json.loads(raw)
    except ValueError:
        return "garbage"
    if "choices" not in answer:
        return "error"
    choice = answer["choices"][0]
    if calls := choice.get("message", {}).get("tool_calls"):
        return str([call["function"] for call in calls])
    return choice.get("text", choice.get("message", {}).get("content"))


async def relayed(client, persona, question):
    client.app = client.signer = f"app-{client.net.find(persona.address)[1].service}"
    path = "/v1/chat/completions" if persona.api == "chat" else "/v1/completions"
    answer = await client.relay(persona.address, body=body(persona, question), path=path)
    if answer.status == 200 and not (answer.relay.error and client.last().flavour == "classic"):
        http: HttpResponse = answer.verified(client.key(persona.address))
        return http.status, text(http.body)
    return ("broken" if client.last().outcome == "broken" else answer.status), "error"


async def plain(client, persona, question):
    path = "v1/chat/completions" if persona.api == "chat" else "v1/completions"
    try:
        url = f"{client.net.url}/{persona.address}/{path}"
        async with client.http.post(url, data=body(persona, question)) as response:
            return response.status, text(await response.read())
    except aiohttp.ClientError:
        return "broken", "error"


def both(personas, questions):
    async def scenario():
        async with running(*personas, seed=5, blocks_per_session=10) as client:
            seen = {}
            for persona in personas:
                over_relays = [await relayed(client, persona, question) for question in questions]
                over_http = [await plain(client, persona, question) for question in questions]
                seen[persona.address] = over_relays, over_http
            stats = [net.stats()["suppliers"] for net in (client.net.backends, client.net.plain)]
            for table in stats:
                for counts in table.values():
                    del counts["by_day"], counts["by_hour"]
            assert stats[0] == stats[1]
            return seen

    return asyncio.run(scenario())


def test_the_whole_population_answers_alike():
    personas = [quick(persona) for persona in default_population(6, 5)]
    seen = both(personas, [*QUESTIONS, "what nobody asks"])
    for name, (over_relays, over_http) in seen.items():
        assert over_relays == over_http, name
    texts = {name: tuple(answers) for name, (answers, _) in seen.items()}
    assert texts["sim-01"] == texts["sim-03"] != texts["sim-06"]  # twins, and another


def test_users_of_tools_alike():
    docs = [doc for task in ("tools_several", "tools_none") for doc in read_tool_docs(task)[:2]]
    asked = [
        {
            "messages": doc["messages"],
            "tools": [{"type": "function", "function": tool} for tool in doc["tools"]],
        }
        for doc in docs
    ]
    one = Backend("one", 1.0, latency_ms=0)
    personas = [Persona(use.replace("_", "-"), one, tool_use=use) for use in TOOL_USES]
    seen = both(personas, asked)
    for name, (over_relays, over_http) in seen.items():
        assert over_relays == over_http, name
        assert {status for status, _ in over_http} == {200}
    assert len({tuple(answers) for answers, _ in seen.values()}) == len(TOOL_USES)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=[pytest.mark.slow] * (mode == "oversized"))
        for mode in FAIL_MODES
        if mode not in ("timeout", "forged")
    ],
)
def test_failures_of_personas_alike(mode):
    backend = Backend("b", 0.5, latency_ms=0)
    personas = [Persona(name, backend, failures={mode: 0.5}) for name in ("on-classic", "on-ha")]
    for over_relays, over_http in both(personas, QUESTIONS[:12]).values():
        assert over_relays == over_http
        assert len(set(over_http)) > 1


def test_what_is_forged_is_signed_wrongly():
    persona = Persona("on-classic", Backend("b", 1.0, latency_ms=0), failures={"forged": 1.0})
    with pytest.raises(ResponseError, match="signature"):
        both([persona], QUESTIONS[:1])


def test_noise_routes_and_swaps_alike():
    one, other = Backend("one", 1.0, latency_ms=0), Backend("other", 0.0, latency_ms=0)
    personas = [
        Persona("noisy", Backend("loud", 0.5, style="reasoned", latency_ms=0), noise=0.5),
        Persona("router", one, route=Route(other, 0.5)),
        Persona("swapped", one, swap=Swap(other, after_requests=6)),
    ]
    for over_relays, over_http in both(personas, [QUESTIONS[0]] * 12).values():
        assert over_relays == over_http
        assert len(set(over_http)) > 1
