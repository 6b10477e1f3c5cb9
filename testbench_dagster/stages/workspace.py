"""One opened installation: configuration, tasks, stores and the lm-eval worker, shared by all stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from testbench_dagster.config import Config, load_config
from testbench_dagster.coordination.heartbeats import Heart
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.stores.documents import DocumentStore, open_documents
from testbench_dagster.tasks.frameworks import Framework, framework_of
from testbench_dagster.tasks.worker import FrameworkWorker

if TYPE_CHECKING:
    from testbench_dagster.stores.datasets import DatasetStore


class Workspace:
    """Everything a stage needs; each part opens on first use and closes with :meth:`close`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Who watches relays in this process (a terminal): told the number of due calls, then the progress.
        self.on_planned: Callable[[int], None] | None = None
        self.on_progress: Callable[[Progress], None] | None = None
        #: What tells other processes that the run this workspace serves is alive; None outside of runs.
        self.heart: Heart | None = None

    @classmethod
    def open(cls, path: Path | str | None = None) -> Workspace:
        """Open the installation of a configuration file (default: see :func:`config.find_config`)."""
        return cls(load_config(path))

    @cached_property
    def specs(self) -> list[TaskSpec]:
        """The configured leaf tasks, in configured order."""
        return task_specs(self.config)

    @cached_property
    def documents(self) -> DocumentStore:
        """The document store."""
        return open_documents(self._home(), self.config.mongo_uri)

    @cached_property
    def datasets(self) -> DatasetStore:
        """The dataset store."""
        # with sqlalchemy: a quarter of a second that not every command has to pay
        from testbench_dagster.stores.datasets import open_datasets

        return open_datasets(self._home(), self.config.postgres_uri)

    @cached_property
    def worker(self) -> FrameworkWorker:
        """The process that owns lm_eval; it starts with its first call."""
        return FrameworkWorker(self.config.settings.secret_variables)

    def framework(self, spec: TaskSpec) -> Framework:
        """What registers, asks and scores a task."""
        return framework_of(spec.framework, self.worker)

    def spec(self, name: str) -> TaskSpec:
        """The task with this partition key.

        Raises:
            ConfigError: it is not configured.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        raise ConfigError(f"task {name!r} is not configured in {self.config.path}")

    def chosen_specs(self, names: Sequence[str] | None) -> list[TaskSpec]:
        """The tasks with these names or groups, in configured order; all of them for None.

        Raises:
            ConfigError: a name is neither a configured task nor a group.
        """
        if names is None:
            return self.specs
        for name in names:
            if not any(name in (s.name, s.group) for s in self.specs):
                known = ", ".join(s.name for s in self.specs[:20])
                raise ConfigError(f"task {name!r} is not configured; configured are: {known}")
        return [s for s in self.specs if s.name in names or s.group in names]

    def close(self) -> None:
        """Release connections and end the worker."""
        for part in ("documents", "datasets", "worker"):
            if part in self.__dict__:
                self.__dict__.pop(part).close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _home(self) -> Path:
        home = self.config.home
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return home
