"""Scoring a batch of answered docs from their evidence, whatever one of the answers does to the scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.errors import BodyUnavailable, StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import TEXT_KINDS, Answered, DocScore
from testbench_dagster.core.records.attempts import RawAnswer
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import UNSCORABLE, ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.sample.data import task_data
from testbench_dagster.stages.score.answered import AnsweredDoc
from testbench_dagster.stages.score.scorer import SECONDS_PER_CALL, Scorer
from testbench_dagster.stages.score.undecided import Trial, marked
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, document_id, typed
from testbench_dagster.tasks.worker import WorkerStopped
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.readings import reading_of

_LARGE_CHARACTERS = 1 << 20  # of metrics; smaller ones fit any store
_EVIDENCE = 50  # docs whose raw answers are in memory at once: a log-probability answer may hold 100 kB


@dataclass(frozen=True)
class ScoredBatch:
    """What came of a batch.

    ``records`` are the scores, and beside them answers that are to be tried again (:mod:`.undecided`).
    ``waiting`` wait for the service that a metric asks, for the reason given; ``gone`` where it is known to
    be gone for everybody, so that no more batches need to be tried. ``hangs`` says why none of the task is to
    be tried again in this run: its scorer comes to no end, whatever it is given. ``unread`` are those whose
    answers cannot be read now where they are kept, ``why_unread`` says why.
    """

    records: list[ScoreRecord]
    waiting: list[AnsweredDoc]
    reason: str | None = None
    gone: bool = False
    hangs: str | None = None
    unread: Sequence[AnsweredDoc] = ()
    why_unread: str | None = None


def score_batch(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    strikes: Counter[str] | None = None,
) -> list[ScoreRecord]:
    """The records of :func:`score_answers`."""
    return score_answers(workspace, spec, registration, docs, strikes).records


def score_answers(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    strikes: Counter[str] | None = None,
) -> ScoredBatch:
    """Score answered docs from their evidence; nothing is stored yet.

    ``strikes`` counts, per supplier, the answers that had to be stopped; a supplier's docs beyond the third
    are left out.
    """
    prompts, read = _answers(workspace.documents, docs)
    docs, answers = read.docs, read.answers
    if not docs:
        return ScoredBatch([], [], unread=read.unread, why_unread=read.why)
    data = task_data(workspace, registration, sorted({a.doc_id for a in answers}))
    items = [(i, doc.supplier, answer) for i, (doc, answer) in enumerate(zip(docs, answers, strict=True))]
    scorer = Scorer(workspace.framework(spec), spec, data, Counter() if strikes is None else strikes)
    scorer.score(items)
    scores, again = scorer.found, scorer.again
    if scorer.open and not scorer.service.gone and scorer.hangs is None:
        fresh = [docs[i] for i, score in scores.items() if score.error is None]
        trial = Trial(
            workspace.documents,
            registration,
            fresh,
            lambda made: _once(workspace, spec, registration, made),
            [supplier.key for supplier in known_suppliers(workspace)],
            datetime.now(UTC) - spec.max_age(workspace.config.settings.sampling.max_age_days),
        )
        for i, error in sorted(scorer.open.items()):
            verdict = trial.verdict(docs[i], answers[i].doc_id, error)
            if verdict is not None:
                (scores if verdict[1] else again)[i] = verdict[0]
    version, now = scorer_version(registration), datetime.now(UTC)

    def records(found: Mapping[int, DocScore]) -> Iterator[ScoreRecord]:
        for i, score in sorted(found.items()):
            yield from _records(docs[i], score, prompts[docs[i].prompt_id], registration, version, now)

    waiting = [docs[i] for i in scorer.waiting if i not in scores and i not in again]
    made = [*records(scores), *map(marked, records(again))]
    service, hangs = scorer.service, scorer.hangs
    if service.gone and service.hangs:
        hangs = f"the service that its metric asks is waited for in vain ({service.reason})"
    return ScoredBatch(made, waiting, service.reason, service.gone, hangs, read.unread, read.why)


def storable(records: Iterable[ScoreRecord]) -> list[ScoreRecord]:
    """The records, in place of those that no store holds others that say so: metrics may quote answers."""
    found = []
    for record in records:
        large = record.error is None and _quotes(record.metrics) > _LARGE_CHARACTERS
        problem = typed.unstorable(record) if large else None
        if problem is not None:
            record = replace(record, metrics={}, extracted=None, error=f"{UNSCORABLE}{problem}")
        found.append(record)
    return found


def _quotes(value: Any) -> int:
    """About how many characters a value of metrics takes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_quotes(one) for one in value.values())
    return sum(_quotes(one) for one in value) if isinstance(value, list) else 0


