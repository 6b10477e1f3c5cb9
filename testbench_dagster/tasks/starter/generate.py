"""Writes the catalog's data: ``python -m testbench_dagster.tasks.starter.generate [FOLDER]``.

The output is a function of :data:`SEED` and the question makers alone: the same bytes on every run, so a
change of a maker shows as a change of the committed files (raise the version in the task's YAML with it).
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import DATA
from testbench_dagster.tasks.starter.questions import (
    Draft,
    Maker,
    arithmetic,
    choice,
    dates,
    instructions,
    logic,
    reading,
    strings,
    units,
)

SEED = 20250601
TEST_DOCS = 240
TRAIN_DOCS = 24
#: Every so-manieth doc goes to the train split, so that both splits hold the kinds in the same mix.
TRAIN_EVERY = (TEST_DOCS + TRAIN_DOCS) // TRAIN_DOCS

# A kind that finds nothing new so often in a row has run out of questions: a mistake in its maker.
_MAX_TRIES = 500

KINDS: dict[str, tuple[Maker, ...]] = dict(
    zip(
        TASKS,
        (
            arithmetic.KINDS,
            logic.KINDS,
            strings.KINDS,
            dates.KINDS,
            units.KINDS,
            reading.KINDS,
            instructions.KINDS,
            choice.KINDS,
        ),
        strict=True,
    )
)


def _drafts(task: str, taken: set[str]) -> Iterator[Draft]:
    """Drafts of ``task``, its kinds in turn, every question new to ``taken``."""
    rng = Random(f"{SEED}/{task}")  # noqa: S311  questions, the same ones every time
    while True:
        for maker in KINDS[task]:
            for _ in range(_MAX_TRIES):
                draft = maker(rng)
                if draft.question not in taken:
                    break
            else:
                raise RuntimeError(f"{task}: {maker.__name__} makes no new question any more")
            taken.add(draft.question)
            yield draft


def make_docs(task: str, taken: set[str]) -> list[dict[str, Any]]:
    """All docs of ``task``; ``taken`` holds the questions already used anywhere and grows."""
    docs: list[dict[str, Any]] = []
    counts = {"train": 0, "test": 0}
    for number, draft in zip(range(TEST_DOCS + TRAIN_DOCS), _drafts(task, taken), strict=False):
        split = "train" if number % TRAIN_EVERY == TRAIN_EVERY - 1 else "test"
        docs.append(
            {
                "id": f"{task.removeprefix('starter_')}-{split}-{counts[split]:04d}",
                "split": split,
                "kind": draft.kind,
                "level": draft.level,
                "question": draft.question,
                "answer": draft.answer,
                "wrong": list(draft.wrong),
                **draft.extra,
            }
        )
        counts[split] += 1
    return docs


def encode(docs: list[dict[str, Any]]) -> bytes:
    """Docs as gzipped JSON lines without time stamp or file name, hence the same bytes every time."""
    lines = "".join(json.dumps(doc, ensure_ascii=False) + "\n" for doc in docs)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as out:
        out.write(lines.encode())
    return packed.getvalue()


def generate(folder: Path = DATA) -> list[Path]:
    """Writes ``<task>.jsonl.gz`` for every task into ``folder`` and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    written = []
    for task in TASKS:
        path = folder / f"{task}.jsonl.gz"
        path.write_bytes(encode(make_docs(task, taken)))
        written.append(path)
    return written


if __name__ == "__main__":
    for made in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA):
        print(f"{made}: {made.stat().st_size} bytes")
