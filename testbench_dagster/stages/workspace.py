"""One opened installation: configuration, tasks, stores and the lm-eval worker, shared by all stages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from testbench_dagster.config import Config, load_config
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.configured_tasks import ConfiguredTasks, configured_tasks
from testbench_dagster.stores.documents import BodiesOutside, DocumentStore, open_documents
from testbench_dagster.stores.documents.as_of import StoreAsOf
from testbench_dagster.stores.files import create_folder
from testbench_dagster.tasks.frameworks import Framework
from testbench_dagster.tasks.worker import FrameworkWorker

if TYPE_CHECKING:
    from testbench_dagster.stages.service.probing import Probed
    from testbench_dagster.stores.datasets import DatasetStore


class Workspace:
    """Everything a stage needs; each part opens on first use and closes with :meth:`close`."""

    def __init__(
        self,
        config: Config,
        *,
        specs: Sequence[TaskSpec] | None = None,
        groups: Sequence[TaskGroup] = (),
        documents: DocumentStore | None = None,
        datasets: DatasetStore | None = None,
        worker: FrameworkWorker | None = None,
        hurried: bool = False,
    ) -> None:
        """What is given is used as it is, and stays open; the rest comes from the configuration.

        Args:
            config: the configuration.
            specs: the tasks, in place of the configured ones.
            groups: their groups.
            documents: the document store.
            datasets: the dataset store.
            worker: the processes in which frameworks live.
            hurried: a person waits for a first answer: a server that gives none is told of sooner, though it
                may only be electing. Work is to wait for it: see :meth:`take_time`.
        """
        self.config = config
        self._hurried = hurried
        self._opened: list[DocumentStore | DatasetStore | FrameworkWorker] = []
        if specs is not None:
            self._configured = ConfiguredTasks(list(specs), list(groups))
        if documents is not None:
            self.documents = documents
        if datasets is not None:
            self.datasets = datasets
        if worker is not None:
            self.worker = worker
        #: Who watches relays in this process (a terminal): told the number of due calls, then the progress.
        self.on_planned: Callable[[int], None] | None = None
        self.on_progress: Callable[[Progress], None] | None = None
        #: Told what came of a round of service probes.
        self.on_probed: Callable[[Probed], None] | None = None
        #: Told by the scoring of what was answered how many docs of a task are done, and of how many.
        self.on_scored: Callable[[int, int], None] | None = None
        #: Set by who wants relays in this process to stop; what is stored is scored all the same.
        self.stop: threading.Event | None = None
        #: Why tasks are not scored any more in the run that this workspace serves, by name: their framework
        #: came to no end.
        self.given_up: dict[str, str] = {}
        #: Why a metric's values of tasks could not be put together, by name.
        self.unaggregated: dict[str, str] = {}
        #: What tells other processes that the run this workspace serves is alive; None outside of runs.
        self.heartbeat: Heartbeat | None = None

    @classmethod
    def open(cls, path: Path | str | None = None, *, hurried: bool = False) -> Workspace:
        """Open the installation of a configuration file (default: see :func:`config.find_config`)."""
        return cls(load_config(path), hurried=hurried)

    def take_time(self) -> None:
        """Work begins, which waits for a server that elects: a store that was opened is opened anew."""
        if not self._hurried:
            return
        self._hurried = False
        documents = vars(self).get("documents")
        if documents in self._opened:  # one that was given stays as it is
            del self.documents
            self._opened.remove(documents)
            documents.close()

    def with_specs(self, specs: Sequence[TaskSpec]) -> Workspace:
        """The same installation, over these stores, as if it had other tasks."""
        made = Workspace(
            self.config, specs=specs, documents=self.documents, datasets=self.datasets, worker=self.worker
        )
        made.given_up, made.unaggregated = self.given_up, self.unaggregated
        return made

    def as_of(self, at: datetime) -> Workspace:
        """The same installation with the facts dated up to an instant; its documents can only be read."""
        documents = StoreAsOf(self.documents, at)
        return Workspace(
            self.config,
            specs=self.specs,
            groups=self.groups,
            documents=documents,
            datasets=self.datasets,
            worker=self.worker,
        )

    @cached_property
    def _configured(self) -> ConfiguredTasks:
        return configured_tasks(self.config)

    @cached_property
    def specs(self) -> list[TaskSpec]:
        """The configured leaf tasks, in configured order."""
        return list(self._configured.specs)

    @property
    def groups(self) -> Sequence[TaskGroup]:
        """The groups of which lm-eval makes a score, the outer before those nested in them."""
        return self._configured.groups

    @cached_property
    def documents(self) -> DocumentStore:
        """The document store."""
        bodies = self.config.settings.bodies
        documents = open_documents(
            self._home(),
            self.config.mongo_uri,
            outside=None if bodies is None else BodiesOutside(bodies.place, bodies.min_bytes),
            hurried=self._hurried,
        )
        self._opened.append(documents)
        return documents

    @cached_property
    def datasets(self) -> DatasetStore:
        """The dataset store."""
        # with sqlalchemy: a quarter of a second that not every command has to pay
        from testbench_dagster.stores.datasets import open_datasets

        datasets = open_datasets(self._home(), self.config.postgres_uri)
        self._opened.append(datasets)
        return datasets

    @cached_property
    def worker(self) -> FrameworkWorker:
        """The processes in which frameworks live; each starts with its first call."""
        worker = FrameworkWorker(self.config.settings.secret_variables)
        self._opened.append(worker)
        return worker

    def framework(self, spec: TaskSpec) -> Framework:
        """What registers, asks and scores a task."""
        return Framework(spec.framework, self.worker)

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
        nested = {group.name: group.tasks for group in self.groups}
        for name in names:
            if name not in nested and not any(name in (s.name, s.group) for s in self.specs):
                known = ", ".join(s.name for s in self.specs[:20])
                raise ConfigError(f"task {name!r} is not configured; configured are: {known}")
        wanted = {*names, *(task for name in names for task in nested.get(name, ()))}
        return [s for s in self.specs if s.name in wanted or s.group in names]

    def chosen_groups(self, names: Sequence[str] | None) -> list[TaskGroup]:
        """The groups all of whose tasks are among :meth:`chosen_specs`."""
        chosen = {spec.name for spec in self.chosen_specs(names)}
        return [group for group in self.groups if chosen.issuperset(group.tasks)]

    def close(self) -> None:
        """Release the connections and end the worker that were opened here."""
        for name in ("documents", "datasets", "worker"):
            vars(self).pop(name, None)  # one that is used again opens its parts anew
        while self._opened:
            self._opened.pop(0).close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _home(self) -> Path:
        home = self.config.home
        create_folder(home)
        return home
