"""Reads `.tax` files: a graphviz-like hierarchy block, then a block labelling its nodes with tasks.

::

    name {
        root_c -> reading;
    }
    name_labeling {
        reading -> some_task;
    }

An edge leads from an ability to one it builds on; ``root_c`` is the root. ``digraph`` may stand before a
block's name. The taxonomy's name is the block's, whatever the file is called. As in the program the format
comes from, repeated lines count once, ``:`` in a node's name is read as ``---``, every node but the root
wants a label, a label such as ``undefined_task1`` says that no task measures the node yet, and a node the
root does not reach is scored for itself. Labels of a node that no edge names are left out of the taxonomy,
its tasks with them (:attr:`.model.Taxonomy.unplaced`), which is told. Where that program does what nobody
means, the line is refused: it drops an edge with a comment behind it, reads one behind a ``//`` that begins
its line, and ignores labels of the root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from testbench_dagster.core.wording import counted
from testbench_dagster.taxonomies.model import PLACEHOLDER, Taxonomy, TaxonomyError

ROOT = "root_c"

_LABELING = "_labeling"
_HEADER = re.compile(r"(?:digraph\s+)?(\"?)([^\s{};\"]+)\1\s*\{")
_NAME = re.compile(r"[^\s{};\"]+")


class LineError(Exception):
    """What is wrong on a line, with its number; the loader adds the file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class _Block:
    """One ``name { ... }``: its arrows in order, each with the line it first stands on."""

    name: str
    line: int
    arrows: dict[tuple[str, str], int] = field(default_factory=dict)


def parse(text: str) -> Taxonomy:
    """The taxonomy in ``text``; raises :class:`LineError`."""
    blocks = _blocks(text.removeprefix("\ufeff"))
    if len(blocks) != 2:
        line = blocks[2].line if len(blocks) > 2 else max(1, len(text.splitlines()))
        raise LineError(
            line,
            f"found {counted(len(blocks), 'block')}; want exactly two: name {{...}} and name_labeling "
            f"{{...}}",
        )
    hierarchy, labeling = blocks
    if labeling.name != hierarchy.name + _LABELING:
        wanted = hierarchy.name + _LABELING
        raise LineError(labeling.line, f"the second block is called {labeling.name!r}; rename it {wanted!r}")
    edges = {(_node(a), _node(b)): line for (a, b), line in hierarchy.arrows.items()}
    # where each edge, node and label stands, to answer for what the model finds wrong with it
    lines: dict[str | tuple[str, str] | None, int] = dict(edges.items())
    nodes: dict[str, list[str]] = {}
    unplaced: dict[str, list[str]] = {}
    for edge, line in edges.items():
        for node in edge:
            nodes.setdefault(node, [])
            lines.setdefault(node, line)
    for (label, task), line in labeling.arrows.items():
        node = _node(label)
        if node not in nodes and node != ROOT:
            unplaced.setdefault(node, []).append(task)
            continue
        if ":" in task:
            raise LineError(
                line, f"task {task!r} contains ':', which the format rewrites; use the YAML format for it"
            )
        if node == ROOT:
            raise LineError(
                line,
                f"a label of {ROOT!r} means nothing: the root is the mean of its children; "
                "put the task on a node below it",
            )
        nodes[node].append(task)
        lines[node, task] = line
    if ROOT not in nodes:
        raise LineError(
            hierarchy.line, f"no edge starts at the root {ROOT!r}; add {ROOT} -> ... for the top abilities"
        )
    for node, tasks in nodes.items():
        if node != ROOT and not tasks:
            raise LineError(
                lines[node],
                f"node {node!r} has no label; label it with a task, or with {PLACEHOLDER}1 "
                "if none measures it yet",
            )
    detached = _unreached(nodes, edges)
    try:
        return Taxonomy(
            hierarchy.name,
            {n: tuple(t) for n, t in nodes.items()},
            tuple(edges),
            ROOT,
            detached=detached,
            unplaced={n: tuple(t) for n, t in unplaced.items()},
        )
    except TaxonomyError as error:
        raise LineError(lines.get(error.subject, hierarchy.line), str(error)) from error


