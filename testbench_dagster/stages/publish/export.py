"""Parquet files of the stored facts and the current windows, for analysts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from testbench_dagster.core.columns import Column, Unit, columns_of
from testbench_dagster.core.doc_answer import DocAnswer
from testbench_dagster.core.period import ALWAYS, Period
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.declaring import Record, taker
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.identify.views import (
    PUBLIC_GAP_COLUMNS,
    REFERENCE_COLUMNS,
    public_gap_rows,
    reference_rows,
)
from testbench_dagster.stages.rank.items import ITEM_COLUMNS, items
from testbench_dagster.stages.read.service import daily_service
from testbench_dagster.stages.score.task_groups import GROUP_COLUMNS, member_rows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.stores.files import ANOTHER_OUT, whole_file, writing

_BATCH = 500  # rows that become columns at once
_ITEM_BATCH = 50_000  # the same of the item matrix, whose rows are small
_GROUP_ROWS = 50_000  # of a row group
_GROUP_BYTES = 16 * 1024 * 1024  # a row group ends with about so many: bounds memory, whatever texts hold
#: Columns of answers with few different values.
_NAMES = frozenset({"supplier", "model", "task", "kind", "metric", "filter", "fault", "owner"})
#: By what facts are chosen by time.
_TIMES: dict[type[Record], str] = {
    AttemptRecord: "finished_at",
    ScoreRecord: "answered_at",
    ServiceProbeRecord: "finished_at",
}
_TYPES = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("ms", tz="UTC"),
}


def export_parquet(
    documents: DocumentStore,
    out: Path,
    tables: Mapping[str, tuple[type, Sequence[Mapping[str, Any]]]],
    *,
    suppliers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    period: Period = ALWAYS,
) -> dict[Path, int]:
    """Write prompts, attempts, scores, service probes and the given tables; return the rows per file.

    A table is the class of its records, whose columns it has, and their plain JSON. ``suppliers`` and
    ``tasks`` are keys and names of those whose facts are wanted; None for all that is stored. ``period`` is
    when attempts ended and answers came; prompts are written whenever they were built.

    Raises:
        StoreError: a file cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    written = {}
    for of in (PromptRecord, AttemptRecord, ScoreRecord, ServiceProbeRecord):
        path = out / f"{of.collection.name}.parquet"
        chosen = {"supplier": suppliers, "task": tasks}
        where = {
            name: {"in": list(wanted)}
            for name, wanted in chosen.items()
            if wanted is not None and any(field.name == name for field in of.fields)
        }
        if of in _TIMES:
            where |= period.condition(_TIMES[of])
        written[path] = _write(path, _schema(of), typed.whole(documents, of, where))
    for name, (record, rows) in tables.items():
        path = out / f"{name}.parquet"
        written[path] = _write(path, _text_schema(record), rows)
    return written


def write_answers(path: Path, rows: Iterable[DocAnswer]) -> int:
    """Write answers, one row each, and return how many; few are in memory at once.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write(path, _answers_schema(), map(vars, rows))


def write_item_matrix(
    workspace: Workspace,
    path: Path,
    now: datetime | None = None,
    suppliers: Sequence[Supplier] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    remedy: str = ANOTHER_OUT,
    period: Period = ALWAYS,
) -> int:
    """Write the item matrix (see :func:`.stages.rank.items.items`) and return its rows.

    Streams window by window; texts are dictionary-encoded; the columns are the same without any row.

    Raises:
        StoreError: it cannot be written; ``remedy`` is what to do then.
    """
    return _write(
        path, _narrow(ITEM_COLUMNS), items(workspace, now, suppliers, tasks, period), _ITEM_BATCH, remedy
    )


def write_ranking(path: Path, entries: Sequence[Entry]) -> int:
    """Write leaderboard entries, one row each, and return how many; ``latency_ms`` becomes two columns.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write(path, _narrow(_flat_columns(Entry)), map(_flat, entries))


def write_references(path: Path, workspace: Workspace, suppliers: Sequence[str] | None = None) -> int:
    """Write who is as the reference of its model, one row per supplier that has one; return how many.

    Raises:
        StoreError: the file cannot be written.
    """
    rows = reference_rows(workspace, suppliers)
    # times are texts in rows, as people are shown them; here they are times
    made = [{**row, "compared_at": datetime.fromisoformat(row["compared_at"])} for row in rows]
    return _write(path, pa.schema([(name, _TYPES[kind]) for name, kind in REFERENCE_COLUMNS.items()]), made)


def write_public_gaps(path: Path, workspace: Workspace, suppliers: Sequence[str] | None = None) -> int:
    """Write who is better on public questions than on fresh ones, one row per supplier, task and epoch.

    Raises:
        StoreError: the file cannot be written.
    """
    rows = public_gap_rows(workspace, suppliers, every=True)
    made = [{**row, "compared_at": datetime.fromisoformat(row["compared_at"])} for row in rows]
    return _write(path, pa.schema([(name, _TYPES[kind]) for name, kind in PUBLIC_GAP_COLUMNS.items()]), made)


