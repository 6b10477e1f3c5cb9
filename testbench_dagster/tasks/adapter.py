"""What a framework has to offer: the one class that its author writes.

An adapter lives in a worker process, with limits of time, without secrets in its environment; it may import
what it likes. Nothing of it runs beside Dagster, stores or relays. What it is given and returns are the plain
types of :mod:`~testbench_dagster.core.prompt`. `docs/frameworks.md` shows a complete one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.ids import content_hash
from testbench_dagster.core.prompt import (
    Answered,
    BuiltPrompt,
    DocScore,
    Registered,
    TaskData,
    empty_response,
)
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN, MetricFlags, TaskFlags
from testbench_dagster.tasks.given import check_flags, check_hashable, doc_text


class TaskAdapter(ABC):
    """Registers tasks, builds their requests, scores the answers.

    Made once per worker process, without arguments. All methods raise
    :class:`~testbench_dagster.core.errors.TaskError` for what is wrong with a task; the text names the task,
    the value and the remedy.
    """

    @abstractmethod
    def register(self, spec: TaskSpec) -> Registered:
        """Load a task's docs and describe it; :func:`registered` puts it together.

        The same configuration and data must give the same result in every process, on every machine.
        """

    @abstractmethod
    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs, in ascending order of docs.

        Args:
            spec: the task as configured.
            data: all its docs.
            doc_ids: which docs.
            api: ``chat`` or ``completions``: one of the task's ``forms``.
            seed: of the epoch, secret until it ends; what is drawn anew in each epoch follows from it alone.

        A doc's requests must not depend on which other docs are built.
        """

    @abstractmethod
    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterable[DocScore]:
        """Score answered docs, in the order given; best one after the other (a generator).

        ``data`` holds the docs that are needed. Answers are a supplier's: anything may be in them. One that
        cannot be digested gives a score with an ``error``; what raises, or takes too long, costs only its
        answer, but more time.
        """

    def score_empty(self, spec: TaskSpec, data: TaskData, asked: Sequence[Answered]) -> Iterable[DocScore]:
        """Score an empty answer to each doc: what a failed one counts as where docs have no worst value."""
        return self.score(spec, data, [_empty(doc) for doc in asked])

    def score_probes(self, spec: TaskSpec, data: TaskData, asked: Answered) -> Iterable[DocScore]:
        """Score answers that no supplier gave, to see whether the service is there that a metric asks."""
        return self.score_empty(spec, data, [asked])

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """Put the values of a metric together, one per doc, ascending by docs; None where that is no number.

        By default the mean, where the metric says so.
        """
        name = flags.metrics[metric].aggregation
        if name != MEAN:
            raise TaskError(
                f"task {spec.name!r}: framework {spec.framework!r}: metric {metric!r}: aggregation {name!r} "
                f"is unknown; name {MEAN!r}, or give the adapter an aggregate() that knows it"
            )
        return sum(values) / len(values) if values else None

    def aggregates(self) -> bool:
        """Whether the adapter brings an :meth:`aggregate` of its own, for metrics that have no mean."""
        return type(self).aggregate is not TaskAdapter.aggregate

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str] | None:
        """Task hash and configuration hash that a registration with this data would get here; None: unknown.

        What checks an evidence bundle asks it; ``data`` holds one doc, ``fingerprint`` stands for all.
        """
        return None


def registered(
    spec: TaskSpec,
    docs: Iterable[Mapping[str, Any]],
    *,
    asked: Any,
    scored: Any,
    version: str,
    metrics: Mapping[str, MetricFlags],
    filters: Sequence[str] = ("none",),
    output_type: str = "generate_until",
    forms: Sequence[str] = ("chat", "completions"),
    questions_of_epoch: bool = False,
    pairs: bool = False,
    eval_split: str = "test",
) -> Registered:
    """A task from its docs, JSON objects that hold all that is needed to ask and to score.

    Args:
        spec: the task as configured.
        docs: the docs; their order gives their ids.
        asked: whatever, besides docs and ``spec.options``, decides the requests (a version, a template).
        scored: whatever decides the scores and nothing of the requests.
        version: of the task's definition, shown to people.
        metrics: the metrics by name, the primary one first.
        filters: names of the ways to read an answer, the primary one first.
        output_type: kind of the requests: ``generate_until`` for texts, ``chat`` for requests with tools or a
            response format.
        forms: the request forms it has, ``chat`` or ``completions``.
        questions_of_epoch: whether a doc id is another question in each epoch.
        pairs: whether docs 2k and 2k + 1 are a public and a fresh question; which, is drawn by
            :mod:`testbench_dagster.core.pairs`.
        eval_split: what its docs are called.
    """
    texts = [doc_text(spec, number, doc) for number, doc in enumerate(docs)]
    hashes = [content_hash(text) for text in texts]
    fingerprint = content_hash([hashes, []])
    columns = sorted(json.loads(texts[0])) if texts else []
    flags = TaskFlags(
        output_type=output_type,
        features=columns,
        multiple_input=False,
        multiple_target=False,
        repeats=1,
        num_fewshot=0,
        version=version,
        metrics=dict(metrics),
        filters=[filters] if isinstance(filters, str) else list(filters),
        questions_of_epoch=questions_of_epoch or None,
        pairs=pairs or None,
        forms=[forms] if isinstance(forms, str) else list(forms),
    )
    # before anything is hashed: a value of a wrong type would break that, and nobody knew which it is
    check_flags(spec, flags)
    for name, value in (("asked", asked), ("scored", scored), ("options", dict(spec.options))):
        check_hashable(spec, name, value)
    task_hash, config_hash = identified(spec, flags, fingerprint, asked=asked, scored=scored)
    return Registered(
        task_hash=task_hash,
        config_hash=config_hash,
        fingerprint=fingerprint,
        eval_split=eval_split,
        splits={eval_split: len(texts)},
        doc_hashes=hashes,
        fewshot_hashes=[],
        data=TaskData(dict(enumerate(texts)), [], flags),
    )


def identified(
    spec: TaskSpec, flags: TaskFlags, fingerprint: str, *, asked: Any, scored: Any
) -> tuple[str, str]:
    """Task hash and configuration hash of :func:`registered`, of docs with this fingerprint.

    With the flags of a stored task it is what :meth:`TaskAdapter.identify` has to give.
    """
    told = replace(flags, metric_order=None, source=None, definition=None)  # what storing it added
    decided = [spec.framework, spec.leaf, dict(spec.options), spec.generation.settings(), asked, fingerprint]
    return content_hash(decided)[:40], content_hash([*decided, scored, told.to_document()])


def each(answers: Sequence[Answered], score: Callable[[Answered], DocScore]) -> Iterator[DocScore]:
    """Score one answer after the other; what raises gives that answer an error and no other."""
    for answer in answers:
        try:
            yield score(answer)
        except Exception as error:
            yield DocScore(answer.doc_id, error=f"{type(error).__name__}: {str(error)[:300]}")


def _empty(asked: Answered) -> Answered:
    responses = [
        [empty_response(request)] * max(1, len(answers))
        for request, answers in zip(asked.requests, asked.responses, strict=True)
    ]
    return replace(asked, responses=responses)
