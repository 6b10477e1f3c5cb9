"""The tasks of the configuration, with the rules that apply to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from testbench_dagster.config import Config, unmatched_pattern
from testbench_dagster.core.applicability import is_chosen
from testbench_dagster.core.errors import ConfigError, TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import CHAT_CHOICE, CHAT_CHOICE_MARK, LM_EVAL, TaskSpec
from testbench_dagster.core.task_group import GroupMetric, TaskGroup
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.plan.task_gates import Placed, resolved_rules
from testbench_dagster.tasks.chat_choice.definition import is_choice
from testbench_dagster.tasks.groups import groups_of_task
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.specs import absolute_path, specs_of_task


@dataclass(frozen=True)
class ConfiguredTasks:
    """The configured leaf tasks, and the groups of which lm-eval makes a score, both in configured order."""

    specs: Sequence[TaskSpec]
    groups: Sequence[TaskGroup]


def task_specs(config: Config) -> list[TaskSpec]:
    """Expand the configured tasks to leaf tasks, in configured order; see :func:`configured_tasks`."""
    return list(configured_tasks(config).specs)


def configured_tasks(config: Config) -> ConfiguredTasks:
    """Expand the configured tasks to leaf tasks and groups, in configured order.

    A name that is no task has a spec with a ``problem``, which is set aside when tasks are prepared.

    Raises:
        ConfigError: no name is that of a task, a leaf reached twice, a path pattern that cannot be filled, a
            pattern of a supplier's tasks that matches none, or a gate that cannot be (see
            :mod:`testbench_dagster.stages.plan.task_gates`).
    """
    include = tuple(absolute_path(config.base, folder) for folder in config.settings.task_paths)
    try:
        of_lm_eval = [t.name for t in config.settings.tasks if framework_plug(t.framework).of_lm_eval]
        index = TaskIndex.load([Path(p) for p in include], of_lm_eval)
        specs: dict[str, TaskSpec] = {}
        placed: list[Placed] = []
        groups: list[TaskGroup] = []
        for position, task in enumerate(config.settings.tasks):
            where = f"{config.path}: tasks[{position}]"
            own = list(specs_of_task(task, index, config, include, where))
            if task.framework == LM_EVAL:
                groups += groups_of_task(index, own)
            elif task.framework == CHAT_CHOICE:
                groups += map(_by_letters, groups_of_task(index, own))
            for spec in own:
                if spec.name in specs:
                    raise ConfigError(
                        f"{where}: duplicate task {spec.name!r} (already configured through "
                        f"{specs[spec.name].root!r}); remove one of them or give it an alias"
                    )
                specs[spec.name] = spec
                placed.append(Placed(spec.name, spec.group, where, spec.planning, spec.signs))
        if config.settings.choices_on_chat:
            places = {one.name: one.where for one in placed}
            specs = _with_choices_on_chat(specs, index)
            groups += _groups_on_chat(groups, specs)
            placed = [
                Placed(s.name, s.group, places.get(s.name) or places[_plain(s.name)], s.planning, s.signs)
                for s in specs.values()
            ]
        _refuse_twins(config, groups, specs)
    except TaskError as error:
        raise ConfigError(f"{config.path}: {error}") from None
    problems = [spec.problem for spec in specs.values() if spec.problem is not None]
    if problems and len(problems) == len(specs):
        more = f" (and {counted(len(problems) - 1, 'more task')} likewise)" if len(problems) > 1 else ""
        raise ConfigError(f"{config.path}: {problems[0]}{more}")
    rules = resolved_rules(config, placed, groups)
    declined = _declined(config, specs.values())
    return ConfiguredTasks(
        [
            replace(spec, planning=rules[name], applies=replace(spec.applies, declined_by=declined[name]))
            for name, spec in specs.items()
        ],
        groups,
    )


def _with_choices_on_chat(specs: Mapping[str, TaskSpec], index: TaskIndex) -> dict[str, TaskSpec]:
    """All tasks, each choice of lm-eval followed by its like for suppliers that only chat.

    What is configured with ``mode: chat_choice`` stays as it is. A task that cannot be asked so by its
    definition has none; one whose docs or code forbid it is set aside when it is prepared.
    """
    found: dict[str, TaskSpec] = {}
    for name, spec in specs.items():
        found[name] = spec
        on_chat = f"{name}{CHAT_CHOICE_MARK}"
        entry = index.entries.get(spec.leaf)
        known = spec.framework == LM_EVAL and spec.problem is None and on_chat not in specs
        if known and entry is not None and is_choice(entry):
            found[on_chat] = replace(
                spec,
                name=on_chat,
                group=spec.group and f"{spec.group}{CHAT_CHOICE_MARK}",
                framework=CHAT_CHOICE,
                metric=None,
                filter=None,
                worst=None,
                applies=replace(spec.applies, chat_alone=True),
            )
    return found


def _by_letters(group: TaskGroup) -> TaskGroup:
    """A group whose tasks are choices on chat: they weigh as in lm-eval, but have another metric.

    lm-eval weighs by the first metric that the group lists, which its primary score follows.
    """
    weighs = {metric.weight_by_size for metric in group.metrics[:1]}
    return replace(
        group, metrics=tuple(GroupMetric("letter_acc", weight_by_size=by_size) for by_size in weighs)
    )


def _groups_on_chat(groups: Sequence[TaskGroup], specs: Mapping[str, TaskSpec]) -> list[TaskGroup]:
    """The groups of the tasks that are asked as choices on chat beside their own form, where there are any.

    They are called as their tasks are, ``mmlu~chat`` beside ``mmlu``. One has a score only if each of its
    tasks is asked so: a figure of some, or of both forms, would be that of no group.
    """
    found = []
    for group in groups:
        on_chat = {task: f"{task}{CHAT_CHOICE_MARK}" for task in group.tasks}
        asked = [task for task in on_chat if on_chat[task] in specs]
        name = f"{group.name}{CHAT_CHOICE_MARK}"
        if not asked or not group.metrics or any(other.name == name for other in groups):
            continue
        made = replace(
            _by_letters(group),
            name=name,
            root=f"{group.root}{CHAT_CHOICE_MARK}",
            tasks=tuple(on_chat[task] for task in group.tasks),
        )
        if rest := [task for task in on_chat if task not in asked]:
            more = f" and {counted(len(rest) - 1, 'more task')}" if len(rest) > 1 else ""
            problem = (
                f"group {name!r} has no score: {rest[0]!r}{more} cannot be asked as a choice on chat, and a "
                "score never mixes the forms; its other tasks have scores of their own, such as "
                f"{on_chat[asked[0]]!r}"
            )
            made = replace(made, tasks=tuple(on_chat[task] for task in asked), metrics=(), problem=problem)
        found.append(made)
    return found


def _refuse_twins(config: Config, groups: Iterable[TaskGroup], specs: Mapping[str, TaskSpec]) -> None:
    """Rows, feeds and history know a group by its name alone.

    Raises:
        ConfigError: a group has the name of another one, or of a task.
    """
    known = dict.fromkeys(specs, "task")
    for group in groups:
        if group.name in known:
            raise ConfigError(
                f"{config.path}: tasks: the group {group.name!r} has the name of another configured "
                f"{known[group.name]}; give one of them an alias"
            )
        known[group.name] = "group"


def _plain(name: str) -> str:
    return name.removesuffix(CHAT_CHOICE_MARK)


def _declined(config: Config, specs: Iterable[TaskSpec]) -> dict[str, frozenset[str]]:
    """By task the configured suppliers whose own ``tasks`` leave it out, by key.

    A pattern of theirs may be about the task's own name, its configured one, or that of its group.

    Raises:
        ConfigError: a pattern matches no task.
    """
    names = {spec.name: {spec.name, spec.root, *([spec.group] if spec.group else [])} for spec in specs}
    known = list(dict.fromkeys(name for own in names.values() for name in sorted(own)))
    declined: dict[str, set[str]] = {name: set() for name in names}
    for position, supplier in enumerate(config.settings.suppliers):
        if problem := unmatched_pattern(supplier.tasks, known, "configured tasks and groups"):
            raise ConfigError(f"{config.path}: suppliers[{position}] {supplier.key!r}: tasks: {problem}")
        for name, own in names.items():
            if not is_chosen(supplier.tasks, own):
                declined[name].add(supplier.key)
    return {name: frozenset(keys) for name, keys in declined.items()}
