"""Reads the starter tasks' data; light, for simulated suppliers read it too."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from testbench_dagster.core.errors import TaskError

DATA = Path(__file__).parent / "data"

#: Every starter task, in the order of the documentation.
TASKS = ("tools_one", "tools_several", "tools_parallel", "tools_none", "tools_schema")


def read_docs(name: str) -> list[dict[str, Any]]:
    """The docs of a starter task, in order.

    Raises:
        TaskError: there is no such task.
    """
    if name not in TASKS:
        raise TaskError(
            f"the framework tools has no task {name!r} of its own; it has {', '.join(TASKS)}, and reads "
            "others from files: give data: {test: <file>}"
        )
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
