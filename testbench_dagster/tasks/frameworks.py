"""Frameworks as the stages call them: what registers tasks, builds their requests and scores the answers.

The work is done by the framework's adapter in its worker process (:mod:`testbench_dagster.tasks.worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.given import checked_prompts, checked_registration, checked_scores, undeclared
from testbench_dagster.tasks.worker import FrameworkWorker

#: Seconds of the clock for which a metric may wait for a service, for each answer.
SCORER_WAITS_S = 300.0
#: Seconds of CPU time that registering a task, or building a batch of prompts, may take; and of the clock
#: without computing, while data are loaded. The largest of lm-eval's tasks take a few minutes.
REGISTER_S, LOAD_WAITS_S = 1800.0, 7200.0


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
        given = self._worker.call(self.plug.name, "register", spec, timeout_s=REGISTER_S, wait_s=LOAD_WAITS_S)
        return checked_registration(self.plug, spec, given)

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs for an API; ``seed`` is the epoch's, for what it draws."""
        given = self._worker.call(
            self.plug.name,
            "build_prompts",
            spec,
            data,
            list(doc_ids),
            api,
            seed,
            timeout_s=REGISTER_S,
            wait_s=LOAD_WAITS_S,
        )
        return checked_prompts(self.plug, spec, doc_ids, api, given)

    def score(
        self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score answered docs, in the order given."""
        scores = self._scored("score", spec, data, list(answers), timeout_s=timeout_s)
        where = f"task {spec.name!r}: framework {self.plug.name!r}: score()"
        if len(scores) != len(answers):
            told = f"{counted(len(scores), 'score')} for {counted(len(answers), 'answer')}"
            raise TaskError(f"{where} gave {told}; want a DocScore for each")
        if [score.doc_id for score in scores] != [answer.doc_id for answer in answers]:
            raise TaskError(
                f"{where} gave scores of other docs, or in another order; want that of the answers"
            )
        if not self.plug.of_lm_eval and (problem := undeclared(data.flags, scores)):
            raise TaskError(f"{where} gave {problem} (register() declares them)")
        return scores

    def score_probes(
        self, spec: TaskSpec, data: TaskData, asked: Answered, *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score answers to a doc that no supplier gave: is the service there that a metric asks?"""
        return self._scored("score_probes", spec, data, asked, timeout_s=timeout_s)

    def score_empty(
        self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered], *, timeout_s: float | None = None
    ) -> list[DocScore]:
        """Score an empty answer to each doc, in the order given; its responses only say how many it takes."""
        return self._scored("score_empty", spec, data, list(asked), timeout_s=timeout_s)

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """Aggregate a metric's per-doc values, in ascending order of docs; None where there is no number."""
        result: float | None = self._worker.call(
            self.plug.name, "aggregate", spec, flags, metric, list(values)
        )
        return result

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str] | None:
        """Task hash and configuration hash that a registration with this data gets here; None: unknown."""
        found: tuple[str, str] | None = self._worker.call(self.plug.name, "identify", spec, data, fingerprint)
        return found

    def _scored(self, function: str, *args: Any, timeout_s: float | None) -> list[DocScore]:
        given = self._worker.call(self.plug.name, function, *args, timeout_s=timeout_s, wait_s=SCORER_WAITS_S)
        return checked_scores(self.plug, function, given)
