"""Scoring beyond parity: hostile answers, partial data, checkers that draw, values that JSON lacks."""

from __future__ import annotations

import math
import random
import sys

import pytest

from testbench_dagster.core.prompt import Answered, TaskData
from testbench_dagster.tasks.lm_eval_adapter import aggregate, build_prompts, register, score, seed_checkers
from testbench_dagster_tests.tasks.layouts import shared_rows
from testbench_dagster_tests.tasks.quiz import HELPER, YAML, quiz, spec_of

CHECKER = (
    HELPER
    + """
def check(doc, results):
    if "boom" in results[0]:
        raise ValueError("the checker cannot digest this")
    return {"right": float(results[0] == doc["answer"])}
"""
)
CHECKED = YAML.replace("metric: exact_match", "metric: right, aggregation: mean, higher_is_better: true") + (
    "process_results: !function helper.check\n"
)


def answered(spec, data, texts):
    prompts = build_prompts(spec, data, sorted(texts), "completions")
    by_id = {p.doc_id: p for p in prompts}
    return [Answered(i, by_id[i].requests, [[text]]) for i, text in texts.items()]


@pytest.fixture
def checked(tmp_path):
    spec = quiz(tmp_path, CHECKED, CHECKER)
    return spec, register(spec).data


@pytest.mark.parametrize("hostile", [[3], [0], [7], [0, 1, 6], list(range(8))])
def test_a_hostile_answer_sinks_nothing_but_itself(hostile, checked):
    spec, data = checked
    texts = {i: "boom" if i in hostile else str(i if i % 2 else -1) for i in (5, 2, 7, 0, 1, 6, 3, 4)}
    scored = score(spec, data, answered(spec, data, texts))
    assert [s.doc_id for s in scored] == list(texts)
    for result in scored:
        if result.doc_id in hostile:
            assert result.error == "ValueError: the checker cannot digest this" and result.metrics == {}
        else:
            assert result.error is None
            assert result.metrics == {"none": {"right": float(result.doc_id % 2)}}


@pytest.mark.parametrize(
    "responses",
    [[], [["1"], ["1"]], [[]]],
    ids=["no response", "a response too many", "no repeat"],
)
def test_answers_of_a_wrong_shape_are_errors_of_their_own(responses, checked):
    spec, data = checked
    good, bad = answered(spec, data, {0: "0", 1: "1"})
    scored = score(spec, data, [good, Answered(1, bad.requests, responses)])
    assert scored[0].metrics == {"none": {"right": 1.0}} and scored[1].error


def test_hostile_texts_are_scored_as_text(tmp_path):
    spec = quiz(tmp_path)
    data = register(spec).data
    texts = {0: "\ud800 lone", 1: "\x00" * 5, 2: "{{ 7 * 7 }}", 3: "9" * 200_000, 4: "", 5: "5"}
    scored = score(spec, data, answered(spec, data, texts))
    assert {s.doc_id: s.metrics["none"]["exact_match"] for s in scored} == {
        **dict.fromkeys(range(5), 0.0),
        5: 1.0,
    }


def test_nothing_to_score(checked):
    spec, data = checked
    assert score(spec, data, []) == []


def test_a_doc_that_is_not_there_is_never_another_one(checked):
    # lm-eval looks at doc 0 while it builds a task; that must not become doc 0's score
    spec, data = checked
    answers = answered(spec, data, {0: "0", 4: "4"})
    part = TaskData({4: data.docs[4]}, [], data.flags)
    scored = score(spec, part, answers)
    assert scored[0].error is not None and scored[0].metrics == {}
    assert scored[1].metrics == {"none": {"right": 1.0}}


def test_the_flags_of_the_whole_split_hold_for_a_part(tmp_path):
    # doc 0 has several targets and decides how all are compared; doc 1 alone would decide otherwise
    rows = [{"question": "q0", "answer": "['a', 'b']"}, {"question": "q1", "answer": "c"}]
    spec = quiz(tmp_path, test=rows, num_fewshot=0)
    data = register(spec).data
    assert data.flags.multiple_target == 2
    answers = answered(spec, data, {0: "b", 1: "c"})
    whole = score(spec, data, answers)
    part = score(spec, TaskData({1: data.docs[1]}, [], data.flags), answers[1:])
    assert part == whole[1:] and part[0].metrics == {"none": {"exact_match": 1.0}}


