"""llama.cpp's own server with a model of random weights: its answers are read as by lm-eval's own clients."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import PlainAnswer
from testbench_dagster.core.relay import Attempt, Endpoint, Limits, Relay
from testbench_dagster.relays.circuit import LanePatience
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.stages.relay.probe import ECHO_REQUEST, echo_verdict, probe_relay
from testbench_dagster.stages.service.measures import plain_estimate
from testbench_dagster.statistics.slopes import theil_sen
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.payload import as_stream, build_payload
from testbench_dagster_tests import llama
from testbench_dagster_tests.acceptance.harness import Installation
from testbench_dagster_tests.servers import ServerMissing, free_port, stop

pytestmark = pytest.mark.slow

CONTEXT = 512
QUESTIONS = ["What is the sky?", "Où est le café ?", "你好 😀?", "1 + 1 = ?", "“quoted”\tand\\escaped\u0301?"]
TASK = """task: questions
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 24, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return llama.write_model(tmp_path_factory.mktemp("llama") / "tiny.gguf", context=CONTEXT)
    except ServerMissing as missing:  # also in CI: there are not wheels for every platform
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with llama.serving(model.parent, model, CONTEXT) as url:
        yield url


def endpoint(url: str, api: Any, **changes: Any) -> Endpoint:
    return Endpoint("tiny@test", "test", url, api, "tiny", Limits(), **changes)


def send(target: Endpoint, *requests: dict[str, Any]) -> list[Attempt]:
    async def all_of_them() -> list[Attempt]:
        transport = DirectTransport()
        try:
            return [await transport.send(target, probe_relay(target, request)) for request in requests]
        finally:
            await transport.close()

    return asyncio.run(all_of_them())


def texts_of_lm_eval(api: str, url: str, requests: list[dict[str, Any]]) -> list[str]:
    """What lm-eval's own client gets for the same requests."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    kind, path = (
        (LocalChatCompletion, "chat/completions") if api == "chat" else (LocalCompletionsAPI, "completions")
    )
    client = kind(base_url=f"{url}/{path}", model="tiny", tokenizer_backend=None, max_retries=1)
    instances = []
    for request in requests:
        context = JsonChatStr(json.dumps(request["messages"])) if api == "chat" else request["prompt"]
        arguments = (context, dict(request["generation"]))
        instances.append(Instance("generate_until", {}, arguments, 0, metadata=("t", 0, 1)))
    return client.generate_until(instances, disable_tqdm=True)


@pytest.fixture(scope="module")
def installation(url: str, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One of both APIs, run with the command."""
    folder = tmp_path_factory.mktemp("installation")
    rows = [{"question": question, "answer": "blue"} for question in QUESTIONS]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "mine").mkdir()
    (folder / "mine/questions.yaml").write_text(TASK, encoding="utf-8")
    made = Installation(folder)
    made.configure(
        suppliers=[
            {"address": api, "base_url": url, "model": "tiny", "api": api} for api in ("chat", "completions")
        ],
        tasks=[
            {"name": "questions", "data": {"test": "docs.jsonl"}, "samples": "all"},
            {"name": "starter_choice", "samples": 3},
        ],
        task_paths=["mine"],
    )
    made.run()
    return made


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_texts_are_those_of_lm_evals_own_client(api: Any, url: str, installation: Installation) -> None:
    with installation.documents() as documents:
        prompts = {
            row["_id"]: row["requests"][0]
            for row in documents.find(PROMPTS, {"api": api, "task": "questions"})
        }
        where = {"supplier": f"{api}@external", "task": "questions"}
        attempts = {row["prompt_id"]: row for row in documents.find(ATTEMPTS, where)}
    assert len(prompts) == len(attempts) == len(QUESTIONS)
    requests = [prompts[id_] for id_ in attempts]
    ours = [
        parse_answer(prompts[id_], api, row["status"], bytes(row["body"])).text
        for id_, row in attempts.items()
    ]
    assert ours == texts_of_lm_eval(api, url, requests)
    assert any(ord(char) > 127 for text in ours for char in text or "") and len(set(ours)) == len(QUESTIONS)


def test_a_server_that_ignores_echo_is_told_with_what_to_do(url: str, installation: Installation) -> None:
    (attempt,) = send(endpoint(url, "completions"), ECHO_REQUEST)
    assert attempt.status == 200 and attempt.fault is Fault.SUPPLIER_PROTOCOL
    assert echo_verdict(attempt) is False
    rows = {row["supplier"]: row for row in installation.scores("--task", "starter_choice")}
    assert {row["status"] for row in rows.values()} == {"unsupported"}
    told = installation.command("check").out
    assert "does not echo log-probabilities" in told and "generated text" in told


