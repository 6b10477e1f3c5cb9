"""A small task of our own in a folder of its own, for tests that change one thing about it."""

from __future__ import annotations

import json
from pathlib import Path

from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter import definitions

YAML = """
task: quiz
dataset_path: tests/quiz
test_split: test
training_split: train
fewshot_split: train
output_type: generate_until
doc_to_text: "Q: {{question}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: exact_match}]
process_docs: !function helper.process
num_fewshot: 2
"""
HELPER = "def process(docs):\n    return docs\n"
ROWS = [{"question": f"what is {n}?", "answer": str(n)} for n in range(8)]


def jsonl(path: Path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def spec_of(name: str = "quiz", **fields) -> TaskSpec:
    blank = {
        "name": name,
        "leaf": name,
        "root": name,
        "group": None,
        "num_fewshot": None,
        "metric": None,
        "filter": None,
        "data": None,
        "where": {},
        "samples": None,
    }
    return TaskSpec(**{**blank, **fields})


def quiz(
    folder: Path, yaml: str = YAML, helper: str = HELPER, test=ROWS, train=ROWS[:4], **fields
) -> TaskSpec:
    """A task of its own with local rows."""
    own = folder / "yaml"
    own.mkdir(parents=True, exist_ok=True)
    (own / "quiz.yaml").write_text(yaml, encoding="utf-8")
    (own / "helper.py").write_text(helper, encoding="utf-8")
    definitions._definitions.cache_clear()  # a process reads a YAML once; these tests change theirs
    data = {"test": jsonl(folder / "test.jsonl", test), "train": jsonl(folder / "train.jsonl", train)}
    return spec_of(**{"data": data, "include": (str(own),), **fields})
