"""The index says what lm-eval's own says, from a cache, without importing lm_eval."""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks import index as index_module
from testbench_dagster.tasks.index import CACHE_ENV, TaskIndex, build_index, lm_eval_tasks

# lm-eval's own expansion gives every leaf of these nested groups the nested group's name, so that one task
# replaces 57: the index keeps the leaves, and registering one of them says that it is no part of the group
RENAMED_BY_LM_EVAL = {"openllm"}


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_ENV, str(folder))
    return folder


@pytest.fixture
def parses(monkeypatch) -> list[Path]:
    """Folders that were parsed rather than read from the cache."""
    seen: list[Path] = []

    def counted(folder: Path):
        seen.append(folder)
        return build_index(folder)

    monkeypatch.setattr(index_module, "build_index", counted)
    return seen


def names(index: TaskIndex, name: str) -> list[str]:
    return [leaf.name for leaf in index.leaves(name)]


# --- against lm-eval -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    return TaskManager().task_index


@pytest.mark.slow
def test_all_entries_are_those_of_the_task_manager(stock):
    kinds = {"TASK": "task", "PY_TASK": "python", "GROUP": "group", "TAG": "tag"}
    mine = build_index(lm_eval_tasks())
    assert len(mine) > 14_000

    def theirs(entry: Any) -> tuple[Any, ...]:
        kind = kinds[entry.kind.name]
        path = None if entry.yaml_path is None else str(entry.yaml_path)
        return kind, path, tuple(sorted(entry.tags)) if kind == "tag" else ()

    def ours(entry: Any) -> tuple[Any, ...]:
        return entry.kind, entry.path, tuple(sorted(entry.members)) if entry.kind == "tag" else ()

    assert {n: ours(e) for n, e in mine.items()} == {n: theirs(e) for n, e in stock.items()}


@pytest.mark.slow
def test_leaves_of_all_groups_and_tags_are_those_of_the_factory(stock, monkeypatch):
    import lm_eval.tasks._factory as factory
    from lm_eval.tasks._yaml_loader import load_yaml

    class Recorder:
        """Takes the place of every task class; only its name matters here."""

        def __init__(self, config: dict[str, Any]) -> None:
            self.task_name = config["task"]
            built.append(config["task"])

    parsed: dict[Path, Any] = {}

    def without_functions(path: Path, resolve_func: bool = True) -> Any:
        # importing the helpers of 14,000 tasks would need packages and downloads; names need none of them
        if path not in parsed:
            parsed[path] = mean_aggregations(load_yaml(path, resolve_func=False))
        return parsed[path]

    def mean_aggregations(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: "mean" if k == "aggregation" else mean_aggregations(v) for k, v in value.items()}
        return [mean_aggregations(v) for v in value] if isinstance(value, list) else value

    monkeypatch.setattr(factory, "load_yaml", without_functions)
    monkeypatch.setattr(factory, "ConfigurableTask", Recorder)
    index = TaskIndex.load()
    compared, unbuildable, wrong = 0, set(), {}
    for name, entry in stock.items():
        if entry.kind.name not in ("GROUP", "TAG") or name in RENAMED_BY_LM_EVAL:
            continue
        built: list[str] = []
        try:
            factory.TaskFactory().build(entry, overrides={"class": Recorder}, registry=dict(stock))
        except (TypeError, ValueError):
            unbuildable.add(name)
            continue
        mine = [leaf.name for leaf in index._expand(name)]  # leaves() refuses Python tasks
        compared += 1
        if list(dict.fromkeys(mine)) != list(dict.fromkeys(built)):
            wrong[name] = (sorted(set(mine) ^ set(built)), len(mine), len(built))
    assert not wrong
    assert compared > 1500
    assert unbuildable == {"t0_eval", "toksuite_abridged"}


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "bbh_cot_fewshot", "ai2_arc"])
def test_known_names_expand(name):
    expected = {"gsm8k": 1, "mmlu": 57, "bbh_cot_fewshot": 27, "ai2_arc": 2}
    index = TaskIndex.load(wanted=[name])
    leaves = index.leaves(name)
    assert len(leaves) == len({leaf.name for leaf in leaves}) == expected[name]
    assert all(leaf.entry is not None and Path(leaf.entry.path).is_file() for leaf in leaves)


def test_dataset_names_come_with_the_leaves():
    leaves = {leaf.name: leaf for leaf in TaskIndex.load(wanted=["mmlu"]).leaves("mmlu")}
    assert leaves["mmlu_anatomy"].entry.dataset_name == "anatomy"


def test_python_tasks_are_refused_by_name(stock_python_task):
    (leaf,) = TaskIndex.load().leaves(stock_python_task)
    assert leaf.problem is not None
    assert leaf.problem.startswith(f"task {stock_python_task!r} is a Python task of lm-eval, which is not")


@pytest.fixture
def stock_python_task() -> str:
    entries = TaskIndex.load().entries
    return next(name for name, entry in entries.items() if entry.kind == "python")


