"""The samples of a supplier and task that a window is made of: newest outcome per doc, young enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import WindowAttempt
from testbench_dagster.core.records.scores import ScoredAnswer
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Sample
from testbench_dagster.stages.attempts import last_by_call
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_TASKS = 50  # whose facts of one supplier are read together, and in memory at once
Task = tuple[TaskSpec, Registration]


def window_samples(
    workspace: Workspace, supplier: Supplier, spec: TaskSpec, registration: Registration, now: datetime
) -> list[Sample]:
    """Return the samples inside the window, ascending by doc id (aggregation order matters: last bits).

    The window holds the newest outcome per doc, no older than the task's maximum age and later than the
    last change of the supplier's model (``cut_at``); of these the newest ``sampling.window`` that count
    (scored, or failed by the supplier), unless the task wants all docs. An outcome that is not the supplier's
    fault never hides one that counts; of docs without any that counts it is kept, to be shown.
    """
    [(_, found)] = samples_by_task(workspace, supplier, [(spec, registration)], now)
    return found.samples


@dataclass(frozen=True)
class WindowSamples:
    """What :func:`window_samples` returns, and what ends it; and all that the supplier's answers scored.

    ``attempts`` are all that are young enough and after the last change, whichever docs the window holds.
    While no new fact is written all of this stays the same until ``oldest`` is older than the task's maximum
    age, for good if it is None.
    """

    samples: list[Sample]
    oldest: datetime | None
    scored: list[Sample]
    attempts: Sequence[WindowAttempt]


def samples_by_task(
    workspace: Workspace, supplier: Supplier, tasks: Sequence[Task], now: datetime
) -> Iterator[tuple[str, WindowSamples]]:
    """Yield each task's name and the samples in its window: two queries for up to 50 tasks."""
    for start in range(0, len(tasks), _TASKS):
        batch = tasks[start : start + _TASKS]
        since = {spec.name: counts_after(workspace, supplier, spec, now) for spec, _ in batch}
        scored = _read_scored(workspace, supplier.key, batch, since)
        attempts = _read_attempts(workspace, supplier.key, batch, since)
        for spec, _ in batch:
            yield spec.name, _window(workspace, spec, scored[spec.name], attempts[spec.name])


def scored_by_task(
    workspace: Workspace, supplier: Supplier, tasks: Sequence[Task], now: datetime
) -> dict[str, list[Sample]]:
    """By task what a supplier's answers scored, young enough and after its last change, in any number.

    Every scored answer is there: several of a doc, and more than a window holds.
    """
    since = {spec.name: counts_after(workspace, supplier, spec, now) for spec, _ in tasks}
    found = _read_scored(workspace, supplier.key, tasks, since)
    return {task: [s for s in samples if s.scored] for task, samples in found.items()}


def counts_after(workspace: Workspace, supplier: Supplier, spec: TaskSpec, now: datetime) -> datetime:
    """The instant after which an answer must have finished to count."""
    oldest = now - spec.max_age(workspace.config.settings.sampling.max_age_days)
    return oldest if supplier.cut_at is None else max(oldest, supplier.cut_at)


def _window(
    workspace: Workspace, spec: TaskSpec, scored: Sequence[Sample], attempts: Sequence[WindowAttempt]
) -> WindowSamples:
    failed, ends = _failed(attempts)
    newest: dict[int, Sample] = {}
    for sample in (*scored, *failed):
        known = newest.get(sample.doc_id)
        if known is None or known.rank < sample.rank:
            newest[sample.doc_id] = sample
    counting = [s for s in newest.values() if s.counts]
    counted = newest_docs(workspace, spec, counting)
    shown = [s for s in newest.values() if not s.counts]
    ends += [s.at for s in (*counted, *shown)] + [a.finished_at for a in attempts]
    if len(counted) < len(counting):
        ends += _hidden(counting, {s.doc_id for s in counted}, scored, attempts)
    return WindowSamples(
        sorted([*counted, *shown], key=lambda s: s.doc_id),
        min(ends, default=None),
        [s for s in scored if s.scored],
        attempts,
    )


def _hidden(
    counting: Iterable[Sample], inside: set[int], scored: Iterable[Sample], attempts: Iterable[WindowAttempt]
) -> list[datetime]:
    """When docs too old for a full window may show up again: something younger of them is hidden so far."""
    youngest: dict[int, datetime] = {}
    for doc_id, at in (
        *((s.doc_id, s.at) for s in scored),
        *((a.doc_id, a.finished_at) for a in attempts),
    ):
        youngest[doc_id] = max(at, youngest.get(doc_id, at))
    return [s.at for s in counting if s.doc_id not in inside and s.at < youngest[s.doc_id]]


