"""Reads taxonomies written in YAML.

::

    name: demo
    root: overall
    nodes:
      overall: {children: [reading]}
      reading: {tasks: [some_task, another_task], weights: {some_task: 2}}

A node with ``tasks`` is measured by them, one without by its ``children``. ``weights`` are 1 where not given;
a child that has one counts beside the node's tasks. ``detached: [node]`` beside ``nodes`` lists the nodes
that are meant to lie out of the root's reach.
"""

from __future__ import annotations

from typing import Any

import yaml

from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError


class _StrictLoader(yaml.SafeLoader):
    """Refuses keys that stand twice; plain YAML loaders keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping as a dict; raises a YAML error with its place on a repeated key."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice; remove one", mark
                )
        return super().construct_mapping(node, deep)


def parse(text: str) -> Taxonomy:
    """The taxonomy in ``text``; raises TaxonomyError naming the key or node at fault, or the line."""
    try:
        document = yaml.load(text, _StrictLoader)  # noqa: S506  a safe loader, with rules of its own
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise TaxonomyError(f"{line}{error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # the loader's own slips too: impossible dates, odd numbers, nesting without end
        raise TaxonomyError(f"not YAML: {error}") from error
    document = _mapping(document, "the file", {"name", "root", "nodes", "detached"})
    nodes: dict[str, tuple[str, ...]] = {}
    edges: list[tuple[str, str]] = []
    weights: dict[str, dict[str, float]] = {}
    for node, body in _mapping(document.get("nodes"), "nodes").items():
        place = f"nodes.{node}"
        fields = _mapping(body, place, {"tasks", "children", "weights"})
        nodes[node] = _names(fields.get("tasks"), f"{place}.tasks")
        edges += [(node, child) for child in _names(fields.get("children"), f"{place}.children")]
        if fields.get("weights") is not None:
            given = _mapping(fields["weights"], f"{place}.weights")
            weights[node] = {part: _weight(value, f"{place}.weights.{part}") for part, value in given.items()}
    name, root = (_name(document.get(key), key) for key in ("name", "root"))
    detached = _names(document.get("detached"), "detached")
    return Taxonomy(name, nodes, tuple(edges), root, weights, detached)


def write(taxonomy: Taxonomy) -> str:
    """The text that :func:`parse` reads as ``taxonomy``."""
    nodes: dict[str, dict[str, Any]] = {}
    for node, tasks in taxonomy.nodes.items():
        body = {"tasks": list(tasks), "children": list(taxonomy.children(node))}
        nodes[node] = {key: value for key, value in body.items() if value}
        if node in taxonomy.weights:
            nodes[node]["weights"] = dict(taxonomy.weights[node])
    document: dict[str, Any] = {"name": taxonomy.name, "root": taxonomy.root, "nodes": nodes}
    if taxonomy.detached:
        document["detached"] = list(taxonomy.detached)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _mapping(value: Any, place: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise TaxonomyError(f"{place} must be a mapping with names as keys, not {value!r}")
    for key in value:
        if known is not None and key not in known:
            raise TaxonomyError(f"{place} has the unknown key {key!r}; known are {', '.join(sorted(known))}")
    return value


def _name(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise TaxonomyError(f"{place} must be a name, not {value!r}")
    return value


def _weight(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TaxonomyError(f"{place} must be a number above 0, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise TaxonomyError(f"{place} is too large a number") from None


def _names(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TaxonomyError(f"{place} must be a list of names, not {value!r}")
    return tuple(_name(item, place) for item in value)