def test_unknown_names_get_suggestions():
    index = TaskIndex.load(wanted=["starter_all"])
    with pytest.raises(TaskError, match=r"unknown task 'starter_logics'; did you mean starter_logic"):
        index.leaves("starter_logics")
    with pytest.raises(TaskError, match="task_paths"):
        index.leaves("qqqqqqqqqqqq")


# --- own folders -----------------------------------------------------------------------------------------


def test_own_folders_win_over_lm_eval_and_later_ones_over_earlier(tmp_path):
    first = write(tmp_path / "first", a="task: gsm8k\ndataset_name: one\n", b="task: mine\ntag: [x, y]\n")
    second = write(tmp_path / "second", c="task: mine\ntag: x\n")
    index = TaskIndex.load([first, second])
    assert index.entries["gsm8k"].path == str(first / "a.yaml")
    assert index.entries["mine"].path == str(second / "c.yaml")
    assert names(index, "y") == ["mine"] == names(index, "x")


def test_groups_expand_as_the_factory_does(tmp_path):
    folder = write(
        tmp_path / "own",
        a="task: a\ntag: letters\n",
        b="task: b\ntag: letters\n",
        nested="group: nested\ntask: [b, letters]\n",
        top="""
group: top
task:
  - nested
  - group: inner
    task:
      - a
      - task: made_here
        dataset_path: x
  - task: a
    num_fewshot: 3
""",
    )
    index = TaskIndex.load([folder], ["top"])
    assert names(index, "top") == ["b", "a", "top::inner::made_here"]
    assert [leaf.entry is None for leaf in index.leaves("top")] == [False, False, True]


def test_a_group_that_names_no_known_task_is_an_error(tmp_path):
    folder = write(tmp_path / "own", g="group: g\ntask: [starter_logics]\n")
    (leaf,) = TaskIndex.load([folder], ["g"]).leaves("g")
    assert (leaf.name, leaf.entry) == ("starter_logics", None)
    assert leaf.problem is not None
    assert leaf.problem.startswith(
        "group 'g' names 'starter_logics', which is no task; did you mean starter_"
    )


def test_one_missing_member_leaves_the_others(tmp_path):
    folder = write(
        tmp_path / "own", g="group: g\ntask: [starter_logic, absent, {task: gone}, starter_units]\n"
    )
    leaves = TaskIndex.load([folder], ["g"]).leaves("g")
    assert [leaf.name for leaf in leaves] == ["starter_logic", "absent", "g::gone", "starter_units"]
    assert [leaf.problem is None for leaf in leaves] == [True, False, True, True]


def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path):
    folder = write(
        tmp_path / "own",
        good="task: good\n",
        broken="task: broken_one\ndoc_to_text: 'unclosed\n",
        lost="task: 'lost'  # with a base that is not there\ninclude: absent.yaml\n",
    )
    index = TaskIndex.load([folder], ["good"])
    with pytest.raises(
        TaskError, match=r"task 'broken_one': its definition .*broken\.yaml cannot be read: .*line"
    ):
        index.leaves("broken_one")
    with pytest.raises(TaskError, match=r"task 'lost': its definition .*lost\.yaml .*absent\.yaml"):
        index.leaves("lost")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("babisteps-chat_zero_shot-task_01-simpletracking", "judged by the service of a-vert"),
        ("bbh-split_03-date_understanding", "measure bbh_zeroshot_"),
        ("mmlu_anatomy_chat_generative", "measure mmlu_*_generative of lm-eval"),
        ("mmlu_pro-category_math", "measure mmlu_pro_*"),
        ("t-eval_pnyx_review-str-v2", "conversations with tools"),
        ("debugbench_python_hard_sandbox_chat", "runs code that the model wrote"),
    ],
)
def test_tasks_of_the_fork_are_named_as_such(name, told):
    with pytest.raises(TaskError) as caught:
        TaskIndex.load([], [name]).leaves(name)
    text = str(caught.value)
    assert text.startswith(f"task {name!r} is a task of pocket-ml-testbench's lm-eval fork, not in lm-eval")
    assert told in text and text.endswith("add the folder with its YAML to task_paths, or remove it")


def test_no_task_of_lm_eval_is_taken_for_one_of_the_fork():
    from testbench_dagster.tasks.fork_tasks import FORK_TASKS, fork_task_text

    entries = TaskIndex.load().entries
    assert [name for name in entries if fork_task_text(name)] == []
    for task in FORK_TASKS:
        for nearest in filter(None, task.nearest.split(", ")):
            assert any(fnmatch.fnmatchcase(name, nearest) for name in entries), nearest


def test_a_group_within_itself_is_an_error(tmp_path):
    folder = write(tmp_path / "own", g="group: g\ntask: [h]\n", h="group: h\ntask: [g]\n")
    with pytest.raises(TaskError, match="'g' contains itself"):
        TaskIndex.load([folder], ["g"]).leaves("g")


