"""Rows of local data files (`data:` in testbench.yaml): jsonl, jsonl.gz, json, parquet and csv."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import TaskInputError

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
        raise TaskInputError(
            f"data file {path} does not exist; correct the path under `tasks[].data`"
        ) from None
    rows = list(_read(path, state.st_mtime_ns, state.st_size))
    for column, value in (where or {}).items():
        for number, row in enumerate(rows, 1):
            if column not in row:
                raise TaskInputError(
                    f"{path}: row {number} has no column {column!r}, which where: filters by"
                )
        rows = [row for row in rows if str(row[column]) == value]
    if not rows:
        kept = "".join(f" with {column} = {value!r}" for column, value in (where or {}).items())
        raise TaskInputError(f"{path} holds no rows{kept}")
    return rows


@lru_cache(maxsize=4)  # the leaves of a group often share one file
def _read(path: Path, _mtime: int, _size: int) -> tuple[Row, ...]:
    name = path.name.lower()
    try:
        if name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz")):
            return tuple(_json_rows(path, name))
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return tuple(pq.read_table(path).to_pylist())
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
        if ".jsonl" not in name:
            loaded = json.load(lines)
            rows = loaded if isinstance(loaded, list) else [loaded]
            numbered = list(enumerate(rows, 1))
        else:
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
