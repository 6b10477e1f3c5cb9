"""A taxonomy: abilities as nodes of a directed graph, each measured by tasks, under one root."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from testbench_dagster.core.errors import ConfigError

T = TypeVar("T")

PLACEHOLDER = "undefined_task"
"""How the label of a node begins that no task measures yet (``undefined_task3``)."""


class TaxonomyError(ConfigError):
    """A taxonomy makes no sense.

    ``subject`` is the node, or the edge ``(parent, child)``, or the label ``(node, task)`` at fault, so that
    a loader can add the line it stands on.
    """

    def __init__(self, message: str, subject: str | tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.subject = subject


_LIGHTEST, _HEAVIEST = 1e-3, 1e3  # weights: beyond, a part would vanish or be alone


def is_placeholder(task: str) -> bool:
    """Whether a label says that no task measures its node yet."""
    return task.startswith(PLACEHOLDER)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing a node's score is a weighted mean of: a child, a task, or a group of tasks.

    ``leaves`` are the tasks behind a task (itself) or a group; None for a child.
    """

    name: str
    weight: float
    leaves: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Nodes with their own tasks, edges from an ability to those it builds on, and the root above all.

    A node with tasks of its own is measured by them, and its edges say what it builds on; a node without
    is the mean of its children. ``weights`` gives, per node, parts that count other than once; a child named
    there counts beside the node's own tasks. ``detached`` are the nodes meant to lie out of the root's reach:
    they have scores of their own and no part in the root's. ``groups`` are names among the tasks that stand
    for several, which then share one part. A task called ``undefined_task...`` is a placeholder.
    ``unplaced`` are labels that a ``.tax`` file gives to what is no node: told, and no part of it.

    Creating one checks it and raises :class:`TaxonomyError`: unknown nodes in edges, cycles, nodes out of the
    root's reach that are not ``detached``, leaves without tasks, weights of nothing or not above zero, and a
    task that stands twice on one path from the root (it would be counted into an ability and again into one
    that contains it). A task may stand on several branches.
    """

    name: str
    nodes: Mapping[str, tuple[str, ...]]
    edges: tuple[tuple[str, str], ...]
    root: str
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    detached: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unplaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise TaxonomyError("the taxonomy has no name; give it one")
        if self.root not in self.nodes:
            raise TaxonomyError(f"the root {self.root!r} is no node; add it or name another root", self.root)
        self._check_edges()
        order = self.top_down()  # refuses cycles
        self._check_reach()
        for node, tasks in self.nodes.items():
            repeated = _first_repeated(tasks)
            if repeated is not None:
                message = f"node {node!r} lists the task {repeated!r} twice; remove one"
                raise TaxonomyError(message, (node, repeated))
            if not tasks and not self.children(node):
                raise TaxonomyError(f"node {node!r} has neither tasks nor children; give it one", node)
        self._check_weights()
        self._check_paths(order)

    def parts(self, node: str) -> tuple[Part, ...]:
        """What a node's score is a weighted mean of, in the order of tasks, then children."""
        given = self.weights.get(node, {})
        tasks = self.nodes[node]
        own = [Part(t, given.get(t, 1.0), self.groups.get(t, (t,))) for t in tasks]
        below = [Part(c, given.get(c, 1.0), None) for c in self.children(node) if not tasks or c in given]
        return (*own, *below)

    def rests_on(self, node: str) -> frozenset[str]:
        """The tasks that the score of ``node`` may rest on, groups replaced by their tasks."""
        found: set[str] = set()
        todo, seen = [node], {node}
        while todo:
            for part in self.parts(todo.pop()):
                if part.leaves is not None:
                    found.update(part.leaves)
                elif part.name not in seen:
                    seen.add(part.name)
                    todo.append(part.name)
        return frozenset(found)

    def with_groups(self, groups: Mapping[str, tuple[str, ...]]) -> Taxonomy:
        """The same taxonomy, some of its task names standing for the tasks given; checked again."""
        named = set(self.tasks())
        return replace(self, groups={name: leaves for name, leaves in groups.items() if name in named})

    def leaves(self) -> tuple[str, ...]:
        """Every task, once, groups replaced by their tasks."""
        return tuple(dict.fromkeys(leaf for task in self.tasks() for leaf in self.groups.get(task, (task,))))

    def children(self, node: str) -> tuple[str, ...]:
        """Nodes directly below ``node``, in the order of the edges."""
        return tuple(child for parent, child in self.edges if parent == node)

    def tasks(self) -> tuple[str, ...]:
        """Every task, once, in the order of the nodes."""
        return tuple(dict.fromkeys(task for tasks in self.nodes.values() for task in tasks))

    def top_down(self) -> tuple[str, ...]:
        """Every node after all its parents; raises TaxonomyError naming the nodes of a cycle."""
        waiting = {node: sum(child == node for _, child in self.edges) for node in self.nodes}
        ready = [node for node, parents in waiting.items() if not parents]
        order = []
        while ready:
            node = ready.pop(0)
            order.append(node)
            for child in self.children(node):
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
        if len(order) < len(self.nodes):
            cycle = self._cycle(set(self.nodes) - set(order))
            edge = (cycle[0], cycle[1])
            raise TaxonomyError(f"the nodes {' -> '.join(cycle)} form a cycle; remove one edge", edge)
        return tuple(order)

    def _cycle(self, stuck: set[str]) -> list[str]:
        """A cycle among ``stuck``, whose nodes all have a parent in it; its first node is repeated last."""
        walk = [min(stuck)]
        while walk[-1] not in walk[:-1]:
            walk.append(next(parent for parent, child in self.edges if child == walk[-1] and parent in stuck))
        return walk[walk.index(walk[-1]) :][::-1]

    def _check_edges(self) -> None:
        for edge in self.edges:
            for node in edge:
                if node not in self.nodes:
                    message = (
                        f"the edge {edge[0]!r} -> {edge[1]!r} names no node with {node!r}; add or correct it"
                    )
                    raise TaxonomyError(message, edge)
        repeated = _first_repeated(self.edges)
        if repeated is not None:
            message = f"the edge {repeated[0]!r} -> {repeated[1]!r} stands twice; remove one"
            raise TaxonomyError(message, repeated)

    def reached(self) -> frozenset[str]:
        """The nodes that edges lead to from the root, itself included."""
        found, todo = {self.root}, [self.root]
        while todo:
            fresh = set(self.children(todo.pop())) - found
            found |= fresh
            todo += fresh
        return frozenset(found)

    def _check_reach(self) -> None:
        reached = self.reached()
        for node in self.detached:
            if node not in self.nodes:
                raise TaxonomyError(f"detached: {node!r} is no node; correct or remove it")
            if node in reached:
                message = f"node {node!r} is called detached, but edges lead to it; remove it from detached"
                raise TaxonomyError(message, node)
        for node in self.nodes:
            if node not in reached and node not in self.detached:
                message = (
                    f"node {node!r} is out of the reach of root {self.root!r}; add an edge to it, remove it, "
                    "or list it under detached"
                )
                raise TaxonomyError(message, node)

    def _check_weights(self) -> None:
        for node, given in self.weights.items():
            if node not in self.nodes:
                raise TaxonomyError(f"weights for {node!r}, which is no node; correct or remove them", node)
            tasks, children = self.nodes[node], self.children(node)
            for part, weight in given.items():
                if part in tasks and part in children:
                    message = (
                        f"node {node!r} weighs {part!r}, which is a task and a child of it; rename the node"
                    )
                    raise TaxonomyError(message, node)
                if part not in tasks and part not in children:
                    message = f"node {node!r} weighs {part!r}, which is neither a task nor a child of it"
                    raise TaxonomyError(f"{message}; correct or remove it", node)
                if not _LIGHTEST <= weight <= _HEAVIEST:
                    message = (
                        f"node {node!r} gives {part!r} the weight {weight!r}; "
                        f"want a number from {_LIGHTEST:g} to {_HEAVIEST:g}"
                    )
                    raise TaxonomyError(message, node)

    def _check_paths(self, order: Iterable[str]) -> None:
        # who has seen a task above: per node, each task of its ancestors and which ancestor has it
        above: dict[str, dict[str, str]] = {node: {} for node in self.nodes}
        for node in order:
            own: dict[str, str] = {}
            for label in self.nodes[node]:
                for task in self.groups.get(label, (label,)):
                    if is_placeholder(task):
                        continue
                    if task in own:
                        message = (
                            f"node {node!r} has the task {task!r} through {own[task]!r} and {label!r}, "
                            "so it would count twice; keep one of them"
                        )
                        raise TaxonomyError(message, (node, label))
                    if task in above[node]:
                        message = (
                            f"task {task!r} is in node {node!r} and in {above[node][task]!r} above it, "
                            "so it would count twice on one path; keep it in one of them"
                        )
                        raise TaxonomyError(message, (node, label))
                    own[task] = label
            passed_on = above[node] | dict.fromkeys(own, node)
            for child in self.children(node):
                above[child] |= passed_on


def _first_repeated(items: Iterable[T]) -> T | None:
    seen: set[T] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
