"""A taxonomy: abilities as nodes of a directed graph, each measured by tasks, under one root."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from testbench_dagster.errors import ConfigError

T = TypeVar("T")


class TaxonomyError(ConfigError):
    """A taxonomy makes no sense.

    ``subject`` is the node, or the edge ``(parent, child)``, or the label ``(node, task)`` at fault, so that
    a loader can add the line it stands on.
    """

    def __init__(self, message: str, subject: str | tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.subject = subject


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Nodes with their own tasks, edges from an ability to those it builds on, and the root above all.

    Creating one checks it and raises :class:`TaxonomyError`: unknown nodes in edges, cycles, nodes out of the
    root's reach, leaves without tasks, and a task that stands twice on one path from the root (it would be
    counted into an ability and again into one that contains it). A task may stand on several branches.
    """

    name: str
    nodes: Mapping[str, tuple[str, ...]]
    edges: tuple[tuple[str, str], ...]
    root: str

    def __post_init__(self) -> None:
        if not self.name:
            raise TaxonomyError("the taxonomy has no name; give it one")
        if self.root not in self.nodes:
            raise TaxonomyError(f"the root {self.root!r} is no node; add it or name another root", self.root)
        self._check_edges()
        order = self.top_down()  # refuses cycles
        self._check_reach(order)
        for node, tasks in self.nodes.items():
            repeated = _first_repeated(tasks)
            if repeated is not None:
                message = f"node {node!r} lists the task {repeated!r} twice; remove one"
                raise TaxonomyError(message, (node, repeated))
            if not tasks and not self.children(node):
                raise TaxonomyError(f"node {node!r} has neither tasks nor children; give it one", node)
        self._check_paths(order)

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

    def _check_reach(self, order: Iterable[str]) -> None:
        reached = {self.root}
        for node in order:
            if node in reached:
                reached.update(self.children(node))
        for node in self.nodes:
            if node not in reached:
                message = (
                    f"node {node!r} is out of the reach of root {self.root!r}; add an edge to it or remove it"
                )
                raise TaxonomyError(message, node)

    def _check_paths(self, order: Iterable[str]) -> None:
        # who has seen a task above: per node, each task of its ancestors and which ancestor has it
        above: dict[str, dict[str, str]] = {node: {} for node in self.nodes}
        for node in order:
            for task in self.nodes[node]:
                if task in above[node]:
                    message = (
                        f"task {task!r} is in node {node!r} and in {above[node][task]!r} above it, "
                        "so it would count twice on one path; keep it in one of them"
                    )
                    raise TaxonomyError(message, (node, task))
            passed_on = above[node] | dict.fromkeys(self.nodes[node], node)
            for child in self.children(node):
                above[child] |= passed_on


def _first_repeated(items: Iterable[T]) -> T | None:
    seen: set[T] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
