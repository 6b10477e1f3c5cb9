"""A quantised twin: the name and most answers of its model, some of its own, a few points less."""

from __future__ import annotations

import pytest

from testbench_dagster.localnet.answers import Answers, is_right, starter_questions
from testbench_dagster.localnet.logprobs import loglikelihood
from testbench_dagster.localnet.personas import Backend, default_population, quantised

FULL = Backend("full", 0.9, {"starter_logic": 0.8})
LESS = quantised(FULL)


def test_it_goes_by_the_name_of_its_model() -> None:
    assert LESS.name != FULL.name and LESS.model == FULL.model
    assert [LESS.page(name) for name in ("tokenizer", "config")] == [
        FULL.page(name) for name in ("tokenizer", "config")
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_are_alike_but_for_some_and_a_few_points_are_lost(seed: int) -> None:
    answers, known = Answers(seed), starter_questions()
    prompts = [f"Question: {one.text}\nAnswer:" for one in known]
    same = [answers.reply(FULL, prompt) == answers.reply(LESS, prompt) for prompt in prompts]
    assert 0.88 < sum(same) / len(same) < 0.98
    shares = [sum(is_right(seed, one, each) for each in known) / len(known) for one in (FULL, LESS)]
    assert 0.01 < shares[0] - shares[1] < 0.06
    again = Answers(seed)
    assert [again.reply(LESS, prompt) for prompt in prompts[:50]] == [
        answers.reply(LESS, prompt) for prompt in prompts[:50]
    ]


def test_so_are_texts_to_unknown_prompts_and_log_probabilities() -> None:
    answers = Answers(0)
    texts = [f"Tell me about {number}" for number in range(200)]
    same = [answers.reply(FULL, text) == answers.reply(LESS, text) for text in texts]
    assert 0.8 < sum(same) / len(same) < 0.98
    sums = [
        loglikelihood(0, FULL, f"{t}\nso", " it is") == loglikelihood(0, LESS, f"{t}\nso", " it is")
        for t in texts
    ]
    assert 0.8 < sum(sums) / len(sums) < 0.98


def test_a_large_population_has_one_beside_its_model() -> None:
    people = default_population(8, 3)
    (twin,) = [one for one in people if one.backend.base is not None]
    assert (twin.backend.base, twin.api, twin.backend.model) == (
        people[0].backend,
        "chat",
        people[0].backend.model,
    )
    assert {one.tool_use for one in people} >= {"good", "bad_json", "ignores_irrelevance"}


def test_a_drift_is_a_share() -> None:
    with pytest.raises(ValueError, match="drift 2 is no share"):
        Backend("b", drift=2)
