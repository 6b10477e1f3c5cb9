"""Names of all lm-eval tasks, groups and tags, without importing lm_eval.

lm-eval's own ``TaskManager`` needs about 7 CPU seconds per process to parse its 14,000 YAML files
(`reference/lm_eval.md` section 1). This index holds the same names: for the pinned lm-eval it comes with
this package, for include folders and other versions it is built by reading each file once and cached as
JSON, keyed by the version and the state of the folders. A code location gets it in milliseconds.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.fork_tasks import fork_task_text

STARTER_PATH = Path(__file__).parent / "starter"
#: Names and relative paths of lm-eval's own tasks: saves the first use of an installation 5 CPU seconds.
PACKAGED_INDEX = Path(__file__).parent / "lm_eval_index.json.gz"
PACKAGED_VERSION = "0.4.13"
CACHE_ENV = "TESTBENCH_CACHE_DIR"
_FORMAT = 1  # raise when the JSON layout or the way of indexing changes
_IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}

Kind = Literal["task", "python", "group", "tag"]


@dataclass(frozen=True)
class Entry:
    """One indexed name. ``members`` holds a group's raw ``task:`` list or a tag's task names."""

    name: str
    kind: Kind
    path: str | None = None
    dataset_name: str | None = None
    members: Sequence[Any] = ()


@dataclass(frozen=True)
class Leaf:
    """A leaf task reached from a configured name; ``problem`` says why it cannot be measured."""

    name: str
    entry: Entry | None  # None: defined inline in a group, or nowhere
    problem: str | None = None


@dataclass
class TaskIndex:
    """Entries by name; the include folders override lm-eval's own, later folders earlier ones."""

    entries: dict[str, Entry] = field(default_factory=dict)
    #: Folders of further tasks: what cannot be read there is looked for when a name is missing.
    folders: tuple[Path, ...] = ()

    @classmethod
    def load(cls, include: Sequence[Path] = (), wanted: Iterable[str] | None = None) -> TaskIndex:
        """Load the index of the starter catalog, the include folders and lm-eval's own tasks.

        lm-eval's folder is left out when every ``wanted`` name is found without it: the demo needs none of
        its 14,000 files.
        """
        own = cls(folders=tuple(include))
        for folder in (STARTER_PATH, *include):
            if not folder.is_dir():
                raise TaskError(f"task_paths: {folder} is no folder; correct or remove it")
            own.entries.update(_cached(folder, _state_of(folder)))
        if wanted is not None and all(own._complete(name) for name in wanted):
            return own
        of_lm_eval = _cached(lm_eval_tasks(), importlib.metadata.version("lm_eval"))
        return cls({**of_lm_eval, **own.entries}, own.folders)

    def leaves(self, name: str) -> list[Leaf]:
        """Expand a task, group or tag to its leaf tasks, in lm-eval's order.

        A leaf that is defined nowhere, or only as a Python class, has a ``problem``.

        Raises:
            TaskError: the name is unknown (close names are suggested), or the group contains itself.
        """
        if name not in self.entries:
            raise TaskError(self.unknown(name))
        found: dict[str, Leaf] = {}
        try:
            for leaf in self._expand(name):
                found.setdefault(leaf.name, leaf)
        except RecursionError:
            raise TaskError(f"group {name!r} contains itself; correct its task: list") from None
        return list(found.values())

    def unknown(self, name: str) -> str:
        """What to say of a name that is in no index."""
        if (broken := _unreadable(self.folders, name)) is not None:
            return f"task {name!r}: {broken}"
        if (of_fork := fork_task_text(name)) is not None:
            return f"task {name!r} {of_fork}"
        return f"unknown task {name!r}; {self._suggest(name)}"

    def _complete(self, name: str) -> bool:
        try:
            return all(leaf.entry is not None for leaf in self._expand(name))
        except (KeyError, RecursionError):  # the name itself is missing
            return False

    def _expand(self, name: str) -> Iterator[Leaf]:
        entry = self.entries[name]
        if entry.kind == "tag":
            for member in sorted(entry.members):
                if member in self.entries:
                    yield Leaf(member, self.entries[member])
        elif entry.kind == "group":
            yield from self._expand_members(name, entry.members)
        elif entry.kind == "python":
            yield Leaf(
                name,
                entry,
                f"task {name!r} is a Python task of lm-eval, which is not supported; "
                "use a task defined by YAML",
            )
        else:
            yield Leaf(name, entry)

    def _expand_members(self, group: str, members: Sequence[Any]) -> Iterator[Leaf]:
        # mirrors lm_eval.tasks._factory.TaskFactory._build_group_members, names only
        for member in members:
            if isinstance(member, dict) and "group" in member:
                if member["group"] in self.entries:
                    yield from self._expand(member["group"])
                elif isinstance(member.get("task"), list):
                    yield from self._expand_members(f"{group}::{member['group']}", member["task"])
                continue
            name = member["task"] if isinstance(member, dict) else member
            if name in self.entries:
                yield from self._expand(name)
            elif isinstance(member, dict):
                yield Leaf(f"{group}::{name}", None)
            else:
                why = self.unknown(name).removeprefix(f"unknown task {name!r}; ")
                yield Leaf(name, None, f"group {group!r} names {name!r}, which is no task; {why}")

    def _suggest(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.entries, n=3, cutoff=0.6)
        if close:
            return f"did you mean {' or '.join(close)}?"
        return "see `lm-eval ls tasks`, or add the folder of your own YAML to task_paths"


