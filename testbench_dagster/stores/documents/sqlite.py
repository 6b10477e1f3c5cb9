"""The embedded document store: one SQLite file, BSON bodies, declared fields as real columns.

One table per collection::

    _seq INTEGER PRIMARY KEY, _id TEXT UNIQUE, <declared fields>, _body BLOB

Columns precede the body, so that filters and projections never read the pages a long body spills to. Times
are columns of whole milliseconds since 1970. The file must be on a local disk (WAL does not work on NFS).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import values
from testbench_dagster.stores.documents.connections import Connections
from testbench_dagster.stores.documents.contract import Collection, Document, Group, Where

_COLUMN_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER", datetime: "INTEGER"}
_COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_BOUND_IN_VALUES = 500  # longer lists go through a temporary table: SQLite limits variables per statement
_READ_ROWS = 500  # most documents per read transaction of a stream
_READ_BYTES = 8 * 1024 * 1024  # and about the most bytes of bodies
_PURGE_ROWS = 5_000  # deleted per transaction, so that other writers get their turn
_ANALYZE_ROWS = 20_000  # written by one process before the planner's statistics are refreshed
_ANALYZE_ROWS_AT_CLOSE = 1_000


@dataclass(frozen=True)
class _Filter:
    """A filter as SQL over the table alias ``t``.

    ``long_lists`` are the ``in`` conditions that ``sql`` answers from the temporary tables ``in_0``, ``in_1``
    and so on; ``rest`` is the filter without them.
    """

    sql: str
    params: list[Any]
    rest: str
    rest_params: list[Any]
    long_lists: list[tuple[str, str, set[Any]]]  # field, column type, column values

    def matches_lists(self, columns: Sequence[Any]) -> bool:
        """Whether the columns of ``long_lists``, in their order, hold listed values."""
        return all(value in listed for value, (_, _, listed) in zip(columns, self.long_lists, strict=True))


class SqliteDocuments:
    """:class:`~.contract.DocumentStore` in one SQLite file, for any number of threads and processes.

    Opening is lazy: the file, its private folder and each collection's table appear at first use. A
    collection that declares a new field gets the column, filled from the stored bodies. A process that still
    runs the old declaration meanwhile leaves the new column null in what it writes: restart all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._connections = Connections(self.path)
        self._ready: dict[str, Collection] = {}
        self._written: dict[str, int] = {}
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"SqliteDocuments({str(self.path)!r})"

    def put_new(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert the documents whose ``_id`` is not yet there in one transaction; return how many.

        Raises :class:`DuplicateKey`, and inserts none, when one breaks a unique index.
        """
        return self._insert(collection, documents, 'ON CONFLICT("_id") DO NOTHING')

    def upsert(self, collection: Collection, documents: Iterable[Document]) -> int:
        """Insert or wholly replace each document by ``_id`` in one transaction; return how many.

        Raises :class:`DuplicateKey`, and writes none, when one breaks a unique index.
        """
        replaced = ", ".join(f'"{name}" = excluded."{name}"' for name in (*collection.fields, "_body"))
        return self._insert(collection, documents, f'ON CONFLICT("_id") DO UPDATE SET {replaced}')

    def get(self, collection: Collection, id_: str) -> Document | None:
        """Return the document with this ``_id``, or None."""
        self._ensure(collection)
        with self._connections.use() as connection:
            row = connection.execute(
                f'SELECT "_body" FROM "{collection.name}" WHERE "_id" = ?', (id_,)
            ).fetchone()
        return None if row is None else values.decode(row[0])

    def find(
        self,
        collection: Collection,
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> Iterator[Document]:
        """Stream the matching documents; see the contract.

        Which documents come, and their order, is settled at the first ``next`` (eight bytes each); they are
        then read in batches, each in a read transaction of its own. A document that stopped matching before
        its batch was read is left out.
        """
        if fields is not None:
            rows = self.rows(collection, fields, where, sort=sort, limit=limit)
            return (dict(zip(fields, row, strict=True)) for row in rows)
        found = self._checked(collection, where, sort, limit)
        return self._stream(collection, found, sort, limit, ("_body",), lambda row: values.decode(row[0]))

    def rows(
        self,
        collection: Collection,
        fields: Sequence[str],
        where: Where | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Stream these fields of the matching documents, as :meth:`find` does, without reading bodies."""
        found = self._checked(collection, where, sort, limit)
        collection.check_declared(fields)
        return self._stream(collection, found, sort, limit, fields, _row_decoder(collection, fields))

    def _checked(
        self, collection: Collection, where: Where | None, sort: Sequence[tuple[str, int]], limit: int | None
    ) -> _Filter:
        """The filter of a stream, once all that it is asked for is found to be right."""
        found = _compile(collection, values.terms(collection, where))
        values.check_sort(collection, sort)
        values.check_limit(collection, limit)
        self._ensure(collection)
        return found

    def count(self, collection: Collection, where: Where | None = None) -> int:
        """Count the matching documents."""
        found = _compile(collection, values.terms(collection, where))
        self._ensure(collection)
        with self._reading(found) as connection:
            sql = f'SELECT COUNT(*) FROM "{collection.name}" AS t WHERE {found.sql}'
            count: int = connection.execute(sql, found.params).fetchone()[0]
        return count

    def group(self, collection: Collection, group: Group, where: Where | None = None) -> list[Document]:
        """Aggregate the matching documents, ordered by the ``by`` fields, nulls first.

        Nulls are left out of ``min_``, ``max_`` and ``sum_``, which are None where all are null.
        """
        found = _compile(collection, values.terms(collection, where))
        values.check_group(collection, group)
        self._ensure(collection)
        outputs: list[tuple[str, str, Callable[[Any], Any]]] = [
            (name, _column(name), _decoder(collection, name)) for name in group.by
        ]
        outputs.append(("count", "COUNT(*)", int))
        for function, names in (("min", group.min), ("max", group.max), ("sum", group.sum)):
            outputs += [
                (f"{function}_{name}", f"{function}({_column(name)})", _decoder(collection, name))
                for name in names
            ]
        keys = ", ".join(_column(name) for name in group.by)
        sql = (
            f"SELECT {', '.join(sql for _, sql, _ in outputs)} "
            f'FROM "{collection.name}" AS t WHERE {found.sql} '
            + (f"GROUP BY {keys} ORDER BY {keys}" if keys else "HAVING COUNT(*) > 0")
        )
        with self._reading(found) as connection:
            rows = connection.execute(sql, found.params).fetchall()
        return [
            {
                name: None if value is None else decoder(value)
                for (name, _, decoder), value in zip(outputs, row, strict=True)
            }
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
        found = _compile(collection, values.terms(collection, where))
        values.check_sort(collection, sort)
        prepared = values.prepare_changes(collection, changes)
        self._ensure(collection)
        table = f'"{collection.name}"'
        first = f"FROM {table} AS t WHERE {found.sql} ORDER BY {_order(sort)} LIMIT 1"
        # Pollers mostly find nothing: look before taking the write lock.
        with self._reading(found) as connection:
            if connection.execute(f"SELECT 1 {first}", found.params).fetchone() is None:
                return None
        with self._connections.write() as connection, _temporary_lists(connection, found):
            row = connection.execute(f'SELECT t."_seq", t."_body" {first}', found.params).fetchone()
            if row is None:
                return None
            document = values.decode(row[1]) | prepared
            assigned = ", ".join(f'"{name}" = ?' for name in (*collection.fields, "_body"))
            connection.execute(
                f'UPDATE {table} SET {assigned} WHERE "_seq" = ?',
                (*_row(collection, document)[1:], row[0]),
            )
        return document

    def purge(self, collection: Collection, where: Where) -> int:
        """Delete the matching documents, some thousands per transaction; return how many."""
        values.check_purge(collection, where)
        found = _compile(collection, values.terms(collection, where))
        self._ensure(collection)
        table = f'"{collection.name}"'
        sql = (
            f'DELETE FROM {table} WHERE "_seq" IN '
            f'(SELECT t."_seq" FROM {table} AS t WHERE {found.sql} LIMIT {_PURGE_ROWS})'
        )
        purged = 0
        while True:
            with self._connections.write() as connection, _temporary_lists(connection, found):
                deleted = connection.execute(sql, found.params).rowcount
            purged += deleted
            if deleted < _PURGE_ROWS:
                return purged

    def close(self) -> None:
        """Close all connections; the store may not be used afterwards."""
        for name, rows in self._written.items():
            if rows >= _ANALYZE_ROWS_AT_CLOSE:
                self._analyze(name)
        self._written.clear()
        self._connections.close()

    def _insert(self, collection: Collection, documents: Iterable[Document], on_conflict: str) -> int:
        self._ensure(collection)
        # The caller's iterable runs, and bodies are encoded, before the write lock is taken.
        rows = [_row(collection, values.prepare(collection, document)) for document in documents]
        if not rows:
            return 0
        names = ", ".join(f'"{name}"' for name in ("_id", *collection.fields, "_body"))
        marks = ", ".join("?" * len(rows[0]))
        sql = f'INSERT INTO "{collection.name}" ({names}) VALUES ({marks}) {on_conflict}'
        with self._connections.write() as connection:
            before = connection.total_changes
            connection.executemany(sql, rows)
            written = connection.total_changes - before
        self._count_written(collection.name, written)
        return written

    def _count_written(self, name: str, rows: int) -> None:
        with self._counting:
            total = self._written.get(name, 0) + rows
            due = total >= _ANALYZE_ROWS
            self._written[name] = 0 if due else total
        if due:
            self._analyze(name)

    def _analyze(self, name: str) -> None:
        """Refresh the query planner's statistics: without them it picks wrong indexes (15 times slower)."""
        # A few milliseconds; another writer holding the lock only postpones it to the next time.
        with contextlib.suppress(StoreError), self._connections.use() as connection:
            connection.execute(f'ANALYZE main."{name}"')

    def _stream(
        self,
        collection: Collection,
        found: _Filter,
        sort: Sequence[tuple[str, int]],
        limit: int | None,
        names: Sequence[str],
        decode: Callable[[tuple[Any, ...]], Any] | None,
    ) -> Iterator[Any]:
        """Stream columns of the matching documents, or what ``decode`` makes of each row."""
        with self._reading(found) as connection:
            sql = (
                f'SELECT t."_seq" FROM "{collection.name}" AS t '
                f"WHERE {found.sql} ORDER BY {_order(sort)} LIMIT ?"
            )
            cursor = connection.execute(sql, (*found.params, -1 if limit is None else limit))
            sequence = array("q", (row[0] for row in cursor))
        with_bodies = "_body" in names
        checked = [name for name, _, _ in found.long_lists]
        outputs = ", ".join(["j.key", *(_column(name) for name in (*names, *checked))])
        # CROSS JOIN keeps the order of the list: it forbids the planner to swap the loops.
        sql = (
            f"SELECT {outputs} FROM json_each(?) AS j "
            f'CROSS JOIN "{collection.name}" AS t ON t."_seq" = j.value WHERE {found.rest}'
        )
        width = 1 + len(names)
        position = 0
        while position < len(sequence):
            batch = json.dumps(sequence[position : position + _READ_ROWS].tolist())
            step = _READ_ROWS
            rows: list[tuple[Any, ...]] = []
            size = 0
            with self._connections.use() as connection:
                cursor = connection.execute(sql, (batch, *found.rest_params))
                for row in cursor:
                    if found.matches_lists(row[width:]):
                        rows.append(row[1:width])
                    size += len(row[1]) if with_bodies else 0
                    if size >= _READ_BYTES:
                        step = row[0] + 1
                        break
                cursor.close()
            position += step
            if decode is None:
                yield from rows
            else:
                for row in rows:
                    yield decode(row)

    @contextlib.contextmanager
    def _reading(self, found: _Filter) -> Iterator[sqlite3.Connection]:
        """Yield the connection with the filter's long lists in place; every result must be fetched inside."""
        with self._connections.use() as connection:
            if not found.long_lists:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                with _temporary_lists(connection, found):
                    yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _ensure(self, collection: Collection) -> None:
        """Create or extend the collection's table, once per store and declaration."""
        if self._ready.get(collection.name) == collection:
            return
        values.check_collection(collection)
        with self._connections.use() as connection:
            current = _is_current(connection, collection)
        if not current:
            with self._connections.write() as connection:
                _migrate(connection, collection)
        self._ready[collection.name] = collection


def _column(name: str) -> str:
    return f't."{name}"'


def _encoder(kind: type) -> Callable[[Any], Any] | None:
    """How a normalised value of this type becomes a column value; None when it already is one."""
    if kind is datetime:
        return values.milliseconds
    return int if kind is bool else None


def _decoder(collection: Collection, name: str) -> Callable[[Any], Any]:
    """How a column value becomes a value of the declared type."""
    kind = values.field_type(collection, name)
    return values.from_milliseconds if kind is datetime else kind


def _row_decoder(
    collection: Collection, fields: Sequence[str]
) -> Callable[[tuple[Any, ...]], tuple[Any, ...]] | None:
    """How columns become values of the declared types; None where SQLite gives these already."""
    decoders = [
        (place, _decoder(collection, name))
        for place, name in enumerate(fields)
        if values.field_type(collection, name) in (bool, datetime)
    ]

    def decode(row: tuple[Any, ...]) -> tuple[Any, ...]:
        made = list(row)
        for place, decoder in decoders:
            if made[place] is not None:
                made[place] = decoder(made[place])
        return tuple(made)

    return decode if decoders else None


def _stored(collection: Collection, name: str, value: Any) -> Any:
    encoder = _encoder(values.field_type(collection, name))
    return value if value is None or encoder is None else encoder(value)


def _row(collection: Collection, prepared: Document) -> tuple[Any, ...]:
    """The table row of a prepared document: ``_id``, declared fields, body."""
    columns = [_stored(collection, name, prepared.get(name)) for name in collection.fields]
    return (prepared["_id"], *columns, values.encode(collection, prepared))


def _order(sort: Sequence[tuple[str, int]]) -> str:
    """ORDER BY terms; ties come in the order of insertion."""
    keys = [f"{_column(name)} {'ASC' if direction == 1 else 'DESC'}" for name, direction in sort]
    return ", ".join([*keys, 't."_seq"'])


def _compile(collection: Collection, terms: Sequence[values.Term]) -> _Filter:
    every: list[tuple[str, list[Any]]] = []
    rest: list[tuple[str, list[Any]]] = []
    long_lists: list[tuple[str, str, set[Any]]] = []
    for term in terms:
        column = _column(term.field)
        if term.op != "in":
            value = _stored(collection, term.field, term.operand)
            # IS NOT counts null as different from every value, as MongoDB's $ne does.
            operator = {"eq": "IS", "ne": "IS NOT"}.get(term.op) if value is None or term.op == "ne" else None
            condition = (f"{column} {operator or _COMPARISONS[term.op]} ?", [value])
            every.append(condition)
            rest.append(condition)
            continue
        listed = [_stored(collection, term.field, value) for value in term.operand]
        present = [value for value in listed if value is not None]
        null = f" OR {column} IS NULL" if len(present) < len(listed) else ""
        if len(present) <= _BOUND_IN_VALUES:
            condition = (f"({column} IN ({', '.join('?' * len(present))}){null})", present)
            every.append(condition)
            rest.append(condition)
        else:
            every.append((f'({column} IN (SELECT value FROM temp."in_{len(long_lists)}"){null})', []))
            kind = _COLUMN_TYPES[values.field_type(collection, term.field)]
            long_lists.append((term.field, kind, set(listed)))
    return _Filter(
        sql=" AND ".join(sql for sql, _ in every) or "TRUE",
        params=[value for _, params in every for value in params],
        rest=" AND ".join(sql for sql, _ in rest) or "TRUE",
        rest_params=[value for _, params in rest for value in params],
        long_lists=long_lists,
    )


@contextlib.contextmanager
def _temporary_lists(connection: sqlite3.Connection, found: _Filter) -> Iterator[None]:
    """Hold the filter's long lists as temporary tables (in memory) inside an open transaction."""
    for number, (_, kind, listed) in enumerate(found.long_lists):
        connection.execute(f'CREATE TEMP TABLE "in_{number}" (value {kind} PRIMARY KEY) WITHOUT ROWID')
        connection.executemany(
            f'INSERT INTO temp."in_{number}" VALUES (?)', ((value,) for value in listed if value is not None)
        )
    yield  # on an error the caller rolls back, and the tables go with the transaction
    for number in range(len(found.long_lists)):
        connection.execute(f'DROP TABLE temp."in_{number}"')


def _declared(connection: sqlite3.Connection, collection: Collection) -> dict[str, str]:
    """Fields and types whose columns are known to agree with the stored bodies."""
    rows = connection.execute('SELECT field, type FROM "_declared" WHERE collection = ?', (collection.name,))
    return dict(rows.fetchall())


def _exists(connection: sqlite3.Connection, kind: str, name: str) -> bool:
    sql = "SELECT 1 FROM main.sqlite_master WHERE type = ? AND name = ?"
    return connection.execute(sql, (kind, name)).fetchone() is not None


def _indexes(collection: Collection) -> list[tuple[str, tuple[str, ...], bool]]:
    """Name, fields and uniqueness of each index; names are shared by all tables of the file."""
    plain = [(key, False) for key in values.plain_indexes(collection)]
    return [
        (f"{collection.name}.{values.index_name(key, unique=unique)}", key, unique)
        for key, unique in [*plain, *((key, True) for key in collection.unique)]
    ]


def _is_current(connection: sqlite3.Connection, collection: Collection) -> bool:
    if not (_exists(connection, "table", "_declared") and _exists(connection, "table", collection.name)):
        return False
    wanted = {name: kind.__name__ for name, kind in collection.fields.items()}
    return _declared(connection, collection) == wanted and all(
        _exists(connection, "index", name) for name, _, _ in _indexes(collection)
    )


def _migrate(connection: sqlite3.Connection, collection: Collection) -> None:
    """Create the table or add what the declaration has gained; inside a write transaction, idempotent.

    Raises :class:`StoreError` when a field's type changed: its column could not hold both.
    """
    connection.execute(
        'CREATE TABLE IF NOT EXISTS "_declared" (collection TEXT, field TEXT, type TEXT, '
        "PRIMARY KEY (collection, field)) WITHOUT ROWID"
    )
    columns = "".join(f'"{name}" {_COLUMN_TYPES[kind]}, ' for name, kind in collection.fields.items())
    connection.execute(
        f'CREATE TABLE IF NOT EXISTS "{collection.name}" ("_seq" INTEGER PRIMARY KEY, '
        f'"_id" TEXT NOT NULL UNIQUE, {columns}"_body" BLOB NOT NULL)'
    )
    declared = _declared(connection, collection)
    existing = {row[1] for row in connection.execute(f'PRAGMA table_info("{collection.name}")')}
    gained: list[str] = []
    for name, kind in collection.fields.items():
        if name not in existing:
            connection.execute(f'ALTER TABLE "{collection.name}" ADD COLUMN "{name}" {_COLUMN_TYPES[kind]}')
        before = declared.get(name)
        if before is None:
            gained.append(name)
        elif before != kind.__name__:
            raise StoreError(
                f"{collection.name}.{name} is stored as {before} and now declared {kind.__name__}; "
                f"declare a field of another name instead"
            )
    if gained:
        _backfill(connection, collection, gained)
    # A field no longer declared is no longer written: forget it, so that it is filled again on its return.
    connection.execute('DELETE FROM "_declared" WHERE collection = ?', (collection.name,))
    connection.executemany(
        'INSERT INTO "_declared" VALUES (?, ?, ?)',
        [(collection.name, name, kind.__name__) for name, kind in collection.fields.items()],
    )
    for index, key, unique in _indexes(collection):
        listed = ", ".join(f'"{name}"' for name in key)
        connection.execute(
            f'CREATE {"UNIQUE " if unique else ""}INDEX IF NOT EXISTS "{index}" '
            f'ON "{collection.name}" ({listed})'
        )


def _backfill(connection: sqlite3.Connection, collection: Collection, names: Sequence[str]) -> None:
    """Fill the columns of newly declared fields from the bodies."""
    assigned = ", ".join(f'"{name}" = ?' for name in names)
    position = -1
    while True:
        rows = connection.execute(
            f'SELECT "_seq", "_body" FROM "{collection.name}" WHERE "_seq" > ? ORDER BY "_seq" LIMIT 500',
            (position,),
        ).fetchall()
        if not rows:
            return
        updates = []
        for sequence, body in rows:
            document = values.decode(body)
            try:
                columns = [
                    _stored(collection, name, values.normalise(collection, name, document.get(name)))
                    for name in names
                ]
            except StoreError as error:
                raise StoreError(f"stored document {document['_id']} does not fit: {error}") from None
            updates.append((*columns, sequence))
        connection.executemany(f'UPDATE "{collection.name}" SET {assigned} WHERE "_seq" = ?', updates)
        position = rows[-1][0]
