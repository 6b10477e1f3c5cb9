"""Requests, per-doc results and aggregates are those of ``lm_eval.simple_evaluate``: zero differences.

Sampled cases run by default; the complete data sets run under the ``slow`` marker.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from testbench_dagster.tasks.starter import CHOICE_TASK, TASKS
from testbench_dagster_tests.tasks import layouts
from testbench_dagster_tests.tasks.parity import Case, assert_parity

MMLU = ("abstract_algebra", "global_facts", "philosophy", "sociology")
BBH = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)


def _gsm8k_answers(doc: dict[str, Any]) -> list[str]:
    gold = doc["answer"].rpartition("#### ")[2]
    wrong = f"{len(doc['question'])}7"
    return [
        doc["answer"],
        f"So it costs ${gold}.\n#### {gold}.",
        f"First 12, then {gold}",
        f"The answer is {gold}",
        f"The answer is {wrong}. #### {wrong}",
        f"#### {gold} but no, {wrong}",
        "I do not know.",
        "",
    ]


def _cot_answers(doc: dict[str, Any]) -> list[str]:
    gold, wrong = doc["answer"].rpartition("#### ")[2], str(len(doc["question"]))
    often, seldom = (gold, wrong) if len(doc["question"]) % 2 else (wrong, gold)
    return [f"The answer is {often}."] * 3 + [f"The answer is {seldom}.", "Nobody knows."]


def _bbh_answers(doc: dict[str, Any]) -> list[str]:
    target = doc["target"]
    return [
        f"Let us see. So the answer is {target}.",
        f"So the answer is {target}.\nThe answer is (Z)",
        "So the answer is (Z).",
        target,
        "",
    ]


def _letter_answers(doc: dict[str, Any]) -> list[str]:
    gold = doc["answer"]
    return [f"The answer is ({gold}).", f"the answer is {gold}", "The answer is (J)", f"({gold})", "no idea"]


@lru_cache(maxsize=1)
def _gpt4() -> dict[int, str]:
    rows = layouts.shared_rows("ifeval/responses_gpt-4-20231107.jsonl.gz")
    return {row["key"]: row["response"] for row in rows}


def _ifeval_answers(doc: dict[str, Any]) -> list[str]:
    return [_gpt4()[doc["key"]]]


GSM8K = Case("gsm8k", layouts.gsm8k, _gsm8k_answers, ("gsm8k",), num_fewshot=5)
MMLU_CASE = Case(
    "mmlu",
    layouts.mmlu,
    folders=("mmlu/default",),
    files={
        "test": str(layouts.DATA / "mmlu/test.jsonl.gz"),
        "dev": str(layouts.DATA / "mmlu/dev.jsonl.gz"),
        "where": {"subject": "{dataset_name}"},
    },
    only=tuple(f"mmlu_{subject}" for subject in MMLU),
    num_fewshot=5,
    limit=25,
)
ARC = Case("arc_challenge", layouts.arc_challenge, folders=("arc",), num_fewshot=5)
HELLASWAG = Case("hellaswag", layouts.hellaswag, folders=("hellaswag",))
TRUTHFULQA = Case("truthfulqa_mc1", layouts.truthfulqa, folders=("truthfulqa",))
WINOGRANDE = Case("winogrande", layouts.winogrande, folders=("winogrande",))
MMLU_PRO = Case(
    "mmlu_pro",
    layouts.mmlu_pro,
    _letter_answers,
    ("mmlu_pro",),
    only=("mmlu_pro_biology", "mmlu_pro_law"),
)
BBH_CASE = Case(
    "bbh_cot_fewshot",
    layouts.bbh,
    _bbh_answers,
    ("bbh/cot_fewshot",),
    files={"test": str(layouts.DATA / "bbh/tasks/{dataset_name}.jsonl.gz")},
    dataset_names=BBH,
    limit=8,
)
IFEVAL = Case("ifeval", layouts.ifeval, _ifeval_answers, ("ifeval",), seed_by="key")

SHARED_CASES = {
    "gsm8k-5-shot": GSM8K,
    "gsm8k-5-shot-chat": replace(GSM8K, api="chat"),
    "gsm8k-0-shot-chat": replace(GSM8K, num_fewshot=0, api="chat"),
    "gsm8k_cot_self_consistency": replace(
        GSM8K, task="gsm8k_cot_self_consistency", candidates=_cot_answers, num_fewshot=None, limit=8
    ),
    "mmlu-5-shot": MMLU_CASE,
    "mmlu-0-shot": replace(MMLU_CASE, num_fewshot=0),
    "arc_challenge-5-shot": ARC,
    "arc_challenge-default-shots": replace(ARC, num_fewshot=None),
    "truthfulqa_mc1": TRUTHFULQA,
    "truthfulqa_mc2": replace(TRUTHFULQA, task="truthfulqa_mc2"),
    "winogrande-0-shot": WINOGRANDE,
    "winogrande-2-shot": replace(WINOGRANDE, num_fewshot=2),
    "mmlu_pro-own-shots": replace(MMLU_PRO, num_fewshot=3),
    "mmlu_pro-own-shots-chat": replace(MMLU_PRO, api="chat"),
    "mmlu_pro-0-shot": replace(MMLU_PRO, num_fewshot=0),
    "bbh_cot_fewshot": BBH_CASE,
    "bbh_cot_fewshot-chat": replace(
        BBH_CASE, only=("bbh_cot_fewshot_navigate", "bbh_cot_fewshot_snarks"), api="chat"
    ),
}
#: Those that take long and whose layouts and ways of asking the others have, too.
AT_LENGTH = {
    "gsm8k-5-shot-chat",
    "gsm8k_cot_self_consistency",
    "mmlu-5-shot",
    "arc_challenge-default-shots",
    "truthfulqa_mc1",
    "mmlu_pro-own-shots",
    "bbh_cot_fewshot",
}


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in AT_LENGTH)) for name in SHARED_CASES]
)
def test_public_data(name, tmp_path):
    assert_parity(SHARED_CASES[name], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("shared", "punkt")
def test_ifeval_with_real_answers(tmp_path):
    sides = assert_parity(IFEVAL, tmp_path)
    assert len(sides["ifeval"].results) == 40


@pytest.mark.parametrize("shots", [0, 3])
def test_hellaswag_layout(shots, tmp_path):
    # neither fewshot_split nor test_split is set there: lm-eval then keeps a doc out of its own shots
    assert_parity(replace(HELLASWAG, num_fewshot=shots), tmp_path)


@pytest.mark.parametrize("shots", [0, 4])
def test_cola_layout_has_a_corpus_metric(shots, tmp_path):
    case = Case("cola", layouts.cola, folders=("glue",), num_fewshot=shots, limit=None)
    sides = assert_parity(case, tmp_path)
    assert set(sides["cola"].aggregates) == {"mcc,none"}
    assert isinstance(sides["cola"].results[0]["none"]["mcc"], list), "pairs are kept raw, not averaged"


def _starter_answers(doc: dict[str, Any]) -> list[str]:
    wrong = doc["wrong"]
    return [doc["answer"], f"The answer is {doc['answer']}.", f"It is **{doc['answer']}**", *wrong[:2], ""]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_starter_catalogue(api, tmp_path):
    case = Case("starter_all", None, _starter_answers, ("starter",), api=api, limit=25)
    if api == "chat":  # lm-eval would put multiple choice through the chat template; the adapter never does
        case = replace(case, only=tuple(task for task in TASKS if task != CHOICE_TASK))
    sides = assert_parity(case, tmp_path)
    assert set(sides) == set(case.only or TASKS)


# --- tasks of our own: rarely used settings, always run -----------------------------------------------------

_WORDS = [
    *("red", "green", "blue", "seven", "eight", "nine", "cat", "dog"),
    *("house", "river", "runs", "sings"),
]


def _sentences(_: str | None) -> layouts.Splits:
    rows = []
    for number in range(60):
        picked = [_WORDS[(number * 7 + step * (number % 5 + 1)) % len(_WORDS)] for step in range(8)]
        rows.append(
            {
                "source": " ".join(reversed(picked)),
                "answer": " ".join(picked) + ".",
                "options": [" ".join(picked[:k]) for k in (2, 5)],
                "gold": number % 2,
                "accepted": [" ".join(picked), picked[0]],
                "lead": f"Note {number % 3}:",
            }
        )
    rows.append(dict(rows[3]))  # the same row twice
    return {"test": rows[20:], "train": rows[:20]}


def _sentence_answers(doc: dict[str, Any]) -> list[str]:
    words = doc["answer"].split()
    return [
        doc["answer"],
        " ".join(words[:5]),
        " ".join(words[::-1]),
        words[0],
        doc["accepted"][0],
        "none of it",
    ]


_BASE = """
task: {name}
dataset_path: tests/sentences
test_split: test
training_split: train
fewshot_split: {shots_from}
doc_to_text: "Reverse: {{{{source}}}}\\nResult:"
doc_to_target: "{{{{answer}}}}"
metadata: {{version: 1.5}}
"""


def _own(name: str, extra: str, shots_from: str = "train", **settings: Any) -> Case:
    text = _BASE.format(name=name, shots_from=shots_from)
    for key in re.findall(r"^(\w+):", extra, re.MULTILINE):
        text = re.sub(rf"^{key}:.*\n", "", text, flags=re.MULTILINE)
    yaml = {f"{name}.yaml": text + extra}
    return Case(name, _sentences, _sentence_answers, own_yaml=yaml, folders=("starter",), **settings)


_GENERATE = "output_type: generate_until\n"
_CHOICE = 'output_type: multiple_choice\ndoc_to_choice: "{{options}}"\ndoc_to_target: gold\n'
OWN_CASES = {
    "corpus-metrics": _own(
        "own_corpus",
        _GENERATE
        + "metric_list: [{metric: bleu}, {metric: chrf}, {metric: ter}, {metric: exact_match}]\n"
        + "generation_kwargs: {until: ['\\n'], max_gen_toks: 64, temperature: 0.5}\n",
        num_fewshot=3,
    ),
    "default-generation-settings": _own("own_defaults", _GENERATE, num_fewshot=2),
    "shots-from-the-test-split": _own("own_self", _GENERATE, shots_from="test", num_fewshot=4),
    "shots-from-the-test-split-first-n": _own(
        "own_self_first", _GENERATE + "fewshot_config: {sampler: first_n}\n", shots_from="test", num_fewshot=4
    ),
    "description-and-prefix": _own(
        "own_prefix",
        _GENERATE + 'description: "Note {{lead}}"\ngen_prefix: "{{lead}}"\nfewshot_delimiter: "\\n---\\n"\n',
        num_fewshot=2,
    ),
    "description-and-prefix-chat": _own(
        "own_prefix_chat",
        _GENERATE + 'description: "Note {{lead}}"\ngen_prefix: "The answer is"\n',
        num_fewshot=2,
        api="chat",
    ),
    "generation-block": _own(
        "own_generation",
        _GENERATE + "generation_kwargs: {until: ['\\n'], max_gen_toks: 64, do_sample: false, top_k: 3}\n",
        num_fewshot=2,
        generation={
            "max_tokens": 900,
            "temperature": 0.6,
            "top_p": 0.95,
            "stop": ["Note", "\n\n"],
            "system": "You are terse.",
        },
        gen_kwargs={"max_gen_toks": 900, "temperature": 0.6, "top_p": 0.95, "until": ["Note", "\n\n"]},
    ),
    "generation-block-chat": _own(
        "own_generation_chat",
        _GENERATE + 'description: "Note {{lead}}"\n',
        num_fewshot=2,
        api="chat",
        generation={"max_tokens": 32, "system": "You are terse."},
        gen_kwargs={"max_gen_toks": 32},
    ),
    "generation-block-of-choices": _own(
        "own_generation_choice",
        _CHOICE,
        num_fewshot=1,
        generation={"system": "Choose.", "max_tokens": 9, "think_end_token": "</think>"},
        gen_kwargs={"max_gen_toks": 9},
    ),
    "several-targets": _own("own_targets", _GENERATE + "doc_to_target: accepted\n", num_fewshot=1),
    "choice-metrics": _own(
        "own_choice",
        _CHOICE
        + "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: f1}, "
        + "{metric: mcc}, {metric: brier_score}, "
        + "{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
        num_fewshot=2,
    ),
    "choice-default-metrics": _own("own_choice_default", _CHOICE),
    "choice-mutual-information": _own(
        "own_mutual", _CHOICE + "metric_list: [{metric: acc}, {metric: acc_mutual_info}]\n"
    ),
    "loglikelihood-default-metrics": _own("own_likelihood", "output_type: loglikelihood\n", num_fewshot=1),
    "rolling-default-metrics": _own("own_rolling", "output_type: loglikelihood_rolling\n"),
    "repeats": _own(
        "own_repeats",
        _GENERATE
        + "repeats: 5\nfilter_list:\n"
        + "  - {name: first, filter: [{function: take_first}]}\n"
        + "  - name: vote\n"
        + "    filter: [{function: lowercase}, {function: majority_vote}, {function: take_first}]\n",
    ),
}


@pytest.mark.parametrize("name", OWN_CASES)
def test_own_yaml(name, tmp_path):
    assert_parity(OWN_CASES[name], tmp_path)


def test_a_metric_that_expands_to_several_keeps_its_aggregation(tmp_path):
    case = _own(
        "own_expanded",
        _GENERATE + "metric_list: [{metric: !function helper.sizes, aggregation: !function helper.largest, "
        "higher_is_better: true}]\n",
    )
    helper = (
        "def sizes(references, predictions, **_):\n"
        "    return {'words': len(predictions[0].split()), 'signs': len(predictions[0])}\n\n"
        "def largest(items):\n    return float(max(items)) + 0.5\n"
    )
    case = replace(case, own_yaml={**case.own_yaml, "helper.py": helper})
    sides = assert_parity(case, tmp_path)
    assert set(sides["own_expanded"].aggregates) == {"words,none", "signs,none"}


def test_the_official_way_to_local_files_without_a_data_block(tmp_path):
    # dataset_path: json needs no hub: both sides let lm-eval load the files itself
    import json

    for split, rows in _sentences(None).items():
        (tmp_path / f"{split}.json").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    files = f"{{train: {tmp_path}/train.json, test: {tmp_path}/test.json}}"
    case = _own(
        "own_json",
        _GENERATE + f"dataset_path: json\ndataset_kwargs: {{data_files: {files}}}\n",
        num_fewshot=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
        assert_parity(replace(case, rows=None), tmp_path)


# --- complete data sets -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_all_of_gsm8k(tmp_path):
    """As completions: as conversations all docs are asked and judged in acceptance/test_real_answers.py."""
    sides = assert_parity(replace(GSM8K, limit=None, folders=()), tmp_path)
    assert len(sides["gsm8k"].results) == 1319


@pytest.mark.slow(minutes=1)
@pytest.mark.usefixtures("shared")
def test_all_of_mmlu(tmp_path):
    sides = assert_parity(replace(MMLU_CASE, only=None, limit=None, folders=()), tmp_path)
    assert len(sides) == 57 and sum(len(side.results) for side in sides.values()) == 14_042


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_all_of_bbh(tmp_path):
    sides = assert_parity(replace(BBH_CASE, limit=None), tmp_path)
    assert sum(len(side.results) for side in sides.values()) == 6511


@pytest.mark.slow
@pytest.mark.usefixtures("shared", "punkt")
def test_all_of_ifeval(tmp_path):
    sides = assert_parity(replace(IFEVAL, limit=None), tmp_path)
    strict = [r["none"]["prompt_level_strict_acc"] for r in sides["ifeval"].results.values()]
    # the published verdicts, ±0.8 points: lm-eval's checker draws at random
    assert len(strict) == 540 and sum(strict) / 540 == pytest.approx(0.7722, abs=0.008)
