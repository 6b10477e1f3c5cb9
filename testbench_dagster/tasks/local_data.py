"""Rows of local data files (`data:` in testbench.yaml): jsonl, jsonl.gz, json, parquet and csv."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.errors import TaskInputError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


def read_rows(path: Path, where: Mapping[str, str] | None = None) -> list[Row]:
    """Read the rows of a file, keeping those whose columns equal the ``where`` values (compared as text).

    Raises:
        TaskInputError: the file is missing, unreadable or of an unknown kind, a row is no object, a ``where``
            column is absent, or nothing is left.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        raise _missing(path) from None
    rows = _read(path, state.st_mtime_ns, state.st_size)
    return [rows[place] for place in rows_where(path, rows, where or {})]


def rows_where(path: Path, rows: Sequence[Row], where: Mapping[str, str]) -> list[int]:
    """The places of the rows whose columns equal the ``where`` values (compared as text).

    Raises:
        TaskInputError: a ``where`` column is absent, or nothing is left.
    """
    places = list(range(len(rows)))
    for column, value in where.items():
        for place in places:
            if column not in rows[place]:
                raise TaskInputError(
                    f"{path}: row {place + 1} has no column {column!r}, which where: filters by"
                )
        places = [place for place in places if str(rows[place][column]) == value]
    if not places:
        kept = "".join(f" with {column} = {value!r}" for column, value in where.items())
        raise TaskInputError(f"{path} holds no rows{kept}")
    return places


def read_table(path: Path) -> pa.Table | None:
    """The table of a parquet file, with the types and the metadata it has there; None for other files.

    Raises:
        TaskInputError: the file is missing or unreadable.
    """
    if not path.name.lower().endswith(".parquet"):
        return None
    try:
        state = path.stat()
    except FileNotFoundError:
        raise _missing(path) from None
    return _table(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _table(path: Path, _mtime: int, _size: int) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise TaskInputError(f"{path} cannot be read: {error}") from None


def _missing(path: Path) -> TaskInputError:
    return TaskInputError(f"data file {path} does not exist; correct the path under `tasks[].data`")


@lru_cache(maxsize=4)  # the leaves of a group often share one file
def _read(path: Path, _mtime: int, _size: int) -> tuple[Row, ...]:
    name = path.name.lower()
    try:
        if name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz")):
            return tuple(_json_rows(path, name))
        if name.endswith(".parquet"):
            return tuple(_table(path, _mtime, _size).to_pylist())
        if name.endswith((".csv", ".csv.gz")):
            import pandas as pd

            frame = pd.read_csv(path)
            return tuple(frame.astype(object).where(frame.notna(), None).to_dict("records"))
    except TaskInputError:
        raise
    except (OSError, ValueError, EOFError, zlib.error) as error:  # pyarrow and pandas errors are ValueErrors
        raise TaskInputError(f"{path} cannot be read: {error}") from None
    raise TaskInputError(f"{path}: unknown kind of file; use .jsonl, .jsonl.gz, .json, .parquet or .csv")


def _json_rows(path: Path, name: str) -> list[Row]:
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        numbered = None if ".jsonl" in name else _whole(lines.read())
        if numbered is None:
            lines.seek(0)
            numbered = []
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        numbered.append((number, json.loads(line)))
                    except ValueError as error:
                        raise TaskInputError(f"{path}: line {number} is not valid JSON: {error}") from None
    for number, row in numbered:
        if not isinstance(row, dict):
            raise TaskInputError(f"{path}: row {number} is no object but {type(row).__name__}")
    return [row for _, row in numbered]


def _whole(text: str) -> list[tuple[int, Any]] | None:
    """The rows of a file that is one JSON value; None where each line is one, as some publish under .json."""
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            return None
        raise
    return list(enumerate(loaded if isinstance(loaded, list) else [loaded], 1))
