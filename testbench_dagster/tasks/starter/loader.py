"""Reads the catalog's data; lm-eval calls :func:`load` through the YAMLs' ``custom_dataset``.

lm-eval executes this file by its path, outside any package, so it imports nothing from this project.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

DATA = Path(__file__).parent / "data"


def read_docs(name: str, split: str | None = None) -> list[dict[str, Any]]:
    """Docs of task ``name`` in file order, of one split (``train``, ``test``) or of both.

    Raises FileNotFoundError, naming the known tasks, when there is no such task.
    """
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".jsonl.gz") for p in DATA.glob("*.jsonl.gz")))
        raise FileNotFoundError(f"no starter data for {name!r}; there is data for: {known}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        docs = [json.loads(line) for line in lines]
    return docs if split is None else [doc for doc in docs if doc["split"] == split]


def load(name: str, **_: Any) -> datasets.DatasetDict:
    """Task ``name`` as lm-eval wants it: one dataset per split.

    lm-eval also passes the task's metadata (its version, what ``--metadata`` gave); none of it matters here.
    """
    # datasets costs two seconds of import; the simulated suppliers read the same file without it
    from datasets import Dataset, DatasetDict

    docs = read_docs(name)
    splits = {split: [doc for doc in docs if doc["split"] == split] for split in ("train", "test")}
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})
