"""Registering a task: what is kept, what its hash stands for, and what is refused with which words."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.index import STARTER_PATH
from testbench_dagster.tasks.lm_eval_adapter import build_prompts, building, register
from testbench_dagster_tests.tasks.quiz import HELPER, ROWS, YAML, quiz, spec_of

# --- what is kept ----------------------------------------------------------------------------------------


def test_docs_shots_and_flags_are_kept(tmp_path):
    found = register(quiz(tmp_path))
    assert [json.loads(found.data.docs[i]) for i in range(8)] == ROWS
    assert [json.loads(text) for text in found.data.fewshot] == ROWS[:4]
    assert len(found.doc_hashes) == 8 and len(set(found.doc_hashes)) == 8
    assert found.doc_hashes[:4] == found.fewshot_hashes, "equal docs have equal hashes wherever they are"
    assert (found.eval_split, dict(found.splits)) == ("test", {"test": 8, "train": 4})
    flags = found.data.flags.to_document()
    assert flags["output_type"] == "generate_until" and flags["features"] == ["question", "answer"]
    assert flags["num_fewshot"] == 2 and flags["repeats"] == 1 and flags["filters"] == ["none"]
    assert flags["metrics"] == {"exact_match": {"aggregation": "mean", "higher_is_better": True}}
    assert json.loads(json.dumps(flags)) == flags


def test_processed_docs_are_stored_even_when_processing_is_random(tmp_path):
    helper = (
        "import random\ndef process(docs):\n"
        "    return docs.add_column('draw', [random.random() for _ in docs])\n"
    )
    spec = quiz(tmp_path, YAML.replace("{{question}}", "{{question}} {{draw}}"), helper, num_fewshot=0)
    found = register(spec)
    draws = [json.loads(text)["draw"] for text in found.data.docs.values()]
    assert len(set(draws)) == 8
    prompts = build_prompts(spec, found.data, range(8), "completions")
    assert [p.requests[0]["prompt"] for p in prompts] == [
        f"Q: what is {n}? {draw}" for n, draw in enumerate(draws)
    ]
    assert register(spec).task_hash == found.task_hash, "the draw is seeded as in simple_evaluate"


def test_at_zero_shots_no_few_shot_split_is_looked_at(tmp_path):
    spec = quiz(tmp_path, num_fewshot=0)
    found = register(replace(spec, data={"test": spec.data["test"]}))
    assert list(found.data.fewshot) == [] and dict(found.splits) == {"test": 8}


def test_zero_in_the_yaml_is_final(tmp_path):
    spec = quiz(tmp_path, YAML.replace("num_fewshot: 2", "num_fewshot: 0"), num_fewshot=3)
    assert register(spec).data.flags.num_fewshot == 0


def test_where_picks_the_rows(tmp_path):
    rows = [{**row, "level": n % 2} for n, row in enumerate(ROWS)]
    spec = quiz(tmp_path, test=rows, train=rows, where={"level": "1"})
    assert [json.loads(t)["answer"] for t in register(spec).data.docs.values()] == ["1", "3", "5", "7"]


# --- identity --------------------------------------------------------------------------------------------


def test_the_hash_is_that_of_the_content_not_of_the_place(tmp_path):
    one, two = quiz(tmp_path / "one"), quiz(tmp_path / "somewhere/else/two")
    first, second = register(one), register(two)
    assert first.task_hash == second.task_hash
    assert (first.config_hash, first.fingerprint) == (second.config_hash, second.fingerprint)
    packed = two.data["test"].replace(".jsonl", ".csv")
    import pandas as pd

    pd.DataFrame(ROWS).astype(str).to_csv(packed, index=False)
    text = {"question": "string", "answer": "string"}
    assert pd.read_csv(packed, dtype=text).to_dict("records") == ROWS
    parquet = packed.replace(".csv", ".parquet")
    pd.DataFrame(ROWS).to_parquet(parquet)
    moved = replace(two, name="alias", data={**two.data, "test": parquet})
    assert register(moved).task_hash == first.task_hash


@pytest.mark.parametrize(
    ("change", "config_changes", "data_changes", "task_changes"),
    [
        ("doc", False, True, True),
        ("order", False, True, True),
        ("shot", False, True, True),
        ("shots", True, False, True),
        ("template", True, False, True),
        ("target", True, False, True),
        ("generation", True, False, True),
        ("repeats", True, False, True),
        ("helper", True, False, True),
        ("metric option", True, False, False),
        ("metric", True, False, False),
        ("filter", True, False, False),
        ("own results", True, False, False),
        ("decontamination", True, False, False),
    ],
)
def test_the_hash_changes_with(change, config_changes, data_changes, task_changes, tmp_path):
    """What requests are made of changes the task; how answers are scored only its configuration."""
    before = register(quiz(tmp_path))
    scorer = "def results(doc, results):\n    return {'exact_match': 1.0}\n"
    (tmp_path / "yaml/scorer.py").write_text(scorer, encoding="utf-8")
    altered = [{**ROWS[0], "answer": "zero"}, *ROWS[1:]]
    after = register(
        {
            "doc": lambda: quiz(tmp_path, test=altered),
            "order": lambda: quiz(tmp_path, test=ROWS[::-1]),
            "shot": lambda: quiz(tmp_path, train=altered[:4]),
            "shots": lambda: quiz(tmp_path, num_fewshot=3),
            "template": lambda: quiz(tmp_path, YAML.replace("Q:", "Question:")),
            "metric option": lambda: quiz(
                tmp_path, YAML.replace("exact_match}", "exact_match, ignore_case: true}")
            ),
            "target": lambda: quiz(tmp_path, YAML.replace("{{answer}}", "{{answer}}.")),
            "generation": lambda: quiz(tmp_path, YAML + 'generation_kwargs: {until: ["."]}\n'),
            "repeats": lambda: quiz(tmp_path, YAML + "repeats: 2\n"),
            "metric": lambda: quiz(tmp_path, YAML.replace("exact_match}", "bleu}")),
            "filter": lambda: quiz(
                tmp_path, YAML + "filter_list: [{name: first, filter: [{function: take_first}]}]\n"
            ),
            "own results": lambda: quiz(tmp_path, YAML + "process_results: !function scorer.results\n"),
            "decontamination": lambda: quiz(
                tmp_path,
                YAML + "should_decontaminate: true\ndoc_to_decontamination_query: question\n",
            ),
            "helper": lambda: quiz(tmp_path, helper=HELPER + "\n# the same, but who knows\n"),
        }[change]()
    )
    assert (after.task_hash != before.task_hash) is task_changes
    assert (after.config_hash != before.config_hash) is config_changes
    assert (after.fingerprint != before.fingerprint) is data_changes


def test_a_metric_that_asks_each_choice_again_changes_the_requests(tmp_path):
    choices = YAML.replace("generate_until", "multiple_choice").replace(
        "process_docs:", "doc_to_choice: ['0', '1', '2', '3', '4', '5', '6', '7']\nprocess_docs:"
    )
    hashes, calls = {}, {}
    for metric in ("acc", "acc_norm", "acc_mutual_info"):
        spec = quiz(tmp_path, choices.replace("exact_match", metric))
        found = register(spec)
        hashes[metric] = found.task_hash
        calls[metric] = len(build_prompts(spec, found.data, [0], "completions")[0].requests)
    assert calls == {"acc": 8, "acc_norm": 8, "acc_mutual_info": 16}
    assert hashes["acc"] == hashes["acc_norm"] != hashes["acc_mutual_info"]


def test_an_edited_yaml_is_seen_by_a_process_that_lives_on(tmp_path):
    spec = quiz(tmp_path)
    first = register(spec)
    path = tmp_path / "yaml/quiz.yaml"
    path.write_text(YAML.replace("exact_match}", "exact_match, ignore_case: true}"), encoding="utf-8")
    second = register(spec)
    assert (second.task_hash, second.config_hash) != (first.task_hash, first.config_hash)
    assert second.task_hash == first.task_hash


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process(tmp_path):
    spec = quiz(tmp_path)
    code = inspect.cleandoc(f"""
        from testbench_dagster.core.rules import PlanningRule
        from testbench_dagster.tasks.specs import TaskSpec
        from testbench_dagster.tasks.lm_eval_adapter import register
        print(register({spec!r}).task_hash)
    """)
    hashes = {register(spec).task_hash}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


def test_stock_tasks_with_functions_and_partials_hash_alike_after_a_reload(monkeypatch):
    spec = spec_of("starter_instructions")
    first = register(spec).task_hash
    building._configs.cache_clear()
    for name in [n for n in sys.modules if n.startswith(str(STARTER_PATH))]:
        monkeypatch.delitem(sys.modules, name)
    assert register(spec).task_hash == first


# --- refusals --------------------------------------------------------------------------------------------


def refused(spec: TaskSpec, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        register(spec)
    assert spec.name in str(caught.value) or str(spec.data) or spec.root in str(caught.value)


def test_a_missing_split_is_named_with_its_remedies(tmp_path):
    spec = quiz(tmp_path)
    refused(
        replace(spec, data={"test": spec.data["test"]}),
        r"task 'quiz' needs its split 'train', which data: does not give \(it gives test\); "
        r"add train: <file>, or set num_fewshot: 0",
    )
    refused(
        replace(spec, num_fewshot=0, data={"train": spec.data["train"]}),
        r"needs its split 'test', .*add test: <file>$",
    )


def test_a_missing_file_is_named(tmp_path):
    spec = quiz(tmp_path)
    refused(replace(spec, data={**spec.data, "test": "/absent.jsonl"}), r"/absent\.jsonl does not exist")


def test_a_column_that_the_template_needs_is_named(tmp_path):
    rows = [{"answer": "1"}] * 3
    refused(quiz(tmp_path, test=rows), r"task 'quiz': a row of .*test\.jsonl.* lacks a column.*'question'")


def test_a_column_missing_in_one_row_is_named_with_the_row(tmp_path):
    rows = [*ROWS[:3], {"question": "no answer"}]
    refused(quiz(tmp_path, test=rows), r"test\.jsonl: row 4 has no column 'answer', which other rows have")


def test_rows_of_different_types_are_refused(tmp_path):
    refused(quiz(tmp_path, test=[*ROWS, {"question": "q", "answer": [1]}]), "do not form one table")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"metric": "acc"}, r"task 'quiz' has no metric 'acc'; it has exact_match"),
        ({"filter": "strict"}, r"task 'quiz' has no filter 'strict'; it has none"),
    ],
)
def test_a_metric_or_filter_the_task_lacks(field, message, tmp_path):
    refused(quiz(tmp_path, **field), message)


def test_too_few_examples(tmp_path):
    refused(
        quiz(tmp_path, num_fewshot=5), r"5 few-shot examples wanted, but its pool holds 4; lower num_fewshot"
    )


@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_a_doc_is_no_example_of_itself(sampler, tmp_path):
    yaml = YAML.replace(
        "fewshot_split: train", f"fewshot_split: test\nfewshot_config: {{sampler: {sampler}}}"
    )
    refused(
        quiz(tmp_path, yaml, num_fewshot=8), r"8 few-shot examples wanted, .*holds 8 and .*the doc itself"
    )
    spec = quiz(tmp_path, yaml, num_fewshot=7)
    prompts = build_prompts(spec, register(spec).data, range(8), "completions")
    for number, prompt in enumerate(prompts):
        text = prompt.requests[0]["prompt"]
        assert all(text.count(f"what is {n}?") == 1 for n in range(8)), (
            "each doc once, itself as the question"
        )
        assert text.endswith(f"what is {number}?")


def test_given_examples_need_no_spare_one(tmp_path):
    yaml = YAML.replace("fewshot_split: train", "").replace("test_split: test", "validation_split: test")
    samples = json.dumps(ROWS[:2])
    first_n = yaml + f"fewshot_config: {{sampler: first_n, samples: {samples}}}\n"
    spec = quiz(tmp_path, first_n)
    prompts = build_prompts(spec, register(spec).data, [5], "completions")
    assert prompts[0].requests[0]["prompt"] == ("Q: what is 0? 0\n\nQ: what is 1? 1\n\nQ: what is 5?")


def test_unsafe_code_is_refused(tmp_path):
    refused(quiz(tmp_path, YAML + "unsafe_code: true\n"), r"'quiz' runs code that the model wrote; .*remove")


def test_images_are_refused(tmp_path):
    refused(quiz(tmp_path, YAML + "doc_to_image: [picture]\n"), "'quiz' needs images or audio")


def test_python_tasks_are_refused(tmp_path):
    refused(quiz(tmp_path, "task: quiz\nclass: !function helper.process\n"), "'quiz' is a Python task")


def test_a_helper_that_needs_a_missing_package(tmp_path):
    helper = "import package_that_nobody_has\n" + HELPER
    refused(quiz(tmp_path, helper=helper), r"task 'quiz' needs the Python package 'package_that_nobody_has'")


def test_a_yaml_that_lm_eval_cannot_build(tmp_path):
    refused(
        quiz(tmp_path, YAML.replace("helper.process", "helper.absent")), "lm-eval cannot build it.*absent"
    )
    refused(quiz(tmp_path, YAML + "unknown_setting: 1\n"), "'quiz' cannot be built: .*unknown_setting")
    sampler = "fewshot_config: {sampler: spiral}\n"
    refused(quiz(tmp_path, YAML + sampler), "'quiz' cannot be built: .*spiral")
    refused(quiz(tmp_path, YAML.replace("{{question}}", "{{question")), "'quiz' cannot be built: .*Syntax")


def test_an_unknown_task():
    with pytest.raises(TaskError, match="unknown task 'no_such_task'"):
        register(spec_of("no_such_task"))


def test_a_leaf_outside_its_group():
    with pytest.raises(TaskError, match="'gsm8k' is not part of 'starter_all'"):
        register(spec_of("gsm8k", root="starter_all"))


def test_docs_that_json_cannot_hold(tmp_path):
    helper = (
        "import datetime\ndef process(docs):\n"
        "    return docs.add_column('day', [datetime.date(2024, 1, 1)] * len(docs))\n"
    )
    refused(quiz(tmp_path, helper=helper, num_fewshot=0), "task 'quiz': doc 0 cannot be kept as JSON")


def test_no_hub_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", offline)
    spec = replace(quiz(tmp_path), data=None)
    loading = r"'quiz': its dataset 'tests/quiz' cannot be loaded from the hub \(ConnectionError"
    refused(spec, loading + r".*`tasks\[\]\.data`")


def test_punkt_is_asked_for_by_name(monkeypatch, tmp_path, shared):
    import nltk

    def absent(*_, **__):
        raise LookupError

    monkeypatch.setattr(nltk.data, "find", absent)
    monkeypatch.setattr(nltk.data, "path", list(nltk.data.path))
    building._configs.cache_clear()
    with pytest.raises(TaskError, match=r"'ifeval' needs nltk's punkt_tab.*NLTK_DATA.*llama-index-core"):
        register(spec_of("ifeval", data={"train": str(shared / "ifeval/input_data.jsonl.gz")}))


def test_punkt_is_found_in_home_and_in_a_carrier_package(monkeypatch, tmp_path, punkt):
    import nltk

    from testbench_dagster.tasks.resources import prepare_offline_resources

    found = Path(str(nltk.data.find("tokenizers/punkt_tab/english"))).parents[2]
    home, site = tmp_path / "home", tmp_path / "site"
    for target in (home / "nltk_data", site / "llama_index/core/_static/nltk_cache"):
        shutil.copytree(found / "tokenizers/punkt_tab/english", target / "tokenizers/punkt_tab/english")
    code = tmp_path / "task"
    code.mkdir()
    (code / "utils.py").write_text("nltk.download('punkt_tab')", encoding="utf-8")
    for setting in ("home", "site"):
        monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "empty")])
        monkeypatch.setenv("TESTBENCH_HOME", str(home if setting == "home" else tmp_path / "none"))
        monkeypatch.setattr(sys, "path", [*sys.path, str(site)] if setting == "site" else sys.path)
        prepare_offline_resources(code, "t")
        assert nltk.data.find("tokenizers/punkt_tab/english"), setting
