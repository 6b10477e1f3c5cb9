"""lm-eval as a framework: its adapter's functions as a :class:`~testbench_dagster.tasks.adapter.TaskAdapter`.

Loaded in the worker only: importing it is importing lm_eval.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.tasks.adapter import TaskAdapter

sys.modules.setdefault("chardet", None)  # type: ignore[arg-type]  # saves 1 s: requests has another detector
from datasets.utils.logging import disable_progress_bar  # noqa: E402

from testbench_dagster.tasks import lm_eval_adapter  # noqa: E402

disable_progress_bar()


class LmEval(TaskAdapter):
    """Tasks, requests and scores of lm-eval."""

    def register(self, spec: TaskSpec) -> Registered:
        """See :func:`lm_eval_adapter.register`."""
        return lm_eval_adapter.register(spec)

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """See :func:`lm_eval_adapter.build_prompts`; requests are lm-eval's own, whatever the seed."""
        return lm_eval_adapter.build_prompts(spec, data, doc_ids, api)

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterable[DocScore]:
        """See :func:`lm_eval_adapter.score_each`."""
        return lm_eval_adapter.score_each(spec, data, answers)

    def score_empty(self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered]) -> Iterable[DocScore]:
        """See :func:`lm_eval_adapter.score_empty`."""
        return lm_eval_adapter.score_empty(spec, data, asked)

    def score_probes(self, spec: TaskSpec, data: TaskData, asked: Answered) -> Iterable[DocScore]:
        """See :func:`lm_eval_adapter.score_probes`."""
        return lm_eval_adapter.score_probes(spec, data, asked)

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """See :func:`lm_eval_adapter.aggregate`."""
        return lm_eval_adapter.aggregate(spec, flags, metric, values)

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str] | None:
        """See :func:`lm_eval_adapter.identify`."""
        return lm_eval_adapter.identify(spec, data, fingerprint)