def lm_eval_tasks() -> Path:
    """Folder of lm-eval's own task definitions."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise TaskError("lm-eval is not installed; run: pip install 'lm-eval==0.4.13'")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def cache_folder() -> Path:
    """Where indexes are cached: ``TESTBENCH_CACHE_DIR``, or the user's cache folder."""
    named = os.environ.get(CACHE_ENV)
    if named:
        return Path(named)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "testbench_dagster"


def _state_of(folder: Path) -> str:
    """Changes whenever a YAML file of the folder does."""
    stats = sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in _yaml_files(folder))
    return json.dumps(stats)


def _cached(folder: Path, state: str) -> dict[str, Entry]:
    key = hashlib.sha256(json.dumps([_FORMAT, str(folder), state]).encode()).hexdigest()[:32]
    cache = cache_folder() / f"index-{key}.json"
    try:
        raw = json.loads(cache.read_text(encoding="utf-8"))
        return {name: Entry(name, **fields) for name, fields in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        pass  # absent, unreadable or of an older layout: build it anew
    entries = (_packaged(folder) if state == PACKAGED_VERSION else None) or build_index(folder)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(_fields(entries)), encoding="utf-8")
        partial.replace(cache)  # atomic: several processes may build it at once
    except OSError:
        pass  # a read-only cache folder costs time, not correctness
    return entries


