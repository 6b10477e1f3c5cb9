"""The clients that people use talk to the simulated suppliers: OpenAI's own, and LiteLLM."""

import asyncio
import os

import pytest

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.manners import KEY, MANNERS, NONSENSE
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.tasks.starter.loader import read_docs

pytestmark = pytest.mark.slow

QUICK = Backend("quick", 1.0, latency_ms=0)
MODEL = QUICK.model
DOC = read_docs("starter_reading", "test")[0]
PROMPT = f"Question: {DOC['question']}\nAnswer:"
MESSAGES = [{"role": "user", "content": PROMPT}]
KINDS = (
    "plain",
    "reasoning",
    "reasoning_part",
    "openai_reasoning",
    "azure",
    "strict",
    "slow_stream",
    "no_usage",
)


def with_net(work):
    """Run blocking calls of a client against suppliers of all kinds."""

    async def scenario():
        people = [Persona(kind, QUICK, manners=MANNERS[kind]) for kind in KINDS]
        people.append(Persona("text", QUICK, "completions"))
        async with Localnet(people, Answers(0)) as net:
            urls = {p.address: net.describe(p.address)["base_url"] for p in people}
            return await asyncio.to_thread(work, urls)

    return asyncio.run(scenario())


def test_openai_client():
    openai = pytest.importorskip("openai", reason="OpenAI's client is not installed (extra: test)")

    def work(urls):
        def client(kind):
            return openai.OpenAI(base_url=urls[kind], api_key="none", max_retries=0)

        def ask(kind, **more):
            return client(kind).chat.completions.create(model=MODEL, messages=MESSAGES, **more)

        plain = ask("plain").choices[0].message.content
        assert DOC["answer"] in plain
        reasoned = ask("reasoning").choices[0].message
        assert reasoned.content == plain and NONSENSE in reasoned.reasoning_content
        assert ask("openai_reasoning", max_completion_tokens=3000).choices[0].message.content == plain
        for kind, wrong in (("openai_reasoning", {"max_tokens": 9}), ("strict", {"seed": 1})):
            with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
                ask(kind, **wrong)
        assert ask("no_usage").usage is None
        for kind in ("plain", "slow_stream", "reasoning"):
            parts = [c.choices[0].delta.content or "" for c in ask(kind, stream=True) if c.choices]
            assert "".join(parts) == plain
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client("plain").chat.completions.create(model="gpt-9", messages=MESSAGES)
        assert [m.id for m in client("plain").models.list()] == [MODEL]
        azure = openai.AzureOpenAI(
            azure_endpoint=urls["azure"].split("/openai/")[0],
            api_key=KEY,
            api_version="2024-10-21",
            max_retries=0,
        )
        answer = azure.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert answer.choices[0].message.content == plain
        scored = client("text").completions.create(
            model=MODEL, prompt=PROMPT, echo=True, logprobs=1, max_tokens=1
        )
        assert "".join(scored.choices[0].logprobs.tokens).startswith(PROMPT)

    with_net(work)


def test_litellm(monkeypatch):
    monkeypatch.setitem(os.environ, "LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask GitHub for prices
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed (extra: test)")

    def work(urls):
        def ask(kind, **more):
            return litellm.completion(
                model=f"openai/{MODEL}",
                api_base=urls[kind],
                api_key="none",
                messages=MESSAGES,
                num_retries=0,
                **more,
            )

        plain = ask("plain").choices[0].message.content
        assert DOC["answer"] in plain
        reasoned = ask("reasoning").choices[0].message
        assert reasoned.content == plain and NONSENSE in reasoned.reasoning_content
        assert ask("no_usage").choices[0].message.content == plain
        parts = [c.choices[0].delta.content or "" for c in ask("slow_stream", stream=True)]
        assert "".join(parts) == plain
        with pytest.raises(litellm.NotFoundError):
            litellm.completion(
                model="openai/gpt-9", api_base=urls["plain"], api_key="none", messages=MESSAGES
            )
        azure = litellm.completion(
            model=f"azure/{MODEL}", api_base=urls["azure"].split("/openai/")[0], api_key=KEY,
            api_version="2024-10-21", messages=MESSAGES, num_retries=0,
        )  # fmt: skip
        assert azure.choices[0].message.content == plain

    with_net(work)
