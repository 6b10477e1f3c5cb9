"""Files as lm-eval writes them: fields and types of a real run beside ours, scores made again of samples."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.publish import lm_eval_log
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster_tests.stages.publish.test_inspect_log import CHOICE, TASK, choose
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

#: Runs lm-eval over two local tasks with models that draw their answers, one of them asked by chat.
REAL = """
import json, sys
from pathlib import Path
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager

class Chat(DummyLM):
    tokenizer_name = "chat"
    def apply_chat_template(self, history, add_generation_prompt=True):
        return JsonChatStr(json.dumps(history, ensure_ascii=False))
    def chat_template(self, chat_template=False):
        return ""
    def generate_until(self, requests, disable_tqdm=False):
        return ["said" for _ in requests]

folder = Path(sys.argv[1])
for out, model, tasks, chat in (
    ("plain", "dummy", ["real_text", "real_choice"], False), ("chat", Chat(), ["real_text"], True)
):
    tracker = EvaluationTracker(output_path=str(folder / out))
    found = simple_evaluate(
        model=model, tasks=tasks, task_manager=TaskManager(include_path=str(folder)), log_samples=True,
        evaluation_tracker=tracker, apply_chat_template=chat, bootstrap_iters=0,
    )
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    for name in tasks:
        tracker.save_results_samples(task_name=name, samples=samples[name])
