"""Suppliers that deceive: what each of them does, on the wire, and what it leaves as it was."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from testbench_dagster.localnet.answers import Answers, read_questions
from testbench_dagster.localnet.personas import Backend, Persona, Route, quantised
from testbench_dagster.localnet.run import LocalnetError, LocalnetProcess
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.supplier import BrokenConnection, Reply, Supplier
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster_tests.tasks.signatures.simulated import served

WEAK, STRONG = Backend("weak", 0.4, latency_ms=0), Backend("strong", 1.0, latency_ms=0)
PUBLIC = [(doc["question"], doc["answer"]) for doc in read_docs("starter_units", "test")]
FRESH = [(f"How many grams are {count} kilograms?", str(count * 1000)) for count in range(1003, 1243)]


def body(question: str, **more: Any) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": f"Question: {question}\nAnswer:"}], **more})


def said(reply: Reply) -> str:
    text = orjson.loads(reply.body)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def asked(supplier: Supplier, question: str, **more: Any) -> Reply:
    return asyncio.run(supplier.respond("POST", "v1/chat/completions", body(question, **more)))


def right(persona: Persona, questions: list[tuple[str, str]]) -> list[bool]:
    """Which questions a supplier answers rightly."""

    async def every() -> list[Reply]:
        supplier = Supplier(persona, Answers(0))
        return [await supplier.respond("POST", "v1/chat/completions", body(one)) for one, _ in questions]

    texts = map(said, asyncio.run(every()))
    return [
        f" {answer} " in f" {text.strip('.=')} " for text, (_, answer) in zip(texts, questions, strict=True)
    ]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


# --- who knows public questions --------------------------------------------------------------------------


def test_a_memoriser_has_a_share_of_what_it_would_miss_of_public_questions_alone() -> None:
    own = right(Persona("a", WEAK), PUBLIC)
    for m in (0.5, 1.0):
        found = right(Persona("a", WEAK, memorises=m), PUBLIC)
        assert all(after for before, after in zip(own, found, strict=True) if before), "none is lost"
        assert share(found) == pytest.approx(share(own) + m * (1 - share(own)), abs=0.06)
    assert right(Persona("a", WEAK, memorises=1.0), FRESH) == right(Persona("a", WEAK), FRESH)
    assert share(right(Persona("a", WEAK), FRESH)) == pytest.approx(0.4, abs=0.09)


def test_a_memoriser_of_a_quantised_model_remembers_where_either_speaks() -> None:
    assert share(right(Persona("a", quantised(WEAK), memorises=1.0), PUBLIC)) == 1.0


def test_a_benchmark_router_knows_public_questions_by_their_text() -> None:
    router = Persona("a", WEAK, for_public=STRONG)
    assert share(right(router, PUBLIC)) == 1.0
    assert right(router, FRESH) == right(Persona("a", WEAK), FRESH)
    shots = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in PUBLIC[:3])
    behind = [(f"{shots}Question: {question}", answer) for question, answer in FRESH]
    assert share(right(router, behind)) < 0.5, "examples before the question are not the question"
    supplier = Supplier(router, Answers(0))
    for question in (PUBLIC[0][0], FRESH[0][0]):
        asked(supplier, question)
    assert [one.backend for one in supplier.log] == ["strong", "weak"]
    assert orjson.loads(asked(supplier, PUBLIC[0][0]).body)["model"] == "simulated-weak"


def test_questions_of_a_file_are_public(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    rows = [
        {"question": f"Ann has {n} pears and eats one. How many are left?", "answer": f"So #### {n - 1:,}"}
        for n in range(1000, 1100)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    answers = Answers(0, read_questions(path))
    known = answers.find(f"Question: {rows[7]['question']}\nAnswer:")
    assert known is not None and known.public and (known.answer, len(known.wrong)) == ("1006", 3)
    supplier = Supplier(Persona("a", Backend("none", 0.0, latency_ms=0), for_public=STRONG), answers)
    assert "1006" in said(asked(supplier, rows[7]["question"]))
    path.write_text('{"question": "a", "answer": "b"}\n{"question": "a"}')
    with pytest.raises(ValueError, match=r"test\.jsonl:2: want an object with question and answer"):
        read_questions(path)


# --- who routes a share ----------------------------------------------------------------------------------


def test_a_partial_router_by_question_always_sends_one_the_same_way() -> None:
    supplier = Supplier(Persona("a", WEAK, route=Route(STRONG, 0.3, "question")), Answers(0))
    for question, _ in PUBLIC * 2:
        asked(supplier, question)
    names = [one.backend for one in supplier.log]
    assert names[: len(PUBLIC)] == names[len(PUBLIC) :]
    assert share([name == "strong" for name in names]) == pytest.approx(0.3, abs=0.1)


def test_a_partial_router_by_call_draws_each_time() -> None:
    supplier = Supplier(Persona("a", WEAK, route=Route(STRONG, 0.3)), Answers(0))
    for _ in range(300):
        asked(supplier, PUBLIC[0][0])
    assert share([one.backend == "strong" for one in supplier.log]) == pytest.approx(0.3, abs=0.09)


# --- who repeats answers ---------------------------------------------------------------------------------


def test_a_repeated_request_gets_the_stored_bytes_at_once() -> None:
    async def scenario() -> None:
        slow = Backend("slow", 0.5, latency_ms=120)
        supplier = Supplier(Persona("a", slow, caches=True, failures={"500": 0.0}), Answers(0))

        async def ask(question: str, **more: Any) -> tuple[Reply, float]:
            began = time.monotonic()
            reply = await supplier.respond("POST", "v1/chat/completions", body(question, **more))
            return reply, time.monotonic() - began

        first, took = await ask("Tell me something.", temperature=1.0)
        again, then = await ask("Tell me something.", temperature=1.0)
        other, its = await ask("Tell me something.", temperature=1.0, seed=7)
        assert again.body == first.body, "id, created and text alike"
        assert took >= 0.12 and then < 0.06 and its >= 0.12
        assert other.body != first.body, "one byte makes it another request"
        assert (supplier.answered, supplier.requests, supplier.in_flight) == (3, 3, 0)
        assert len({one.digest for one in supplier.log}) == 1
        streamed, _ = await ask("Tell me something.", stream=True)
        repeated, _ = await ask("Tell me something.", stream=True)
        assert repeated.events == streamed.events and repeated.gap_s == 0 < streamed.gap_s

    asyncio.run(scenario())


def test_what_failed_is_not_kept_and_honest_suppliers_sample_anew() -> None:
    supplier = Supplier(Persona("a", WEAK, caches=True, failures={"500": 1.0}), Answers(0))
    assert asked(supplier, "x?").status == 500
    supplier.persona = Persona("a", WEAK, caches=True)
    assert asked(supplier, "x?").status == 200
    honest = Supplier(Persona("a", WEAK), Answers(0))
    texts = {said(asked(honest, "Tell me something.", temperature=1.0)) for _ in range(5)}
    assert len(texts) == 5


# --- who copies ------------------------------------------------------------------------------------------


@pytest.fixture
def copied() -> Iterator[Localnet]:
    model = Backend("model", 0.6, latency_ms=0)
    with served([Persona("one", model), Persona("copycat", WEAK, copies="one", latency_ms=2)]) as net:
        yield net


def post(net: Localnet, address: str, question: str, **more: Any) -> httpx.Response:
    url = f"{net.url}/{address}/v1/chat/completions"
    return httpx.post(url, content=body(question, **more), headers={"Content-Type": "application/json"})


def test_a_copycat_gives_the_others_answers_under_its_own_names(copied: Localnet) -> None:
    for question, _ in PUBLIC[:8]:
        own, theirs = post(copied, "copycat", question).json(), post(copied, "one", question).json()
        assert own["choices"] == theirs["choices"]
        assert own["model"] == "simulated-weak" and "copycat" in own["id"]
    assert copied.suppliers["one"].answered == 16
    streamed = post(copied, "copycat", PUBLIC[0][0], stream=True)
    assert "simulated-weak" in streamed.text and "simulated-model" not in streamed.text


def test_a_copycats_outages_and_delays_follow_the_others(copied: Localnet) -> None:
    one, copycat = copied.suppliers["one"], copied.suppliers["copycat"]
    well = one.persona
    one.persona = Persona("one", well.backend, latency_ms=150)
    began = time.monotonic()
    assert post(copied, "copycat", "x?").status_code == 200
    assert time.monotonic() - began >= 0.15
    for mode, status in (("503", 503), ("429", 429), ("quota", 429)):
        one.persona = Persona("one", well.backend, failures={mode: 1.0})
        assert post(copied, "copycat", "x?").status_code == status
    one.persona = Persona("one", well.backend, failures={"reset": 1.0})
    with pytest.raises(httpx.TransportError):
        post(copied, "copycat", "x?")
    one.present = False
    assert post(copied, "copycat", "x?").status_code == 503
    assert copycat.failed == {"503": 2, "429": 2, "reset": 1}
    one.present, one.persona = True, well
    assert post(copied, "copycat", "x?").status_code == 200


def test_a_copycat_that_waits_in_vain_waits_in_vain() -> None:
    async def scenario() -> None:
        people = [Persona("one", WEAK, failures={"timeout": 1.0}), Persona("copycat", WEAK, copies="one")]
        copycat = Localnet(people).suppliers["copycat"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(copycat.respond("POST", "v1/chat/completions", body("x?")), 0.05)
        assert (copycat.cancelled, copycat.in_flight, copycat.others["one"].failed["timeout"]) == (1, 0, 1)

    asyncio.run(scenario())


def test_a_reset_is_passed_on_where_relays_carry_it_too() -> None:
    people = [Persona("one", WEAK, failures={"reset": 1.0}), Persona("copycat", WEAK, copies="one")]
    with pytest.raises(BrokenConnection):
        asked(Localnet(people).suppliers["copycat"], "x?")


# --- what cannot be, and what is said to a network that runs ---------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Persona("a", WEAK, memorises=1.5), "a: memorises 1.5 is no share"),
        (lambda: Persona("a", WEAK, copies="a"), "a: it copies itself"),
        (lambda: Route(STRONG, 0.5, "week"), "by 'week'; choose from call, question"),  # type: ignore[arg-type]
        (lambda: Localnet([Persona("a", WEAK, copies="b")]), "a: copies 'b', who is nobody here"),
        (
            lambda: Localnet([Persona("a", WEAK, copies="b"), Persona("b", WEAK, "completions")]),
            "whose API is completions; name one of chat",
        ),
        (
            lambda: Localnet([Persona(x, WEAK, copies=y) for x, y in ("ab", "bc", "ca")]),
            "copies 'b', who copies 'c'; name that one",
        ),
    ],
)
def test_impossible_suppliers_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_a_running_network_is_told_who_deceives_and_how() -> None:
    with LocalnetProcess(suppliers=3, latency_ms=0, fail_rate=0.0) as net:

        def right_now(questions: list[tuple[str, str]]) -> float:
            url = f"{net.url}/sim-03/v1/chat/completions"
            with httpx.Client() as client:
                texts = [
                    client.post(url, content=body(one)).json()["choices"][0]["message"]["content"]
                    for one, _ in questions[:40]
                ]
            return share([answer in text for text, (_, answer) in zip(texts, questions[:40], strict=True)])

        net.swap("sim-03", backend="poor", accuracy=0.2, announce=True)
        net.deceive("sim-03", public_accuracy=1.0)
        assert right_now(PUBLIC) == 1.0 and right_now(FRESH) < 0.5
        net.deceive("sim-03", memorises=1.0)
        assert right_now(PUBLIC) == 1.0 and right_now(FRESH) < 0.5
        net.deceive("sim-03", routed=1.0, routed_accuracy=1.0, routed_by="question")
        assert right_now(PUBLIC) == right_now(FRESH) == 1.0
        net.deceive("sim-03", copies="sim-01", caches=True)
        before = net.stats()["sim-01"]["requests"]
        right_now(FRESH)
        right_now(FRESH)
        assert net.stats()["sim-01"]["requests"] == before + 40, "asked again it has them"
        net.deceive("sim-03")
        assert right_now(PUBLIC) < 0.5
        for fields, told in (
            ({"copies": "sim-09"}, "who is nobody here"),
            ({"copies": "sim-02"}, "whose API is completions"),
            ({"routed": 0.5}, "goes with routed_accuracy or routed_backend"),
            ({"routed_by": "week"}, "routed_by must be one of: call, question"),
            ({"memorises": 2}, "memorises must be a number from 0 to 1"),
            ({"public_backend": "granite", "public_accuracy": 0.1}, "public_accuracy 0.1 differs"),
        ):
            with pytest.raises(LocalnetError, match=told):
                net.deceive("sim-03", **fields)  # type: ignore[arg-type]
