"""Frameworks: what registers tasks, builds their requests and scores the answers; one is found by its name.

A new framework is a class with these five functions, a place in :func:`framework_of` and a version in
:data:`VERSIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import LM_EVAL, SIGNATURES, TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION
from testbench_dagster.tasks.signatures import Signatures
from testbench_dagster.tasks.signatures.version import SIGNATURES_VERSION
from testbench_dagster.tasks.worker import FrameworkWorker

#: Version of each framework: a new one builds, or scores, anew.
VERSIONS: Mapping[str, str] = {LM_EVAL: LM_EVAL_VERSION, SIGNATURES: SIGNATURES_VERSION}


class Framework(Protocol):
    """What every framework can do. All raise :class:`TaskError` for what is wrong with a task."""

    def register(self, spec: TaskSpec) -> Registered:
        """Load a task's data and describe it."""
        ...

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs for an API; ``seed`` is the epoch's, for questions it draws."""
        ...

    def score(
        self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score answered docs, in the order given.

        Raises:
            WorkerTimeout, WorkerDied: it took longer than ``timeout_s`` seconds, or broke down.
        """
        ...

    def score_empty(
        self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score an empty answer to each doc, in the order given; its responses only say how many it takes.

        Raises:
            WorkerTimeout, WorkerDied: as :meth:`score`.
        """
        ...

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """Aggregate a metric's per-doc values, in ascending order of docs; None where there is no number."""
        ...


class LmEval:
    """lm-eval, in the worker process that owns it."""

    def __init__(self, worker: FrameworkWorker) -> None:
        self._worker = worker

    def register(self, spec: TaskSpec) -> Registered:
        """See :func:`lm_eval_adapter.register`."""
        registered: Registered = self._worker.call("register", spec)
        return registered

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """See :func:`lm_eval_adapter.build_prompts`; requests are lm-eval's own, whatever the seed."""
        prompts: list[BuiltPrompt] = self._worker.call("build_prompts", spec, data, list(doc_ids), api)
        return prompts

    def score(
        self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """See :func:`lm_eval_adapter.score`."""
        scores: list[DocScore] = self._worker.call("score", spec, data, list(answers), timeout_s=timeout_s)
        return scores

    def score_empty(
        self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """See :func:`lm_eval_adapter.score_empty`."""
        scores: list[DocScore] = self._worker.call(
            "score_empty", spec, data, list(asked), timeout_s=timeout_s
        )
        return scores

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """See :func:`lm_eval_adapter.aggregate`."""
        result: float | None = self._worker.call("aggregate", spec, flags, metric, list(values))
        return result


def framework_of(name: str, worker: FrameworkWorker) -> Framework:
    """The framework of this name; ``worker`` starts only when lm-eval is called.

    Raises:
        TaskError: there is none.
    """
    if name == LM_EVAL:
        return LmEval(worker)
    if name == SIGNATURES:
        return Signatures()
    raise TaskError(f"framework {name!r} is unknown; there are: {', '.join(VERSIONS)}")
