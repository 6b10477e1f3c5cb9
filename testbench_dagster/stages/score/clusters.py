"""Which docs of a task depend on each other: those with the same value in its column ``cluster``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from testbench_dagster.core.errors import ConfigError

if TYPE_CHECKING:
    from testbench_dagster.stores.datasets import DatasetStore


class Clusters:
    """Clusters by task; the docs of a task are read once, when first asked for."""

    def __init__(self, datasets: DatasetStore) -> None:
        self._datasets = datasets
        self._known: dict[tuple[str, str], dict[int, bytes]] = {}

    def of(self, task: str, task_hash: str, column: str, doc_ids: Sequence[int]) -> list[bytes]:
        """The cluster of each doc: its column's value as JSON.

        Raises ConfigError when docs lack the column.
        """
        key = (task_hash, column)
        if key not in self._known:
            self._known[key] = self._read(task, task_hash, column)
        return [self._known[key][doc_id] for doc_id in doc_ids]

    def _read(self, task: str, task_hash: str, column: str) -> dict[int, bytes]:
        found = {}
        for stored in self._datasets.docs(task_hash):
            doc = json.loads(stored.body)  # not orjson, which knows neither NaN nor large integers
            if column not in doc:
                raise ConfigError(
                    f"task {task}: cluster {column!r} is no column of doc {stored.doc_id}; "
                    f"name one of {', '.join(sorted(doc))}, or leave cluster out"
                )
            try:
                found[stored.doc_id] = orjson.dumps(doc[column], option=orjson.OPT_SORT_KEYS)
            except orjson.JSONEncodeError:  # an integer beyond 64 bits
                found[stored.doc_id] = json.dumps(doc[column], sort_keys=True).encode()
        return found
