"""The parts of lm-eval used here that it does not publish: all of them, and no other module has more.

Published is ``lm_eval.api``. Any version may change the rest, hence the pin on one in ``pyproject.toml``.
Before it is raised, ``testbench_dagster_tests/tasks/test_lm_eval_internals.py`` says what changed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import lm_eval.tasks._factory
import lm_eval.utils
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry as LmEntry
from lm_eval.tasks._index import Kind as LmKind

from testbench_dagster.core.errors import TaskError

__all__ = [
    "CodeEnds",
    "LmEntry",
    "LmKind",
    "RecordingFactory",
    "filter_names",
    "metric_names",
    "missing_function",
    "only_cached_data",
    "reuse_templates",
    "set_instances",
    "template_environment",
]


@contextmanager
def only_cached_data() -> Iterator[None]:
    """Let `datasets` look into its cache alone: a hub that is gone keeps it waiting for half a minute."""
    switches = ((datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


class CodeEnds(TaskError):
    """The code of a task ends the process it is loaded in; ``said`` is what it says to that."""

    def __init__(self, name: str, error: SystemExit) -> None:
        self.said = " ".join(str(error.code or "nothing").split())[:200]
        super().__init__(f"task {name!r}: its own code ends when it is loaded, and says: {self.said}")

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskError, (str(self),)  # as it passes from the worker to its parent


class _Recorded:
    """Stands in for a task in lm-eval's groups, which want its name."""

    def __init__(self, name: str) -> None:
        self.task_name = name


class RecordingFactory(TaskFactory):  # type: ignore[misc]  # lm-eval is not typed
    """Merges configurations as lm-eval does, and keeps them in place of building tasks.

    ``configs`` are those by name, ``problems`` what was raised for others: one leaf of a group does not stop
    the rest. ``check`` is called with name and file of a leaf before its code is imported.
    """

    def __init__(self, check: Callable[[str, Path | None], object]) -> None:
        super().__init__()
        self.configs: dict[str, dict[str, Any]] = {}
        self.problems: dict[str, Exception] = {}
        self._check = check

    def record(self, entry: LmEntry, registry: dict[str, LmEntry]) -> None:
        """Merge what a name stands for."""
        configs = self.configs

        class Recorder(_Recorded):
            def __init__(self, config: dict[str, Any]) -> None:  # lm-eval looks for the argument's name
                super().__init__(config["task"])
                config.pop("class", None)
                configs[self.task_name] = config

        module: Any = lm_eval.tasks._factory
        own, module.ConfigurableTask = module.ConfigurableTask, Recorder  # what groups define inline
        try:
            self.build(entry, overrides={"class": Recorder}, registry=registry)
        finally:
            module.ConfigurableTask = own

    def _build_task(self, entry: LmEntry, overrides: dict[str, Any] | None) -> Any:
        name = str((overrides or {}).get("task") or entry.name)
        if name in self.problems:
            return _Recorded(name)
        try:
            self._check(name, entry.yaml_path)
            return super()._build_task(entry, overrides)
        except SystemExit as error:  # its code looked for a program, say, and gave up
            self.problems[name] = CodeEnds(name, error)
        except Exception as error:
            self.problems[name] = error
        return _Recorded(name)


_NO_MODULE = re.compile(r"Cannot import module '(.+)' for function '(.+)' \(from YAML in (.+)\)")
_NO_FUNCTION = re.compile(r"Module '(.+)' has no function '(.+)' \(from YAML in (.+)\)")


def missing_function(error: Exception) -> tuple[str, str, Path] | None:
    """Module, function and folder of a ``!function`` that names nothing; None where something else is wrong.

    A module that is there, and in turn imports one that is not, is something else.
    """
    text = str(error)
    if isinstance(error, ImportError) and (found := _NO_MODULE.search(text)):
        module, function, folder = found.groups()
        missing = getattr(error.__cause__, "name", None)
        return (module, function, Path(folder)) if missing in (module, module.partition(".")[0]) else None
    if isinstance(error, AttributeError) and (found := _NO_FUNCTION.search(text)):
        module, function, folder = found.groups()
        cause = str(error.__cause__)
        if function not in cause:  # the module's own code failed while it was imported
            return None
        place = Path(folder)
        return Path(module).stem if module.endswith(".py") else module, function, place
    return None


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


def template_environment() -> Any:
    """The jinja environment of lm-eval's templates."""
    return lm_eval.utils.env


def set_instances(task: ConfigurableTask, instances: Sequence[Instance]) -> None:
    """Give a task the answered requests that its ``apply_filters`` works on."""
    task._instances = list(instances)


def metric_names(task: ConfigurableTask) -> Collection[str]:
    """Names of the metrics a task computes itself, a ``process_results`` of its own aside."""
    return tuple(task._metric_fn_list)


def filter_names(task: ConfigurableTask) -> list[str]:
    """Names of a task's filters, in their order."""
    return [str(ensemble.name) for ensemble in task._filters]
