"""Answers that nobody gave, scored to see whether the service that a metric asks is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from testbench_dagster.core.prompt import TEXT_KINDS, Answered, DocScore, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter.building import stored_task
from testbench_dagster.tasks.lm_eval_adapter.empty import score_empty
from testbench_dagster.tasks.lm_eval_adapter.scoring import score_each

#: A wrong answer that is neither empty nor odd: some metrics ask nobody about the empty or the right one.
_PLAIN = "I do not know."


def score_probes(spec: TaskSpec, data: TaskData, asked: Answered) -> list[DocScore]:
    """Score answers to a doc that owe nothing to any supplier: a plain one, the right one, an empty one.

    Ends with the first that finds the service gone. Where answers are log-probabilities there is but one.
    """
    if any(request["type"] not in TEXT_KINDS for request in asked.requests):
        return score_empty(spec, data, [asked])
    task = stored_task(spec, replace(data, fewshot=[]))
    target = task.doc_to_target(task.eval_docs[asked.doc_id])
    right = target[0] if isinstance(target, list) and target else target
    found: list[DocScore] = []
    for text in (_PLAIN, str(right), ""):
        found += score_each(spec, data, [_answer(asked, text)])
        if found[-1].unavailable:
            break
    return found


def _answer(asked: Answered, text: str) -> Answered:
    responses: Sequence[Sequence[Any]] = [[text] * max(1, len(answers)) for answers in asked.responses]
    return replace(asked, responses=responses)
