"""Registering a task: what is kept, what its hash stands for, and what is refused with which words."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import TaskData
from testbench_dagster.core.task import TaskGeneration, TaskSpec
from testbench_dagster.tasks.index import STARTER_PATH
from testbench_dagster.tasks.lm_eval_adapter import build_prompts, building, definitions, identify, register
from testbench_dagster.tasks.sources import source_state
from testbench_dagster.tasks.worker import FrameworkWorker, WorkerStopped
from testbench_dagster.transports.payload import build_payload
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


SETTINGS = [
    {"max_tokens": 9},
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"stop": ("x",)},
    {"stop": ()},
    {"system": "Be brief."},
    {"think_end_token": "</think>"},
    {"think_end_token": False},
]


def test_each_setting_of_generation_makes_another_task(tmp_path):
    """Its requests, or how answers to them are read, are others: nothing stored before counts any more."""
    made = [quiz(tmp_path), *(quiz(tmp_path, generation=TaskGeneration(**settings)) for settings in SETTINGS)]
    found = [register(spec) for spec in made]
    assert len({each.task_hash for each in found}) == len({each.config_hash for each in found}) == len(made)
    assert len({source_state(spec) for spec in made}) == len(made), "each is prepared anew"
    assert len({each.fingerprint for each in found}) == 1
    for spec, each in zip(made, found, strict=True):
        data = TaskData({0: each.data.docs[0]}, [], each.data.flags)
        assert identify(spec, data, each.fingerprint) == (each.task_hash, each.config_hash)


def test_settings_that_concern_texts_alone_leave_other_tasks_as_they_are(tmp_path):
    choice = (
        YAML.replace("generate_until", "multiple_choice") + 'doc_to_choice: ["1", "2"]\ndoc_to_target: 0\n'
    )
    plain = register(quiz(tmp_path, choice.replace("exact_match", "acc")))
    for settings in ({"max_tokens": 9}, {"temperature": 0.5}, {"think_end_token": "x"}):
        spec = quiz(tmp_path, choice.replace("exact_match", "acc"), generation=TaskGeneration(**settings))
        assert register(spec).task_hash == plain.task_hash
    spec = quiz(tmp_path, choice.replace("exact_match", "acc"), generation=TaskGeneration(system="x"))
    assert register(spec).task_hash != plain.task_hash


@pytest.mark.parametrize(
    ("task", "task_hash", "config_hash"),
    [
        ("starter_logic", "e08f627d017709f23f48fb6e57e2fa55acbcba40", "64d6f6c59cfa60bd"),
        ("starter_choice", "a9a4ca9d8b067ec6b39eeb79bf12e7e1774d3484", "feaec55bd40a6965"),
    ],
)
def test_without_settings_hashes_are_those_of_before_there_were_any(task, task_hash, config_hash):
    """As the commit before the block `generation` of tasks registered them."""
    found = register(spec_of(task))
    assert (found.task_hash, found.config_hash[:16]) == (task_hash, config_hash)


def test_requests_carry_the_rule_for_what_was_thought(tmp_path):
    def requests(**settings):
        spec = quiz(tmp_path, generation=TaskGeneration(**settings))
        (built, *_) = build_prompts(spec, register(spec).data, [0], "chat")
        return built.requests

    (plain,) = requests()
    assert set(plain) == {"type", "idx", "messages", "generation"}
    assert requests(think_end_token="X") == [{**plain, "think_end_token": "X"}]
    assert requests(think_end_token=False) == [{**plain, "think_end_token": False}]
    # whatever else is in the request: its payload is the same
    assert build_payload(requests(think_end_token="X")[0], "chat", "m") == build_payload(plain, "chat", "m")


@pytest.mark.parametrize("given", ["max_gen_toks: 5", "max_tokens: 5", "max_new_tokens: 5", "until: ['.']"])
def test_the_limit_replaces_whatever_the_yaml_calls_it(given, tmp_path):
    yaml = YAML + f"generation_kwargs: {{{given}}}\n"
    spec = quiz(tmp_path, yaml, generation=TaskGeneration(max_tokens=77))
    (built,) = build_prompts(spec, register(spec).data, [0], "completions")
    _, payload = build_payload(built.requests[0], "completions", "m")
    assert payload["max_tokens"] == 77
    assert not {"max_gen_toks", "max_new_tokens"} & set(payload)


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process(tmp_path):
    spec = quiz(tmp_path)
    code = inspect.cleandoc(f"""
        from testbench_dagster.core.applicability import Applicability
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
    definitions._definitions.cache_clear()
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
    refused(
        quiz(tmp_path, YAML + "unsafe_code: true\n"),
        r"'quiz' runs code that the model wrote, .*set it to true .*remove",
    )


def test_images_are_refused(tmp_path):
    refused(quiz(tmp_path, YAML + "doc_to_image: [picture]\n"), "'quiz' needs images or audio")


def test_python_tasks_are_refused(tmp_path):
    refused(quiz(tmp_path, "task: quiz\nclass: !function helper.process\n"), "'quiz' is a Python task")


