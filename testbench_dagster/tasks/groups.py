"""What lm-eval makes of the scores of a group's tasks: ``aggregate_metric_list`` of groups, nested ones too.

Read from the YAML files of the groups alone, without importing lm_eval; the rules are those of
``lm_eval.api.group`` and ``lm_eval.tasks._factory``. A tag is a list of names and has no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_group import GroupMetric, TaskGroup
from testbench_dagster.tasks.index import TaskIndex, raw_definition

#: The only aggregation that lm-eval knows by name. It takes a function too, and calls neither.
_AGGREGATION = "mean"
_KNOWN = frozenset({"metric", "filter_list", "aggregation", "weight_by_size"})


@dataclass(frozen=True)
class _Node:
    """A group as lm-eval builds it; ``members`` are the names of tasks (None) and its groups, by name."""

    name: str
    aggregates: Any
    members: dict[str, _Node | None] = field(default_factory=dict)

    def leaves(self) -> list[str]:
        """Its leaf tasks in lm-eval's order; one that two of its groups hold stands there twice."""
        found: list[str] = []
        for name, member in self.members.items():
            found += [name] if member is None else member.leaves()
        return found

    def groups(self) -> Iterator[_Node]:
        """Yield it and the groups below it, the outer before the inner ones."""
        yield self
        for member in self.members.values():
            if member is not None:
                yield from member.groups()


def groups_of_task(index: TaskIndex, specs: Sequence[TaskSpec]) -> list[TaskGroup]:
    """Return the groups that a configured name stands for, of ``specs`` being all it expands to.

    The outer before the inner ones, each once; only those with an ``aggregate_metric_list``, all of whose
    tasks are configured: of a part of its tasks (``only``) a group's score would be that of another group.

    Raises:
        TaskError: the file of a group cannot be read.
    """
    if not specs or specs[0].root not in index.entries or index.entries[specs[0].root].kind != "group":
        return []
    root = specs[0].root
    names = {spec.leaf: spec.name for spec in specs}
    # a group of one task that is called as it has no group of its own name
    shown = specs[0].group or root
    alias = None if shown == root else shown
    found: dict[str, TaskGroup] = {}
    for node in _built(index, root).groups():
        leaves = node.leaves()
        if node.aggregates is None or not leaves or not all(leaf in names for leaf in leaves):
            continue
        name = node.name if alias is None else alias if node.name == root else f"{alias}__{node.name}"
        problem: str | None = None
        metrics: tuple[GroupMetric, ...] = ()
        try:
            metrics = _metrics(node.aggregates)
        except ValueError as error:
            problem = f"group {node.name!r} has no score: aggregate_metric_list {error}"
        tasks = tuple(names[leaf] for leaf in leaves)
        found.setdefault(name, TaskGroup(name, shown, tasks, metrics, problem))
    return list(found.values())


def _built(index: TaskIndex, name: str) -> _Node:
    """A group of the index."""
    path = index.entries[name].path
    try:
        raw: Mapping[str, Any] = {} if path is None else raw_definition(Path(path))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TaskError(
            f"group {name!r}: its definition {path} cannot be read: {reason}; correct the file"
        ) from None
    return _defined(index, name, raw)


def _defined(index: TaskIndex, name: str, raw: Mapping[str, Any]) -> _Node:
    """A group by its definition; what is no name in it the index has refused, or left out, before."""
    # lm-eval takes an empty list for none
    node = _Node(name, raw.get("aggregate_metric_list") or None)
    members = raw.get("task")
    for member in members if isinstance(members, list) else ():
        inner = member.get("group") if isinstance(member, dict) else None
        if inner is not None and inner in index.entries:
            _add(index, node, inner)
        elif inner is not None:
            called = f"{name}::{inner}"
            node.members[called] = _defined(index, called, member)
        else:
            task = member.get("task") if isinstance(member, dict) else member
            if isinstance(task, str) and task in index.entries:
                _add(index, node, task)
            elif isinstance(task, str):
                # a task defined in the group itself, or none at all: then it is nowhere configured
                node.members[f"{name}::{task}"] = None
    return node


def _add(index: TaskIndex, node: _Node, name: str) -> None:
    entry = index.entries[name]
    if entry.kind == "group":
        node.members[name] = _built(index, name)
    elif entry.kind == "tag":
        for member in sorted(entry.members):
            if member in index.entries:
                node.members[member] = None
    else:
        node.members[name] = None


def _metrics(raw: Any) -> tuple[GroupMetric, ...]:
    """An ``aggregate_metric_list``. Raises ValueError, whose text goes on from its name."""
    entries = [raw] if isinstance(raw, Mapping) else raw
    if not isinstance(entries, list):
        raise ValueError(f"is {raw!r}; write a list such as [{{metric: acc, weight_by_size: true}}]")
    return tuple(_metric(entry) for entry in entries)


def _metric(entry: Any) -> GroupMetric:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("metric"), str):
        raise ValueError(f"holds {entry!r}, which names no metric; write {{metric: acc}}")
    unknown = [str(key) for key in entry if key not in _KNOWN]
    if unknown:
        raise ValueError(f"has the unknown key {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}")
    aggregation = entry.get("aggregation", _AGGREGATION)
    # a function's tag is read as the text module.function
    if aggregation != _AGGREGATION and not (isinstance(aggregation, str) and "." in aggregation):
        raise ValueError(f"has the aggregation {aggregation!r}; lm-eval knows {_AGGREGATION!r} alone")
    filters = entry.get("filter_list")
    if isinstance(filters, str):
        filters = [filters]
    if filters is not None and not (isinstance(filters, list) and all(isinstance(f, str) for f in filters)):
        raise ValueError(f"has the filter_list {filters!r}; write the names of filters in a list")
    return GroupMetric(
        entry["metric"],
        None if filters is None else tuple(filters),
        bool(entry.get("weight_by_size", True)),
    )
