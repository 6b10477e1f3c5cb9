"""The operator's own task definitions (`task_paths`) that scoring a task needs: into a bundle, out of it.

Of a task defined by YAML in one of these folders go in: the YAML of every task of the configured name, which
lm-eval builds together; what these include; and the Python files beside the ones they name. Definitions that
come with lm-eval or this package do not: whoever checks a bundle uses their own installed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.evidence.layout import BundleError, DefinitionFile
from testbench_dagster.tasks.index import TaskIndex


@dataclass
class Definitions:
    """Files of a task's own definition; ``problem`` says why they do not suffice elsewhere."""

    files: dict[DefinitionFile, bytes] = field(default_factory=dict)
    problem: str | None = None


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's ``!function`` tags as text."""


class _Function(str):
    __slots__ = ()


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> _Function:
    return _Function(loader.construct_scalar(node))  # type: ignore[arg-type]


_Loader.add_constructor("!function", _function)


def own_definitions(spec: TaskSpec) -> Definitions:
    """Collect the files of ``task_paths`` that define a task; none for a task of lm-eval or the starter.

    Raises:
        TaskError: a file cannot be read.
    """
    found = Definitions()
    if not framework_plug(spec.framework).of_lm_eval or not spec.include:
        return found
    folders = [Path(folder).resolve() for folder in spec.include]
    index = TaskIndex.load([Path(folder) for folder in spec.include], [spec.root])
    todo = [Path(path).resolve() for path in _defining(index, spec.root, set())]
    todo = [path for path in todo if _place(path, folders) is not None]
    seen: set[Path] = set()
    try:
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            place, data = _place(path, folders), path.read_bytes()
            if place is None:
                found.problem = f"its definition uses {path.name}, which lies outside of task_paths"
                continue
            found.files[place] = data
            if path.suffix != ".py":
                todo += _used(path, data)
    except (OSError, yaml.YAMLError) as error:
        raise TaskError(f"task {spec.name!r}: its definition cannot be read: {error}") from None
    return found


def unpack(files: Mapping[DefinitionFile, bytes], into: Path) -> tuple[str, ...]:
    """Write bundled definitions below a folder; return the folders to search, as ``task_paths`` would.

    Raises:
        BundleError: two files exclude each other.
    """
    folders = sorted({place.folder for place in files})
    try:
        for place, data in files.items():
            target = into / str(place.folder) / place.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    except OSError as error:
        raise BundleError(f"the bundled definitions cannot be unpacked: {error.strerror}") from None
    return tuple(str(into / str(folder)) for folder in folders)


def _defining(index: TaskIndex, name: str, seen: set[str]) -> Iterator[str]:
    """Paths of the YAML files of a task, group or tag and of everything in it."""
    entry = index.entries.get(name)
    if entry is None or name in seen:
        return
    seen.add(name)
    if entry.path:
        yield entry.path
    yield from _of_members(index, entry.members, seen)


def _of_members(index: TaskIndex, members: Iterable[Any], seen: set[str]) -> Iterator[str]:
    for member in members:
        if isinstance(member, str):
            yield from _defining(index, member, seen)
            continue
        for key in ("task", "group"):
            value = member.get(key)
            if isinstance(value, str):
                yield from _defining(index, value, seen)
            else:
                yield from _of_members(index, value or (), seen)


def _used(path: Path, data: bytes) -> list[Path]:
    """What a YAML file includes, and the Python files beside those it names."""
    loaded = yaml.load(data, Loader=_Loader)  # noqa: S506  a safe loader, with rules of its own
    if not isinstance(loaded, dict):
        return []
    includes = loaded.get("include") or []
    found = [
        (path.parent / str(name)).resolve()
        for name in (includes if isinstance(includes, list) else [includes])
    ]
    for name in _functions(loaded):
        module = name.rpartition(".")[0].replace(".", "/")  # as lm-eval's loader finds it
        file = (path.parent / f"{module}.py").resolve()
        if file.exists():
            found += sorted(file.parent.glob("*.py"))
    return found


def _functions(value: Any) -> Iterator[str]:
    if isinstance(value, _Function):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _functions(item)
    elif isinstance(value, list):
        for item in value:
            yield from _functions(item)


def _place(path: Path, folders: list[Path]) -> DefinitionFile | None:
    for number, folder in enumerate(folders):
        if path.is_relative_to(folder):
            return DefinitionFile(number, path.relative_to(folder).as_posix())
    return None
