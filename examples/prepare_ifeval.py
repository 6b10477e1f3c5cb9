"""Bring M-IFEval's English prompts into the layout that lm-eval's `ifeval` task expects.

    python examples/prepare_ifeval.py INPUT OUT [--answered RESPONSES]

INPUT is a .jsonl or .jsonl.gz file with `key, prompt, instruction_id_list, kwargs`. Two things differ in it
from the data set lm-eval reads (google/IFEval):

* instruction ids begin with the language (`en:punctuation:no_comma`); lm-eval's have no such prefix;
* an instruction's kwargs hold the arguments it has; lm-eval's rows hold every argument name, null if unused.

With --answered only the prompts whose `key` stands in that file are written, so that a recording which lacks
some of them is measured on what it answered. Standard library only.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PREFIX = "en:"


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file, compressed or not."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def prepare(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as lm-eval expects them."""
    rows = list(rows)
    names = sorted({name for row in rows for kwargs in row["kwargs"] for name in kwargs})
    return [
        {
            "key": row["key"],
            "prompt": row["prompt"],
            "instruction_id_list": [id_.removeprefix(PREFIX) for id_ in row["instruction_id_list"]],
            "kwargs": [{name: kwargs.get(name) for name in names} for kwargs in row["kwargs"]],
        }
        for row in rows
    ]


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="prompts (.jsonl or .jsonl.gz)")
    parser.add_argument("out", type=Path, help="file to write (.jsonl)")
    parser.add_argument("--answered", type=Path, help="recorded answers; other prompts are left out")
    arguments = parser.parse_args()
    rows = list(read(arguments.input))
    if arguments.answered is not None:
        answered = {row["key"] for row in read(arguments.answered)}
        rows = [row for row in rows if row["key"] in answered]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in prepare(rows)]
    partial = arguments.out.with_name(f"{arguments.out.name}.partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(arguments.out)
    print(f"{arguments.out}: {len(lines)} prompts")


if __name__ == "__main__":
    main()
