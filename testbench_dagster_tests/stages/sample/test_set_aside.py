"""A task that cannot be prepared is set aside with its reason; the others are loaded, asked and scored."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.set_aside import SetAsideRecord, VoidDocRecord
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.sample.catalogue import refresh_prompts, stale_tasks
from testbench_dagster.stages.sample.set_aside import (
    prepare_dataset,
    prepare_prompts,
    resting_tasks,
    tasks_set_aside,
    void_docs,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import FrameworkWorker

ROWS = [{"question": f"what is {n}?", "answer": str(n)} for n in range(6)]
GOOD = """
task: {name}
dataset_path: tests/quiz
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""

#: The same with a metric of its own, of which only its code knows what values it has.
REWARDED = """
task: {name}
dataset_path: tests/quiz
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function rewards.reward
metric_list: [{{metric: reward, aggregation: mean, higher_is_better: {higher}}}]
"""
REWARD = "def reward(doc, results):\n    return {'reward': 1.0 if results[0] == doc['answer'] else -1.0}\n"

Open = Callable[..., Workspace]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker) -> Iterator[Open]:
    """An installation with a good task of its own and others as the test wants them."""
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / "home"))
    own = tmp_path / "own"
    own.mkdir()
    made: list[Workspace] = []

    def build(*tasks: dict[str, Any] | str, yamls: dict[str, str] | None = None, **files: Any) -> Workspace:
        (own / "good.yaml").write_text(GOOD.format(name="good"), encoding="utf-8")
        for name, text in (yamls or {}).items():
            (own / name).write_text(text, encoding="utf-8")
        data = {"test": write(tmp_path / "good.jsonl", ROWS)}
        settings = {
            "tasks": [
                {"name": "good", "data": data},
                *({"name": task, "data": data} if isinstance(task, str) else task for task in tasks),
            ],
            "task_paths": ["own"],
            "suppliers": [{"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
        }
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        made.append(Workspace(load_config(path), worker=worker))
        return made[-1]

    yield build
    for workspace in made:
        workspace.close()


def prepare(workspace: Workspace) -> dict[str, str]:
    """Prepare all tasks, as the two assets do; return what is set aside."""
    for spec in workspace.specs:
        prepare_dataset(workspace, spec)
    for spec in workspace.specs:
        prepare_prompts(workspace, spec)
    return tasks_set_aside(workspace, workspace.specs)


def named(name: str, **changes: str) -> str:
    text = GOOD.format(name=name)
    for key, value in changes.items():
        text += f"{key}: {value}\n"
    return text


BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "unknown": ({}, "unknown task 'unknown'; see"),
    "goood": ({}, "unknown task 'goood'; did you mean good?"),
    "torn": (
        {"torn.yaml": "task: torn\ndoc_to_text: 'unclosed\n"},
        "its definition .*torn.yaml cannot be read",
    ),
    "split": (
        {"split.yaml": named("split").replace("test_split: test", "test_split: dev")},
        "its split 'dev'",
    ),
    "column": ({"column.yaml": named("column").replace("{{question}}", "{{absent}}")}, "lacks a column"),
    "package": (
        {
            "package.yaml": named("package", process_docs="!function needs.f"),
            "needs.py": "import nobody_has_it\n",
        },
        "needs the Python package 'nobody_has_it'",
    ),
    "dies": (
        {
            "dies.yaml": named("dies", process_docs="!function exits.f"),
            "exits.py": "import os\nos._exit(3)\n",
        },
        r"process ended \(exit code 3\)",
    ),
    "setting": ({"setting.yaml": named("setting", no_such_setting="1")}, "no_such_setting"),
    "metric": ({"metric.yaml": named("metric")}, "has no metric 'acc'"),
    "code": ({"code.yaml": named("code", unsafe_code="true")}, "runs code that the model wrote"),
    "raises": (
        {"raises.yaml": named("raises").replace("{{question}}", "{{answer}} {{ 7 // (answer | int - 5) }}")},
        "ZeroDivisionError",
    ),
    "kept": (
        {
            "kept.yaml": named("kept", process_docs="!function sets.f"),
            "sets.py": "class Docs(list):\n    features = {'question': 0, 'answer': 0}\n"
            "def f(docs):\n    return Docs({**doc, 'seen': {1}} for doc in docs)\n",
        },
        "cannot be kept as JSON: a builtins.set has no form in JSON",
    ),
}


@pytest.mark.slow
def test_each_broken_task_is_set_aside_with_its_reason(opened: Open, tmp_path: Path) -> None:
    data = {"test": str(tmp_path / "good.jsonl")}
    entries: list[dict[str, Any]] = [{"name": name, "data": data} for name in BROKEN if name != "metric"]
    entries += [{"name": "metric", "data": data, "metric": "acc"}]
    entries += [{"name": "file", "data": {"test": str(tmp_path / "absent.jsonl")}}]
    yamls = {file: text for files, _ in BROKEN.values() for file, text in files.items()}
    workspace = opened(*entries, yamls={**yamls, "file.yaml": named("file")})
    aside = prepare(workspace)
    assert set(aside) == {*BROKEN, "file"}
    for name, (_, told) in BROKEN.items():
        assert re.search(told, aside[name]), (name, aside[name])
    assert "absent.jsonl does not exist" in aside["file"]
    assert typed.count(workspace.documents, PromptRecord, {"task": "good"}) == len(ROWS)
    assert {spec.name for spec in stale_tasks(workspace, workspace.specs)} == set(aside), "tried again"
    told = {f.what: f for f in findings(workspace, suppliers=False)}
    assert all(told[f"task {name}"].failed for name in aside)
    assert told["task good"].ok


def test_one_bad_leaf_of_a_group_leaves_the_rest(opened: Open, tmp_path: Path) -> None:
    data = {"test": str(tmp_path / "good.jsonl")}
    group = "group: g\ntask: [one, bad, gone, two]\n"
    bad = named("bad", process_docs="!function nowhere.f")
    workspace = opened(
        {"name": "g", "data": data},
        yamls={"g.yaml": group, "one.yaml": named("one"), "two.yaml": named("two"), "bad.yaml": bad},
    )
    assert [spec.name for spec in workspace.specs] == ["good", "one", "bad", "gone", "two"]
    aside = prepare(workspace)
    assert set(aside) == {"bad", "gone"}
    assert "neither a file nowhere.py beside it" in aside["bad"]
    assert aside["gone"].startswith("group 'g' names 'gone', which is no task")


def test_where_no_name_is_a_task_the_file_is_wrong(opened: Open, tmp_path: Path) -> None:
    workspace = opened()
    text = workspace.config.path.read_text(encoding="utf-8")
    workspace.config.path.write_text(text.replace("name: good", "name: goodd"), encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown task 'goodd'; did you mean good"):
        _ = Workspace(load_config(workspace.config.path)).specs


def test_it_is_taken_back_once_the_cause_is_gone(opened: Open, tmp_path: Path) -> None:
    late = {"name": "late", "data": {"test": str(tmp_path / "late.jsonl")}}
    workspace = opened(late, yamls={"late.yaml": named("late")})
    assert "late" in prepare(workspace)
    (first,) = typed.find(workspace.documents, SetAsideRecord)
    assert (first.step, first.failures) == ("dataset", 1)
    assert resting_tasks(workspace, workspace.specs) == {"late"}, "sensors leave it alone for a while"
    soon = first.tried_at + timedelta(minutes=6)
    assert resting_tasks(workspace, workspace.specs, soon) == set()
    prepare(workspace)
    (again,) = typed.find(workspace.documents, SetAsideRecord)
    assert (again.since, again.failures) == (first.since, 2)
    assert again.retry_at - again.tried_at == 2 * (first.retry_at - first.tried_at)

    write(tmp_path / "late.jsonl", ROWS[:2])
    assert resting_tasks(workspace, workspace.specs) == set(), "its file is there: tried at once"
    assert prepare(workspace) == {}
    assert stale_tasks(workspace, workspace.specs) == []

    (tmp_path / "late.jsonl").unlink()
    assert set(prepare(workspace)) == {"late"}, "also a task that was registered before"
    write(tmp_path / "late.jsonl", ROWS[:2])
    assert {spec.name for spec in stale_tasks(workspace, workspace.specs)} == {"late"}
    assert prepare(workspace) == {}


def test_waits_grow_to_a_day_and_no_further(opened: Open) -> None:
    workspace = opened("unknown")
    spec = workspace.spec("unknown")
    for _ in range(12):
        prepare_dataset(workspace, spec)
    (record,) = typed.find(workspace.documents, SetAsideRecord)
    assert (record.failures, record.retry_at - record.tried_at) == (12, timedelta(hours=24))


def test_a_store_that_fails_is_no_task_s_fault(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = opened()

    def fails(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(workspace.datasets, "register", fails)
    with pytest.raises(StoreError, match="disk is full"):
        prepare_dataset(workspace, workspace.spec("good"))
    assert tasks_set_aside(workspace, workspace.specs) == {}


def test_a_reason_is_one_line_that_terminals_may_show(opened: Open) -> None:
    helper = "raise ValueError('a' * 5000 + chr(27) + '[31m')\n"
    yamls = {"odd.yaml": named("odd", process_docs="!function odd.f"), "odd.py": helper}
    (reason,) = prepare(opened("odd", yamls=yamls)).values()
    assert reason.isprintable() and len(reason) <= 1000


# --- docs that no store holds -------------------------------------------------------------------------


def test_a_doc_too_large_for_a_store_is_void(opened: Open, tmp_path: Path) -> None:
    """It has its place in the sequence, is never sent, and everybody is told; the other docs are asked."""
    rows = [
        *ROWS,
        {"question": "x" * (17 << 20), "answer": "6"},
        {"question": "y", "answer": "z" * (17 << 20)},
    ]
    data = {"test": write(tmp_path / "large.jsonl", rows)}
    workspace = opened(
        {"name": "large", "data": data, "samples": "all"}, yamls={"large.yaml": named("large")}
    )
    assert prepare(workspace) == {}
    void = list(typed.find(workspace.documents, VoidDocRecord))
    assert sorted(doc.doc_id for doc in void) == [6, 7]
    assert all("a document may take at most 16,777,216" in doc.reason for doc in void)
    prompts = list(typed.find(workspace.documents, PromptRecord, {"task": "large"}))
    assert sorted(p.position for p in prompts) == list(range(8)), "every place is taken"
    assert sorted(p.doc_id for p in prompts if not p.relayable) == [6, 7]
    assert stale_tasks(workspace, workspace.specs) == [], "nothing is missing"
    report = refresh_prompts(workspace, workspace.spec("large"))
    assert (report.built, report.void, report.relayable) == (0, 2, True)
    (told,) = void_docs(workspace, workspace.specs).values()
    assert told.startswith("2 docs count nowhere and nobody is asked: doc 6: its prompt cannot be stored")


@pytest.mark.slow
def test_a_large_column_that_no_prompt_shows_is_asked(opened: Open, tmp_path: Path) -> None:
    rows = [{**row, "picture": "p" * (17 << 20)} for row in ROWS[:1]]
    data = {"test": write(tmp_path / "large.jsonl", rows)}
    workspace = opened({"name": "large", "data": data}, yamls={"large.yaml": named("large")})
    assert prepare(workspace) == {}
    assert void_docs(workspace, workspace.specs) == {}


def test_targets_of_any_type_are_kept(opened: Open, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "dates.parquet"
    day = dt.date(2024, 2, 29)
    columns = {
        "question": ["q", "r"],
        "answer": pa.array([day, None]),
        "big": pa.array([2**64 - 1, 0], pa.uint64()),
    }
    pq.write_table(pa.table(columns), file)
    text = named("dates").replace('"{{answer}}"', "answer").replace("{{question}}", "{{big}} {{answer}}")
    workspace = opened({"name": "dates", "data": {"test": str(file)}}, yamls={"dates.yaml": text})
    assert prepare(workspace) == {}
    found = {p.doc_id: p for p in typed.find(workspace.documents, PromptRecord, {"task": "dates"})}
    assert found[0].requests[0]["messages"][0]["content"] == f"Q: {2**64 - 1} 2024-02-29"


def test_the_clock_of_a_record_is_aware(opened: Open) -> None:
    workspace = opened("unknown")
    before = datetime.now(UTC) - timedelta(seconds=1)
    prepare(workspace)
    (record,) = typed.find(workspace.documents, SetAsideRecord)
    assert record.tried_at > before


def test_specs_name_their_problem(opened: Open) -> None:
    spec: TaskSpec = opened("unknown").spec("unknown")
    assert spec.problem is not None and spec.data is None


@pytest.mark.parametrize("higher", [True, False])
def test_check_names_tasks_of_which_only_the_answers_say_what_a_failed_doc_is_worth(
    opened: Open, higher: bool
) -> None:
    yamls = {"rewarded.yaml": REWARDED.format(name="rewarded", higher=higher), "rewards.py": REWARD}
    told = {f.what: f.detail for f in findings(opened("rewarded", yamls=yamls), suppliers=False) if f.warning}
    assert "score of good" not in told
    assert "which values 'reward' may have" in told["score of rewarded"]
    assert (
        f"say with worst: what it may be at worst (worst: {0 if higher else 1} " in told["score of rewarded"]
    )
    data = {"test": str(opened().config.path.parent / "good.jsonl")}
    settled = opened({"name": "rewarded", "worst": -1.0, "data": data}, yamls=yamls)
    assert not [f for f in findings(settled, suppliers=False) if f.what.startswith("score of")]
