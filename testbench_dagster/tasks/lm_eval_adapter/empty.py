"""What a task's scorer makes of an empty answer: a text of no characters, a choice that misses.

Failed docs count as such answers in metrics over all docs at once, which have no worst value of a doc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.prompt import TEXT_KINDS, Answered, DocScore, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter.building import stored_task
from testbench_dagster.tasks.lm_eval_adapter.scoring import score

#: Log-probabilities of the right option and of all others.
_RIGHT, _WRONG = -2.0, -1.0


def score_empty(spec: TaskSpec, data: TaskData, asked: Sequence[Answered]) -> list[DocScore]:
    """Score an empty answer to each doc, in the order given; what was answered is not looked at."""
    task = stored_task(spec, replace(data, fewshot=[]))
    return score(spec, data, [_empty(task, doc) for doc in asked])


def _empty(task: ConfigurableTask, asked: Answered) -> Answered:
    right = _right_options(task, asked.doc_id) if task.OUTPUT_TYPE == "multiple_choice" else frozenset()
    options = len(task.doc_to_choice(task.eval_docs[asked.doc_id])) if right else 1
    responses: list[list[Any]] = []
    for request, answers in zip(asked.requests, asked.responses, strict=True):
        if request["type"] in TEXT_KINDS:
            one: Any = ""
        else:
            one = (_RIGHT if request["idx"] % options in right else _WRONG, False)
        responses.append([one] * max(1, len(answers)))
    return replace(asked, responses=responses)


def _right_options(task: ConfigurableTask, doc_id: int) -> frozenset[int]:
    """The options that are right, by index, as lm-eval's ``process_results`` finds them."""
    doc = task.eval_docs[doc_id]
    choices = list(task.doc_to_choice(doc))
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    found = []
    for one in gold if isinstance(gold, list) else [gold]:
        if isinstance(one, str):
            one = choices.index(one) if one in choices else -1
        if 0 <= int(one) < len(choices):
            found.append(int(one))
    return frozenset(found)
