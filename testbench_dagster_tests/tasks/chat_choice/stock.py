"""Stock tasks of lm-eval in their own layouts, with rows made up here: sums, in words and figures.

The right option stands first in every row, so that whoever says ``A`` wins unless options are shuffled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbench_dagster.core.task import TaskSpec
from testbench_dagster_tests.tasks.quiz import jsonl, spec_of

Row = dict[str, Any]
N = 240


def _numbers(i: int) -> tuple[str, list[str]]:
    """A question and its four options, the right one first."""
    a, b = 3 + i, 7 + 2 * i
    return f"How much is {a} plus {b}?", [str(a + b + wrong) for wrong in (0, 1, 10, -2)]


def mmlu(i: int) -> Row:
    question, options = _numbers(i)
    return {"question": question, "choices": options, "answer": 0, "subject": "abstract_algebra"}


def commonsense_qa(i: int) -> Row:
    question, options = _numbers(i)
    return {
        "question": question,
        "choices": {"label": list("ABCDE"), "text": [*options, str(1000 + i)]},
        "answerKey": "A",
    }


def gpqa(i: int) -> Row:
    question, (right, *wrong) = _numbers(i)
    return {
        "Question": question,
        "Correct Answer": right,
        **{f"Incorrect Answer {n}": text for n, text in enumerate(wrong, 1)},
    }


def arc(i: int) -> Row:
    question, options = _numbers(i)
    return {"question": question, "choices": {"text": options, "label": list("1234")}, "answerKey": "1"}


def openbookqa(i: int) -> Row:
    row = arc(i)
    return {"question_stem": row["question"], "choices": row["choices"], "answerKey": "1"}


def piqa(i: int) -> Row:
    question, (right, wrong, *_) = _numbers(i)
    return {"goal": question, "sol1": f"It makes {right}.", "sol2": f"It makes {wrong}.", "label": 0}


def sciq(i: int) -> Row:
    question, (right, *wrong) = _numbers(i)
    return {
        "question": question,
        "support": "Sums are made of numbers.",
        "correct_answer": right,
        **{f"distractor{n}": text for n, text in enumerate(wrong, 1)},
    }


def truthfulqa(i: int) -> Row:
    question, options = _numbers(i)
    targets = {"choices": options, "labels": [1, 0, 0, 0]}
    return {"question": question, "mc1_targets": targets, "mc2_targets": targets}


def boolq(i: int) -> Row:
    return {
        "passage": f"Row {i} has {i} trees.",
        "question": f"does row {i} have {i + i % 2} trees",
        "label": 1 - i % 2,
    }


def copa(i: int) -> Row:
    return {
        "premise": f"Shop {i} gave away {i} loaves.",
        "question": "effect",
        "choice1": f"People left with {i} loaves.",
        "choice2": f"The moon fell on shop {i}.",
        "label": 0,
    }


def winogrande(i: int) -> Row:
    return {
        "sentence": f"Row {i}: the cup did not fit into the box because the _ was too small.",
        "option1": "box",
        "option2": "cup",
        "answer": "1",
    }


def blimp(i: int) -> Row:
    return {"sentence_good": f"The {i} dogs bark.", "sentence_bad": f"The {i} dogs barks.", "UID": "none"}


#: Task: a row of its layout, its splits, how many options a doc has, and which form its template has.
STOCK: Mapping[str, tuple[Callable[[int], Row], tuple[str, ...], int, str]] = {
    "mmlu_abstract_algebra": (mmlu, ("test", "dev"), 4, "lettered lines"),
    "commonsense_qa": (commonsense_qa, ("validation", "train"), 5, "lettered lines"),
    "gpqa_diamond_zeroshot": (gpqa, ("train",), 4, "letters in brackets"),
    "arc_easy": (arc, ("test", "train", "validation"), 4, "options apart"),
    "openbookqa": (openbookqa, ("test", "train", "validation"), 4, "options apart"),
    "piqa": (piqa, ("validation", "train"), 2, "options apart"),
    "sciq": (sciq, ("test", "train", "validation"), 4, "options apart"),
    "truthfulqa_mc1": (truthfulqa, ("validation",), 4, "options apart"),
    "boolq": (boolq, ("validation", "train"), 2, "fixed options"),
    "copa": (copa, ("validation", "train"), 2, "continuation"),
    "winogrande": (winogrande, ("validation", "train"), 2, "one text per option"),
    "blimp_adjunct_island": (blimp, ("train",), 2, "no question"),
}


def stock(folder: Path, task: str, n: int = N, **fields: Any) -> TaskSpec:
    """A stock task over local rows; other splits than the first hold rows of their own."""
    make, splits, _, _ = STOCK[task]
    data = {
        split: jsonl(
            folder / f"{task}-{split}.jsonl", [make(i + 1000 * place) for i in range(n if not place else 12)]
        )
        for place, split in enumerate(splits)
    }
    return replace(spec_of(task), name=f"{task}~chat", data=data, **{"num_fewshot": 0, **fields})
