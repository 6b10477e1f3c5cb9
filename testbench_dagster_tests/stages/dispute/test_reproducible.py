"""The scorer gives the same floats in every process and environment: seeds, hash order, definitions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.prompt import Answered, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.installations import KEY, on_servers
from testbench_dagster_tests.tasks.layouts import REPOSITORY, gsm8k, ifeval, mmlu, shared_rows
from testbench_dagster_tests.tasks.quiz import HELPER, YAML, jsonl, quiz, spec_of

DRAWING = (
    HELPER
    + """
import random
import numpy as np
def check(doc, results):
    words = {f"{word}{i}" for word in results[0].split() for i in range(40)}
    over_a_set = 0.0
    for word in words:
        over_a_set += 1 / (len(word) + int.from_bytes(word.encode(), "big") % 9973)
    return {"right": over_a_set, "drawn": random.random(), "numpy": float(np.random.random())}
"""
)
DRAWN = YAML.replace("metric: exact_match", "metric: right, aggregation: mean, higher_is_better: true") + (
    "process_results: !function helper.check\n"
)


@contextmanager
def hash_seed(value: str) -> Iterator[None]:
    """What a machine's environment may say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", value)
        yield


def scored(
    spec: TaskSpec, registered: Registered, answers: list[Answered], seed: str = "random"
) -> dict[int, dict[str, Any]]:
    """Metrics by doc, from a process of its own."""
    with hash_seed(seed), FrameworkWorker() as worker:
        scores: list[DocScore] = worker.call("lm_eval", "score", spec, registered.data, answers)
    assert [s.error for s in scores] == [None] * len(answers)
    return {s.doc_id: s.metrics for s in scores}


def answers_to(
    worker: FrameworkWorker, spec: TaskSpec, data: TaskData, texts: dict[int, str]
) -> list[Answered]:
    prompts = worker.call("lm_eval", "build_prompts", spec, data, sorted(texts), "completions", "")
    return [Answered(p.doc_id, p.requests, [[texts[p.doc_id]]]) for p in prompts]


@pytest.mark.slow
def test_what_draws_or_walks_a_set_gives_the_same_floats_everywhere(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    spec = quiz(tmp_path, DRAWN, DRAWING)
    registered = worker.call("lm_eval", "register", spec)
    answers = answers_to(worker, spec, registered.data, dict.fromkeys(range(8), "tree river mountain house"))
    first = scored(spec, registered, answers, "1")
    second = scored(spec, registered, list(reversed(answers)), "2")
    alone = scored(spec, registered, answers[3:4], "3")
    assert first == second and alone[3] == first[3]
    assert len({m["none"]["drawn"] for m in first.values()}) == 8


def test_a_definition_is_told_by_its_hashes_alone(
    shared: Path, tmp_path: Path, worker: FrameworkWorker
) -> None:
    """What a bundle holds, one doc and the flags, gives the hashes of the whole registration."""
    cases = {
        "gsm8k": gsm8k(None),
        "mmlu_anatomy": mmlu("anatomy"),
        "starter_choice": None,
        "starter_instructions": None,
    }
    for name, splits in cases.items():
        files = {s: jsonl(tmp_path / name / f"{s}.jsonl", rows[:40]) for s, rows in (splits or {}).items()}
        spec = spec_of(name, data=files or None)
        registered = worker.call("lm_eval", "register", spec)
        elsewhere = spec_of(name)
        data = TaskData({0: registered.data.docs[0]}, [], registered.data.flags)
        found = worker.call("lm_eval", "identify", elsewhere, data, registered.fingerprint)
        assert found == (registered.task_hash, registered.config_hash), name
        other = worker.call("lm_eval", "identify", spec_of(name, num_fewshot=1), data, registered.fingerprint)
        assert (other != found) or registered.data.flags.num_fewshot == 0, name


@pytest.mark.slow
def test_ifeval_gives_every_doc_one_verdict(
    shared: Path, tmp_path: Path, worker: FrameworkWorker, punkt: None
) -> None:
    """Its letters and its language detector draw; real answers of GPT-4, scored in two processes."""
    spec = spec_of("ifeval", data={"train": jsonl(tmp_path / "train.jsonl", ifeval(None)["train"])})
    responses = {r["prompt"]: r["response"] for r in shared_rows("ifeval/responses_gpt-4-20231107.jsonl.gz")}
    with FrameworkWorker() as fresh:  # one that sees where punkt_tab is
        registered = fresh.call("lm_eval", "register", spec)
        prompts = {i: json.loads(text)["prompt"] for i, text in registered.data.docs.items()}
        texts = {i: responses[p] for i, p in prompts.items()}
        answers = answers_to(fresh, spec, registered.data, texts)
    first = scored(spec, registered, answers, "1")
    random.Random(5).shuffle(answers)
    assert scored(spec, registered, answers, "2") == first
    assert len(first) > 500


@pytest.mark.slow
def test_an_empty_environment_gives_the_same_floats(
    workspace: Workspace, tmp_path: Path, mongo_database_uri: str, postgres_database_uri: str
) -> None:
    """A new virtual environment with nothing but this package checks a bundle that MongoDB gave."""
    with on_servers(workspace, mongo_database_uri, postgres_database_uri) as other:
        write_bundle(other, KEY, tmp_path / "mongo.zip")
    venv.create(tmp_path / "new", with_pip=True)
    source = tmp_path / "checkout"  # building writes into the folder it builds
    source.mkdir()
    for name in ("testbench_dagster", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-r", str(REPOSITORY / name), str(source)], check=True)
    python = tmp_path / "new/bin/python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-compile", str(source)],
        check=True,
        timeout=1800,
    )
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [
            str(tmp_path / "new/bin/testbench"),
            "rescore",
            str(tmp_path / "mongo.zip"),
            "--trust-code",
            "--format",
            "json",
        ],
        cwd=tmp_path / "home",
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["findings"]) == (0, "equal", []), done.stderr
