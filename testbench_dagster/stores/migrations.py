"""What leads from one schema version of a store to the next: one function per step, in one place.

A step may be interrupted at any moment and run again, and two processes may take it at once: it does only
what is not done yet, and loses nothing. The version is written after it. To change what is stored: add a step
at the end, and raise the number in :mod:`testbench_dagster.stores.schema`; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.stores.documents.collections import ATTEMPTS, EPOCHS, LANE_ENDS, PROMPTS, SCORES
from testbench_dagster.stores.documents.contract import DocumentStore

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

#: Number of the classifier that decided the faults of attempts stored before they named it.
FIRST_CLASSIFIER = 1
_BY_TIME = (ATTEMPTS, SCORES, PROMPTS, EPOCHS, LANE_ENDS)


@dataclass(frozen=True)
class DocumentStep:
    """One step of the document store, to version ``to``.

    ``additive``: what is stored gains something and loses nothing, so that it may be taken without being
    asked for. ``touches`` are the collections it goes through; ``run`` is given the store, and what tells how
    far it has come.
    """

    to: int
    what: str
    additive: bool
    touches: tuple[str, ...]
    run: Callable[[DocumentStore, Callable[[str], None]], None]


@dataclass(frozen=True)
class DatasetStep:
    """One step of the dataset store, to version ``to``; ``run`` works inside one transaction."""

    to: int
    what: str
    additive: bool
    run: Callable[[Connection], None]


def _name_the_classifier(documents: DocumentStore, say: Callable[[str], None]) -> None:
    """Attempts made before they named their classifier were all judged by the first one."""
    documents.fill(ATTEMPTS, "classifier", FIRST_CLASSIFIER)


def _index_by_time(documents: DocumentStore, say: Callable[[str], None]) -> None:
    """What is young enough is found without what is older; the indexes that did not tell time go."""
    for collection in _BY_TIME:
        documents.reindex(collection, say)


def _begin_versions(connection: Connection) -> None:
    """Nothing but the version itself, which is written with every step."""


DOCUMENT_STEPS = (
    DocumentStep(
        to=1,
        what="attempts name the classifier that decided their fault",
        additive=True,
        touches=(ATTEMPTS.name,),
        run=_name_the_classifier,
    ),
    DocumentStep(
        to=2,
        what="indexes find what is young enough without reading what is older",
        additive=True,
        touches=tuple(collection.name for collection in _BY_TIME),
        run=_index_by_time,
    ),
)
DATASET_STEPS = (
    DatasetStep(to=1, what="the store carries its schema version", additive=True, run=_begin_versions),
)
