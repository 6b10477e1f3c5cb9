"""Canary: the private parts of lm-eval are as this package uses them. Run it before the pin is raised."""

from __future__ import annotations

import importlib
import importlib.metadata

import pytest

from testbench_dagster.tasks.lm_eval_adapter.building import FEWSHOT_SEED, SourceTask, finish
from testbench_dagster.tasks.lm_eval_adapter.definitions import config_of
from testbench_dagster_tests.tasks.quiz import quiz
from testbench_dagster_tests.upstream import gone, otherwise_called, says

MODULE = "testbench_dagster.tasks.lm_eval_adapter.internals"


def test_all_names_are_there() -> None:
    assert gone(MODULE, "lm_eval") == []


def test_a_missing_name_is_told_with_the_place_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("lm_eval.tasks._index.Kind")
    (sentence,) = gone(MODULE, "lm_eval")
    assert sentence == (
        f"lm_eval {importlib.metadata.version('lm_eval')}: lm_eval.tasks._index has no Kind any more; "
        f"mend {MODULE.replace('.', '/')}.py"
    )


def test_tasks_are_built_by_the_factory_as_we_ask_it_to() -> None:
    ours = importlib.import_module(MODULE)
    changed = [
        otherwise_called(ours.TaskFactory().build, None, overrides={}, registry={}),
        otherwise_called(ours.LmEntry, "name", ours.LmKind.TASK, None, tags=set()),
    ]
    assert [says("lm_eval", what, MODULE) for what in changed if what] == []
    kinds = {kind.name for kind in ours.LmKind}
    assert {"TASK", "PY_TASK", "GROUP", "TAG"} <= kinds, says("lm_eval", f"kinds are {kinds}", MODULE)


def test_simple_evaluate_draws_examples_by_the_seed_we_use() -> None:
    import inspect

    from lm_eval import simple_evaluate

    seed = inspect.signature(simple_evaluate).parameters["fewshot_random_seed"].default
    assert seed == FEWSHOT_SEED, says("lm_eval", f"its seed for few-shot examples is {seed}", MODULE)


def test_a_task_has_the_attributes_we_read_and_write(tmp_path) -> None:
    ours = importlib.import_module(MODULE)
    spec = quiz(tmp_path)
    task = SourceTask(config_of(spec), spec)
    finish(task, spec, 0)
    read = ("_metric_fn_list", "_filters", "eval_docs", "task_docs", "fewshot_cfg", "features")
    missing = [name for name in read if not hasattr(task, name)]
    assert missing == [], says("lm_eval", f"ConfigurableTask has no {', '.join(missing)} any more", MODULE)
    assert ours.metric_names(task) == ("exact_match",)
    assert ours.filter_names(task) == ["none"]
    ours.set_instances(task, [])
    assert task.instances == [], says("lm_eval", "a task's instances are not those of _instances", MODULE)


def test_templates_are_compiled_once() -> None:
    from lm_eval import utils

    importlib.import_module(MODULE).reuse_templates()
    text = "{{ question }} and nothing else {# of the canary #}"
    once = utils.env.from_string(text)
    assert utils.env.from_string(text) is once, says("lm_eval", "utils.env compiles templates anew", MODULE)
    assert utils.apply_template(text, {"question": "Q"}) == "Q and nothing else ", says(
        "lm_eval", "apply_template does not render by utils.env", MODULE
    )


def test_the_hub_can_be_left_out() -> None:
    import datasets
    import huggingface_hub.constants as hub

    with importlib.import_module(MODULE).only_cached_data():
        assert hub.is_offline_mode(), says("huggingface_hub", "HF_HUB_OFFLINE decides nothing", MODULE)
        assert datasets.config.HF_HUB_OFFLINE
    assert not hub.is_offline_mode() and not datasets.config.HF_HUB_OFFLINE
