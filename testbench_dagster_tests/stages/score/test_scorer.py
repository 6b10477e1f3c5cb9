"""A scorer that never comes to an end, whatever the answer, is not tried for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from testbench_dagster.core.prompt import Answered, DocScore, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.stages.score.scorer import Scorer
from testbench_dagster.tasks.worker import WorkerTimeout
from testbench_dagster_tests.tasks.quiz import spec_of

FLAGS = TaskFlags(
    output_type="generate_until",
    features=[],
    multiple_input=False,
    multiple_target=False,
    repeats=1,
    num_fewshot=0,
    version="1",
    metrics={},
    filters=["none"],
)


class Endless:
    """A framework whose worker has to be stopped at every answer, perhaps at empty ones as well."""

    def __init__(self, *, at_empty: bool) -> None:
        self.at_empty = at_empty
        self.stopped = 0

    def score(
        self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered], *, timeout_s: Any = None
    ) -> list[DocScore]:
        return self._hang() if answers else []

    def score_empty(
        self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered], *, timeout_s: Any = None
    ) -> list[DocScore]:
        return self._hang() if self.at_empty else [DocScore(doc.doc_id, {"none": {}}) for doc in asked]

    score_probes = score_empty

    def _hang(self) -> list[DocScore]:
        self.stopped += 1
        raise WorkerTimeout("score took longer than 30 s and was stopped")


def scored(framework: Endless, docs: int) -> Scorer:
    scorer = Scorer(framework, spec_of(), TaskData({}, [], FLAGS), Counter())  # type: ignore[arg-type]
    items = [(doc, f"s{doc % 3}@x", Answered(doc, [{}], [[""]])) for doc in range(docs)]
    scorer.score(items)
    return scorer


def test_a_scorer_that_hangs_at_empty_answers_too_is_given_up_after_two_docs() -> None:
    framework = Endless(at_empty=True)
    scorer = scored(framework, 60)
    assert set(scorer.open) == set(range(60)) and not scorer.found
    assert sum("empty answers either" in why for why in scorer.open.values()) >= 50
    assert framework.stopped < 20


def test_answers_that_hang_it_are_their_suppliers_doing_where_empty_ones_do_not() -> None:
    scorer = scored(Endless(at_empty=False), 30)
    assert not scorer.open
    assert len(scorer.found) == 9, "three of each supplier; the rest is put off"
