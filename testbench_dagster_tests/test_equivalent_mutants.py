"""What ``benchmarks/mutants.py`` leaves out is of lines that stand: it ends where one does not."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import yaml

import testbench_dagster

PACKAGE = Path(testbench_dagster.__file__).parent
LIST = PACKAGE.parent / "benchmarks" / "equivalent_mutants.yaml"


def test_every_mutant_that_is_left_out_is_of_a_line_that_stands() -> None:
    lines: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        lines[path.name].update(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    entries = [entry for entry in yaml.safe_load(LIST.read_text(encoding="utf-8")) if "line" in entry]
    assert len(entries) > 20
    gone = [(entry["file"], entry["line"]) for entry in entries if entry["line"] not in lines[entry["file"]]]
    assert gone == [], f"correct {LIST.name}"
