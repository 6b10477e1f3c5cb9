"""The planning rule of each task, and whether its gates can be: names exist, nothing waits in a circle.

The rule of a task is its own over the defaults of ``planning``. A default gate is left out of the tasks that
it measures itself, which would otherwise wait for each other: "everything waits for liveness" does not mean
liveness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from testbench_dagster.config import Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.rules import Gate, PlanningRule, SequentialGate, TaskGate, TaxonomyGate
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.stages.configured_taxonomies import read_taxonomies


@dataclass(frozen=True)
class Placed:
    """A leaf task, the group it came with, where it is configured, and the rule it was configured with.

    ``signs``: it is a signature, whose answers give a text and no score.
    """

    name: str
    group: str | None
    where: str
    rule: PlanningRule
    signs: bool = False


def resolved_rules(
    config: Config, tasks: Sequence[Placed], groups: Iterable[TaskGroup] = ()
) -> dict[str, PlanningRule]:
    """Return the rule of each task as it applies; ``groups`` are those that have a score.

    Raises:
        ConfigError: a gate names a task, group, taxonomy or node that is not configured, compares a task's
            score with a text or a signature with a number, tests a signature, or waits for itself.
    """
    defaults = config.settings.planning
    members = task_groups(tasks, groups)
    scopes = _Scopes(config, members, frozenset(task.name for task in tasks if task.signs))
    common: list[tuple[Gate, frozenset[str]]] = [
        (gate, scopes.of(gate, f"{config.path}: planning.gates[{i}]"))
        for i, gate in enumerate(defaults.gates)
    ]
    rules: dict[str, PlanningRule] = {}
    waits_for: dict[str, frozenset[str]] = {}
    for task in tasks:
        rule = task.rule.over(defaults)
        if "gates" in task.rule.model_fields_set:
            chosen = [
                (gate, scopes.of(gate, f"{task.where}.planning.gates[{i}]"))
                for i, gate in enumerate(rule.gates)
            ]
        else:
            chosen = [(gate, scope) for gate, scope in common if task.name not in scope]
        rules[task.name] = rule.model_copy(update={"gates": tuple(gate for gate, _ in chosen)})
        waits_for[task.name] = frozenset(name for _, scope in chosen for name in scope)
    _refuse_circles(config, waits_for)
    return rules


class Member(Protocol):
    """A leaf task that may have come with a group: what is placed here, or a finished specification."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str | None: ...  # noqa: D102


def task_groups(tasks: Iterable[Member], groups: Iterable[TaskGroup]) -> dict[str, tuple[str, ...]]:
    """Leaf tasks by the name a gate may give them: their own, that of their group, of one nested in it."""
    members: dict[str, list[str]] = {}
    for task in tasks:
        members.setdefault(task.name, []).append(task.name)
        if task.group is not None:
            members.setdefault(task.group, []).append(task.name)
    nested = {group.name: tuple(dict.fromkeys(group.tasks)) for group in groups}
    return nested | {name: tuple(leaves) for name, leaves in members.items()}


class _Scopes:
    """Which configured tasks a gate looks at."""

    def __init__(
        self, config: Config, members: Mapping[str, Sequence[str]], signatures: frozenset[str]
    ) -> None:
        self._config = config
        self._members = members
        self._signatures = signatures
        self._taxonomies: dict[str, dict[str, frozenset[str]]] | None = None

    def of(self, gate: Gate, where: str) -> frozenset[str]:
        if isinstance(gate, TaxonomyGate):
            return self._of_taxonomy(gate, where)
        leaves = self._members.get(gate.task)
        if leaves is None:
            known = ", ".join(list(self._members)[:20])
            raise ConfigError(
                f"{where}.task: {gate.task!r} is no configured task or group; there are: {known}"
            )
        if gate.task in self._signatures:
            if isinstance(gate, SequentialGate):
                raise ConfigError(
                    f"{where}: the signature {gate.task!r} has no score to test; "
                    "use is: present, ok or equal instead of pass and fail"
                )
            if isinstance(gate.value, float):
                raise ConfigError(
                    f"{where}.value: {gate.value:g} is a number, but {gate.task!r} is a signature; "
                    "write its text, in quotes"
                )
        elif isinstance(gate, TaskGate) and isinstance(gate.value, str):
            raise ConfigError(
                f"{where}.value: {gate.value!r} is a text, but {gate.task!r} is scored by a number; "
                "write one, such as 1.0"
            )
        return frozenset(leaves)

    def _of_taxonomy(self, gate: TaxonomyGate, where: str) -> frozenset[str]:
        if self._taxonomies is None:
            self._taxonomies = {}
            for taxonomy in read_taxonomies(self._config):
                scopes: dict[str, frozenset[str]] = {}
                for node in reversed(taxonomy.top_down()):  # children first
                    below = [scopes[child] for child in taxonomy.children(node)]
                    scopes[node] = frozenset(taxonomy.nodes[node]).union(*below)
                self._taxonomies[taxonomy.name] = {"": scopes[taxonomy.root], **scopes}
        nodes = self._taxonomies.get(gate.taxonomy)
        if nodes is None:
            known = ", ".join(self._taxonomies) or "none"
            raise ConfigError(
                f"{where}.taxonomy: {gate.taxonomy!r} is not configured; taxonomies has: {known}"
            )
        scope = nodes.get(gate.node or "")
        if scope is None:
            raise ConfigError(
                f"{where}.node: taxonomy {gate.taxonomy!r} has no node {gate.node!r}; "
                f"it has {', '.join(n for n in nodes if n)}"
            )
        return scope & frozenset(name for leaves in self._members.values() for name in leaves)


def _refuse_circles(config: Config, waits_for: Mapping[str, frozenset[str]]) -> None:
    done: set[str] = set()
    for first in waits_for:
        trail: list[str] = []
        stack: list[tuple[str, bool]] = [(first, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                trail.pop()
                done.add(name)
            elif name in trail:
                circle = " waits for ".join([*trail[trail.index(name) :], name])
                raise ConfigError(
                    f"{config.path}: planning: gates never open: {circle}; remove one of these gates"
                )
            elif name not in done:
                trail.append(name)
                stack.append((name, True))
                stack += [(other, False) for other in sorted(waits_for.get(name, ()))]