"""


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a real run: results and samples, of a model asked in texts and of one asked by chat."""
    folder = tmp_path_factory.mktemp("lm_eval")
    docs = [{"n": i, "question": f"What is {i}, ü?"} for i in range(4)]
    data = folder / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "metadata": {"version": 1.0},
    }
    text = {
        **shared,
        "task": "real_text",
        "output_type": "generate_until",
        "doc_to_target": "{{n}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "flexible")
        ],
    }
    choice = {
        **shared,
        "task": "real_choice",
        "output_type": "multiple_choice",
        "doc_to_target": 1,
        "doc_to_choice": ["stone", "pear", "bus"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    for task in (text, choice):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", REAL, str(folder)],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=600,
    )
    return folder


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Docs with two filters asked by chat, of which one failed."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {
        "tasks": [{"name": name, "samples": "all"} for name in (TASK, CHOICE)],
        "sampling": {"max_age_days": 30},
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        made = Asked(facts, facts.registration(TASK, 10, filters=("strict", "flexible")))
        for doc, value in enumerate((1.0, 0.0, 1.0)):
            at = NOW - timedelta(hours=doc)
            made.answer(doc, value, f"said {doc}", extracted=f"strict {doc}", at=at)
            also(made, doc, 1.0 - value, at)
        facts.fail(made.registration, 3, Fault.EMPTY, NOW, prompt_id=made.prompt(3))
        yield made


def also(asked: Asked, doc_id: int, value: float, at: Any) -> None:
    """The score of an answer by the second filter."""
    [first] = list(typed.find(asked.documents, ScoreRecord, {"doc_id": doc_id, "filter": "strict"}))
    second = replace(
        first,
        id=document_id("score", first.answer_id, "flexible", scorer_version(asked.registration)),
        filter="flexible",
        metrics={"exact_match": value},
        extracted=f"flexible {doc_id}",
    )
    assert typed.put_new(asked.documents, ScoreRecord, [second]) == 1


def exported(
    asked: Asked, out: Path, **chosen: Any
) -> dict[str, tuple[dict[str, Any], dict[str, list[Any]]]]:
    """By supplier the results, and by task the samples."""
    written = Testbench(asked.facts.workspace).export(out, format="lm-eval", **chosen)
    assert set(written) == {path for path in out.rglob("*") if path.is_file()}
    found = {}
    for path, n in written.items():
        if path.name.startswith("results_"):
            results = json.loads(path.read_text("utf-8"))
            at = path.stem.removeprefix("results_")
            samples = {
                name: lines(path.with_name(f"samples_{name}_{at}.jsonl")) for name in results["results"]
            }
            assert len(samples) == n
            found[results["config"]["model_args"]["supplier"]] = results, samples
    return found


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def shape(value: Any, depth: int = 9) -> Any:
    """Names and types, of lists those of what is first in them."""
    if isinstance(value, dict) and depth:
        return {name: shape(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list) and depth:
        return [shape(one, depth - 1) for one in value[:1]]
    return (
        "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
    )


OPEN = ("doc", "arguments")  # what docs and generation settings hold differs from task to task


@pytest.mark.slow
def test_samples_have_the_fields_and_types_of_a_real_run(asked: Asked, real: Path, tmp_path: Path) -> None:
    choose(asked)
    ours = exported(asked, tmp_path / "out")
    for supplier, task, run, name in (
        (ALPHA, TASK, "chat", "real_text"),
        (BETA, CHOICE, "plain", "real_choice"),
    ):
        [path] = (real / run).rglob(f"samples_{name}_*.jsonl")
        theirs, mine = lines(path), ours[supplier][1][task]
        assert list(mine[0]) == list(theirs[0])
        for field in theirs[0]:
            if field not in OPEN:
                assert shape(mine[0][field]) == shape(theirs[0][field]), field
        assert list(mine[0]["arguments"]) == list(theirs[0]["arguments"])
        assert shape(mine[0]["arguments"], 2) == shape(theirs[0]["arguments"], 2)
        filters = list(dict.fromkeys(one["filter"] for one in theirs))
        assert [one["filter"] for one in theirs] == [one for one in filters for _ in range(4)]
        assert [one["filter"] for one in mine] == sorted(
            (one["filter"] for one in mine), key=filters.index
        ), "filter by filter, as there"


@pytest.mark.slow
def test_results_have_the_fields_and_types_of_a_real_run(asked: Asked, real: Path, tmp_path: Path) -> None:
    results, _ = exported(asked, tmp_path / "out", suppliers=[ALPHA])[ALPHA]
    [path] = (real / "plain").rglob("results_*.json")
    theirs = json.loads(path.read_text("utf-8"))
    assert path.parent.parent == real / "plain"
    assert set(results) == set(theirs)
    # which of them a run has no value for differs between machines
    loose = {"device", "git_hash", "upper_git_hash", "fewshot_as_multiturn"}
    for name, value in theirs.items():
        if name in ("results", "configs", "config", *loose) or not isinstance(value, dict):
            assert name in loose or type(value) is type(results[name]), name
            continue
        if value:
            of_task = value.get("real_text", next(iter(value.values())))
            assert type(results[name][TASK]) is type(of_task), name
            if name in ("n-samples", "higher_is_better"):
                assert shape(results[name][TASK]) == shape(of_task), name
    assert list(results["results"][TASK])[:3] == list(theirs["results"]["real_text"])[:3]
    assert set(results["results"][TASK]) == set(theirs["results"]["real_text"])
    assert set(results["config"]) == set(theirs["config"])
    config = theirs["configs"]["real_text"]
    for name, value in results["configs"][TASK].items():
        assert type(value) is type(config[name]), name


def test_scores_in_results_are_those_of_the_samples(asked: Asked, tmp_path: Path) -> None:
    results, samples = exported(asked, tmp_path / "out")[ALPHA]
    found = results["results"][TASK]
    assert found["sample_len"] == 3, "the failed doc has no place there"
    assert results["n-samples"][TASK] == {"original": 10, "effective": 3}
    for by in ("strict", "flexible"):
        values = [one["exact_match"] for one in samples[TASK] if one["filter"] == by]
        mean = sum(values) / len(values)
        error = math.sqrt(sum((v - mean) ** 2 for v in values) / 2) / math.sqrt(3)
        assert found[f"exact_match,{by}"] == mean
        assert found[f"exact_match_stderr,{by}"] == pytest.approx(error)
    row = Testbench(asked.facts.workspace).scores([ALPHA], [TASK]).rows[0]
    assert found["exact_match,strict"] == row["score_answered"] != row["score"]
    hashes = "".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in samples[TASK])
    assert results["task_hashes"][TASK] == hashlib.sha256(hashes.encode()).hexdigest()


def test_a_sample_says_what_was_asked_and_answered(asked: Asked, tmp_path: Path) -> None:
    _, samples = exported(asked, tmp_path / "out")[ALPHA]
    first = samples[TASK][0]
    assert (first["doc_id"], first["doc"], first["target"]) == (0, {"n": 0}, "yes")
    assert first["resps"] == [["said 0"]]
    assert first["filtered_resps"] == ["strict 0"]
    assert first["doc_hash"] == hashlib.sha256(b'{\n  "n": 0\n}').hexdigest()
    [prompt] = first["arguments"]["gen_args_0"]["arg_0"]
    assert json.loads(prompt)[-1] == {"role": "user", "content": "Question 0?"}
    assert first["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
    assert first["arguments"]["gen_args_0"]["arg_1"]["until"] == ["\n\n"]


def test_log_probabilities_are_texts_as_there(asked: Asked, tmp_path: Path) -> None:
    choose(asked)
    [sample] = exported(asked, tmp_path / "out")[BETA][1][CHOICE]
    assert [pair[0] for pair in sample["filtered_resps"]] == ["-3.5", "-0.25", "-4.0"]
    assert sample["resps"] == [[pair] for pair in sample["filtered_resps"]]
    assert sample["arguments"]["gen_args_1"] == {"arg_0": "Which is a fruit?", "arg_1": " pear"}
    assert (sample["target"], sample["acc"]) == ("1", 1.0)


def test_a_period_leaves_out_what_was_answered_before_or_after(asked: Asked, tmp_path: Path) -> None:
    since = NOW - timedelta(minutes=30)
    results, samples = exported(asked, tmp_path / "late", since=since)[ALPHA]
    assert {one["doc_id"] for one in samples[TASK]} == {0}
    assert results["results"][TASK]["exact_match_stderr,strict"] == "N/A", "of one value there is none"
    _, samples = exported(asked, tmp_path / "early", until=since)[ALPHA]
    assert {one["doc_id"] for one in samples[TASK]} == {1, 2}
    assert exported(asked, tmp_path / "never", since=NOW + timedelta(days=1)) == {}


def test_suppliers_of_one_model_share_a_folder_and_no_file(asked: Asked, tmp_path: Path) -> None:
    choose(asked)
    for _ in range(2):  # a second export stands beside the first, as there
        Testbench(asked.facts.workspace).export(tmp_path / "out", format="lm-eval")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m"]
    assert len(list((tmp_path / "out" / "m").glob("results_*.json"))) == 4


def test_a_doc_that_cannot_be_written_costs_no_other(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = lm_eval_log._arguments

    def odd(request: Any, output_type: str) -> Any:
        if "Question 1?" in str(request):
            raise KeyError("context")
        return usual(request, output_type)

    monkeypatch.setattr(lm_eval_log, "_arguments", odd)
    results, samples = exported(asked, tmp_path / "out")[ALPHA]
    assert {one["doc_id"] for one in samples[TASK]} == {0, 2}
    assert results["results"][TASK]["sample_len"] == 2


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match="choose another --out"):
        Testbench(asked.facts.workspace).export(tmp_path / "out", format="lm-eval")


def test_metrics_that_are_no_mean_are_put_together_by_their_framework(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = asked.facts
    other = Asked(facts, facts.registration(CHOICE, 5, {"f1": "f1"}))
    for doc, value in ((2, [1, 0]), (0, [0, 0]), (1, [1, 1])):
        other.answer(doc, value, extracted="x")
    asked_for = []

    def of_framework(workspace: Workspace, spec: Any, flags: Any, metric: str, values: Any) -> float:
        asked_for.append((spec.name, metric, values))
        return 0.25

    monkeypatch.setattr(lm_eval_log, "aggregated", of_framework)
    results, samples = exported(asked, tmp_path / "out")[ALPHA]
    assert asked_for == [(CHOICE, "f1", [[0, 0], [1, 1], [1, 0]])], "in ascending order of docs"
    assert results["results"][CHOICE]["f1,none"] == 0.25
    assert results["results"][CHOICE]["f1_stderr,none"] == "N/A"
    assert samples[CHOICE][0]["f1"] == [0, 0]


def test_a_supplier_without_a_score_leaves_nothing_behind(asked: Asked, tmp_path: Path) -> None:
    asked.answer(5, None, "not scored yet", supplier=BETA, api="completions")
    written = Testbench(asked.facts.workspace).export(tmp_path / "out", [BETA], format="lm-eval")
    assert written == {}
    assert list((tmp_path / "out").iterdir()) == []
