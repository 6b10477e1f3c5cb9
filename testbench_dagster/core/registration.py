"""What the dataset store keeps, as values: registrations of tasks, and docs. Needs no database library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.core.task_flags import TaskFlags


@dataclass(frozen=True)
class StoredDoc:
    """One processed doc: its row in the split, canonical JSON text (ASCII only) and that text's hash."""

    doc_id: int
    body: str
    doc_hash: str


@dataclass(frozen=True)
class Registration:
    """What a task was registered with.

    ``task_hash`` identifies what requests are made of, data included; the docs are kept under it.
    ``config_hash`` identifies the whole configuration, that of scoring included. ``lm_task`` is the
    framework's own task name, ``engine_version`` the framework's version, ``fingerprint`` a hash over the
    docs' hashes. ``splits`` maps a split to its rows, ``flags`` are what its framework says of it.
    ``registered_at`` is aware, and kept to the millisecond.
    """

    task: str
    task_hash: str
    framework: str
    lm_task: str
    engine_version: str
    config_hash: str
    fingerprint: str
    eval_split: str
    splits: dict[str, int]
    flags: TaskFlags
    n_docs: int
    n_fewshot: int
    registered_at: datetime
