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
from testbench_dagster.stores.documents.contract import Collection, Document, Group, Minutely, Where
from testbench_dagster.stores.documents.sqlite_tables import (
    COLUMN_TYPES,
    build_index,
    column_value,
    extend,
    index_name,
    is_current,
    make_or_extend,
    missing_indexes,
    obsolete_indexes,
    row_of,
    schema_version,
    stand_in,
    write_schema_version,
)
from testbench_dagster.stores.files import is_stored
from testbench_dagster.stores.schema import DOCUMENTS_SCHEMA, check_schema

_COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_BOUND_IN_VALUES = 500  # longer lists go through a temporary table: SQLite limits variables per statement
_READ_ROWS = 500  # most documents per read transaction of a stream
_READ_BYTES = 8 * 1024 * 1024  # and about the most bytes of bodies
_PURGE_ROWS = 5_000  # deleted per transaction, so that other writers get their turn
_AMEND_ROWS = 500  # changed per transaction, for the same reason
_ANALYZE_ROWS = 20_000  # written by one process before the planner's statistics are refreshed
_ANALYZE_ROWS_AT_CLOSE = 1_000


@dataclass(frozen=True)
class _Filter:
    """A filter as SQL over the table alias ``t``, which ``table`` names with the index to find its rows by.

    ``long_lists`` are the ``in`` conditions that ``sql`` answers from the temporary tables ``in_0``, ``in_1``
    and so on; ``rest`` is the filter without them.
    """

    table: str
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

    A file of another schema version is refused at first use, unless ``any_schema``: for who migrates it.
    """

    def __init__(self, path: Path, *, any_schema: bool = False) -> None:
        self.path = Path(path)
        self._any_schema = any_schema
        self._admitted = False
        self._connections = Connections(self.path)
        self._ready: dict[str, Collection] = {}
        self._written: dict[str, int] = {}
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"SqliteDocuments({str(self.path)!r})"

    def write_ahead(self, collection: Collection, documents: Iterable[Document]) -> None:
        """Nothing: all of them stands in here."""

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
        without: Sequence[str] = (),
    ) -> Iterator[Document]:
        """Stream the matching documents; see the contract.

        Which documents come, and their order, is final at the first ``next`` (eight bytes each); they are
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
            sql = f"SELECT COUNT(*) FROM {found.table} WHERE {found.sql}"
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
            (name, _group_key(group, name), _decoder(collection, name)) for name in group.by
        ]
        outputs.append(("count", "COUNT(*)", int))
        for function, names in (("min", group.min), ("max", group.max), ("sum", group.sum)):
            outputs += [
                (f"{function}_{name}", f"{function}({_column(name)})", _decoder(collection, name))
                for name in names
            ]
        keys = ", ".join(_group_key(group, name) for name in group.by)
        sql = f"SELECT {', '.join(sql for _, sql, _ in outputs)} FROM {found.table} WHERE {found.sql} " + (
            f"GROUP BY {keys} ORDER BY {keys}" if keys else "HAVING COUNT(*) > 0"
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

    def minutely(
        self, collection: Collection, minutely: Minutely, where: Where | None = None
    ) -> list[tuple[Any, int, int, int]]:
        """Count the documents of minutes, and the minutes that came to the same; see the contract."""
        found = _compile(collection, values.terms(collection, where))
        values.check_minutely(collection, minutely)
        self._ensure(collection)
        marks = ", ".join("?" * len(minutely.values))
        told = f"TOTAL({_column(minutely.field)} IN ({marks}))"
        minutes = (
            f"SELECT {_column(minutely.by)} AS by, {told} AS told, COUNT(*) AS n "
            f"FROM {found.table} WHERE {found.sql} "
            f"GROUP BY {_column(minutely.by)}, {_beginning(minutely.time, values.MINUTE_MS)}"
        )
        sql = f"SELECT by, told, n, COUNT(*) FROM ({minutes}) GROUP BY by, told, n"
        decoder = _decoder(collection, minutely.by)
        with self._reading(found) as connection:
            rows = connection.execute(sql, [*minutely.values, *found.params]).fetchall()
        return [(None if by is None else decoder(by), int(told), n, count) for by, told, n, count in rows]

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
        first = f"FROM {found.table} WHERE {found.sql} ORDER BY {_order(sort)} LIMIT 1"
        # Pollers mostly find nothing: look before taking the write lock.
        with self._reading(found) as connection:
            if connection.execute(f"SELECT 1 {first}", found.params).fetchone() is None:
                return None
        with self._connections.write() as connection, _temporary_lists(connection, found):
            row = connection.execute(f'SELECT t."_seq", t."_body" {first}', found.params).fetchone()
            if row is None:
                return None
            document = values.decode(row[1]) | prepared
            self._change(connection, collection, row[0], document)
        return document

    def amend(self, collection: Collection, changes: Mapping[str, Mapping[str, Any]]) -> int:
        """Set fields of documents by ``_id``, some hundreds per transaction; return how many are there."""
        prepared = {id_: values.prepare_changes(collection, changed) for id_, changed in changes.items()}
        self._ensure(collection)
        found, ids = 0, list(prepared)
        for start in range(0, len(ids), _AMEND_ROWS):
            some = ids[start : start + _AMEND_ROWS]
            with self._connections.write() as connection:
                rows = connection.execute(
                    f'SELECT "_seq", "_id", "_body" FROM "{collection.name}" '
                    'WHERE "_id" IN (SELECT value FROM json_each(?))',
                    [json.dumps(some)],
                ).fetchall()
                for seq, id_, body in rows:
                    self._change(connection, collection, seq, values.decode(body) | prepared[id_])
            found += len(rows)
        return found

    def purge(self, collection: Collection, where: Where) -> int:
        """Delete the matching documents, some thousands per transaction; return how many."""
        values.check_purge(collection, where)
        found = _compile(collection, values.terms(collection, where))
        self._ensure(collection)
        table = f'"{collection.name}"'
        sql = (
            f'DELETE FROM {table} WHERE "_seq" IN '
            f'(SELECT t."_seq" FROM {found.table} WHERE {found.sql} LIMIT {_PURGE_ROWS})'
        )
        purged = 0
        while True:
            with self._connections.write() as connection, _temporary_lists(connection, found):
                deleted = connection.execute(sql, found.params).rowcount
            purged += deleted
            if deleted < _PURGE_ROWS:
                return purged

    def fill(self, collection: Collection, field: str, value: Any) -> int:
        """Set a declared field wherever it is null, some hundreds per transaction; return how many."""
        prepared = values.prepare_changes(collection, {field: value})
        self._ensure(collection)
        table = f'"{collection.name}"'
        found = (
            f'SELECT "_seq", "_body" FROM {table} WHERE "_seq" > ? AND "{field}" IS NULL '
            f'ORDER BY "_seq" LIMIT {_READ_ROWS}'
        )
        column = column_value(collection, field, prepared[field])
        position, filled = -1, 0
        while True:
            rows: list[tuple[Any, bytes, int]] = []
            size = 0
            with self._connections.write() as connection:
                for sequence, body in connection.execute(found, (position,)):
                    document = values.decode(body) | prepared
                    rows.append((column, values.encode(collection, document), sequence))
                    size += len(body)
                    if size >= _READ_BYTES:
                        break
                connection.executemany(
                    f'UPDATE {table} SET "{field}" = ?, "_body" = ? WHERE "_seq" = ?', rows
                )
            if not rows:
                return filled
            position = rows[-1][2]
            filled += len(rows)

    def reindex(self, collection: Collection, say: Callable[[str], None]) -> None:
        """Build the indexes that a table lacks, and drop those it had before; see the contract."""
        documents = self.size(collection.name)
        if not documents:
            return
        with self._connections.write() as connection:
            extend(connection, collection)
        with self._connections.use() as connection:
            missing = missing_indexes(connection, collection)
            obsolete = obsolete_indexes(connection, collection)
        for key in missing:
            say(values.told_index(collection, key, documents))
            with self._connections.write() as connection:
                build_index(connection, collection, key)
        for name in obsolete:
            with self._connections.write() as connection:
                connection.execute(f'DROP INDEX IF EXISTS "{name}"')
        self._analyze(collection.name)

    def schema_version(self) -> int | None:
        """The schema version of what is stored; None where nothing is. Creates and writes nothing."""
        if not is_stored(self.path):
            return None
        with self._connections.use() as connection:
            return schema_version(connection)

    def move_schema(self, before: int, after: int) -> bool:
        """Write the schema version ``after`` if it is ``before`` now; whether it was."""
        with self._connections.write() as connection:
            if schema_version(connection) != before:
                return False
            write_schema_version(connection, after)
        return True

    def size(self, name: str) -> int:
        """Count the documents of a collection by its name alone, as it is stored. Creates nothing."""
        if not is_stored(self.path):
            return 0
        with self._connections.use() as connection:
            known = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?"
            if connection.execute(known, (name,)).fetchone() is None:
                return 0
            found: int = connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
        return found

    def close(self) -> None:
        """Close all connections; the store may not be used afterwards."""
        for name, rows in self._written.items():
            if rows >= _ANALYZE_ROWS_AT_CLOSE:
                self._analyze(name)
        self._written.clear()
        self._connections.close()

    def _change(
        self, connection: sqlite3.Connection, collection: Collection, seq: int, document: Document
    ) -> None:
        """Write a row anew that is there."""
        assigned = ", ".join(f'"{name}" = ?' for name in (*collection.fields, "_body"))
        connection.execute(
            f'UPDATE "{collection.name}" SET {assigned} WHERE "_seq" = ?',
            (*row_of(collection, document)[1:], seq),
        )

    def _insert(self, collection: Collection, documents: Iterable[Document], on_conflict: str) -> int:
        self._ensure(collection)
        # The caller's iterable runs, and bodies are encoded, before the write lock is taken.
        rows = [row_of(collection, values.prepare(collection, document)) for document in documents]
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
            # any will do where only some are wanted: to put them in order all would be read
            order = f"ORDER BY {_order(sort)}" if sort or limit is None else ""
            sql = f'SELECT t."_seq" FROM {found.table} WHERE {found.sql} {order} LIMIT ?'
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
                    if not checked or found.matches_lists(row[width:]):
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

    def _admit(self) -> None:
        """Begin a new file with the current schema version; refuse one of another version."""
        with self._connections.use() as connection:
            found = schema_version(connection)
        if found is None and self._connections.read_alone:
            found = DOCUMENTS_SCHEMA  # nothing is stored
        if found is None:
            with self._connections.write() as connection:
                found = schema_version(connection)  # another process may have begun it meanwhile
                if found is None:
                    write_schema_version(connection, DOCUMENTS_SCHEMA)
                    found = DOCUMENTS_SCHEMA
        if not self._any_schema:
            check_schema(f"the document store {self.path}", found, DOCUMENTS_SCHEMA)
        self._admitted = True

    def _ensure(self, collection: Collection) -> None:
        """Create or extend the collection's table, once per store and declaration."""
        if self._ready.get(collection.name) == collection:
            return
        values.check_collection(collection)
        if not self._admitted:
            self._admit()
        with self._connections.use() as connection:
            if self._connections.read_alone:
                stand_in(connection, collection, self.path)
                return
            current = is_current(connection, collection)
        if not current:
            with self._connections.write() as connection:
                make_or_extend(connection, collection)
        self._ready[collection.name] = collection


def _column(name: str) -> str:
    return f't."{name}"'


def _group_key(group: Group, name: str) -> str:
    """What is counted by: a column, or the hour that one lies in."""
    return _beginning(name, values.HOUR_MS) if name in group.hourly else _column(name)


def _beginning(name: str, period_ms: int) -> str:
    """When the period began in which a time lies; % has the sign of what it divides."""
    column = _column(name)
    return f"({column} - ({column} % {period_ms} + {period_ms}) % {period_ms})"


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


def _order(sort: Sequence[tuple[str, int]]) -> str:
    """ORDER BY terms; ties come in the order of insertion."""
    keys = [f"{_column(name)} {'ASC' if direction == 1 else 'DESC'}" for name, direction in sort]
    return ", ".join([*keys, 't."_seq"'])


def _compile(collection: Collection, terms: Sequence[values.Term]) -> _Filter:
    every: list[tuple[str, list[Any]]] = []
    rest: list[tuple[str, list[Any]]] = []
    long_lists: list[tuple[str, str, set[Any]]] = []
    # SQLite would guess, and without statistics wrongly: then all that a supplier ever answered is read
    index = values.serving_index(collection, terms)
    for term in terms:
        column = _column(term.field)
        if term.op != "in":
            value = column_value(collection, term.field, term.operand)
            # IS NOT counts null as different from every value, as MongoDB's $ne does.
            operator = {"eq": "IS", "ne": "IS NOT"}.get(term.op) if value is None or term.op == "ne" else None
            condition = (f"{column} {operator or _COMPARISONS[term.op]} ?", [value])
            every.append(condition)
            rest.append(condition)
            continue
        listed = [column_value(collection, term.field, value) for value in term.operand]
        present = [value for value in listed if value is not None]
        null = f" OR {column} IS NULL" if len(present) < len(listed) else ""
        if len(present) <= _BOUND_IN_VALUES:
            condition = (f"({column} IN ({', '.join('?' * len(present))}){null})", present)
            every.append(condition)
            rest.append(condition)
        else:
            every.append((f'({column} IN (SELECT value FROM temp."in_{len(long_lists)}"){null})', []))
            kind = COLUMN_TYPES[values.field_type(collection, term.field)]
            long_lists.append((term.field, kind, set(listed)))
    indexed = "" if index is None else f' INDEXED BY "{index_name(collection, index)}"'
    return _Filter(
        table=f'"{collection.name}" AS t{indexed}',
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
