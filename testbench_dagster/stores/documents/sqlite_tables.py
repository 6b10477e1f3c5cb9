"""The tables of the embedded document store: made, extended and filled as collections are declared."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents import values
from testbench_dagster.stores.documents.contract import Collection, Document

COLUMN_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER", datetime: "INTEGER"}


#: How normalised values of some types become column values; those of the others are ones.
_ENCODERS: dict[type, Callable[[Any], Any]] = {datetime: values.milliseconds, bool: int}


def column_value(collection: Collection, name: str, value: Any) -> Any:
    """What the column of a declared field holds for a normalised value."""
    encoder = _ENCODERS.get(values.field_type(collection, name))
    return value if value is None or encoder is None else encoder(value)


def row_of(collection: Collection, prepared: Document) -> tuple[Any, ...]:
    """The table row of a prepared document: ``_id``, declared fields, body."""
    columns = [
        value if (value := prepared.get(name)) is None or kind not in _ENCODERS else _ENCODERS[kind](value)
        for name, kind in collection.fields.items()
    ]
    return (prepared["_id"], *columns, values.encode(collection, prepared))


def schema_version(connection: sqlite3.Connection) -> int | None:
    """The schema version of the file; 0 where tables were made before there was one, None without any.

    Who begins a file writes the version before the first table: hence the second look.
    """
    for look in range(2):
        version: int = connection.execute("PRAGMA main.user_version").fetchone()[0]
        if version:
            return version
        if look == 0 and connection.execute("SELECT 1 FROM main.sqlite_master LIMIT 1").fetchone() is None:
            return None
    return 0


def write_schema_version(connection: sqlite3.Connection, version: int) -> None:
    """Write the schema version; inside a write transaction, with which it is kept or undone."""
    connection.execute(f"PRAGMA main.user_version = {int(version)}")


def _declared(connection: sqlite3.Connection, collection: Collection) -> dict[str, str]:
    """Fields and types whose columns are known to agree with the stored bodies."""
    rows = connection.execute('SELECT field, type FROM "_declared" WHERE collection = ?', (collection.name,))
    return dict(rows.fetchall())


def _exists(connection: sqlite3.Connection, kind: str, name: str) -> bool:
    sql = "SELECT 1 FROM main.sqlite_master WHERE type = ? AND name = ?"
    return connection.execute(sql, (kind, name)).fetchone() is not None


def index_name(collection: Collection, key: tuple[str, ...]) -> str:
    """Name of the index over these fields; names are shared by all tables of the file."""
    if key == ("_id",):
        return f"sqlite_autoindex_{collection.name}_1"  # of the only unique column of the table
    return f"{collection.name}.{values.index_name(key, unique=key in collection.unique)}"


def _keys(collection: Collection) -> tuple[tuple[str, ...], ...]:
    """Fields of each declared index."""
    return (*values.plain_indexes(collection), *collection.unique)


def missing_indexes(connection: sqlite3.Connection, collection: Collection) -> list[tuple[str, ...]]:
    """The keys of declared indexes that are not there."""
    return [key for key in _keys(collection) if not _exists(connection, "index", index_name(collection, key))]


def obsolete_indexes(connection: sqlite3.Connection, collection: Collection) -> list[str]:
    """Names of the indexes that were declared once and are not any more."""
    declared = {index_name(collection, key) for key in _keys(collection)}
    found = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
        (collection.name,),
    )
    return [name for (name,) in found if name.startswith(f"{collection.name}.") and name not in declared]


def build_index(
    connection: sqlite3.Connection, collection: Collection, key: tuple[str, ...], schema: str = "main"
) -> None:
    """Build the index over these fields unless it is there; inside a write transaction."""
    listed = ", ".join(f'"{name}"' for name in key)
    unique = "UNIQUE " if key in collection.unique else ""
    connection.execute(
        f'CREATE {unique}INDEX IF NOT EXISTS {schema}."{index_name(collection, key)}" '
        f'ON "{collection.name}" ({listed})'
    )


def is_current(connection: sqlite3.Connection, collection: Collection) -> bool:
    """Whether the table and its indexes are there as the collection is declared now."""
    if not (_exists(connection, "table", "_declared") and _exists(connection, "table", collection.name)):
        return False
    wanted = {name: kind.__name__ for name, kind in collection.fields.items()}
    return _declared(connection, collection) == wanted and not missing_indexes(connection, collection)


def stand_in(connection: sqlite3.Connection, collection: Collection, path: Path) -> None:
    """Where a file may only be read: have an empty table for one that was never made, in this connection.

    Raises :class:`StoreError` when the table lacks what the collection declares.
    """
    existing = {row[1] for row in connection.execute(f'PRAGMA table_info("{collection.name}")')}
    if not existing:
        connection.execute(f'CREATE TEMP TABLE IF NOT EXISTS "{collection.name}" ({_columns(collection)})')
        for key in _keys(collection):  # queries name the index that serves them
            build_index(connection, collection, key, schema="temp")
    elif missing := sorted(collection.fields.keys() - existing):
        raise StoreError(
            f"{path}: {collection.name} has no field {missing[0]} yet, and this user may not add it; have a "
            "user who may write in that folder run the same command once"
        )


def _columns(collection: Collection) -> str:
    """The columns of a collection's table, as SQL declares them."""
    columns = "".join(f'"{name}" {COLUMN_TYPES[kind]}, ' for name, kind in collection.fields.items())
    return f'"_seq" INTEGER PRIMARY KEY, "_id" TEXT NOT NULL UNIQUE, {columns}"_body" BLOB NOT NULL'


