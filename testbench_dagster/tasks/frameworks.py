"""Frameworks as the stages call them: what registers tasks, builds their requests and scores the answers.

The work is done by the framework's adapter in its worker process (:mod:`testbench_dagster.tasks.worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbench_dagster.core.errors import AdapterFailed, TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN, TaskFlags
from testbench_dagster.tasks.given import (
    checked_prompts,
    checked_registration,
    checked_scores,
    shown,
)
from testbench_dagster.tasks.worker import FrameworkWorker, WorkerStopped

#: Seconds of the clock for which a metric may wait for a service, for each answer.
SCORER_WAITS_S = 300.0
#: Seconds of CPU time that registering a task, or building a batch of prompts, may take; and of the clock
#: without computing, while data are loaded. The largest of lm-eval's tasks take a few minutes.
REGISTER_S, LOAD_WAITS_S = 1800.0, 7200.0
_SCORING = frozenset({"score", "score_empty", "score_probes"})
#: Seconds of CPU time that putting the values of a metric together may take.
AGGREGATE_S = 300.0


class Framework:
    """One framework, through its worker.

    All methods raise :class:`~testbench_dagster.core.errors.TaskError` for what is wrong with a task; those
    that score raise WorkerTimeout or WorkerDied where it took longer than ``timeout_s`` seconds or broke
    down, with the scores that were there before.
    """

    def __init__(self, name: str, worker: FrameworkWorker) -> None:
        self.plug = framework_plug(name)
        self._worker = worker

    def register(self, spec: TaskSpec) -> Registered:
        """Load a task's data and describe it."""
        given = self._call("register", spec, timeout_s=REGISTER_S, wait_s=LOAD_WAITS_S)
        registered = checked_registration(self.plug, spec, given)
        if not self.plug.of_lm_eval:
            self._check_aggregations(spec, registered.data.flags)
        return registered

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs for an API; ``seed`` is the epoch's, for what it draws."""
        given = self._call(
            "build_prompts",
            spec,
            data,
            list(doc_ids),
            api,
            seed,
            timeout_s=REGISTER_S,
            wait_s=LOAD_WAITS_S,
        )
        return checked_prompts(self.plug, spec, data, doc_ids, api, given)

    def score(
        self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score answered docs, in the order given."""
        return self._scored("score", spec, data, list(answers), docs=answers, timeout_s=timeout_s)

    def score_probes(
        self, spec: TaskSpec, data: TaskData, asked: Answered, *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score answers to a doc that no supplier gave: is the service there that a metric asks?"""
        return self._scored("score_probes", spec, data, asked, docs=None, timeout_s=timeout_s)

    def score_empty(
        self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score an empty answer to each doc, in the order given; its responses only say how many it takes."""
        return self._scored("score_empty", spec, data, list(asked), docs=asked, timeout_s=timeout_s)

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """Aggregate a metric's per-doc values, in ascending order of docs; None where there is no number."""
        found: float | None = self._call(
            "aggregate", spec, flags, metric, list(values), timeout_s=AGGREGATE_S
        )
        if found is not None and not isinstance(found, (int, float)):
            raise TaskError(
                f"{self._where(spec)}: aggregate() gave {shown(found)} for the metric {metric!r}; want a "
                "number or None"
            )
        return found

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str] | None:
        """Task hash and configuration hash that a registration with this data gets here; None: unknown."""
        found: tuple[str, str] | None = self._call(
            "identify", spec, data, fingerprint, timeout_s=REGISTER_S, wait_s=LOAD_WAITS_S
        )
        return found

    def _check_aggregations(self, spec: TaskSpec, flags: TaskFlags) -> None:
        """Raise TaskError for an aggregation that neither we nor the adapter know."""
        others = {name: one.aggregation for name, one in flags.metrics.items() if one.aggregation != MEAN}
        if others and not self._call("aggregates", spec, of_task=False, timeout_s=AGGREGATE_S):
            name, aggregation = next(iter(others.items()))
            raise TaskError(
                f"{self._where(spec)}: register(): metric {name!r}: aggregation {aggregation!r} is unknown; "
                f"name {MEAN!r}, or give the adapter an aggregate() that knows it"
            )

    def _scored(
        self,
        function: str,
        spec: TaskSpec,
        *args: Any,
        docs: Sequence[Answered] | None,
        timeout_s: float | None,
    ) -> list[DocScore]:
        given = self._call(function, spec, *args, timeout_s=timeout_s, wait_s=SCORER_WAITS_S)
        asked = None if docs is None else [doc.doc_id for doc in docs]
        return checked_scores(self.plug, spec, function, args[0].flags, given, asked)

    def _call(
        self,
        function: str,
        spec: TaskSpec,
        *args: Any,
        of_task: bool = True,
        timeout_s: float | None = None,
        wait_s: float | None = None,
    ) -> Any:
        """Call the adapter; what is its mistake, or takes too long, is told with task and framework."""
        try:
            return self._worker.call(
                self.plug.name,
                function,
                *((spec, *args) if of_task else ()),
                task=spec.name,
                timeout_s=timeout_s,
                wait_s=wait_s,
            )
        except WorkerStopped as error:
            if function not in _SCORING:  # whose errors stand beside answers of the task
                error.about(self._where(spec))
            raise
        except AdapterFailed as error:
            if self.plug.of_lm_eval:  # what it runs is the task's own, which says what is wrong
                raise
            whose = "that is a mistake of the framework: mend it, or ask who provides it"
            raise AdapterFailed(f"{self._where(spec)}: {error}; {whose}") from error

    def _where(self, spec: TaskSpec) -> str:
        return f"task {spec.name!r}: framework {self.plug.name!r}"
