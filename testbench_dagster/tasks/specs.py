"""From the configured tasks to one :class:`TaskSpec` per leaf task: the unit of a Dagster partition.

Light: reads the cached index, imports no lm_eval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from testbench_dagster.config import Config, TaskConfig
from testbench_dagster.core.applicability import Applicability
from testbench_dagster.core.errors import ConfigError, TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import (
    CHAT_CHOICE,
    CHAT_CHOICE_MARK,
    LM_EVAL,
    MOST_PROBES,
    SIGNATURES,
    TaskSpec,
)
from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.index import Leaf, TaskIndex


def specs_of_task(
    task: TaskConfig, index: TaskIndex, config: Config, include: tuple[str, ...], where: str
) -> Iterator[TaskSpec]:
    """Yield the leaf tasks of a configured task; a name that is no task is one with a ``problem``.

    ``include`` are folders of further tasks, ``where`` is where in testbench.yaml it stands.

    Raises:
        ConfigError: a pattern of its data's paths cannot be filled, or one of ``only`` matches nothing.
    """
    if task.framework == SIGNATURES:
        yield _signature_spec(task, config, where)
        return
    if not framework_plug(task.framework).of_lm_eval:
        yield _plain_spec(task, config, where)
        return
    try:
        leaves = index.leaves(task.name)
    except TaskError as error:
        nowhere = Leaf(task.name, None, str(error))
        yield _spec(task, nowhere, False, config, include, where)
        return
    leaves = _chosen(task, leaves, where)
    for leaf in leaves:
        yield _spec(task, leaf, len(leaves) > 1 or leaf.name != task.name, config, include, where)


def _signature_spec(task: TaskConfig, config: Config, where: str) -> TaskSpec:
    """A signature wants all its docs; those of ``identity`` are probes with an age of their own."""
    spec = TaskSpec(
        name=_partition_key(task.alias or task.name, where),
        leaf=task.name,
        root=task.name,
        group=None,
        num_fewshot=None,
        metric=None,
        filter=None,
        data=None,
        where={},
        samples=None,
        planning=task.planning,
        framework=SIGNATURES,
        applies=Applicability(task.services, task.suppliers),
    )
    if task.name != "identity":
        return spec
    asked = config.settings.identity
    rule = spec.planning
    if "max_age_days" not in rule.model_fields_set:
        rule = rule.model_copy(update={"max_age_days": asked.probe_days})
    return replace(
        spec,
        planning=rule,
        probes=asked.probes or MOST_PROBES,
        probe_tokens=asked.probe_tokens,
        probes_by_roster=asked.probes is None,
    )


def _plain_spec(task: TaskConfig, config: Config, where: str) -> TaskSpec:
    """A task of a framework whose tasks are no groups; which there are, registering says."""
    files = task.files or {}
    return TaskSpec(
        name=_partition_key(task.alias or task.name, where),
        leaf=task.name,
        root=task.name,
        group=None,
        num_fewshot=task.num_fewshot,
        metric=task.metric,
        filter=task.filter,
        data={split: absolute_path(config.base, path) for split, path in files.items()} or None,
        where=dict(task.row_filter),
        samples=None if task.samples == "all" else task.samples,
        planning=task.planning,
        framework=task.framework,
        cluster=task.cluster,
        worst=task.worst,
        applies=Applicability(task.services, task.suppliers),
        generation=task.generation.generation(),
        options=task.options,
    )


def _partition_key(name: str, where: str) -> str:
    if any(c in name for c in "|,[]") or "..." in name:
        raise ConfigError(f"{where}: {name!r} cannot be a partition key; choose another alias")
    return name


def _chosen(task: TaskConfig, leaves: list[Leaf], where: str) -> list[Leaf]:
    if not leaves:
        raise ConfigError(f"{where}: {task.name!r} holds no tasks")
    if task.only is None:
        return leaves
    chosen = [leaf for leaf in leaves if any(fnmatchcase(leaf.name, pattern) for pattern in task.only)]
    for pattern in task.only:
        if not any(fnmatchcase(leaf.name, pattern) for leaf in leaves):
            raise ConfigError(
                f"{where}.only: {pattern!r} matches none of the {counted(len(leaves), 'task')} of "
                f"{task.name!r} (such as {leaves[0].name!r})"
            )
    return chosen


def _spec(
    task: TaskConfig, leaf: Leaf, member: bool, config: Config, include: tuple[str, ...], where: str
) -> TaskSpec:
    if task.alias is None:
        name, group = leaf.name, task.name if member else None
    elif member:
        name, group = f"{task.alias}__{leaf.name}", task.alias
    else:
        name, group = task.alias, None
    if task.framework == CHAT_CHOICE:
        name, group = f"{name}{CHAT_CHOICE_MARK}", group and f"{group}{CHAT_CHOICE_MARK}"
    _partition_key(name, where)
    dataset_name = leaf.entry.dataset_name if leaf.entry else None
    names = {"task": leaf.name, "dataset_name": dataset_name}
    data = None
    if task.files is not None and leaf.problem is None:
        data = {
            split: absolute_path(config.base, _fill(path, names, f"{where}.data.{split}"))
            for split, path in task.files.items()
        }
    filters = {} if leaf.problem is not None else task.row_filter
    row_filter = {c: _fill(v, names, f"{where}.where.{c}") for c, v in filters.items()}
    return TaskSpec(
        name=name,
        leaf=leaf.name,
        root=task.name,
        group=group,
        num_fewshot=task.num_fewshot,
        metric=task.metric,
        filter=task.filter,
        data=data,
        where=row_filter,
        samples=None if task.samples == "all" else task.samples,
        include=include,
        planning=task.planning,
        framework=task.framework,
        cluster=task.cluster,
        worst=task.worst,
        applies=Applicability(task.services, task.suppliers),
        generation=task.generation.generation(),
        options=task.options,
        code_execution=task.framework == LM_EVAL and config.settings.allow_code_execution,
        problem=leaf.problem,
    )


def _fill(pattern: str, names: Mapping[str, str | None], where: str) -> str:
    for name, value in names.items():
        if "{" + name + "}" in pattern:
            if value is None:
                raise ConfigError(f"{where}: {pattern!r} uses {{{name}}}, but {names['task']!r} has none")
            pattern = pattern.replace("{" + name + "}", value)
    return pattern


def absolute_path(base: Path, path: str) -> str:
    """A path as configured, relative to the folder of testbench.yaml and with ``~`` for the user's home."""
    return str((base / Path(path).expanduser()).absolute())
