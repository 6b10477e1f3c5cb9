"""Brings the stores of an installation to the schema version of this code.

Processes of an earlier version may not be at work meanwhile: whoever relays or scores has a heartbeat, and as
long as one lives nothing is changed. The migration has a heartbeat itself; a second one waits for its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.config import Config
from testbench_dagster.coordination.heartbeats import Heartbeat, described, is_gone
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.coordination import HeartbeatRecord
from testbench_dagster.stores.documents import DocumentStore, open_documents, typed
from testbench_dagster.stores.migrations import DATASET_STEPS, DOCUMENT_STEPS, DatasetStep, DocumentStep
from testbench_dagster.stores.schema import DATASETS_SCHEMA, DOCUMENTS_SCHEMA, SchemaError, check_schema
from testbench_dagster.stores.uris import without_password

if TYPE_CHECKING:
    from testbench_dagster.stores.datasets import DatasetStore

#: Holder of the heartbeat of a migration.
HOLDER = "testbench migrate"
_LOOK_S = 0.25

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pending:
    """What has to be done to one store: its version (None: nothing is stored yet) and the steps ahead."""

    store: str
    version: int | None
    wanted: int
    steps: tuple[DocumentStep, ...] | tuple[DatasetStep, ...]

    @property
    def additive(self) -> bool:
        """Whether no step takes anything away."""
        return all(step.additive for step in self.steps)


def migrate(config: Config, say: Say, *, dry_run: bool = False) -> None:
    """Bring both stores to the current schema version, telling each step; only tell them with ``dry_run``.

    May be interrupted and repeated, and run by several processes at once.

    Raises:
        SchemaError: a store was made by a newer version, or somebody is at work with an older one.
        StoreError: a store cannot be opened or written.
    """
    with _opened(config) as (documents, datasets):
        pending = _pending(config, documents, datasets)
        for store in pending:
            _tell(store, documents, say)
        if dry_run or not any(store.steps for store in pending):
            return
        _migrate(config, documents, datasets, say)


def migrate_if_safe(config: Config, say: Say) -> None:
    """Bring both stores to the current schema version if that adds something and nobody is at work.

    Cheap where there is nothing to do: it reads the versions. Stores that do not exist yet stay so.

    Raises:
        SchemaError: a store was made by a newer version; it takes `testbench migrate`; or somebody is at work
            with an older one.
        StoreError: a store cannot be opened or written.
    """
    with _opened(config) as (documents, datasets):
        pending = _pending(config, documents, datasets)
        if not any(store.steps for store in pending):
            return
        for store in pending:
            if not store.additive:
                check_schema(store.store, store.version or 0, store.wanted)
        for store in pending:
            if store.steps:
                say(f"{store.store}: migrating from schema {store.version} to {store.wanted}")
        _migrate(config, documents, datasets, say)


@contextmanager
def _opened(config: Config) -> Iterator[tuple[DocumentStore, DatasetStore]]:
    from testbench_dagster.stores.datasets import open_datasets  # sqlalchemy: 0.25 s at start-up

    with (
        closing(open_documents(config.home, config.mongo_uri, any_schema=True)) as documents,
        closing(open_datasets(config.home, config.postgres_uri, any_schema=True)) as datasets,
    ):
        yield documents, datasets


def _pending(config: Config, documents: DocumentStore, datasets: DatasetStore) -> tuple[Pending, Pending]:
    """Where both stores stand. Raises SchemaError for one that a newer version made."""
    where = without_password(config.mongo_uri) if config.mongo_uri else str(config.home / "documents.sqlite3")
    version = documents.schema_version()
    if version is not None and version > DOCUMENTS_SCHEMA:
        check_schema(f"the document store {where}", version, DOCUMENTS_SCHEMA)
    ahead = tuple(step for step in DOCUMENT_STEPS if version is not None and step.to > version)
    first = Pending(f"document store {where}", version, DOCUMENTS_SCHEMA, ahead)
    where = (
        without_password(config.postgres_uri)
        if config.postgres_uri
        else str(config.home / "datasets.sqlite3")
    )
    version = datasets.schema_version()
    if version is not None and version > DATASETS_SCHEMA:
        check_schema(f"the dataset store {where}", version, DATASETS_SCHEMA)
    steps = tuple(step for step in DATASET_STEPS if version is not None and step.to > version)
    return first, Pending(f"dataset store {where}", version, DATASETS_SCHEMA, steps)


def _tell(pending: Pending, documents: DocumentStore, say: Say) -> None:
    if pending.version is None:
        say(f"{pending.store}: nothing is stored yet")
    elif not pending.steps:
        say(f"{pending.store}: schema {pending.version}, up to date")
    else:
        say(f"{pending.store}: schema {pending.version}, to become {pending.wanted}")
        for step in pending.steps:
            counted = ""
            if isinstance(step, DocumentStep):
                sizes = ", ".join(f"{documents.size(name)} in {name}" for name in step.touches)
                counted = f" ({sizes})"
            say(f"  {step.to}: {step.what}{counted}")


def _migrate(config: Config, documents: DocumentStore, datasets: DatasetStore, say: Say) -> None:
    """Take the steps ahead, alone."""
    with _alone(documents, say):
        # what was ahead may be done by now, by whoever was waited for
        first, second = _pending(config, documents, datasets)
        version = first.version or 0
        for step in first.steps:
            if not isinstance(step, DocumentStep):
                raise TypeError(f"step {step.to} of the document store is not made for it")
            step.run(documents, say)
            documents.move_schema(version, step.to)
            version = step.to
        version = second.version or 0
        for of_datasets in second.steps:
            if not isinstance(of_datasets, DatasetStep):
                raise TypeError(f"step {of_datasets.to} of the dataset store is not made for it")
            datasets.move_schema(version, of_datasets.to, of_datasets.run)
            version = of_datasets.to
    for store in (first, second):
        if store.steps:
            say(f"{store.store}: schema {store.wanted}, done")


@contextmanager
def _alone(documents: DocumentStore, say: Say) -> Iterator[None]:
    """While this lasts no other migration runs; one that does is waited for.

    Raises:
        SchemaError: a living process works with the stores as they are.
    """
    with ExitStack() as stack:
        told = False
        while True:
            at_work = [beat for beat in typed.find(documents, HeartbeatRecord) if not is_gone(beat)]
            others = [beat for beat in at_work if beat.id != HOLDER]
            if others:
                raise SchemaError(
                    "the stores were made by an earlier version of testbench_dagster, and "
                    f"{described(others[0])} is at work with them; let it end, or stop it, and run "
                    "`testbench migrate`"
                )
            if not at_work:
                try:
                    stack.enter_context(Heartbeat(documents, HOLDER))
                    break
                except StoreError:
                    # another migration was faster, if it is there
                    if not typed.count(documents, HeartbeatRecord, {"_id": HOLDER}):
                        raise
            elif not told:
                say(f"{described(at_work[0])} is migrating; waiting for its end")
                told = True
            time.sleep(_LOOK_S)
        yield
