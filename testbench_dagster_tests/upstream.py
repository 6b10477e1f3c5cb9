"""What canary tests of libraries' private parts share: a sentence saying what changed and where to mend it.

A module of the package lists what it takes from one library; these functions hold that against what is
installed, without importing the module, which could not even be imported after a change.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import testbench_dagster

ROOT = Path(testbench_dagster.__file__).parent.parent


def source_of(module: str) -> Path:
    """The file of one of our modules, found without importing it."""
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def taken(module: str, library: str) -> Iterator[tuple[str, str]]:
    """Module and name of everything that one of our modules imports from a library."""
    for node in ast.walk(ast.parse(source_of(module).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == library:
            yield from ((node.module or "", alias.name) for alias in node.names)


def says(library: str, changed: str, module: str) -> str:
    """The sentence a canary fails with."""
    version = importlib.metadata.version(library)
    return f"{library} {version}: {changed}; mend {source_of(module).relative_to(ROOT)}"


def gone(module: str, library: str) -> list[str]:
    """One sentence for each name that is taken from a library and no longer there."""
    found = []
    for where, name in taken(module, library):
        try:
            there = hasattr(importlib.import_module(where), name)
        except ImportError:
            there = False
        if not there:
            found.append(says(library, f"{where} has no {name} any more", module))
    return found


def otherwise_called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Why a call with such arguments would fail, or nothing. The first argument of methods counts."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return f"{function.__module__}.{function.__qualname__}{inspect.signature(function)}: {error}"
    return ""
