"""From the configured tasks to one :class:`TaskSpec` per leaf task: the unit of a Dagster partition.

Light: reads the cached index, imports no lm_eval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from testbench_dagster.config import Config, SampleRule, TaskConfig
from testbench_dagster.core.errors import ConfigError, TaskError
from testbench_dagster.core.rules import PlanningRule
from testbench_dagster.tasks.gates import Placed, resolved_rules
from testbench_dagster.tasks.index import Leaf, TaskIndex

LM_EVAL = "lm_eval"
SIGNATURES = "signatures"


@dataclass(frozen=True)
class TaskSpec:
    """One leaf task as configured.

    ``name`` is the partition key and the ``task`` of every stored document; ``leaf`` is the framework's name
    and ``root`` the configured name it was reached through (they differ for groups and tags, whose overrides
    apply). ``data`` maps a split to the absolute path of its local file; None means the hub.
    Docs with the same value in their column ``cluster`` may depend on each other.
    ``probes`` of at most ``probe_tokens`` tokens are what the signature ``identity`` asks.
    """

    name: str
    leaf: str
    root: str
    group: str | None
    num_fewshot: int | None
    metric: str | None
    filter: str | None
    data: Mapping[str, str] | None
    where: Mapping[str, str]
    samples: SampleRule | None  # None: all docs
    include: tuple[str, ...] = ()
    planning: PlanningRule = field(default_factory=PlanningRule)
    framework: str = LM_EVAL
    probes: int | None = None
    probe_tokens: int | None = None
    cluster: str | None = None

    @property
    def signs(self) -> bool:
        """Whether answers give a signature (a text), not numbers."""
        return self.framework == SIGNATURES

    def max_age(self, config: Config) -> timedelta:
        """Age after which a sample of the task no longer counts."""
        return timedelta(days=self.planning.max_age_days or config.settings.sampling.max_age_days)


def task_specs(config: Config) -> list[TaskSpec]:
    """Expand the configured tasks to leaf tasks, in configured order.

    Raises:
        ConfigError: an unknown name, a leaf reached twice, a path pattern that cannot be filled, or a gate
            that cannot be (see :mod:`testbench_dagster.tasks.gates`).
    """
    include = tuple(_absolute(config.base, folder) for folder in config.settings.task_paths)
    try:
        of_lm_eval = [t.name for t in config.settings.tasks if t.framework == LM_EVAL]
        index = TaskIndex.load([Path(p) for p in include], of_lm_eval)
        specs: dict[str, TaskSpec] = {}
        placed: list[Placed] = []
        for position, task in enumerate(config.settings.tasks):
            where = f"{config.path}: tasks[{position}]"
            for spec in _specs(task, index, config, include, where):
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


def _specs(
    task: TaskConfig, index: TaskIndex, config: Config, include: tuple[str, ...], where: str
) -> Iterator[TaskSpec]:
    if task.framework == SIGNATURES:
        yield _signature_spec(task, config, where)
        return
    leaves = _chosen(task, index.leaves(task.name), where)
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
    )
    if task.name != "identity":
        return spec
    asked = config.settings.identity
    rule = spec.planning
    if "max_age_days" not in rule.model_fields_set:
        rule = rule.model_copy(update={"max_age_days": asked.probe_days})
    return replace(spec, planning=rule, probes=asked.probes, probe_tokens=asked.probe_tokens)


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
                f"{where}.only: {pattern!r} matches none of the {len(leaves)} tasks of {task.name!r} "
                f"(such as {leaves[0].name!r})"
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
    _partition_key(name, where)
    dataset_name = leaf.entry.dataset_name if leaf.entry else None
    names = {"task": leaf.name, "dataset_name": dataset_name}
    data = None
    if task.files is not None:
        data = {
            split: _absolute(config.base, _fill(path, names, f"{where}.data.{split}"))
            for split, path in task.files.items()
        }
    row_filter = {c: _fill(v, names, f"{where}.where.{c}") for c, v in task.row_filter.items()}
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
        cluster=task.cluster,
    )


def _fill(pattern: str, names: Mapping[str, str | None], where: str) -> str:
    for name, value in names.items():
        if "{" + name + "}" in pattern:
            if value is None:
                raise ConfigError(f"{where}: {pattern!r} uses {{{name}}}, but {names['task']!r} has none")
            pattern = pattern.replace("{" + name + "}", value)
    return pattern


def _absolute(base: Path, path: str) -> str:
    return str((base / Path(path).expanduser()).absolute())