def test_a_prompt_that_is_too_long_is_our_request(url: str) -> None:
    for api, asked in (
        ("completions", {"prompt": "sky " * CONTEXT}),
        ("chat", {"messages": [{"role": "user", "content": "sky " * CONTEXT}]}),
    ):
        request = {"type": "generate_until", "idx": 0, **asked, "generation": {"max_gen_toks": 4}}
        (attempt,) = send(endpoint(url, api), request)
        assert (attempt.status, attempt.fault) == (400, Fault.CLIENT_REQUEST)
        assert "exceeds the available context size" in (attempt.error or "")


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_streamed_answers_are_the_same(api: Any, url: str) -> None:
    asked = {"messages": [{"role": "user", "content": "你好 😀"}]} if api == "chat" else {"prompt": "你好 😀"}
    request = {
        "type": "generate_until",
        "idx": 0,
        **asked,
        "generation": {"max_gen_toks": 24, "temperature": 0},
    }
    path, payload = build_payload(request, api, "tiny")
    whole, streamed = (
        httpx.post(url + path, json=body, timeout=30) for body in (payload, as_stream(payload))
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    answers = [parse_answer(request, api, found.status_code, found.content) for found in (whole, streamed)]
    assert answers[0].text and answers[0].completion_tokens
    assert answers[0] == answers[1]


def test_while_the_model_loads_nothing_is_lost(model: Path) -> None:
    """Nobody listens, then 503 is answered, then the model is there: each doc is asked until then."""
    port, seen = free_port(), Counter[Fault]()
    target = endpoint(f"http://127.0.0.1:{port}/v1", "completions")
    request = {"type": "generate_until", "idx": 0, "prompt": "The sky is", "generation": {"max_gen_toks": 2}}
    relays = [probe_relay(target, request) for _ in range(20)]

    def sink(_: Relay, __: int, attempt: Attempt) -> None:
        seen[attempt.fault] += 1

    # waits as short as these meet the moments in which the model loads; a large context makes them longer
    patience = LanePatience(retries_s=(0.01,), pauses_s=(0.01,))
    process = llama.start(model.parent, model, port, 400_000)
    try:
        report = run_relays([(target, relays)], sink, open_transport=DirectTransport, patience=patience)
    finally:
        stop(process)
    counts = report.suppliers[target.supplier]
    assert counts.answered == counts.final == len(relays) and counts.still_due == 0
    assert seen[Fault.UNAVAILABLE] > 0, seen
    assert set(seen) <= {Fault.TRANSPORT, Fault.UNAVAILABLE, Fault.OK, Fault.TRUNCATED}


def test_plain_answers_tell_the_servers_speed(url: str) -> None:
    """The free estimate agrees within 15 % with what the server itself times of the same answers."""
    target = endpoint(url, "chat", host="one")
    target = replace(target, limits=replace(target.limits, max_in_flight=1, start_in_flight=1))
    relays = [
        probe_relay(
            target,
            {
                "type": "generate_until",
                "idx": 0,
                "messages": [{"role": "user", "content": f"{number}: {QUESTIONS[number % len(QUESTIONS)]}"}],
                "generation": {"until": [], "max_gen_toks": 13 + 53 * number % 387, "temperature": 0.0},
            },
        )
        for number in range(60)
    ]
    made: list[Attempt] = []
    run_relays(
        [(target, relays)],
        lambda relay, number, attempt: made.append(attempt),
        open_transport=DirectTransport,
    )
    assert {one.own_in_flight for one in made} == {1}
    answers = [PlainAnswer("t", one.latency_ms, one.completion_tokens, one.own_in_flight) for one in made]
    found = plain_estimate(answers)
    assert found is not None
    timings = [json.loads(one.body)["timings"] for one in made]
    # the same slope of the server's own times, which hold neither the network nor the reading of the prompt
    own = theil_sen([[(one["predicted_n"], one["predicted_ms"]) for one in timings]])
    assert own is not None
    assert found["value"] == pytest.approx(1000 / own.value, rel=0.15)
    assert (found["low"] or 0) < (found["value"] or 0) < (found["high"] or 0)
