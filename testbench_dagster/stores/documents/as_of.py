"""A document store as it was at an instant, as far as its facts are dated: later ones are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents.collections import ATTEMPTS, EPOCHS, LANE_ENDS, SCORES
from testbench_dagster.stores.documents.contract import (
    Collection,
    Document,
    DocumentStore,
    Group,
    Minutely,
    Where,
)

#: By collection the field that says when a fact came to be.
_DATED = {
    ATTEMPTS.name: "finished_at",
    SCORES.name: "answered_at",
    LANE_ENDS.name: "ended_at",
    EPOCHS.name: "started_at",
}


class StoreAsOf:
    """Reads another store, and of what is dated only what is not later than ``at``; writes nothing.

    Documents that are asked for by id are found whatever their date.
    """

    def __init__(self, documents: DocumentStore, at: datetime) -> None:
        self._documents, self._at = documents, at

    def get(self, collection: Collection, id_: str) -> Document | None:
        """See :class:`DocumentStore`."""
        return self._documents.get(collection, id_)

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
        """See :class:`DocumentStore`."""
        bounded = self._bounded(collection, where)
        return self._documents.find(
            collection, bounded, sort=sort, limit=limit, fields=fields, without=without
        )

    def rows(
        self,
        collection: Collection,
        fields: Sequence[str],
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """See :class:`DocumentStore`."""
        bounded = self._bounded(collection, where)
        return self._documents.rows(collection, fields, bounded, sort=sort, limit=limit)

    def count(self, collection: Collection, where: Where | None = None) -> int:
        """See :class:`DocumentStore`."""
        return self._documents.count(collection, self._bounded(collection, where))

    def group(self, collection: Collection, group: Group, where: Where | None = None) -> list[Document]:
        """See :class:`DocumentStore`."""
        return self._documents.group(collection, group, self._bounded(collection, where))

    def minutely(
        self, collection: Collection, minutely: Minutely, where: Where | None = None
    ) -> list[tuple[Any, int, int, int]]:
        """See :class:`DocumentStore`."""
        return self._documents.minutely(collection, minutely, self._bounded(collection, where))

    def size(self, name: str) -> int:
        """See :class:`DocumentStore`."""
        return self._documents.size(name)

    def schema_version(self) -> int | None:
        """See :class:`DocumentStore`."""
        return self._documents.schema_version()

    def close(self) -> None:
        """Nothing: the other store is another's."""

    # -- the past is not written ---------------------------------------------------------------------------

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        """Refused."""
        self._refuse()

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Refused."""
        self._refuse()

    def upsert(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Refused."""
        self._refuse()

    def claim(
        self,
        collection: Collection,
        where: Where,
        changes: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
    ) -> Document | None:
        """Refused."""
        self._refuse()

    def amend(self, collection: Collection, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Refused."""
        self._refuse()

    def purge(self, collection: Collection, where: Where) -> int:
        """Refused."""
        self._refuse()

    def fill(self, collection: Collection, field: str, value: Any) -> int:
        """Refused."""
        self._refuse()

    def reindex(self, collection: Collection, say: Callable[[str], None]) -> None:
        """Refused."""
        self._refuse()

    def move_schema(self, before: int, after: int) -> bool:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreError("a store as it was at an instant cannot be written")

    def _bounded(self, collection: Collection, where: Where | None) -> Where | None:
        field = _DATED.get(collection.name)
        if field is None:
            return where
        wanted = dict(where or {})
        before = wanted.get(field, {})
        if not isinstance(before, Mapping):
            before = {"eq": before}
        known = before.get("lte")
        wanted[field] = {**before, "lte": self._at if known is None else min(known, self._at)}
        return wanted
