"""About what a plan costs: by the tokens of the supplier, of others, or of prompts, and said which."""

from __future__ import annotations

from typing import Any

import pytest

from testbench_dagster.core.pace import estimated_parts, estimated_tokens
from testbench_dagster.core.price import Price
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.rows import PlanRows, plan_rows
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.reads import documents_read
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, GATING, Stage
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA

URL = "http://127.0.0.1:9/v1"
PRICE = {"prompt": 2.0, "completion": 10.0}
#: Of a doc as the facts have it: 100 tokens of its prompt, 5 of its answer.
ONE = (100 * 2 + 5 * 10) / 1e6


def suppliers(*prices: dict[str, float] | None, apis: tuple[str, ...] = ("chat", "chat")) -> dict[str, Any]:
    """The blocks of alpha and beta, with these prices."""
    found = []
    for name, price, api in zip(("alpha", "beta"), prices, apis, strict=True):
        own = {"address": name, "base_url": URL, "model": "m", "api": api}
        found.append(own if price is None else {**own, "price": price})
    return {"suppliers": found}


def planned(made: Stage) -> PlanRows:
    return plan_rows(made.workspace, active_suppliers(made.workspace))


def costs(found: PlanRows, key: str) -> dict[str, tuple[Any, Any]]:
    return {r["task"]: (r["cost"], r["cost_from"]) for r in found.rows if r["supplier"] == key}


def test_without_a_price_no_window_or_prompt_is_read_for_it(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(suppliers(None, None))
    read = documents_read(made.workspace.documents, monkeypatch)
    found = planned(made)
    before = read[PROMPTS.name]
    assert (found.cost, found.uncosted) == (None, found.calls) and found.calls == 4 * DOCS
    assert set(costs(found, ALPHA).values()) == {(None, None)}
    priced = stage(suppliers(PRICE, None))
    read = documents_read(priced.workspace.documents, monkeypatch)
    assert planned(priced).uncosted == 2 * DOCS
    assert read[PROMPTS.name] > before, "where they are needed they are read"


def test_its_own_answers_tell_what_a_call_takes(stage: Any) -> None:
    made = stage(suppliers(PRICE, None))
    made.answered(GATED, range(4))
    found = planned(made)
    assert costs(found, ALPHA)[GATED] == (pytest.approx(6 * ONE), "own")
    assert set(costs(found, BETA).values()) == {(None, None)}
    assert found.uncosted == sum(r["calls"] for r in found.rows if r["supplier"] == BETA)


def test_else_the_answers_of_others_that_are_asked_in_the_same_form(stage: Any) -> None:
    made = stage(suppliers(None, PRICE))
    made.answered(GATED, range(4))
    found = planned(made)
    assert costs(found, BETA)[GATED] == (pytest.approx(DOCS * ONE), "others")
    assert found.cost == pytest.approx(sum(cost for cost, _ in costs(found, BETA).values()))
    other = stage(suppliers(None, PRICE, apis=("chat", "completions")))
    assert costs(planned(other), BETA)[GATED][1] == "prompts"


def test_else_the_prompts_and_the_most_that_answers_may_have(stage: Any) -> None:
    made = stage(suppliers(PRICE, None))
    prompts = list(made.workspace.documents.find(PROMPTS, {"task": GATED}))
    for prompt in prompts:
        request = {"type": "generate_until", "idx": 0, "messages": [{"role": "user", "content": "x" * 40}]}
        made.workspace.documents.upsert(
            PROMPTS, [{**prompt, "requests": [{**request, "generation": {"max_tokens": 9}}]}]
        )
    found = costs(planned(made), ALPHA)
    assert found[GATED] == (pytest.approx(DOCS * (10 * 2 + 9 * 10) / 1e6), "prompts")
    assert found[GATING] == (pytest.approx(DOCS * 9 * 10 / 1e6), "prompts")


def test_answers_without_a_count_tell_nothing(stage: Any) -> None:
    made = stage(suppliers(PRICE, None))
    made.facts.score(made.registrations[GATED], 0, 1.0, tokens=(None, None))
    made.facts.attempt(made.registrations[GATED], 0, prompt_id=f"{GATED}-1-chat-0", text="x")
    assert costs(planned(made), ALPHA)[GATED][1] == "prompts"


def test_what_asks_nothing_costs_nothing_and_what_is_free_is_known(stage: Any) -> None:
    made = stage(suppliers(PRICE, {"prompt": 0, "completion": 0}))
    made.answered(GATED, range(DOCS))
    found = planned(made)
    assert costs(found, ALPHA)[GATED] == (0, None)
    assert costs(found, BETA)[GATED] == (0, "others")
    assert found.uncosted == 0


def test_a_task_that_is_not_prepared_has_no_cost_yet(stage: Any) -> None:
    tasks = [{"name": GATED, "samples": DOCS}, {"name": "starter_reading", "samples": 7}]
    made = stage(suppliers(PRICE, None), tasks=tasks)
    found = planned(made)
    (row,) = [r for r in found.rows if (r["supplier"], r["task"]) == (ALPHA, "starter_reading")]
    assert row["estimated"] and (row["cost"], row["cost_from"]) == (None, None)
    assert found.uncosted == found.calls - DOCS


@pytest.mark.parametrize(
    ("request_", "budget", "parts"),
    [
        ({"type": "get"}, 5, (0, 0)),
        ({"type": "loglikelihood", "context": "12345678", "continuation": "1"}, 5, (3, 1)),
        ({"type": "generate_until", "prompt": "1234", "generation": {"max_gen_toks": 7}}, 5, (1, 12)),
    ],
)
def test_tokens_of_prompt_and_answer_are_told_apart(
    request_: dict[str, Any], budget: int, parts: tuple[int, int]
) -> None:
    assert estimated_parts(request_, budget) == parts
    assert estimated_tokens(request_, budget) == sum(parts)
    assert Price(1e6, 0).of(*parts) == parts[0]
