"""Pairs of a public and a fresh question: registered, asked in the public question's own form, scored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.pairs import is_public
from testbench_dagster.core.prompt import Answered, BuiltPrompt, Registered
from testbench_dagster.core.task import TaskGeneration, TaskSpec
from testbench_dagster.tasks.lm_eval_adapter import build_prompts as build_for_lm_eval
from testbench_dagster.tasks.lm_eval_adapter import register as register_for_lm_eval
from testbench_dagster.tasks.twins.adapter import Twins
from testbench_dagster.tasks.twins.scoring import EXACT, FLEXIBLE
from testbench_dagster.tasks.twins.sources import gsm8k_template_ids, packaged_items, packaged_twin
from testbench_dagster.tasks.twins.starter_form import DESCRIPTIONS
from testbench_dagster.tasks.twins.version import GSM8K, STARTER
from testbench_dagster.testing import check_framework
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.acceptance.documents import document
from testbench_dagster_tests.tasks.layouts import SHARED

TWINS = Twins()
SEED = "an epoch"
_NUMBER = re.compile(r"\d+")


def spec(leaf: str = STARTER, **changes: Any) -> TaskSpec:
    plain = TaskSpec(leaf, leaf, leaf, None, None, None, None, None, {}, None, framework="twins")
    return replace(plain, **changes)


@cache
def starter() -> Registered:
    return TWINS.register(spec())


def docs_of(registered: Registered) -> list[dict[str, Any]]:
    return [json.loads(registered.data.docs[doc]) for doc in range(len(registered.data.docs))]


def text_of(prompt: BuiltPrompt) -> str:
    text: str = prompt.requests[0]["messages"][-1]["content"]
    return text


def test_each_public_question_is_two_docs() -> None:
    docs, items = docs_of(starter()), packaged_items()
    assert len(docs) == 2 * len(items) and len(set(starter().doc_hashes)) == len(docs)
    assert [doc["id"] for doc in docs[::2]] == [doc["id"] for doc in docs[1::2]] == [one.id for one in items]
    flags = starter().data.flags
    assert (flags.questions_of_epoch, flags.pairs, flags.request_forms) == (
        True,
        True,
        ("chat", "completions"),
    )
    assert "template" in flags.features, "cluster: template"
    assert {doc["kind"] for doc in docs} >= {
        "dates",
        "units",
        "strings",
        "logic",
        "word_problems",
        "option_order",
    }


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_of_each_pair_the_drawn_half_asks_the_public_question_and_the_other_its_twin(api: str) -> None:
    data, docs = starter().data, docs_of(starter())
    chosen = range(0, len(docs), 37)
    chosen_pairs = sorted({doc // 2 * 2 + half for doc in chosen for half in (0, 1)})
    for prompt in TWINS.build_prompts(spec(), data, chosen_pairs, api, SEED):
        doc, request = docs[prompt.doc_id], prompt.requests[0]
        public = is_public(SEED, prompt.doc_id)
        twin = packaged_twin(doc["id"], SEED)
        question = doc["question"] if public else twin.question
        asked = request["prompt"] if api == "completions" else request["messages"][-1]["content"]
        assert asked.endswith(f"Question: {question}\nAnswer:")
        assert prompt.target == (doc["answer"] if public else twin.answer)
        assert (doc["question"] in asked) is public


def test_nothing_but_the_question_tells_the_halves_of_a_pair_apart() -> None:
    """Beside the text of the question both requests are the same, byte for byte, and as long, nearly."""
    data, docs = starter().data, docs_of(starter())
    prompts = TWINS.build_prompts(spec(), data, list(data.docs), "chat", SEED)
    longer = 0
    for one, two in zip(prompts[::2], prompts[1::2], strict=True):
        bodies = []
        for prompt in (one, two):
            path, body = build_payload(prompt.requests[0], "chat", "m")
            body["messages"] = [*body["messages"][:-1], {"role": "user", "content": "Question: \nAnswer:"}]
            bodies.append((path, json.dumps(body)))
        assert bodies[0] == bodies[1]
        if docs[one.doc_id]["kind"] in ("arithmetic", "units", "word_problems"):
            lengths = [[len(digits) for digits in _NUMBER.findall(text_of(p))] for p in (one, two)]
            assert lengths[0] == lengths[1], (text_of(one), text_of(two))
        public, fresh = (one, two) if is_public(SEED, one.doc_id) else (two, one)
        longer += len(text_of(public)) > len(text_of(fresh))
        longer -= len(text_of(public)) < len(text_of(fresh))
    assert abs(longer) < 4 * len(prompts) ** 0.5


@pytest.mark.parametrize("task", sorted(DESCRIPTIONS))
def test_starter_questions_are_asked_as_their_own_task_asks_them(task: str) -> None:
    """Without examples; the choices, which that asks by log-probabilities, in the words of the others."""
    own = spec(task, name=task, framework="lm_eval", num_fewshot=0)
    registered = register_for_lm_eval(own)
    rows = {json.loads(text)["question"]: doc for doc, text in registered.data.docs.items()}
    docs = docs_of(starter())
    at = next(
        n for n, doc in enumerate(docs) if doc["template"].startswith(f"{task}:") and is_public(SEED, n)
    )
    for api in ("chat", "completions"):
        [ours] = TWINS.build_prompts(spec(), starter().data, [at], api, SEED)
        [theirs] = build_for_lm_eval(own, registered.data, [rows[docs[at]["question"]]], api)
        if task == "starter_choice":
            assert ours.requests[0].get("prompt", "") == theirs.requests[0]["context"] or api == "chat"
            continue
        assert ours.requests == theirs.requests
        assert ours.target == theirs.target


def test_how_it_is_asked_can_be_set() -> None:
    told = TaskGeneration(max_tokens=900, temperature=0.5, system="Be brief.", think_end_token="</t>")
    asked = spec(generation=told)
    assert TWINS.register(asked).task_hash != starter().task_hash
    [prompt] = TWINS.build_prompts(asked, starter().data, [3], "chat", SEED)
    request = prompt.requests[0]
    assert request["messages"][0]["content"].startswith("Be brief.\n\n")
    assert (request["generation"]["max_gen_toks"], request["generation"]["temperature"]) == (900, 0.5)
    assert request["think_end_token"] == "</t>"


def test_an_epoch_asks_the_same_in_another_process_and_another_epoch_asks_other_twins() -> None:
    code = (
        "import json\n"
        "from testbench_dagster.core.task import TaskSpec\n"
        "from testbench_dagster.tasks.twins.adapter import Twins\n"
        "twins, name = Twins(), 'twins_starter'\n"
        "spec = TaskSpec(name, name, name, *[None] * 5, {}, None, framework='twins')\n"
        "data = twins.register(spec).data\n"
        "built = twins.build_prompts(spec, data, range(0, 2000, 9), 'chat', 'an epoch')\n"
        "print(json.dumps([[p.doc_id, p.requests, p.target] for p in built]))\n"
    )
    env = {**os.environ, "PYTHONHASHSEED": "5"}
    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    data = starter().data
    built = TWINS.build_prompts(spec(), data, range(0, 2000, 9), "chat", SEED)
    assert json.loads(shown.stdout) == [[p.doc_id, p.requests, p.target] for p in built]
    other = TWINS.build_prompts(spec(), data, range(0, 2000, 9), "chat", "another epoch")
    differ = sum(one.requests != two.requests for one, two in zip(built, other, strict=True))
    assert differ > 0.7 * len(built)


def test_answers_are_scored_by_the_target_of_their_prompt() -> None:
    data = starter().data
    prompts = TWINS.build_prompts(spec(), data, range(200), "chat", SEED)
    for text, value in ((lambda p: f"It is {p.target}", 1.0), (lambda p: "xyzzy", 0.0)):
        answers = [Answered(p.doc_id, p.requests, [[text(p)]], p.target) for p in prompts]
        assert {one.metrics[FLEXIBLE][EXACT] for one in TWINS.score(spec(), data, answers)} == {value}


def test_starter_questions_want_no_data() -> None:
    with pytest.raises(TaskInputError, match="data: means nothing to 'twins_starter'"):
        TWINS.register(spec(data={"test": "/nowhere.jsonl"}))


# -------------------------------------------------------------------------------------------------- GSM8K


@cache
def of_gsm8k() -> tuple[TaskSpec, Registered]:
    path = SHARED / "data" / "gsm8k" / "test.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent (set TESTBENCH_SHARED)")
    asked = spec(GSM8K, data={"test": str(path)})
    return asked, TWINS.register(asked)


@pytest.mark.slow
def test_gsm8k_has_a_pair_for_each_template() -> None:
    _, registered = of_gsm8k()
    docs = docs_of(registered)
    assert {doc["id"] for doc in docs} == gsm8k_template_ids() and len(docs) == 2 * len(gsm8k_template_ids())
    assert len(docs) >= 400


@pytest.mark.slow
def test_gsm8k_is_asked_as_the_ordinary_task_asks_it_without_examples() -> None:
    asked, registered = of_gsm8k()
    docs = docs_of(registered)
    own = spec("gsm8k", name="gsm8k", framework="lm_eval", num_fewshot=0, data=asked.data)
    theirs = register_for_lm_eval(own)
    rows = {json.loads(text)["question"]: doc for doc, text in theirs.data.docs.items()}
    chosen = range(40)
    for api in ("chat", "completions"):
        ours = {p.doc_id: p for p in TWINS.build_prompts(asked, registered.data, chosen, api, SEED)}
        for doc in chosen:
            [public] = build_for_lm_eval(own, theirs.data, [rows[docs[doc]["question"]]], api)
            same = ours[doc].requests == public.requests
            assert same is is_public(SEED, doc)
            without = json.dumps(public.requests).replace(json.dumps(docs[doc]["question"])[1:-1], "?")
            fresh = json.dumps(ours[doc].requests)
            head, tail = without.split("?", 1) if same is False else ("", "")
            assert fresh.startswith(head) and fresh.endswith(tail), "the form is the same"


@pytest.mark.slow
def test_numbers_of_a_twin_of_gsm8k_are_as_long_as_those_of_its_question() -> None:
    asked, registered = of_gsm8k()
    prompts = TWINS.build_prompts(asked, registered.data, list(registered.data.docs), "chat", SEED)
    for one, two in zip(prompts[::2], prompts[1::2], strict=True):
        lengths = [[len(digits) for digits in _NUMBER.findall(text_of(p))] for p in (one, two)]
        assert lengths[0] == lengths[1], (text_of(one), text_of(two))


def test_questions_that_are_none_of_gsm8k_have_no_template(tmp_path: Any) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "How many are 2 and 2?", "answer": "2+2=4\n#### 4"}) + "\n")
    with pytest.raises(TaskInputError, match="none of its 1 question is one of the"):
        TWINS.register(spec(GSM8K, data={"test": str(path)}))


@pytest.mark.slow
def test_the_framework_keeps_the_rules() -> None:
    asked, _ = of_gsm8k()
    tasks: list[Any] = [STARTER, {"name": GSM8K, "data": dict(asked.data or {}), "cluster": "template"}]
    findings = list(check_framework("twins", tasks, most_docs=100))
    assert not [finding for finding in findings if finding.failed] and len(findings) == 13


def test_the_page_says_how_many_pairs_there_are() -> None:
    page = document("docs/twins.md")
    assert f"| `{STARTER}` | {len(packaged_items()):,} |" in page
    assert f"| `{GSM8K}` | {len(gsm8k_template_ids()):,} |" in page