def newest_docs(workspace: Workspace, spec: TaskSpec, samples: Iterable[Sample]) -> list[Sample]:
    """Of samples of different docs the newest ``sampling.window``, all if the task wants all its docs."""
    ordered = sorted(samples, key=lambda s: (s.at, s.doc_id), reverse=True)
    return ordered if spec.samples is None else ordered[: workspace.config.settings.sampling.window]


def newest_scored(workspace: Workspace, spec: TaskSpec, samples: Iterable[Sample]) -> list[Sample]:
    """Of scored answers the newest of each doc, and of these as many as a window holds; the newest first.

    Whatever a window over several suppliers takes from this one is among them.
    """
    newest: dict[int, Sample] = {}
    for sample in samples:
        known = newest.get(sample.doc_id)
        if known is None or known.rank < sample.rank:
            newest[sample.doc_id] = sample
    return newest_docs(workspace, spec, newest.values())


def _of_tasks(supplier: str, tasks: Sequence[Task]) -> dict[str, Any]:
    return {
        "supplier": supplier,
        "task": {"in": [spec.name for spec, _ in tasks]},
        "task_hash": {"in": sorted({registration.task_hash for _, registration in tasks})},
    }


def _read_scored(
    workspace: Workspace, supplier: str, tasks: Sequence[Task], since: Mapping[str, datetime]
) -> dict[str, list[Sample]]:
    """By task the answers that the current scorer looked at, in one query."""
    wanted = {
        spec.name: (registration.task_hash, scorer_version(registration)) for spec, registration in tasks
    }
    where = {
        **_of_tasks(supplier, tasks),
        "scorer_version": {"in": sorted({version for _, version in wanted.values()})},
        "answered_at": {"gt": min(since.values())},
    }
    found: dict[str, dict[str, Sample]] = {name: {} for name in wanted}
    for score in typed.find(workspace.documents, ScoredAnswer, where):
        task = score.task
        if (score.task_hash, score.scorer_version) != wanted[task] or score.answered_at <= since[task]:
            continue
        known = found[task].get(score.answer_id)
        if known is not None and known.metrics is not None:
            known.metrics[score.filter] = score.metrics
            continue
        failed = score.error is not None
        found[task][score.answer_id] = Sample(
            doc_id=score.doc_id,
            at=score.answered_at,
            epoch=score.epoch,
            round=score.round,
            # an answer the scorer cannot digest is our fault until someone shows otherwise
            fault=Fault.INTERNAL if failed else Fault.TRUNCATED if score.truncated else Fault.OK,
            metrics=None if failed else {score.filter: score.metrics},
            prompt_tokens=score.prompt_tokens,
            completion_tokens=score.completion_tokens,
        )
    return {task: list(samples.values()) for task, samples in found.items()}


def _read_attempts(
    workspace: Workspace, supplier: str, tasks: Sequence[Task], since: Mapping[str, datetime]
) -> dict[str, list[WindowAttempt]]:
    """By task the attempts that finished in time, in one query, without their bodies."""
    hashes = {spec.name: registration.task_hash for spec, registration in tasks}
    where = {**_of_tasks(supplier, tasks), "finished_at": {"gt": min(since.values())}}
    found: dict[str, list[WindowAttempt]] = {name: [] for name in hashes}
    for attempt in typed.find(workspace.documents, WindowAttempt, where):
        task = attempt.task
        if attempt.task_hash == hashes[task] and attempt.finished_at > since[task]:
            found[task].append(attempt)
    return found


def _failed(attempts: Sequence[WindowAttempt]) -> tuple[list[Sample], list[datetime]]:
    """Docs whose outcome in a round is a failure: one of their calls ended in a fault.

    Returned as well: instants whose ageing may put another failure in the place of one of these.
    """
    worst: dict[tuple[str, int], WindowAttempt] = {}
    ends = []
    last = last_by_call(attempts)
    for (prompt_id, round_, _, _), attempt in last.items():
        fault = Fault(attempt.fault)
        if fault.answered:
            continue
        known = worst.get((prompt_id, round_))
        if known is not None:
            ends += [known.finished_at, attempt.finished_at]
        # of several failed calls the one that decides the doc stands for it
        if known is None or (fault.final and not Fault(known.fault).final):
            worst[(prompt_id, round_)] = attempt
    # the last by number is the last by time as well, but for machines whose clocks differ
    for attempt in attempts:
        of_call = last[attempt.prompt_id, attempt.round, attempt.idx, attempt.repeat]
        if of_call.finished_at < attempt.finished_at:
            ends.append(of_call.finished_at)
    samples = [
        Sample(attempt.doc_id, attempt.finished_at, attempt.epoch, round_, Fault(attempt.fault))
        for (_, round_), attempt in worst.items()
    ]
    return samples, ends
