"""Splits of a task from the local files of its ``data:`` block, as `datasets` would load them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features
from datasets.features import features as kinds

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.local_data import Row, read_rows, read_table, rows_where

_NO_TYPE = (pa.ArrowException, OverflowError, TypeError, ValueError)


class LocalSplits(dict[str, Any]):
    """Splits loaded on first use from the files of ``data:``."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        self._spec = spec

    def __missing__(self, split: str) -> Any:
        spec = self._spec
        path = (spec.data or {}).get(split)
        if path is None:
            raise TaskInputError(
                f"task {spec.name!r} needs its split {split!r}, which data: does not give "
                f"(it gives {', '.join(spec.data or ())}); add {split}: <file>"
                + (
                    ""
                    if spec.num_fewshot == 0
                    else ", or set num_fewshot: 0 if it only serves few-shot examples"
                )
            )
        try:
            self[split] = _dataset(Path(path), spec)
        except TaskInputError:
            raise
        except Exception as error:  # pyarrow and datasets: a column that no table can hold
            raise TaskInputError(f"{path}: the rows do not form one table: {str(error)[:300]}") from None
        return self[split]

    def __contains__(self, split: object) -> bool:
        return split in (self._spec.data or {})


def _dataset(path: Path, spec: TaskSpec) -> Dataset:
    table = read_table(path)
    if table is None:
        return _of_rows(read_rows(path, spec.where))
    if spec.where:
        table = table.take(rows_where(path, table.select(list(spec.where)).to_pylist(), spec.where))
    elif not table.num_rows:
        raise TaskInputError(f"{path} holds no rows")
    return Dataset(_held_by_datasets(table))


def _of_rows(rows: Sequence[Row]) -> Dataset:
    """A table of all columns of some rows; where a row lacks one there is null, as `datasets` reads JSON."""
    columns: dict[str, list[Any]] = {
        name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))
    }
    try:
        return Dataset.from_dict(columns)
    except Exception:
        # some column has no one type; all others stay what they were
        made = {name: _column(values) for name, values in columns.items()}
    features = Features({name: one.features["values"] for name, one in made.items()})
    table = pa.table({name: one.data.column("values") for name, one in made.items()})
    return Dataset(table, info=DatasetInfo(features=features))


def _column(values: list[Any]) -> Dataset:
    """A column by the narrowest type that holds its values: that of `datasets`, 64 bits, else any JSON."""
    with suppress(*_NO_TYPE):
        return Dataset.from_dict({"values": values})
    with suppress(*_NO_TYPE):
        return Dataset(pa.table({"values": pa.array(values, pa.uint64())}))
    json_column = Features({"values": kinds.Json()})  # of datasets 4.7 and later
    return Dataset.from_dict({"values": values}, features=json_column)


def _held_by_datasets(table: pa.Table) -> pa.Table:
    """The same table without the types that `datasets` has no name for: a map becomes keys and values."""
    schema = pa.schema(
        [field.with_type(_plain_type(field.type)) for field in table.schema], metadata=table.schema.metadata
    )
    return table if schema.equals(table.schema) else table.cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_map(kind):
        entry = [kind.key_field.with_type(_plain_type(kind.key_type))]
        entry.append(kind.item_field.with_type(_plain_type(kind.item_type)))
        return pa.list_(pa.struct(entry))
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain_type(f.type)) for f in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain_type(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind.value_type if pa.types.is_dictionary(kind) else kind
