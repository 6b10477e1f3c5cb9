"""Suppliers that keep answers back do so when they say, how they say, and as long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from testbench_dagster.localnet.answers import Answers, is_right
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.withholding import (
    ANSWER,
    WITHHOLDERS,
    Asked,
    Withheld,
    Withholding,
    ahead,
    dark,
    looks_up,
)
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster_tests.tasks.signatures.simulated import served

BACKEND = Backend("b", 0.6, latency_ms=0)
DOCS = read_docs("starter_reading", "test")[:30]
PROMPTS = {doc["id"]: f"Question: {doc['question']}\nAnswer:" for doc in DOCS}
RIGHT = {
    doc["id"]: is_right(0, BACKEND, Known(doc["question"], "starter_reading", doc["id"])) for doc in DOCS
}


@pytest.fixture(scope="module")
def net() -> Iterator[Localnet]:
    people = [
        Persona("plain", BACKEND),
        Persona("500", BACKEND, withholds=WITHHOLDERS["500"]),
        Persona("turns", BACKEND, withholds=WITHHOLDERS["mixture"]),
        Persona("parameter", BACKEND, withholds=WITHHOLDERS["refuses-a-parameter"]),
        Persona("later", BACKEND, withholds=looks_up(0.0)),
        Persona(
            "choices", Backend("c", 0.5, latency_ms=0), "completions", withholds=WITHHOLDERS["right-option"]
        ),
    ]
    with served(people) as running:
        yield running


def ask(net: Localnet, address: str, prompt: str, **more: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": prompt}], **more}
    try:
        return httpx.post(f"{net.url}/{address}/v1/chat/completions", json=body)
    except httpx.TransportError:
        return httpx.Response(0)


def says(response: httpx.Response) -> str:
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_where_it_would_be_wrong_and_nowhere_else(net: Localnet) -> None:
    assert 5 < sum(RIGHT.values()) < 25
    for doc in DOCS:
        response = ask(net, "500", PROMPTS[doc["id"]])
        assert response.status_code == (200 if RIGHT[doc["id"]] else 500)
        if RIGHT[doc["id"]]:
            assert says(response) == says(ask(net, "plain", PROMPTS[doc["id"]]))


def test_ways_are_taken_in_turn(net: Localnet) -> None:
    wrong = [doc for doc in DOCS if not RIGHT[doc["id"]]][:6]
    statuses = [ask(net, "turns", PROMPTS[doc["id"]]).status_code for doc in wrong]
    assert statuses == [500, 400, 200, 0, 401, 200]
    assert ask(net, "turns", "what nobody knows").status_code == 200


def test_a_parameter_is_refused_by_name(net: Localnet) -> None:
    prompt = PROMPTS[DOCS[0]["id"]]
    assert ask(net, "parameter", prompt).status_code == 200
    refused = ask(net, "parameter", prompt, temperature=0)
    assert refused.status_code == 400 and "'temperature'" in refused.json()["error"]["message"]


def test_what_is_looked_up_is_right(net: Localnet) -> None:
    wrong = next(doc for doc in DOCS if not RIGHT[doc["id"]])
    assert wrong["answer"] not in says(ask(net, "plain", PROMPTS[wrong["id"]]))
    assert ask(net, "later", PROMPTS[wrong["id"]]).status_code == 500
    assert wrong["answer"] in says(ask(net, "later", PROMPTS[wrong["id"]]))


def test_of_a_choice_only_the_call_of_the_right_option_is_withheld(net: Localnet) -> None:
    backend, seen = Backend("c", 0.5, latency_ms=0), set()
    for doc in read_docs("starter_choice", "test")[:12]:
        known = Known(doc["question"], "starter_choice", doc["id"])
        for option in (doc["answer"], *doc["wrong"]):
            body = {
                "prompt": f"Question: {doc['question']}\nAnswer: {option}",
                "echo": True, "logprobs": 1, "max_tokens": 1,
            }  # fmt: skip
            status = httpx.post(f"{net.url}/choices/v1/completions", json=body).status_code
            withheld = not is_right(0, backend, known) and option == doc["answer"]
            assert status == (500 if withheld else 200)
            seen.add(withheld)
    assert seen == {True, False}


def asked(number: int, right: bool) -> Asked:
    return Asked(bytes([number]), str(number), right)


def test_going_dark_ends() -> None:
    state = Withheld(dark(10.0, "401"))
    assert state.decide(asked(1, True), 0.0).mode is None
    assert [state.decide(asked(n, n != 2), float(n)).mode for n in (2, 3, 11)] == ["401"] * 3
    assert state.decide(asked(3, True), 12.5).mode is None


def test_who_is_ahead_stops_and_may_come_back() -> None:
    state = Withheld(ahead(seconds=100.0), accuracy=0.6)
    for number in range(10):
        assert state.decide(asked(number, number < 6), 0.0).mode is None, "6 of 10 is what is true"
    assert state.decide(asked(10, True), 1.0).mode is None
    assert [state.decide(asked(11, right), 2.0).mode for right in (True, False)] == ["500"] * 2
    assert state.decide(asked(11, True), 103.0).mode is None


def test_each_question_has_its_own_time() -> None:
    state = Withheld(looks_up(5.0))
    first = [state.decide(asked(1, False), at) for at in (0.0, 5.0, 6.0)]
    assert [(d.mode, d.looked_up) for d in first] == [("500", False), ("500", False), (None, True)]
    assert state.decide(asked(2, False), 6.0).mode == "500"


@pytest.mark.parametrize(("only", "kept_back"), [("", 2), ("one", 1), ("task", 2), ("other", 0)])
def test_a_rule_may_be_of_one_task_or_question(only: str, kept_back: int) -> None:
    state = Withheld((Withholding(("400",), "always", only=only),))
    modes = [state.decide(Asked(b"", name, True, "task"), 0.0).mode for name in ("one", "two")]
    assert modes.count("400") == kept_back


def test_what_is_beyond_a_rate_is_refused() -> None:
    state = Withheld((Withholding(("429",), "rate", after=2, for_s=10.0),))
    modes = [state.decide(asked(1, True), at).mode for at in (0.0, 1.0, 2.0, 9.0, 10.0, 10.5, 11.0)]
    assert modes == [None, None, "429", "429", None, "429", None]


def test_every_other_time() -> None:
    state = Withheld((Withholding(("500", ANSWER)),))
    assert [state.decide(asked(n, False), 0.0).mode for n in range(4)] == ["500", None, "500", None]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Withholding(("500",), "never"), "choose from always"),  # type: ignore[arg-type]
        (lambda: Withholding(()), "how is empty"),
        (lambda: Withholding(("400",), "parameter"), "names it"),
        (lambda: Withholding(("400",), dark_s=-1.0), "must not be negative"),
        (lambda: Persona("a", BACKEND, withholds=(Withholding(("teapot",)),)), "unknown failure 'teapot'"),
    ],
)
def test_nonsense_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_recorded_answers_may_be_said_to_be_wrong() -> None:
    answers = Answers(0, [Known("q?", recorded="no", right=False), Known("p?", recorded="yes")])
    known = [answers.find(text) for text in ("q?", "p?")]
    assert [answers.is_right(BACKEND, one) for one in known if one is not None] == [False, True]
