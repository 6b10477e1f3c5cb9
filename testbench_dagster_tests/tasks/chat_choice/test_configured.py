"""Configuring choices on chat: per task, or for all suppliers that only chat."""

from __future__ import annotations

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.configured_tasks import configured_tasks, task_specs
from testbench_dagster_tests.tasks.quiz import YAML

SUPPLIERS = [
    {"address": api, "service": "x", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": api}
    for api in ("chat", "completions")
]


@pytest.fixture
def configured(tmp_path):
    def specs(*tasks, **settings):
        path = tmp_path / "testbench.yaml"
        path.write_text(yaml.safe_dump({"tasks": list(tasks), **settings}), encoding="utf-8")
        config = load_config(path)
        return task_specs(config)

    return specs


def test_a_mode_is_another_task_with_a_mark_in_its_name(configured):
    plain, chat = configured({"name": "starter_choice"}, {"name": "starter_choice", "mode": "chat_choice"})
    assert (plain.name, plain.framework) == ("starter_choice", "lm_eval")
    assert (chat.name, chat.framework) == ("starter_choice~chat", "chat_choice")
    assert plain.leaf == chat.leaf == chat.root == "starter_choice"


def test_a_group_and_an_alias_have_the_mark_too(configured):
    group = {"name": "starter_all", "only": ["starter_choice"], "mode": "chat_choice"}
    one, other = configured(group, {**group, "alias": "mine"})
    assert (one.name, one.group) == ("starter_choice~chat", "starter_all~chat")
    assert (other.name, other.group) == ("mine__starter_choice~chat", "mine~chat")


def test_a_group_on_chat_has_the_metric_of_its_tasks(tmp_path):
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "mmlu", "mode": "chat_choice"}]}), encoding="utf-8")
    found = configured_tasks(load_config(path))
    (whole,) = [group for group in found.groups if group.name == "mmlu~chat"]
    assert len(whole.tasks) == len(found.specs) == 57 and whole.root == "mmlu~chat"
    assert set(whole.tasks) == {spec.name for spec in found.specs}
    assert {metric.metric for group in found.groups for metric in group.metrics} == {"letter_acc"}


def groups(folder, *tasks, **settings):
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": list(tasks), **settings}), encoding="utf-8")
    return {group.name: group for group in configured_tasks(load_config(path)).groups}


def test_one_setting_gives_groups_a_score_of_each_form(tmp_path):
    """lm-eval's mmlu is of acc, mmlu~chat of letter_acc, each over tasks of its own form alone."""
    found = groups(tmp_path, {"name": "mmlu"}, choices_on_chat=True, suppliers=SUPPLIERS)
    plain = [name for name in found if not name.endswith("~chat")]
    assert len(plain) == 5 and list(found) == [*plain, *(f"{name}~chat" for name in plain)]
    for name in plain:
        one, chat = found[name], found[f"{name}~chat"]
        assert chat.tasks == tuple(f"{task}~chat" for task in one.tasks)
        assert chat.root == "mmlu~chat" and one.root == "mmlu"
        assert [metric.metric for metric in one.metrics] == ["acc"]
        assert [(m.metric, m.weight_by_size) for m in chat.metrics] == [
            ("letter_acc", one.metrics[0].weight_by_size)
        ]


MIXED = """
group: mixed
task: [starter_choice, starter_logic]
aggregate_metric_list: [{metric: acc, weight_by_size: false}]
"""


def test_a_score_never_mixes_forms(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "mixed.yaml").write_text(MIXED)
    (mine / "alone.yaml").write_text(MIXED.replace("mixed", "alone").replace(", starter_logic", ""))
    settings = {"task_paths": ["mine"], "choices_on_chat": True, "suppliers": SUPPLIERS}
    chat = groups(tmp_path, {"name": "mixed"}, **settings)["mixed~chat"]
    assert (chat.tasks, chat.metrics) == (("starter_choice~chat",), ())
    assert chat.problem == (
        "group 'mixed~chat' has no score: 'starter_logic' cannot be asked as a choice on chat, and a score "
        "never mixes the forms; its other tasks have scores of their own, such as 'starter_choice~chat'"
    )
    alone = groups(tmp_path, {"name": "alone"}, **settings)["alone~chat"]
    assert [(m.metric, m.weight_by_size) for m in alone.metrics] == [("letter_acc", False)]
    assert alone.problem is None


def test_groups_of_one_name_are_refused(tmp_path):
    tasks = ({"name": "mmlu"}, {"name": "mmlu_stem", "alias": "mmlu_stem"})
    with pytest.raises(ConfigError, match="'mmlu_stem' has the name of another configured group; give one"):
        groups(tmp_path, *tasks)
    with pytest.raises(ConfigError, match="'mmlu' has the name of another configured task; give one"):
        groups(tmp_path, {"name": "mmlu"}, {"name": "starter_logic", "alias": "mmlu"})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "starter_choice", "mode": "chat"}, r"tasks\[0\].mode: .*'chat_choice'"),
        ({"name": "identity", "framework": "signatures", "mode": "chat_choice"}, "mode means nothing to"),
        ({"name": "starter_choice", "mode": "chat_choice", "worst": 0}, "worst means nothing to"),
    ],
)
def test_what_cannot_be_is_named(task, message, configured):
    with pytest.raises(ConfigError, match=message):
        configured(task)


def test_one_setting_asks_all_choices_of_whoever_only_chats(configured, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/quiz.yaml").write_text(YAML.replace("process_docs: !function helper.process\n", ""))
    tasks = [
        {"name": "starter_choice", "metric": "acc", "num_fewshot": 1, "samples": 30},
        {"name": "starter_logic"},
        {"name": "quiz"},
        {"name": "identity", "framework": "signatures"},
    ]
    settings = {"suppliers": SUPPLIERS, "task_paths": ["mine"]}
    assert len(configured(*tasks, **settings)) == 4
    specs = {spec.name: spec for spec in configured(*tasks, choices_on_chat=True, **settings)}
    names = list(specs)
    assert names[:2] == ["starter_choice", "starter_choice~chat"]
    assert not any(name.endswith("~chat") for name in ("quiz", "identity", *names[2:]))
    chat = specs["starter_choice~chat"]
    assert (chat.metric, chat.num_fewshot, chat.samples.max) == (None, 1, 30)
    chats, echoes = (
        Supplier(address=api, service="x", base_url="http://127.0.0.1:9", api=api, model="m")
        for api in ("chat", "completions")
    )
    assert chat.asked_of(chats) and not chat.asked_of(echoes)
    assert specs["starter_choice"].asked_of(chats) and specs["starter_choice"].asked_of(echoes)
    assert chat.applies.why_not(echoes) == (
        "choices_on_chat is for chat, and the API of completions@x is completions"
    )


def test_what_is_configured_so_itself_stays_as_it_is(configured):
    tasks = ({"name": "starter_choice"}, {"name": "starter_choice", "mode": "chat_choice", "num_fewshot": 2})
    specs = configured(*tasks, suppliers=SUPPLIERS, choices_on_chat=True)
    assert [(s.name, s.num_fewshot) for s in specs] == [("starter_choice", None), ("starter_choice~chat", 2)]
    assert not specs[1].applies.chat_alone
