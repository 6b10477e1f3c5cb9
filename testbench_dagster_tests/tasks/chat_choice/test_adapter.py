"""Stock tasks of lm-eval as choices on chat: registered, asked, scored."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from math import sqrt

import pytest

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.prompt import Answered, TaskData
from testbench_dagster.core.task import TaskGeneration
from testbench_dagster.tasks.chat_choice.adapter import ChatChoice
from testbench_dagster.tasks.chat_choice.scoring import ANSWERED, FLEXIBLE, METRIC, STRICT
from testbench_dagster.tasks.lm_eval_adapter import build_prompts as build_for_lm_eval
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.tasks.chat_choice.stock import STOCK, stock
from testbench_dagster_tests.tasks.quiz import YAML, quiz

CHOICE = ChatChoice()
QUIZ = (
    YAML.replace("generate_until", "multiple_choice").replace("exact_match", "acc")
    + "doc_to_choice: ['0', '1', '2', '3', '4', '5', '6', '7']\n"
)


def answered(prompt, text: str) -> Answered:
    return Answered(prompt.doc_id, prompt.requests, [[text]], prompt.target)


def values(spec, data, prompts, text, metric=METRIC, filter_=FLEXIBLE) -> list[float]:
    """Metric of the answers that ``text`` makes of each prompt."""
    found = CHOICE.score(spec, data, [answered(prompt, text(prompt)) for prompt in prompts])
    return [score.metrics[filter_][metric] for score in found]


# --- what is measured ------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", STOCK)
def test_who_knows_scores_one_and_who_says_a_scores_by_chance(task, tmp_path):
    spec = stock(tmp_path, task)
    data = CHOICE.register(spec).data
    prompts = CHOICE.build_prompts(spec, data, list(data.docs), "chat", "an epoch")
    n, options = len(prompts), STOCK[task][2]
    assert n == len(data.docs) == 240
    assert all(len(prompt.requests[0]["options"]) == options for prompt in prompts)
    for filter_ in (FLEXIBLE, STRICT):
        assert set(values(spec, data, prompts, lambda p: f"ANSWER: {p.target}", filter_=filter_)) == {1.0}
    chance = 1 / options
    always_a = values(spec, data, prompts, lambda p: "ANSWER: A")
    assert abs(sum(always_a) / n - chance) <= 3 * sqrt(chance * (1 - chance) / n)
    assert set(values(spec, data, prompts, lambda p: "I cannot say.", ANSWERED)) == {0.0}
    assert set(values(spec, data, prompts, lambda p: "")) == {0.0}


def test_the_forms_of_templates_are_five_and_more():
    assert len(STOCK) >= 10 and len({form for _, _, _, form in STOCK.values()}) >= 5


@pytest.mark.parametrize("task", ["mmlu_abstract_algebra", "winogrande", "blimp_adjunct_island"])
def test_the_letter_stands_for_the_same_option_as_in_the_data(task, tmp_path):
    spec = stock(tmp_path, task, n=20)
    data = CHOICE.register(spec).data
    for prompt in CHOICE.build_prompts(spec, data, range(20), "chat", "an epoch"):
        shown = prompt.requests[0]["options"]["ABCD".index(prompt.target)]
        row = json.loads(data.docs[prompt.doc_id])
        right = {
            "mmlu_abstract_algebra": lambda row: row["choices"][0],
            "winogrande": lambda row: row["sentence"].replace("_", row["option1"]),
            "blimp_adjunct_island": lambda row: row["sentence_good"],
        }[task](row)
        assert shown == right
        assert f"{prompt.target}) {right}" in prompt.requests[0]["messages"][-1]["content"]


def test_no_letter_is_a_zero_and_two_are_none(tmp_path):
    spec = stock(tmp_path, "arc_easy", n=4)
    data = CHOICE.register(spec).data
    (prompt, *_) = CHOICE.build_prompts(spec, data, [0], "chat", "s")
    texts = [
        f"ANSWER: {prompt.target}",
        f"It is {prompt.target}",
        "ANSWER: A or B",
        "",
        "<think>ANSWER: A",
        None,
    ]
    scores = list(CHOICE.score(spec, data, [answered(prompt, text) for text in texts]))
    assert [s.metrics[FLEXIBLE] for s in scores] == [
        {METRIC: right, ANSWERED: right} for right in (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    ]
    assert [s.metrics[STRICT][METRIC] for s in scores] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    option = prompt.requests[0]["options"]["ABCDEFGHIJ".index(prompt.target)]
    assert [s.extracted[FLEXIBLE] for s in scores] == [option, option, "", "", "", ""]
    assert all(s.error is None for s in scores)


def test_any_of_several_right_options_counts(tmp_path):
    rows = [{"question": f"row {n}", "answer": "x", "right": [1, 4]} for n in range(8)]
    yaml = QUIZ.replace('"{{answer}}"', "right")
    spec = quiz(tmp_path, yaml, test=rows, train=rows, num_fewshot=0)
    data = CHOICE.register(spec).data
    prompts = CHOICE.build_prompts(spec, data, range(8), "chat", "s")
    assert all(len(prompt.target) == 2 for prompt in prompts)
    for which in (0, 1):
        assert set(values(spec, data, prompts, lambda p, which=which: f"ANSWER: {p.target[which]}")) == {1.0}
    wrong = values(spec, data, prompts, lambda p: "ANSWER: " + min(set("ABCDEFGH") - set(p.target)))
    assert set(wrong) == {0.0}


# --- prompts ---------------------------------------------------------------------------------------------


def test_examples_are_turns_that_end_in_the_form(tmp_path):
    spec = stock(tmp_path, "mmlu_abstract_algebra", n=6, num_fewshot=3)
    data = CHOICE.register(spec).data
    (prompt,) = CHOICE.build_prompts(spec, data, [2], "chat", "s")
    (request,) = prompt.requests
    turns = request["messages"]
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
    assert "abstract algebra" in turns[0]["content"]
    rows = [json.loads(text) for text in data.fewshot]
    for user, assistant, row in zip(turns[1:-1:2], turns[2:-1:2], rows, strict=False):
        letter = assistant["content"].removeprefix("ANSWER: ")
        assert f"{letter}) {row['choices'][0]}" in user["content"]
    assert request["generation"] == {"until": [], "max_gen_toks": 2048, "temperature": 0}
    assert prompt.relayable and prompt.context_chars == sum(len(turn["content"]) for turn in turns)
    _, payload = build_payload(request, "chat", "m")
    assert payload["messages"] == turns and payload["max_tokens"] == 2048
    assert "options" not in payload, "what letters stand for is ours, suppliers are not told"


def test_examples_are_those_that_lm_eval_draws(tmp_path):
    spec = stock(tmp_path, "arc_easy", n=12, num_fewshot=2)
    data = CHOICE.register(spec).data
    ours = CHOICE.build_prompts(spec, data, range(12), "chat", "s")
    theirs = build_for_lm_eval(spec, data, range(12), "completions")
    seen = set()
    for mine, its in zip(ours, theirs, strict=True):
        context = its.requests[0]["context"]
        questions = [t["content"] for t in mine.requests[0]["messages"] if t["role"] == "user"]
        asked = [text.split("Question: ")[1].split("\n")[0] for text in questions]
        places = [context.index(f"Question: {text}") for text in asked]
        assert places == sorted(places) and len(set(asked)) == 3
        seen.add(tuple(asked[:2]))
    assert len(seen) > 3, "each doc has examples of its own"


def test_a_prompt_depends_on_no_other_doc_that_is_asked(tmp_path):
    spec = stock(tmp_path, "arc_easy", n=30, num_fewshot=2)
    data = CHOICE.register(spec).data
    all_of_them = {p.doc_id: p for p in CHOICE.build_prompts(spec, data, range(30), "chat", "s")}
    for some in ([3], [29, 3, 11], range(0, 30, 7)):
        for prompt in CHOICE.build_prompts(spec, data, some, "chat", "s"):
            assert prompt == all_of_them[prompt.doc_id]


def test_another_epoch_shows_the_same_question_in_another_order(tmp_path):
    spec = stock(tmp_path, "arc_easy", n=40)
    data = CHOICE.register(spec).data
    one, two = (CHOICE.build_prompts(spec, data, range(40), "chat", seed) for seed in ("first", "second"))
    moved = 0
    for a, b in zip(one, two, strict=True):
        assert sorted(a.requests[0]["options"]) == sorted(b.requests[0]["options"])
        moved += a.target != b.target
    assert 20 <= moved <= 38


def test_generation_is_as_configured(tmp_path):
    spec = stock(tmp_path, "arc_easy", n=4)
    other = replace(
        spec,
        generation=TaskGeneration(max_tokens=16, temperature=0.5, system="Be brief.", think_end_token="X"),
    )
    first, second = CHOICE.register(spec), CHOICE.register(other)
    assert first.task_hash != second.task_hash and first.config_hash != second.config_hash
    (prompt, *_) = CHOICE.build_prompts(other, second.data, [0], "chat", "s")
    (request,) = prompt.requests
    assert request["generation"] == {"until": [], "max_gen_toks": 16, "temperature": 0.5}
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["think_end_token"] == "X"


@pytest.mark.slow
def test_prompts_are_the_same_in_another_process(tmp_path):
    spec = stock(tmp_path, "sciq", n=25, num_fewshot=2)
    code = inspect.cleandoc(f"""
        from testbench_dagster.core.applicability import Applicability
        from testbench_dagster.core.ids import content_hash
        from testbench_dagster.core.rules import PlanningRule
        from testbench_dagster.core.task import TaskGeneration, TaskSpec
        from testbench_dagster.tasks.chat_choice.adapter import ChatChoice
        spec, choice = {spec!r}, ChatChoice()
        found = choice.register(spec)
        built = choice.build_prompts(spec, found.data, range(25), "chat", "s")
        print(found.task_hash, content_hash([[p.requests, p.target] for p in built]))
    """)
    said = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        said.add(done.stdout.strip().splitlines()[-1])
    assert len(said) == 1


# --- registering -----------------------------------------------------------------------------------------


def test_flags_say_how_it_is_asked_and_scored(tmp_path):
    found = CHOICE.register(stock(tmp_path, "arc_easy", n=5))
    flags = found.data.flags.to_document()
    assert flags["output_type"] == "generate_until" and flags["forms"] == ["chat"]
    assert list(found.data.flags.metrics) == [METRIC, ANSWERED]
    assert flags["metrics"][METRIC] == {"aggregation": "mean", "higher_is_better": True, "binary": True}
    assert flags["filters"] == [FLEXIBLE, STRICT]
    assert "questions_of_epoch" not in flags, "shuffled options stay the same question"
    assert (found.eval_split, len(found.doc_hashes)) == ("test", 5)


def test_docs_that_cannot_be_asked_are_left_out(tmp_path):
    rows = [{"question": f"what is {n}?", "answer": str(n)} for n in (0, 3, 9, 5)]  # there is no option 9
    found = CHOICE.register(quiz(tmp_path, QUIZ, test=rows, num_fewshot=0))
    assert [json.loads(text)["answer"] for text in found.data.docs.values()] == ["0", "3", "5"]
    assert list(found.data.docs) == [0, 1, 2] and len(found.doc_hashes) == 3
    assert found.data.flags.doc_notes == {"left out: none of its options is the right one": 1}


def test_docs_that_are_shown_in_their_own_order_are_counted(tmp_path):
    rows = [{"question": f"which of 0 and {n}?", "answer": "0"} for n in range(3)]
    yaml = QUIZ.replace("['0', '1',", "['0', 'all of the above',")
    flags = CHOICE.register(quiz(tmp_path / "a", yaml, test=rows, num_fewshot=0)).data.flags
    assert flags.doc_notes == {"in its own order: an option speaks of others": 3}
    letters = QUIZ.partition("doc_to_choice")[0] + "doc_to_choice: ['A', 'B']\n"
    inline = [{"question": f"which is {n}? A: {n} B: {n + 1}", "answer": "A"} for n in range(3)]
    flags = CHOICE.register(quiz(tmp_path / "b", letters, test=inline, num_fewshot=0)).data.flags
    assert flags.doc_notes == {"asked as its text stands: the options it shows cannot be cut": 3}
    assert CHOICE.register(quiz(tmp_path / "c", QUIZ, num_fewshot=0)).data.flags.doc_notes is None


def test_hashes_tell_this_from_log_likelihoods_and_can_be_recomputed(tmp_path):
    from testbench_dagster.tasks.lm_eval_adapter import register

    spec = stock(tmp_path, "arc_easy", n=5)
    found = CHOICE.register(spec)
    assert found.task_hash != register(spec).task_hash
    some = TaskData({0: found.data.docs[0]}, [], found.data.flags)
    assert CHOICE.identify(spec, some, found.fingerprint) == (found.task_hash, found.config_hash)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        (QUIZ.replace("acc}", "mcc}"), "its metric is not accuracy (mcc)"),
        (YAML, "its output_type is generate_until, not multiple_choice"),
        (QUIZ + "process_results: !function helper.half\n", "its own process_results gives no accuracy"),
        (
            QUIZ.replace("'1', '2'", "'1', '1'"),
            "of none of its 8 docs can be made a question: two of its options",
        ),
    ],
)
def test_a_task_that_is_no_choice_is_refused_with_the_reason_and_what_else(yaml, said, tmp_path):
    helper = "def process(docs):\n    return docs\ndef half(doc, results):\n    return {'acc': 0.5}\n"
    spec = quiz(tmp_path, yaml, helper, num_fewshot=0)
    with pytest.raises(TaskInputError) as caught:
        CHOICE.register(spec)
    assert "task 'quiz' cannot be asked as a choice on chat: " in str(caught.value)
    assert said in str(caught.value) and "leave `mode: chat_choice` out" in str(caught.value)


def test_a_process_results_of_its_own_that_counts_right_options_is_accuracy(tmp_path):
    helper = (
        "def process(docs):\n    return docs\n"
        "def best(doc, results):\n"
        "    told = [logprob for logprob, _ in results]\n"
        "    return {'acc': float(told.index(max(told)) == int(doc['answer']))}\n"
    )
    spec = quiz(tmp_path, QUIZ + "process_results: !function helper.best\n", helper, num_fewshot=0)
    assert len(CHOICE.register(spec).data.docs) == 8


@pytest.mark.parametrize(("field", "said"), [({"metric": "acc"}, METRIC), ({"filter": "none"}, FLEXIBLE)])
def test_a_metric_or_filter_of_lm_eval_is_not_there(field, said, tmp_path):
    with pytest.raises(TaskError, match=rf"has no (metric|filter) .*as a choice on chat; it has {said}"):
        CHOICE.register(stock(tmp_path, "arc_easy", n=4, **field))
