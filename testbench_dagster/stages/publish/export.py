"""Parquet files of the stored facts and the current windows, for analysts."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from testbench_dagster.core.columns import Column, columns_of
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.declaring import Record
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.rank.items import ITEM_COLUMNS, items
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.stores.files import ANOTHER_OUT, writing

_BATCH = 1000  # rows per row group: bounds memory
_ITEM_BATCH = 50_000  # the same for the item matrix, whose rows are small
_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("ms", tz="UTC"),
}


def export_parquet(
    documents: DocumentStore, out: Path, tables: Mapping[str, tuple[type, Sequence[Mapping[str, Any]]]]
) -> dict[Path, int]:
    """Write the prompts, attempts and scores of a store and the given tables; return the rows per file.

    A table is the class of its records, whose columns it has, and their plain JSON.

    Raises:
        StoreError: a file cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    written = {}
    for of in (PromptRecord, AttemptRecord, ScoreRecord):
        path = out / f"{of.collection.name}.parquet"
        written[path] = _write(path, _schema(of), typed.whole(documents, of))
    for name, (record, rows) in tables.items():
        path = out / f"{name}.parquet"
        written[path] = _write(path, _text_schema(record), rows)
    return written


def write_item_matrix(
    workspace: Workspace,
    path: Path,
    now: datetime | None = None,
    suppliers: Sequence[Supplier] | None = None,
    *,
    remedy: str = ANOTHER_OUT,
) -> int:
    """Write the item matrix (see :func:`.stages.rank.items.items`) and return its rows.

    Streams window by window; texts are dictionary-encoded; the columns are the same without any row.

    Raises:
        StoreError: it cannot be written; ``remedy`` is what to do then.
    """
    return _write(path, _narrow(ITEM_COLUMNS), items(workspace, now, suppliers), _ITEM_BATCH, remedy)


def write_ranking(path: Path, entries: Sequence[Entry]) -> int:
    """Write leaderboard entries, one row each, and return how many; ``latency_ms`` becomes two columns.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write(path, _narrow(_flat_columns(Entry)), map(_flat, entries))


def _flat_columns(record: type) -> dict[str, type]:
    """Name and type of each column; a mapping with fixed parts (``latency_ms``) becomes a column for each."""
    found: dict[str, type] = {}
    for name, one in columns_of(record).items():
        found |= dict.fromkeys(_part_names(name, one.column), float) if one.column.parts else {name: one.kind}
    return found


def _part_names(name: str, column: Column) -> list[str]:
    """``latency_ms`` has ``latency_p50_ms``: the unit stays at the end."""
    stem, _, unit = name.rpartition("_")
    return [f"{stem}_{part}_{unit}" for part in column.parts]


def _flat(record: object) -> dict[str, Any]:
    """The values of :func:`_flat_columns`."""
    row = dict(vars(record))
    for name, one in columns_of(type(record)).items():
        if one.column.parts:
            parts = row.pop(name)
            row |= {
                flat: parts.get(part)
                for flat, part in zip(_part_names(name, one.column), one.column.parts, strict=True)
            }
    return row


def _text_schema(record: type) -> pa.Schema:
    """The schema of rows that are plain JSON: times and mappings are texts there."""
    kinds = {
        name: str if one.kind in (dict, datetime) else one.kind for name, one in columns_of(record).items()
    }
    return pa.schema([(name, _TYPES[kind]) for name, kind in kinds.items()])


def _narrow(columns: Mapping[str, type]) -> pa.Schema:
    """A schema whose texts are dictionary-encoded: few different ones in many rows."""
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(name, words if kind is str else _TYPES[kind]) for name, kind in columns.items()])


def _schema(of: type[Record]) -> pa.Schema:
    """Columns of a collection's file, queryable fields first; what is nested becomes JSON text."""
    exported = sorted((f for f in of.fields if f.exported), key=lambda field: not field.queryable)
    return pa.schema([(field.name, _TYPES[field.scalar or str]) for field in exported])


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str)
    return value


def _cell(value: Any, kind: pa.DataType) -> Any:
    if value is None or not pa.types.is_string(kind):
        return value
    return (
        value
        if isinstance(value, str)
        else _plain(value)
        if not isinstance(value, (int, float))
        else str(value)
    )


def _write(
    path: Path,
    schema: pa.Schema,
    rows: Iterable[Mapping[str, Any]],
    batch_rows: int | None = None,
    remedy: str = ANOTHER_OUT,
) -> int:
    """Write one file; it takes its name when it is complete."""
    # two processes may write the same file: each its own, and the last to finish wins whole
    partial = path.with_name(f"{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.parquet.partial")
    count = 0
    source: Iterator[Mapping[str, Any]] = iter(rows)
    with writing(path, remedy):
        try:
            with pq.ParquetWriter(partial, schema) as writer:
                while batch := list(islice(source, batch_rows or _BATCH)):
                    columns = [
                        pa.array([_cell(row.get(f.name), f.type) for row in batch], f.type) for f in schema
                    ]
                    writer.write_table(pa.table(columns, schema=schema))
                    count += len(batch)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return count