def test_each_doc_is_scored_from_a_fresh_copy(tmp_path):
    helper = (
        HELPER
        + "def check(doc, results):\n"
        + "    doc['seen'] = doc.get('seen', 0) + 1\n"
        + "    return {'right': doc['seen']}\n"
    )
    filters = "filter_list:\n" + "".join(
        f"  - {{name: {name}, filter: [{{function: take_first}}]}}\n" for name in ("one", "two")
    )
    spec = quiz(tmp_path, CHECKED + filters, helper)
    data = register(spec).data
    (result,) = score(spec, data, answered(spec, data, {2: "x"}))
    assert result.metrics == {"one": {"right": 1}, "two": {"right": 1}}


def test_a_checker_that_draws_gives_a_doc_one_verdict(tmp_path):
    helper = HELPER + "import random\ndef check(doc, results):\n    return {'right': random.random()}\n"
    spec = quiz(tmp_path, CHECKED, helper)
    data = register(spec).data
    answers = answered(spec, data, dict.fromkeys(range(8), "x"))
    first = {s.doc_id: s.metrics["none"]["right"] for s in score(spec, data, answers)}
    random.shuffle(answers)
    second = {s.doc_id: s.metrics["none"]["right"] for s in score(spec, data, answers)}
    alone = {a.doc_id: score(spec, data, [a])[0].metrics["none"]["right"] for a in answers}
    assert first == second == alone and len(set(first.values())) == 8


def test_seeding_covers_the_language_detector():
    import langdetect
    from langdetect.detector_factory import DetectorFactory

    DetectorFactory.seed = None
    seed_checkers(3)
    assert DetectorFactory.seed == 0 and "langdetect.detector_factory" in sys.modules
    ambiguous = "no se ne va do re mi"
    assert len({langdetect.detect(ambiguous) for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.1, 0.2, 0.3], sum([0.1, 0.2, 0.3]) / 3), ([1.0], 1.0), ([True, False], 0.5)],
)
def test_means_are_plain_sums_in_order(values, expected, tmp_path):
    spec = quiz(tmp_path)
    assert aggregate(spec, register(spec).data.flags, "exact_match", values) == expected


def test_an_aggregate_that_is_no_number_is_none(tmp_path):
    spec = quiz(tmp_path, YAML.replace("metric: exact_match", "metric: exact_match, aggregation: nanmean"))
    flags = register(spec).data.flags
    assert flags.metrics["exact_match"].aggregation == "nanmean"
    assert aggregate(spec, flags, "exact_match", [float("nan")] * 2) is None
    assert aggregate(spec, flags, "exact_match", [float("nan"), 1.0]) == 1.0


def test_prompts_need_ids_that_exist(checked):
    spec, data = checked
    with pytest.raises(IndexError):
        build_prompts(spec, data, [8], "completions")
    assert build_prompts(spec, data, [], "completions") == []
    assert len(build_prompts(spec, data, [2, 2, 2], "chat")) == 1


def test_what_http_cannot_ask_is_marked(tmp_path):
    rolling = quiz(
        tmp_path,
        YAML.replace("generate_until", "loglikelihood_rolling").replace("[{metric: exact_match}]", "null"),
    )
    data = register(rolling).data
    (prompt,) = build_prompts(rolling, data, [3], "completions")
    assert prompt.relayable and prompt.context_chars == len("3")
    assert prompt.requests == [{"type": "loglikelihood", "idx": 0, "context": "", "continuation": "3"}]
    choice = spec_of("starter_choice")
    (prompt,) = build_prompts(choice, register(choice).data, [0], "completions")
    assert prompt.relayable and prompt.context_chars == max(
        len(r["context"] + r["continuation"]) for r in prompt.requests
    )


# ------------------------------------------------------------------------------------- what was extracted

STRICT = (
    "filter_list:\n"
    '  - {name: strict, filter: [{function: regex, regex_pattern: "= (\\\\d+)"}, {function: take_first}]}\n'
)
CHOICE = YAML.replace("generate_until", "multiple_choice").replace("exact_match", "acc") + (
    'doc_to_choice: ["a", "b", "c"]\n'
)
CHOICE = CHOICE.replace('doc_to_target: "{{answer}}"', "doc_to_target: 1")