def test_a_helper_that_needs_a_missing_package(tmp_path):
    helper = "import package_that_nobody_has\n" + HELPER
    refused(quiz(tmp_path, helper=helper), r"task 'quiz' needs the Python package 'package_that_nobody_has'")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("helper.proces", r"helper\.py has no function proces; did you mean process\?"),
        ("helper.absent", r"helper\.py has no function absent \(it has process\)"),
        ("helpr.process", r"neither a file helpr\.py beside it nor a module helpr; did you mean helper\?"),
        ("xyz.process", r"neither a file xyz\.py beside it nor a module xyz \(there is helper\)"),
        ("json.no_such", r"has no function no_such|no module json|neither a file json\.py"),
    ],
)
def test_a_function_that_is_not_there_is_no_missing_package(said, told, tmp_path):
    spec = quiz(tmp_path, YAML.replace("helper.process", said))
    refused(spec, rf"task 'quiz': its YAML in .*yaml says `!function {re.escape(said)}`, but .*{told}")


@pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct", "mbpp", "mbpp_plus"])
def test_code_tasks_of_lm_eval_say_so_before_anything_is_loaded(name, monkeypatch):
    """Their helpers load a script from the hub while they are imported."""

    def loaded(*_, **__):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr("datasets.load_dataset", loaded)
    monkeypatch.setattr("evaluate.load", loaded)
    with pytest.raises(
        TaskError, match=f"task {name!r} runs code that the model wrote, and allow_code_execution is false"
    ):
        register(spec_of(name))


def test_one_bad_leaf_of_a_group_leaves_the_others(tmp_path):
    own = tmp_path / "yaml"
    good = quiz(tmp_path)
    bad = YAML.replace("task: quiz", "task: bad").replace("helper.process", "helper.absent")
    (own / "bad.yaml").write_text(bad, encoding="utf-8")
    inline = (
        "{task: made, include: quiz.yaml, dataset_path: x, test_split: test, doc_to_text: '{{question}}', "
    )
    inline += "doc_to_target: '{{answer}}', output_type: generate_until}"
    (own / "g.yaml").write_text(f"group: g\ntask: [bad, quiz, absent, {inline}]\n", encoding="utf-8")
    definitions._definitions.cache_clear()
    assert len(register(replace(good, root="g")).data.docs) == 8
    with pytest.raises(TaskError, match=r"task 'bad': its YAML .*helper\.absent"):
        register(replace(good, name="bad", leaf="bad", root="g"))
    with pytest.raises(TaskError, match="group 'g' names 'absent', which is no task"):
        register(replace(good, name="absent", leaf="absent", root="g"))


def test_a_yaml_that_lm_eval_cannot_build(tmp_path):
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
        "class Docs(list):\n    features = {'question': None, 'answer': None}\n"
        "def process(docs):\n    return Docs({**doc, 'seen': {1, 2}} for doc in docs)\n"
    )
    refused(quiz(tmp_path, helper=helper, num_fewshot=0), "task 'quiz': doc 0 cannot be kept as JSON")


def test_no_hub_is_one_clear_error(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", offline)
    monkeypatch.setattr(building, "_HUB", building._Hub())
    spec = replace(quiz(tmp_path), data=None)
    loading = r"'quiz': its dataset 'tests/quiz' cannot be loaded from the hub \(ConnectionError"
    refused(spec, loading + r".*`tasks\[\]\.data`")


def test_a_hub_that_is_gone_is_looked_for_once_a_minute(tmp_path, monkeypatch):
    """Trying in vain takes half a minute for each of the 57 tasks of MMLU."""
    cached_only = []

    def offline(*_, **__):
        cached_only.append(datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(building, "_HUB", building._Hub())
    monkeypatch.setattr("datasets.load_dataset", offline)
    spec = replace(quiz(tmp_path), data=None)
    refused(spec, "cannot be loaded from the hub .*no route to host")
    refused(spec, "cannot be loaded from the hub .*no route to host")
    monkeypatch.setattr(building, "_HUB_REST_S", 0.0)
    refused(spec, "no route to host")
    assert cached_only == [False, True, False], "what is cached is found meanwhile"
    assert datasets.config.HF_HUB_OFFLINE is False

    def missing(*_, **__):
        cached_only.append(datasets.config.HF_HUB_OFFLINE)
        raise FileNotFoundError("no such data set")

    monkeypatch.setattr(building, "_HUB", building._Hub())
    monkeypatch.setattr(building, "_HUB_REST_S", 60.0)
    monkeypatch.setattr("datasets.load_dataset", missing)
    refused(spec, "no such data set")
    refused(spec, "no such data set")
    assert cached_only[3:] == [False, False], "the hub is well, the data set is not there"


def test_punkt_is_asked_for_by_name(monkeypatch, tmp_path, shared):
    import nltk

    def absent(*_, **__):
        raise LookupError

    monkeypatch.setattr(nltk.data, "find", absent)
    monkeypatch.setattr(nltk.data, "path", list(nltk.data.path))
    definitions._definitions.cache_clear()
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


def test_code_that_ends_the_process_is_an_error_of_its_task_alone(tmp_path):
    helper = f"{HELPER}\nimport sys\nsys.exit('SWI-Prolog (swipl) is not installed')\n"
    with pytest.raises(TaskError, match=r"its own code ends .* says: SWI-Prolog \(swipl\) is not installed"):
        register(quiz(tmp_path, YAML, helper))
    with FrameworkWorker() as worker, pytest.raises(TaskError, match="SWI-Prolog") as caught:
        worker.call("lm_eval", "register", quiz(tmp_path, YAML, helper), timeout_s=60)
    assert not isinstance(caught.value, WorkerStopped), "the process lives on"
