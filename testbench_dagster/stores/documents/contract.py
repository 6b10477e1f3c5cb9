"""The document contract: a narrow set of operations that SQLite and MongoDB implement alike.

Documents are plain dicts of BSON values whose ``_id`` is a string the caller derives from the content
(see :mod:`testbench_dagster.core.ids`); :mod:`.typed` makes records of them, and nothing above this package
handles the dicts themselves. Filters, sorts, groups and projections name only the
*declared* fields of a :class:`Collection`; anything else raises :class:`UndeclaredField` on both stores, so
that a query which works on one works on the other.

Filter language (``where``): ``{field: value}`` means equality (``None`` matches a missing or null field);
``{field: {op: operand}}`` with ``op`` one of ``eq ne in gt gte lt lte``; several operators on one field and
several fields are joined by AND. ``in`` takes a list or set.

Times are timezone-aware UTC datetimes, kept to the millisecond by both stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from testbench_dagster.core.errors import StoreError, UndeclaredField
from testbench_dagster.core.records.collection import Collection, Group, Minutely

__all__ = [
    "OPERATORS",
    "Collection",
    "Document",
    "DocumentStore",
    "DuplicateKey",
    "Group",
    "Minutely",
    "UndeclaredField",
    "Where",
]

Document = dict[str, Any]
Where = Mapping[str, Any]
OPERATORS = frozenset({"eq", "ne", "in", "gt", "gte", "lt", "lte"})


class DuplicateKey(StoreError):
    """A write would break a unique index of the collection (not its ``_id``: see ``put_new``)."""


class DocumentStore(Protocol):
    """Operations of a document store; safe to use from several threads and processes at once."""

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        """Write ahead what of the documents stands elsewhere, so that ``put_new`` of them need not wait."""
        ...

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert the documents whose ``_id`` is not yet there, all in one durable step; return how many."""
        ...

    def upsert(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert or wholly replace each document by ``_id``; return how many were written."""
        ...

    def get(self, collection: Collection, id_: str) -> Document | None:
        """Return the document with this ``_id``, or None."""
        ...

    def find(
        self,
        collection: Collection,
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        fields: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> Iterator[Document]:
        """Stream the matching documents.

        ``sort`` holds (field, 1 or -1) pairs; nulls come first ascending. With ``fields`` (declared ones)
        each result has exactly these keys, null where missing, and bodies are not read. ``without`` are
        fields that are of no use to the caller: results may lack them.
        """
        ...

    def rows(
        self,
        collection: Collection,
        fields: Sequence[str],
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Stream these declared fields of the matching documents, in this order, null where missing."""
        ...

    def count(self, collection: Collection, where: Where | None = None) -> int:
        """Count the matching documents."""
        ...

    def group(self, collection: Collection, group: Group, where: Where | None = None) -> list[Document]:
        """Aggregate the matching documents, one row per combination of the ``by`` fields."""
        ...

    def minutely(
        self, collection: Collection, minutely: Minutely, where: Where | None = None
    ) -> list[tuple[Any, int, int, int]]:
        """Count the matching documents of each minute, and the minutes in which that came to the same.

        Rows of the value of ``by``, how many documents of a minute are told apart, how many it has in all,
        and in how many minutes that is so; in any order.
        """
        ...

    def claim(
        self,
        collection: Collection,
        where: Where,
        changes: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
    ) -> Document | None:
        """Atomically set ``changes`` on the first matching document; return it as changed, or None.

        Among any number of processes a document whose change ends the match is claimed exactly once.
        """
        ...

    def amend(self, collection: Collection, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Set fields of documents by ``_id``, leaving their other fields; return how many are there.

        Each document is changed at once, wholly or not at all; one that is not there is left out.
        """
        ...

    def purge(self, collection: Collection, where: Where) -> int:
        """Delete the matching documents; return how many. ``where`` may not be empty."""
        ...

    def fill(self, collection: Collection, field: str, value: Any) -> int:
        """Set a declared field on every document in which it is null or missing; return how many.

        In parts, each kept when it is written: repeated after an interruption it goes on.
        """
        ...

    def reindex(self, collection: Collection, say: Callable[[str], None]) -> None:
        """Build the declared indexes that a collection lacks and drop those it was declared with before.

        Each is told before it is built. One by one: repeated after an interruption it goes on. Nothing where
        the collection is not stored yet.
        """
        ...

    def schema_version(self) -> int | None:
        """The schema version of what is stored (0: from before there were any); None where nothing is."""
        ...

    def move_schema(self, before: int, after: int) -> bool:
        """Write the schema version ``after`` if it is ``before`` now; whether it was."""
        ...

    def size(self, name: str) -> int:
        """Count the documents of a collection by its name, whatever the schema version. Creates nothing."""
        ...

    def close(self) -> None:
        """Release connections; the store may not be used afterwards."""
        ...
