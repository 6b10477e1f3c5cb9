"""Who writes attempts and scores: what is cached of the windows of these is void meanwhile.

One document of ``windows`` per supplier (its ``_id``) holds the cached rows of its tasks and who writes facts
of which of them now. It is only ever changed as a whole, by its token (compare and set), under these rules:

1. Before it writes the first fact, a writer enters itself with its tasks and takes their cached rows out, in
   one change. When it has written the last, it takes itself out.
2. Rows of a task are cached only by a change of the very document that was read before the facts were, and
   only where no writer was entered for the task.

So no fact of a task was written between the reading of the facts and the keeping, and none can be later while
the rows are there. A writer that dies stays entered: the next that keeps rows finds its heartbeat gone (see
:mod:`.heartbeats`) and takes it out. Readers need none of this: a row that is there is right.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from testbench_dagster.coordination.heartbeats import Heartbeat, heartbeats, is_gone
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.windows import WindowRecord, WritingProcess
from testbench_dagster.stores.documents import DocumentStore, typed

_AT_ONCE = 200  # suppliers whose documents are in memory together
_ATTEMPTS = 100  # of changing one document that others change too

_log = logging.getLogger(__name__)


class FactWriter:
    """One process's writing of attempts or scores; made by :func:`writing_facts`."""

    def __init__(self, documents: DocumentStore, heartbeat: Heartbeat) -> None:
        self._documents = documents
        self._heartbeat = heartbeat
        self._name = f"{heartbeat.holder}/{secrets.token_hex(6)}"
        self._entered: dict[str, list[str]] = {}

    def enter(self, tasks: Mapping[str, Iterable[str]]) -> None:
        """Say that facts of these tasks are about to be written, by supplier key; call it before the first.

        Raises:
            StoreError: the store failed; nothing may be written then.
        """
        wanted = {key: sorted({*names, *self._entered.get(key, ())}) for key, names in tasks.items()}
        # remembered first: a change may come through although its acknowledgement does not
        self._entered.update(wanted)
        _change(self._documents, wanted, lambda key, document: self._with(document, wanted[key]))

    def check(self, suppliers: Iterable[str] | None = None) -> None:
        """Call it right before writing: whoever has lost its heartbeat may have been taken out, and enters
        again.

        Cheap while the heartbeat beats. ``suppliers`` are those written of now, all that were entered for
        None.
        """
        if not self._heartbeat.alive:
            keys = self._entered.keys() if suppliers is None else self._entered.keys() & set(suppliers)
            self.enter({key: self._entered[key] for key in keys})

    def leave(self) -> None:
        """Say that all was written."""
        entered, self._entered = self._entered, {}
        _change(self._documents, entered, lambda key, document: self._without(document, entered[key]))

    def _with(self, document: WindowRecord, tasks: Sequence[str]) -> dict[str, Any]:
        own = WritingProcess(writer=self._name, holder=self._heartbeat.holder, tasks=list(tasks))
        return {"writers": (*self._others(document), own), "rows": _rows_without(document, tasks)}

    def _without(self, document: WindowRecord, tasks: Sequence[str]) -> dict[str, Any]:
        others = self._others(document)
        if len(others) < len(document.writers):
            return {"writers": others}
        # taken for dead and taken out: what was cached since may lack what was written since
        return {"rows": _rows_without(document, tasks)}

    def _others(self, document: WindowRecord) -> tuple[WritingProcess, ...]:
        return tuple(writer for writer in document.writers if writer.writer != self._name)


@contextlib.contextmanager
def writing_facts(documents: DocumentStore, heartbeat: Heartbeat) -> Iterator[FactWriter]:
    """Open a :class:`FactWriter` that lives by ``heartbeat``; leave at the end.

    Raises:
        StoreError: the store failed.
    """
    writer = FactWriter(documents, heartbeat)
    try:
        yield writer
    finally:
        try:
            writer.leave()
        except StoreError as error:  # as after a kill: it is taken out once its heartbeat is gone
            _log.warning(
                "cached windows stay void until the heartbeat of %s ends: %s", heartbeat.holder, error
            )


def void_document(key: str) -> WindowRecord:
    """The document of a supplier of which nothing is cached."""
    return WindowRecord(id=key, token=new_token(), kept_at=None, subject=None, writers=(), rows=[])


def new_token() -> str:
    """A token that no document had before."""
    return secrets.token_hex(8)


def living_writers(
    documents: DocumentStore, found: Iterable[WindowRecord]
) -> dict[str, tuple[WritingProcess, ...]]:
    """By supplier the entered writers whose heartbeat has not stopped for good."""
    entered = {document.id: document.writers for document in found}
    holders = {writer.holder for writers in entered.values() for writer in writers}
    beats = heartbeats(documents, holders) if holders else {}
    gone = {holder for holder in holders if holder not in beats or is_gone(beats[holder])}
    return {key: tuple(w for w in writers if w.holder not in gone) for key, writers in entered.items()}


def _rows_without(document: WindowRecord, tasks: Sequence[str]) -> list[dict[str, Any]]:
    return [row for row in document.rows if row["task"] not in tasks]


def _change(
    documents: DocumentStore,
    keys: Iterable[str],
    change: Callable[[str, WindowRecord], Mapping[str, Any]],
) -> None:
    """Change the documents of suppliers, each from what it is to what ``change`` makes of it."""
    pending = list(dict.fromkeys(keys))
    for start in range(0, len(pending), _AT_ONCE):
        batch = pending[start : start + _AT_ONCE]
        for attempt in range(_ATTEMPTS):
            batch = _tried(documents, batch, change)
            if not batch:
                break
            time.sleep(random.uniform(0, 0.002 * min(attempt + 1, 25)))  # noqa: S311  jitter
        else:
            raise StoreError(
                f"windows of {batch[0]}: changed by others {_ATTEMPTS} times in a row; try again"
            )


def _tried(
    documents: DocumentStore, keys: Sequence[str], change: Callable[[str, WindowRecord], Mapping[str, Any]]
) -> list[str]:
    """Change those documents that nobody else changes at the same time; return the keys of the others."""
    found = typed.by_id(documents, WindowRecord, keys)
    made = []
    for key in keys:
        if key not in found:
            void = void_document(key)
            made.append(replace(void, **change(key, void)))
    left: list[str] = []
    if made and typed.put_new(documents, WindowRecord, made) < len(made):
        # who was faster, or whether it was us, is seen at the next look: changing twice does no harm
        left += [document.id for document in made]
    for key, document in found.items():
        where = {"_id": key, "token": document.token}
        changes = {**change(key, document), "token": new_token()}
        if typed.claim(documents, WindowRecord, where, **changes) is None:
            left.append(key)
    return left
