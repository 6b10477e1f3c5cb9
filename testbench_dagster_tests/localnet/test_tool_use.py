"""Tool users of each kind, whole and streamed: what they say to the starter tasks, and what that scores."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.prompt import Answered
from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import TOOL_USES, Backend, Persona
from testbench_dagster.localnet.supplier import Reply, Supplier
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.tasks.tools import TASKS, read_docs
from testbench_dagster.tasks.tools.adapter import Tools
from testbench_dagster_tests.tasks.tools.scripted import means, spec

GOOD = Backend("good", 1.0, latency_ms=0)
TOOL = {"type": "function", "function": {"name": "say", "parameters": {"type": "object", "properties": {}}}}


def say(supplier: Supplier, **body: Any) -> Reply:
    return asyncio.run(supplier.respond("POST", "v1/chat/completions", json.dumps(body).encode()))


def supplier(use: str = "good", backend: Backend = GOOD, seed: int = 0, **persona: Any) -> Supplier:
    return Supplier(Persona("a", backend, tool_use=use, **persona), Answers(seed))  # type: ignore[arg-type]


def whole(reply: Reply) -> ChatMessage:
    choice = json.loads(reply.body)["choices"][0]
    message = choice["message"]
    calls = [ToolCall(**call["function"]) for call in message.get("tool_calls", [])]
    return ChatMessage(message["content"], tuple(calls), choice["finish_reason"])


def streamed(reply: Reply) -> ChatMessage:
    """What a client puts together from a stream."""
    content: str | None = None
    calls: dict[int, dict[str, str]] = {}
    reason = None
    for event in reply.events[:-1]:
        (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
        delta = choice["delta"]
        if delta.get("content") is not None:
            content = (content or "") + delta["content"]
        for part in delta.get("tool_calls", []):
            call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
            for name, text in part["function"].items():
                call[name] += text
        reason = choice["finish_reason"] or reason
    assert reply.events[-1] == b"data: [DONE]\n\n"
    return ChatMessage(content, tuple(ToolCall(**calls[place]) for place in sorted(calls)), reason)


def body(request: dict[str, Any]) -> dict[str, Any]:
    return {
        name: request[name]
        for name in ("messages", "tools", "tool_choice", "response_format")
        if name in request
    }


def scored(task: str, answering: Supplier, docs: range) -> dict[str, float]:
    """What the framework makes of a supplier's answers, which are the same as a stream."""
    adapter, data = Tools(), Tools().register(spec(task)).data
    answers = []
    for prompt in adapter.build_prompts(spec(task), data, docs, "chat", "seed"):
        said = whole(say(answering, **body(prompt.requests[0])))
        assert streamed(say(answering, **body(prompt.requests[0]), stream=True)) == said
        answers.append(Answered(prompt.doc_id, prompt.requests, [[said.text]]))
    return means(list(adapter.score(spec(task), data, answers)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("use", TOOL_USES)
def test_each_kind_has_the_scores_it_stands_for(use: str, task: str) -> None:
    found = scored(task, supplier(use), range(12))
    if task == "tools_schema":
        valid = float(use in ("good", "ignores_irrelevance"))
        exact = 1.0 if use == "calls_as_text" else valid  # one fence is looked through
        assert found == {"exact": exact, "json_valid": valid, "schema_valid": valid}
    elif task == "tools_none":
        calls = float(use == "ignores_irrelevance")
        assert (found["exact"], found["triggered"], found["called"]) == (1 - calls, 1 - calls, calls)
    else:
        calls = float(use not in ("no_tools", "calls_as_text"))
        right = float(use in ("good", "ignores_irrelevance"))
        assert (found["exact"], found["triggered"], found["called"]) == (right, calls, calls)
        assert found.get("schema_valid") == (right if calls else None)


@pytest.mark.parametrize("task", TASKS)
def test_wrong_answers_are_wrong_and_right_ones_as_frequent_as_said(task: str) -> None:
    assert scored(task, supplier(backend=Backend("bad", 0.0, latency_ms=0)), range(24))["exact"] == 0
    half = Backend("half", 0.1, {task: 0.5}, latency_ms=0)
    assert 0.35 < scored(task, supplier(backend=half), range(100))["exact"] < 0.65


def test_answers_follow_from_the_seed() -> None:
    doc = read_docs("tools_parallel")[3]
    asked = {
        "messages": doc["messages"],
        "tools": [{"type": "function", "function": tool} for tool in doc["tools"]],
    }
    backend = Backend("b", 0.0, latency_ms=0)

    def texts(seed: int) -> str:
        return whole(say(supplier(backend=backend, seed=seed), **asked)).text

    assert texts(1) == texts(1)
    assert len({texts(seed) for seed in range(12)}) > 3


def test_a_question_that_nobody_knows_gets_a_call_of_a_tool_that_is_there() -> None:
    asked = {"messages": [{"role": "user", "content": "Say it."}], "tools": [TOOL]}
    assert whole(say(supplier(), **asked)).tool_calls == (ToolCall("say", "{}"),)
    assert not whole(say(supplier(), **asked, tool_choice="none")).tool_calls
    schema = {
        "type": "object",
        "properties": {
            "word": {"type": "string"},
            "many": {"type": "array", "items": {"type": ["integer", "null"], "minimum": 3}},
            "kind": {"enum": ["x", "y"]},
            "free": {"type": "number"},
        },
        "required": ["word", "many", "kind"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    said = whole(say(supplier(), messages=asked["messages"], response_format=form))
    assert json.loads(said.content or "") == {"word": "word", "many": [4], "kind": "x"}


def test_a_limit_of_tokens_ends_a_call() -> None:
    doc = read_docs("tools_one")[0]
    asked = {
        "messages": doc["messages"],
        "tools": [{"type": "function", "function": tool} for tool in doc["tools"]],
    }
    full, short = (whole(say(supplier(), **asked, max_tokens=most)) for most in (1000, 5))
    assert (full.finish_reason, short.finish_reason) == ("tool_calls", "length")
    (call,), (part,) = full.tool_calls, short.tool_calls
    assert call.arguments.startswith(part.arguments) and 0 < len(part.arguments) < len(call.arguments)


def test_whoever_withholds_wrong_answers_knows_those_with_tools() -> None:
    docs = read_docs("tools_one")[:30]
    rules = (Withholding(("500",)),)
    withholding = supplier(backend=Backend("b", 0.5, latency_ms=0), withholds=rules)
    plain = supplier(backend=Backend("b", 0.5, latency_ms=0))
    outcomes = set()
    for doc in docs:
        asked = {
            "messages": doc["messages"],
            "tools": [{"type": "function", "function": tool} for tool in doc["tools"]],
        }
        right = whole(say(plain, **asked)).tool_calls == whole(say(supplier(), **asked)).tool_calls
        outcomes.add((right, say(withholding, **asked).status))
    assert outcomes == {(True, 200), (False, 500)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tools": []}, "tools must be a list"),
        ({"tools": [{"name": "say"}]}, "tools[0] must be"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 3}}]}, "parameters must be"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice is simulated"),
        ({"response_format": {"type": "xml"}}, "response_format must have a type"),
        ({"response_format": {"type": "json_schema"}}, "json_schema.schema must be"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], said: str) -> None:
    reply = say(supplier(), messages=[{"role": "user", "content": "x"}], **given)
    assert reply.status == 400 and said in json.loads(reply.body)["error"]["message"]
