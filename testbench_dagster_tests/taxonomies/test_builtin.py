"""The taxonomies that come with the package: their tasks exist, chat suppliers can answer the chat ones."""

from pathlib import Path

import pytest

from testbench_dagster.config import load_config
from testbench_dagster.core.task import CHAT_CHOICE_MARK
from testbench_dagster.localnet.demo import TWIN_TASK, demo_settings
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.chat_choice.definition import is_choice
from testbench_dagster.tasks.fresh.generators import FRESH_TASKS
from testbench_dagster.tasks.index import TaskIndex, _Loader
from testbench_dagster.tasks.tools import TASKS as TOOL_TASKS
from testbench_dagster.taxonomies.load import builtin_names, load_taxonomy
from testbench_dagster_tests.tasks.layouts import REPOSITORY

#: Tasks of frameworks that have names of their own.
OTHERS = {*TOOL_TASKS, *FRESH_TASKS}
ROOT = REPOSITORY
DOCS = ROOT / "docs" / "taxonomies"
OWN = [name for name in builtin_names() if name not in ("starter", "demo")]


@pytest.fixture(scope="module")
def index() -> TaskIndex:
    return TaskIndex.load()


def builtin(name):
    return load_taxonomy(f"builtin:{name}", Path("/nowhere"))


def plain(task):
    """The task of lm-eval that is asked, by letters or as it is."""
    return task.removesuffix(CHAT_CHOICE_MARK)


def test_there_are_four_of_our_own():
    assert {"general", "reasoning_math", "chat_only", "fresh"} <= set(OWN)


def test_fresh_items_are_grouped_each_once():
    tasks = [task for tasks in builtin("fresh").nodes.values() for task in tasks]
    assert sorted(tasks) == sorted(FRESH_TASKS)


@pytest.mark.parametrize("name", OWN)
def test_every_task_is_one_of_lm_evals_or_a_group_or_of_others_and_none_counts_twice(index, name):
    taxonomy = builtin(name)
    of_lm_eval = [task for task in taxonomy.tasks() if task not in OTHERS]
    groups = {task: tuple(leaf.name for leaf in index.leaves(plain(task))) for task in of_lm_eval}
    expanded = taxonomy.with_groups(groups)  # raises where a task would count twice
    assert len(expanded.leaves()) >= len(taxonomy.tasks()) >= 20


@pytest.mark.parametrize("name", ["chat_only", "reasoning_math", "fresh"])
def test_who_only_chats_can_be_asked_all_of_it(index, name):
    load = _Loader()
    for task in builtin(name).tasks():
        if task in OTHERS:
            continue
        for leaf in index.leaves(plain(task)):
            if task.endswith(CHAT_CHOICE_MARK):
                assert is_choice(leaf.entry), task
            else:
                assert load(Path(leaf.entry.path))["output_type"] == "generate_until", task


def test_the_demos_taxonomy_has_what_the_demo_asks():
    asked = {task["name"] + CHAT_CHOICE_MARK * ("mode" in task) for task in demo_settings([])["tasks"]}
    # neither measures an ability: how answers begin, and who knows public questions alone
    assert set(builtin("demo").tasks()) == asked - {"identity", TWIN_TASK}
    assert set(builtin("starter").tasks()) < asked, "who asks the starter catalog alone misses nothing"


@pytest.mark.parametrize("name", OWN)
def test_each_has_a_page_that_names_its_nodes_and_tasks(name):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    taxonomy = builtin(name)
    assert [node for node in taxonomy.nodes if node not in page] == []
    assert [task for task in taxonomy.tasks() if task.removeprefix("bbh_cot_fewshot_") not in page] == []
    assert f"({name}.md)" in (DOCS / "README.md").read_text(encoding="utf-8")


def test_the_example_configures_every_task_of_its_taxonomy(tmp_path, monkeypatch):
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path))
    config = load_config(ROOT / "examples" / "taxonomy-chat-only.yaml")
    assert task_specs(config)
    with Workspace(config) as workspace:
        (taxonomy,) = configured_taxonomies(workspace)
        assert taxonomy.name == "chat_only"
        assert set(taxonomy.leaves()) <= {spec.name for spec in workspace.specs}