def extracted(spec, data, responses):
    """By filter what was extracted of one answer to doc 0."""
    (prompt,) = build_prompts(spec, data, [0], "completions")
    (scored,) = score(spec, data, [Answered(0, prompt.requests, responses)])
    assert scored.error is None
    return scored.extracted


def test_what_the_metrics_saw_is_kept_per_filter(tmp_path):
    spec = quiz(tmp_path, YAML + STRICT)
    data = register(spec).data
    assert extracted(spec, data, [["it is = 0, = 7"]]) == {"strict": "0"}
    assert extracted(spec, data, [["none at all"]]) == {"strict": "[invalid]"}


def test_without_a_filter_the_whole_answer_is_kept_and_bounded(tmp_path):
    spec = quiz(tmp_path)
    data = register(spec).data
    assert extracted(spec, data, [[" 0\n"]]) == {"none": " 0\n"}
    (long,) = extracted(spec, data, [["9" * 200_000]]).values()
    assert long.startswith("9" * 1_000 + "…sha256:") and len(long) < 1_100


def test_several_samples_of_an_answer_are_kept_as_a_list(tmp_path):
    filters = "repeats: 2\nfilter_list:\n  - {name: both, filter: [{function: take_first_k, k: 2}]}\n"
    spec = quiz(tmp_path, CHECKED.replace("num_fewshot: 2", "num_fewshot: 0") + filters, CHECKER)
    data = register(spec).data
    assert extracted(spec, data, [["0", "é"]]) == {"both": '["0", "é"]'}


def test_what_cannot_be_shown_costs_no_score(tmp_path):
    """A filter may make anything of an answer, such as a set."""
    helper = CHECKER.replace('results[0] == doc["answer"]', '"0" in results[0]')
    helper += "def letters(resps, docs):\n    return [set(r[0]) for r in resps]\n"
    filters = (
        "filter_list:\n  - {name: f, filter: [{function: custom, filter_fn: !function helper.letters}]}\n"
    )
    spec = quiz(tmp_path, CHECKED + filters, helper)
    data = register(spec).data
    (prompt,) = build_prompts(spec, data, [0], "completions")
    (scored,) = score(spec, data, [Answered(0, prompt.requests, [["0"]])])
    assert (scored.extracted, scored.metrics, scored.error) == ({}, {"f": {"right": 1.0}}, None)


@pytest.mark.parametrize(
    ("logprobs", "chosen", "acc"),
    [((-3.0, -1.0, -2.0), "1", 1.0), ((-1.0, -1.0, -2.0), "0", 0.0), ((-3.0, -2.0, -0.5), "2", 0.0)],
    ids=["right", "of equal ones the first", "wrong"],
)
def test_of_a_choice_it_is_the_option_that_acc_takes(logprobs, chosen, acc, tmp_path):
    spec = quiz(tmp_path, CHOICE)
    data = register(spec).data
    (prompt,) = build_prompts(spec, data, [0], "completions")
    (scored,) = score(spec, data, [Answered(0, prompt.requests, [[(p, False)] for p in logprobs])])
    assert (scored.extracted, scored.metrics["none"]["acc"]) == ({"none": chosen}, acc)


def test_options_without_context_are_not_chosen_from(tmp_path):
    spec = quiz(tmp_path, CHOICE.replace("{metric: acc}", "{metric: acc}, {metric: acc_mutual_info}"))
    data = register(spec).data
    logprobs = (-3.0, -1.0, -2.0, -0.1, -0.1, -0.1)
    assert extracted(spec, data, [[(p, False)] for p in logprobs]) == {"none": "1"}


def test_of_a_log_likelihood_nothing_is_extracted(tmp_path):
    spec = quiz(tmp_path, YAML.replace("generate_until", "loglikelihood").replace("exact_match", "acc"))
    data = register(spec).data
    assert extracted(spec, data, [[(-1.0, True)]]) == {}


