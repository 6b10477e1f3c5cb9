"""Fresh items over HTTP against a real simulated network: drawn, answered, scored, disputed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.tasks.fresh import items
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute.forging import edited
from testbench_dagster_tests.tasks.fresh.drawing import needs_package, needs_sandbox
from testbench_dagster_tests.tasks.signatures.simulated import evaluated, prepared

pytestmark = [needs_package, pytest.mark.slow]

#: One whose check is equality, one that knows other writings, one with answers in words.
TASKS = ("fresh_gcd", "fresh_chain_sum", "fresh_knights_knaves")
DOCS = 20
PEOPLE = {"oracle": 1.0, "fair": 0.6, "hopeless": 0.0}


def installation(folder: Path, net: LocalnetProcess, tasks=TASKS) -> Workspace:
    suppliers = [
        {"address": s["address"], "service": "s", "base_url": s["base_url"], "model": s["model"]}
        for s in net.roster()
        if s["address"] in PEOPLE
    ]
    entries = [{"name": name, "framework": "fresh", "samples": DOCS} for name in tasks]
    settings = {
        "simulation": True,
        "suppliers": suppliers,
        "tasks": entries,
        "taxonomies": ["builtin:fresh"],
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Workspace(load_config(path))


def drawn(workspace: Workspace) -> list[PromptRecord]:
    return list(typed.find(workspace.documents, PromptRecord, {"api": "chat"}))


def taught(net: LocalnetProcess, prompts: list[PromptRecord]) -> None:
    """Tell the network what was drawn, as nobody can tell a supplier."""
    net.learn(
        {
            "text": prompt.requests[0]["messages"][0]["content"],
            "answer": f"<answer>{prompt.target}</answer>",
            "wrong": [f"<answer>not {prompt.target}</answer>", "<answer>7.5</answer>"],
            "task": prompt.task,
        }
        for prompt in prompts
    )


@pytest.fixture(scope="module")
def net() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=1, latency_ms=0, fail_rate=0) as running:
        for address, accuracy in PEOPLE.items():
            running.join(address, accuracy=accuracy, latency_ms=0)
        yield running


@pytest.fixture(scope="module")
def workspace(net: LocalnetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with installation(tmp_path_factory.mktemp("fresh"), net) as opened:
        prepared(opened)
        taught(net, drawn(opened))
        evaluated(opened)
        yield opened


def test_an_oracle_is_right_and_the_hopeless_is_not(workspace: Workspace) -> None:
    rows = {(row.address, row.task): row for row in windows(workspace) if row.primary}
    for task in TASKS:
        assert {row.n for (_, of), row in rows.items() if of == task} == {DOCS}
        assert rows["oracle", task].score == 1.0
        assert rows["hopeless", task].score == 0.0
        assert rows["oracle", task].metric == "correct"
    fair = sum(rows["fair", task].score for task in TASKS) / len(TASKS)
    assert 0.3 < fair < 0.9, "as often as its accuracy says"
    answered = [row for row in windows(workspace) if row.metric == "answered"]
    assert {row.score for row in answered} == {1.0}
    assert {a["fault"] for a in workspace.documents.find(ATTEMPTS, {})} == {"ok"}


def test_question_and_answer_stand_with_the_prompt(workspace: Workspace) -> None:
    for prompt in drawn(workspace):
        request = prompt.requests[0]
        generator = prompt.task.removeprefix("fresh_")
        entry = items.made(generator, request["item_seed"])[1]
        assert (entry["question"], entry["answer"]) == (request["question"], prompt.target)
        assert request["messages"][0]["content"].startswith(entry["question"].strip())


def test_another_installation_is_asked_other_questions(workspace, net, tmp_path) -> None:
    with installation(tmp_path, net) as other:
        prepared(other)
        here = {prompt.requests[0]["question"] for prompt in drawn(workspace)}
        there = {prompt.requests[0]["question"] for prompt in drawn(other)}
    assert not here & there


def test_a_bundle_is_computed_again_offline_and_a_changed_answer_shows(workspace, tmp_path) -> None:
    path = tmp_path / "oracle.zip"
    write_bundle(workspace, "oracle@s", path, tasks=list(TASKS))
    with FrameworkWorker() as worker:
        report = rescore(path, worker=worker)
        assert report.equal, list(report.lines())

        def other_gold(rows):
            for prompt in rows:
                prompt["target"] = "another"

        assert not rescore(
            edited(path, tmp_path / "gold.zip", "prompts.jsonl", other_gold), worker=worker
        ).equal

        def other_value(rows):
            for score in rows:
                score["metrics"]["correct"] = 0.0

        assert not rescore(
            edited(path, tmp_path / "value.zip", "scores.jsonl", other_value), worker=worker
        ).equal


@needs_sandbox
def test_answers_are_scored_anew_from_what_is_stored(workspace) -> None:
    before = {s["_id"]: s["metrics"] for s in workspace.documents.find(SCORES, {})}
    for task in TASKS:
        workspace.documents.purge(SCORES, {"task": task})
    assert workspace.documents.count(SCORES) == 0
    score_new(workspace, [f"{name}@s" for name in PEOPLE])
    assert {s["_id"]: s["metrics"] for s in workspace.documents.find(SCORES, {})} == before
    assert len(before) == len(TASKS) * DOCS * len(PEOPLE)


def test_check_lists_the_tasks(workspace) -> None:
    said = {f.what: f for f in findings(workspace, suppliers=False)}
    for name in TASKS:
        assert said[f"task {name}"].ok and "500 docs, 0-shot, generate_until" in said[f"task {name}"].detail
    assert said["taxonomy fresh"].detail == "3 of its 30 tasks configured"


def test_without_the_package_other_tasks_go_on(net, tmp_path, monkeypatch) -> None:
    """The package is hidden from the worker, which is another process."""
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "known = m.version\n"
        "def version(name):\n"
        "    if name == 'reasoning-gym': raise m.PackageNotFoundError(name)\n"
        "    return known(name)\n"
        "m.version = version\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hiding), prepend=":")
    with installation(tmp_path, net) as opened:
        path = opened.config.path
    settings = yaml.safe_load(path.read_text())
    settings["tasks"] = [{"name": "fresh_gcd", "framework": "fresh"}, {"name": "starter_units", "samples": 5}]
    settings["taxonomies"] = []
    path.write_text(yaml.safe_dump(settings))
    with Workspace(load_config(path)) as opened:
        said = {f.what: f for f in findings(opened, suppliers=False)}
    assert not said["task fresh_gcd"].ok
    assert "pip install 'testbench_dagster[fresh]'" in said["task fresh_gcd"].detail
    assert said["task starter_units"].ok, json.dumps({w: f.detail for w, f in said.items()})