def write(taxonomy: Taxonomy) -> str:
    """The text that :func:`parse` reads as ``taxonomy``, edges and labels in its order.

    Raises TaxonomyError for what the format cannot say: another root than ``root_c``, tasks of the root, a
    node without tasks, weights, and names with white space or any of ``{};":``, ``//`` or ``->``.
    """
    if taxonomy.root != ROOT:
        raise TaxonomyError(f"the root must be called {ROOT!r} in a .tax file, not {taxonomy.root!r}")
    if taxonomy.nodes[ROOT]:
        raise TaxonomyError("a .tax file cannot give the root tasks; put them on a node below it", ROOT)
    if taxonomy.weights:
        raise TaxonomyError("a .tax file cannot hold weights; use YAML")
    for node, tasks in taxonomy.nodes.items():
        if not tasks and node != ROOT:
            raise TaxonomyError(f"a .tax file wants tasks on every node, {node!r} has none; use YAML", node)
        for name in (taxonomy.name, node, *tasks):
            if not _NAME.fullmatch(name) or any(mark in name for mark in (":", "//", "->")):
                raise TaxonomyError(f"the name {name!r} cannot stand in a .tax file; use YAML", node)
    hierarchy = [f"    {parent} -> {child};" for parent, child in taxonomy.edges]
    labelled = [*taxonomy.nodes.items(), *taxonomy.unplaced.items()]
    labels = [f"    {node} -> {task};" for node, tasks in labelled for task in tasks]
    blocks = ((taxonomy.name, hierarchy), (taxonomy.name + _LABELING, labels))
    return "\n".join("\n".join([f"{name} {{", *lines, "}", ""]) for name, lines in blocks)


def _unreached(nodes: Mapping[str, Sequence[str]], edges: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Nodes no path leads to from the root."""
    below: dict[str, list[str]] = {}
    for parent, child in edges:
        below.setdefault(parent, []).append(child)
    reached, todo = {ROOT}, [ROOT]
    while todo:
        for child in below.get(todo.pop(), ()):
            if child not in reached:
                reached.add(child)
                todo.append(child)
    return tuple(node for node in nodes if node not in reached)


def _node(name: str) -> str:
    return name.replace(":", "---")


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    open_block: _Block | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _without_comment(raw, number)
        if not line:
            continue
        if open_block is None:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise LineError(number, f"expected 'name {{' to open a block, found {line!r}")
            open_block = _Block(header.group(2), number)
            blocks.append(open_block)
        elif line == "}":
            open_block = None
        else:
            open_block.arrows.setdefault(_arrow(line, number), number)
    if open_block is not None:
        raise LineError(
            open_block.line, f"the block {open_block.name!r} is not closed; end it with a line '}}'"
        )
    return blocks


def _without_comment(raw: str, number: int) -> str:
    """The line without surrounding white space, "" for a comment; refuses ambiguous comments."""
    before, comment, behind = raw.partition("//")
    if not comment:
        return raw.strip()
    if before.strip():
        raise LineError(
            number, "a comment behind an entry silently removes it elsewhere; put it on its own line"
        )
    if not before and "->" in behind:
        raise LineError(
            number,
            "an arrow behind a leading '//' is still read by other programs; indent or delete it",
        )
    return ""


def _arrow(line: str, number: int) -> tuple[str, str]:
    parts = [part.strip() for part in line.removesuffix(";").split("->")]
    if len(parts) != 2:
        raise LineError(number, f"expected one arrow, as in 'a -> b;', found {line!r}")
    names = [part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part for part in parts]
    for name in names:
        if not _NAME.fullmatch(name):
            raise LineError(number, f"{name!r} is no name; want one word without quotes, braces, semicolons")
    return names[0], names[1]
