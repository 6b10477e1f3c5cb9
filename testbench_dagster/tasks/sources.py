"""What a task is made from, as hashes: its YAML folders, settings and data files. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import LM_EVAL, TaskSpec
from testbench_dagster.stores.documents import content_hash


def source_state(spec: TaskSpec) -> str:
    """Changes whenever what a task is made from does: its definition, settings or data files.

    Files go in by content, so that a new checkout of the same files changes nothing.
    """
    if spec.signs:
        return content_hash([definition_state(spec), spec.probes, spec.probe_tokens])
    files = [[split, file_state(path)] for split, path in sorted((spec.data or {}).items())]
    parts = [definition_state(spec), spec.num_fewshot, dict(spec.where), files]
    asked, options = spec.generation.settings(), dict(spec.options)
    return content_hash([*parts, *([asked] if asked or options else []), *([options] if options else [])])


def definition_state(spec: TaskSpec) -> str:
    """Changes whenever the code that scores a task may: the framework's version, the task's YAML folders."""
    version = framework_plug(spec.framework).version
    if spec.framework == LM_EVAL:
        return content_hash([version, spec.leaf, folders_state(spec.include)])
    folders = [folders_state(spec.include)] if spec.include else []
    return content_hash([spec.framework, version, spec.leaf, *folders])


def folders_state(folders: Sequence[str]) -> str:
    """Changes with the task definitions in some folders and the Python files they may name."""
    found = []
    for folder in folders:
        paths = sorted(p for p in Path(folder).glob("**/*") if p.suffix in (".yaml", ".py"))
        found.append([[str(p.relative_to(folder)), file_state(str(p))] for p in paths])
    return content_hash(found)


def file_state(path: str) -> str | None:
    """The hash of a file's content; None where it cannot be read. Read again only when it changed."""
    try:
        stat = Path(path).stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)  # the leaves of a group often share one file
def _digest(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
