"""What a definition of the package uses of the package: read by syntax, annotations left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Modules = Mapping[str, Path]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that statements define, each with its statement: functions, classes and constants."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names = (part for part in ast.walk(target) if isinstance(part, ast.Name))
                yield from ((name.id, node) for name in names)


def definition(tree: ast.Module, name: str) -> tuple[ast.AST, ast.ClassDef | None] | None:
    """A definition (``Class.method``; the module itself without a name) and the class around it."""
    node: Any = tree
    around = None
    for part in name.split(".") if name else ():
        around = node if isinstance(node, ast.ClassDef) else None
        node = dict(definitions(getattr(node, "body", []))).get(part)
        if node is None:
            return None
    return node, around


def used(source: str, modules: Modules) -> set[str]:
    """What a source (``module``, or ``module:Class.method``) uses outside of itself, in the same form.

    That is names imported from other modules, and of a definition also the other names of its own module and
    class. A name that a package only hands on is looked for where it is defined.
    """
    module, _, name = source.partition(":")
    tree = parsed(modules[module])
    found = definition(tree, name)
    assert found is not None, f"{source} is not there"
    node, around = found
    imported = _imported(tree, modules)
    own = {each for each, _ in definitions(tree.body)} if name else set()
    methods = {each for each, _ in definitions(around.body)} if around is not None else set()
    reached: set[str] = set()
    for part in _without_annotations(node):
        if isinstance(part, ast.Name) and part.id in imported:
            where = imported[part.id]
            if where not in modules:
                reached.add(where)
        elif isinstance(part, ast.Name) and part.id in own:
            reached.add(f"{module}:{part.id}")
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            of = imported.get(part.value.id)
            if of in modules:
                reached.add(_defined(str(of), part.attr, modules))
            elif part.value.id in ("self", "cls") and part.attr in methods and around is not None:
                reached.add(f"{module}:{around.name}.{part.attr}")
    return {each for each in reached if not name or not _within(each, source)}


def covered(reached: str, sources: Mapping[str, Any] | tuple[str, ...]) -> bool:
    """Whether one of some sources is what was reached, or holds it."""
    return any(_within(reached, source) for source in sources)


def _within(reached: str, source: str) -> bool:
    return reached == source or reached.startswith((f"{source}.", f"{source}:"))


def _imported(tree: ast.Module, modules: Modules) -> dict[str, str]:
    """What names of a module's imports, late ones too, stand for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                found[alias.asname or alias.name] = _defined(node.module, alias.name, modules)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname is not None and alias.name in modules:
                    found[alias.asname] = alias.name
    return found


def _defined(module: str, name: str, modules: Modules) -> str:
    """Where a name that is imported from a module is defined: ``module:name``, or a module."""
    if f"{module}.{name}" in modules:
        return f"{module}.{name}"
    tree = parsed(modules[module])
    if name not in dict(definitions(tree.body)):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _defined(node.module, alias.name, modules)
    return f"{module}:{name}"


def _without_annotations(node: ast.AST) -> Iterator[ast.AST]:
    todo = [node]
    while todo:
        part = todo.pop()
        yield part
        for field, value in ast.iter_fields(part):
            if field not in ("annotation", "returns"):
                inner = value if isinstance(value, list) else [value]
                todo += [each for each in inner if isinstance(each, ast.AST)]
