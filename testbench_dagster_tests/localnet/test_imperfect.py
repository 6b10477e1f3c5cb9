"""Suppliers that do not repeat themselves, route, or serve pages: what identity has to cope with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import httpx
import pytest

from testbench_dagster.core.answer_prefix import answer_prefix
from testbench_dagster.localnet.answers import Answers, starter_questions
from testbench_dagster.localnet.personas import Backend, Persona, Route, Swap, default_population
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.tasks.signatures.probes import draw_probes
from testbench_dagster_tests.tasks.signatures.simulated import served

ONYX, MARBLE = Backend("onyx", 0.8, latency_ms=0), Backend("marble", 0.8, latency_ms=0)
PROBES = draw_probes("localnet", 400)


@pytest.fixture(scope="module")
def net() -> Iterator[Localnet]:
    people = (
        Persona("plain", ONYX),
        Persona("noisy", ONYX, noise=0.1),
        Persona("router", ONYX, route=Route(MARBLE, 0.3)),
        Persona("bare", ONYX, pages=("config",)),
        Persona("swapped", ONYX, swap=Swap(MARBLE, after_requests=0)),
    )
    with served(people) as running:
        yield running


def openings(net: Localnet, address: str, prompts: list[str], **more: object) -> list[str]:
    with httpx.Client() as client:
        url = f"{net.url}/{address}/v1/chat/completions"
        bodies = [
            client.post(
                url, json={"messages": [{"role": "user", "content": prompt}], "max_tokens": 16, **more}
            )
            for prompt in prompts
        ]
    return [answer_prefix(body.json()["choices"][0]["message"]["content"])[:20] for body in bodies]


def test_noise_is_the_share_of_answers_that_deviate(net: Localnet) -> None:
    usual = openings(net, "plain", PROBES)
    assert usual == openings(net, "plain", PROBES) and min(map(len, usual)) == 20
    deviating = sum(a != b for a, b in zip(usual, openings(net, "noisy", PROBES), strict=True))
    assert 20 < deviating < 65  # of 400 at 0.1; outside by chance once in 10,000 populations
    number = net.suppliers["noisy"].requests
    expected = net.suppliers["noisy"].persona.deviates(0, number)
    (again,) = openings(net, "noisy", PROBES[:1])
    assert (again != usual[0]) == expected, "which ones follows from seed, supplier and request number"


def test_known_questions_deviate_too_where_there_is_another_answer() -> None:
    answers = Answers(0)
    known = [q for q in starter_questions() if q.task == "starter_reading"][:50]
    assert all(answers.deviation(ONYX, q.text, "s") != answers.reply(ONYX, q.text) for q in known)


def test_a_router_sends_a_share_elsewhere(net: Localnet) -> None:
    onyx = openings(net, "plain", PROBES)
    marble = openings(net, "swapped", PROBES)
    routed = openings(net, "router", PROBES)
    assert not any(a == b for a, b in zip(onyx, marble, strict=True))
    assert all(r in (a, b) for r, a, b in zip(routed, onyx, marble, strict=True))
    assert 80 < sum(r == b for r, b in zip(routed, marble, strict=True)) < 160


def test_pages_tell_the_declared_backend_or_404(net: Localnet) -> None:
    with httpx.Client(base_url=net.url) as client:
        one = client.get("/plain/pokt/tokenizer")
        assert one.status_code == 200 and one.json() == ONYX.page("tokenizer") != MARBLE.page("tokenizer")
        assert client.get("/swapped/pokt/config").json() == ONYX.page("config"), "a swap is silent"
        assert client.get("/bare/pokt/config").status_code == 200
        assert client.get("/bare/pokt/tokenizer").status_code == 404
        assert client.get("/plain/pokt/other").status_code == 404
        assert client.post("/plain/pokt/config", json={}).status_code == 404
        stats = client.get("/stats").json()["suppliers"]
        assert [stats[name]["pages"] for name in ("bare", "plain")] == [{"config": 1}, {"tokenizer": 1}]


def test_different_backends_begin_alike_no_more_often_than_real_models() -> None:
    """At 20 characters real pairs share 10.6 % at the median and 26.9 % at the 99th percentile."""
    answers = Answers(0)
    backends = {
        p.backend.name: p.backend for p in default_population(20, 0) if p.backend.base is None
    }.values()
    questions = starter_questions()[::9]
    said = [[answer_prefix(answers.reply(b, q.text))[:20] for q in questions] for b in backends]
    shares = sorted(
        sum(a == b for a, b in zip(one, other, strict=True)) / len(questions)
        for one, other in combinations(said, 2)
    )
    assert shares[len(shares) // 2] < 0.15 and shares[-1] < 0.35


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Persona("a", ONYX, noise=1.5), "noise 1.5 is no share"),
        (lambda: Persona("a", ONYX, pages=("card",)), "unknown page 'card'"),
        (lambda: Route(MARBLE, -0.1), "no share from 0 to 1"),
    ],
)
def test_impossible_suppliers_are_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
