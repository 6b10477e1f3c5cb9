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
comes from, repeated lines count once and ``:`` in a node's name is read as ``---``. That program drops an
edge with a comment behind it and reads one behind a ``//`` that begins its line; as nobody means either,
such lines are refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError

ROOT = "root_c"

_LABELING = "_labeling"
_HEADER = re.compile(r"(?:digraph\s+)?([^\s{}\"]+)\s*\{")
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
    blocks = _blocks(text)
    if len(blocks) != 2:
        line = blocks[2].line if len(blocks) > 2 else max(1, len(text.splitlines()))
        raise LineError(
            line, f"found {len(blocks)} blocks; want exactly two: name {{...}} and name_labeling {{...}}"
        )
    hierarchy, labeling = blocks
    if labeling.name != hierarchy.name + _LABELING:
        wanted = hierarchy.name + _LABELING
        raise LineError(labeling.line, f"the second block is called {labeling.name!r}; rename it {wanted!r}")
    edges = {(_node(a), _node(b)): line for (a, b), line in hierarchy.arrows.items()}
    # where each edge, node and label stands, to answer for what the model finds wrong with it
    lines: dict[str | tuple[str, str] | None, int] = dict(edges.items())
    nodes: dict[str, list[str]] = {}
    for edge, line in edges.items():
        for node in edge:
            nodes.setdefault(node, [])
            lines.setdefault(node, line)
    for (label, task), line in labeling.arrows.items():
        node = _node(label)
        if node not in nodes:
            raise LineError(
                line,
                f"node {node!r} has a label but is not in the hierarchy; add an edge to it or drop the label",
            )
        if ":" in task:
            raise LineError(
                line, f"task {task!r} contains ':', which the format rewrites; use the YAML format for it"
            )
        nodes[node].append(task)
        lines[node, task] = line
    if ROOT not in nodes:
        raise LineError(
            hierarchy.line, f"no edge starts at the root {ROOT!r}; add {ROOT} -> ... for the top abilities"
        )
    try:
        return Taxonomy(hierarchy.name, {n: tuple(tasks) for n, tasks in nodes.items()}, tuple(edges), ROOT)
    except TaxonomyError as error:
        raise LineError(lines.get(error.subject, hierarchy.line), str(error)) from error


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
            open_block = _Block(header.group(1), number)
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
