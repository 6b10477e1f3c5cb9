"""testbench.yaml to leaf tasks: names, groups, paths, and every fault with its place."""

from __future__ import annotations

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.stages.configured_tasks import task_specs


@pytest.fixture
def configured(tmp_path):
    def specs(*tasks, **settings):
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump({"tasks": list(tasks), **settings}), encoding="utf-8")
        return task_specs(load_config(path))

    return specs


def test_a_task_is_its_own_leaf(configured):
    (spec,) = configured({"name": "starter_logic", "num_fewshot": 1, "metric": "exact_match"})
    assert {spec.name, spec.leaf, spec.root} == {"starter_logic"} and spec.group is None
    assert spec.num_fewshot == 1 and spec.metric == "exact_match" and spec.data is None
    assert spec.framework == "lm_eval"


def test_groups_and_tags_expand_in_order(configured):
    group = configured({"name": "starter_all"})
    assert [s.name for s in group][:2] == ["starter_arithmetic", "starter_logic"]
    assert {(s.root, s.group) for s in group} == {("starter_all", "starter_all")}
    tag = configured({"name": "starter"})
    assert {s.name for s in tag} == {s.name for s in group}
    assert {s.group for s in tag} == {"starter"}


def test_only_chooses_leaves_by_pattern(configured):
    specs = configured({"name": "starter_all", "only": ["starter_l*", "starter_choice"]})
    assert [s.name for s in specs] == ["starter_logic", "starter_choice"]
    assert {s.group for s in specs} == {"starter_all"}


def test_one_leaf_of_a_group_still_belongs_to_it(configured):
    (spec,) = configured({"name": "starter_all", "only": ["starter_logic"]})
    assert spec.group == "starter_all"


def test_aliases_keep_two_configurations_of_a_task_apart(configured):
    specs = configured(
        {"name": "starter_logic"},
        {"name": "starter_logic", "alias": "logic0", "num_fewshot": 0},
        {"name": "starter_all", "alias": "again", "only": ["starter_logic", "starter_units"]},
    )
    assert [(s.name, s.leaf, s.group) for s in specs] == [
        ("starter_logic", "starter_logic", None),
        ("logic0", "starter_logic", None),
        ("again__starter_logic", "starter_logic", "again"),
        ("again__starter_units", "starter_units", "again"),
    ]


def test_paths_are_filled_and_start_at_the_configuration(configured, tmp_path):
    specs = configured(
        {
            "name": "mmlu",
            "only": ["mmlu_anatomy", "mmlu_virology"],
            "data": {"test": "rows/{dataset_name}.jsonl", "dev": "/abs/{task}.csv", "where": {"s": "x"}},
            "where": {"subject": "{dataset_name}"},
        }
    )
    spec = {s.leaf: s for s in specs}["mmlu_virology"]
    assert spec.data == {"test": str(tmp_path / "rows/virology.jsonl"), "dev": "/abs/mmlu_virology.csv"}
    assert spec.where == {"s": "x", "subject": "virology"}


def test_include_folders_start_at_the_configuration(configured, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/t.yaml").write_text("task: t\n", encoding="utf-8")
    (spec,) = configured({"name": "t"}, task_paths=["own"])
    assert spec.include == (str(tmp_path / "own"),)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"name": "starter_logik"}], "unknown task 'starter_logik'; did you mean starter_logic"),
        (
            [{"name": "starter_logic"}, {"name": "starter_all"}],
            r"tasks\[1\]: duplicate task 'starter_logic' \(already configured through 'starter_logic'\)",
        ),
        (
            [{"name": "starter_all", "only": ["nope*"]}],
            r"tasks\[0\]\.only: 'nope\*' matches none of the 8 tasks",
        ),
        ([{"name": "starter_logic", "alias": "a|b"}], r"tasks\[0\]: 'a\|b' cannot be a partition key"),
        ([{"name": "starter_logic", "alias": "a...b"}], "cannot be a partition key"),
        (
            [{"name": "starter_logic", "data": {"test": "{dataset_name}.jsonl"}}],
            r"tasks\[0\]\.data\.test: .*uses \{dataset_name\}, but 'starter_logic' has none",
        ),
        (
            [{"name": "starter_logic", "where": {"s": "{dataset_name}"}}],
            r"tasks\[0\]\.where\.s: .*\{dataset_name\}",
        ),
    ],
)
def test_faults_are_named(tasks, message, configured):
    with pytest.raises(ConfigError, match=message):
        configured(*tasks)


def test_a_group_without_tasks_is_refused(configured, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/g.yaml").write_text("group: g\ntask: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tasks\[0\]: 'g' holds no tasks"):
        configured({"name": "g"}, task_paths=["own"])
    with pytest.raises(ConfigError, match=r"task_paths: .*absent is no folder"):
        configured({"name": "g"}, task_paths=["absent"])
