"""The document store on MongoDB (replica set, sharded cluster or standalone), through pymongo.

Differences that a server imposes: ``put_new`` and ``upsert`` are atomic per document, not per call (ids are
deterministic, so repeating the call completes it), and a stream that is not read for 30 minutes is closed by
the server.

While a replica set elects another primary, calls wait for it. The driver repeats reads and writes of single
documents that the old primary may have got, and the set tells it if it had: they take effect once. What the
driver leaves out (deleting and filling by a condition, making collections and indexes) comes to the same when
it is done twice, and is repeated here. A stream is not: it ends with an error if its primary goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import MINYEAR, UTC, datetime
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, IndexModel, MongoClient, ReadPreference, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.collection import Collection as Native
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    CursorNotFound,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import collections, values
from testbench_dagster.stores.documents.contract import (
    Collection,
    Document,
    DuplicateKey,
    Group,
    Minutely,
    Where,
)
from testbench_dagster.stores.schema import DOCUMENTS_SCHEMA, check_schema
from testbench_dagster.stores.uris import without_password

DEFAULT_DATABASE = "testbench"
T = TypeVar("T")
SELECTION_MS = 30_000
"""How long a call looks for a server before it gives up, unless the URI says: elections take about 12 s."""
HURRIED_SELECTION_MS = 5_000
"""The same where a person waits for a first answer."""
ACKNOWLEDGE_MS = 30_000
"""How long a write waits for a majority of the replica set."""

_SCHEMA = "testbench_schema"  # holds one document, with the schema version
_SCHEMA_ID = "documents"
_BATCH_DOCUMENTS = 1_000
_BATCH_BYTES = 16 * 1024 * 1024
_READ_DOCUMENTS = 500
_READ_ROWS = 5_000  # of some fields only: some 300 bytes each
_RACE_ATTEMPTS = 10
_DUPLICATE = 11000
_NAMESPACE_EXISTS = 48
_INDEX_CONFLICTS = (85, 86)
_DENIED = (13, 18)
#: The server ceased to be the primary, or to run, in the midst of it.
_STEPPED_DOWN = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})
#: OutOfDiskSpace.
_DISK_FULL = 14031
_STEP_DOWNS = 3  # of primaries in a row that one call lives through
_OWN_SELECTION = "serverselectiontimeoutms="
_BSON_TYPES = {
    str: ["string"],
    int: ["int", "long"],
    float: ["double", "int", "long"],
    bool: ["bool"],
    datetime: ["date"],
}
_LEAST = {
    str: "",
    int: Int64(-(2**63)),
    float: float("-inf"),
    bool: False,
    datetime: datetime(MINYEAR, 1, 1, tzinfo=UTC),
}
#: Names by which a database is known to hold something of ours.
_OURS = frozenset(collection.name for collection in collections.ALL)
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class MongoDocuments:
    """:class:`~.contract.DocumentStore` in the database that the URI's path names (default ``testbench``).

    Writes are acknowledged by a majority with their journal on disk, whatever the URI says: with less, a
    server that is killed loses writes it has acknowledged. Reads go to the primary, so that every process
    sees what another has written. Safe across forks: each process opens its own client at first use.

    A database of another schema version is refused at first use, unless ``any_schema``: for who migrates it.
    A server that does not answer is waited for long enough for an election; ``hurried``: a person waits.
    """

    def __init__(self, uri: str, *, any_schema: bool = False, hurried: bool = False) -> None:
        self._uri = uri
        self._hurried = hurried
        self._any_schema = any_schema
        self._admitted = False
        self._clients: dict[int, MongoClient[Document]] = {}
        self._ready: dict[str, Collection] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"MongoDocuments({without_password(self._uri)!r})"

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        """Nothing: all of them stands in here."""

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert the documents whose ``_id`` is not yet there; return how many.

        Raises :class:`DuplicateKey` when one breaks a unique index; others may have been inserted by then.
        """
        encoded = _encoded(collection, documents)
        inserted = 0
        with self._errors():
            native = self._native(collection)
            for batch in _bounded(encoded):
                try:
                    native.insert_many([body for _, body in batch], ordered=False)
                    inserted += len(batch)
                except BulkWriteError as error:
                    self._check_bulk(error)
                    inserted += error.details["nInserted"]
                    ids = [batch[wrong["index"]][0] for wrong in _other_duplicates(error)]
                    # A document that is there already breaks its unique indexes as well as its _id.
                    if ids and native.count_documents({"_id": {"$in": ids}}) < len(set(ids)):
                        raise self._duplicate(_other_duplicates(error)[0]["errmsg"]) from error
        return inserted

    def upsert(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert or wholly replace each document by ``_id``; return how many.

        Raises :class:`DuplicateKey` when one breaks a unique index; others may have been written by then.
        """
        encoded = _encoded(collection, documents)
        newest = list(dict(encoded).items())  # of several with one _id the last wins, in any order of writing
        with self._errors():
            native = self._native(collection)
            for batch in _bounded(newest):
                self._replace(native, batch)
        return len(encoded)

    def get(self, collection: Collection, id_: str) -> Document | None:
        """Return the document with this ``_id``, or None."""
        with self._errors():
            return self._native(collection).find_one({"_id": {"$eq": id_}})

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
        """Stream the matching documents; see the contract."""
        if fields is not None:
            rows = self.rows(collection, fields, where, sort=sort, limit=limit)
            return (dict(zip(fields, row, strict=True)) for row in rows)
        query = self._checked(collection, where, sort, limit)
        return self._stream(collection, query, sort, limit, dict.fromkeys(without, 0) or None)

    def rows(
        self,
        collection: Collection,
        fields: Sequence[str],
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Stream these fields of the matching documents; see the contract."""
        query = self._checked(collection, where, sort, limit)
        collection.check_declared(fields)
        # an empty projection would mean all of the document
        projection = {"_id": int("_id" in fields or not fields)} | dict.fromkeys(fields, 1)
        found = self._stream(collection, query, sort, limit, projection, narrow=True)
        return map(_row_maker(collection, fields), found)

    def count(self, collection: Collection, where: Where | None = None) -> int:
        """Count the matching documents."""
        query = _query(collection, where)
        with self._errors():
            return self._native(collection).count_documents(query)

    def group(self, collection: Collection, group: Group, where: Where | None = None) -> list[Document]:
        """Aggregate the matching documents, ordered by the ``by`` fields, nulls first.

        Nulls are left out of ``min_``, ``max_`` and ``sum_``, which are None where all are null.
        """
        query = _query(collection, where)
        values.check_group(collection, group)
        # A missing field and a null one are different group keys to MongoDB.
        keys = {f"k{i}": {"$ifNull": [_group_key(group, name), None]} for i, name in enumerate(group.by)}
        outputs = [(f"min_{name}", "$min", name) for name in group.min]
        outputs += [(f"max_{name}", "$max", name) for name in group.max]
        outputs += [(f"sum_{name}", "$sum", name) for name in group.sum]
        stage: dict[str, Any] = {"_id": keys or None, "count": {"$sum": 1}}
        for i, (_, function, name) in enumerate(outputs):
            stage[f"v{i}"] = {function: f"${name}"}
            stage[f"n{i}"] = {"$sum": {"$cond": [{"$gt": [f"${name}", None]}, 1, 0]}}
        pipeline: list[dict[str, Any]] = [{"$match": query}, {"$group": stage}]
        if keys:
            pipeline.append({"$sort": {f"_id.{key}": ASCENDING for key in keys}})
        with self._errors():
            rows = list(self._native(collection).aggregate(pipeline, allowDiskUse=True))
        results: list[Document] = []
        for row in rows:
            result = {name: _plain(collection, name, row["_id"][f"k{i}"]) for i, name in enumerate(group.by)}
            result["count"] = int(row["count"])
            for i, (output, _, name) in enumerate(outputs):
                result[output] = _plain(collection, name, row[f"v{i}"]) if row[f"n{i}"] else None
            results.append(result)
        return results

    def minutely(
        self, collection: Collection, minutely: Minutely, where: Where | None = None
    ) -> list[tuple[Any, int, int, int]]:
        """Count the documents of minutes, and the minutes that came to the same; see the contract."""
        query = _query(collection, where)
        values.check_minutely(collection, minutely)
        told = {"$cond": [{"$in": [f"${minutely.field}", list(minutely.values)]}, 1, 0]}
        by_minute = {
            "by": {"$ifNull": [f"${minutely.by}", None]},
            "minute": _beginning(minutely.time, values.MINUTE_MS),
        }
        alike = {"by": "$_id.by", "told": "$told", "all": "$all"}
        pipeline: list[dict[str, Any]] = [
            {"$match": query},
            {"$group": {"_id": by_minute, "told": {"$sum": told}, "all": {"$sum": 1}}},
            {"$group": {"_id": alike, "minutes": {"$sum": 1}}},
        ]
        with self._errors():
            rows = list(self._native(collection).aggregate(pipeline, allowDiskUse=True))
        return [
            (
                _plain(collection, minutely.by, row["_id"]["by"]),
                int(row["_id"]["told"]),
                int(row["_id"]["all"]),
                int(row["minutes"]),
            )
            for row in rows
        ]

    def claim(
        self,
        collection: Collection,
        where: Where,
        changes: Mapping[str, Any],
        *,
        sort: Sequence[tuple[str, int]] = (),
    ) -> Document | None:
        """Atomically set ``changes`` on the first matching document; return it as changed, or None."""
        query = _query(collection, where)
        values.check_sort(collection, sort)
        prepared = values.prepare_changes(collection, changes)
        with self._errors():
            claimed: Document | None = self._native(collection).find_one_and_update(
                query,
                {"$set": prepared},
                sort=list(sort) or None,
                return_document=ReturnDocument.AFTER,
            )
        return claimed

    def amend(self, collection: Collection, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Set fields of documents by ``_id``; return how many are there. Documents change one by one."""
        writes: list[UpdateOne] = [
            UpdateOne({"_id": id_}, {"$set": values.prepare_changes(collection, changed)})
            for id_, changed in changes.items()
        ]
        found = 0
        with self._errors():
            native = self._native(collection)
            for start in range(0, len(writes), _BATCH_DOCUMENTS):
                found += self._amended(native, writes[start : start + _BATCH_DOCUMENTS])
        return found

    def _amended(self, native: Native[Document], writes: list[UpdateOne]) -> int:
        try:
            return _repeated(lambda: native.bulk_write(writes, ordered=False)).matched_count
        except BulkWriteError as error:
            self._check_bulk(error)
            raise self._duplicate(_other_duplicates(error)[0]["errmsg"]) from error

    def purge(self, collection: Collection, where: Where) -> int:
        """Delete the matching documents; return how many, or fewer if a primary went away meanwhile."""
        values.check_purge(collection, where)
        query = _query(collection, where)
        with self._errors():
            native = self._native(collection)
            return _repeated(lambda: native.delete_many(query)).deleted_count

    def fill(self, collection: Collection, field: str, value: Any) -> int:
        """Set a declared field wherever it is null or missing; return how many. The server does it alone."""
        prepared = values.prepare_changes(collection, {field: value})
        with self._errors():
            native = self._native(collection)
            return _repeated(lambda: native.update_many({field: None}, {"$set": prepared})).modified_count

    def reindex(self, collection: Collection, say: Callable[[str], None]) -> None:
        """Build the indexes that a collection lacks, and drop those it had before; see the contract.

        Indexes that somebody else made, for shards say, stay.
        """
        with self._errors():
            database = self._database()
            native = database[collection.name]
            documents = native.estimated_document_count()
            if not documents:
                return
            _set_validator(database, collection)
            present = native.index_information().keys()
            models = _index_models(collection)
            for model in models:
                if model.document["name"] not in present:
                    say(values.told_index(collection, list(model.document["key"]), documents))
                    _build_indexes(native, [model])
            declared = {model.document["name"] for model in models}
            for name in present - declared:
                if name.startswith(values.INDEX_NAMES):
                    native.drop_index(name)

    def schema_version(self) -> int | None:
        """The schema version of what is stored; None where nothing is. Creates nothing."""
        with self._errors():
            return _schema_version(self._database())

    def move_schema(self, before: int, after: int) -> bool:
        """Write the schema version ``after`` if it is ``before`` now; whether it was."""
        with self._errors():
            native = self._database()[_SCHEMA]
            if before == 0:  # which is not written
                with contextlib.suppress(DuplicateKeyError):
                    native.insert_one({"_id": _SCHEMA_ID, "version": after})
                    return True
                return False
            moved = native.update_one({"_id": _SCHEMA_ID, "version": before}, {"$set": {"version": after}})
            return moved.modified_count == 1

    def size(self, name: str) -> int:
        """Count the documents of a collection by its name alone, as it is stored. Creates nothing."""
        with self._errors():
            return self._database()[name].count_documents({})

    def close(self) -> None:
        """Close this process's client; the store may not be used afterwards."""
        self._closed = True
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _checked(
        self, collection: Collection, where: Where | None, sort: Sequence[tuple[str, int]], limit: int | None
    ) -> Document:
        """The query of a stream, once all that it is asked for is found to be right."""
        query = _query(collection, where)
        values.check_sort(collection, sort)
        values.check_limit(collection, limit)
        return query

    def _stream(
        self,
        collection: Collection,
        query: Document,
        sort: Sequence[tuple[str, int]],
        limit: int | None,
        projection: Mapping[str, int] | None,
        *,
        narrow: bool = False,
    ) -> Iterator[Document]:
        if limit == 0:  # which MongoDB reads as "no limit"
            return
        with self._errors():
            cursor = self._native(collection).find(
                query,
                projection,
                sort=list(sort) or None,
                limit=limit or 0,
                batch_size=_READ_ROWS if narrow else _READ_DOCUMENTS,
                allow_disk_use=True,
                # ids are few and exact; the planner would try what else is asked for, in turn
                hint=[("_id", ASCENDING)] if _names_ids(query) else None,
            )
        # who reads the stream raises nothing in here
        with contextlib.closing(cursor), self._errors():
            yield from cursor

    def _replace(self, native: Native[Document], batch: list[tuple[str, RawBSONDocument]]) -> None:
        """Replace each document of the batch, again where another process inserted the same id meanwhile."""
        for _ in range(_RACE_ATTEMPTS):
            writes: list[ReplaceOne[Document]] = [
                ReplaceOne({"_id": id_}, body, upsert=True) for id_, body in batch
            ]
            try:
                native.bulk_write(writes, ordered=False)
                return
            except BulkWriteError as error:
                self._check_bulk(error)
                broken = _other_duplicates(error)
                if broken:
                    raise self._duplicate(broken[0]["errmsg"]) from error
                batch = [batch[wrong["index"]] for wrong in error.details["writeErrors"]]
        raise StoreError(f"{self!r}: {native.name}: {len(batch)} upserts kept colliding with other writers")

    def _check_bulk(self, error: BulkWriteError) -> None:
        """Raise unless duplicate keys are all that went wrong."""
        for wrong in error.details.get("writeErrors", ()):
            if wrong["code"] != _DUPLICATE:
                raise StoreError(f"{self!r}: {wrong['errmsg']}{_remedy(wrong['code'])}") from error
        for wrong in error.details.get("writeConcernErrors", ()):
            raise StoreError(f"{self!r}: a write was not acknowledged: {wrong.get('errmsg')}") from error

    def _duplicate(self, message: str) -> DuplicateKey:
        return DuplicateKey(f"{self!r}: {message}: another document already has these values")

    def _database(self) -> Database[Document]:
        """The database on this process's client (opened at first use)."""
        if self._closed:
            raise StoreError(f"{self!r}: the store is closed")
        pid = os.getpid()
        client = self._clients.get(pid)
        if client is None:
            # A parent's client stays referenced and untouched: closing it here would end its sessions.
            opened = self._open()
            client = self._clients.setdefault(pid, opened)
            if client is not opened:  # another thread was faster
                opened.close()
        return client.get_default_database(
            DEFAULT_DATABASE, codec_options=values.CODEC, read_preference=ReadPreference.PRIMARY
        )

    def _open(self) -> MongoClient[Document]:
        try:
            # pymongo retries writes on replica sets and leaves that out by itself on a standalone server.
            return MongoClient(
                self._uri,
                w="majority",
                journal=True,
                wTimeoutMS=ACKNOWLEDGE_MS,
                tz_aware=True,
                appname="testbench_dagster",
                **self._patience(),
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            # Not chained: the cause may quote the URI with its password.
            raise StoreError(
                f"the MongoDB URI {without_password(self._uri)} is not usable ({type(error).__name__}); "
                f"write mongodb://user:password@host:port/database, with the password percent-encoded"
            ) from None

    def _patience(self) -> dict[str, Any]:
        """How long to look for a server, where the URI does not say."""
        if _OWN_SELECTION in self._uri.partition("?")[2].lower():
            return {}
        return {"serverSelectionTimeoutMS": HURRIED_SELECTION_MS if self._hurried else SELECTION_MS}

    def _admit(self, database: Database[Document]) -> None:
        """Begin a new database with the current schema version; refuse one of another version."""
        found = _schema_version(database)
        if found is None:
            with contextlib.suppress(DuplicateKeyError):  # another process began it meanwhile
                database[_SCHEMA].insert_one({"_id": _SCHEMA_ID, "version": DOCUMENTS_SCHEMA})
            found = _schema_version(database) or 0
        if not self._any_schema:
            check_schema(f"the document store {without_password(self._uri)}", found, DOCUMENTS_SCHEMA)
        self._admitted = True

    def _native(self, collection: Collection) -> Native[Document]:
        """The collection with its validator and indexes in place, checked once per store and declaration."""
        database = self._database()
        native = database[collection.name]
        if self._ready.get(collection.name) != collection:
            values.check_collection(collection)
            if not self._admitted:
                self._admit(database)
            _repeated(lambda: _set_validator(database, collection))
            _repeated(lambda: _build_indexes(native, _index_models(collection)))
            self._ready[collection.name] = collection
        return native

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn pymongo's errors into store errors that say where and what to do."""
        try:
            yield
        except DuplicateKeyError as error:
            raise self._duplicate(str(error.details and error.details.get("errmsg"))) from error
        except (ConnectionFailure, ServerSelectionTimeoutError) as error:
            reason = str(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0]
            raise StoreError(
                f"MongoDB at {without_password(self._uri)} does not answer: {reason}; start the server, "
                f"correct TESTBENCH_MONGO_URI, or unset it to use the embedded store"
            ) from error
        except CursorNotFound as error:
            raise StoreError(
                f"{self!r}: the server closed a stream that was not read for half an hour; read it faster "
                f"or ask for less at once"
            ) from error
        except OperationFailure as error:
            told = error.details and error.details.get("errmsg")
            raise StoreError(f"{self!r}: {told}{_remedy(error.code)}") from error
        except PyMongoError as error:
            raise StoreError(f"{self!r}: {error}") from error


def _remedy(code: int | None) -> str:
    """What to do about an error of the server's, where that can be told."""
    if code in _DENIED:
        return "; check the user and password in TESTBENCH_MONGO_URI"
    if code == _DISK_FULL:
        return "; the disk of the MongoDB server is full: free some space there"
    return ""


def _repeated(work: Callable[[], T]) -> T:
    """Do what may be done twice, again where the primary went away in the midst of it."""
    for _ in range(_STEP_DOWNS):
        try:
            return work()
        except ServerSelectionTimeoutError:  # waited long enough
            raise
        except (AutoReconnect, OperationFailure) as error:
            if isinstance(error, OperationFailure) and error.code not in _STEPPED_DOWN:
                raise
    return work()


def _schema_version(database: Database[Document]) -> int | None:
    """The schema version of a database; 0 where collections were made before there was one, None without any.

    Who begins a database writes the version before the first collection: hence the second look.
    """
    for look in range(2):
        stored = database[_SCHEMA].find_one({"_id": _SCHEMA_ID})
        if stored is not None:
            return int(stored["version"])
        if look == 0 and not _OURS.intersection(database.list_collection_names()):
            return None
    return 0


def _encoded(collection: Collection, documents: Iterable[Document]) -> list[tuple[str, RawBSONDocument]]:
    """Check and encode all documents before the first is sent: a bad one then writes nothing."""
    encoded = []
    for document in documents:
        prepared = values.prepare(collection, document)
        encoded.append((prepared["_id"], RawBSONDocument(values.encode(collection, prepared), _RAW)))
    return encoded


def _bounded(
    encoded: Sequence[tuple[str, RawBSONDocument]],
) -> Iterator[list[tuple[str, RawBSONDocument]]]:
    """Cut documents into batches bounded in number and bytes."""
    batch: list[tuple[str, RawBSONDocument]] = []
    size = 0
    for id_, body in encoded:
        if batch and (len(batch) == _BATCH_DOCUMENTS or size + len(body.raw) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((id_, body))
        size += len(body.raw)
    if batch:
        yield batch


def _other_duplicates(error: BulkWriteError) -> list[dict[str, Any]]:
    """The duplicate-key errors that concern another index than ``_id``."""
    return [wrong for wrong in error.details["writeErrors"] if list(wrong.get("keyPattern", ())) != ["_id"]]


def _query(collection: Collection, where: Where | None) -> Document:
    conditions = [
        {term.field: {f"${term.op}": list(term.operand) if term.op == "in" else term.operand}}
        for term in values.terms(collection, where)
    ]
    return {"$and": conditions} if conditions else {}


def _names_ids(query: Document) -> bool:
    """Whether a query lists the ids of the documents that it is about, and asks for more of them."""
    terms = query.get("$and", ())
    return len(terms) > 1 and any(term.get("_id", {}).keys() & {"$eq", "$in"} for term in terms)


def _group_key(group: Group, name: str) -> Any:
    """What is counted by: a field, or the hour that one lies in."""
    return _beginning(name, values.HOUR_MS) if name in group.hourly else f"${name}"


def _beginning(name: str, period_ms: int) -> Any:
    """When the period began in which a time lies; $mod has the sign of what it divides."""
    past = {"$mod": [{"$add": [{"$mod": [{"$toLong": f"${name}"}, period_ms]}, period_ms]}, period_ms]}
    return {"$subtract": [f"${name}", past]}


def _plain(collection: Collection, name: str, value: Any) -> Any:
    """A declared field's value as exactly its declared type (BSON's 64-bit integers are a class apart)."""
    kind = values.field_type(collection, name)
    convert: Callable[[Any], Any] | None = {int: int, float: float}.get(kind)
    return value if value is None or convert is None else convert(value)


def _row_maker(collection: Collection, fields: Sequence[str]) -> Callable[[Document], tuple[Any, ...]]:
    """What makes a row of a document: its fields in order, those of numbers as exactly the declared type."""
    numbers = [
        (place, values.field_type(collection, name))
        for place, name in enumerate(fields)
        if values.field_type(collection, name) in (int, float)
    ]
    names = tuple(fields)

    def row(document: Document) -> tuple[Any, ...]:
        made = [document.get(name) for name in names]
        for place, kind in numbers:
            value = made[place]
            if type(value) is not kind and value is not None:
                made[place] = kind(value)
        return tuple(made)

    return row


def _set_validator(database: Database[Document], collection: Collection) -> None:
    """Create the collection, or correct its validator where it differs from the declaration."""
    properties: dict[str, Any] = {"_id": {"bsonType": "string"}}
    for name, kind in collection.fields.items():
        properties[name] = {"bsonType": [*_BSON_TYPES[kind], "null"]}
    validator = {"$jsonSchema": {"bsonType": "object", "required": ["_id"], "properties": properties}}
    existing = list(database.list_collections(filter={"name": collection.name}))
    if not existing:
        try:
            database.command("create", collection.name, validator=validator)
            return
        except OperationFailure as error:
            if error.code != _NAMESPACE_EXISTS:
                raise
    elif existing[0].get("options", {}).get("validator") == validator:
        return
    database.command("collMod", collection.name, validator=validator)


def _beginnings(unique: Iterable[tuple[str, ...]], plain: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The beginnings of unique keys that no plain index serves: one that may leave documents out does not.

    A query that names the first fields only would read the whole collection.
    """
    found = dict.fromkeys(key[:-1] for key in unique if len(key) > 1)
    return [key for key in found if all(other[: len(key)] != key for other in plain)]


def _index_models(collection: Collection) -> list[IndexModel]:
    """The declared indexes.

    A unique index covers the documents in which all its fields are set: nulls are no duplicates of each
    other, as in SQL. (``$gte`` the least value, rather than ``$exists``, keeps the index usable by queries.)
    """
    plain = values.plain_indexes(collection)
    models = [
        IndexModel([(name, ASCENDING) for name in key], name=values.index_name(key, unique=False))
        for key in [*plain, *_beginnings(collection.unique, plain)]
    ]
    for key in collection.unique:
        kinds = {name: values.field_type(collection, name) for name in key}
        models.append(
            IndexModel(
                [(name, ASCENDING) for name in key],
                name=values.index_name(key, unique=True),
                unique=True,
                partialFilterExpression={name: {"$gte": _LEAST[kind]} for name, kind in kinds.items()},
            )
        )
    return models


def _build_indexes(native: Native[Document], models: Sequence[IndexModel]) -> None:
    """Build indexes; those that exist are left alone."""
    if not models:
        return
    try:
        native.create_indexes(models)
    except OperationFailure as error:
        if error.code in _INDEX_CONFLICTS:
            raise StoreError(
                f"{native.full_name}: an index differs from the declaration: "
                f"{error.details and error.details.get('errmsg')}; drop the old index with dropIndex"
            ) from error
        raise
