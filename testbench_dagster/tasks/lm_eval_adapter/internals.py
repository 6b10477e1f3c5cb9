"""The parts of lm-eval used here that it does not publish: all of them, and no other module has more.

Published is ``lm_eval.api``. Any version may change the rest, hence the pin on one in ``pyproject.toml``.
Before it is raised, ``testbench_dagster_tests/tasks/test_lm_eval_internals.py`` says what changed.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import lm_eval.utils
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry as LmEntry
from lm_eval.tasks._index import Kind as LmKind

__all__ = [
    "LmEntry",
    "LmKind",
    "TaskFactory",
    "filter_names",
    "metric_names",
    "reuse_templates",
    "set_instances",
]


def reuse_templates() -> None:
    """Make lm-eval keep compiled templates: compiling one costs 1 ms, and it does so for every doc."""
    environment = lm_eval.utils.env
    if hasattr(environment.from_string, "cache_info"):
        return  # it does already
    compile_one = environment.from_string

    @functools.lru_cache(maxsize=4096)
    def compiled(source: str) -> Any:
        template = compile_one(source)
        # jinja copies them at every rendering: slow from a ChainMap
        template.globals = dict(template.globals)
        return template

    environment.from_string = compiled


def set_instances(task: ConfigurableTask, instances: Sequence[Instance]) -> None:
    """Give a task the answered requests that its ``apply_filters`` works on."""
    task._instances = list(instances)


def metric_names(task: ConfigurableTask) -> Collection[str]:
    """Names of the metrics a task computes itself, a ``process_results`` of its own aside."""
    return tuple(task._metric_fn_list)


def filter_names(task: ConfigurableTask) -> list[str]:
    """Names of a task's filters, in their order."""
    return [str(ensemble.name) for ensemble in task._filters]
