"""Rows in the layouts that lm-eval's tasks expect, made from `../shared/data` or synthesised."""

from __future__ import annotations

import gzip
import json
import os
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Splits = dict[str, list[Row]]

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TESTBENCH_SHARED") or REPOSITORY.parent / "shared")
DATA = SHARED / "data"


@lru_cache(maxsize=8)
def shared_rows(path: str) -> tuple[Row, ...]:
    """Rows of a file below `../shared/data`, read without the code under test."""
    with gzip.open(DATA / path, "rt", encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def gsm8k(_: str | None) -> Splits:
    return {s: list(shared_rows(f"gsm8k/{s}.jsonl.gz")) for s in ("train", "test")}


def mmlu(subject: str | None) -> Splits:
    return {
        split: [row for row in shared_rows(f"mmlu/{split}.jsonl.gz") if row["subject"] == subject]
        for split in ("test", "dev")
    }


def bbh(name: str | None) -> Splits:
    return {"test": list(shared_rows(f"bbh/tasks/{name}.jsonl.gz"))}


def ifeval(_: str | None) -> Splits:
    answered = {row["key"] for row in shared_rows("ifeval/responses_gpt-4-20231107.jsonl.gz")}
    return {
        "train": [
            {**row, "instruction_id_list": [i.removeprefix("en:") for i in row["instruction_id_list"]]}
            for row in shared_rows("ifeval/input_data.jsonl.gz")
            if row["key"] in answered
        ]
    }


def arc_challenge(_: str | None) -> Splits:
    rows = []
    for number, row in enumerate(shared_rows("mc_datasets/arc_challenge.jsonl.gz")):
        labels = list("ABCDE" if number % 3 else "12345")[: len(row["choices"])]
        rows.append(
            {
                "id": f"row-{number}",
                "question": row["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
                "choices": {"text": row["choices"], "label": labels},
                "answerKey": labels[row["gold"]],
            }
        )
    return {"test": rows[:600], "train": rows[600:900]}


def truthfulqa(_: str | None) -> Splits:
    def targets(by_answer: dict[str, int]) -> Row:
        return {"choices": list(by_answer), "labels": list(by_answer.values())}

    return {
        "validation": [
            {
                "question": row["question"],
                "mc1_targets": targets(row["mc1_targets"]),
                "mc2_targets": targets(row["mc2_targets"]),
            }
            for row in shared_rows("truthfulqa/mc_task_817.jsonl.gz")
        ]
    }


def winogrande(_: str | None) -> Splits:
    rows = []
    for row in shared_rows("mc_datasets/winogrande.jsonl.gz"):
        first, second = row["context_options"]
        # both contexts are the sentence up to its blank, filled: cut after their last common word
        pairs = zip(first + "\0", second + "\1", strict=False)
        common = next(place for place, (a, b) in enumerate(pairs) if a != b)
        cut = first[:common].rfind(" ") + 1
        if "_" in first[:cut] or not first[cut:].strip() or not second[cut:].strip():
            continue
        rows.append(
            {
                "sentence": f"{first[:cut]}_ {row['continuation'].strip()}",
                "option1": first[cut:].strip(),
                "option2": second[cut:].strip(),
                "answer": str(row["gold"] + 1),
            }
        )
    return {"validation": rows[:400], "train": rows[400:700]}


@lru_cache(maxsize=1)
def _mmlu_pro() -> Splits:
    kept: dict[str, list[Row]] = {"biology": [], "law": []}
    for row in shared_rows("mmlu_pro/questions.jsonl.gz"):
        if row["category"] in kept and len(kept[row["category"]]) < 80:
            kept[row["category"]].append(row)
    shots = [
        {
            **row,
            "cot_content": f"A: Let's think step by step. Of {len(row['options'])} options, {row['answer']} "
            f"fits the question best. The answer is ({row['answer']}).",
        }
        for rows in kept.values()
        for row in rows[-8:]
    ]
    # categories interleaved, so that filtering by category changes the positions
    tests = [row for pair in zip(kept["biology"][:60], kept["law"][:60], strict=True) for row in pair]
    return {"test": tests, "validation": shots}


def mmlu_pro(_: str | None) -> Splits:
    return _mmlu_pro()


_ACTIVITIES = ["Removing ice from car", "Baking cookies", "Ice fishing", "Home and Garden", "Tying a tie"]
_ACTORS = ["a man", "a woman", "two children", "the coach", "an older couple"]
_DEEDS = ["scrapes the window", "stirs the bowl", "drills a hole", "waters the plants", "folds the cloth"]


def hellaswag(_: str | None) -> Splits:
    draw = random.Random(20)

    def row(number: int) -> Row:
        actor = draw.choice(_ACTORS)
        return {
            "ind": number,
            "activity_label": draw.choice(_ACTIVITIES),
            "ctx_a": f"{actor.capitalize()} stands outside [substeps] and  {draw.choice(_DEEDS)}.",
            "ctx_b": draw.choice([actor, "then " + actor, ""]),
            "endings": [
                f"{draw.choice(_DEEDS)} [title] {draw.choice(_ACTORS)} looks on, {number}-{n}."
                for n in range(4)
            ],
            "label": str(draw.randrange(4)),
        }

    rows = [row(number) for number in range(220)]
    return {"validation": rows[:120], "train": rows[120:]}


def cola(_: str | None) -> Splits:
    draw = random.Random(21)
    rows = [
        {
            "sentence": f"{draw.choice(_ACTORS).capitalize()} {draw.choice(_DEEDS)} {number}.",
            "label": draw.randrange(2),
            "idx": number,
        }
        for number in range(140)
    ]
    return {"validation": rows[:90], "train": rows[90:]}
