"""The scoring stage: every answered doc that has no score yet gets one document per filter.

Answers are read from the stored evidence and parsed by the same function that classified them on arrival;
docs come from the dataset store as registered. Both make a score reproducible from evidence alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.coordination.heartbeats import beating
from testbench_dagster.coordination.writing import FactWriter, writing_facts
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import ANY_API, Answered, DocScore, TaskData
from testbench_dagster.core.records.attempts import AttemptsOfTask, CallAttempt, RawAnswer
from testbench_dagster.core.records.prompts import AskedPrompt, PromptCalls
from testbench_dagster.core.records.scores import ScoredCalls, ScoredId, ScoreRecord
from testbench_dagster.core.records.suppliers import SupplierCut
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import SCORER
from testbench_dagster.stages.attempts import last_attempts
from testbench_dagster.stages.sample.catalogue import definition_changed, task_data
from testbench_dagster.stages.score.signatures import remember_signatures
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.tasks.worker import WorkerDied, WorkerTimeout
from testbench_dagster.transports.answers import parse_answer

BATCH = 500  # docs per call to the framework
PAGES = 8  # the same of pages, which may have megabytes each
_EVIDENCE = 50  # docs whose raw answers are in memory at once: a log-probability answer may hold 100 kB
_SECONDS_PER_CALL = 30.0  # includes starting the worker on a busy machine
_SECONDS_PER_DOC = 0.5
_PARTS = 8  # into which a batch is cut when it cannot be scored in time
_ANSWERED = [fault.value for fault in Fault if fault.answered]
_STRIKES = 3  # answers of one supplier and task that had to be stopped before the rest is put off


@dataclass(frozen=True)
class AnsweredDoc:
    """A fully answered prompt of one supplier and round, by its attempts in (idx, repeat) order."""

    supplier: str
    prompt_id: str
    round: int
    attempts: tuple[CallAttempt, ...]

    @property
    def answer_id(self) -> str:
        """Id of the answer: of its attempt, or derived from its several attempts."""
        ids = [a.id for a in self.attempts]
        return ids[0] if len(ids) == 1 else document_id("answer", *ids)


@dataclass
class ScoreReport:
    """How many answers were scored, how many the scorer could not digest or were put off, per task."""

    scored: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    put_off: dict[str, int] = field(default_factory=dict)

    @property
    def n_scored(self) -> int:
        """Docs scored by this call."""
        return sum(self.scored.values())

    @property
    def n_failed(self) -> int:
        """Docs the scorer could not digest."""
        return sum(self.failed.values())

    @property
    def n_put_off(self) -> int:
        """Docs left to a later run: others of their supplier kept the scorer busy for too long, or the
        task's definition was edited and is not registered yet.
        """
        return sum(self.put_off.values())


def scorer_version(registration: Registration) -> str:
    """Name what computed a score: framework, its version, the task configuration, our own revision."""
    framework = f"{registration.framework}-{registration.engine_version}"
    return f"{framework}/{registration.config_hash[:12]}/{SCORER.number}"


def score_new(
    workspace: Workspace,
    suppliers: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    now: datetime | None = None,
) -> ScoreReport:
    """Score what is answered, can still count in a window and has no score of the current scorer; idempotent.

    That covers answers of earlier epochs and rounds, and answers that an earlier scorer scored: when a task's
    filters or metrics change, they are scored anew from the stored evidence.

    The docs of a task are scored together over all given suppliers, because some filters cost 150 ms per
    call whatever its size.
    """
    report = ScoreReport()
    now = now or datetime.now(UTC)
    specs = {spec.name: spec for spec in workspace.chosen_specs(tasks)}
    registrations = {r.task: r for r in workspace.datasets.tasks() if r.task in specs}
    to_score = _to_score(workspace, suppliers, specs, registrations, now)
    if not to_score:
        return report
    documents = workspace.documents
    with beating(documents, workspace.heart) as heart, writing_facts(documents, heart) as writer:
        writer.enter(_by_supplier(to_score))
        for name, since in to_score.items():
            _score_task(workspace, specs[name], registrations[name], since, writer, report)
    return report


def _by_supplier(tasks: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task, suppliers in tasks.items():
        for supplier in suppliers:
            found.setdefault(supplier, []).append(task)
    return found


def _score_task(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    since: Mapping[str, datetime],
    writer: FactWriter,
    report: ScoreReport,
) -> None:
    """Score and store what the given suppliers answered after their instants, and count it."""
    calls = prompt_calls(workspace, registration)
    waiting = [
        doc
        for supplier, oldest in since.items()
        for doc in unscored(workspace, supplier, spec, registration, calls, oldest)
    ]
    strikes: Counter[str] = Counter()
    size = PAGES if registration.flags.output_type == "get" else BATCH
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        scores = _score_as_registered(workspace, spec, registration, batch, strikes)
        if spec.signs:
            remember_signatures(workspace, spec, scores)
        writer.check({doc.supplier for doc in batch})
        typed.put_new(workspace.documents, ScoreRecord, scores)
        covered = {score.answer_id for score in scores}
        failed = {score.answer_id for score in scores if score.error is not None}
        for counts, count in (
            (report.scored, len(covered) - len(failed)),
            (report.failed, len(failed)),
            (report.put_off, len(batch) - len(covered)),
        ):
            if count:
                counts[spec.name] = counts.get(spec.name, 0) + count


def _score_as_registered(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    strikes: Counter[str],
) -> list[ScoreRecord]:
    """Score a batch; give nothing when the worker would do it, or did, by an edited definition.

    Such scores would claim to be the registered scorer's. The catalogue is refreshed first.
    """
    if definition_changed(spec, registration):
        return []
    scores = score_batch(workspace, spec, registration, docs, strikes)
    return [] if definition_changed(spec, registration) else scores


def _to_score(
    workspace: Workspace,
    suppliers: Sequence[str],
    specs: Mapping[str, TaskSpec],
    registrations: Mapping[str, Registration],
    now: datetime,
) -> dict[str, dict[str, datetime]]:
    """By task the suppliers that may have something to score, with the instant after which answers count.

    Answered calls and the calls behind the current scores are counted, in two queries per supplier (and per
    distinct ``max_age_days``): where the numbers are equal every answer has its score.
    """
    known = typed.by_id(workspace.documents, SupplierCut, suppliers)
    cuts = {key: supplier.cut_at for key, supplier in known.items()}
    by_age: dict[datetime, list[str]] = {}
    for name in registrations:
        by_age.setdefault(
            now - specs[name].max_age(workspace.config.settings.sampling.max_age_days), []
        ).append(name)
    found: dict[str, dict[str, datetime]] = {name: {} for name in registrations}
    for supplier in suppliers:
        for oldest, names in by_age.items():
            since = max(oldest, cuts.get(supplier) or oldest)
            for name in _unequal(workspace, supplier, [registrations[n] for n in names], since):
                found[name][supplier] = since
    return {name: since for name, since in found.items() if since}


def _unequal(
    workspace: Workspace, supplier: str, registrations: Sequence[Registration], since: datetime
) -> list[str]:
    """Tasks whose answered calls after an instant are not as many as those behind the current scores."""
    names = {"in": sorted(r.task for r in registrations)}
    answers = typed.group(
        workspace.documents,
        AttemptsOfTask,
        {"supplier": supplier, "task": names, "fault": {"in": _ANSWERED}, "finished_at": {"gt": since}},
    )
    answered = {(row.task, row.task_hash): row.n for row in answers}
    if not answered:
        return []
    # every answer has one document per filter
    scores = typed.group(
        workspace.documents,
        ScoredCalls,
        {"supplier": supplier, "task": names, "answered_at": {"gt": since}},
    )
    scored = {(s.task, s.task_hash, s.scorer_version, s.filter): s.sum_calls for s in scores}
    return [
        r.task
        for r in registrations
        if (count := answered.get((r.task, r.task_hash)))
        and count != scored.get((r.task, r.task_hash, scorer_version(r), r.flags.filters[0]))
    ]


def prompt_calls(workspace: Workspace, registration: Registration) -> dict[str, int]:
    """Number of calls each prompt of a task needs, by prompt id."""
    where = {"task": registration.task, "task_hash": registration.task_hash}
    return {p.id: p.calls for p in typed.find(workspace.documents, PromptCalls, where)}


def unscored(
    workspace: Workspace,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: Mapping[str, int] | None = None,
    since: datetime | None = None,
) -> Iterator[AnsweredDoc]:
    """Yield the fully answered docs of a supplier and task that have no score of the current scorer.

    For ``calls`` and ``since`` see :func:`answered_docs`.
    """
    where: dict[str, Any] = {
        "supplier": supplier,
        "task": spec.name,
        "task_hash": registration.task_hash,
        "scorer_version": scorer_version(registration),
    }
    if since is not None:
        where["answered_at"] = {"gt": since}
    done = {row.answer_id for row in typed.find(workspace.documents, ScoredId, where)}
    for doc in answered_docs(workspace, supplier, spec, registration, calls, since):
        if doc.answer_id not in done:
            yield doc


def answered_docs(
    workspace: Workspace,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: Mapping[str, int] | None = None,
    since: datetime | None = None,
) -> Iterator[AnsweredDoc]:
    """Yield the docs all of whose calls are answered, in any epoch and round, attempts without their bodies.

    ``calls`` is what :func:`prompt_calls` gives, for callers that ask for many suppliers. With ``since`` only
    docs all of whose calls finished after it.
    """
    if calls is None:
        calls = prompt_calls(workspace, registration)
    by_doc: dict[tuple[str, int], list[CallAttempt]] = {}
    for (prompt_id, round_, _, _), attempt in last_attempts(
        workspace.documents, supplier, spec.name, registration.task_hash, since=since
    ).items():
        by_doc.setdefault((prompt_id, round_), []).append(attempt)
    for (prompt_id, round_), attempts in by_doc.items():
        if len(attempts) == calls.get(prompt_id) and all(Fault(a.fault).answered for a in attempts):
            ordered = tuple(sorted(attempts, key=lambda a: (a.idx, a.repeat)))
            yield AnsweredDoc(supplier, prompt_id, round_, ordered)


def score_batch(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    strikes: Counter[str] | None = None,
) -> list[ScoreRecord]:
    """Score answered docs from their evidence and return the scores, not yet stored.

    ``strikes`` counts, per supplier, the answers that had to be stopped; a supplier's docs beyond the third
    are left out.
    """
    prompts, answers = _answers(workspace, docs)
    data = task_data(workspace, registration, sorted({a.doc_id for a in answers}))
    items = [(i, doc.supplier, answer) for i, (doc, answer) in enumerate(zip(docs, answers, strict=True))]
    scores = _score(workspace, spec, data, items, Counter() if strikes is None else strikes)
    version, now = scorer_version(registration), datetime.now(UTC)
    return [
        record
        for i, score in sorted(scores.items())
        for record in _records(docs[i], score, prompts[docs[i].prompt_id], registration, version, now)
    ]


def _answers(
    workspace: Workspace, docs: Sequence[AnsweredDoc]
) -> tuple[dict[str, AskedPrompt], list[Answered]]:
    """Parse the answers from their evidence, a few raw ones at a time; return the prompts as well."""
    prompts = typed.by_id(workspace.documents, AskedPrompt, {d.prompt_id for d in docs})
    answers = []
    for start in range(0, len(docs), _EVIDENCE):
        lot = docs[start : start + _EVIDENCE]
        evidence = typed.by_id(workspace.documents, RawAnswer, {a.id for d in lot for a in d.attempts})
        answers += [_answered(d, prompts[d.prompt_id], evidence) for d in lot]
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
    workspace: Workspace,
    spec: TaskSpec,
    data: TaskData,
    items: Sequence[tuple[int, str, Answered]],
    strikes: Counter[str],
) -> dict[int, DocScore]:
    """Score (number, supplier, answer) items in the worker and return the scores by number.

    An answer may keep a filter busy for ever, or kill the worker. The batch is then cut, first by supplier,
    until the answer stands alone and becomes an error of its own.
    """
    items = [item for item in items if strikes[item[1]] < _STRIKES]
    if not items:
        return {}
    framework = workspace.framework(spec)
    limit = _SECONDS_PER_CALL + _SECONDS_PER_DOC * len(items)
    try:
        scores = framework.score(spec, data, [answer for _, _, answer in items], timeout_s=limit)
        return {number: score for (number, _, _), score in zip(items, scores, strict=True)}
    except (WorkerTimeout, WorkerDied) as error:
        if len(items) == 1:
            number, supplier, answer = items[0]
            # without it the worker must be well, or the trouble is not the answer's and fails the stage
            framework.score(spec, data, [], timeout_s=_SECONDS_PER_CALL)
            strikes[supplier] += 1
            return {number: DocScore(answer.doc_id, error=str(error))}
    suppliers = dict.fromkeys(supplier for _, supplier, _ in items)
    if len(suppliers) > 1:
        parts = [[item for item in items if item[1] == supplier] for supplier in suppliers]
    else:
        size = -(-len(items) // _PARTS)
        parts = [items[start : start + size] for start in range(0, len(items), size)]
    found: dict[int, DocScore] = {}
    for part in parts:
        found |= _score(workspace, spec, data, part, strikes)
    return found


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
