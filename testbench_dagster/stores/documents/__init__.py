"""Documents: the facts and views the stages exchange, in SQLite (embedded) or MongoDB.

The contract is :mod:`.contract`, the collections are :mod:`.collections`, ids come from :mod:`.ids`. Code
outside this package uses what is exported here and never a store's own API.

Belongs here: the contract, the collections with their declared fields, and one module per server. Does not:
what a document means.
"""

from __future__ import annotations

from pathlib import Path

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.ids import canonical_json, content_hash, document_id
from testbench_dagster.stores.documents import collections, typed
from testbench_dagster.stores.documents.bodies import BodiesOutside, DocumentsWithBodies
from testbench_dagster.stores.documents.contract import (
    Collection,
    Document,
    DocumentStore,
    DuplicateKey,
    Group,
    Minutely,
    UndeclaredField,
    Where,
)
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

__all__ = [
    "BodiesOutside",
    "Collection",
    "Document",
    "DocumentStore",
    "DuplicateKey",
    "Group",
    "Minutely",
    "StoreError",
    "UndeclaredField",
    "Where",
    "canonical_json",
    "collections",
    "content_hash",
    "document_id",
    "open_documents",
    "typed",
]


def open_documents(
    home: Path,
    mongo_uri: str | None,
    *,
    outside: BodiesOutside | None = None,
    any_schema: bool = False,
    hurried: bool = False,
) -> DocumentStore:
    """Return the document store: MongoDB when a URI is given, else ``documents.sqlite3`` in ``home``.

    Nothing is created or contacted before the first use, which raises
    :class:`~testbench_dagster.stores.schema.SchemaError` for a store of another schema version, unless
    ``any_schema``. A server that does not answer is waited for as long as a replica set takes to elect
    another primary; ``hurried``: a person waits for a first answer, who is told sooner. ``outside`` says
    where large bodies of attempts go, by default nowhere; those that went anywhere are read in any case.
    """
    return DocumentsWithBodies(_opened(home, mongo_uri, any_schema=any_schema, hurried=hurried), outside)


def _opened(home: Path, mongo_uri: str | None, *, any_schema: bool, hurried: bool) -> DocumentStore:
    if mongo_uri:
        # Only who uses MongoDB pays for importing its client.
        from testbench_dagster.stores.documents.mongo import MongoDocuments

        return MongoDocuments(mongo_uri, any_schema=any_schema, hurried=hurried)
    return SqliteDocuments(home / "documents.sqlite3", any_schema=any_schema)