CHOICE = """task: quiz
dataset_path: tests/quiz
test_split: test
training_split: train
output_type: multiple_choice
doc_to_text: "Q: {{question}}"
doc_to_target: 1
doc_to_choice: ["a", "bbbb", "c"]
num_fewshot: 0
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: exact_match}, {metric: brier_score}]
"""
GREEDY = """task: quiz
dataset_path: tests/quiz
test_split: test
training_split: train
output_type: loglikelihood
doc_to_text: "Q: {{question}}"
doc_to_target: "{{answer}}"
num_fewshot: 0
metric_list: [{metric: acc}, {metric: perplexity}]
"""
IMPOSSIBLE = (float("-inf"), False)


def scored(tmp_path, yaml, responses):
    """The metrics of one doc with these responses."""
    spec = quiz(tmp_path, yaml)
    data = register(spec).data
    (prompt,) = build_prompts(spec, data, [0], "completions")
    (result,) = score(spec, data, [Answered(0, prompt.requests, [[one] for one in responses])])
    assert result.error is None
    return result.metrics["none"], result.extracted


@pytest.mark.parametrize(
    ("responses", "acc", "acc_norm"),
    [
        ([IMPOSSIBLE, (-3.0, False), IMPOSSIBLE], 1.0, 1.0),
        ([IMPOSSIBLE, (-9999.0, False), (-2.0, False)], 0.0, 0.0),
        ([(-5.0, False), IMPOSSIBLE, (-7.0, False)], 0.0, 0.0),
        ([(-2.0, False), (-3.0, False), IMPOSSIBLE], 0.0, 1.0),
    ],
)
def test_what_is_impossible_compares_as_such(tmp_path, responses, acc, acc_norm):
    metrics, extracted = scored(tmp_path, CHOICE, responses)
    assert (metrics["acc"], metrics["acc_norm"], metrics["exact_match"]) == (acc, acc_norm, 0)
    assert all(math.isfinite(share) for share in metrics["brier_score"][1])
    assert extracted == {"none": "1" if acc else "0" if responses[0][0] > -9 else "2"}


def test_what_is_no_number_of_impossible_options_is_left_out(tmp_path):
    metrics, _ = scored(tmp_path, CHOICE, [IMPOSSIBLE] * 3)
    assert metrics == {"acc": 0.0, "acc_norm": 0.0, "exact_match": 0}
    metrics, _ = scored(tmp_path, GREEDY, [IMPOSSIBLE])
    assert metrics == {"acc": 0}


@pytest.mark.parametrize(("right", "kept"), [(None, False), (False, True), (True, True)])
def test_metrics_that_need_greediness_are_left_out_where_it_is_unknown(tmp_path, right, kept):
    metrics, extracted = scored(tmp_path, CHOICE, [(-2.0, None), (-1.0, right), (-3.0, None)])
    assert (metrics["acc"], metrics["acc_norm"], extracted) == (1.0, 1.0, {"none": "1"})
    assert ("exact_match" in metrics) is kept
    assert not kept or metrics["exact_match"] == int(right)
    metrics, _ = scored(tmp_path, GREEDY, [(-2.0, right)])
    assert ("acc" in metrics) is kept and metrics["perplexity"] == -2.0


MEDICAL = {"UbiquantAI_Fleming-R1-7B": 0.7251, "deepseek-ai_DeepSeek-R1-0528-Qwen3-8B": 0.7038}


@pytest.mark.parametrize("model", MEDICAL)
def test_recorded_log_probabilities_give_the_published_accuracy(shared, tmp_path, model):
    """The second model has ties, of which the first counts; whether choices are greedy is not recorded."""
    recorded = shared_rows(f"loglik_medical/MedQA__{model}.jsonl.gz")[:1273]
    rows = [{"question": str(row["i"]), "label": row["label"]} for row in recorded]
    yaml = CHOICE.replace('["a", "bbbb", "c"]', '["A", "B", "C", "D"]').replace(
        "doc_to_target: 1", "doc_to_target: label"
    )
    spec = quiz(tmp_path, yaml, test=rows)
    data = register(spec).data
    prompts = build_prompts(spec, data, range(len(rows)), "completions")
    answers = [
        Answered(p.doc_id, p.requests, [[(value, None)] for value in row["loglik"]])
        for p, row in zip(prompts, recorded, strict=True)
    ]
    metrics = [result.metrics["none"] for result in score(spec, data, answers)]
    assert round(sum(m["acc"] for m in metrics) / len(rows), 4) == MEDICAL[model]
    assert all(m["acc"] == m["acc_norm"] and "exact_match" not in m for m in metrics)