def _fields(entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
    """Each entry's fields but the name, those at their defaults left out."""
    return {
        e.name: {k: v for k, v in vars(e).items() if k != "name" and v is not None and v != () and v != []}
        for e in entries.values()
    }


def _packaged(folder: Path) -> dict[str, Entry] | None:
    """The index of lm-eval's own tasks as shipped with this package, its paths put under ``folder``."""
    try:
        raw = json.loads(gzip.decompress(PACKAGED_INDEX.read_bytes()))
    except (OSError, ValueError, zlib.error):
        return None
    for fields in raw.values():
        if "path" in fields:
            fields["path"] = str(folder / fields["path"])
    return {name: Entry(name, **fields) for name, fields in raw.items()}


def write_packaged_index() -> None:
    """Write :data:`PACKAGED_INDEX` anew from the installed lm-eval (when its pin moves)."""
    folder = lm_eval_tasks()
    raw = _fields(build_index(folder))
    for fields in raw.values():
        if "path" in fields:
            fields["path"] = Path(fields["path"]).relative_to(folder).as_posix()
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    PACKAGED_INDEX.write_bytes(gzip.compress(text.encode(), mtime=0))


def _yaml_files(folder: Path) -> list[Path]:
    files = (p for p in folder.glob("**/*.yaml") if not _IGNORED_FOLDERS.intersection(p.parts))
    return sorted(files, key=lambda p: p.as_posix())


def _unreadable(folders: Iterable[Path], name: str) -> str | None:
    """Why the YAML file of some folders that seems to define a name is not in the index; None without one."""
    defines = re.compile(rf"^(task|group):\s*[\"']?{re.escape(name)}[\"']?\s*(#.*)?$", re.MULTILINE)
    load = _Loader()
    for path in (path for folder in folders for path in _yaml_files(folder)):
        try:
            if not defines.search(path.read_text(encoding="utf-8", errors="replace")):
                continue
            load(path)
        except (OSError, ValueError, RecursionError, load.yaml_error) as error:
            reason = " ".join(str(error).split())[:300]
            return f"its definition {path} cannot be read: {reason}; correct the file"
    return None


def raw_definition(path: Path) -> Mapping[str, Any]:
    """A task's YAML with what it includes, functions as texts: nothing is imported.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    load = _Loader()
    try:
        return load(path)
    except load.yaml_error as error:
        raise ValueError(str(error)) from None


def build_index(folder: Path) -> dict[str, Entry]:
    """Parse the YAML files of a folder into entries; the rules are those of ``lm_eval.tasks._index``.

    Files that do not parse or define nothing are skipped, and of two definitions of one name the first in
    path order wins, both as lm-eval does.
    """
    load = _Loader()
    entries: dict[str, Entry] = {}
    tags: dict[str, list[str]] = {}
    for path in _yaml_files(folder):
        try:
            raw = load(path)
        except (OSError, ValueError, RecursionError, load.yaml_error):
            continue
        kind: Kind
        if "class" in raw:
            kind, name = "python", raw.get("task")
        elif "group" in raw:
            kind, name = "group", raw["group"]
        else:
            kind, name = "task", raw.get("task")
        if not isinstance(name, str) or name in entries:
            continue
        members = raw.get("task") if kind == "group" else ()
        dataset_name = raw.get("dataset_name")
        entries[name] = Entry(
            name,
            kind,
            str(path),
            None if dataset_name is None else str(dataset_name),
            (_plain(members) if isinstance(members, list) else None) or (),
        )
        if kind != "group":
            tag = raw.get("tag")
            for label in [tag] if isinstance(tag, str) else tag or ():
                tags.setdefault(label, []).append(name)
    for label, members in tags.items():
        entries.setdefault(label, Entry(label, "tag", members=members))
    return entries


def _plain(members: list[Any]) -> list[Any]:
    """Keep of a group's member list what expansion needs; the rest stays in its YAML."""
    result: list[Any] = []
    for member in members:
        if isinstance(member, str):
            result.append(member)
        elif isinstance(member, dict) and "group" in member:
            nested = member.get("task")
            result.append(
                {"group": member["group"], **({"task": _plain(nested)} if isinstance(nested, list) else {})}
            )
        elif isinstance(member, dict) and isinstance(member.get("task"), str):
            result.append({"task": member["task"]})
    return result


class _Loader:
    """Loads a task YAML with its includes; ``!function`` tags stay strings, each file is parsed once."""

    def __init__(self) -> None:
        import yaml

        base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

        class Loader(base):  # type: ignore[misc]  # the C loader or, without libyaml, the Python one
            pass

        def as_text(loader: Any, node: Any) -> str:
            return str(loader.construct_scalar(node))

        Loader.add_constructor("!function", as_text)
        self._loader = Loader
        self._yaml = yaml
        self._parsed: dict[Path, dict[str, Any]] = {}
        self.yaml_error = yaml.YAMLError

    def __call__(self, path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Any]:
        path = path.resolve()
        if path in chain:
            raise ValueError(f"include cycle at {path}")
        if path not in self._parsed:
            raw = self._yaml.load(path.read_bytes(), Loader=self._loader)
            if not isinstance(raw, dict):
                raise ValueError(f"{path} is no mapping")
            self._parsed[path] = raw
        raw = self._parsed[path]
        if "include" not in raw:
            return raw
        merged: dict[str, Any] = {}
        includes = raw["include"]
        for include in includes if isinstance(includes, list) else [includes]:
            merged.update(self(path.parent / include, (*chain, path)))
        merged.update({key: value for key, value in raw.items() if key != "include"})
        return merged


if __name__ == "__main__":
    write_packaged_index()
