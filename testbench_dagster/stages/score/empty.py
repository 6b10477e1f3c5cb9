"""What an empty answer to a doc is worth: what a failed doc counts as in metrics over all docs at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import Answered
from testbench_dagster.core.records.attempts import UnansweredDoc
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import EmptyScore, EmptyScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.scoring.failures import counts_empty
from testbench_dagster.stages.sample.data import definition_changed, task_data
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, document_id, typed

_DOCS = 500  # ids in one query
_UNANSWERED = [fault.value for fault in Fault if not fault.answered]


class EmptyScores:
    """Reads the scores of empty answers; those of a doc once."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._known: dict[tuple[str, str], dict[int, dict[str, Mapping[str, Any]]]] = {}

    def of(
        self, registration: Registration, doc_ids: Collection[int]
    ) -> Mapping[int, Mapping[str, Mapping[str, Any]]]:
        """By doc and filter the metrics of an empty answer, of the docs that have them."""
        version = scorer_version(registration)
        known = self._known.setdefault((registration.task_hash, version), {})
        missing = sorted(set(doc_ids) - known.keys())
        for start in range(0, len(missing), _DOCS):
            where = {
                "task": registration.task,
                "task_hash": registration.task_hash,
                "scorer_version": version,
                "doc_id": {"in": missing[start : start + _DOCS]},
            }
            for score in typed.find(self._documents, EmptyScore, where):
                known.setdefault(score.doc_id, {})[score.filter] = score.metrics
        return known


def score_empty(
    workspace: Workspace,
    suppliers: Sequence[str],
    spec: TaskSpec,
    registration: Registration,
    since: datetime,
    now: datetime,
) -> int:
    """Score an empty answer to each doc that suppliers left unanswered after an instant; return how many.

    Only for tasks with a metric that counts such docs so, and of each doc once for everybody.
    """
    if not any(counts_empty(registration, metric) for metric in registration.flags.metrics):
        return 0
    documents, version = workspace.documents, scorer_version(registration)
    where: dict[str, Any] = {"task": spec.name, "task_hash": registration.task_hash}
    unanswered = {
        attempt.doc_id: attempt.prompt_id
        for attempt in typed.find(
            documents,
            UnansweredDoc,
            {
                **where,
                "supplier": {"in": sorted(suppliers)},
                "fault": {"in": _UNANSWERED},
                "finished_at": {"gt": since},
            },
        )
    }
    known = EmptyScores(documents).of(registration, unanswered)
    prompts = {prompt for doc_id, prompt in unanswered.items() if doc_id not in known}
    if not prompts or definition_changed(spec, registration):
        return 0
    asked = [
        Answered(p.doc_id, p.requests, [[None] * registration.flags.repeats for _ in p.requests], p.target)
        for p in typed.by_id(documents, AskedPrompt, prompts).values()
    ]
    asked.sort(key=lambda a: a.doc_id)
    data = task_data(workspace, registration, [a.doc_id for a in asked])
    scores = workspace.framework(spec).score_empty(spec, data, asked)
    records = [
        EmptyScoreRecord(
            id=document_id("empty", registration.task_hash, str(score.doc_id), name, version),
            task=spec.name,
            task_hash=registration.task_hash,
            doc_id=score.doc_id,
            filter=name,
            scorer_version=version,
            metrics=metrics,
            error=score.error,
            scored_at=now,
        )
        for score in scores
        if not score.unavailable  # it may yet be scored
        for name, metrics in (
            score.metrics if score.error is None else {f: {} for f in registration.flags.filters}
        ).items()
    ]
    if definition_changed(spec, registration):
        return 0
    return typed.put_new(documents, EmptyScoreRecord, records)