def _once(
    workspace: Workspace, spec: TaskSpec, registration: Registration, docs: Sequence[AnsweredDoc]
) -> dict[int, DocScore]:
    """Score answers as they stand; nothing where one cannot be read, or where the worker does not survive."""
    _, read = _answers(workspace.documents, docs)
    if read.unread:
        return {}
    answers = read.answers
    data = task_data(workspace, registration, sorted({a.doc_id for a in answers}))
    try:
        scores = workspace.framework(spec).score(spec, data, answers, timeout_s=SECONDS_PER_CALL)
    except WorkerStopped:
        return {}
    return dict(enumerate(scores))


@dataclass
class _Read:
    """Docs with their answers, and those whose answers cannot be read now."""

    docs: list[AnsweredDoc] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    unread: list[AnsweredDoc] = field(default_factory=list)
    why: str | None = None


def _answers(documents: DocumentStore, docs: Sequence[AnsweredDoc]) -> tuple[dict[str, AskedPrompt], _Read]:
    """Parse the answers from their evidence, a few raw ones at a time; return the prompts as well."""
    prompts = typed.by_id(documents, AskedPrompt, {d.prompt_id for d in docs})
    read = _Read()
    for start in range(0, len(docs), _EVIDENCE):
        _read_into(read, documents, prompts, docs[start : start + _EVIDENCE])
    return prompts, read


def _read_into(
    read: _Read,
    documents: DocumentStore,
    prompts: Mapping[str, AskedPrompt],
    docs: Sequence[AnsweredDoc],
) -> None:
    """Read the answers to some docs; one that cannot be read keeps none of the others waiting."""
    try:
        evidence = typed.by_id(
            documents,
            RawAnswer,
            {a.id for d in docs for a in d.attempts},
            suppliers=[d.supplier for d in docs],
        )
    except BodyUnavailable as error:
        if len(docs) == 1:
            read.unread += docs
            read.why = str(error)
            return
        half = len(docs) // 2
        _read_into(read, documents, prompts, docs[:half])
        _read_into(read, documents, prompts, docs[half:])
        return
    read.answers += [_answered(doc, prompts[doc.prompt_id], evidence) for doc in docs]
    read.docs += docs


def _answered(doc: AnsweredDoc, prompt: AskedPrompt, evidence: Mapping[str, RawAnswer]) -> Answered:
    requests = prompt.requests
    responses: list[list[Any]] = [[] for _ in requests]
    for attempt in doc.attempts:
        stored = evidence[attempt.id]
        if stored.status is None:
            raise StoreError(f"attempts[{attempt.id}] counts as answered, but has no HTTP status")
        request = requests[attempt.idx]
        reading = reading_of(stored)
        answer = parse_answer(request, prompt.api, stored.status, stored.body, **reading)
        if request["type"] in TEXT_KINDS:
            responses[attempt.idx].append(answer.text or "")
        else:
            responses[attempt.idx].append((answer.logprob, answer.greedy))
    return Answered(prompt.doc_id, requests, responses, prompt.target)


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
            note=score.notes.get(name),
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
