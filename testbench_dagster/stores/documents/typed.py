"""Records in and out of a document store: what the stages use instead of raw documents.

Classes are those of :mod:`testbench_dagster.core.records`: a record for whole documents, a view for a part of
each, a count for aggregates. Filters and sorts are those of :mod:`.contract`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.declaring import Record, count_of, shape_of, stored_changes
from testbench_dagster.stores.documents.contract import Document, DocumentStore, Minutely, Where
from testbench_dagster.stores.documents.values import encode, prepare

T = TypeVar("T")
R = TypeVar("R", bound=Record)


def find(
    documents: DocumentStore,
    of: type[T],
    where: Where | None = None,
    *,
    sort: Sequence[tuple[str, int]] = (),
    limit: int | None = None,
) -> Iterator[T]:
    """Stream the matching records, or views of them; of views of queryable fields no body is read."""
    shape = shape_of(of)
    collection = shape.record.collection
    if shape.names is None:
        found = documents.find(collection, where, sort=sort, limit=limit, without=shape.without)
        return map(shape.from_document, found)
    return map(shape.from_row, documents.rows(collection, shape.names, where, sort=sort, limit=limit))


def declared(
    documents: DocumentStore, of: type[Record], where: Where | None = None
) -> Iterator[dict[str, Any]]:
    """Stream all queryable fields of the matching records by their names, as tables for people show them."""
    return documents.find(of.collection, where, fields=["_id", *of.collection.fields])


def whole(
    documents: DocumentStore,
    of: type[Record],
    where: Where | None = None,
    *,
    sort: Sequence[tuple[str, int]] = (),
) -> Iterator[Document]:
    """Stream the matching documents of a collection as they are stored, for files that people read."""
    return documents.find(of.collection, where, sort=sort)


def least(documents: DocumentStore, of: type[Record], field: str, where: Where | None = None) -> Any:
    """The least value of a queryable field among the matching records, None where there is none.

    One record is read, where the filter and an index begin with the field.
    """
    found = documents.rows(of.collection, [field], where, sort=[(field, 1)], limit=1)
    return next((value for (value,) in found), None)


def get(documents: DocumentStore, of: type[T], id_: str) -> T | None:
    """The record with this id, or a view of it; None where there is none."""
    shape = shape_of(of)
    document = documents.get(shape.record.collection, id_)
    return None if document is None else shape.from_document(document)


def by_id(
    documents: DocumentStore, of: type[T], ids: Iterable[str], *, suppliers: Iterable[str] | None = None
) -> dict[str, T]:
    """The records with these ids, or views of them with their ids, those that are there.

    ``suppliers``: whose they are, where they have that field: of a collection that is sharded by suppliers
    only the shards of these are asked.
    """
    where: dict[str, Any] = {"_id": {"in": sorted(ids)}}
    if suppliers is not None:
        where["supplier"] = {"in": sorted(set(suppliers))}
    found: Iterator[Any] = find(documents, of, where)
    return {record.id: record for record in found}


def write_ahead(documents: DocumentStore, of: type[R], records: Iterable[R]) -> None:
    """Write ahead what of the records stands outside the document store; :func:`put_new` of them follows."""
    documents.write_ahead(of.collection, (record.to_document() for record in records))


def put_new(documents: DocumentStore, of: type[R], records: Iterable[R]) -> int:
    """Insert the records whose id is not yet there; return how many."""
    return documents.put_new(of.collection, (record.to_document() for record in records))


def upsert(documents: DocumentStore, of: type[R], records: Iterable[R]) -> int:
    """Insert or wholly replace each record by its id; return how many were written."""
    return documents.upsert(of.collection, (record.to_document() for record in records))


def unstorable(record: Record) -> str | None:
    """Why no document store holds a record (it is too large, say), in words; None where one does."""
    of = type(record).collection
    try:
        encode(of, prepare(of, record.to_document()))
    except StoreError as error:
        return str(error)
    return None


def claim(documents: DocumentStore, of: type[R], where: Where, **changes: Any) -> R | None:
    """Atomically set attributes of the first matching record; return it as changed, or None."""
    document = documents.claim(of.collection, where, stored_changes(of, changes))
    return None if document is None else of.from_document(document)


def amend(documents: DocumentStore, of: type[Record], changes: Mapping[str, Mapping[str, Any]]) -> int:
    """Set attributes of records by id, leaving their others; return how many of the records are there."""
    return documents.amend(of.collection, {id_: stored_changes(of, own) for id_, own in changes.items()})


def count(documents: DocumentStore, of: type[Record], where: Where | None = None) -> int:
    """Count the matching records."""
    return documents.count(of.collection, where)


def group(documents: DocumentStore, of: type[T], where: Where | None = None) -> list[T]:
    """Count the matching records by the fields of a count."""
    shape = count_of(of)
    return [shape.from_row(row) for row in documents.group(shape.record.collection, shape.group, where)]


def minutes(
    documents: DocumentStore,
    of: type[Record],
    *,
    by: str,
    time: str,
    field: str,
    values: Iterable[str],
    where: Where | None = None,
) -> list[tuple[Any, int, int, int]]:
    """Count the matching records of each minute: see :meth:`.contract.DocumentStore.minutely`."""
    return documents.minutely(of.collection, Minutely(by, time, field, tuple(values)), where)


def purge(documents: DocumentStore, of: type[Record], where: Where) -> int:
    """Delete the matching records; return how many. ``where`` may not be empty."""
    return documents.purge(of.collection, where)
