"""Answers that the scorer cannot digest where it does not digest an empty one either: whose doing that is.

An answer that is scored already is scored once more, now. If that succeeds the scorer and the service it asks
are well, and the trouble is the doc's or the answer's: the answer's, if the other one was to the same doc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from testbench_dagster.core.prompt import DocScore
from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.core.records.scores import UNSCORABLE, ScoredAttempts, ScoreRecord, UndecidedDoc
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.score.answered import AnsweredDoc
from testbench_dagster.stores.documents import DocumentStore, Where, document_id, typed

#: Is appended to the scorer's version in the record of an answer that it could not digest while it was well:
#: no score, so that the answer is tried again.
_UNDECIDED = "/undecided"

_TOGETHER = 50  # suppliers whose answers are looked for with one query
_FEW = 50  # answers of them, where any will do

#: Scores answered docs now, of those that the scorer digests.
Rescore = Callable[[Sequence[AnsweredDoc]], Mapping[int, DocScore]]


def undecided_version(registration: Registration) -> str:
    """What the records of a task's answers have for a scorer's version that a well scorer did not digest."""
    return scorer_version(registration) + _UNDECIDED


def undecided_docs(
    documents: DocumentStore, supplier: str, registrations: Iterable[Registration], since: datetime
) -> set[tuple[str, int, int, int]]:
    """Which answers of a supplier, later than an instant, a well scorer could not digest.

    By task, doc, epoch and round.
    """
    tasks = list(registrations)
    where = {
        "supplier": supplier,
        "task": {"in": sorted({r.task for r in tasks})},
        "task_hash": {"in": sorted({r.task_hash for r in tasks})},
        "scorer_version": {"in": sorted({undecided_version(r) for r in tasks})},
        "answered_at": {"gt": since},
    }
    return {
        (one.task, one.doc_id, one.epoch, one.round) for one in typed.find(documents, UndecidedDoc, where)
    }


def is_undecided(version: str) -> bool:
    """Whether a scorer's version in a record says that the record is no score."""
    return version.endswith(_UNDECIDED)


def decided(scores: Iterable[ScoreRecord]) -> list[ScoreRecord]:
    """Of records of answers those that are scores."""
    return [score for score in scores if not is_undecided(score.scorer_version)]


def marked(record: ScoreRecord) -> ScoreRecord:
    """The record of an answer that was not scored, as one that is tried again."""
    version = record.scorer_version + _UNDECIDED
    return replace(
        record,
        id=document_id("score", record.answer_id, record.filter, version),
        scorer_version=version,
    )


class Trial:
    """Decides about such answers of one task; what it scores anew is scored at most once per doc."""

    def __init__(
        self,
        documents: DocumentStore,
        registration: Registration,
        fresh: Sequence[AnsweredDoc],
        rescore: Rescore,
        suppliers: Sequence[str],
        since: datetime,
    ) -> None:
        """``fresh``: what was scored just now, and is not stored yet.

        ``suppliers`` are the keys of those whose answers since an instant are looked through.
        """
        self._documents, self._registration = documents, registration
        self._fresh, self._rescore = fresh, rescore
        self._suppliers, self._since = suppliers, since
        self._well: bool | None = None

    def verdict(self, doc: AnsweredDoc, doc_id: int, error: str) -> tuple[DocScore, bool] | None:
        """What becomes of an answer: its outcome, and whether that is final; None where nothing is known."""
        others = (other for other in self._scored(doc_id) if other.supplier != doc.supplier)
        if self._digests(others):
            self._well = True
            return DocScore(doc_id, error=f"{UNSCORABLE}{error}"), True
        if self._well is None:
            self._well = self._digests(self._scored(None))
        return (DocScore(doc_id, error=error), False) if self._well else None

    def _digests(self, answered: Iterator[AnsweredDoc]) -> bool:
        """Whether the first of some answers, which was scored before, is scored now as well."""
        first = next(answered, None)
        return first is not None and any(s.error is None for s in self._rescore([first]).values())

    def _scored(self, doc_id: int | None) -> Iterator[AnsweredDoc]:
        """Answers that are scored, to one doc or to any."""
        for doc in self._fresh:
            if doc_id is None or doc.attempts[0].doc_id == doc_id:
                yield doc
        where = {
            "task": self._registration.task,
            "task_hash": self._registration.task_hash,
            "scorer_version": scorer_version(self._registration),
            "filter": self._registration.flags.filters[0],
            "answered_at": {"gt": self._since},
            **({} if doc_id is None else {"doc_id": doc_id}),
        }
        for start in range(0, len(self._suppliers), _TOGETHER):
            some = {"in": list(self._suppliers[start : start + _TOGETHER])}
            yield from self._of({**where, "supplier": some}, None if doc_id is not None else _FEW)

    def _of(self, where: Where, most: int | None) -> Iterator[AnsweredDoc]:
        """Answers with such a score, ``most`` of the newest if told."""
        newest = [("answered_at", -1)]
        for score in typed.find(self._documents, ScoredAttempts, where, sort=newest, limit=most):
            if score.error is not None:
                continue
            attempts = typed.by_id(
                self._documents, CallAttempt, score.attempt_ids, suppliers=[score.supplier]
            )
            if len(attempts) == len(score.attempt_ids):  # else they were removed with age
                made = tuple(attempts[id_] for id_ in score.attempt_ids)
                yield AnsweredDoc(score.supplier, score.prompt_id, score.round, made)
