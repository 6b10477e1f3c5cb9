"""Scoring a batch of answered docs from their evidence, whatever one of the answers does to the scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import ANY_API, Answered, DocScore, TaskData
from testbench_dagster.core.records.attempts import RawAnswer
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import UNSCORABLE, ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.sample.data import task_data
from testbench_dagster.stages.score.answered import AnsweredDoc
from testbench_dagster.stages.score.undecided import Trial, marked
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, document_id, typed
from testbench_dagster.tasks.frameworks import Framework
from testbench_dagster.tasks.worker import WorkerDied, WorkerTimeout
from testbench_dagster.transports.answers import parse_answer

_EVIDENCE = 50  # docs whose raw answers are in memory at once: a log-probability answer may hold 100 kB
_SECONDS_PER_CALL = 30.0  # includes starting the worker on a busy machine
_SECONDS_PER_DOC = 0.5
_PARTS = 8  # into which a batch is cut when it cannot be scored in time
_STRIKES = 3  # answers of one supplier and task that had to be stopped before the rest is put off


def score_batch(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    strikes: Counter[str] | None = None,
) -> list[ScoreRecord]:
    """Score answered docs from their evidence and return the scores, not yet stored.

    ``strikes`` counts, per supplier, the answers that had to be stopped; a supplier's docs beyond the third
    are left out. Beside the scores stand answers that are to be tried again (:mod:`.undecided`).
    """
    prompts, answers = _answers(workspace.documents, docs)
    data = task_data(workspace, registration, sorted({a.doc_id for a in answers}))
    items = [(i, doc.supplier, answer) for i, (doc, answer) in enumerate(zip(docs, answers, strict=True))]
    framework = workspace.framework(spec)
    open_: dict[int, str] = {}
    scores = _score(framework, spec, data, items, Counter() if strikes is None else strikes, open_)
    again: dict[int, DocScore] = {}
    if open_:
        fresh = [docs[i] for i, score in scores.items() if score.error is None]
        trial = Trial(
            workspace.documents, registration, fresh, lambda made: _once(workspace, spec, registration, made)
        )
        for i, error in sorted(open_.items()):
            verdict = trial.verdict(docs[i], answers[i].doc_id, error)
            if verdict is not None:
                (scores if verdict[1] else again)[i] = verdict[0]
    version, now = scorer_version(registration), datetime.now(UTC)

    def records(found: Mapping[int, DocScore]) -> Iterator[ScoreRecord]:
        for i, score in sorted(found.items()):
            yield from _records(docs[i], score, prompts[docs[i].prompt_id], registration, version, now)

    return [*records(scores), *map(marked, records(again))]


def _once(
    workspace: Workspace, spec: TaskSpec, registration: Registration, docs: Sequence[AnsweredDoc]
) -> dict[int, DocScore]:
    """Score answers as they stand; nothing where the worker does not live through it."""
    _, answers = _answers(workspace.documents, docs)
    data = task_data(workspace, registration, sorted({a.doc_id for a in answers}))
    try:
        scores = workspace.framework(spec).score(spec, data, answers, timeout_s=_SECONDS_PER_CALL)
    except (WorkerTimeout, WorkerDied):
        return {}
    return dict(enumerate(scores))


def _answers(
    documents: DocumentStore, docs: Sequence[AnsweredDoc]
) -> tuple[dict[str, AskedPrompt], list[Answered]]:
    """Parse the answers from their evidence, a few raw ones at a time; return the prompts as well."""
    prompts = typed.by_id(documents, AskedPrompt, {d.prompt_id for d in docs})
    answers = []
    for start in range(0, len(docs), _EVIDENCE):
        batch = docs[start : start + _EVIDENCE]
        evidence = typed.by_id(documents, RawAnswer, {a.id for d in batch for a in d.attempts})
        answers += [_answered(d, prompts[d.prompt_id], evidence) for d in batch]
    return prompts, answers


def _answered(doc: AnsweredDoc, prompt: AskedPrompt, evidence: Mapping[str, RawAnswer]) -> Answered:
    requests = prompt.requests
    responses: list[list[Any]] = [[] for _ in requests]
    for attempt in doc.attempts:
        stored = evidence[attempt.id]
        if stored.status is None:
            raise StoreError(f"attempts[{attempt.id}] counts as answered, but has no HTTP status")
        request = requests[attempt.idx]
        answer = parse_answer(request, prompt.api, stored.status, stored.body)
        if request["type"] in ANY_API:
            responses[attempt.idx].append(answer.text or "")
        else:
            responses[attempt.idx].append((answer.logprob, answer.greedy))
    return Answered(prompt.doc_id, requests, responses)


def _score(
    framework: Framework,
    spec: TaskSpec,
    data: TaskData,
    items: Sequence[tuple[int, str, Answered]],
    strikes: Counter[str],
    open_: dict[int, str],
) -> dict[int, DocScore]:
    """Score (number, supplier, answer) items in the worker and return the scores by number.

    Numbers of which it remains open whose fault it is go to ``open_``, with what went wrong.

    An answer may keep a filter busy for ever, kill the worker, or be more than a metric can digest. The batch
    is then cut, first by supplier, until the answer stands alone. Whether it is the answer's doing shows the
    scorer at an empty answer to the same doc.
    """
    items = [item for item in items if strikes[item[1]] < _STRIKES]
    if not items:
        return {}
    limit = _SECONDS_PER_CALL + _SECONDS_PER_DOC * len(items)
    try:
        scores = framework.score(spec, data, [answer for _, _, answer in items], timeout_s=limit)
    except (WorkerTimeout, WorkerDied) as error:
        if len(items) == 1:
            return _alone(framework, spec, data, items[0], str(error), strikes, open_)
    else:
        found: dict[int, DocScore] = {}
        for item, score in zip(items, scores, strict=True):
            if score.error is None:
                found[item[0]] = score
            else:
                found |= _alone(framework, spec, data, item, score.error, strikes, open_)
        return found
    suppliers = dict.fromkeys(supplier for _, supplier, _ in items)
    if len(suppliers) > 1:
        parts = [[item for item in items if item[1] == supplier] for supplier in suppliers]
    else:
        size = -(-len(items) // _PARTS)
        parts = [items[start : start + size] for start in range(0, len(items), size)]
    found = {}
    for part in parts:
        found |= _score(framework, spec, data, part, strikes, open_)
    return found


def _alone(
    framework: Framework,
    spec: TaskSpec,
    data: TaskData,
    item: tuple[int, str, Answered],
    error: str,
    strikes: Counter[str],
    open_: dict[int, str],
) -> dict[int, DocScore]:
    """What an answer comes to that could not be scored by itself; a worker it killed is a fresh one by now.

    ``unscorable`` is what cannot be scored again, although the same scorer digests an empty answer. Where it
    does not digest that either, the trouble may be the doc's or the scorer's: it is left open. A page is what
    a supplier says of itself, and has no such second try.
    """
    number, supplier, answer = item
    # without any answer the worker must be well, or the trouble is not the answer's and fails the stage
    framework.score(spec, data, [], timeout_s=_SECONDS_PER_CALL)
    if spec.signs:
        return {number: DocScore(answer.doc_id, error=error)}
    try:
        (empty,) = framework.score_empty(spec, data, [answer], timeout_s=_SECONDS_PER_CALL)
    except (WorkerTimeout, WorkerDied):
        open_[number] = error
        return {}
    if empty.error is not None:
        open_[number] = error
        return {}
    try:
        (again,) = framework.score(spec, data, [answer], timeout_s=_SECONDS_PER_CALL)
    except (WorkerTimeout, WorkerDied) as second:
        strikes[supplier] += 1
        again = DocScore(answer.doc_id, error=str(second))
    if again.error is not None:
        again = DocScore(answer.doc_id, error=f"{UNSCORABLE}{again.error}")
    return {number: again}


def _records(
    doc: AnsweredDoc,
    score: DocScore,
    prompt: AskedPrompt,
    registration: Registration,
    version: str,
    now: datetime,
) -> Iterator[ScoreRecord]:
    last = max(doc.attempts, key=lambda a: a.finished_at)
    filters = score.metrics if score.error is None else {f: {} for f in registration.flags.filters}
    for name, metrics in filters.items():
        yield ScoreRecord(
            id=document_id("score", doc.answer_id, name, version),
            supplier=doc.supplier,
            service=last.service,
            task=registration.task,
            task_hash=registration.task_hash,
            epoch=prompt.epoch,
            round=doc.round,
            position=prompt.position,
            doc_id=prompt.doc_id,
            filter=name,
            answer_id=doc.answer_id,
            answered_at=last.finished_at,
            calls=len(doc.attempts),
            scorer_version=version,
            metrics=metrics,
            error=score.error,
            extracted=score.extracted.get(name),
            prompt_id=doc.prompt_id,
            attempt_ids=[a.id for a in doc.attempts],
            truncated=any(Fault(a.fault).row.cut_short for a in doc.attempts),
            latency_ms=sum(a.latency_ms for a in doc.attempts),
            prompt_tokens=_total(a.prompt_tokens for a in doc.attempts),
            completion_tokens=_total(a.completion_tokens for a in doc.attempts),
            scored_at=now,
        )


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
