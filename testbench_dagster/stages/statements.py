"""What this process goes by, files included, and what it is refused for where others go by something else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from testbench_dagster.config import Config, load_config
from testbench_dagster.config.fingerprint import digest, stated_settings
from testbench_dagster.coordination.packages import stated_versions
from testbench_dagster.coordination.processes import host_name
from testbench_dagster.coordination.statements import (
    CATCH_UP_S,
    CODE_SERVER,
    RUN,
    Requested,
    Statement,
    Stating,
    binding,
    is_own,
    leading,
    living,
    note_admitted,
    note_refused,
    refusal,
    refused_lately,
    stating_once,
)
from testbench_dagster.core.errors import ConfigError, DriftError, StoreError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.tasks.sources import file_state, folders_state
from testbench_dagster.tasks.specs import absolute_path
from testbench_dagster.taxonomies.load import taxonomy_path
from testbench_dagster.taxonomies.model import TaxonomyError

_CODE = (".yaml", ".py")  # what of a folder of task_paths defines tasks


def statement(config: Config, specs: Sequence[TaskSpec]) -> Statement:
    """What a process with this configuration and these tasks goes by; files go in by their content."""
    entries = stated_settings(config.settings)
    entries |= dict(_of_data(specs))
    for source in config.settings.supplier_sources:
        if source.file is not None:
            entries[f"supplier_sources.{source.label}.content"] = _content(config.base / source.file)
    for name in config.settings.taxonomies:
        if not name.startswith("builtin:"):
            entries[f"taxonomies.{Path(name).name}"] = _taxonomy(config, name)
    if config.settings.taxonomies:
        entries["taxonomies"] = ", ".join(Path(name).name for name in config.settings.taxonomies)
    if folders := config.settings.task_paths:
        paths = [absolute_path(config.base, folder) for folder in folders]
        entries["task_paths"] = f"content {digest(folders_state(paths))}"
    frameworks = {spec.framework: str(framework_plug(spec.framework).version) for spec in specs}
    return Statement(entries, stated_versions(frameworks), str(config.path))


def _of_data(specs: Sequence[TaskSpec]) -> Iterator[tuple[str, str]]:
    files: defaultdict[str, list[tuple[str, str, str | None]]] = defaultdict(list)
    for spec in specs:
        for split, path in (spec.data or {}).items():
            files[spec.root].append((spec.name, split, file_state(path)))
    for root, states in files.items():
        missing = [state for state in states if state[2] is None]
        lost = f", {len(missing)} of {len(states)} missing" if missing else ""
        yield f"tasks.{root}.data", f"content {digest(sorted(states, key=lambda s: s[:2]))}{lost}"


def _content(path: Path) -> str:
    state = file_state(str(path))
    return "missing" if state is None else f"content {state[:12]}"


def _taxonomy(config: Config, name: str) -> str:
    try:
        return _content(taxonomy_path(name, config.base))
    except TaxonomyError:  # whoever reads it says so
        return "unreadable"


def refuse_drift(
    workspace: Workspace, requested: Requested | None = None, *, catch_up_s: float = CATCH_UP_S
) -> Statement:
    """What this process goes by; a run of the daemon's says what it was ``requested`` with.

    Raises:
        DriftError: it is something else than the code server goes by, or than the run was requested with.
    """
    own = statement(workspace.config, workspace.specs)
    problem = refusal(workspace.documents, own, leading, requested, catch_up_s=catch_up_s)
    if problem is not None:
        note_refused(workspace.documents, own, problem)
        raise DriftError(problem)
    note_admitted(workspace.documents, own)
    return own


def refuse_beside_others(workspace: Workspace) -> Statement:
    """What this process goes by, which evaluates at a person's word.

    Raises:
        DriftError: a code server, or another evaluation that goes on, goes by something else.
    """
    own = statement(workspace.config, workspace.specs)
    problem = refusal(workspace.documents, own, binding)
    if problem is not None:
        raise DriftError(problem)
    return own


def problem_beside_others(workspace: Workspace) -> str | None:
    """What :func:`refuse_beside_others` would refuse an evaluation for now; None where it would not."""
    own = statement(workspace.config, workspace.specs)
    return refusal(workspace.documents, own, binding, catch_up_s=0)


def evaluating(workspace: Workspace) -> AbstractContextManager[None]:
    """State what an evaluation in this process goes by, for as long as the context is open.

    Raises:
        DriftError: see :func:`refuse_beside_others`.
    """
    return stating_once(workspace.documents, RUN, refuse_beside_others(workspace))


def server_problem(workspace: Workspace) -> str | None:
    """Why a code server may request nothing: another was there first, and goes by something else."""
    other = leading(workspace.documents)
    if other is None or is_own(other, str(workspace.config.path)):
        return None
    own = statement(workspace.config, workspace.specs)
    return refusal(workspace.documents, own, lambda _: other, catch_up_s=0)


def statement_findings(workspace: Workspace) -> Iterator[Finding]:
    """What other processes go by, and whose runs were refused for it."""
    try:
        servers, refused = living(workspace.documents), refused_lately(workspace.documents)
        own = statement(workspace.config, workspace.specs)
        problem = refusal(workspace.documents, own, leading)
    except StoreError:  # said before
        return
    what = "other machines"
    if problem is not None:
        yield Finding(what, problem, ok=False)
    elif servers:
        hosts = ", ".join(dict.fromkeys(one.host.partition("/")[0] for one in servers))
        yield Finding(what, f"the code server on {hosts} goes by this configuration and these packages")
    told = {problem}
    for one in servers[1:]:
        if (one.config, one.packages) != (servers[0].config, servers[0].packages):
            host = one.host.partition("/")[0]
            text = f"a second code server, of {one.path}, goes by something else and requests nothing"
            yield Finding(f"code server on {host}", text, ok=False, warning=True)
    for one in refused:
        if one.problem not in told:
            yield Finding(f"runs on {one.host.partition('/')[0]}", one.problem or "", ok=False)


def refused_hosts(workspace: Workspace) -> dict[str, str]:
    """Why runs were refused lately, by the name of the machine."""
    return {one.host.partition("/")[0]: one.problem or "" for one in refused_lately(workspace.documents)}


class ServerStatement:
    """What a code server goes by, read again when its file or one that it names changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._own: Statement | None = None
        self._files: tuple[Path, ...] = (path,)
        self._workspace: Workspace | None = None

    def now(self) -> Statement | None:
        """It; None as long as the configuration was never right. One that is being edited changes nothing."""
        seen = [_stamp(path) for path in self._files]
        if seen == self._seen:
            return self._own
        try:
            config = load_config(self._path)
            specs = task_specs(config)
        except ConfigError:  # whoever needs it says so
            self._seen = seen
            return self._own
        self._files = (self._path, *_named_files(config, specs))
        self._seen = [_stamp(path) for path in self._files]
        self._own = statement(config, specs)
        return self._own

    def documents(self) -> DocumentStore:
        """The store to state it in."""
        if self._workspace is None:
            self._workspace = Workspace.open(self._path)
        return self._workspace.documents

    def close(self) -> None:
        """Close the store."""
        if self._workspace is not None:
            self._workspace.close()


def _named_files(config: Config, specs: Sequence[TaskSpec]) -> Iterator[Path]:
    settings = config.settings
    names = {path for spec in specs for path in (spec.data or {}).values()}
    yield from map(Path, sorted(names))
    yield from (config.base / source.file for source in settings.supplier_sources if source.file)
    yield from (config.base / name for name in settings.taxonomies if not name.startswith("builtin:"))
    for name in settings.task_paths:
        folder = Path(absolute_path(config.base, name))
        yield folder
        yield from sorted(path for path in folder.glob("**/*") if path.is_dir() or path.suffix in _CODE)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def serve_statement(path: Path) -> ExitStack:
    """Have a code server state what it goes by until the returned context is closed."""
    served = ServerStatement(path)
    stack = ExitStack()
    stack.callback(served.close)
    stack.enter_context(Stating(served.documents, CODE_SERVER, served.now))
    return stack


def requested_by(by: str | None, config: str | None, packages: str | None) -> Requested | None:
    """What a run was requested with, by its tags; None where they do not say."""
    if config is None or packages is None:
        return None
    return Requested(by or "another machine", config, packages)


def own_host() -> str:
    """The name of this machine, as runs and attempts carry it."""
    return host_name()
