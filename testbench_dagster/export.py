"""Parquet files of the stored facts and the current windows, for analysts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from testbench_dagster.stores.documents import Collection, Document, DocumentStore
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES

_BATCH = 1000  # rows per row group: bounds memory
_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("ms", tz="UTC"),
}
#: Undeclared fields worth a column: nested ones become JSON text, bodies text.
_MORE: dict[str, dict[str, type]] = {
    "prompts": {"requests": str, "target": str, "context_chars": int, "created_at": datetime},
    "attempts": {
        "body": str,
        "body_bytes": int,
        "body_truncated": bool,
        "error": str,
        "finish_reason": str,
        "first_byte_ms": float,
        "started_at": datetime,
        "payload_sha256": str,
        "evidence": str,
    },
    "scores": {
        "metrics": str,
        "error": str,
        "prompt_id": str,
        "attempt_ids": str,
        "truncated": bool,
        "latency_ms": float,
        "prompt_tokens": int,
        "completion_tokens": int,
        "scored_at": datetime,
    },
}


def export_parquet(
    documents: DocumentStore, out: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[Path, int]:
    """Write the prompts, attempts and scores of a store and the given tables; return the rows per file."""
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for collection in (PROMPTS, ATTEMPTS, SCORES):
        path = out / f"{collection.name}.parquet"
        written[path] = _write(path, _schema(collection), documents.find(collection))
    for name, rows in tables.items():
        path = out / f"{name}.parquet"
        plain = [{k: _plain(v) for k, v in row.items()} for row in rows]
        written[path] = _write(path, pa.Table.from_pylist(plain).schema, iter(plain))
    return written


def _schema(collection: Collection) -> pa.Schema:
    fields: dict[str, type] = {"_id": str, **collection.fields, **_MORE[collection.name]}
    return pa.schema([(name, _TYPES[kind]) for name, kind in fields.items()])


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


def _write(path: Path, schema: pa.Schema, rows: Iterable[Document]) -> int:
    """Write one file; it takes its name when it is complete."""
    partial = path.with_suffix(".parquet.partial")
    count = 0
    source: Iterator[Document] = iter(rows)
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            while batch := list(islice(source, _BATCH)):
                columns = [[_cell(row.get(f.name), f.type) for row in batch] for f in schema]
                writer.write_table(pa.table(columns, schema=schema))
                count += len(batch)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
