"""What tells our own probes from benchmark requests: nothing in their form, and what of their text.

And that what is drawn is not drawn again, so that nobody can have kept the answer.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from math import comb, prod
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from testbench_dagster.core.relay import Api
from testbench_dagster.stages.service.prompts import long_prompt
from testbench_dagster.tasks.chat_choice.shuffle import shuffled
from testbench_dagster.tasks.signatures import Signatures
from testbench_dagster.tasks.signatures.probes import (
    DESCRIPTION,
    EXAMPLES,
    TEMPLATES,
    UNTIL,
    WORDS,
    draw_examples,
    draw_probes,
)
from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.transports.payload import as_stream, build_payload
from testbench_dagster_tests.tasks.signatures.test_signatures import signature, specs

STARTER = Path(__file__).parents[3] / "testbench_dagster" / "tasks" / "starter"
Payload = Mapping[str, Any]


def probes(folder: Path, api: Api, n: int = 60, seed: str = "seed") -> list[Payload]:
    """Request bodies of identity probes, as configured by default."""
    (spec,) = specs(folder, signature("identity"))
    data = Signatures().register(spec).data
    built = Signatures().build_prompts(spec, data, range(n), api, seed)
    return [build_payload(prompt.requests[0], api, "m")[1] for prompt in built]


# ------------------------------------------------------------------------------------------------- form


def test_probes_are_put_as_the_starter_task_puts_its_requests(tmp_path: Path) -> None:
    task = (STARTER / "starter_instructions.yaml").read_text("utf-8")
    shared = (STARTER / "_shared.yaml").read_text("utf-8")
    assert f'description: "{DESCRIPTION}"'.replace("\n", "\\n") in task
    assert 'doc_to_text: "Request: {{question}}\\nResponse:"' in task
    assert f"until: {list(UNTIL)}".replace("'", '"') in task
    assert "do_sample: false\n  temperature: 0.0\n  max_gen_toks: 256" in task
    assert "num_fewshot: 2" in shared
    chat = probes(tmp_path, "chat")[0]
    assert [turn["role"] for turn in chat["messages"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert chat["messages"][-1]["content"].endswith("\nResponse:")
    text = probes(tmp_path, "completions")[0]["prompt"]
    assert (text.count("Request:"), text.count("Response:")) == (3, 3)


def test_what_stands_before_a_probe_is_drawn_and_no_probe_itself() -> None:
    drawn = [draw_examples("seed", number) for number in range(400)]
    assert all(first != second for first, second in drawn)
    assert {example for pair in drawn for example in pair} == set(EXAMPLES)
    assert drawn == [draw_examples("seed", number) for number in range(400)]
    assert drawn[:20] != [draw_examples("other", number) for number in range(20)]
    known = {squeeze(doc["question"]) for task in TASKS for doc in read_docs(task)}
    requests = {squeeze(request) for request, _ in EXAMPLES}
    assert not requests & known, "a doc of a task, with its answer, would be given away"
    assert not requests & {squeeze(probe) for probe in draw_probes("seed", 500)}
    assert len({answer[:20] for _, answer in EXAMPLES}) == len(EXAMPLES)


def squeeze(text: str) -> str:
    return " ".join(text.split())


FEATURES: dict[str, Callable[[Payload], Any]] = {
    "parameters": lambda body: tuple(sorted(body.keys() - {"messages", "prompt"})),
    "max_tokens": lambda body: body.get("max_tokens"),
    "temperature": lambda body: repr(body.get("temperature")),
    "stop": lambda body: tuple(body.get("stop") or ()),
    "seed": lambda body: body.get("seed"),
    "stream": lambda body: body.get("stream"),
    "turns": lambda body: tuple(turn["role"] for turn in body.get("messages", ())),
    "system": lambda body: body["messages"][0]["content"] if "messages" in body else "",
    "characters": lambda body: len(text_of(body)) // 40,
    "last characters": lambda body: len(last_of(body)) // 10,
    "first word": lambda body: last_of(body).split()[0],
    "second word": lambda body: last_of(body).split()[1],
}


def text_of(body: Payload) -> str:
    return str(body["prompt"]) if "prompt" in body else "".join(t["content"] for t in body["messages"])


def last_of(body: Payload) -> str:
    if "prompt" in body:
        return str(body["prompt"]).rsplit("\n\n", 1)[-1]
    return str(body["messages"][-1]["content"])


def told_by(one: Sequence[Payload], other: Sequence[Payload], feature: Callable[[Payload], Any]) -> float:
    """How well a value tells both apart: mean of the shares told rightly, .5 for nothing, 1 for always.

    The rule is learnt on every other request and tried on the rest: by value, whatever is the more likely.
    """
    sides = (one, other)
    learnt = [Counter(feature(body) for body in side[::2]) for side in sides]
    rates = [{value: n / count.total() for value, n in count.items()} for count in learnt]
    right = 0.0
    for place, side in enumerate(sides):
        tried = side[1::2]
        for body in tried:
            mine, theirs = (rates[k].get(feature(body), 0.0) for k in (place, 1 - place))
            right += (1.0 if mine > theirs else 0.5 if mine == theirs else 0.0) / len(tried) / 2
    return round(right, 9)


def test_the_measure_tells_what_can_be_told() -> None:
    some = [{"prompt": "a b", "max_tokens": n // 2 % 2} for n in range(40)]
    more = [{"prompt": "a b", "max_tokens": 2} for n in range(40)]
    assert told_by(some, more, FEATURES["max_tokens"]) == 1.0
    assert told_by(some, some, FEATURES["max_tokens"]) == 0.5
    assert told_by(some, more, FEATURES["first word"]) == 0.5


#: What tells probes from requests of `starter_instructions` no better than chance. How well the rest does is
#: written in docs/hiding.md.
ALIKE = ("parameters", "max_tokens", "temperature", "stop", "seed", "stream", "turns", "system")


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_no_parameter_tells_a_probe_from_a_benchmark_request(tmp_path: Path, api: Api) -> None:
    from testbench_dagster.tasks import lm_eval_adapter as lm_eval

    (spec,) = specs(tmp_path, {"name": "starter_instructions"})
    built = lm_eval.build_prompts(spec, lm_eval.register(spec).data, range(120), api)
    benchmark = [build_payload(prompt.requests[0], api, "m")[1] for prompt in built]
    told = {name: told_by(probes(tmp_path, api, 120), benchmark, of) for name, of in FEATURES.items()}
    print(api, {name: round(value, 2) for name, value in told.items()})
    assert {name: told[name] for name in ALIKE} == dict.fromkeys(ALIKE, 0.5)


def test_what_service_probes_are_told_by(tmp_path: Path) -> None:
    """They are streamed, longer, and ask for long answers: these have to be, and the docs say so."""
    bodies = []
    for number in range(40):
        prompt = long_prompt(100, 300, Random(number))
        bodies.append(as_stream(build_payload(prompt.request("chat"), "chat", "m")[1]))
    told = {name: told_by(bodies, probes(tmp_path, "chat", 40), of) for name, of in FEATURES.items()}
    assert told["stream"] == told["max_tokens"] == told["turns"] == 1.0
    assert told["seed"] == 0.5


# ------------------------------------------------------------------------------------------------ draws


def kinds_of_probes() -> list[int]:
    """How many different probes each template gives."""
    return [prod(len(WORDS[name]) for name in set(re.findall(r"{(\w+)}", one))) for one in TEMPLATES]


def expected_repeats(n: int, pairs_left_out: int) -> float:
    """Pairs of equal probes among ``n`` by chance, less pairs of one epoch, which holds none."""
    same = sum((1 / len(TEMPLATES)) ** 2 / kinds for kinds in kinds_of_probes())
    return (comb(n, 2) - pairs_left_out) * same


def repeats(epochs: int, probes_each: int) -> tuple[int, float]:
    """Probes that come in two of some epochs, and how many of them chance has come."""
    seeds = [hashlib.sha256(f"epoch {number}".encode()).hexdigest() for number in range(epochs)]
    drawn = [set(draw_probes(seed, probes_each)) for seed in seeds]
    seen = sum(len(one & other) for one, other in combinations(drawn, 2))
    return seen, expected_repeats(epochs * probes_each, epochs * comb(probes_each, 2))


def test_a_probe_of_one_epoch_is_seldom_one_of_another() -> None:
    """Three years of epochs of four weeks: as often as chance has it, one probe in a thousand."""
    seen, expected = repeats(39, 74)
    assert expected < 0.002 * 39 * 74
    assert seen <= expected + 4 * expected**0.5 + 1


@pytest.mark.slow
def test_nor_in_twenty_years() -> None:
    seen, expected = repeats(260, 101)
    print(seen, round(expected, 1))
    assert abs(seen - expected) <= 4 * expected**0.5


def test_options_of_a_choice_stand_in_an_order_of_the_epoch() -> None:
    """Whoever kept the letter has it right by chance: 1 in n over twenty years of epochs, for each doc."""
    epochs = 260
    for n in (2, 4, 10):
        orders = [[shuffled(f"epoch {e}", doc, n) for e in range(epochs)] for doc in range(12)]
        stays = [
            sum(one.index(0) == other.index(0) for one, other in pairwise(own)) / (epochs - 1)
            for own in orders
        ]
        deviation = (1 / n * (1 - 1 / n) / epochs) ** 0.5
        assert abs(median(stays) - 1 / n) < 3 * deviation
        assert max(abs(share - 1 / n) for share in stays) < 5 * deviation