def make_or_extend(connection: sqlite3.Connection, collection: Collection) -> None:
    """Create the table or add what the declaration has gained; inside a write transaction, idempotent.

    Raises :class:`StoreError` when a field's type changed: its column could not hold both.
    """
    extend(connection, collection)
    for key in missing_indexes(connection, collection):
        build_index(connection, collection, key)


def extend(connection: sqlite3.Connection, collection: Collection) -> None:
    """Create the table or add the columns that the declaration has gained, as :func:`make_or_extend` does.

    Raises :class:`StoreError` when a field's type changed: its column could not hold both.
    """
    connection.execute(
        'CREATE TABLE IF NOT EXISTS "_declared" (collection TEXT, field TEXT, type TEXT, '
        "PRIMARY KEY (collection, field)) WITHOUT ROWID"
    )
    connection.execute(f'CREATE TABLE IF NOT EXISTS "{collection.name}" ({_columns(collection)})')
    declared = _declared(connection, collection)
    existing = {row[1] for row in connection.execute(f'PRAGMA table_info("{collection.name}")')}
    gained: list[str] = []
    added: set[str] = set()
    for name, kind in collection.fields.items():
        if name not in existing:
            connection.execute(f'ALTER TABLE "{collection.name}" ADD COLUMN "{name}" {COLUMN_TYPES[kind]}')
            added.add(name)
        before = declared.get(name)
        if before is None:
            gained.append(name)
        elif before != kind.__name__:
            raise StoreError(
                f"{collection.name}.{name} is stored as {before} and now declared {kind.__name__}; "
                f"declare a field of another name instead"
            )
    if gained:
        _fill_columns(connection, collection, gained, added)
    # A field no longer declared is no longer written: forget it, so that it is filled again on its return.
    connection.execute('DELETE FROM "_declared" WHERE collection = ?', (collection.name,))
    connection.executemany(
        'INSERT INTO "_declared" VALUES (?, ?, ?)',
        [(collection.name, name, kind.__name__) for name, kind in collection.fields.items()],
    )


def _fill_columns(
    connection: sqlite3.Connection, collection: Collection, names: Sequence[str], added: Set[str]
) -> None:
    """Fill the columns of newly declared fields from the bodies; those just ``added`` are null as yet."""
    all_null = added >= set(names)
    marks = [name.encode() + b"\0" for name in names]  # how BSON writes the name of a field
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
            # a row is written as a whole, its body too: not for nothing
            if all_null and not any(mark in body for mark in marks):
                continue
            document = values.decode(body)
            try:
                columns = [
                    column_value(collection, name, values.normalise(collection, name, document.get(name)))
                    for name in names
                ]
            except StoreError as error:
                raise StoreError(f"stored document {document['_id']} does not fit: {error}") from None
            updates.append((*columns, sequence))
        connection.executemany(f'UPDATE "{collection.name}" SET {assigned} WHERE "_seq" = ?', updates)
        position = rows[-1][0]