def write_groups(path: Path, groups: Sequence[TaskGroup]) -> int:
    """Write what groups of tasks are made of, one row per group, metric and task; return how many.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write(path, _narrow(GROUP_COLUMNS), member_rows(groups))


def write_service_quality(
    path: Path, workspace: Workspace, suppliers: Sequence[Supplier], period: Period = ALWAYS
) -> int:
    """Write what service probes of suppliers come to, of days that end in the period; return the rows.

    One row per supplier, workload and day; percentiles become a column each.

    Raises:
        StoreError: the file cannot be written.
    """
    models = {one.key: one.model for one in suppliers}
    rows = (
        replace(row, model=models[row.supplier])
        for row in daily_service(workspace, list(models))
        if period.holds(row.until)
    )
    flat = _flat_columns(ServiceQuality)
    texts = pa.string()  # counts by name, as JSON
    schema = pa.schema([(name, texts if kind is dict else _TYPES[kind]) for name, kind in flat.items()])
    return _write(path, schema, map(_flat, rows))


def _flat_columns(record: type) -> dict[str, type]:
    """Name and type of each column; a mapping with fixed parts (``latency_ms``) becomes a column for each."""
    found: dict[str, type] = {}
    for name, one in columns_of(record).items():
        found |= dict.fromkeys(_part_names(name, one.column), float) if one.column.parts else {name: one.kind}
    return found


def _part_names(name: str, column: Column) -> list[str]:
    """``latency_ms`` has ``latency_p50_ms``: milliseconds stay at the end."""
    if column.unit is not Unit.MILLISECONDS:
        return [f"{name}_{part}" for part in column.parts]
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


def _answers_schema() -> pa.Schema:
    """Columns of answers: names, of which there are few, dictionary-encoded, and texts as they are."""
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [(name, words if name in _NAMES else _TYPES[one.kind]) for name, one in columns_of(DocAnswer).items()]
    )


def _narrow(columns: Mapping[str, type]) -> pa.Schema:
    """A schema whose texts are dictionary-encoded: few different ones in many rows."""
    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(name, words if kind is str else _TYPES[kind]) for name, kind in columns.items()])


def _schema(of: type[Record]) -> pa.Schema:
    """Columns of a collection's file, queryable fields first; what is nested becomes JSON text."""
    exported = sorted((f for f in of.fields if f.exported), key=lambda field: not field.queryable)
    return pa.schema([(field.name, _TYPES[field.scalar or str]) for field in exported])


def _values(batch: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Sequence[Any]]:
    """The values of each column of some rows; None where a row lacks one."""
    # most rows have the same ones: taken together they take half as long
    common = [name for name in names if name in batch[0]]
    found: dict[str, Sequence[Any]] = {}
    with suppress(KeyError):
        if common:
            found = dict(zip(common, zip(*map(taker(common), batch), strict=True), strict=True))
    return [found[name] if name in found else [row.get(name) for row in batch] for name in names]


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A column of a schema; what is not yet a text of a column of texts becomes one."""
    if not pa.types.is_string(kind):
        return pa.array(values, kind)
    try:
        return pa.array(values, kind)  # texts already, mostly
    except (TypeError, ValueError):
        return pa.array([_text(value) for value in values], kind)


_JSON = json.JSONEncoder(default=str).encode
_EMPTY = {dict: "{}", list: "[]"}  # as attempts over plain HTTP have all their evidence


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        # what no UTF-8 can hold, as a model may write it
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (dict, list)):
        return _JSON(value) if value else _EMPTY[type(value)]
    return str(value)


def _row_groups(
    source: Iterator[Mapping[str, Any]], schema: pa.Schema, batch_rows: int
) -> Iterator[pa.Table]:
    """Rows as tables, each of some thousand rows or some megabytes: small ones take longer, and more room."""
    batches: list[pa.Table] = []
    n = size = 0
    while batch := list(islice(source, batch_rows)):
        columns = map(_column, _values(batch, schema.names), schema.types)
        table = pa.table(list(columns), schema=schema)
        batches.append(table)
        n, size = n + table.num_rows, size + table.nbytes
        if n >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_tables(batches).unify_dictionaries()
            batches.clear()
            n = size = 0
    if batches:
        yield pa.concat_tables(batches).unify_dictionaries()


def _write(
    path: Path,
    schema: pa.Schema,
    rows: Iterable[Mapping[str, Any]],
    batch_rows: int | None = None,
    remedy: str = ANOTHER_OUT,
) -> int:
    """Write one file; it takes its name when it is complete."""
    with whole_file(path, remedy) as partial:
        return _write_rows(partial, schema, rows, batch_rows or _BATCH)


def write_documents(path: Path, of: type[Record], documents: Iterable[Mapping[str, Any]]) -> int:
    """Write documents of a collection to a file of its columns; return how many. Few are in memory at once.

    Raises:
        OSError: the file cannot be written.
    """
    return _write_rows(path, _schema(of), documents, _BATCH)


def _write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], batch_rows: int) -> int:
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for group in _row_groups(iter(rows), schema, batch_rows):
            writer.write_table(group)
            count += group.num_rows
    return count