def test_includes_functions_and_broken_files(tmp_path, cache):
    folder = write(
        tmp_path / "own",
        base="dataset_name: shared\ntag: t\nprocess_docs: !function helper.process\n",
        child="include: base.yaml\ntask: child\n",
        cycle="include: cycle.yaml\ntask: cycle\n",
        broken="task: [unclosed\n",
        text="just text\n",
    )
    entries = build_index(folder)
    assert set(entries) == {"child", "t"}
    assert entries["child"].dataset_name == "shared"


def test_of_two_definitions_the_first_in_path_order_wins(tmp_path):
    folder = write(tmp_path / "own", b="task: twice\ndataset_name: b\n", a="task: twice\ndataset_name: a\n")
    assert build_index(folder)["twice"].dataset_name == "a"


def test_a_folder_that_is_not_there_is_named(tmp_path, cache):
    with pytest.raises(TaskError, match=r"task_paths: .*absent is no folder"):
        TaskIndex.load([tmp_path / "absent"])


# --- cache -----------------------------------------------------------------------------------------------


def test_the_second_load_parses_nothing_and_is_equal(tmp_path, cache, parses):
    folder = write(tmp_path / "own", a="task: a\ntag: t\n", g="group: g\ntask: [a, {task: b, x: 1}]\n")
    first = TaskIndex.load([folder], ["a"])
    assert folder in parses
    parses.clear()
    assert TaskIndex.load([folder], ["a"]) == first
    assert parses == []


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_a_changed_folder_is_parsed_again(change, tmp_path, cache, parses):
    folder = write(tmp_path / "own", a="task: a\n", b="task: b\n")
    TaskIndex.load([folder], ["a"])
    parses.clear()
    if change == "edit":
        path = folder / "b.yaml"
        state = path.stat()
        path.write_text("task: c\n", encoding="utf-8")  # same size
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    elif change == "add":
        write(folder / "below", c="task: c\n")
    elif change == "remove":
        (folder / "b.yaml").unlink()
    else:
        (folder / "b.yaml").rename(folder / "c.yaml")
    entries = TaskIndex.load([folder], ["a"]).entries
    assert parses == [folder]
    expected = {"edit": {"a", "c"}, "add": {"a", "b", "c"}, "remove": {"a"}, "rename": {"a", "b"}}
    assert {n for n, e in entries.items() if (e.path or "").startswith(str(folder))} == expected[change]


def test_a_damaged_cache_is_rebuilt(tmp_path, cache, parses):
    folder = write(tmp_path / "own", a="task: a\n")
    first = TaskIndex.load([folder], ["a"])
    files = list(cache.glob("index-*.json"))
    assert files and not list(cache.glob("*.tmp"))
    for damage in ("", "{", "[1]", json.dumps({"a": {"unknown_field": 1, "kind": "task"}})):
        for file in files:
            file.write_text(damage, encoding="utf-8")
        parses.clear()
        assert TaskIndex.load([folder], ["a"]) == first
        assert folder in parses, damage


def test_a_cache_that_cannot_be_written_costs_no_correctness(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    monkeypatch.setenv(CACHE_ENV, str(blocked))
    folder = write(tmp_path / "own", a="task: a\n")
    assert names(TaskIndex.load([folder], ["a"]), "a") == ["a"]


def test_lm_evals_folder_is_left_alone_when_nothing_in_it_is_wanted(monkeypatch, tmp_path):
    asked = []
    cached = index_module._cached
    monkeypatch.setattr(index_module, "_cached", lambda *a: asked.append(a[0]) or cached(*a))
    folder = write(tmp_path / "own", a="task: a\n", g="group: g\ntask: [a, starter_logic]\n")
    TaskIndex.load([folder], ["g", "starter_all"])
    assert lm_eval_tasks() not in asked
    TaskIndex.load([folder], ["g", "gsm8k"])
    assert lm_eval_tasks() in asked


def test_cached_load_parses_nothing_and_imports_no_lm_eval(tmp_path):
    import subprocess
    import sys

    TaskIndex.load(wanted=["gsm8k"])
    code = inspect.cleandoc("""
        import sys
        from testbench_dagster.tasks import index
        parsed = []
        index.build_index = parsed.append
        assert len(index.TaskIndex.load(wanted=["mmlu"]).leaves("mmlu")) == 57
        assert not parsed, parsed
        heavy = {"lm_eval", "datasets", "pandas", "numpy", "yaml"} & set(sys.modules)
        assert not heavy - {"yaml"}, heavy
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# --- packaged index --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_packaged_index_is_what_the_installed_lm_eval_holds(tmp_path, cache, parses):
    loaded = TaskIndex.load(wanted=["gsm8k"]).entries
    assert lm_eval_tasks() not in parses, "the first load of an installation parses none of lm-eval's files"
    built = build_index(lm_eval_tasks())
    assert {name: entry for name, entry in loaded.items() if name in built} == built
