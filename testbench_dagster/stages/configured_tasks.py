"""The tasks of the configuration, with the rules that apply to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError, TaskError
from testbench_dagster.core.task import LM_EVAL, TaskSpec
from testbench_dagster.stages.plan.task_gates import Placed, resolved_rules
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.specs import absolute_path, specs_of_task


def task_specs(config: Config) -> list[TaskSpec]:
    """Expand the configured tasks to leaf tasks, in configured order.

    Raises:
        ConfigError: an unknown name, a leaf reached twice, a path pattern that cannot be filled, or a gate
            that cannot be (see :mod:`testbench_dagster.stages.plan.task_gates`).
    """
    include = tuple(absolute_path(config.base, folder) for folder in config.settings.task_paths)
    try:
        of_lm_eval = [t.name for t in config.settings.tasks if t.framework == LM_EVAL]
        index = TaskIndex.load([Path(p) for p in include], of_lm_eval)
        specs: dict[str, TaskSpec] = {}
        placed: list[Placed] = []
        for position, task in enumerate(config.settings.tasks):
            where = f"{config.path}: tasks[{position}]"
            for spec in specs_of_task(task, index, config, include, where):
                if spec.name in specs:
                    raise ConfigError(
                        f"{where}: duplicate task {spec.name!r} (already configured through "
                        f"{specs[spec.name].root!r}); remove one of them or give it an alias"
                    )
                specs[spec.name] = spec
                placed.append(Placed(spec.name, spec.group, where, spec.planning, spec.signs))
    except TaskError as error:
        raise ConfigError(f"{config.path}: {error}") from None
    rules = resolved_rules(config, placed)
    return [replace(spec, planning=rules[name]) for name, spec in specs.items()]
